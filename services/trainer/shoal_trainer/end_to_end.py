"""A plan scored with what makes its calls behind it: score.py's `score` of `plan`, as these models alone have it.

    python -m shoal_trainer end-to-end --data DIR models/splitter/1 models/tool_call/1 --large models/tool_call_wide/1

Each step that is planned is asked of the specialist of `tool_call`. With a larger model, the steps that the specialist is not sure of go to
that. A goal is right if the calls of all its steps are, in their order. Through a mesh (`shoal eval plan`) there is one thing more: a goal that is a
single request, and of an intent that `[gateway.intents]` maps, goes another way. Of dev's 1,000 goals that is one.
"""
from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import tomli_w

from . import calibrate, evaluate, score
from .card import named
from .data import DataError
from .runtime import Answer
from .tasks import KNOWN, Row

Planned = list[tuple[Row, Any]]  # Rows, and the steps that were planned for each, or None.


def steps(planned: Planned) -> list[str]:
    """What calls are asked for."""
    return sorted({step["input"] for _, plan in planned for step in plan or () if step["task"] == "tool_call"})


def whole(planned: Planned, calls: dict[str, Any]) -> list[tuple[Row, Any, Any]]:
    """(row, target, the plan with the call of each step), as score.py reads them."""

    def full(plan: Any) -> Any:
        return plan and [{**step, "output": calls.get(step["input"]) if step["task"] == "tool_call" else None} for step in plan]

    return [(row, row["target"], full(plan)) for row, plan in planned]


def measured(splitter: Path, caller: Path, large: Path | None, rows: list[Row], write: bool = True) -> dict[str, Any]:
    """`score`, its interval, and `score_escalated` where there is a larger model; `write` puts them into the splitter's card, beside what else it has of
    dev, and so must be of all its rows."""
    for row in rows:
        if any("output" not in step for step in row["target"]):
            raise DataError(f"plan.dev, row {row['id']}: a step has no `output` that its call could be held against")
    card, task = _card(splitter, "plan"), KNOWN["tool_call"]()
    planned = [(j.row, j.output) for j in evaluate.judge(splitter, KNOWN["plan"](), rows, card["limits"]["max_new_tokens"], card)]
    said = _asked(caller, steps(planned))
    calls = {step: answer and task.read(answer.text) for step, answer in said.items()}
    alone = whole(planned, calls)
    low, high = evaluate.interval(np.array([(score.plan([one])["score"], 1.0) for one in alone]))
    found, behind = {"score": score.plan(alone)["score"], "score_low": low, "score_high": high}, {"calls": named(_card(caller, task.name))}
    if large:
        left = unsure(said, _card(caller, task.name)["calibration"][task.name])
        calls |= {step: answer and task.read(answer.text) for step, answer in _asked(large, left).items()}
        found["score_escalated"], behind["escalated_to"] = score.plan(whole(planned, calls))["score"], named(_card(large, task.name))
    found = {name: round(value, 4) for name, value in found.items()}
    if write:
        card["scores"]["plan"] |= found
        card["training"]["end_to_end"] = behind
        (splitter / "card.toml").write_bytes(tomli_w.dumps(card).encode())
    return {"task": "plan", "rows": len(rows), **found, **behind}


def unsure(said: dict[str, Answer | None], known: dict[str, Any]) -> list[str]:
    """The steps that are left to a larger model: not answered, or under the threshold of `[calibration.tool_call]`."""
    confidence = calibrate.Map.of(known)
    return [step for step, answer in said.items() if answer is None or confidence(answer.statistics) < known["confidence_threshold"]]


def _asked(folder: Path, texts: Sequence[str]) -> dict[str, Answer | None]:
    card = _card(folder, "tool_call")
    return dict(zip(texts, evaluate.answers(folder, "tool_call", texts, card["limits"]["max_new_tokens"], card), strict=True))


def _card(folder: Path, task: str) -> dict[str, Any]:
    card = tomllib.loads((folder / "card.toml").read_text())
    if task not in card["calibration"]:
        raise DataError(f"{folder}: it does not answer `{task}`, but {', '.join(card['calibration'])}")
    return card
