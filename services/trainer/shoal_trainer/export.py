"""A checkpoint to one version of a model folder: ONNX by the genai builder, tokenizer, template, forms. The card comes after parity."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .prompt import Prompt
from .tasks import Task

PRECISIONS = ("fp32", "fp16", "int8", "int4")

# What an initializer is called that is stored in half precision; under its own name the graph has it in single precision.
HALF = ".half"


class ExportError(Exception):
    """The builder failed; its last words are in the message."""


def export(weights: Path, folder: Path, tasks: list[Task], precision: str = "fp32") -> None:
    """Writes model.onnx and what belongs to it. `precision` is the builder's, embeddings and norms stay fp32; but fp16 is a file of half the
    size that computes as the fp32 one does: a processor without half-precision arithmetic gains nothing from more."""
    built = "fp32" if precision == "fp16" else precision
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(weights), "-o", str(out), "-p", built, "-e", "cpu", "-c", scratch]
        # What it needs is in the folder: nothing is asked of a hub.
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        if done.returncode or not (out / "model.onnx").is_file():
            raise ExportError("\n".join((done.stderr or done.stdout).strip().splitlines()[-5:]))
        for name in ("model.onnx", "model.onnx.data", "genai_config.json"):
            if (out / name).is_file():
                shutil.copyfile(out / name, folder / name)
    if precision == "fp16":
        halve(folder / "model.onnx")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(weights / name, folder / name)
    (folder / "chat_template.jinja").write_text(Prompt.load(weights).template)
    for task in tasks:
        for name, content in (task.kept or task.files()).items():
            (folder / name).write_text(content)


def halve(path: Path) -> None:
    """Stores the weights of a model in half precision, each with a cast back that ONNX Runtime folds away when it loads them."""
    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        # Norms and constants are a few hundred numbers: they stay as they are.
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + HALF))
        casts.append(helper.make_node("Cast", [name + HALF], [name], name + ".cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)
    data.chmod(path.stat().st_mode & 0o777)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """A model's initializers by the names that the builder gave them, in the precision that computes."""
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    return {name.removesuffix(HALF): value.astype(np.float32) if name.endswith(HALF) else value for name, value in found.items()}
