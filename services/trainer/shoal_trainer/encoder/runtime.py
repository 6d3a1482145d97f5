"""An encoder's folder through plain ONNX Runtime: the answers that parity, calibration and scores are measured with."""
from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from tokenizers import Encoding, Tokenizer

from ..calibrate import Map
from ..constrain import Form
from ..prompt import environment
from ..runtime import Answer
from . import align, viterbi
from .fill import folder as fill


def open_folder(folder: Path, card: dict[str, Any]) -> Folder | fill.Folder:
    """A version's folder of any kind of encoder."""
    return fill.Folder(folder, card) if card["kind"] == "fill" else Folder(folder, card)


class Folder:
    """One version's folder, opened. `card` says what the outputs mean."""

    def __init__(self, folder: Path, card: dict[str, Any], threads: int = 2) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self._tokenizer = align.untouched(Tokenizer.from_file(str(folder / "tokenizer.json")))
        self._context = card["limits"]["context_tokens"]
        self._fields = card.get("tag", {}).get("input", {})
        self.reader = Reader(folder, card) if card["kind"] == "tag" else None
        self._classify = card.get("classify", {"labels": []})
        self._calibration = card.get("calibration", {})

    def logits(self, content: Any) -> tuple[Any, dict[str, np.ndarray]] | None:
        """The input's encoding, and each output for it; None if it does not fit."""
        encoding = align.Asked.of(content, self._fields).encoded(self._tokenizer)
        if len(encoding.ids) > self._context:
            return None
        ids = np.array([encoding.ids], np.int64)
        names = [o.name for o in self._session.get_outputs()]
        return encoding, {name: out[0] for name, out in zip(names, self._session.run(names, {"input_ids": ids, "attention_mask": np.ones_like(ids)}))}

    def greedy(self, task: str, content: Any, limit: int = 0, form: Form | None = None) -> Answer | None:
        """The likeliest answer; `limit` and `form` are a decoder's, and are not looked at."""
        found = self.logits(content)
        if found is None:
            return None
        encoding, out = found
        if self.reader:
            return self.reader.answer(task, content, encoding, out["tag_logits"], out.get("class_logits"))
        return self._label(task, viterbi.log_softmax(out["logits"]))

    def _label(self, task: str, by_class: np.ndarray) -> Answer:
        """The likeliest label that is not under its threshold, as serving picks it."""
        labels, least = self._classify["labels"], self._classify.get("thresholds", {})
        known = self._calibration.get(task)
        score = Map.of(known) if known else lambda of: math.exp(of["sum_logprob"])
        for i in np.argsort(-by_class, kind="stable"):
            answer = Answer(labels[int(i)], (), (float(by_class[i]),))
            if score(answer.statistics) >= least.get(answer.text, 0.0):
                return answer
        return Answer(labels[int(by_class.argmax())], (), (float(by_class.max()),))


class Reader:
    """Tags and class to the text that the folder's template makes of them."""

    def __init__(self, folder: Path, card: dict[str, Any]) -> None:
        about = card["tag"]
        self.classes, self.labels, self.fields = about["classes"], about["labels"], about.get("input", {})
        may = about.get("allowed", {})
        self.allowed = np.array([align.allowed(self.labels, may.get(name)) for name in self.classes or [None]])
        templates = {task: (folder / form["template"]).read_text() for task, form in card["output"].items()}
        self._templates = {task: environment().from_string(text) for task, text in templates.items()}

    def answer(self, task: str, content: Any, encoding: Encoding, tags: np.ndarray, classes: np.ndarray | None) -> Answer:
        """What serving answers, by the same rules."""
        asked = align.Asked.of(content, self.fields)
        said = [i for i in range(len(encoding.ids)) if not align.no_text(encoding, i)]
        reading = viterbi.read(tags[said], classes, self.allowed & np.array(align.allowed(self.labels, asked.labels)))
        spans = align.spans([encoding.offsets[i] for i in said], reading.tags, self.labels)
        rendered = self._templates[task].render(
            task=task,
            input=asked.text,
            **{"class": None if reading.chosen is None else self.classes[reading.chosen]},
            spans=[{"label": s.label, "text": asked.text[s.start : s.end]} for s in spans],
        )
        return Answer(rendered, reading.tags, reading.logprobs)
