"""More rows from the rows there are: slot values swapped between rows, so that a model learns to copy names that it has never seen."""
from __future__ import annotations

import random
from typing import Any

from .tasks import Task, ToolCall

Row = dict[str, Any]
SHARE = 0.65  # Of rows that are changed, each time they are seen; the rest anchors the model to real text.
SWAP = 0.6  # Of a changed row's values.


class Augment:
    """Call it on a row, get that row or a variant of it. Other tasks than tool_call pass unchanged."""

    def __init__(self, task: Task, rows: list[Row]) -> None:
        self._values: dict[tuple[str, str], list[str]] = {}
        self._active = isinstance(task, ToolCall)
        for row in rows if self._active else ():
            for key, value in row["target"]["arguments"].items():
                self._values.setdefault((row["target"]["tool"], key), []).extend([value] if isinstance(value, str) else value)

    def __call__(self, row: Row, rng: random.Random) -> Row:
        if not self._active or rng.random() >= SHARE:
            return row
        text, tool = row["input"], row["target"]["tool"]
        arguments = dict(row["target"]["arguments"])
        for key, value in arguments.items():
            if isinstance(value, str) and text.count(value) == 1 and rng.random() < SWAP and _alone(text, value):
                other = rng.choice(self._values[tool, key])
                text, arguments[key] = text.replace(value, other), other
        said = (v for value in arguments.values() for v in ([value] if isinstance(value, str) else value))
        # A swap may have hit a value inside another one: such a row would teach to invent.
        return {**row, "input": text, "target": {"tool": tool, "arguments": arguments}} if all(v in text for v in said) else row


def _alone(text: str, value: str) -> bool:
    """Whether `value` stands in `text` as whole words."""
    start = text.index(value)
    end = start + len(value)
    return (start == 0 or not text[start - 1].isalnum()) and (end == len(text) or not text[end].isalnum())
