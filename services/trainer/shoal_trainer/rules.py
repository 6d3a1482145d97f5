"""A planner that needs no model: what a careful engineer would write in an afternoon, and what a trained planner must beat.

    python -m shoal_trainer rules --task plan,episode --data DIR

`plan`: cut at joining words, where what follows begins as requests begin. `episode`: every method of the input is called, those that look something up
before those that act on it; a parameter gets the value, of those that training rows gave it, that was said last; what was not said is asked of
an earlier call that returns a field of that name, in training's way of naming it.
"""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

from .encoder.fill.asked import Reference
from .score import norm
from .tasks import Row, Task

JOINERS = ("and after that", "and then", "and also", "then", "and", "")
STARTS = 60  # The words with which most requests begin: 97 % of the corpus' steps.
SAID = 3  # Times that a value must have been given to a parameter to be looked for.
ACTS = re.compile(r"^(Book|Buy|Reserve|Schedule|Transfer|Play|Share|Get(Ride)|Rent|Make|Request|Order|Purchase)")


class PlanRules:
    """Goals of joined requests to their steps."""

    def __init__(self, rows: list[Row]) -> None:
        first = Counter(step["input"].split()[0].lower() for row in rows for step in row["target"])
        starts = "|".join(re.escape(word) for word, _ in first.most_common(STARTS))
        joiners = "|".join(re.escape(j) for j in JOINERS if j)
        self._cut = re.compile(rf"(?:, (?:(?:{joiners}) )?| (?:{joiners}) )(?=(?:{starts})\b)", re.IGNORECASE)

    def __call__(self, goal: str) -> list[dict[str, Any]]:
        return [{"task": "tool_call", "input": part} for part in self._cut.split(goal) if part.strip()] or [{"task": "tool_call", "input": goal}]


class EpisodeRules:
    """Conversations to their calls."""

    def __init__(self, rows: list[Row], task: Task) -> None:
        given: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        refers: dict[tuple[tuple[str, str], str], Counter[tuple[tuple[str, str], str]]] = defaultdict(Counter)
        times: Counter[tuple[str, str]] = Counter()
        for row in rows:
            for call in task.calls(row):
                times[call.name] += 1
                for name, value in call.parameters.items():
                    if isinstance(value, Reference):
                        refers[call.name, name][value.call, value.field] += 1
                    else:
                        given[call.name[0], name][value] += 1
        self._given = {slot: [v for v, n in of.items() if n >= SAID] for slot, of in given.items()}
        # A parameter that is taken from another call more often than not, where that call is there.
        self._refers = {slot: of for slot, of in refers.items() if sum(of.values()) > times[slot[0]] / 2}

    def __call__(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        text = f" {norm(' '.join(content['turns']))} "
        names = sorted(((s, m) for s, of in content["methods"].items() for m in of), key=lambda name: (bool(ACTS.match(name[1])),))
        calls: list[dict[str, Any]] = []
        for number, (service, method) in enumerate(names, 1):
            parameters = {}
            for name in content["methods"][service][method]:
                value = self._said(service, name, text) or self._returned((service, method), name, names[: number - 1])
                if value:
                    parameters[name] = value
            calls.append({"id": number, "service": service, "method": method, "parameters": parameters})
        return calls

    def _said(self, service: str, name: str, text: str) -> str | None:
        """Of the values that were said, as whole words, the one that was said last; of those the longest."""
        places = [(text.rfind(f" {norm(v)}"), len(v), v) for v in self._given.get((service, name), []) if re.search(rf"(?<!\w){re.escape(norm(v))}(?!\w)", text)]
        return max(places)[2] if places else None

    def _returned(self, call: tuple[str, str], name: str, before: list[tuple[str, str]]) -> str | None:
        for (origin, field), _ in self._refers.get((call, name), Counter()).most_common():
            if origin in before:
                return f"${{{before.index(origin) + 1}.{field}}}"
        return None


def planned(task: Task, train: list[Row], dev: list[Row]) -> list[tuple[Row, Any, Any]]:
    """(row, target, what the rules plan), of dev; `plan` or `episode`."""
    rules = PlanRules(train) if task.name == "plan" else EpisodeRules(train, task)
    return [(row, row["target"], rules(row["input"])) for row in dev]
