"""The tiny folders of tests/fixtures/models/foreign: random weights of the shapes that people export (Llama, Qwen2, Qwen3, Phi-3), exported by
other people's exporters, each with the 32 greedy tokens that transformers gives for three prompts. Exporters want different transformers, so
there are three steps, the last in an environment of its own (`pip install optimum-onnx==0.1.0 onnxconverter-common==1.16.0 transformers==4.57.6 torch==2.15.0
onnx==1.23.2 onnxruntime==1.32.0 accelerate==1.15.0`):

    python services/trainer/shoal_trainer/foreign.py checkpoints SCRATCH
    python services/trainer/shoal_trainer/foreign.py genai SCRATCH tests/fixtures/models/foreign
    python services/trainer/shoal_trainer/foreign.py optimum SCRATCH tests/fixtures/models/foreign

`expected.json` of a folder says what its tokens are compared with: of a quantised export transformers over the weights that its file holds.
"""
from __future__ import annotations

import hashlib
import io
import json
import random
import re
import runpy
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM

SEED = 20261127
TOKENS = 32
PROMPTS = 3  # Of the candidates those whose choices are the clearest.
CANDIDATES = 96
SPECIAL = ["<|end|>", "<|begin|>", "<|stop|>"]
WORDS = "play some jazz book a table for two find the weather in newark and then reserve it at noon please".split()
VOCABULARY = 144
# The least difference between the two largest logits of any of the 96 choices. Kernels of one precision differ by 1e-5; int8 and int4
# exports round activations to eight bits as they go, which moves these models' logits by some tenths and more: there a prompt is taken only if
# onnxruntime-genai's own Generator says what transformers says.
LEAST_MARGIN = {"fp32": 0.05, "fp16": 0.1, "int8": 0.0, "int4": 0.0}

SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 256, "initializer_range": 0.3, "bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0,
}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
# Each with what its family has: scaled rotary positions, attention biases and a list of ends, norms of queries and keys, fused projections.
FAMILIES = {
    "llama": (transformers.LlamaConfig, {"head_dim": 16, "tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "eos_token_id": [0, 2]}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 16, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}),
    "phi3": (transformers.Phi3Config, {"tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "original_max_position_embeddings": 256, "sliding_window": None}),
}
# Folder, family, the builder's precision and execution provider. On a CPU the provider only decides the graph: "cpu" has no position_ids in
# fp32, and in fp16 a separate past and present; "cuda" in fp16 is one shared buffer without position_ids, "dml" the same with them. Qwen3's for "cuda"
# has its norms of queries and keys inside the attention, which ONNX Runtime runs on CUDA alone.
GENAI = [
    ("llama_fp32", "llama", "fp32", "cpu"), ("qwen2_fp32", "qwen2", "fp32", "cpu"), ("qwen3_fp32", "qwen3", "fp32", "cpu"), ("phi3_fp32", "phi3", "fp32", "cpu"),
    ("llama_int8", "llama", "int8", "cpu"), ("qwen2_int8", "qwen2", "int8", "cpu"), ("qwen3_int8", "qwen3", "int8", "cpu"), ("phi3_int8", "phi3", "int8", "cpu"),
    ("llama_int4", "llama", "int4", "cpu"), ("qwen2_int4", "qwen2", "int4", "cpu"), ("qwen3_int4", "qwen3", "int4", "cpu"), ("phi3_int4", "phi3", "int4", "cpu"),
    ("llama_fp16", "llama", "fp16", "cuda"), ("qwen2_fp16_positions", "qwen2", "fp16", "dml"), ("phi3_fp16_positions", "phi3", "fp16", "dml"),
    ("qwen3_fp16_positions", "qwen3", "fp16", "dml"), ("qwen3_fp16", "qwen3", "fp16", "cuda"), ("llama_fp16_apart", "llama", "fp16", "cpu"),
]
# Folder, family, whether position_ids are an input (releases of optimum before 1.14 wrote none), precision: fp16 by onnxconverter-common, since
# optimum itself exports it with a GPU alone. Keys, values and logits are fp16 then too.
OPTIMUM = [
    ("optimum_llama", "llama", True, "fp32"), ("optimum_qwen2", "qwen2", True, "fp32"), ("optimum_phi3", "phi3", True, "fp32"), ("optimum_qwen3_no_positions", "qwen3", False, "fp32"),
    ("optimum_llama_fp16", "llama", True, "fp16"),
]
CARD = """name = "{name}"
version = 1
kind = "generate"
description = "random weights as another exporter writes them, for tests"
licence = "Apache-2.0"

[limits]
context_tokens = 256
max_new_tokens = 64

[price]
input_usd_per_million_tokens = 0.01
output_usd_per_million_tokens = 0.02

[training]
seed = {seed}

[files]
"""


def texts() -> list[str]:
    """Words in random order, short texts and long ones."""
    rng = random.Random(SEED)
    return [" ".join(rng.choices(WORDS, k=1 + i % 24)) for i in range(CANDIDATES)]


def tokenizer() -> Tokenizer:
    """A byte-level BPE over the letters of WORDS and their like: most of a vocabulary of all 256 bytes would only make the files larger."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if "!" <= c <= "~"]
    made.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))
    return made


def scaled(model: torch.nn.Module) -> None:
    """Sets weights apart: biases and norms that are neither zero nor one, and a last norm that spreads the logits."""
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.dim() == 1:
                weights.copy_((0.5 if name.endswith("bias") else 0.2) * torch.randn_like(weights) + (0.0 if name.endswith("bias") else 1.0))
            if name.endswith("model.norm.weight"):
                weights.mul_(3.0)
            # Half of each number's bits are zeroes: packed, a folder takes half as much.
            weights.copy_(weights.bfloat16().float())


def checkpoints(scratch: Path) -> None:
    """One folder a family, in the form that every release of transformers reads."""
    for i, (family, (kind, more)) in enumerate(FAMILIES.items()):
        torch.manual_seed(SEED + i)
        model = AutoModelForCausalLM.from_config(kind(**{**SHAPE, **more}))
        scaled(model)
        here = scratch / family
        model.save_pretrained(here)
        settings = json.loads((here / "config.json").read_text())
        rope = settings["rope_parameters"]
        settings["rope_theta"] = rope["rope_theta"]
        settings["rope_scaling"] = rope if rope["rope_type"] != "default" else None
        (here / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
        tokenizer().save(str(here / "tokenizer.json"))
        (here / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[0], "pad_token": SPECIAL[0], "bos_token": SPECIAL[1], "clean_up_tokenization_spaces": False}, indent=1) + "\n"
        )


def load(checkpoint: Path) -> torch.nn.Module:
    """A checkpoint in fp32."""
    return AutoModelForCausalLM.from_pretrained(checkpoint, torch_dtype=torch.float32, attn_implementation="eager", local_files_only=True).eval()


@torch.no_grad()
def greedy(model: torch.nn.Module, prompts: list[list[int]]) -> list[tuple[float, list[int]]]:
    """The least margin and the 32 tokens of each prompt. Whole texts are read again for each token: no cache that could be wrong. They are
    padded at their ends, where attention that looks back alone does not see it."""
    lengths = [len(prompt) for prompt in prompts]
    ids = torch.zeros((len(prompts), max(lengths) + TOKENS), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    rows, margins = torch.arange(len(prompts)), torch.full((len(prompts),), float("inf"))
    for step in range(TOKENS):
        ends = torch.tensor(lengths) + step
        best = model(ids[:, : int(ends.max())], use_cache=False).logits[rows, ends - 1].topk(2)
        margins = torch.minimum(margins, best.values[:, 0] - best.values[:, 1])
        ids[rows, ends] = best.indices[:, 0]
    return [(float(margins[row]), ids[row, length : length + TOKENS].tolist()) for row, length in enumerate(lengths)]


def generated(folder: Path, prompt: list[int]) -> list[int]:
    """The 32 greedy tokens of onnxruntime-genai's Generator."""
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=len(prompt) + TOKENS, do_sample=False)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array([prompt], np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return generator.get_sequence(0)[len(prompt) :].tolist()


def expected(model: torch.nn.Module, tokens: Tokenizer, precision: str, reference: str, second: Path | None = None) -> dict:
    """The clearest prompts, of different lengths, none of whose answers ends early or says the same all the time."""
    found, candidates = [], texts()
    prompts = [tokens.encode(text, add_special_tokens=False).ids for text in candidates]
    for text, prompt, (margin, answer) in zip(candidates, prompts, greedy(model, prompts)):
        if len(set(answer)) >= 5 and not set(answer) & {0, 1, 2}:
            found.append((margin, {"text": text, "prompt": prompt, "tokens": answer}))
    found.sort(key=lambda row: -row[0])
    chosen: list[tuple[float, dict]] = []
    for margin, row in found:
        if len(chosen) < PROMPTS and all(len(row["prompt"]) != len(other["prompt"]) for _, other in chosen):
            if second and generated(second, row["prompt"]) != row["tokens"]:
                continue
            chosen.append((margin, row))
    least = min(margin for margin, _ in chosen)
    if len(chosen) < PROMPTS or least < LEAST_MARGIN[precision]:
        raise SystemExit(f"{reference}: {len(chosen)} prompts, least margin {least}: choose another SEED")
    return {"reference": reference, "least_margin": round(least, 4), "rows": [row for _, row in chosen]}


def dequantised(model: torch.nn.Module, path: Path) -> None:
    """Puts the weights that an int4 or int8 file holds in the place of a checkpoint's."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    state = model.state_dict()
    for node in graph.node:
        if node.op_type != "MatMulNBits":
            continue
        at = {a.name: a.i for a in node.attribute}
        packed, scales = tensors[node.input[1]], tensors[node.input[2]]
        if len(node.input) > 3 and node.input[3]:
            raise SystemExit(f"{node.name} has zero points, which this script does not read")
        values = packed if at["bits"] == 8 else np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1)
        values = (values.astype(np.float32) - (1 << (at["bits"] - 1))) * scales.reshape(at["N"], -1, 1)
        weights = torch.from_numpy(values.reshape(at["N"], -1)[:, : at["K"]].copy())
        if node.name.startswith("/lm_head"):
            # One table in an int4 file; an int8 one keeps the embeddings as they were.
            shared = any(n.op_type == "GatherBlockQuantized" for n in graph.node)
            if not shared:
                model.lm_head.weight = torch.nn.Parameter(weights)
            else:
                state["model.embed_tokens.weight"].copy_(weights)
            continue
        layer, part, name = re.match(r"/model/layers\.(\d+)/(\w+)/(\w+)/", node.name).groups()
        part = {"attn": "self_attn"}.get(part, part)
        whole = f"model.layers.{layer}.{part}.{name}.weight"
        if name == "qkv_proj" and whole not in state:
            sizes = [state[f"model.layers.{layer}.{part}.{n}_proj.weight"].shape[0] for n in "qkv"]
            for n, piece in zip("qkv", weights.split(sizes)):
                state[f"model.layers.{layer}.{part}.{n}_proj.weight"].copy_(piece)
        elif name in ("gate_proj", "up_proj") and whole not in state:
            # Phi-3 keeps both in one, the gate first.
            both = state[f"model.layers.{layer}.{part}.gate_up_proj.weight"]
            both.view(2, -1, both.shape[1])[int(name == "up_proj")].copy_(weights)
        else:
            state[whole].copy_(weights)


def finish(root: Path, name: str, checkpoint: Path, wanted: dict) -> None:
    """What makes an export a folder of ours."""
    here = root / name / "1"
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(checkpoint / file, here / file)
    (here / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(here.iterdir()) if p.name != "card.toml"}
    card = CARD.format(name=name, seed=SEED) + "".join(f'"{file}" = "{total}"\n' for file, total in sums.items())
    (here / "card.toml").write_text(card)
    (root / name / "specialist.toml").write_text(f'name = "{name}"\ntasks = ["echo"]\nactive_version = 1\n')
    (root / name / "expected.json").write_text(json.dumps(wanted) + "\n")
    size = sum(p.stat().st_size for p in (root / name).rglob("*") if p.is_file())
    print(f"{name}: {size} bytes, least margin {wanted['least_margin']}")


def genai(scratch: Path, root: Path) -> None:
    """onnxruntime_genai.models.builder."""
    import onnxruntime_genai

    for name, family, precision, provider in GENAI:
        out, checkpoint = scratch / f"genai_{name}", scratch / family
        # In this process: most of a builder's time is importing torch.
        sys.argv = ["builder", "-i", str(checkpoint), "-o", str(out), "-p", precision, "-e", provider, "-c", str(scratch / "cache")]
        with redirect_stdout(io.StringIO()):
            runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
        here = root / name / "1"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        for file in ("model.onnx", "model.onnx.data", "genai_config.json"):
            shutil.copyfile(out / file, here / file)
        model, over, second = load(checkpoint), "the checkpoint's weights", None
        if precision == "fp16":
            model, over = model.half().float(), "the weights rounded to fp16, computed in fp32"
        elif precision != "fp32":
            dequantised(model, here / "model.onnx")
            over, second = f"the {precision} file's weights, dequantised, of prompts to which onnxruntime-genai's Generator says the same", out
        told = f"transformers {transformers.__version__}, greedy, over {over}; export: onnxruntime-genai {onnxruntime_genai.__version__} -p {precision} -e {provider}"
        finish(root, name, checkpoint, expected(model, Tokenizer.from_file(str(checkpoint / "tokenizer.json")), precision, told, second))


def half(path: Path) -> None:
    """Makes a graph compute in fp16, and take and give it. Angles of positions stay fp32, as torch has them: fp16 has three digits."""
    import onnx
    from onnxconverter_common import float16

    model = onnx.load(path)
    angles = [node.name for node in model.graph.node if "rotary_emb" in node.name]
    # A cast to fp32 did nothing in an fp32 graph; the converter leaves it, and what reads it would have another type than it expects.
    casts = {node.name for node in model.graph.node if node.op_type == "Cast"} - set(angles)
    model = float16.convert_float_to_float16(model, keep_io_types=False, node_block_list=angles)
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.name in casts and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.FLOAT16
    onnx.save(model, path)


def optimum(scratch: Path, root: Path) -> None:
    """optimum.exporters.onnx."""
    from importlib.metadata import version

    from optimum.exporters.onnx import main_export, model_configs

    with_positions = model_configs.LlamaOnnxConfig.inputs
    without = property(lambda self: {k: v for k, v in with_positions.fget(self).items() if k != "position_ids"})
    for name, family, positions, precision in OPTIMUM:
        out, checkpoint = scratch / f"made_{name}", scratch / family
        model_configs.LlamaOnnxConfig.inputs = with_positions if positions else without
        main_export(str(checkpoint), out, task="text-generation-with-past", do_validation=False)
        here = root / name / "1"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        for file in ("model.onnx", "config.json", "generation_config.json"):
            shutil.copyfile(out / file, here / file)
        model, over, by = load(checkpoint), "the checkpoint's weights", f"optimum-onnx {version('optimum-onnx')}"
        if precision == "fp16":
            half(here / "model.onnx")
            model, over = model.half().float(), "the weights rounded to fp16, computed in fp32"
            by += f", made fp16 by onnxconverter-common {version('onnxconverter-common')}"
        told = f"transformers {transformers.__version__}, greedy, over {over}; export: {by}"
        finish(root, name, checkpoint, expected(model, Tokenizer.from_file(str(checkpoint / "tokenizer.json")), precision, told))


if __name__ == "__main__":
    step, *folders = sys.argv[1:]
    {"checkpoints": checkpoints, "genai": genai, "optimum": optimum}[step](*map(Path, folders))
