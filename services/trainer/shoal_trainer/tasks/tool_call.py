"""`tool_call`: an utterance to one call."""
from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from typing import Any

from ..encoder.align import Span, locate
from ..encoder.fill.asked import Call, Way
from . import forms
from .base import SNIPS, Row, Task, parse, texts
from .vary import Pools, swap


# An argument that is said twice is a list, as in the data.
ANSWER = """\
{"tool":{{ class | tojson }},"arguments":{
{%- for label in spans | map(attribute="label") | unique(case_sensitive=true) -%}
{%- set said = spans | selectattr("label", "eq", label) | map(attribute="text") | list -%}
{{ "" if loop.first else "," }}{{ label | tojson }}:{{ (said[0] if said | length == 1 else said) | tojson }}
{%- endfor -%}
}}"""


# As a filler says it: one call, of which each argument is said once.
CALL = """\
{"tool":{{ calls[0].method | tojson }},"arguments":{
{%- for p in calls[0].parameters -%}
{{ "" if loop.first else "," }}{{ p.name | tojson }}:{{ p.text | tojson }}
{%- endfor -%}
}}"""

SERVICE = "Tools"  # Of all tools, where a filler reads them as methods.


class ToolCall(Task):
    """`{"tool", "arguments"}`; arguments stand in the order in which the utterance says them, as in the data."""

    name = "tool_call"
    corpus = SNIPS
    bars = {"score": 0.87}
    beside = "slot-gated 0.755, Stack-Propagation 0.869, joint BERT 0.928; rules without a model (`rules`): score 0.310, tool 0.971, argument_f1 0.798"
    kind = "tag"
    kinds = ("tag", "fill", "generate")
    way = Way("methods", "turns", references=False, input="tool_call.input.jinja", single=True, literal=True)

    VARIED = 0.7  # Of rows, each time they are seen; the rest anchors the model to real text.
    SWAPPED = 0.6  # Of a varied row's values.
    INVENTED = 0.3  # Of the values swapped in.
    LOWERED = 0.1  # Of rows: people do not always write capitals.

    def __init__(self) -> None:
        self.arguments: dict[str, list[str]] = {}
        self.pools = Pools()

    def fault(self, target: Any) -> str | None:
        if not isinstance(target, dict) or set(target) != {"tool", "arguments"}:
            return 'must be {"tool": ..., "arguments": {...}}'
        if not isinstance(target["tool"], str) or not isinstance(target["arguments"], dict):
            return "`tool` must be text and `arguments` an object"
        for key, value in target["arguments"].items():
            if not isinstance(value, str) and not (isinstance(value, list) and value and all(isinstance(v, str) for v in value)):
                return f"argument `{key}` must be text or a list of texts"
        return None

    def learn(self, rows: list[Row]) -> None:
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            for key, value in row["target"]["arguments"].items():
                seen[row["target"]["tool"]][key] += 1
                self.pools.add(key, texts(value))
        self.pools.close()
        self.arguments = {tool: [k for k, _ in sorted(seen[tool].items(), key=lambda kv: (-kv[1], kv[0]))] for tool in sorted(seen)}

    def recall(self, files: dict[str, str], heads: dict[str, Any] | None = None) -> None:
        super().recall(files, heads)
        schema = parse(files.get("tool_call.schema.json", ""))
        if isinstance(schema, dict):
            calls = [call["properties"] for call in schema["anyOf"]]
            self.arguments = {call["tool"]["const"]: list(call["arguments"]["properties"]) for call in calls}

    def unsaid(self, row: Row) -> str | None:
        tool, arguments = row["target"]["tool"], row["target"]["arguments"]
        if self.arguments and tool not in self.arguments:
            return f"no tool `{tool}` is in the form"
        for key, value in arguments.items():
            if self.arguments and key not in self.arguments[tool]:
                return f"`{tool}` has no argument `{key}` in the form"
            for said in texts(value):
                if not forms.holds(row["input"], said):
                    return f"`{said}` is no run of the input's words"
        return None

    def say(self, target: Any) -> str:
        return json.dumps({"tool": target["tool"], "arguments": target["arguments"]}, ensure_ascii=False, separators=(",", ":"))

    def read(self, text: str) -> Any:
        call = parse(text)
        return call if isinstance(call, dict) else None

    def classes(self) -> dict[str, list[str]]:
        return self.arguments

    def labels(self) -> list[str]:
        return sorted({key for keys in self.arguments.values() for key in keys})

    def reading(self, row: Row) -> tuple[str | None, list[Span]] | None:
        call = row["target"]
        spans = locate(row["input"], [(key, v) for key, value in call["arguments"].items() for v in texts(value)])
        return None if spans is None else (call["tool"], spans)

    def calls(self, row: Row) -> list[Call] | None:
        call = row["target"]
        if any(isinstance(value, list) for value in call["arguments"].values()):
            return None
        return [Call((SERVICE, call["tool"]), dict(call["arguments"]))]

    def input_template(self) -> str:
        methods = json.dumps({SERVICE: self.arguments}, ensure_ascii=False)
        # Braces of JSON are not of Jinja: they stand apart.
        return '{"methods": ' + methods.replace("{", "{ ").replace("}", "} ") + ', "turns": [{{ input | tojson }}]}'

    def answer_template(self) -> str:
        return CALL if self.kind == "fill" else ANSWER

    def output(self) -> dict[str, str]:
        return {"schema": "tool_call.schema.json", "grammar": "tool_call.lark.jinja"}

    def files(self) -> dict[str, str]:
        return {"tool_call.schema.json": self._schema(), "tool_call.lark.jinja": self._grammar()}

    def _schema(self) -> str:
        value = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        calls = [
            {
                "type": "object",
                "properties": {
                    "tool": {"const": tool},
                    "arguments": {"type": "object", "properties": {k: value for k in keys}, "additionalProperties": False},
                },
                "required": ["tool", "arguments"],
                "additionalProperties": False,
            }
            for tool, keys in self.arguments.items()
        ]
        return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": calls}, indent=1) + "\n"

    def _grammar(self) -> str:
        text = "// One call; every value is a run of whole words of the utterance.\nstart: " + " | ".join(f"call_{i}" for i in range(len(self.arguments))) + "\n"
        for i, (tool, keys) in enumerate(self.arguments.items()):
            head = forms.quoted(f'{{"tool":"{tool}","arguments":{{')
            text += f'call_{i}: {head} [argument_{i} ("," argument_{i})*] "}}}}"\n'
            text += f"argument_{i}: name_{i} value\n" + forms.alternatives(f"name_{i}", [forms.quoted(f'"{key}":') for key in keys])
        text += 'value: SAID | "[" SAID ("," SAID)+ "]"\n'
        return text + forms.quoted_span("SAID", "messages[-1].content")

    def vary(self, row: Row, rng: random.Random) -> Row:
        text, tool = row["input"], row["target"]["tool"]
        arguments = row["target"]["arguments"]
        if rng.random() < self.VARIED:
            said = [(key, v) for key, value in arguments.items() for v in texts(value)]
            swapped = swap(text, said, self.pools, rng, self.SWAPPED, self.INVENTED)
            if swapped:
                text, new = swapped
                arguments = {key: new(value) if isinstance(value, str) else [new(v) for v in value] for key, value in arguments.items()}
        if rng.random() < self.LOWERED and len(text.lower()) == len(text):
            text = text.lower()
            arguments = {key: value.lower() if isinstance(value, str) else [v.lower() for v in value] for key, value in arguments.items()}
        return {**row, "input": text, "target": {"tool": tool, "arguments": arguments}}
