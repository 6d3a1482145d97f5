"""`plan`: a goal of one to three requests to its steps, as plan text."""
from __future__ import annotations

import random
import re
from typing import Any

from ..encoder.align import Span, locate
from . import forms
from .base import SNIPS, Row, Task
from .tool_call import ToolCall

STEP = re.compile(r"(\d+)\. (\w+): (.+)")


# A goal in which no step was found is one step. A dollar sign is written twice, or plan text would take what follows for a reference.
ANSWER = """\
{%- for span in spans -%}
{{ "" if loop.first else "\\n" }}{{ loop.index }}. {{ span.label }}: {{ span.text | replace("\\n", " ") | replace("$", "$$") }}
{%- else -%}
1. tool_call: {{ input | replace("\\n", " ") | replace("$", "$$") }}
{%- endfor -%}
"""


class Plan(Task):
    """A list of `{"task", "input"}`; the calls that the steps lead to are the business of `tool_call`."""

    name = "plan"
    main = "splits"
    corpus = SNIPS
    bars = {"splits": 0.97}
    bars_end_to_end = {"score": 0.742}
    beside = "score: AGIF on MixSNIPS 0.742; rules without a model (`rules`): splits 0.923"
    kind = "tag"
    kinds = ("tag", "generate")
    varies = False  # A variant is a goal of other rows' steps.

    JOINED = 0.6  # Of rows, each time they are seen: a new goal of other rows' steps.

    def __init__(self) -> None:
        self._steps: list[Row] = []
        self._joiners: list[str] = []
        self._sizes: list[int] = []
        self._call = ToolCall()

    def fault(self, target: Any) -> str | None:
        if not isinstance(target, list) or not target:
            return "must be a list of at least one step"
        for i, step in enumerate(target):
            if not isinstance(step, dict) or not isinstance(step.get("task"), str) or not isinstance(step.get("input"), str):
                return f'step {i} must be {{"task": text, "input": text}}'
            if "\n" in step["input"] or not step["input"].strip():
                return f"step {i}: `input` must be one line that is not empty"
            if "output" in step and self._call.fault(step["output"]):
                return f"step {i}: `output` {self._call.fault(step['output'])}"
        return None

    def learn(self, rows: list[Row]) -> None:
        seen = set()
        for row in rows:
            self._sizes.append(len(row["target"]))
            at = 0
            for i, step in enumerate(row["target"]):
                start = row["input"].find(step["input"], at)
                if start < 0:
                    break
                if i:
                    self._joiners.append(row["input"][at:start])
                at = start + len(step["input"])
                if step["input"] not in seen:
                    seen.add(step["input"])
                    self._steps.append(step)
        self._call.learn([{"target": step["output"]} for step in self._steps if "output" in step])

    def unsaid(self, row: Row) -> str | None:
        for step in row["target"]:
            if step["task"] != "tool_call":
                return f"no step of task `{step['task']}` is in the form"
            if not forms.holds(row["input"], step["input"]):
                return f"`{step['input']}` is no run of the input's words"
        return None

    def say(self, target: Any) -> str:
        return "\n".join(f"{i}. {step['task']}: {step['input'].replace('$', '$$')}" for i, step in enumerate(target, 1))

    def read(self, text: str) -> Any:
        steps = [STEP.fullmatch(line) for line in text.split("\n")]
        return [{"task": m[2], "input": m[3].replace("$$", "$")} for m in steps if m] if all(steps) else None

    def labels(self) -> list[str]:
        return sorted({step["task"] for step in self._steps})

    def reading(self, row: Row) -> tuple[str | None, list[Span]] | None:
        spans = locate(row["input"], [(step["task"], step["input"]) for step in row["target"]])
        # A tagger says them as they stand in the text.
        return None if spans is None or spans != sorted(spans, key=lambda span: span.start) else (None, spans)

    def answer_template(self) -> str:
        return ANSWER

    def output(self) -> dict[str, str]:
        return {"grammar": "plan.lark.jinja"}

    def files(self) -> dict[str, str]:
        text = '// Plan text; every step is a run of whole words of the goal.\nstart: step ("\\n" step)*\nstep: NUMBER ". tool_call: " SAID\nNUMBER: /[1-9][0-9]?/\n'
        return {"plan.lark.jinja": text + forms.span("SAID", "messages[-1].content | replace('$', '$$')")}

    def vary(self, row: Row, rng: random.Random) -> Row:
        if not self._joiners or rng.random() >= self.JOINED:
            return row
        steps = []
        for step in rng.choices(self._steps, k=rng.choice(self._sizes)):
            new = self._call.vary({"input": step["input"], "target": step["output"]}, rng) if "output" in step else step
            steps.append({**step, "input": new["input"]})
        goal = steps[0]["input"]
        for step in steps[1:]:
            goal += rng.choice(self._joiners) + step["input"]
        return {**row, "input": goal, "target": steps}

    def metrics(self, judged: list[tuple[Row, Any, Any]]) -> dict[str, float]:
        """Only `splits`: the whole score needs tool_call behind the planner, and is `end_to_end`'s. So steps need no `output` here."""
        return {"splits": super().metrics([(row, [{"output": None, **step} for step in target], output) for row, target, output in judged])["splits"]}
