"""Rows to tensors, and the loss."""
from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from ... import precision
from ...score import norm
from . import asked, net
from .inputs import Inputs

if TYPE_CHECKING:
    from ...tasks import Row, Task

RUNS = 4  # Of the places where a value stands, so many from the end are learned from.
ALL = 0.15  # Of the rows of a task that calls one of many methods: they are offered all of them, the others that one and another.
NEVER = -1e4  # A log probability of what cannot be: finite, so that rows of padding are no rows of infinities.
STEP = 8  # Batches are padded to a multiple of this: fewer shapes, fewer kernels to prepare.
UNKNOWN = -1  # Of a parameter: nothing is learned from it.
CALLED, ORDER = 0.5, 0.2  # Weights of a method's losses beside a parameter's.


@dataclass(frozen=True)
class Wanted:
    """What a parameter's value is: any of these ways is right."""

    source: int  # ABSENT, VALUE (any literal) or REFERENCE; UNKNOWN.
    value: int = -1
    runs: tuple[tuple[int, int], ...] = ()
    origin: int = 0
    field: int = 0


@dataclass(frozen=True)
class Example:
    """A row as the net reads it."""

    ids: list[int]
    places: asked.Places
    of: tuple[int, ...]  # Method of each parameter.
    slots: tuple[int, ...]  # Row of the table of known values, of each parameter.
    order: tuple[int, ...]  # Of each method: its place among the calls, or -1.
    wanted: tuple[Wanted, ...]


