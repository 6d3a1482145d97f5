"""A filler's folder through plain ONNX Runtime."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Encoding, Tokenizer

from ...runtime import Answer
from ..align import untouched
from . import asked, net
from .reader import Reader, inputs

SLOTS = "slots.json"  # What may come out: known values, the slots that may have them, and fields.


class Folder:
    """One version's folder, opened. `card` says what it reads."""

    def __init__(self, folder: Path, card: dict[str, Any], threads: int = 2) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self._tokenizer = untouched(Tokenizer.from_file(str(folder / "tokenizer.json")))
        self._context = card["limits"]["context_tokens"]
        templates = {task: (folder / form["template"]).read_text() for task, form in card["output"].items()}
        ways = {task: asked.Way(**way) for task, way in card["fill"].items()}
        self.reader = Reader(shape(folder), ways, templates, {task: (folder / way.input).read_text() for task, way in ways.items() if way.input})

    def asked(self, task: str, content: Any) -> tuple[asked.Asked, Encoding, asked.Places] | None:
        """What the model reads of an input; None if it does not fit."""
        found = self.reader.asked(task, content, self._tokenizer)
        return found if len(found[1].ids) <= self._context else None

    def greedy(self, task: str, content: Any, limit: int = 0, form: object = None) -> Answer | None:
        """The likeliest calls; `limit` and `form` are a decoder's, and are not looked at."""
        found = self.asked(task, content)
        if found is None:
            return None
        given, encoding, places = found
        return self.reader.answer(task, given, encoding, places, self.logits(given, encoding, places))

    def logits(self, given: asked.Asked, encoding: Encoding, places: asked.Places) -> net.Logits:
        """What the model says of what `asked` gave."""
        read = {name: np.array([part], np.int64) for name, part in inputs(encoding, given, places).items()}
        return net.Logits(*(part[0] for part in self._session.run(list(net.Logits._fields), read)))


def shape(folder: Path) -> net.Shape:
    """What may come out of a version's model."""
    return of_json(json.loads((folder / SLOTS).read_text()))


def of_json(about: dict[str, Any]) -> net.Shape:
    """A shape as `as_json` wrote it."""
    return net.Shape(tuple(about["values"]), {slot: tuple(ids) for slot, ids in about["slots"].items()}, tuple(about["fields"]), {name: tuple(of) for name, of in about["returns"].items()})


def as_json(shape: net.Shape) -> str:
    """A shape, one slot or method a line."""
    slots = ",\n".join(f"  {json.dumps(slot)}: {json.dumps(list(ids), separators=(',', ':'))}" for slot, ids in shape.slots.items())
    returns = ",\n".join(f"  {json.dumps(name)}: {json.dumps(list(of))}" for name, of in shape.returns.items())
    return f'{{\n "values": {json.dumps(list(shape.values), ensure_ascii=False)},\n "slots": {{\n{slots}\n }},\n "fields": {json.dumps(list(shape.fields))},\n "returns": {{\n{returns}\n }}\n}}\n'
