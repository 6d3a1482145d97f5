"""Rows to tensors, and the loss, of taggers and classifiers."""
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from .. import precision
from . import align, net

if TYPE_CHECKING:
    from ..tasks import Row, Task

NEVER = -1e4  # The logit of a tag that may not be chosen: finite, so that no row of padding is all infinities.
STEP = 4  # Batches are padded to a multiple of this: fewer shapes, fewer kernels to prepare.


class Example(NamedTuple):
    """A row as the net reads it."""

    ids: list[int]
    tags: list[int]  # One a token.
    chosen: int  # The class, or UNTAGGED.
    may: list[bool]  # Which tags may be chosen.


class Study:
    """How an encoder with tags or classes learns from a task's rows."""

    def __init__(self, encoder: net.Encoder, tokenizer: Tokenizer, task: Task, class_weight: float) -> None:
        self._encoder, self._tokenizer, self._task, self._class_weight = encoder, tokenizer, task, class_weight
        self._pad = tokenizer.token_to_id("[PAD]") or 0

    def example(self, row: Row) -> Example | None:
        """None if the row's target is no reading of its input, or it does not fit."""
        reading = self._task.reading(row)
        if reading is None:
            return None
        chosen, spans = reading
        shape = self._encoder.shape
        asked = align.Asked.of(row["input"], self._task.fields)
        encoding = asked.encoded(self._tokenizer)
        tags = align.tagged(encoding, spans, {label: i for i, label in enumerate(shape.labels)})
        known = {name: i for i, name in enumerate(shape.classes)}
        if tags is None or len(encoding.ids) > self._encoder.body.config.max_position_embeddings:
            return None
        return Example(encoding.ids, tags, known[chosen] if chosen else align.UNTAGGED, align.allowed(shape.labels, asked.labels))

    def batch(self, rows: list[Example]) -> tuple[torch.Tensor, ...]:
        """ids, mask, tags: [rows, longest] i64, right-padded; classes: [rows] i64; which tags may be chosen: [rows, tags] bool."""
        longest = -(-max(len(e.ids) for e in rows) // STEP) * STEP
        ids, mask, tags = torch.full((len(rows), longest), self._pad), torch.zeros((len(rows), longest), dtype=torch.long), torch.full((len(rows), longest), align.UNTAGGED)
        for i, e in enumerate(rows):
            ids[i, : len(e.ids)], mask[i, : len(e.ids)], tags[i, : len(e.ids)] = torch.tensor(e.ids), 1, torch.tensor(e.tags)
        return ids, mask, tags, torch.tensor([e.chosen for e in rows]), torch.tensor([e.may for e in rows])

    def loss(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Cross entropy of the tags and, at its weight, of the class."""
        ids, mask, tags, classes, may = batch
        with precision.autocast(ids.device):
            tag_logits, class_logits = self._encoder(ids, mask)
        loss = torch.zeros((), device=ids.device)
        if tag_logits is not None:
            loss = loss + functional.cross_entropy(tag_logits.float().masked_fill(~may[:, None], NEVER).flatten(0, 1), tags.flatten(), ignore_index=align.UNTAGGED)
        if class_logits is not None:
            weight = self._class_weight if tag_logits is not None else 1.0
            loss = loss + weight * functional.cross_entropy(class_logits.float(), classes, ignore_index=align.UNTAGGED)
        return loss
