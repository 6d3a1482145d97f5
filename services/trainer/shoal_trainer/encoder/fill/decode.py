"""Logits to calls. Pure; the specialist decodes by the same rules."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..viterbi import log_softmax
from . import asked, net
from .asked import Call, Reference

LONGEST = 24  # Tokens of a run.
# At the ends of a run: a turn's mark and the sentence's stops are no part of a value.
EDGES = " \t\n.,;:!?<>"


@dataclass(frozen=True)
class Reading:
    """Calls in their order, and the log probability of each choice that was made."""

    calls: tuple[Call, ...]
    logprobs: tuple[float, ...]


def read(shape: net.Shape, way: asked.Way, given: asked.Asked, places: asked.Places, offsets: list[tuple[int, int]], out: net.Logits) -> Reading:
    """`out` is of one row, in numpy. At least one method is called. A reference reaches only a call
    before its own."""
    logprobs: list[float] = []
    offered = out.called[: len(given.methods)].astype(np.float64)
    likeliest = int(np.argmax(offered))
    if way.single:
        called = [likeliest]
        logprobs.append(float(log_softmax(offered)[likeliest]))
    else:
        sure, unsure = -np.logaddexp(0.0, -offered), -np.logaddexp(0.0, offered)  # Logs of the sigmoid.
        called = [i for i in range(len(offered)) if sure[i] >= np.log(way.called)] or [likeliest]
        logprobs += [float(sure[i] if i in called else unsure[i]) for i in range(len(offered))]
        called.sort(key=lambda i: (out.order[i], i))
    calls = []
    for n, method in enumerate(called):
        parameters: dict[str, str | Reference] = {}
        for p, (of, name) in enumerate(given.parameters):
            if of == method:
                value, logprob = _fill(shape, way, given, places, offsets, out, p, called[:n] if way.references else [])
                logprobs.append(logprob)
                if value is not None:
                    parameters[name] = value
        calls.append(Call(given.methods[method], parameters))
    return Reading(tuple(calls), tuple(logprobs))


def _fill(shape: net.Shape, way: asked.Way, given: asked.Asked, places: asked.Places, offsets: list[tuple[int, int]], out: net.Logits, p: int, before: list[int]) -> tuple[str | Reference | None, float]:
    """What is likeliest of one parameter; `before` are the calls that it may refer to."""
    known = shape.known(given.slot(p))
    may = np.ones(net.SOURCES, bool)
    may[net.VALUE] = bool(shape.values) and not way.literal
    may[net.RUN] = bool(places.text)
    may[net.REFERENCE] = bool(before)
    source = log_softmax(np.where(may, out.source[p].astype(np.float64), -np.inf))
    chosen = int(source.argmax())
    if chosen == net.VALUE and not known and places.text:
        # A literal, of a parameter of which none is known: it can only be what was said, and no other parameter's value.
        chosen = net.RUN
    if chosen == net.ABSENT:
        return None, float(source[chosen])
    if chosen == net.VALUE:
        ids = np.array(known or range(len(shape.values)))
        value = log_softmax(out.value[p][ids])
        return shape.values[int(ids[value.argmax()])], float(source[chosen] + value.max())
    if chosen == net.RUN:
        start, end, logprob = _run(out.first[p][list(places.text)], out.last[p][list(places.text)])
        text = given.text[offsets[places.text[start]][0] : offsets[places.text[end]][1]].strip(EDGES)
        return text or None, float(source[chosen] + logprob)
    pairs = log_softmax(out.origin[p][before])[:, None] + log_softmax(out.field[p])[None]
    named = [(given.parameters[p][1], *shape.fields)[i] for i in range(pairs.shape[1])]
    returned = [shape.returns.get(".".join(given.methods[i])) for i in before]
    may = np.array([[of is None or name in of for name in named] for of in returned])
    # Where nothing that was called returns such a field, it is as likely to be unknown here as to be wrong.
    pairs = np.where(may, pairs, -np.inf) if may.any() else pairs
    pairs = log_softmax(pairs.ravel())
    call, at = divmod(int(pairs.argmax()), len(named))
    return Reference(given.methods[before[call]], named[at]), float(source[chosen] + pairs.max())


def _run(first: np.ndarray, last: np.ndarray) -> tuple[int, int, float]:
    """The likeliest pair of a first and a last token, at most `LONGEST` tokens; of equal ones the first."""
    first, last = log_softmax(first), log_softmax(last)
    best = (0, 0, -np.inf)
    for start in range(len(first)):
        part = last[start : start + LONGEST]
        end = int(part.argmax())
        if first[start] + part[end] > best[2]:
            best = (start, start + end, float(first[start] + part[end]))
    return best
