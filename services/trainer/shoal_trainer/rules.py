"""Answers that need no model: what a careful engineer would write in an afternoon, and what a trained model must beat.

    python -m shoal_trainer rules --task plan,episode,compose --data DIR

`plan`: cut at joining words, where what follows begins as requests begin. `episode`: every method of the input is called, those that look something up
before those that act on it; a parameter gets the value, of those that training rows gave it, that was said last; what was not said is asked of
an earlier call that returns a field of that name, in training's way of naming it. `compose`: the reply that training rows gave most often to the same
acts, with its values in place of theirs; to acts that no row had together, what was said most often to each of them alone.
"""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any, Callable

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


# An act as a template is found by it: what it is, of which slot, and how many values it says.
Act = tuple[str, str, int]


class ComposeRules:
    """Acts to replies, by looking up templates."""

    def __init__(self, rows: list[Row]) -> None:
        heard: dict[tuple[str, tuple[Act, ...]], Counter[str]] = defaultdict(Counter)
        for row in rows:
            acts, template = _acts(row["input"]), _template(row)
            if template is not None:
                # Of this kind of service, and of any.
                for service in (_kind(row["input"]), ""):
                    heard[service, tuple(act for act, _ in acts)][template] += 1
        self._said = {key: of.most_common(1)[0][0] for key, of in heard.items()}

    def __call__(self, content: dict[str, Any]) -> str:
        acts = _acts(content)
        whole = self._filled(_kind(content), acts)
        if whole is not None:
            return whole
        parts = [self._filled(_kind(content), [act]) or " ".join(act[1]) for act in acts]
        return " ".join(part for part in parts if part)

    def _filled(self, service: str, acts: list[tuple[Act, list[str]]]) -> str | None:
        key = tuple(act for act, _ in acts)
        template = self._said.get((service, key), self._said.get(("", key)))
        values = [value for _, of in acts for value in of]
        return None if template is None else re.sub(r"\{(\d+)\}", lambda place: values[int(place[1])], template)


def _kind(content: dict[str, Any]) -> str:
    """Of "Hotels_2" that it is of hotels."""
    return content["service"].split("_")[0]


def _acts(content: dict[str, Any]) -> list[tuple[Act, list[str]]]:
    """In an order of their own, so that the same acts are found in whichever they come."""
    values = lambda act: [v for v in act.get("values", []) if v]  # noqa: E731
    acts = [((act["act"], act.get("slot") or "", len(values(act))), values(act)) for act in content["acts"]]
    return sorted(acts)


def _template(row: Row) -> str | None:
    """The row's reply with places for its values, by number; nothing if it does not say one of them."""
    values = [value for _, of in _acts(row["input"]) for value in of]
    reply = row["target"].replace("{", "(").replace("}", ")")
    # The longest first: "5" may lie in "5 pm".
    for number in sorted(range(len(values)), key=lambda i: -len(values[i])):
        reply, found = re.subn(rf"(?<![\w{{]){re.escape(values[number])}(?![\w}}])", f"{{{number}}}", reply, flags=re.IGNORECASE)
        if not found and values[number] not in values[:number]:
            return None
    return reply


def answered(task: Task, train: list[Row], dev: list[Row]) -> list[tuple[Row, Any, Any]]:
    """(row, target, what the rules say), of dev."""
    rules = RULES[task.name](train, task)
    return [(row, row["target"], rules(row["input"])) for row in dev]


# Of each task that has some.
RULES: dict[str, Callable[[list[Row], Task], Callable[[Any], Any]]] = {
    "plan": lambda rows, _: PlanRules(rows),
    "episode": EpisodeRules,
    "compose": lambda rows, _: ComposeRules(rows),
}
