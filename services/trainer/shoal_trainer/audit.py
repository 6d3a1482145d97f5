"""What is odd about rows and yet no fault of a line: told before a training, and the counts in its card. Those that cannot be learned are left out one by
one, and a dev that asks what train answers, or what it has no word for, judges other things than it seems to."""
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from . import data, near
from .tasks import Row, Task

# Of a file, evenly spaced, are asked whether they can be learned: each costs 0.05 ms (`route`) to 2.2 ms (`summarize`) of one core, as in every round of the training.
# What of a larger file was left out in fact, its card says (`unreadable_rows`).
ASKED = 20_000
SHOWN = 10
TOO_MANY = 0.5  # Of the rows. Of real data less than one in a hundred is so; from here on the file is not what it is taken for.


def learnable(path: Path, rows: list[Row], why: Callable[[Row], str | None]) -> None:
    """Says which of a file's rows a training will leave out, with their lines and what `why` says of them; of the first ones, and how many they are. Raises
    where they are too many."""
    asked = data.spread(rows, ASKED)
    out = [(row, said) for row in asked if (said := why(row))]
    shown = out[:SHOWN]
    for line, said in sorted(zip(data.lines_of(path, [row for row, _ in shown]), (said for _, said in shown))):
        _say(f"{path}:{line}: left out: {said}")
    if out:
        _say(f"{path}: {len(out)} of {len(asked)} rows are left out" + (f"; the first {SHOWN} are above" if len(out) > SHOWN else ""))
    if len(out) > TOO_MANY * len(asked):
        raise data.DataError(f"{path}: of {len(asked)} rows only {len(asked) - len(out)} have a target that can be read off its input; the others would be left out, and are too many")


def dev(task: Task, rows: list[Row], judging: list[Row], path: Path) -> dict[str, int]:
    """Says how many of the rows that judge ask what a training row does, and how many labels theirs have that no training row has; gives both."""
    known = {near.key(row["input"]) for row in rows}
    same = sum(near.key(row["input"]) in known for row in judging)
    if same:
        _say(f"{path}: {same} of {len(judging)} inputs are in train as well: these judge what was kept, not what was learned")
    unknown = _unknown(task, judging)
    if unknown:
        names = ", ".join(f"`{name}`" for name in unknown[:SHOWN]) + (f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
        _say(f"{path}: no training row has {names}: what needs it cannot be answered rightly")
    return {"inputs_in_train": same, "labels_not_in_train": len(unknown)}


def _unknown(task: Task, judging: list[Row]) -> list[str]:
    """Classes and labels of rows of services seen in training; what is of another service has names of its own, and is judged apart."""
    wanted = type(task)()
    wanted.kind = task.kind
    wanted.learn([row for row in judging if row.get("seen", True)])
    has = task.classes()
    found = [name for name in wanted.classes() if name not in has]
    found += [f"{name}.{label}" for name, labels in wanted.classes().items() for label in labels if name in has and label not in has[name]]
    # A decoder writes labels, and a filler reads them in its input.
    return found + sorted(set(wanted.labels()) - set(task.labels())) if task.kind == "tag" and not has else found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
