"""Retraining and judging of `generate` models: decoders that `loop` trains and `publish` exports."""
from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import torch

from . import batches, evaluate, lineage, loop, model, publish, state
from .data import sha256, spread
from .export import ExportError
from .lesson import Lesson, LessonError, Staged, Unservable
from .parity import ParityError
from .prompt import Prompt
from .tasks import Row, Task

# Of the rows that a step draws, with their variants; the rest is rehearsal. At a half, 2 million parameters forgot more on dev than the gate allows.
TAUGHT = 0.3
# Rows of each task, taken out of the rehearsal, that say which checkpoint is kept: not dev and not the held-out corrections, by which the
# gate judges.
CHOOSERS = 150
# How far from the old weights to the new ones a version goes: the straight line between them holds models that have learned almost all of the
# lesson and forgotten almost nothing (Wortsman 2022, WiSE-FT). On the line, the best by the choosing rows is taken, the nearest among equals.
WAYS = (0.3, 0.5, 0.7, 1.0)
COMPILED = 5.0  # Minutes from which on torch.compile pays for the minute that it takes.


def train_from(version: Path, lesson: Lesson, work: Path, staging: Path) -> Staged:
    """Trains the version's own weights on the lesson and writes the next version below `staging`; `work` gets the checkpoint."""
    try:
        how = _train(version, lesson, work)
        read = [(lineage.corpus_of(lesson.files[task.name], task.corpus), sha256(lesson.files[task.name])) for task in lesson.tasks]
        lineage.write(lineage.extended(lineage.of(version), how, read), work)
        return stage(version, lesson, work, staging)
    except ParityError as error:
        raise Unservable(str(error)) from error
    except (model.CheckpointError, ExportError) as error:
        raise LessonError(str(error)) from error


def parted(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Choosers, and the rest to rehearse. Of labels evenly spaced ones, for a file may be grouped by label: its first rows would be all that it has of one."""
    count = min(CHOOSERS, len(rows) // 5)
    choosers = spread(rows, count) if count and isinstance(rows[0]["target"], str) else rows[:count]
    taken = {id(row) for row in choosers}
    return choosers, [row for row in rows if id(row) not in taken]


def _train(version: Path, lesson: Lesson, work: Path) -> dict[str, Any]:
    """The checkpoint, and what its card says of how it was made."""
    card = tomllib.loads((version / "card.toml").read_text())
    torch.manual_seed(lesson.seed)
    torch.set_num_threads(lesson.threads)
    weights, prompt = model.load(version)
    weights.to("cuda" if torch.cuda.is_available() else "cpu")
    before = {name: part.detach().clone() for name, part in weights.named_parameters()}
    model.save(weights, prompt, work)
    rehearsed, choosers = {}, {}
    for task in lesson.tasks:
        choosers[task.name], rehearsed[task.name] = parted(lesson.rehearsal[task.name])
    known = sum(len(rows) for rows in rehearsed.values())
    shares = [batches.Share(task, rehearsed[task.name]) for task in lesson.tasks]
    shares.append(batches.Share(lesson.task, lesson.corrections, TAUGHT / (1 - TAUGHT) * known / len(lesson.corrections)))
    # As many rows of what is taught as of what is known, in turns: the checkpoint that is kept has learned the one and not lost the other.
    taught = choosers[lesson.task.name]
    choosers[lesson.task.name] = [row for i, old in enumerate(taught) for row in (old, lesson.corrections[i % len(lesson.corrections)])] or lesson.corrections
    recipe = loop.Recipe(
        minutes=lesson.minutes,
        steps=lesson.steps,
        rate=lesson.rate,
        warm_up=20,
        batch_tokens=2048,
        looks=6,
        patience=6,
        dev_rows=2 * CHOOSERS,
        seed=lesson.seed,
        compiled=lesson.minutes >= COMPILED and not lesson.steps,
    )
    (work / "log.jsonl").unlink(missing_ok=True)
    state.forget(work)
    ran = loop.train(weights, prompt, shares, [batches.Share(t, choosers[t.name]) for t in lesson.tasks], recipe, work)
    way = _settle(weights, before, prompt, [batches.Share(t, choosers[t.name]) for t in lesson.tasks], recipe)
    device = weights.device.type
    model.save(weights.to("cpu"), prompt, work)

    how = {"from": f"{card['name']}@{card['version']}", "way": way, "minutes": lesson.minutes, "rate": lesson.rate, "seed": lesson.seed, "threads": lesson.threads, "device": device, **ran}
    return how | {"corrections": len(lesson.corrections), "taught": TAUGHT, "rows": {name: len(rows) for name, rows in rehearsed.items()}, "sha256": lesson.read}


@torch.no_grad()
def _settle(weights: torch.nn.Module, before: dict[str, torch.Tensor], prompt: Prompt, choosers: list[batches.Share], recipe: loop.Recipe) -> float:
    """Sets the weights to the best point of `WAYS` between the old ones and the trained; returns which."""
    after = {name: part.detach().clone() for name, part in weights.named_parameters()}

    def forward(ids: torch.Tensor) -> torch.Tensor:
        return weights(input_ids=ids, use_cache=False).logits

    def go(way: float) -> None:
        for name, part in weights.named_parameters():
            part.copy_(torch.lerp(before[name], after[name], way))

    best, reached = 1.0, -1.0
    for way in WAYS:
        go(way)
        exact = sum(loop.teacher_forced(forward, weights, prompt, share, recipe) for share in choosers) / len(choosers)
        print(f"{way:.0%} of the way: {exact:.3f} of the choosing rows to the letter", file=sys.stderr)
        if exact > reached:
            best, reached = way, exact
    go(best)
    return best


def stage(version: Path, lesson: Lesson, work: Path, staging: Path) -> Staged:
    """The checkpoint as a version's folder, in the precision of the version before it, with the answers that its card's scores are made of."""
    card = tomllib.loads((version / "card.toml").read_text())
    staged = Staged(staging / str(lesson.version))

    def judge(folder: Path, task: Task, rows: list[Row], limit: int, about: dict) -> list[evaluate.Judged]:
        judged = evaluate.judge(folder, task, rows, limit, about)
        staged.dev[task.name] = judged
        return judged

    out = publish.Version(staging, card["name"], lesson.version, card["training"].get("precision", "fp32"), card["limits"]["max_new_tokens"], lesson.parity, lesson.dev_rows, card["description"], lesson.judged_on)
    print(json.dumps(publish.publish(out, work, lesson.tasks, lesson.dev, judge)["scores"]), file=sys.stderr)
    return staged


def judge(folder: Path, task: Task, rows: list[Row]) -> list[evaluate.Judged]:
    """What the version in `folder` answers."""
    limit = tomllib.loads((folder / "card.toml").read_text())["limits"]["max_new_tokens"]
    return evaluate.judge(folder, task, rows, limit)
