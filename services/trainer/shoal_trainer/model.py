"""The checkpoint: a Llama-shaped decoder small enough to train on two CPU threads, in the form that Hugging Face and the ONNX builder read."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .prompt import END, Prompt

HEAD = 32  # Width of an attention head; under 32 rotary positions lose resolution, above it a small model has too few heads.


@dataclass(frozen=True)
class Size:
    """Shape of a decoder. Parameters are about `vocabulary * hidden + layers * 10.5 * hidden**2`, embeddings tied."""

    hidden: int = 192
    layers: int = 5
    vocabulary: int = 3072
    context: int = 512


def fresh(size: Size, prompt: Prompt) -> LlamaForCausalLM:
    """Random weights of that shape for that vocabulary."""
    heads = size.hidden // HEAD
    config = LlamaConfig(
        vocab_size=prompt.tokenizer.get_vocab_size(),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=HEAD,
        intermediate_size=int(size.hidden * 8 / 3) // 32 * 32,
        max_position_embeddings=size.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=prompt.end,
        pad_token_id=prompt.end,
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, prompt: Prompt, folder: Path, size: Size | None = None) -> None:
    """Writes a checkpoint that `load`, transformers and the ONNX builder read."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    prompt.tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    if size:
        (folder / "size.json").write_text(json.dumps(asdict(size)) + "\n")


def load(folder: Path) -> tuple[LlamaForCausalLM, Prompt]:
    """A checkpoint and its prompt."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return model, Prompt.load(folder)


@torch.no_grad()
def greedy(model: LlamaForCausalLM, prompt: Prompt, asked: list[list[int]], limit: int) -> list[str]:
    """Greedy answers, each row by itself so that no padding enters the arithmetic: ids in, text out."""
    model.eval()
    answers = []
    for ids in asked:
        room = min(limit, model.config.max_position_embeddings - len(ids))
        out = model.generate(
            torch.tensor([ids], device=model.device), max_new_tokens=max(1, room), do_sample=False, eos_token_id=prompt.end, pad_token_id=prompt.end
        )
        answers.append(prompt.text(out[0, len(ids) :].tolist()))
    return answers
