"""Retraining and judging of encoders: `tag`, `classify` and `fill` models, which `encoder` trains and `publish` exports."""
from __future__ import annotations

import itertools
import random
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from . import lineage, near
from .batches import Share
from .data import sha256
from .encoder import export, loop, net
from .encoder import publish as encoder
from .export import ExportError
from .generate import TAUGHT, WAYS, judge, parted, stage
from .lesson import Lesson, LessonError, Staged, Unservable
from .parity import ParityError
from .tasks import Row, Task

__all__ = ["judge", "train_from"]

# Of the choosing rows: points on the way that are so close to the best are as good, and the nearest of them has forgotten least.
CLOSE = 0.01
DRAWS = 10  # Of a variant that is not held out.
PROBE = 4  # Steps by which the others are timed: an encoder's schedule needs their number before it starts.


def train_from(version: Path, lesson: Lesson, work: Path, staging: Path) -> Staged:
    """Trains the version's own weights on the lesson and writes the next version below `staging`; `work` gets the checkpoint."""
    try:
        how = _train(version, lesson, work)
        read = [(lineage.corpus_of(lesson.files[task.name], task.corpus), sha256(lesson.files[task.name])) for task in lesson.tasks]
        lineage.write(lineage.extended(lineage.of(version), how, read), work)
        return stage(version, lesson, work, staging)
    except ParityError as error:
        raise Unservable(str(error)) from error
    except ExportError as error:
        raise LessonError(str(error)) from error


def beside(old: list[Row], taught: list[Row], task: Task, seed: int, held_out: Sequence[Row] = ()) -> list[Row]:
    """Rows of the data, and beside each one that asks for what is taught: a variant, where the task has such, for the rows themselves are right long
    before others like them are. No variant is one of the `held_out` rows, which may be variants too: the gate would judge by what the candidate was
    chosen by."""
    rng, judging = random.Random(seed), {near.key(row["input"]) for row in held_out}

    def other(row: Row) -> Row:
        drawn = (task.vary(row, rng) for _ in range(DRAWS))
        return next((varied for varied in drawn if near.key(varied["input"]) not in judging), row)

    asked = (other(row) if task.varies else row for row in itertools.cycle(taught))
    return [row for pair in zip(old, asked) for row in pair]


def _train(version: Path, lesson: Lesson, work: Path) -> dict[str, Any]:
    """The checkpoint, and what its card says of how it was made."""
    torch.set_num_threads(lesson.threads)
    task, taught = lesson.task, lesson.corrections
    weights, tokenizer = export.load(version)
    before = {name: part.detach().clone() for name, part in weights.named_parameters()}
    choosers: dict[str, list[Row]] = {}
    rehearsed: dict[str, list[Row]] = {}
    for known in lesson.tasks:
        choosers[known.name], rehearsed[known.name] = parted(_sayable(known, lesson.rehearsal[known.name]))
    choosers[task.name] = beside(choosers[task.name], taught, task, lesson.seed, lesson.held_out) or taught
    # At the default 2e-4 and 1e-3, a first training's: with a quarter of them 120 steps did not teach a new word.
    recipe = loop.Recipe(rate=0.4 * lesson.rate, head_rate=2 * lesson.rate, batch_rows=_batch_rows(version), seed=lesson.seed)
    steps = lesson.steps or max(1, int(lesson.minutes * 60 / _seconds(version, task, taught, recipe)))
    # The loop takes each row once a round; what is drawn here is all the rows of all its steps.
    rng, count = random.Random(lesson.seed), steps * recipe.batch_rows
    each = max(1, (count - int(TAUGHT * count)) // len(lesson.tasks))
    drawn = {known.name: rng.choices(rehearsed[known.name] or choosers[known.name], k=each) for known in lesson.tasks}
    drawn[task.name] += [taught[i % len(taught)] for i in range(int(TAUGHT * count))]
    ran = loop.train(weights, tokenizer, [Share(known, drawn[known.name]) for known in lesson.tasks], replace(recipe, epochs=1.0))
    way = _settle(weights, before, tokenizer, [Share(known, choosers[known.name]) for known in lesson.tasks])
    net.save(weights, tokenizer, work)
    card = tomllib.loads((version / "card.toml").read_text())
    how = {"from": f"{card['name']}@{card['version']}", "way": way, "rate": recipe.rate, "seed": lesson.seed, "threads": lesson.threads, **ran}
    return how | {"corrections": len(taught), "taught": TAUGHT, "rows": {name: len(rows) for name, rows in rehearsed.items()}, "sha256": lesson.read}


def _sayable(task: Task, rows: list[Row]) -> list[Row]:
    """Those whose answers the version can give: what it has no label for, it could not have forgotten."""
    kept = [row for row in rows if not task.unsaid(row)]
    if not kept:
        raise LessonError(f"no training row of `{task.name}` has an answer that the active version could give: it was trained on other data, and needs a first training on these")
    return kept


def _batch_rows(version: Path) -> int:
    """As in the version's last training: its rows may be whole conversations."""
    return next((run["batch_rows"] for run in reversed(lineage.of(version)["runs"]) if "batch_rows" in run), loop.Recipe.batch_rows)


def _seconds(version: Path, task: Task, rows: list[dict[str, Any]], recipe: loop.Recipe) -> float:
    """How long a step takes, on weights that are thrown away."""
    weights, tokenizer = export.load(version)
    drawn = [rows[i % len(rows)] for i in range(PROBE * recipe.batch_rows)]
    for _ in range(2):  # The first prepares what later steps find ready: on a GPU that takes longer than they do.
        _wait()
        began = time.monotonic()
        loop.train(weights, tokenizer, [Share(task, drawn)], replace(recipe, epochs=1.0))
        _wait()
    return (time.monotonic() - began) / PROBE


def _wait() -> None:
    """For a GPU that has not done yet what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def _settle(weights: net.Encoder, before: dict[str, torch.Tensor], tokenizer: Tokenizer, choosers: list[Share]) -> float:
    """Sets the weights to the nearest of the good points of `WAYS` between the old ones and the trained, by the mean over the tasks; returns which."""
    after = {name: part.detach().clone() for name, part in weights.named_parameters()}

    def go(way: float) -> None:
        for name, part in weights.named_parameters():
            part.copy_(torch.lerp(before[name], after[name], way))

    tried = {}
    for way in WAYS:
        go(way)
        tried[way] = sum(encoder.right(weights, tokenizer, of.task, of.rows) for of in choosers) / len(choosers)
        print(f"{way:.0%} of the way: {tried[way]:.3f} of the choosing rows right", file=sys.stderr)
    nearest = min(way for way, right in tried.items() if right >= max(tried.values()) - CLOSE)
    go(nearest)
    return nearest
