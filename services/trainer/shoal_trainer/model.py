"""The checkpoint: a Llama-shaped decoder small enough to train on two CPU threads, in the form that Hugging Face and the ONNX builder read."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from . import export, folders
from .prompt import END, Prompt

HEAD = 32  # Width of an attention head; under 32 rotary positions lose resolution, above it a small model has too few heads.

# Every projection: adapters on all of them come closest to full fine-tuning (Dettmers 2023, QLoRA, section 4).
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class CheckpointError(Exception):
    """A folder that training cannot start from."""


@dataclass(frozen=True)
class Size:
    """Shape of a decoder. Parameters are about `vocabulary * hidden + layers * 10.5 * hidden**2`, embeddings tied."""

    hidden: int = 256
    layers: int = 6
    vocabulary: int = 4096
    context: int = 1280


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
        attn_implementation="eager",  # On a CPU the fused kernel's backward pass is the slower one.
    )
    return LlamaForCausalLM(config)


def adapted(weights: LlamaForCausalLM, rank: int) -> nn.Module:
    """The same weights, frozen, with LoRA adapters of that rank to be trained."""
    import peft

    return peft.get_peft_model(weights, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=ADAPTED, task_type="CAUSAL_LM"))


def base(weights: nn.Module) -> LlamaForCausalLM:
    """The decoder itself, with or without adapters around it."""
    return weights.get_base_model() if hasattr(weights, "get_base_model") else weights  # type: ignore[return-value]


def merged(weights: nn.Module) -> LlamaForCausalLM:
    """Adapters added into the weights that they adapt."""
    return weights.merge_and_unload() if hasattr(weights, "merge_and_unload") else weights  # type: ignore[return-value]


def save(weights: LlamaForCausalLM, prompt: Prompt, folder: Path, size: Size | None = None) -> None:
    """Writes a checkpoint that `load`, transformers and the ONNX builder read."""
    folder.mkdir(parents=True, exist_ok=True)
    weights.save_pretrained(folder)
    prompt.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(prompt.template)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    if size:
        (folder / "size.json").write_text(json.dumps(asdict(size)) + "\n")


def load(folder: Path) -> tuple[LlamaForCausalLM, Prompt]:
    """A checkpoint and its prompt. A version of a shipped specialist is one too, where its weights are fp32 or fp16."""
    folders.weights(folder)
    version = (folder / "card.toml").is_file()
    if (version and folders.version(folder)["kind"] != "generate") or (folder / folders.ENCODER).is_file():
        raise CheckpointError(f"{folder} has the weights of an encoder, and a decoder is asked for: give a decoder's, or leave --kind out")
    if version:
        weights = _exported(folder)
    else:
        weights = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True)
    weights.eval()
    return weights, Prompt.load(folder)


def _exported(folder: Path) -> LlamaForCausalLM:
    """The weights of an fp32 or fp16 export, by the names that the genai builder gives them: a retraining starts from the very numbers that serve,
    and nothing has to be kept beside the folder for it."""
    tensors = {name: torch.from_numpy(value.copy()) for name, value in export.tensors(folder / "model.onnx").items()}
    settings = json.loads((folder / "genai_config.json").read_text())["model"]
    decoder, layer = settings["decoder"], "model.layers.{}.{}.MatMul.weight"
    if layer.format(0, "attn.qkv_proj") not in tensors:
        raise CheckpointError(f"{folder}: no fp32 or fp16 Llama-shaped export of this trainer; start from such a version or from a checkpoint folder")
    heads, kv_heads, head = decoder["num_attention_heads"], decoder["num_key_value_heads"], decoder["head_size"]
    weights = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=settings["vocab_size"],
            hidden_size=decoder["hidden_size"],
            num_hidden_layers=decoder["num_hidden_layers"],
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head,
            intermediate_size=tensors[layer.format(0, "mlp.up_proj")].shape[1],
            max_position_embeddings=settings["context_length"],
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=settings["eos_token_id"],
            pad_token_id=settings["eos_token_id"],
            attn_implementation="eager",
        )
    )
    state = {"model.embed_tokens.weight": tensors["lm_head.MatMul.weight"].T, "model.norm.weight": tensors[f"model.layers.{decoder['num_hidden_layers']}.final_norm_layernorm.weight"]}
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    for i in range(decoder["num_hidden_layers"]):
        at = f"model.layers.{i}."
        parts = tensors[layer.format(i, "attn.qkv_proj")].T.split([heads * head, kv_heads * head, kv_heads * head])
        state |= {f"{at}self_attn.{name}_proj.weight": part for name, part in zip("qkv", parts)}
        state[f"{at}self_attn.o_proj.weight"] = tensors[layer.format(i, "attn.o_proj")].T
        state |= {f"{at}mlp.{name}_proj.weight": tensors[layer.format(i, f"mlp.{name}_proj")].T for name in ("gate", "up", "down")}
        state |= {f"{at}{name}_layernorm.weight": tensors[f"{at}{name}_layernorm.weight"] for name in ("input", "post_attention")}
    weights.load_state_dict({name: part.contiguous() for name, part in state.items()})
    return weights
