#!/usr/bin/env python3
"""Decoders of real shapes with random weights, for deploy/gpu-check: what a model knows does not change its speed.

    gpu-shapes.py graph SHAPE FOLDER --tokenizer VERSION     needs torch, transformers and onnxruntime-genai (services/trainer brings them)
    gpu-shapes.py fill FOLDER                                needs nothing: run where the model is

`graph` exports the shape in fp16 for CUDA and keeps the graph, all tensors under a megabyte (norms, rotary tables) and where the large ones
lie: some megabytes instead of gigabytes. `fill` writes the large ones, the same on every machine, and the card with the sums of its files.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SEED = 20261127
CONTEXT = 1024
# Of Qwen2.5, as its configurations on the hub say: (hidden, feed-forward, layers, heads, key/value heads, vocabulary).
SHAPES = {
    "0.5b": (896, 4864, 24, 14, 2, 151936),
    "1.5b": (1536, 8960, 28, 12, 2, 151936),
    # For the dry run alone: a vocabulary that holds the tokenizer's, and nothing else of size.
    "tiny": (64, 128, 2, 4, 2, 4224),
}
# Tensors from this size on are filled, not carried. Tiny's have to be filled as well, or the dry run would not try it.
LARGE = {"tiny": 1 << 12}
TEMPLATE = "{{ messages[-1].content }}"


def graph(shape: str, folder: Path, tokenizer: Path) -> None:
    """Exports `shape` and writes what has to be carried into FOLDER/1."""
    import onnx
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    hidden, inner, layers, heads, kv_heads, vocabulary = SHAPES[shape]
    config = Qwen2Config(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        vocab_size=vocabulary, max_position_embeddings=CONTEXT, tie_word_embeddings=True, bos_token_id=1, eos_token_id=0,
    )
    torch.manual_seed(SEED)
    here = folder / "1"
    shutil.rmtree(folder, ignore_errors=True)
    here.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, out, cache = (Path(scratch) / name for name in ("checkpoint", "out", "cache"))
        torch.set_default_dtype(torch.float16)
        Qwen2ForCausalLM(config).save_pretrained(checkpoint)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, checkpoint / name)
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", checkpoint, "-i", checkpoint, "-o", out, "-c", cache]
        subprocess.run([*builder, "-p", "fp16", "-e", "cuda"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.copy(out / "model.onnx", here / "model.onnx")
        shutil.copy(out / "genai_config.json", here / "genai_config.json")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, here / name)
        data, kept, filled = out / "model.onnx.data", [], []
        with data.open("rb") as source, (here / "kept.bin").open("wb") as sink:
            for tensor in onnx.load(str(out / "model.onnx"), load_external_data=False).graph.initializer:
                at = {entry.key: entry.value for entry in tensor.external_data}
                if not at:
                    continue
                offset, length = int(at.get("offset", 0)), int(at["length"])
                if length >= LARGE.get(shape, 1 << 20):
                    filled.append([offset, length])
                    continue
                source.seek(offset)
                sink.write(source.read(length))
                kept.append([offset, length])
        layout = {"shape": shape, "bytes": data.stat().st_size, "kept": kept, "filled": filled}
    (here / "layout.json").write_text(json.dumps(layout))
    (here / "chat_template.jinja").write_text(TEMPLATE)


def block(words: int) -> bytes:
    """Random numbers in half precision, little-endian: either sign, 2^-6 to 2^-5. Of that size products of a thousand stay finite."""
    source = random.Random(SEED)
    out = bytearray(2 * words)
    out[0::2] = source.randbytes(words)
    # The high byte: sign, exponent 9 of 5 bits, two bits of the fraction.
    out[1::2] = source.randbytes(words).translate(bytes((b & 0x83) | 0x24 for b in range(256)))
    return bytes(out)


def fill(folder: Path) -> None:
    """Writes the weights and the card."""
    here = folder / "1"
    layout = json.loads((here / "layout.json").read_text())
    noise = block(1 << 22)
    with (here / "model.onnx.data").open("wb") as sink:
        sink.truncate(layout["bytes"])
        for i, (offset, length) in enumerate(layout["filled"]):
            sink.seek(offset)
            # Each begins elsewhere in the noise: no two tensors are the same.
            start = 2 * ((i * 977_777) % (len(noise) // 2))
            left = length
            while left:
                piece = noise[start : start + left]
                sink.write(piece)
                left, start = left - len(piece), 0
        kept = (here / "kept.bin").read_bytes()
        at = 0
        for offset, length in layout["kept"]:
            sink.seek(offset)
            sink.write(kept[at : at + length])
            at += length
    name = "random_" + layout["shape"].replace(".", "_")
    (folder / "specialist.toml").write_text(f'name = "{name}"\ntasks = ["echo"]\nactive_version = 1\n')
    carried = {"kept.bin", "layout.json", "card.toml"}
    files = sorted(path for path in here.iterdir() if path.name not in carried)
    sums = "".join(f'"{path.name}" = "{digest(path)}"\n' for path in files)
    (here / "card.toml").write_text(
        f'name = "{name}"\nversion = 1\nkind = "generate"\ndescription = "random weights of shape {layout["shape"]}"\nlicence = "Apache-2.0"\n\n'
        f"[limits]\ncontext_tokens = {CONTEXT}\nmax_new_tokens = {CONTEXT - 1}\n\n"
        "[price]\ninput_usd_per_million_tokens = 0.0\noutput_usd_per_million_tokens = 0.0\n\n"
        f"[training]\nseed = {SEED}\n\n[files]\n{sums}"
    )


def digest(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("graph", help="on a machine with the trainer's packages")
    export.add_argument("shape", choices=sorted(SHAPES))
    export.add_argument("folder", type=Path)
    export.add_argument("--tokenizer", type=Path, required=True, help="a version whose tokenizer.json is taken")
    write = commands.add_parser("fill", help="where the model is to run")
    write.add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "graph":
        graph(args.shape, args.folder, args.tokenizer)
    elif sys.version_info < (3, 11):
        sys.exit("gpu-shapes: needs python 3.11 or newer")
    else:
        fill(args.folder)


if __name__ == "__main__":
    main()
