"""The weights: a BERT body, and heads at the names of methods and parameters."""
from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn
from transformers import BertConfig, BertModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ABSENT, VALUE, RUN, REFERENCE = range(4)  # Where a parameter's value comes from.
SOURCES = 4

OFTEN = 5  # Times from which on a value is known, though it is always said as it is written.
UNSAID = 2  # Times from which on a value is known that was at least once meant and not said: `2019-03-02` for "tomorrow".


@dataclass(frozen=True)
class Shape:
    """What may come out. `values`: texts that are known; `slots`: which of them (by index) a `Service.parameter` may have; `fields`: names of
    what calls return, the parameter's own name aside; `returns`: fields that a call of a `Service.method` returns, where that is known."""

    values: tuple[str, ...]
    slots: dict[str, tuple[int, ...]]
    fields: tuple[str, ...]
    returns: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def known(self, slot: str) -> tuple[int, ...] | None:
        """Values of a slot; of one that was never seen those of its name in other services; None: any."""
        if slot in self.slots:
            return self.slots[slot]
        name = slot.split(".", 1)[1]
        found = {i for other, ids in self.slots.items() if other.split(".", 1)[1] == name for i in ids}
        return tuple(sorted(found)) or None


def shape(said: list[tuple[str, str, bool]], fields: list[str], returns: dict[str, set[str]] | None = None) -> Shape:
    """From every (slot, value, whether the conversation says it as it is written) of the training rows, every field referred to ("" where it is
    of the parameter's own name), and the fields of what methods returned."""
    times, meant = Counter((slot, value) for slot, value, _ in said), Counter((slot, value) for slot, value, as_is in said if not as_is)
    kept: dict[str, list[str]] = defaultdict(list)
    for (slot, value), n in times.items():
        if n >= OFTEN or (n >= UNSAID and meant[slot, value]):
            kept[slot].append(value)
    values = sorted({v for of in kept.values() for v in of})
    place = {v: i for i, v in enumerate(values)}
    return Shape(tuple(values), {slot: tuple(sorted(place[v] for v in of)) for slot, of in sorted(kept.items())}, tuple(sorted(set(fields) - {""})), {name: tuple(sorted(of)) for name, of in sorted((returns or {}).items())})


class Logits(NamedTuple):
    """Of one batch; M methods, P parameters, T tokens."""

    called: torch.Tensor  # [rows, M]
    order: torch.Tensor  # [rows, M]: who is called earlier has less.
    source: torch.Tensor  # [rows, P, SOURCES]
    value: torch.Tensor  # [rows, P, values]
    first: torch.Tensor  # [rows, P, T]: a run's first token.
    last: torch.Tensor  # [rows, P, T]
    origin: torch.Tensor  # [rows, P, M]: the call that is referred to.
    field: torch.Tensor  # [rows, P, 1 + fields]: the parameter's own name, then `fields`.


NARROW = "narrow"  # Attention for training: `eager`'s, with a softmax in the precision of the scores. In bf16 one step in eight is saved; the fused kernel is slower than both.


def _narrow(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float, dropout: float = 0.0, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if mask is not None:
        scores = scores + mask[..., : key.shape[-2]].to(scores.dtype)
    # Around autocast, which would make it fp32.
    weights = nn.functional.dropout(torch._softmax(scores, -1, False), dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


ALL_ATTENTION_FUNCTIONS.register(NARROW, _narrow)
# An attention whose mask is not registered is given none, and would read padding as text.
ALL_MASK_ATTENTION_FUNCTIONS.register(NARROW, eager_mask)


class Filler(nn.Module):
    """ids, mask [rows, T]; tokens of methods' names [rows, M] and of parameters' [rows, P], and the method of each parameter [rows, P]."""

    def __init__(self, config: BertConfig, shape: Shape) -> None:
        super().__init__()
        config._attn_implementation = "eager"
        width = config.hidden_size
        self.body, self.shape = BertModel(config, add_pooling_layer=False), shape
        self.drop = nn.Dropout(0.1)
        self.called = nn.Linear(width, 2)  # Whether, and when.
        self.ask, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.source = nn.Linear(width, SOURCES)
        self.value, self.values = nn.Linear(width, width), nn.Parameter(torch.randn(len(shape.values), width) / width**0.5)
        self.value_bias = nn.Parameter(torch.zeros(len(shape.values)))
        self.first, self.last, self.origin = (nn.Linear(width, width) for _ in range(3))
        self.field = nn.Linear(width, 1 + len(shape.fields))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, method_at: torch.Tensor, parameter_at: torch.Tensor, parameter_of: torch.Tensor) -> Logits:
        hidden = self.drop(self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)
        methods = _rows(hidden, method_at)
        asked = _rows(hidden, parameter_at) + _rows(methods, parameter_of)
        query = self.norm(nn.functional.gelu(self.ask(asked)))
        called = self.called(methods)
        tokens = hidden.transpose(1, 2) / hidden.shape[-1] ** 0.5
        return Logits(
            called[..., 0],
            called[..., 1],
            self.source(query),
            self.value(query) @ self.values.T + self.value_bias,
            self.first(query) @ tokens,
            self.last(query) @ tokens,
            self.origin(query) @ methods.transpose(1, 2) / hidden.shape[-1] ** 0.5,
            self.field(query),
        )

    def train(self, mode: bool = True) -> Filler:
        """As of any module; attention too has its own way for training."""
        self.body.config._attn_implementation = NARROW if mode else "eager"
        return super().train(mode)

    @torch.no_grad()
    def carry(self, before: Filler) -> None:
        """Takes over the heads of another, of values and fields those that both know."""
        own = self.state_dict()
        self.load_state_dict({**own, **{k: v for k, v in before.state_dict().items() if own[k].shape == v.shape and not k.startswith(("value_bias", "values", "field."))}})
        for mine, theirs, rows in (
            (self.shape.values, before.shape.values, ((self.values, before.values), (self.value_bias, before.value_bias))),
            (("", *self.shape.fields), ("", *before.shape.fields), ((self.field.weight, before.field.weight), (self.field.bias, before.field.bias))),
        ):
            known = {name: i for i, name in enumerate(theirs)}
            for i, name in enumerate(mine):
                if name in known:
                    for own_rows, old_rows in rows:
                        own_rows[i] = old_rows[known[name]]


def _rows(of: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """`of` [rows, n, width] at `at` [rows, k]: [rows, k, width]."""
    return of.gather(1, at[..., None].expand(-1, -1, of.shape[-1]))
