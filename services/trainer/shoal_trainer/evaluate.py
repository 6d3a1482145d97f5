"""Dev scores of an exported folder, by the definitions of `score.py`, with what calibration needs of each answer."""
from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from . import runtime
from .constrain import Form
from .encoder import runtime as encoder
from .tasks import Row, Task


SAMPLES = 2000  # Of the bootstrap: the 2.5 % bounds then rest on fifty of them.


@dataclass(frozen=True)
class Judged:
    """One answer: its row, what was said, how sure, whether it is right, and whether it was by itself."""

    row: Row
    text: str
    output: Any
    statistics: dict[str, float]
    right: bool
    unaided: bool = True

    @property
    def trusted(self) -> bool:
        """What confidence is the probability of. An answer that was helped is right by the metric and yet one to doubt."""
        return self.right and self.unaided


def judge(folder: Path, task: Task, rows: list[Row], limit: int = 192, card: dict[str, Any] | None = None) -> list[Judged]:
    """Greedy answers to every row, held to the task's form as in serving; a prompt that does not fit is answered by nothing."""
    judged = []
    for row, answer in zip(rows, answers(folder, task.name, [row["input"] for row in rows], limit, card)):
        if answer is None:
            judged.append(Judged(row, "", None, {name: -100.0 for name in ("mean_logprob", "sum_logprob", "min_logprob")}, False))
            continue
        said = task.read(answer.text)
        judged.append(Judged(row, answer.text, said, answer.statistics, task.right(row, said), not answer.helped))
    return judged


def answers(folder: Path, task: str, inputs: Sequence[Any], limit: int = 192, card: dict[str, Any] | None = None) -> Iterator[runtime.Answer | None]:
    """What a folder says to each input; None to one that does not fit."""
    about = card if card is not None else tomllib.loads((folder / "card.toml").read_text())
    opened = runtime.Folder(folder) if about["kind"] == "generate" else encoder.open_folder(folder, about)
    form = Form.of(folder, about, task)
    return (opened.greedy(task, given, limit, form) for given in tqdm(inputs, desc=f"dev {task}", mininterval=5))


def metrics(task: Task, judged: list[Judged]) -> dict[str, float | int | str]:
    """score.py's metrics on services seen in training, and on the rest by the same names with `unseen_` before them. `unaided`, where a task says what an
    answer must say: the share of answers that said it by themselves."""
    found: dict[str, float | int | str] = {"split": "dev"}
    for prefix, seen in (("", True), ("unseen_", False)):
        part = [j for j in judged if j.row.get("seen", True) is seen]
        rows = [(j.row, j.row["target"], j.output) for j in part]
        if rows:
            found[f"{prefix}rows"] = len(rows)
            found |= {prefix + k: round(v, 4) for k, v in task.metrics(rows).items() if v is not None}
            if "required" in (task.output() or {}):
                found[f"{prefix}unaided"] = round(sum(j.unaided for j in part) / len(part), 4)
            if seen:
                low, high = interval(np.array([task.weight(row) for row in rows]))
                found |= {f"{task.main}_low": round(low, 4), f"{task.main}_high": round(high, 4)}
    return found


def interval(weights: np.ndarray, seed: int = 1) -> tuple[float, float]:
    """How far the main metric could be from what it is by the luck of the rows: a percentile bootstrap (Efron 1979), 95 %. `weights` has what each
    row adds to the sum that is divided, and to the sum that it is divided by."""
    rng = np.random.default_rng(seed)
    drawn = [weights[rng.integers(len(weights), size=len(weights))].sum(axis=0) for _ in range(SAMPLES)]
    shares = [hit / of for hit, of in drawn if of] or [0.0]
    return float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))


def escalation(small: list[Judged], large: list[Judged], threshold: float, confidence: Callable[[dict[str, float]], float]) -> dict[str, dict[str, float | int]]:
    """`left`, on services seen in training, on others where dev has such, and on all rows: the mesh escalates them alike."""
    known = [j.row.get("seen", True) for j in small]
    parts = {"seen": [i for i, k in enumerate(known) if k], "unseen": [i for i, k in enumerate(known) if not k], "all": range(len(known))}
    return {name: left([small[i] for i in rows], [large[i] for i in rows], threshold, confidence) for name, rows in parts.items() if rows}


def left(small: list[Judged], large: list[Judged], threshold: float, confidence: Callable[[dict[str, float]], float]) -> dict[str, float | int]:
    """What each answers right of the rows that the small one leaves, being less sure than its threshold. Both were asked the same rows."""
    pairs = [(one, other) for one, other in zip(small, large, strict=True) if confidence(one.statistics) < threshold]
    share = lambda judged: round(sum(j.right for j in judged) / max(1, len(pairs)), 4)  # noqa: E731
    return {"rows": len(small), "left": len(pairs), "small_right": share(one for one, _ in pairs), "large_right": share(other for _, other in pairs)}
