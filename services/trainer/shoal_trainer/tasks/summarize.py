"""`summarize`: a whole dialogue to the calls that were made in it."""
from __future__ import annotations

import json
import random
import re
from typing import Any

from .. import score
from ..encoder.fill.asked import Call, Way
from . import forms
from .base import SGD, Row, Task, parse
from .episode import check_methods, shuffled, twice, unknown
from .joined import Partners, join
from .literals import Literals
from .vary import Pools, swap

GRAMMAR = (
    """\
// A list of calls; methods and parameters are the request's own.
start: "[" call ("," call)* "]"
value: /"([^"\\\\\\n]|\\\\["\\\\\\/bfnrt])*"/
"""
    + forms.calls("""('{"service":"' ~ service ~ '","method":"' ~ method ~ '","parameters":{')""", """('"' ~ parameter ~ '":')""", ",", "}}")
)

ANSWER = """\
[
{%- for call in calls -%}
{"service":{{ call.service | tojson }},"method":{{ call.method | tojson }},"parameters":{
{%- for p in call.parameters -%}
{{ p.name | tojson }}:{{ p.text | tojson }}{{ "," if not loop.last }}
{%- endfor -%}
}}{{ "," if not loop.last }}
{%- endfor -%}
]
"""


CLOSES = re.compile(r"\s*(no|nope|nah|nada)\b|\bthat('s| is|'ll be| will be) (all|it)\b", re.IGNORECASE)


def unclosed(dialogue: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without its good-bye, so that another request may follow; of one turn at least."""
    kept = list(dialogue)
    if len(kept) > 1 and kept[-1]["speaker"] == "system" and "?" not in kept[-1]["text"]:
        kept.pop()
    if len(kept) > 1 and kept[-1]["speaker"] == "user" and CLOSES.search(kept[-1]["text"]):
        kept.pop()
    return kept


class Summarize(Task):
    """A list of `{"service", "method", "parameters"}`."""

    name = "summarize"
    bars = {"score": 0.90}
    beside = "rules without a model (`rules`): score 0.728, exact 0.052, unseen_score 0.590, unseen_exact 0.007"
    kind = "fill"
    kinds = ("fill", "generate")
    way = Way("methods", "dialogue", references=False)
    corpus = SGD
    input_type = dict

    VARIED = 0.5
    SWAPPED = 0.5
    INVENTED = 0.2
    SAID = 6  # Times that a swapped value may stand in the dialogue.

    JOINED = 0.5
    OFFERED = 0.1  # Services more than anybody speaks of.

    def __init__(self) -> None:
        self.partners = Partners("dialogue", longest=14, most=28)
        self.pools = Pools()
        self.literals = Literals()

    def input_fault(self, given: Any) -> str | None:
        turns = given.get("dialogue")
        ok = isinstance(turns, list) and turns and all(isinstance(t, dict) and isinstance(t.get("text"), str) and t.get("speaker") in ("user", "system") for t in turns)
        return check_methods(given) if ok else '`dialogue` must be a list of {"speaker": "user" or "system", "text"}'

    def fault(self, target: Any) -> str | None:
        if not isinstance(target, list) or not target:
            return "must be a list of at least one call"
        for i, call in enumerate(target):
            if not isinstance(call, dict) or not all(isinstance(call.get(k), t) for k, t in (("service", str), ("method", str), ("parameters", dict))):
                return f'call {i} must be {{"service", "method", "parameters"}}'
            if not all(isinstance(v, str) for v in call["parameters"].values()):
                return f"call {i}: every parameter must be text"
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
        said = "\n".join(t["text"] for t in row["input"]["dialogue"])
        return [(key, v) for call in row["target"] for key, v in call["parameters"].items() if len(v) > 2 and v in said]

    def astray(self, row: Row) -> str | None:
        return unknown(row["target"], row["input"]["methods"])

    def unsaid(self, row: Row) -> str | None:
        said = " ".join(turn["text"] for turn in row["input"]["dialogue"])
        return self.astray(row) or twice(row["target"]) or self.literals.unsaid(row["target"], said)

    def say(self, target: Any) -> str:
        calls = [{"service": c["service"], "method": c["method"], "parameters": c["parameters"]} for c in target]
        return json.dumps(calls, ensure_ascii=False, separators=(",", ":"))

    def read(self, text: str) -> Any:
        calls = parse(text)
        return calls if isinstance(calls, list) else None

    def calls(self, row: Row) -> list[Call]:
        return [Call((c["service"], c["method"]), {name: str(v) for name, v in c["parameters"].items()}) for c in row["target"]]

    def answer_template(self) -> str:
        return ANSWER

    def output(self) -> dict[str, str]:
        return {"schema": "summarize.schema.json", "grammar": "summarize.lark.jinja"}

    def files(self) -> dict[str, str]:
        call = {
            "type": "object",
            "properties": {"service": {"type": "string"}, "method": {"type": "string"}, "parameters": {"type": "object", "additionalProperties": {"type": "string"}}},
            "required": ["service", "method", "parameters"],
            "additionalProperties": False,
        }
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "array", "items": call, "minItems": 1}
        return {"summarize.schema.json": json.dumps(schema, indent=1) + "\n", "summarize.lark.jinja": GRAMMAR}

    def vary(self, row: Row, rng: random.Random) -> Row:
        if rng.random() < self.JOINED:
            row = self._joined(row, rng)
        methods = {**row["input"]["methods"], **(self.partners.offered(row, rng) if rng.random() < self.OFFERED else {})}
        dialogue, target = row["input"]["dialogue"], row["target"]
        if rng.random() < self.VARIED:
            # A name is said again and again in a dialogue: swapped everywhere, if it is nowhere part of another word.
            swapped = swap("\n".join(t["text"] for t in dialogue), self._values(row), self.pools, rng, self.SWAPPED, self.INVENTED, self.SAID)
            if swapped and swapped[0].count("\n") == len(dialogue) - 1:
                text, new = swapped
                dialogue = [{**t, "text": line} for t, line in zip(dialogue, text.split("\n"))]
                target = [{**call, "parameters": {k: new(v) for k, v in call["parameters"].items()}} for call in target]
        return {**row, "input": {**row["input"], "methods": shuffled(methods, rng), "dialogue": dialogue}, "target": target}

    def _joined(self, row: Row, rng: random.Random) -> Row:
        other = self.partners.other(row, rng)
        if not other:
            return row
        first, second = rng.sample([row, other], 2)
        going_on = {**first, "input": {**first["input"], "dialogue": unclosed(first["input"]["dialogue"])}}
        return join(going_on, second, "dialogue", lambda value, before: value)

    def weight(self, judged: tuple[Row, Any, Any]) -> tuple[float, float]:
        wanted, found = score.calls(judged[1]), score.calls(judged[2])
        return 2 * len(wanted & found), len(wanted) + len(found)

    def right(self, row: Row, output: Any) -> bool:
        return output is not None and score.calls(row["target"]) == score.calls(output)
