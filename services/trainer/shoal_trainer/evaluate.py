"""Dev scores of an exported folder, by the definitions of `score.py`, with each answer's confidence."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from . import score
from .runtime import Folder
from .tasks import Task, ToolCall

Row = dict[str, Any]


@dataclass
class Judged:
    """One answer: its row, what was said, how sure, and whether it is exactly right."""

    row: Row
    text: str
    output: Any
    confidence: float
    right: bool


def judge(folder: Path, task: Task, rows: list[Row], limit: int = 192) -> list[Judged]:
    """Greedy answers to every row; a prompt that does not fit the context is answered by nothing."""
    opened = Folder(folder)
    out = []
    for row in tqdm(rows, desc=f"dev {task.name}", mininterval=2):
        ids = opened.prompt.ask(task.name, row["input"])
        text, confidence = opened.greedy(ids, limit) if len(ids) < opened.context else ("", 0.0)
        said = task.read(text)
        out.append(Judged(row, text, said, confidence, said is not None and score.norm(task.read(task.say(row["target"]))) == score.norm(said)))
    return out


def metrics(task: Task, judged: list[Judged]) -> dict[str, float | int | str]:
    """score.py's metrics on seen rows. For `plan`, only `splits`: the whole score needs tool_call behind the planner, and is `shoal eval plan`'s."""
    rows = [(j.row, j.row["target"], j.output) for j in judged if j.row.get("seen", True)]
    if isinstance(task, ToolCall):
        found = score.tool_call(rows)
    elif task.name == "plan":
        found = {"splits": score.plan(rows)["splits"]}
    else:
        found = score.episode(rows)
    return {"split": "dev", "rows": len(rows), **{k: round(v, 4) for k, v in found.items() if v is not None}}
