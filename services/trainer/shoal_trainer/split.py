"""Clean corrections to those that are learned from and those that the result is judged by. Pure.

Near rows stay on one side: what was learned must not be asked again in other words. Which side a group is on hangs on a hash of its own
text alone, so a row that was judged by is not learned from when more rows have come. But of what the version that serves still has wrong something
must be on each side, or nothing could be learned, or nothing of it be seen: all that was ever corrected comes again, and most of it was learned before.
"""
from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from . import near
from .data import DataError
from .tasks import Row, Task

HELD_OUT = 1 / 3  # Of the groups. Corrections are few: with less, the judgement would hang on two or three rows.
VARIANTS = 20  # Held out where there is a single group; one in twenty is the finest step that the gate then sees.
TRIES = 50  # Draws a variant: a task leaves some of them as they are.


@dataclass(frozen=True)
class Split:
    """Both sides. `varied`: of the held-out rows some are variants of the learned ones, because there was a single group to learn."""

    train: list[Row]
    held_out: list[Row]
    varied: bool = False


def split(rows: list[Row], task: Task, right: Sequence[bool] = ()) -> Split:
    """Splits clean rows; of those that are not answered rightly yet at least one is on each side. `right`: which are; without it none.

    Raises DataError for a single group to learn of a task that has no variants: nothing could tell whether it was learned.
    """
    groups = near.groups([near.words(row["input"]) for row in rows])
    known = [bool(right) and all(right[i] for i in group) for group in groups]
    sorts: tuple[list[list[Row]], list[list[Row]]] = [], []
    for group, learned in zip(groups, known):
        sorts[learned].append([rows[i] for i in group])
    to_learn, learned_before = (sorted(of, key=_place) for of in sorts)
    kept = [group for group in learned_before if _place(group) < HELD_OUT]
    again = learned_before[len(kept) :]
    if not to_learn:
        raise DataError(f"all of the {len(rows)} clean corrections are answered rightly already: there is nothing to learn, and no gain to see")
    if len(to_learn) == 1:
        return Split(_flat(to_learn + again), _variants(to_learn[0], rows, task) + _flat(kept), varied=True)
    held = sum(_place(group) < HELD_OUT for group in to_learn)
    held = min(max(held, 1), len(to_learn) - 1)
    return Split(_flat(to_learn[held:] + again), _flat(to_learn[:held] + kept))


def _flat(groups: list[list[Row]]) -> list[Row]:
    return [row for group in groups for row in group]


def apart(rows: list[Row], others: list[Row], agreeing: bool = False) -> list[Row]:
    """Those of `rows` that are near none of `others`: what is learned must not be asked, and what is asked must not be learned. `agreeing`: near those
    alone that say the same; a row of dev that a correction denies is what shows whether the correction does harm."""
    bags = [(near.words(row["input"]), near.said(row)) for row in others]

    def close(row: Row) -> bool:
        words = near.words(row["input"])
        return any(near.similar(words, bag) and (not agreeing or said == near.said(row)) for bag, said in bags)

    return [row for row in rows if not close(row)]


def _place(group: list[Row]) -> float:
    """From 0 to 1, by the text of the group's rows: the least of theirs, so that most new near rows do not move it."""
    digests = (hashlib.sha256(near.key(row["input"]).encode()).digest() for row in group)
    return int.from_bytes(min(digests)[:8], "big") / 2**64


def _variants(rows: list[Row], all_rows: list[Row], task: Task) -> list[Row]:
    """Of requests that are not among all rows', and that ask for something else than what those of the same words do."""
    rng, found = random.Random(1), []
    known, asked = {near.key(row["input"]) for row in all_rows}, {_words_and_target(row) for row in all_rows}
    for i in range(VARIANTS * TRIES if task.varies else 0):
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
    return near.words(row["input"]), near.said(row)
