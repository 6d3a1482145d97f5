"""Clean corrections to those that are learned from and those that the result is judged by. Pure.

Near rows stay on one side: what was learned must not be asked again in other words. Which side a group is on hangs on a hash of its own
text alone, so a row that was judged by is not learned from when more rows have come.
"""
from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass

from . import near, score
from .data import DataError
from .tasks import Row, Task

HELD_OUT = 1 / 3  # Of the groups. Corrections are few: with less, the judgement would hang on two or three rows.
VARIANTS = 20  # Held out where there is a single group; one in twenty is the finest step that the gate then sees.
TRIES = 50  # Draws a variant: a task leaves some of them as they are.


@dataclass(frozen=True)
class Split:
    """Both sides. `varied`: the held-out rows are variants of the learned ones, because there was a single group."""

    train: list[Row]
    held_out: list[Row]
    varied: bool = False


def split(rows: list[Row], task: Task) -> Split:
    """Splits clean rows; at least one is on each side.

    Raises DataError for a single group of a task that has no variants: nothing could tell whether it was learned.
    """
    groups = [[rows[i] for i in group] for group in near.groups([near.words(row["input"]) for row in rows])]
    if len(groups) < 2:
        return Split(rows, _variants(rows, task), varied=True)
    ordered = sorted(groups, key=_place)
    held = sum(_place(group) < HELD_OUT for group in ordered)
    held = min(max(held, 1), len(ordered) - 1)
    return Split([row for group in ordered[held:] for row in group], [row for group in ordered[:held] for row in group])


def apart(rows: list[Row], others: list[Row]) -> list[Row]:
    """Those of `rows` that are near none of `others`: what is learned must not be asked, and what is asked must not be learned."""
    bags = [near.words(row["input"]) for row in others]
    return [row for row in rows if not any(near.similar(near.words(row["input"]), bag) for bag in bags)]


def _place(group: list[Row]) -> float:
    """From 0 to 1, by the text of the group's rows: the least of theirs, so that most new near rows do not move it."""
    digests = (hashlib.sha256(near.key(row["input"]).encode()).digest() for row in group)
    return int.from_bytes(min(digests)[:8], "big") / 2**64


def _variants(rows: list[Row], task: Task) -> list[Row]:
    """Of requests that are not among the rows', and that ask for something else than what the rows of the same words do."""
    rng, found = random.Random(1), []
    known, asked = {near.key(row["input"]) for row in rows}, {_words_and_target(row) for row in rows}
    for i in range(VARIANTS * TRIES):
        varied = task.vary(rows[i % len(rows)], rng)
        if near.key(varied["input"]) not in known and _words_and_target(varied) not in asked and not task.unsaid(varied):
            known.add(near.key(varied["input"]))
            found.append(varied)
        if len(found) == VARIANTS:
            break
    if not found:
        raise DataError(f"{len(rows)} clean corrections, all of them nearly the same, and `{task.name}` has no variants of them: nothing can be held out; correct one more answer")
    return found


def _words_and_target(row: Row) -> tuple[frozenset[str], str]:
    return near.words(row["input"]), json.dumps(score.norm(row["target"]), sort_keys=True)
