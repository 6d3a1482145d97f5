"""`extract`: a user's turn, with the turn before it, to the slot values that it says."""
from __future__ import annotations

import json
import random
from typing import Any

from .. import score
from ..encoder.align import Span, locate
from ..encoder.fill.asked import Call, Way
from . import forms
from .base import SGD, Row, Task, parse
from .vary import Pools, swap

GRAMMAR = (
    """\
// An object of the request's slots; every value is a run of whole words of the user's turn.
start: "{" [pair ("," pair)*] "}"
pair: name SAID
"""
    + forms.quoted_span("SAID", "messages[-1].content.user")
    + forms.names("name", "messages[-1].content.slots", """('"' ~ x ~ '":')""")
)


# A slot has one value: where it is said twice, the first.
ANSWER = """\
{
{%- for label in spans | map(attribute="label") | unique(case_sensitive=true) -%}
{{ "" if loop.first else "," }}{{ label | tojson }}:{{ (spans | selectattr("label", "eq", label) | first).text | tojson }}
{%- endfor -%}
}"""


# As a filler says it: the slots are the parameters of one method.
CALL = """\
{
{%- for p in calls[0].parameters -%}
{{ "" if loop.first else "," }}{{ p.name | tojson }}:{{ p.text | tojson }}
{%- endfor -%}
}"""

METHOD = "Say"

INPUT = (
    """\
{"methods": {{ {input.service: {"%s": input.slots}} | tojson }}, "turns": [{"speaker": "system", "text": {{ input.system | tojson }} }, {{ input.user | tojson }}]}"""
    % METHOD
)


class Extract(Task):
    """`{slot: value}`, in the order in which the turn says them."""

    name = "extract"
    corpus = SGD
    bars = {"score": 0.95, "exact_nonempty": 0.93, "false_extraction": 0.02}
    beside = "rules without a model (`rules`): score 0.820, exact_nonempty 0.736, false_extraction 0.024, unseen_score 0.701, unseen_exact_nonempty 0.554, unseen_false_extraction 0.019; a quarter of the targets are empty"
    input_type = dict
    kind = "tag"
    kinds = ("tag", "fill", "generate")
    fields = {"text": "user", "before": "system", "labels": "slots"}
    way = Way("methods", "turns", references=False, input="extract.input.jinja", single=True, literal=True)

    VARIED = 0.6
    SWAPPED = 0.6
    INVENTED = 0.2

    def __init__(self) -> None:
        self.pools = Pools()
        self.slots: set[str] = set()
        self.known: frozenset[str] | None = None  # Slots that a version has labels for; None: any.

    def input_fault(self, given: Any) -> str | None:
        if not isinstance(given.get("slots"), list) or not given["slots"] or not all(isinstance(s, str) for s in given["slots"]):
            return "`slots` must be a list of at least one name"
        if not all(isinstance(given.get(k), str) for k in ("service", "system", "user")):
            return "`service`, `system` and `user` must be text"
        return None

    def fault(self, target: Any) -> str | None:
        ok = isinstance(target, dict) and all(isinstance(v, str) for v in target.values())
        return None if ok else "must be {slot: text}"

    def learn(self, rows: list[Row]) -> None:
        for row in rows:
            self.slots.update(row["target"])
            for slot, value in row["target"].items():
                self.pools.add(slot, [value])
        self.pools.close()

    def recall(self, files: dict[str, str], heads: dict[str, Any] | None = None) -> None:
        super().recall(files, heads)
        if heads and "labels" in heads:
            self.known = frozenset(heads["labels"])

    def astray(self, row: Row) -> str | None:
        return next((f"no slot `{slot}` is in the input" for slot in row["target"] if slot not in row["input"]["slots"]), None)

    def unsaid(self, row: Row) -> str | None:
        if stray := self.astray(row):
            return stray
        for slot, value in row["target"].items():
            if self.known is not None and slot not in self.known:
                return f"the version has no label for slot `{slot}`: it takes a first training to get one"
            if not forms.holds(row["input"]["user"], value):
                return f"`{value}` is no run of the turn's words"
        return None

    def say(self, target: Any) -> str:
        return json.dumps(target, ensure_ascii=False, separators=(",", ":"))

    def read(self, text: str) -> Any:
        found = parse(text)
        return found if isinstance(found, dict) else None

    def labels(self) -> list[str]:
        return sorted(self.slots)

    def reading(self, row: Row) -> tuple[str | None, list[Span]] | None:
        user = row["input"]["user"]
        spans = locate(user, sorted(row["target"].items(), key=lambda kv: user.find(kv[1])))
        return None if spans is None else (None, spans)

    def calls(self, row: Row) -> list[Call]:
        return [Call((row["input"]["service"], METHOD), dict(row["target"]))]

    def input_template(self) -> str:
        return INPUT

    def answer_template(self) -> str:
        return CALL if self.kind == "fill" else ANSWER

    def output(self) -> dict[str, str]:
        return {"schema": "extract.schema.json", "grammar": "extract.lark.jinja"}

    def files(self) -> dict[str, str]:
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": {"type": "string"}}
        return {"extract.schema.json": json.dumps(schema, indent=1) + "\n", "extract.lark.jinja": GRAMMAR}

    def vary(self, row: Row, rng: random.Random) -> Row:
        user, target = row["input"]["user"], row["target"]
        target = dict(sorted(target.items(), key=lambda kv: user.find(kv[1])))
        if target and rng.random() < self.VARIED:
            swapped = swap(user, list(target.items()), self.pools, rng, self.SWAPPED, self.INVENTED)
            if swapped:
                user, new = swapped
                target = {slot: new(value) for slot, value in target.items()}
        slots = rng.sample(row["input"]["slots"], len(row["input"]["slots"]))
        return {**row, "input": {**row["input"], "slots": slots, "user": user}, "target": target}

    def weight(self, judged: tuple[Row, Any, Any]) -> tuple[float, float]:
        wanted, found = score.flat(judged[1]), score.flat(judged[2])
        return 2 * len(wanted & found), len(wanted) + len(found)
