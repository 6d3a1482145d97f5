"""The tiny random-weight models of tests/fixtures/models, for tests of the engine that must not depend on what a model knows.

    python -m shoal_trainer.fixtures tests/fixtures/models
"""
from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertModel, LlamaConfig, LlamaForCausalLM

from . import card, model
from .export import export
from .prompt import Prompt


SEED = 20261123
LABELS = ["play_music", "book_table", "weather", "oos"]
CALL = {
    "x-guidance": {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"},
    "type": "object",
    "properties": {"tool": {"enum": ["A", "B"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}, "name": {"type": "string", "maxLength": 12}},
    "required": ["tool", "count", "name"],
    "additionalProperties": False,
}


def sample_text() -> list[str]:
    """Words in random order: enough for a BPE of 512 entries to have merges."""
    rng, words = random.Random(SEED), "play some jazz book a table for two find the weather in newark and then reserve it at noon please".split()
    return [" ".join(rng.choices(words, k=8)) for _ in range(400)]


def about(name: str, kind: str, licence: str = "Apache-2.0") -> dict:
    """What every fixture's card says."""
    return {
        "name": name,
        "version": 1,
        "kind": kind,
        "description": "random weights, for tests",
        "licence": licence,
        "limits": {"context_tokens": 256, "max_new_tokens": 64},
        "price": card.PRICE,
    }


def decoder(root: Path) -> None:
    """tiny_decoder: tasks `echo` (free text) and `call` (held to a schema)."""
    torch.manual_seed(SEED)
    prompt = Prompt.learn(sample_text(), 512)
    config = LlamaConfig(
        vocab_size=prompt.tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=128, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None, eos_token_id=prompt.end, pad_token_id=prompt.end,
        initializer_range=0.2,  # Wide, so that logits differ enough for greedy choices never to hang on rounding.
    )
    here = root / "tiny_decoder" / "1"
    with tempfile.TemporaryDirectory() as scratch:
        model.save(LlamaForCausalLM(config), prompt, Path(scratch))
        export(Path(scratch), here, [])
    (here / "output.schema.json").write_text(json.dumps(CALL, indent=1) + "\n")
    extra = {"output": {"call": {"schema": "output.schema.json"}}, "calibration": {"call": {"confidence_threshold": 0.5}}, "training": {"seed": SEED}}
    card.write(root / "tiny_decoder", "tiny_decoder", ["echo", "call"], {**about("tiny_decoder", "generate"), **extra})


def bert_tokenizer() -> Tokenizer:
    """The same BPE with [CLS] and [SEP]-like marks, as encoders expect."""
    tokenizer = Prompt.learn(sample_text(), 512).tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    mark = tokenizer.token_to_id("<|task|>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<|task|> $A", special_tokens=[("<|task|>", mark)])
    return tokenizer


def encoder(root: Path, name: str, kind: str, extra: dict) -> None:
    """tiny_classifier or tiny_embedder: a BERT-shaped encoder. Inputs input_ids, attention_mask: [rows, seq] i64."""
    torch.manual_seed(SEED)
    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=128,
        num_labels=len(LABELS), initializer_range=0.2, attn_implementation="eager",
    )
    network = BertForSequenceClassification(config) if kind == "classify" else BertModel(config, add_pooling_layer=False)
    network.eval()

    class Named(torch.nn.Module):
        """The network with two inputs and one output."""

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            out = network(input_ids=input_ids, attention_mask=attention_mask)
            return out.logits if kind == "classify" else out.last_hidden_state

    named = Named()
    named.network = network
    here = root / name / "1"
    here.mkdir(parents=True, exist_ok=True)
    ids = torch.ones((2, 7), dtype=torch.int64)
    output = "logits" if kind == "classify" else "last_hidden_state"
    axes = {"input_ids": {0: "rows", 1: "seq"}, "attention_mask": {0: "rows", 1: "seq"}, output: {0: "rows", **({} if kind == "classify" else {1: "seq"})}}
    torch.onnx.export(
        named, (ids, ids), str(here / "model.onnx"), input_names=["input_ids", "attention_mask"], output_names=[output], dynamic_axes=axes, dynamo=False, opset_version=17
    )
    tokenizer.save(str(here / "tokenizer.json"))
    card.write(root / name, name, ["route"] if kind == "classify" else ["embed"], {**about(name, kind), **extra, "training": {"seed": SEED}})


def main(root: Path) -> None:
    """All three."""
    decoder(root)
    encoder(root, "tiny_classifier", "classify", {"classify": {"labels": LABELS}})
    encoder(root, "tiny_embedder", "embed", {"embed": {"pooling": "mean", "normalise": True, "dimensions": 32}})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
