"""Conversations to calls: every method of the input is called, with what was said last for each parameter."""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

from ..encoder.fill.asked import Reference
from ..tasks import Row, Task
from .values import Values

ACTS = re.compile(r"^(Book|Buy|Reserve|Schedule|Transfer|Play|Share|Get(Ride)|Rent|Make|Request|Order|Purchase)")


class EpisodeRules:
    """What a user said to a plan: methods that look something up before those that act on it; what was not said is asked of an earlier call that returns a
    field of that name, in training's way of naming it."""

    def __init__(self, rows: list[Row], task: Task) -> None:
        refers: dict[tuple[tuple[str, str], str], Counter[tuple[tuple[str, str], str]]] = defaultdict(Counter)
        times: Counter[tuple[str, str]] = Counter()
        given = []
        for call in (call for row in rows for call in task.calls(row) or ()):
            times[call.name] += 1
            for name, value in call.parameters.items():
                if isinstance(value, Reference):
                    refers[call.name, name][value.call, value.field] += 1
                else:
                    given.append(((call.name[0], name), value))
        self._values = Values(given)
        # A parameter that is taken from another call more often than not, where that call is there.
        self._refers = {slot: of for slot, of in refers.items() if sum(of.values()) > times[slot[0]] / 2}

    def __call__(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        text = " ".join(content["turns"])
        names = sorted(((s, m) for s, of in content["methods"].items() for m in of), key=lambda name: (bool(ACTS.match(name[1])),))
        calls: list[dict[str, Any]] = []
        for number, (service, method) in enumerate(names, 1):
            parameters = {}
            for name in content["methods"][service][method]:
                value = self._values.said(service, name, text) or self._returned((service, method), name, names[: number - 1])
                if value:
                    parameters[name] = value
            calls.append({"id": number, "service": service, "method": method, "parameters": parameters})
        return calls

    def _returned(self, call: tuple[str, str], name: str, before: list[tuple[str, str]]) -> str | None:
        for (origin, field), _ in self._refers.get((call, name), Counter()).most_common():
            if origin in before:
                return f"${{{before.index(origin) + 1}.{field}}}"
        return None


class SummarizeRules:
    """What both sides said to the calls that were made; a parameter that nobody speaks of has the value that more than half of its method's calls have."""

    def __init__(self, rows: list[Row], task: Task) -> None:
        calls = [call for row in rows for call in task.calls(row) or ()]
        self._values = Values(((call.name[0], name), str(value)) for call in calls for name, value in call.parameters.items())
        times = Counter(call.name for call in calls)
        given = Counter((call.name, name, str(value)) for call in calls for name, value in call.parameters.items())
        self._usual = {(of, name): value for (of, name, value), n in given.items() if 2 * n > times[of]}

    def __call__(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        text = " ".join(turn["text"] for turn in content["dialogue"])
        calls = []
        for service, method in ((s, m) for s, of in content["methods"].items() for m in of):
            said = {name: self._values.said(service, name, text) or self._usual.get(((service, method), name)) for name in content["methods"][service][method]}
            calls.append({"service": service, "method": method, "parameters": {name: value for name, value in said.items() if value}})
        return calls
