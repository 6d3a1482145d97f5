"""What a version is to learn, and what comes of it: the shapes that every kind of model's retraining takes and gives."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .data import DataError
from .tasks import Row, Task

if TYPE_CHECKING:  # It needs numpy, and a dry run has none.
    from .evaluate import Judged


class LessonError(DataError):
    """A lesson that cannot be given from this version, or whose result cannot be exported."""


class Unservable(LessonError):
    """The candidate was trained, and what would serve of it is not what was trained, or is too much worse: it is refused as the gate refuses."""


@dataclass(frozen=True)
class Lesson:
    """Rows, and how to learn from them."""

    task: Task  # Whose corrections they are.
    corrections: list[Row]
    held_out: list[Row]  # Corrections that the gate judges by: none of them may choose what is kept.
    tasks: list[Task]  # Everything that the model serves, with the form of the version that it starts from.
    rehearsal: dict[str, list[Row]]  # Of each task: rows of its training data, against forgetting.
    dev: dict[str, list[Row]]
    files: dict[str, Path]  # Where the rehearsal is from; the card names it.
    version: int  # To be made.
    minutes: float
    steps: int  # Instead of the minutes; 0 goes by the clock.
    rate: float
    parity: float
    dev_rows: int  # Of each task; 0 is all.
    threads: int
    seed: int
    read: dict[str, str] = field(default_factory=dict)  # sha256 of everything that was read, the corrections too, by the file's name.
    judged_on: dict[str, str] = field(default_factory=dict)  # Of these the ones with the dev rows.


@dataclass(frozen=True)
class Staged:
    """A version that nobody serves yet, and by task what it answered to each of the dev rows."""

    folder: Path
    dev: dict[str, list[Judged]] = field(default_factory=dict)
