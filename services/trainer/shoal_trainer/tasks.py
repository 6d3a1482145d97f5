"""What each task's rows and answers look like: target to text, text back to target, and the form that serving holds answers to.

Values in an answer are spans of the input, so an answer's text repeats them literally. JSON is compact, with its keys in the order of
the schema: the specialist decodes under that schema, and a grammar's order is fixed.
"""
from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

Row = dict[str, Any]

# JSON without blanks is a third fewer tokens; llguidance reads this key and leaves no choice of white space to the model.
COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
STEP = re.compile(r"(\d+)\. (\w+): (.+)")
CALL = re.compile(r"(\d+)\. (\w+)\.(\w+)\((.*)\)")
ARGUMENT = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\$\d+\.\w+)(?:, |$)')


@dataclass
class Task:
    """One task: how its rows are checked, said and read back."""

    name: str
    input_type: type = str
    # tool -> argument names, most frequent first: the schema's key order.
    arguments: dict[str, list[str]] = field(default_factory=dict)

    def fault(self, target: Any) -> str | None:
        """Why `target` is none of this task's, or None."""
        raise NotImplementedError

    def learn(self, rows: list[Row]) -> None:
        """Takes from the training rows what the form needs."""

    def say(self, target: Any) -> str:
        """The target as the text that the model learns."""
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """The model's text as a target; None if it is none."""
        raise NotImplementedError

    def form(self) -> tuple[str, str]:
        """(file name, content) of the form: a JSON schema or a Lark grammar."""
        raise NotImplementedError


class ToolCall(Task):
    """An utterance to one call: `{"tool", "arguments"}`."""

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
                seen[row["target"]["tool"]][key] += 1 if isinstance(value, str) else len(value)
        self.arguments = {tool: [k for k, _ in sorted(seen[tool].items(), key=lambda kv: (-kv[1], kv[0]))] for tool in sorted(seen)}

    def say(self, target: Any) -> str:
        given = target["arguments"]
        ordered = {key: given[key] for key in self.arguments[target["tool"]] if key in given}
        return json.dumps({"tool": target["tool"], "arguments": ordered}, ensure_ascii=False, separators=(",", ":"))

    def read(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            return None

    def form(self) -> tuple[str, str]:
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
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "x-guidance": COMPACT, "anyOf": calls}
        return "output.schema.json", json.dumps(schema, indent=1) + "\n"


class Plan(Task):
    """A goal to its steps, as plan text."""

    def fault(self, target: Any) -> str | None:
        if not isinstance(target, list) or not target:
            return "must be a list of at least one step"
        for i, step in enumerate(target):
            if not isinstance(step, dict) or not isinstance(step.get("task"), str) or not isinstance(step.get("input"), str):
                return f'step {i} must be {{"task": text, "input": text}}'
            if "\n" in step["input"] or not step["input"].strip():
                return f"step {i}: `input` must be one line that is not empty"
        return None

    def say(self, target: Any) -> str:
        return "\n".join(f"{i}. {step['task']}: {step['input']}" for i, step in enumerate(target, 1))

    def read(self, text: str) -> Any:
        steps = [STEP.fullmatch(line) for line in text.split("\n")]
        return [{"task": m[2], "input": m[3]} for m in steps if m] if all(steps) else None

    def form(self) -> tuple[str, str]:
        return "output.lark", resources.files(__package__).joinpath("templates/plan.lark").read_text()


class Episode(Plan):
    """A conversation to a DAG of calls, as plan text with references."""

    def __init__(self, name: str) -> None:
        super().__init__(name, dict)

    def fault(self, target: Any) -> str | None:
        if not isinstance(target, list) or not target:
            return "must be a list of at least one call"
        for i, call in enumerate(target):
            if not isinstance(call, dict) or not all(isinstance(call.get(k), t) for k, t in (("service", str), ("method", str), ("parameters", dict))):
                return f'call {i} must be {{"service", "method", "parameters"}}'
        return None

    def say(self, target: Any) -> str:
        def argument(key: str, value: str) -> str:
            whole = re.fullmatch(r"\$\{(\d+)\.(\w+)\}", value)
            text = value.replace("$", "$$") if not whole else value
            return f"{key}=${whole[1]}.{whole[2]}" if whole else f"{key}={json.dumps(text, ensure_ascii=False)}"

        lines = []
        for i, call in enumerate(target, 1):
            arguments = ", ".join(argument(k, str(v)) for k, v in call["parameters"].items())
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
                parameters[key] = json.loads(value).replace("$$", "$") if value.startswith('"') else "${" + value[1:] + "}"
            calls.append({"id": int(m[1]), "service": m[2], "method": m[3], "parameters": parameters})
        return calls


def task(name: str) -> Task:
    """The task of that name."""
    known = {"tool_call": lambda: ToolCall(name), "plan": lambda: Plan(name), "episode": lambda: Episode(name)}
    if name not in known:
        raise SystemExit(f"no task `{name}`; there are: {', '.join(sorted(known))}")
    return known[name]()
