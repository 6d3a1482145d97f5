"""`episode`: what a user said over a conversation to the DAG of calls that serves it, as plan text with references."""
from __future__ import annotations

import json
import random
import re
from typing import Any, Iterable

from .. import score
from ..encoder.fill.asked import Call, Reference, Way
from . import forms
from .base import SGD, Row, Task, loads
from .joined import Partners, join
from .literals import Literals
from .vary import Pools, swap

# Numbers are of so many digits as score.py reads: of thousands Python makes none.
CALL = re.compile(r"([0-9]{1,4})\. (\w+)\.(\w+)\((.*)\)")
ARGUMENT = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\$[0-9]{1,4}\.\w+)(?:, |$)')
REFERENCE = re.compile(r"\$\{([0-9]{1,4})\.(\w+)\}")

# Names of methods and parameters come from the request; a value is free, since people say "tomorrow" where a call wants a date.
GRAMMAR = (
    """\
// Plan text; methods and parameters are the request's own.
start: step ("\\n" step)*
step: NUMBER ". " call
value: STRING | REFERENCE
NUMBER: /[1-9][0-9]?/
REFERENCE: /\\$[1-9][0-9]?\\.[A-Za-z][A-Za-z0-9_]{0,63}/
STRING: /"([^"\\\\\\n]|\\\\["\\\\\\/bfnrt])*"/
"""
    + forms.calls('(service ~ "." ~ method ~ "(")', '(parameter ~ "=")', ", ", ")")
)

ANSWER = """\
{%- for call in calls -%}
{{ loop.index }}. {{ call.service }}.{{ call.method }}(
{%- for p in call.parameters -%}
{{ p.name }}={% if p.call is defined %}${{ p.call }}.{{ p.field }}{% else %}{{ p.text | replace("$", "$$") | tojson }}{% endif %}{{ ", " if not loop.last }}
{%- endfor -%}
){{ "\n" if not loop.last }}
{%- endfor -%}
"""


def check_methods(given: Any) -> str | None:
    """Why an input has no methods, or None."""
    methods = given.get("methods")
    lists = [p for m in methods.values() for p in (m.values() if isinstance(m, dict) else [None])] if isinstance(methods, dict) else [None]
    if not all(isinstance(p, list) and all(isinstance(name, str) for name in p) for p in lists):
        return "`methods` must be {service: {method: [parameter, ...]}}"
    return None


def unknown(calls: list[dict[str, Any]], methods: dict[str, dict[str, list[str]]]) -> str | None:
    """What of the calls is not in the request's methods, or None."""
    for call in calls:
        parameters = methods.get(call["service"], {}).get(call["method"])
        if parameters is None:
            return f"no method `{call['service']}.{call['method']}` is in the input"
        for name in call["parameters"]:
            if name not in parameters:
                return f"`{call['service']}.{call['method']}` has no parameter `{name}` in the input"
    return None


def twice(calls: list[dict[str, Any]]) -> str | None:
    """The first method that is called a second time, or None: a filler says of each whether it is called, and has no place for another."""
    names = [f"{call['service']}.{call['method']}" for call in calls]
    return next((f"`{name}` is called twice" for i, name in enumerate(names) if name in names[:i]), None)


def dangling(calls: list[dict[str, Any]]) -> str | None:
    """The first reference to no call before its own, or None."""
    for place, call in enumerate(calls, 1):
        for name, value in call["parameters"].items():
            whole = REFERENCE.fullmatch(value)
            if whole and not 1 <= int(whole[1]) < place:
                return f"`{name}` of call {place} refers to call {whole[1]}, which is not before it"
    return None


def shuffled(methods: dict[str, dict[str, list[str]]], rng: random.Random) -> dict[str, dict[str, list[str]]]:
    """The same methods in another order: their order says nothing."""
    services = list(methods)
    rng.shuffle(services)
    return {s: {m: rng.sample(methods[s][m], len(methods[s][m])) for m in rng.sample(list(methods[s]), len(methods[s]))} for s in services}


