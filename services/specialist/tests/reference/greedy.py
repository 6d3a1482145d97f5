"""Greedy tokens of the tiny decoder by onnxruntime's Python API, with a growing KV cache and no shared buffer: a path that
shares nothing with this crate but the model file and the library.

    python services/specialist/tests/reference/greedy.py > services/specialist/tests/reference/greedy.json

needs: onnxruntime, tokenizers, numpy.
"""

import json
import math
import pathlib

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

FOLDER = pathlib.Path(__file__).resolve().parents[4] / "tests/fixtures/models/tiny_decoder/1"
PROMPTS = ["hello world", "play some jazz and book a table for two", "é", "x" * 60]
TOKENS = 32

config = json.loads((FOLDER / "genai_config.json").read_text())["model"]
decoder = config["decoder"]
tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(str(FOLDER / "model.onnx"), options, providers=["CPUExecutionProvider"])


def log_softmax(row):
    row = row.astype(np.float64)
    return row - row.max() - math.log(np.exp(row - row.max()).sum())


def greedy(text):
    ids = tokenizer.encode(f"<|task|>echo<|input|>{text}<|output|>", add_special_tokens=False).ids
    shape = (1, decoder["num_key_value_heads"], 0, decoder["head_size"])
    past = {
        name % layer: np.zeros(shape, np.float32)
        for layer in range(decoder["num_hidden_layers"])
        for name in ("past_key_values.%d.key", "past_key_values.%d.value")
    }
    feed, total, tokens, logprobs = ids, len(ids), [], []
    while len(tokens) < TOKENS:
        inputs = {"input_ids": np.array([feed], np.int64), "attention_mask": np.ones((1, total), np.int64), **past}
        names = [o.name for o in session.get_outputs()]
        out = dict(zip(names, session.run(names, inputs)))
        row = out["logits"][0, -1]
        token = int(row.argmax())
        logprobs.append(float(log_softmax(row)[token]))
        if token == config["eos_token_id"]:
            break
        tokens.append(token)
        past = {name.replace("present", "past_key_values"): out[name] for name in names if name != "logits"}
        feed, total = [token], total + 1
    return {"text": text, "prompt": ids, "tokens": tokens, "mean_logprob": sum(logprobs) / len(logprobs)}


print(json.dumps([greedy(text) for text in PROMPTS], indent=1, ensure_ascii=False))
