"""A bare ONNX Runtime loop as a peer: the decoder's steps with nothing around them.

    python bare.py --model FOLDER/1 --threads N

The strongest loop that is honest: one KV buffer bound as past and present at once, so that attention appends in place and nothing is copied, one
binding for each number of rows, all buffers allocated before the clock starts, and per step only the greedy choice. It is Python, so the share of its
time that is not ONNX Runtime's own run is in the answer: where that is small, no other language would make it faster.
"""
from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import lines


class Loop:
    """A loaded model with room for `rows` sequences of `positions`."""

    def __init__(self, folder: Path, threads: int) -> None:
        config = json.loads((folder / "genai_config.json").read_text())["model"]
        decoder = config["decoder"]
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Steps differ in shape: patterns would be learned and never reused. The pool spins between operators, as is the library's default: on two
        # threads the loop is slower by a third to a half without it.
        options.enable_mem_pattern = False
        self.session = ort.InferenceSession(str(folder / decoder["filename"]), options, providers=["CPUExecutionProvider"])
        inputs, outputs = decoder["inputs"], decoder["outputs"]
        self.caches = [
            (inputs[f"past_{half}_names"] % layer, outputs[f"present_{half}_names"] % layer)
            for layer in range(decoder["num_hidden_layers"]) for half in ("key", "value")
        ]
        self.names = inputs["input_ids"], inputs["attention_mask"], outputs["logits"]
        # Some exports take positions, some do not.
        self.positions = next((i.name for i in self.session.get_inputs() if i.name == inputs.get("position_ids")), None)
        self.heads, self.head, self.vocabulary = decoder["num_key_value_heads"], decoder["head_size"], config["vocab_size"]

    def run(self, binding: Any, ids: np.ndarray, total: int, logits: np.ndarray, past: int) -> float:
        """One run over `ids: [rows, columns]` after `past` positions; gives the seconds inside ONNX Runtime."""
        rows = ids.shape[0]
        binding.bind_cpu_input(self.names[0], ids)
        binding.bind_cpu_input(self.names[1], np.ones((rows, total), dtype=np.int64))
        if self.positions:
            binding.bind_cpu_input(self.positions, np.tile(np.arange(past, total, dtype=np.int64), (rows, 1)))
        binding.bind_output(self.names[2], "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        started = time.perf_counter()
        self.session.run_with_iobinding(binding)
        return time.perf_counter() - started

    def bound(self, caches: list[np.ndarray]) -> Any:
        """A binding whose past and present are the same memory."""
        binding = self.session.io_binding()
        for cache, (past, present) in zip(caches, self.caches):
            binding.bind_input(past, "cpu", 0, np.float32, cache.shape, cache.ctypes.data)
            binding.bind_output(present, "cpu", 0, np.float32, cache.shape, cache.ctypes.data)
        return binding

    def rows(self, request: dict[str, Any]) -> dict[str, Any]:
        """Reads all prompts in one run, then decodes all rows together, `new` tokens each. Prompts are of one length."""
        prompts, new = np.array(request["prompts"], dtype=np.int64), request["new"]
        rows, width = prompts.shape
        # As long as the engine's: a kernel may walk the buffer by its stride.
        caches = [np.zeros((rows, self.heads, request["positions"], self.head), dtype=np.float32) for _ in self.caches]
        together, logits = self.bound(caches), np.zeros((rows, 1, self.vocabulary), dtype=np.float32)
        prefill = np.zeros((rows, width, self.vocabulary), dtype=np.float32)
        started = time.perf_counter()
        inside = self.run(together, prompts, width, prefill, 0)
        ids = prefill[:, -1].argmax(axis=1)[:, None]
        said = [ids[:, 0].tolist()]
        for step in range(new - 1):
            past = width + step
            inside += self.run(together, ids, past + 1, logits, past)
            ids = logits[:, 0].argmax(axis=1, keepdims=True)
            said.append(ids[:, 0].tolist())
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "tokens": [list(row) for row in zip(*said)], "inside": inside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    say = lines.channel()
    loop = Loop(args.model, args.threads)
    lines.serve(say, {"onnxruntime": ort.__version__, "intra_op_threads": args.threads, "spinning": True}, {"rows": loop.rows})


if __name__ == "__main__":
    main()