class Study:
    """How a filler learns from a task's rows."""

    def __init__(self, filler: net.Filler, tokenizer: Tokenizer, task: Task) -> None:
        self._filler, self._tokenizer, self._task = filler, tokenizer, task
        self._rng = random.Random(1)
        self._inputs = Inputs(task.way, task.input_template())
        self._context = filler.body.config.max_position_embeddings
        shape = filler.shape
        self._value = {norm(v): i for i, v in enumerate(shape.values)}
        self._field = {name: 1 + i for i, name in enumerate(shape.fields)}
        self._pad = tokenizer.token_to_id("[PAD]") or 0
        # Which values each slot may have; the first row is a slot that may have any.
        self._rows: dict[tuple[int, ...] | None, int] = {None: 0}
        self._table = [torch.ones(len(shape.values), dtype=torch.bool)]

    def example(self, row: Row) -> Example | None:
        """None if the row does not fit, or calls cannot say it."""
        calls, content = self._task.calls(row), self._inputs.object(row["input"])
        if calls is None:
            return None
        if self._task.way.single:
            content = self._fewer(content, calls[0].name)
        given = asked.Asked.of(content, self._task.way)
        encoding = given.encoded(self._tokenizer)
        if len(encoding.ids) > self._context:
            return None
        places = asked.places(given, encoding)
        at = {name: i for i, name in enumerate(given.methods)}
        order = [-1] * len(given.methods)
        for place, call in enumerate(calls):
            order[at[call.name]] = place
        by_name = {call.name: call for call in calls}
        wanted, slots = [], []
        for i, (method, name) in enumerate(given.parameters):
            slots.append(self._slot(given.slot(i)))
            call = by_name.get(given.methods[method])
            wanted.append(Wanted(UNKNOWN) if call is None else self._wanted(call.parameters.get(name), name, slots[-1], given, encoding, at))
        return Example(encoding.ids, places, tuple(m for m, _ in given.parameters), tuple(slots), tuple(order), tuple(wanted))

    def _fewer(self, content: dict[str, Any], called: tuple[str, str]) -> dict[str, Any]:
        """Of a task that calls one of many methods mostly two: what is read is shorter, and to tell any two apart is to tell all."""
        methods = {(service, method): wanted for service, of in content[self._task.way.methods].items() for method, wanted in of.items()}
        if len(methods) <= 2 or self._rng.random() < ALL:
            return content
        other = self._rng.choice(sorted(set(methods) - {called}))
        kept: dict[str, dict[str, list[str]]] = defaultdict(dict)
        for service, method in (called, other):
            kept[service][method] = methods[service, method]
        return {**content, self._task.way.methods: kept}

    def _slot(self, slot: str) -> int:
        known = self._filler.shape.known(slot)
        if known not in self._rows:
            self._rows[known] = len(self._table)
            mask = torch.zeros(len(self._filler.shape.values), dtype=torch.bool)
            mask[list(known or ())] = True
            self._table.append(mask)
        return self._rows[known]

    def _wanted(self, value: Any, name: str, slot: int, given: asked.Asked, encoding: Any, at: dict[tuple[str, str], int]) -> Wanted:
        if value is None:
            return Wanted(net.ABSENT)
        if not isinstance(value, str):
            field = 0 if value.field == name else self._field.get(value.field)
            return Wanted(UNKNOWN) if field is None else Wanted(net.REFERENCE, origin=at[value.call], field=field)
        known = self._value.get(norm(value), -1)
        known = known if known >= 0 and self._table[slot][known] and not self._task.way.literal else -1
        runs = tuple(runs_of(value, given.text, encoding, given.runs_from))[-RUNS:]
        return Wanted(net.VALUE, value=known, runs=runs) if known >= 0 or runs else Wanted(UNKNOWN)

    def batch(self, rows: list[Example]) -> tuple[torch.Tensor, ...]:
        """Right-padded; see `loss`."""
        longest = -(-max(len(r.ids) for r in rows) // STEP) * STEP
        methods, parameters = max(len(r.order) for r in rows), max(1, max(len(r.of) for r in rows))
        ids, mask, text = torch.full((len(rows), longest), self._pad), torch.zeros((len(rows), longest), dtype=torch.long), torch.zeros((len(rows), longest), dtype=torch.bool)
        method_at, order = torch.zeros((len(rows), methods), dtype=torch.long), torch.full((len(rows), methods), -2)
        at, of, slot = (torch.zeros((len(rows), parameters), dtype=torch.long) for _ in range(3))
        want = torch.full((len(rows), parameters, 4), -1)
        runs = torch.full((len(rows), parameters, RUNS, 2), -1)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)], mask[i, : len(row.ids)] = torch.tensor(row.ids), 1
            text[i, list(row.places.text)] = True
            method_at[i, : len(row.order)], order[i, : len(row.order)] = torch.tensor(row.places.methods), torch.tensor(row.order)
            if row.of:
                at[i, : len(row.of)], of[i, : len(row.of)], slot[i, : len(row.of)] = torch.tensor(row.places.parameters), torch.tensor(row.of), torch.tensor(row.slots)
            for j, w in enumerate(row.wanted):
                want[i, j] = torch.tensor([w.source, w.value, w.origin, w.field])
                if w.runs:
                    runs[i, j, : len(w.runs)] = torch.tensor(w.runs)
        return ids, mask, text, method_at, order, at, of, torch.stack(self._table)[slot], want, runs

    def loss(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Cross entropy of each decision; of a literal that several ways say, of all of them together."""
        ids, mask, text, method_at, order, at, of, known, want, runs = batch
        with precision.autocast(ids.device):
            out = self._filler(ids, mask, method_at, at, of)
        out = net.Logits(*(t.float() for t in out))
        source = out.source.log_softmax(-1)
        value = torch.full_like(source[..., 0], NEVER)
        if self._filler.shape.values:
            value = out.value.masked_fill(~known, NEVER).log_softmax(-1).gather(2, want[..., 1:2].clamp(min=0))[..., 0]
            value = value.masked_fill(want[..., 1] < 0, NEVER)
        first, last = (logits.masked_fill(~text[:, None], NEVER).log_softmax(-1).gather(2, runs[..., k].clamp(min=0)) for k, logits in enumerate((out.first, out.last)))
        run = (first + last).masked_fill(runs[..., 0] < 0, 2 * NEVER).logsumexp(-1)
        literal = torch.logaddexp(source[..., net.VALUE] + value, source[..., net.RUN] + run)
        real = order > -2
        origin = out.origin.masked_fill(~real[:, None], NEVER).log_softmax(-1).gather(2, want[..., 2:3].clamp(min=0))[..., 0]
        field = out.field.log_softmax(-1).gather(2, want[..., 3:4].clamp(min=0))[..., 0]
        reference = source[..., net.REFERENCE] + origin + field
        kind = want[..., 0]
        chosen = torch.where(kind == net.ABSENT, source[..., net.ABSENT], torch.where(kind == net.VALUE, literal, reference))
        loss = -chosen[kind >= 0].sum() / max(1, int((kind >= 0).sum()))
        loss = loss + CALLED * functional.binary_cross_entropy_with_logits(out.called[real], (order[real] >= 0).float())
        before = (order[:, :, None] >= 0) & (order[:, :, None] < order[:, None])
        if bool(before.any()):
            loss = loss + ORDER * functional.softplus(out.order[:, :, None] - out.order[:, None])[before].mean()
        return loss


def runs_of(value: str, text: str, encoding: Any, runs_from: int = 0) -> list[tuple[int, int]]:
    """First and last tokens of the places where the conversation says the value, as whole words and whole tokens, in any case, from a
    character on."""
    found = []
    if not value.strip():
        return found
    before = r"(?<![^\W_])" if value[0].isalnum() else ""
    behind = r"(?![^\W_])" if value[-1].isalnum() else ""
    offsets = [(i, s, e) for i, ((s, e), which) in enumerate(zip(encoding.offsets, encoding.sequence_ids)) if which == 1 and s < e]
    starts, ends = {s: i for i, s, _ in reversed(offsets)}, {e: i for i, _, e in offsets}
    for m in re.finditer(f"{before}{re.escape(value)}{behind}", text, re.IGNORECASE):
        if m.start() >= runs_from and m.start() in starts and m.end() in ends:
            found.append((starts[m.start()], ends[m.end()]))
    return found


def shape_of(parts: list[tuple[Task, list[Row]]]) -> net.Shape:
    """What the calls of the tasks' rows hold."""
    written: dict[str, Counter[str]] = defaultdict(Counter)
    said, fields = [], []
    returns: dict[str, set[str]] = defaultdict(set)
    for task, row in ((task, row) for task, rows in parts for row in rows):
        for name, found in task.returned(row["target"]):
            returns[name].update(found)
        if task.way.literal:  # None of its values is known.
            continue
        text = norm(Inputs(task.way, task.input_template())(row["input"]).text)
        for call in task.calls(row) or []:
            for name, value in call.parameters.items():
                if isinstance(value, str):
                    written[norm(value)][value] += 1
                    said.append((f"{call.name[0]}.{name}", value, norm(value) in text))
                else:
                    fields.append("" if value.field == name else value.field)
    most = {key: of.most_common(1)[0][0] for key, of in written.items()}
    return net.shape([(slot, most[norm(value)], as_is) for slot, value, as_is in said], fields, returns)
