"""A model folder through plain ONNX Runtime: the loop that parity, calibration and scores are measured with."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

from .prompt import Prompt


class Folder:
    """One version's folder, opened. Past and present are separate tensors here: slower than the specialist, and simple."""

    def __init__(self, folder: Path, threads: int = 2) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.prompt = Prompt.load(folder)
        settings = json.loads((folder / "genai_config.json").read_text())["model"]
        self.context = settings["context_length"]
        inputs = [i.name for i in self.session.get_inputs()]
        self._past = [name for name in inputs if name.startswith("past_key_values.")]
        self._positions = "position_ids" in inputs
        self._kv_heads, self._head = settings["decoder"]["num_key_value_heads"], settings["decoder"]["head_size"]

    def greedy(self, ids: list[int], limit: int) -> tuple[str, float]:
        """Answer and confidence: exp of the mean log probability of the generated tokens, end included."""
        past = {name: np.zeros((1, self._kv_heads, 0, self._head), np.float32) for name in self._past}
        step, out, logprobs = ids, [], []
        for _ in range(max(1, min(limit, self.context - len(ids)))):
            total = len(ids) + len(out)
            feed = {"input_ids": np.array([step], np.int64), "attention_mask": np.ones((1, total), np.int64), **past}
            if self._positions:
                feed["position_ids"] = np.arange(total - len(step), total, dtype=np.int64)[None]
            names = ["logits", *(name.replace("past_key_values", "present") for name in self._past)]
            logits, *present = self.session.run(names, feed)
            row = logits[0, -1].astype(np.float64)
            best = int(row.argmax())
            logprobs.append(row[best] - row.max() - np.log(np.exp(row - row.max()).sum()))
            past = dict(zip(self._past, present))
            if best == self.prompt.end:
                break
            out.append(best)
            step = [best]
        return self.prompt.text(out), float(np.exp(np.mean(logprobs)))
