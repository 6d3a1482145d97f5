"""A checkpoint to model.onnx, in fp32 or with int8 weights, and back: a retraining starts from what is shipped."""
from __future__ import annotations

import json
import logging
import tempfile
import tomllib
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer
from transformers import BertConfig

from . import net
from .align import untouched

CONFIG = "encoder.json"  # Beside model.onnx: the body's shape, for a retraining.
TRANSPOSED = ".T"  # Ends the name of a linear layer's weight as the graph has it.


def export(encoder: net.Encoder, tokenizer: Tokenizer, folder: Path, precision: str) -> None:
    """Writes model.onnx, tokenizer.json and encoder.json. int8: weights alone, a channel at a time; activations are scaled as they come."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder.eval()
    heads = [name for name, head in (("tag_logits", encoder.tag), ("class_logits", encoder.classify)) if head]
    outputs = ["logits"] if heads == ["class_logits"] else heads
    ids = torch.ones((2, 8), dtype=torch.long)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", max=encoder.body.config.max_position_embeddings)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _Heads(encoder),
            (ids, torch.ones_like(ids)),
            input_names=["input_ids", "attention_mask"],
            output_names=outputs,
            dynamic_shapes=({0: rows, 1: tokens}, {0: rows, 1: tokens}),
            dynamo=True,
            verbose=False,
        )
        plain = Path(scratch) / "model.onnx"
        program.save(plain)
        graph = onnx.load(plain)
        _name(graph, encoder)
        onnx.save(graph, plain)
        if precision == "int8":
            quantize_dynamic(plain, folder / "model.onnx", weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gather"])
        else:
            onnx.save(graph, folder / "model.onnx")
    (folder / CONFIG).write_text(json.dumps(encoder.body.config.to_diff_dict(), indent=1) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


class _Heads(torch.nn.Module):
    """Only the outputs that there are: a graph has no None."""

    def __init__(self, encoder: net.Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor):  # noqa: ANN201
        return tuple(out for out in self.encoder(input_ids, attention_mask) if out is not None)


def _name(graph: onnx.ModelProto, encoder: net.Encoder) -> None:
    """Gives initializers the names of the parameters that they are: the exporter folds a linear layer's transposed weight into a constant
    without one."""
    known = {name: p.detach().numpy() for name, p in encoder.named_parameters()}
    new: dict[str, str] = {}
    for initializer in graph.graph.initializer:
        array = numpy_helper.to_array(initializer)
        for name, parameter in known.items():
            if array.shape == parameter.shape and np.array_equal(array, parameter):
                new[initializer.name] = name
            elif array.ndim == 2 and array.shape == parameter.shape[::-1] and np.array_equal(array, parameter.T):
                new[initializer.name] = name + TRANSPOSED
    for initializer in graph.graph.initializer:
        initializer.name = new.get(initializer.name, initializer.name)
    for node in graph.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]


def load(folder: Path) -> tuple[net.Encoder, Tokenizer]:
    """The weights of an exported folder; int8 ones at the values that serve."""
    card = tomllib.loads((folder / "card.toml").read_text())
    about = card.get("tag") or {"classes": card["classify"]["labels"], "labels": []}
    shape = net.Shape(tuple(about["classes"]), tuple(about["labels"]))
    encoder = net.Encoder(BertConfig(**json.loads((folder / CONFIG).read_text())), shape)
    tensors = {i.name: numpy_helper.to_array(i) for i in onnx.load(folder / "model.onnx").graph.initializer}
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(torch.from_numpy(_tensor(tensors, name)))
    encoder.eval()
    return encoder, untouched(Tokenizer.from_file(str(folder / "tokenizer.json")))


def _tensor(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    for stored, turned in ((name, False), (name + TRANSPOSED, True)):
        found = tensors.get(stored)
        if found is None and f"{stored}_quantized" in tensors:
            whole, scale, zero = (tensors[f"{stored}_{part}"] for part in ("quantized", "scale", "zero_point"))
            # Scales are of the graph's last axis, its output channels, or of the whole.
            found = (whole.astype(np.float32) - zero.astype(np.float32)) * scale
        if found is not None:
            return np.ascontiguousarray(found.T if turned else found, np.float32)
    raise KeyError(name)
