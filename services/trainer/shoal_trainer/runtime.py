"""A model folder through plain ONNX Runtime: the loop that parity, calibration and scores are measured with."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .constrain import Constraint, Form
from .prompt import Prompt
from .required import Required


@dataclass(frozen=True)
class Answer:
    """What a model said: its tokens, end included, and their log probabilities (full vocabulary, before any mask)."""

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    helped: bool = False  # Something was said for it that it had to say: see `required`.

    @property
    def statistics(self) -> dict[str, float]:
        """What a card may calibrate on, by the names that it uses."""
        found = self.logprobs or (-100.0,)
        return {"mean_logprob": float(np.mean(found)), "sum_logprob": float(np.sum(found)), "min_logprob": float(np.min(found))}


class Folder:
    """One version's folder, opened. Past and present are separate tensors here: slower than the specialist, and simple."""

    def __init__(self, folder: Path, threads: int = 2) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.prompt = Prompt.load(folder)
        settings = json.loads((folder / "genai_config.json").read_text())["model"]
        self.context = settings["context_length"]
        self.constraint = Constraint(self.prompt, settings["vocab_size"])
        inputs = [i.name for i in self.session.get_inputs()]
        self._past = [name for name in inputs if name.startswith("past_key_values.")]
        self._positions = "position_ids" in inputs
        self._kv_heads, self._head = settings["decoder"]["num_key_value_heads"], settings["decoder"]["head_size"]

    def greedy(self, task: str, content: Any, limit: int, form: Form = Form()) -> Answer | None:
        """The greedy answer, held to `form`; None if the prompt does not fit."""
        ids = self.prompt.ask(task, content)
        if len(ids) >= self.context:
            return None
        matcher = self.constraint.begin(form.grammar, task, content) if form.grammar else None
        required = Required(self.prompt.tokenizer, form.required, task, content) if form.required else None
        past = {name: np.zeros((1, self._kv_heads, 0, self._head), np.float32) for name in self._past}
        names = ["logits", *(name.replace("past_key_values", "present") for name in self._past)]
        step, out, logprobs = ids, [], []
        for _ in range(max(1, min(limit, self.context - len(ids)))):
            total = len(ids) + len(out)
            feed = {"input_ids": np.array([step], np.int64), "attention_mask": np.ones((1, total), np.int64), **past}
            if self._positions:
                feed["position_ids"] = np.arange(total - len(step), total, dtype=np.int64)[None]
            logits, *present = self.session.run(names, feed)
            row = logits[0, -1].astype(np.float64)
            allowed = np.isfinite(row) & (self.constraint.allowed(matcher) if matcher else True)
            best = required.going_on(allowed) if required else None
            if best is None:
                best = int(np.where(allowed, row, -np.inf).argmax())
                if required and best == self.prompt.end:
                    instead = required.instead_of_end(self.prompt.text(out), row, allowed)
                    best = best if instead is None else instead
            logprobs.append(float(row[best] - row.max() - np.log(np.exp(row - row.max()).sum())))
            past = dict(zip(self._past, present))
            out.append(best)
            if best == self.prompt.end:
                break
            if matcher:
                matcher.consume_token(best)
            step = [best]
        return Answer(self.prompt.text(out), tuple(out), tuple(logprobs), bool(required and required.helped))
