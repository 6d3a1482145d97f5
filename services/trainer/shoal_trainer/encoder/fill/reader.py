"""A filler's logits to the text that the folder's template makes of them, and a checkpoint's answers."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import jinja2
import torch
from tokenizers import Encoding, Tokenizer

from ...prompt import environment
from ...runtime import Answer
from . import asked, decode, net
from .inputs import Inputs

class Reader:
    """What serving answers, by the same rules. Ways, the templates of answers and those of inputs are by task."""

    def __init__(self, shape: net.Shape, ways: dict[str, asked.Way], templates: dict[str, str], inputs: dict[str, str]) -> None:
        self._shape, self._ways = shape, ways
        self._inputs = {task: Inputs(way, inputs.get(task, "")) for task, way in ways.items()}
        self._templates: dict[str, jinja2.Template] = {task: environment().from_string(text) for task, text in templates.items()}

    def asked(self, task: str, content: Any, tokenizer: Tokenizer) -> tuple[asked.Asked, Encoding, asked.Places]:
        """An input as the model gets it."""
        given = self._inputs[task](content)
        encoding = given.encoded(tokenizer)
        return given, encoding, asked.places(given, encoding)

    def answer(self, task: str, given: asked.Asked, encoding: Encoding, places: asked.Places, out: net.Logits, called: float | None = None) -> Answer:
        """`out` is of one row, in numpy; `called` in place of the task's own."""
        way = self._ways[task] if called is None else replace(self._ways[task], called=called)
        reading = decode.read(self._shape, way, given, places, encoding.offsets, out)
        numbers = {call.name: n for n, call in enumerate(reading.calls, 1)}
        calls = [
            {
                "service": call.name[0],
                "method": call.name[1],
                "parameters": [
                    {"name": name, "text": value} if isinstance(value, str) else {"name": name, "call": numbers[value.call], "field": value.field} for name, value in call.parameters.items()
                ],
            }
            for call in reading.calls
        ]
        return Answer(self._templates[task].render(task=task, calls=calls), (), reading.logprobs)


def inputs(encoding: Encoding, given: asked.Asked, places: asked.Places) -> dict[str, list[int]]:
    """What the model reads, one row, by the names of its inputs."""
    return {
        "input_ids": encoding.ids,
        "attention_mask": [1] * len(encoding.ids),
        "method_at": list(places.methods),
        "parameter_at": list(places.parameters) or [0],
        "parameter_of": [method for method, _ in given.parameters] or [0],
    }


@torch.no_grad()
def logits(filler: net.Filler, read: dict[str, list[int]]) -> net.Logits:
    """A checkpoint's, of one row, in numpy."""
    device = next(filler.parameters()).device
    out = filler(*(torch.tensor([part], device=device) for part in read.values()))
    return net.Logits(*(part[0].float().cpu().numpy() for part in out))

