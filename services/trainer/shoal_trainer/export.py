"""A checkpoint to one version of a model folder: ONNX by the genai builder, tokenizer, template, forms. The card comes after parity."""
from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .prompt import Prompt
from .tasks import Task

PRECISIONS = ("fp32", "int8", "int4")


class ExportError(Exception):
    """The builder failed; its last words are in the message."""


def export(weights: Path, folder: Path, tasks: list[Task], precision: str = "fp32") -> None:
    """Writes model.onnx and what belongs to it. `precision` is the builder's; embeddings and norms stay fp32."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(weights), "-o", str(out), "-p", precision, "-e", "cpu", "-c", scratch]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not (out / "model.onnx").is_file():
            raise ExportError("\n".join((done.stderr or done.stdout).strip().splitlines()[-5:]))
        for name in ("model.onnx", "model.onnx.data", "genai_config.json"):
            if (out / name).is_file():
                shutil.copyfile(out / name, folder / name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(weights / name, folder / name)
    (folder / "chat_template.jinja").write_text(Prompt.load(weights).template)
    for task in tasks:
        for name, content in (task.kept or task.files()).items():
            (folder / name).write_text(content)
