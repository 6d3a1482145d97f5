"""The exported folder must be the checkpoint: free greedy answers compared on dev rows, and refused under 99 %."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from . import model as checkpoint
from .data import spread
from .runtime import Folder

SAME = 0.99
ROWS = 200


class ParityError(Exception):
    """The export says something else than the checkpoint."""


@torch.no_grad()
def check(weights: Path, folder: Path, rows: list[dict[str, Any]], limit: int = 192, least: float = SAME) -> float:
    """Share of `rows` (of 200 of them, evenly spaced, those that fit) on which both give the same answer; raises under `least`.

    The export answers greedily; the checkpoint then reads its answer, and must find every token of it the likeliest: just then its own
    greedy answer is that one. One pass over a row instead of one over every token.
    """
    model, prompt = checkpoint.load(weights)
    exported = Folder(folder)
    same = asked = 0
    for row in spread(rows, ROWS):
        answer = exported.greedy(row["task"], row["input"], limit)
        if answer is None:
            continue
        ids = prompt.ask(row["task"], row["input"])
        best = model(input_ids=torch.tensor([ids + list(answer.ids)])).logits[0].argmax(-1).tolist()
        asked += 1
        same += best[len(ids) - 1 : -1] == list(answer.ids)
    return held(folder, same, asked, least, "the checkpoint's")


def held(folder: Path, same: int, asked: int, least: float, whose: str) -> float:
    """The share of answers that are the same; raises under `least`, and where no row could be asked, which proves nothing."""
    if not asked:
        raise ParityError(f"{folder}: none of the dev rows that parity is measured on fits in the model's context, so nothing says that the export is the checkpoint")
    if same < least * asked:
        raise ParityError(f"{folder}: {same / asked:.1%} of {asked} answers equal {whose}, {least:.0%} are needed; export at a higher precision")
    return same / asked
