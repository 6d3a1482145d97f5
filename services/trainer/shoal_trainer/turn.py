"""One turn of a retraining: the incumbent judged, a candidate made and judged on the same rows, both weighed.

What each kind of model learns by is its own module's (`retrain.KINDS`); which of its answers are held against each other, and what is remembered for
the next turn, is here. `gate` decides.
"""
from __future__ import annotations

import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import bleu, gate
from .lesson import Lesson, Staged
from .split import Split
from .tasks import Row, Task
from .tasks.base import FEWER

if TYPE_CHECKING:  # It needs numpy, and a dry run has none.
    from .evaluate import Judged

# In a card's free `[training]`, by name: how far a version is on dev under the best of the versions that retrainings led to it from. Differences, each
# of the same rows, and no score: rows near what a turn learns from are left out of its dev, so scores of two turns are of different rows.
BELOW = "below_best"


class Learner(Protocol):
    """How one kind of model learns and answers: a module of `retrain.KINDS`."""

    def train_from(self, version: Path, lesson: Lesson, work: Path, staging: Path) -> Staged:
        """Trains the version's own weights on the lesson."""
        ...

    def judge(self, version: Path, task: Task, rows: list[Row]) -> list[Judged]:
        """What a version answers."""
        ...


def turn(learner: Learner, version: Path, lesson: Lesson, sides: Split, work: Path) -> gate.Verdict:
    """The verdict on a candidate, which is below `work`."""
    before = {t.name: learner.judge(version, t, lesson.dev[t.name]) for t in lesson.tasks}
    held_before = learner.judge(version, lesson.task, sides.held_out)
    staged = learner.train_from(version, lesson, work / "checkpoint", work / "candidate")
    # The candidate is fp32, and a later training can start from it as from a checkpoint.
    shutil.rmtree(work / "checkpoint")
    held_after = learner.judge(staged.folder, lesson.task, sides.held_out)
    dev: dict[str, list[gate.Pair]] = {}
    bars: list[gate.Bar] = []
    for task in lesson.tasks:
        both = before[task.name], staged.dev[task.name]
        dev[task.name] = rights(*both)
        if not task.one_answer:
            dev[f"{task.name}'s closeness"] = closeness(task, *both)
        bars += measured(task, *both)
    asked = {"held_out": rights(held_before, held_after)}
    if not lesson.task.one_answer:
        # What such an answer must say is said by force in serving, so it is right before any lesson: what people correct is how it is said.
        asked = {"held_out": closeness(lesson.task, held_before, held_after), "still_right": asked["held_out"]}
    verdict = gate.weigh(dev=dev, below=_card(version).get("training", {}).get(BELOW), bars=bars, **asked)
    verdict = replace(verdict, held_out_right=routed(_card(staged.folder), lesson.task, held_after))
    _remember(staged.folder, verdict.below)
    _say(f"held-out corrections: {verdict.held_out}")
    if verdict.held_out_right:
        _say("of those that are right the candidate's own threshold keeps {kept}, and {escalated} go to the larger tier where the chain has one".format(**verdict.held_out_right))
    for name, figures in verdict.dev.items():
        _say(f"dev {name}: {figures}")
    _say(("accepted: " if verdict.accepted else "refused: ") + verdict.why)
    return verdict


def routed(card: dict[str, Any], task: Task, judged: list[Judged]) -> dict[str, int]:
    """Of the answers that are right, how many a version is sure enough of to answer with, by its own threshold, and how many it would leave to a larger
    tier, whose answer is another. Nothing of a card that has no threshold."""
    from . import calibrate  # It needs numpy, and a dry run has none.

    known = card.get("calibration", {}).get(task.name)
    if known is None:
        return {}
    confidence = calibrate.Map.of(known)
    sure = [confidence(j.statistics) >= known["confidence_threshold"] for j in judged if j.right]
    return {"kept": sum(sure), "escalated": len(sure) - sum(sure)}


def rights(before: list[Judged], after: list[Judged]) -> list[gate.Pair]:
    """Whether each row was answered rightly."""
    return [(one.right, other.right) for one, other in zip(before, after, strict=True)]


def closeness(task: Task, before: list[Judged], after: list[Judged]) -> list[gate.Pair]:
    """How close each answer comes to the row's own."""
    wanted = [task.say(j.row["target"]) for j in before]
    return [(bleu.sentence(one.text, said), bleu.sentence(other.text, said)) for one, other, said in zip(before, after, wanted, strict=True)]


def measured(task: Task, before: list[Judged], after: list[Judged]) -> list[gate.Bar]:
    """The task's bars, with what a card would say of both: on services seen in training, to four places."""
    metrics = []
    for judged in (before, after):
        seen = [(j.row, j.row["target"], j.output) for j in judged if j.row.get("seen", True)]
        metrics.append({name: round(value, 4) for name, value in task.metrics(seen).items() if value is not None} if seen else {})
    found = []
    for name, bar in task.bars.items():
        if all(name in of for of in metrics):
            found.append(gate.Bar(f"{task.name}'s {name} on dev", bar, metrics[0][name], metrics[1][name], name in FEWER))
        else:
            _say(f"dev {task.name}: nothing to hold against the bar of {name}, {bar:g}" + (": sacrebleu would measure it" if name == "bleu" else ""))
    return found


def _remember(candidate: Path, below: dict[str, float]) -> None:
    import tomli_w

    card = _card(candidate)
    card["training"][BELOW] = {name: round(lost, 6) for name, lost in below.items()}
    (candidate / "card.toml").write_bytes(tomli_w.dumps(card).encode())


def _card(version: Path) -> dict[str, Any]:
    return tomllib.loads((version / "card.toml").read_text())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
