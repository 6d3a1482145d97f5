"""The exported folder must be the checkpoint: greedy answers compared on dev rows, and refused under 99 %."""
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
    asked = [prompt.ask(row["task"], row["input"]) for row in rows[:ROWS]]
    asked = [ids for ids in asked if len(ids) < exported.context]
    expected = checkpoint.greedy(model, prompt, asked, limit)
    same = sum(exported.greedy(ids, limit)[0] == text for ids, text in zip(asked, expected)) / len(asked)
    if same < least:
        raise ParityError(f"{folder}: {same:.1%} of {len(asked)} answers equal the checkpoint's, {least:.0%} are needed; export at a higher precision")
    return same
