"""The exported folder must be the checkpoint: free greedy answers compared on dev rows, and refused under 99 %."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from . import model as checkpoint
from .runtime import Folder

SAME = 0.99
ROWS = 200


class ParityError(Exception):
    """The export says something else than the checkpoint."""


def check(weights: Path, folder: Path, rows: list[dict[str, Any]], limit: int = 192, least: float = SAME) -> float:
    """Share of `rows` (the first 200) on which both give the same text; raises under `least`."""
    model, prompt = checkpoint.load(weights)
    exported = Folder(folder)
    fits = [row for row in rows[:ROWS] if len(prompt.ask(row["task"], row["input"])) < exported.context]
    expected = checkpoint.greedy(model, prompt, [prompt.ask(row["task"], row["input"]) for row in fits], limit)
    found = (exported.greedy(row["task"], row["input"], limit) for row in fits)
    same = sum(answer is not None and answer.text == text for answer, text in zip(found, expected)) / max(1, len(fits))
    if same < least:
        raise ParityError(f"{folder}: {same:.1%} of {len(fits)} answers equal the checkpoint's, {least:.0%} are needed; export at a higher precision")
    return same
