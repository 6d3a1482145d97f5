"""The training loop of encoders: AdamW, one cycle of the learning rate, the word pieces' embeddings left as they are."""
from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from ..data import DataError
from ..tasks import Row, Task
from . import align, net

Example = tuple[list[int], list[int], int, list[bool]]  # Token ids, a tag each, the class (or UNTAGGED), which tags may be chosen.

POOL = 2048  # Rows that are sorted together by length: batches of like length, and still mixed.
NEVER = -1e4  # The logit of a tag that may not be chosen: finite, so that no row of padding is all infinities.
STEP = 4  # Batches are padded to a multiple of this: fewer shapes, fewer kernels to prepare.


@dataclass(frozen=True)
class Recipe:
    """How to train. Chosen on one CPU thread."""

    epochs: float = 6.0
    rate: float = 2e-4  # Peak, of the body.
    head_rate: float = 1e-3  # Peak, of the heads, which start at random.
    rows: int = 64  # Of a batch.
    varied: float = 0.5  # Share of rows that are variants, each time they are seen.
    class_weight: float = 0.3  # Of the class's loss beside the tags'.
    decay: float = 0.01
    seed: int = 1


def example(tokenizer: Tokenizer, shape: net.Shape, context: int, task: Task, row: Row) -> Example | None:
    """A row as the net reads it; None if its target is no reading of its input, or it does not fit."""
    reading = task.reading(row)
    if reading is None:
        return None
    chosen, spans = reading
    asked = align.Asked.of(row["input"], task.fields)
    encoding = asked.encoded(tokenizer)
    tags = align.tagged(encoding, spans, {label: i for i, label in enumerate(shape.labels)})
    known = {name: i for i, name in enumerate(shape.classes)}
    if tags is None or len(encoding.ids) > context:
        return None
    return encoding.ids, tags, known[chosen] if chosen else align.UNTAGGED, align.allowed(shape.labels, asked.labels)


def train(encoder: net.Encoder, tokenizer: Tokenizer, task: Task, rows: list[Row], recipe: Recipe, judge: Callable[[], dict[str, float]], looks: int) -> dict[str, float]:
    """Trains in place, and looks at dev by `judge` so many times. Returns what the card says of the run."""
    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    examples = _Examples(tokenizer, encoder, task, rows, recipe, rng)
    for name, parameter in encoder.body.named_parameters():
        # A word that the rows do not hold must stay where its neighbours are.
        parameter.requires_grad = not name.startswith("embeddings.")
    heads = [p for n, p in encoder.named_parameters() if not n.startswith("body.")]
    body = [p for p in encoder.body.parameters() if p.requires_grad]
    steps = max(1, int(recipe.epochs * len(rows) / recipe.rows))
    optimizer = torch.optim.AdamW([{"params": heads, "lr": recipe.head_rate}, {"params": body, "lr": recipe.rate}], weight_decay=recipe.decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [recipe.head_rate, recipe.rate], total_steps=steps, pct_start=0.1)
    began, read = time.monotonic(), 0
    encoder.train()
    bar = tqdm(range(steps), unit="step", mininterval=5)
    for step, batch in zip(bar, examples):
        ids, mask, tags, classes, may = _tensors(batch, tokenizer.token_to_id("[PAD]") or 0)
        device = next(encoder.parameters()).device
        ids, mask, tags, classes, may = (t.to(device) for t in (ids, mask, tags, classes, may))
        with torch.autocast(device.type, dtype=torch.bfloat16):
            tag_logits, class_logits = encoder(ids, mask)
        loss = torch.zeros((), device=device)
        if tag_logits is not None:
            loss = loss + functional.cross_entropy(tag_logits.float().masked_fill(~may[:, None], NEVER).flatten(0, 1), tags.flatten(), ignore_index=align.UNTAGGED)
        if class_logits is not None:
            weight = recipe.class_weight if tag_logits is not None else 1.0
            loss = loss + weight * functional.cross_entropy(class_logits.float(), classes, ignore_index=align.UNTAGGED)
        loss.backward()
        nn.utils.clip_grad_norm_([*heads, *body], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        read += int(mask.sum())
        bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
        if looks and (step + 1) % max(1, steps // looks) == 0:
            encoder.eval()
            bar.write(json.dumps({"step": step + 1, **judge()}))
            encoder.train()
    device = next(encoder.parameters()).device.type
    encoder.to("cpu").eval()
    return {"device": device, "steps": steps, "tokens": read, "seconds": round(time.monotonic() - began, 1), "unreadable_rows": examples.unreadable}


class _Examples:
    """Batches without end: every row once a round, in random order."""

    def __init__(self, tokenizer: Tokenizer, encoder: net.Encoder, task: Task, rows: list[Row], recipe: Recipe, rng: random.Random) -> None:
        context = encoder.body.config.max_position_embeddings
        self._make = lambda row: example(tokenizer, encoder.shape, context, task, row)
        self._task, self._rows, self._recipe, self._rng = task, rows, recipe, rng
        self.unreadable = 0  # Rows of the first round whose target is no reading of their input: they are left out.

    def __iter__(self) -> Iterator[list[Example]]:
        first = True
        while True:
            order = self._rng.sample(self._rows, len(self._rows))
            if not first and self.unreadable == len(self._rows):
                raise DataError(f"{self._task.name}: no row's target can be read off its input: a span must stand in it word for word, and the row must fit")
            for at in range(0, len(order), POOL):
                drawn = [self._draw(row) for row in order[at : at + POOL]]
                if first:
                    self.unreadable += drawn.count(None)
                ready = sorted((e for e in drawn if e), key=lambda e: len(e[0]))
                batches = [ready[i : i + self._recipe.rows] for i in range(0, len(ready), self._recipe.rows)]
                self._rng.shuffle(batches)
                yield from batches
            first = False

    def _draw(self, row: Row) -> Example | None:
        varied = self._task.vary(row, self._rng) if self._rng.random() < self._recipe.varied else row
        return self._make(varied) or self._make(row)


def _tensors(batch: list[Example], pad: int) -> tuple[torch.Tensor, ...]:
    """ids, mask, tags: [rows, longest] i64, right-padded; classes: [rows] i64; which tags may be chosen: [rows, tags] bool."""
    longest = -(-max(len(e[0]) for e in batch) // STEP) * STEP
    ids, mask, tags = torch.full((len(batch), longest), pad), torch.zeros((len(batch), longest), dtype=torch.long), torch.full((len(batch), longest), align.UNTAGGED)
    for i, (own, tagged, _, _) in enumerate(batch):
        ids[i, : len(own)], mask[i, : len(own)], tags[i, : len(own)] = torch.tensor(own), 1, torch.tensor(tagged)
    return ids, mask, tags, torch.tensor([e[2] for e in batch]), torch.tensor([e[3] for e in batch])
