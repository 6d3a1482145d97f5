"""Rows to batches: variants drawn, tokenized, sorted by length within a pool, packed to a number of padded tokens."""
from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Iterator

import torch

from .data import DataError
from .prompt import Prompt
from .tasks import Row, Task

Pair = tuple[list[int], list[int]]  # Prompt ids, answer ids with their end.

POOL = 2048  # Rows that are sorted together: enough for batches of like length, few enough that batches stay mixed over tasks.


@dataclass(frozen=True)
class Share:
    """A task's rows in a training, and how often a round passes over them: 2.0 is twice."""

    task: Task
    rows: list[Row]
    weight: float = 1.0


class Stream:
    """Batches without end, the same for the same seed. A task's rows come in random order, each once before any comes again."""

    def __init__(self, shares: list[Share], prompt: Prompt, context: int, batch_tokens: int, seed: int, varied: bool = True) -> None:
        self._shares, self._prompt, self._context, self._batch_tokens = shares, prompt, context, batch_tokens
        self._varied = varied
        self._rng = random.Random(seed)
        self._orders: list[list[int]] = [[] for _ in shares]

    def _next(self, i: int) -> Pair | None:
        share = self._shares[i]
        if not self._orders[i]:
            self._orders[i] = self._rng.sample(range(len(share.rows)), len(share.rows))
        row = share.rows[self._orders[i].pop()]
        row = share.task.vary(row, self._rng) if self._varied else row
        pair = self._prompt.ask(share.task.name, row["input"]), self._prompt.answer(share.task.say(row["target"]))
        return pair if len(pair[0]) + len(pair[1]) <= self._context else None

    def __iter__(self) -> Iterator[list[Pair]]:
        weights = [len(share.rows) * share.weight for share in self._shares]
        while True:
            drawn = (self._next(i) for i in self._rng.choices(range(len(self._shares)), weights, k=POOL))
            fits = [pair for pair in drawn if pair]
            if not fits:
                raise DataError(f"of {POOL} rows none fits in {self._context} tokens of prompt and answer: the model needs a larger context, or the data shorter rows")
            groups = packed(fits, self._batch_tokens)
            self._rng.shuffle(groups)
            yield from groups


def packed(pairs: list[Pair], tokens: int) -> list[list[Pair]]:
    """Groups of like length, each at most `tokens` padded tokens (or a single pair)."""
    groups: list[list[Pair]] = [[]]
    for pair in sorted(pairs, key=lambda p: len(p[0]) + len(p[1])):
        length = len(pair[0]) + len(pair[1])
        if groups[-1] and length * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(pair)
    return groups


def tensors(group: list[Pair], prompt_weight: float, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ids: [rows, longest] i64, right-padded; weight: [rows, longest - 1] f32, of predicting position i + 1."""
    longest = max(len(asked) + len(answer) for asked, answer in group)
    ids = torch.full((len(group), longest), pad)
    weight = torch.zeros((len(group), longest))
    for i, (asked, answer) in enumerate(group):
        end = len(asked) + len(answer)
        ids[i, :end] = torch.tensor(asked + answer)
        weight[i, : len(asked)] = prompt_weight
        weight[i, len(asked) : end] = 1.0
    return ids, weight[:, 1:].contiguous()
