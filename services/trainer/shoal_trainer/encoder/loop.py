"""The training loop of encoders: AdamW, one cycle of the learning rate, the word pieces' embeddings left as they are."""
from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import torch
from tokenizers import Tokenizer
from torch import nn
from tqdm import tqdm

from ..batches import Share
from ..data import DataError
from ..tasks import Row, Task
from . import study
from .fill import study as of_fillers
from .fill.net import Filler

POOL = 2048  # Rows that are sorted together by length: batches of like length, and still mixed.


@dataclass(frozen=True)
class Recipe:
    """How to train. Chosen on one CPU thread."""

    epochs: float = 6.0
    rate: float = 2e-4  # Peak, of the body.
    head_rate: float = 1e-3  # Peak, of the heads, which start at random.
    batch_rows: int = 64  # Of a batch.
    varied: float = 0.5  # Share of rows that are variants, each time they are seen.
    class_weight: float = 0.3  # Of the class's loss beside the tags'.
    decay: float = 0.01
    seed: int = 1


def study_of(encoder: nn.Module, tokenizer: Tokenizer, task: Task, recipe: Recipe) -> Any:
    """How this kind of encoder learns: `example` of a row, `batch` of examples, `loss` of a batch."""
    return of_fillers.Study(encoder, tokenizer, task) if isinstance(encoder, Filler) else study.Study(encoder, tokenizer, task, recipe.class_weight)


def train(encoder: nn.Module, tokenizer: Tokenizer, shares: list[Share], recipe: Recipe, judge: Callable[[], dict[str, float]], looks: int) -> dict[str, float]:
    """Trains in place, and looks at dev by `judge` so many times. A batch is of one share. Returns what the card says of the run."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    device = next(encoder.parameters()).device
    studies = [study_of(encoder, tokenizer, share.task, recipe) for share in shares]
    examples = [_Examples(learns.example, share, recipe, rng) for learns, share in zip(studies, shares)]
    for name, parameter in encoder.body.named_parameters():
        # A word that the rows do not hold must stay where its neighbours are.
        parameter.requires_grad = not name.startswith("embeddings.")
    heads = [p for n, p in encoder.named_parameters() if not n.startswith("body.")]
    body = [p for p in encoder.body.parameters() if p.requires_grad]
    steps = max(1, int(recipe.epochs * sum(len(share.rows) * share.weight for share in shares) / recipe.batch_rows))
    optimizer = torch.optim.AdamW([{"params": heads, "lr": recipe.head_rate}, {"params": body, "lr": recipe.rate}], weight_decay=recipe.decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [recipe.head_rate, recipe.rate], total_steps=steps, pct_start=0.1)
    began, read = time.monotonic(), 0
    encoder.train()
    bar = tqdm(range(steps), unit="step", mininterval=5)
    for step, (learns, drawn) in zip(bar, _mixed(studies, examples, shares, rng)):
        batch = tuple(part.to(device) for part in learns.batch(drawn))
        loss = learns.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_([*heads, *body], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        read += int(batch[1].sum())  # Its mask.
        bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
        if looks and (step + 1) % max(1, steps // looks) == 0:
            encoder.eval()
            bar.write(json.dumps({"step": step + 1, **judge()}))
            encoder.train()
    encoder.to("cpu").eval()
    return {"device": device.type, "steps": steps, "tokens": read, "seconds": round(time.monotonic() - began, 1), "unreadable_rows": sum(of.unreadable for of in examples)}


def _mixed(studies: list[Any], examples: list[_Examples], shares: list[Share], rng: random.Random) -> Iterator[tuple[Any, list[Any]]]:
    """Batches without end, each with its study; of each share as many as its rows and its weight say."""
    streams = [iter(of) for of in examples]
    weights = [len(share.rows) * share.weight for share in shares]
    while True:
        i = rng.choices(range(len(shares)), weights)[0] if len(shares) > 1 else 0
        yield studies[i], next(streams[i])


class _Examples:
    """Batches without end: every row once a round, in random order."""

    def __init__(self, make: Callable[[Row], Any], share: Share, recipe: Recipe, rng: random.Random) -> None:
        self._make, self._task, self._rows, self._recipe, self._rng = make, share.task, share.rows, recipe, rng
        self.unreadable = 0  # Rows of the first round whose target is no reading of their input: they are left out.

    def __iter__(self) -> Iterator[list[Any]]:
        first = True
        while True:
            order = self._rng.sample(self._rows, len(self._rows))
            if not first and self.unreadable == len(self._rows):
                raise DataError(f"{self._task.name}: no row's target can be read off its input: a span must stand in it word for word, and the row must fit")
            for at in range(0, len(order), POOL):
                drawn = [self._draw(row) for row in order[at : at + POOL]]
                if first:
                    self.unreadable += drawn.count(None)
                ready = sorted((e for e in drawn if e), key=lambda e: len(e.ids))
                batches = [ready[i : i + self._recipe.batch_rows] for i in range(0, len(ready), self._recipe.batch_rows)]
                self._rng.shuffle(batches)
                yield from batches
            first = False

    def _draw(self, row: Row) -> Any:
        varied = self._task.vary(row, self._rng) if self._rng.random() < self._recipe.varied else row
        return self._make(varied) or self._make(row)