# A first turn with such a word may mean all that follows; without one it asks, and what acts on the world comes when it is told to.
COMMITS = re.compile(r"\b(book|reserv|buy|purchas|rent|order|get|make|schedul|pay|send|transfer|add|play|set|share|appointment|ticket)", re.IGNORECASE)


def asked_alone(row: Row) -> Row | None:
    """The first turn of a conversation that only asks, and the one call that it asks for, with what it says of it; None if that is not known: a value
    may have been meant by any turn where none says it as it is written."""
    first, (turn, *others) = row["target"][0], row["input"]["turns"]
    now, later = ({name: re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) for name, value in first["parameters"].items()} for text in (turn, "\n".join(others)))
    if not others or (COMMITS.search(turn) and len(row["target"]) > 1) or not all(now[name] or later[name] for name in now):
        return None
    kept = {name: value for name, value in first["parameters"].items() if now[name]}
    return {**row, "input": {**row["input"], "turns": [turn]}, "target": [{**first, "parameters": kept}]}


class Episode(Task):
    """A list of `{"id", "service", "method", "parameters"}`."""

    name = "episode"
    beside = "rules without a model (`rules`): score 0.028, nodes_f1 0.9764, edges_f1 0.827, unseen_score 0.003, unseen_nodes_f1 0.926, unseen_edges_f1 0.467"
    bars = {"score": 0.68, "nodes_f1": 0.976, "edges_f1": 0.85}
    kind = "fill"
    kinds = ("fill", "generate")
    way = Way("methods", "turns", references=True)
    corpus = SGD
    input_type = dict

    VARIED = 0.6
    SWAPPED = 0.5
    INVENTED = 0.2
    ALONE = 0.5  # Of the variants, where it can be: one row in three.
    JOINED = 0.5  # Of the other variants.
    OFFERED = 0.1  # Of the variants: services more than anybody speaks of.

    def __init__(self) -> None:
        self.partners = Partners("turns", longest=6, most=12)
        self.pools = Pools()
        self.literals = Literals()

    def input_fault(self, given: Any) -> str | None:
        turns = given.get("turns")
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            return "`turns` must be a list of at least one text"
        return check_methods(given)

    def fault(self, target: Any) -> str | None:
        if not isinstance(target, list) or not target:
            return "must be a list of at least one call"
        for i, call in enumerate(target):
            if not isinstance(call, dict) or not all(isinstance(call.get(k), t) for k, t in (("service", str), ("method", str), ("parameters", dict))):
                return f'call {i} must be {{"service", "method", "parameters"}}'
            if not all(isinstance(v, str) for v in call["parameters"].values()):
                return f"call {i}: every parameter must be text"
            # References say ids, and what is written and decoded are places.
            if type(call.get("id", i + 1)) is not int or call.get("id", i + 1) != i + 1:
                return f"call {i}: `id` must be {i + 1}, its place, or left out"
            if not isinstance(call.get("result", {}), dict):
                return f"call {i}: `result` must be an object"
        return None

    def learn(self, rows: list[Row]) -> None:
        self.partners.learn(rows)
        for row in rows:
            for kind, value in self._values(row):
                self.pools.add(kind, [value])
        self.pools.close()
        self.literals.learn(row["target"] for row in rows)

    def recall(self, files: dict[str, str], heads: dict[str, Any] | None = None) -> None:
        super().recall(files, heads)
        self.literals.recall(heads or {})

    @staticmethod
    def _values(row: Row) -> list[tuple[str, str]]:
        said = "\n".join(row["input"]["turns"])
        found = [(key, v) for call in row["target"] for key, v in call["parameters"].items()]
        return [(key, v) for key, v in found if len(v) > 2 and not REFERENCE.search(v) and v in said]

    def astray(self, row: Row) -> str | None:
        return unknown(row["target"], row["input"]["methods"])

    def unsaid(self, row: Row) -> str | None:
        calls, said = row["target"], " ".join(row["input"]["turns"])
        return self.astray(row) or twice(calls) or dangling(calls) or self.literals.unsaid(calls, said, lambda value: not REFERENCE.fullmatch(value))

    def say(self, target: Any) -> str:
        def argument(key: str, value: str) -> str:
            whole = REFERENCE.fullmatch(value)
            return f"{key}=${whole[1]}.{whole[2]}" if whole else f"{key}={json.dumps(value.replace('$', '$$'), ensure_ascii=False)}"

        lines = []
        for i, call in enumerate(target, 1):
            arguments = ", ".join(argument(k, v) for k, v in call["parameters"].items())
            lines.append(f"{i}. {call['service']}.{call['method']}({arguments})")
        return "\n".join(lines)

    def read(self, text: str) -> Any:
        calls = []
        for line in text.split("\n"):
            m = CALL.fullmatch(line)
            if not m:
                return None
            parameters = {}
            for key, value in ARGUMENT.findall(m[4]):
                try:
                    parameters[key] = loads(value).replace("$$", "$") if value.startswith('"') else "${" + value[1:] + "}"
                except ValueError:
                    return None
            calls.append({"id": int(m[1]), "service": m[2], "method": m[3], "parameters": parameters})
        return calls

    def calls(self, row: Row) -> list[Call]:
        target = row["target"]
        names = {call.get("id", i): (call["service"], call["method"]) for i, call in enumerate(target, 1)}

        def filled(value: str) -> str | Reference:
            whole = REFERENCE.fullmatch(value)
            return Reference(names[int(whole[1])], whole[2]) if whole and int(whole[1]) in names else value

        return [Call((c["service"], c["method"]), {name: filled(v) for name, v in c["parameters"].items()}) for c in target]

    def returned(self, target: Any) -> list[tuple[str, Iterable[str]]]:
        return [(f"{call['service']}.{call['method']}", call["result"]) for call in target if isinstance(call.get("result"), dict)]

    def answer_template(self) -> str:
        return ANSWER

    def output(self) -> dict[str, str]:
        return {"grammar": "episode.lark.jinja"}

    def files(self) -> dict[str, str]:
        return {"episode.lark.jinja": GRAMMAR}

    def vary(self, row: Row, rng: random.Random) -> Row:
        alone = asked_alone(row) if rng.random() < self.ALONE else None
        row = alone or (self._joined(row, rng) if rng.random() < self.JOINED else row)
        methods = {**row["input"]["methods"], **(self.partners.offered(row, rng) if rng.random() < self.OFFERED else {})}
        turns, target = row["input"]["turns"], row["target"]
        if rng.random() < self.VARIED:
            swapped = swap("\n".join(turns), self._values(row), self.pools, rng, self.SWAPPED, self.INVENTED)
            if swapped and swapped[0].count("\n") == len(turns) - 1:
                text, new = swapped
                turns = text.split("\n")
                target = [{**call, "parameters": {k: new(v) for k, v in call["parameters"].items()}} for call in target]
        return {**row, "input": {**row["input"], "methods": shuffled(methods, rng), "turns": turns}, "target": target}

    def _joined(self, row: Row, rng: random.Random) -> Row:
        other = self.partners.other(row, rng)
        return join(*rng.sample([row, other], 2), "turns", _moved) if other else row

    def right(self, row: Row, output: Any) -> bool:
        """Right if every call, with its references filled from what was recorded, is the recorded one: score.py's `score`."""
        return output is not None and self.metrics([(row, row["target"], output)])["score"] == 1.0

    def metrics(self, judged: list[tuple[Row, Any, Any]]) -> dict[str, float]:
        """Of rows, too, that do not say what a call returned, or whether they are `cross`: corrections, and what else no corpus recorded."""
        return super().metrics([({"cross": False, **row}, [_recorded(call, place) for place, call in enumerate(target, 1)], output) for row, target, output in judged])


def _moved(value: str, before: int) -> str:
    whole = REFERENCE.fullmatch(value)
    return f"${{{int(whole[1]) + before}.{whole[2]}}}" if whole else value


class _Unrecorded(dict[str, Any]):
    """What a call returned that was never made: every field is itself, the same where the same is referred to and nowhere else."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def get(self, field: str, default: Any = None) -> Any:
        """A list, which no literal is."""
        return [self._name, field]


def _recorded(call: dict[str, Any], place: int) -> dict[str, Any]:
    return {"id": place, "result": _Unrecorded(score.name(call)), **call}
