"""A checkpoint to model.onnx, in fp32 or with int8 weights, and back: a retraining starts from what is shipped."""
from __future__ import annotations

import json
import logging
import tempfile
import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from transformers import BertConfig

from . import net
from .align import untouched
from .fill.folder import shape as shape_of
from .fill.net import Filler, Logits

CONFIG = "encoder.json"  # Beside model.onnx: the body's shape, for a retraining.
TRANSPOSED = ".T"  # Ends the name of a linear layer's weight as the graph has it.
INT8, SCALE = "_int8", "_scale"  # End the names of the two parts of a matrix in int8.
SMALL = 128  # Rows and columns from which on a matrix is put in int8.


def export(encoder: net.Encoder | Filler, tokenizer: Tokenizer, folder: Path, precision: str) -> None:
    """Writes model.onnx, tokenizer.json and encoder.json. int8: the weights alone (`_shrink`)."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder.eval()
    graph_of, sample, inputs, outputs, dims = _filler(encoder) if isinstance(encoder, Filler) else _encoder(encoder)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph_of,
            sample,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dims,
            dynamo=True,
            verbose=False,
        )
        plain = Path(scratch) / "model.onnx"
        program.save(plain)
        graph = onnx.load(plain)
        _name(graph, encoder)
        if precision == "int8":
            _shrink(graph.graph)
        onnx.save(graph, folder / "model.onnx")
    (folder / CONFIG).write_text(json.dumps(encoder.body.config.to_diff_dict(), indent=1) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def _encoder(encoder: net.Encoder) -> tuple:
    """What is exported, an input of it, names of inputs and outputs, and which sizes vary."""
    heads = [name for name, head in (("tag_logits", encoder.tag), ("class_logits", encoder.classify)) if head]
    ids = torch.ones((2, 8), dtype=torch.long)
    shape = {0: torch.export.Dim("rows"), 1: _tokens(encoder)}
    return _Heads(encoder), (ids, torch.ones_like(ids)), ["input_ids", "attention_mask"], ["logits"] if heads == ["class_logits"] else heads, (shape, shape)


def _filler(filler: Filler) -> tuple:
    """The same of a filler."""
    rows, methods, parameters = (torch.export.Dim(name) for name in ("rows", "methods", "parameters"))
    ids, names, asked = torch.ones((2, 8), dtype=torch.long), torch.ones((2, 3), dtype=torch.long), torch.ones((2, 5), dtype=torch.long)
    text = {0: rows, 1: _tokens(filler)}
    inputs = ["input_ids", "attention_mask", "method_at", "parameter_at", "parameter_of"]
    # Each a tensor of its own: of one that came twice the exporter makes one input.
    return filler, (ids, torch.ones_like(ids), names, asked, asked.clone()), inputs, list(Logits._fields), (text, text, {0: rows, 1: methods}, {0: rows, 1: parameters}, {0: rows, 1: parameters})


def _tokens(encoder: net.Encoder | Filler) -> torch.export.Dim:
    return torch.export.Dim("tokens", max=encoder.body.config.max_position_embeddings)


class _Heads(torch.nn.Module):
    """Only the outputs that there are: a graph has no None."""

    def __init__(self, encoder: net.Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor):  # noqa: ANN201
        return tuple(out for out in self.encoder(input_ids, attention_mask) if out is not None)


def _name(graph: onnx.ModelProto, encoder: net.Encoder | Filler) -> None:
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


def _shrink(graph: onnx.GraphProto) -> None:
    """Matrices to int8 with a scale for each row or output, in place.

    What they are multiplied with stays fp32: activations in int8, a scale for a whole batch, cost `tool_call` more than half a point. Cast
    and Mul of a constant are folded when the model is opened, so a run is an fp32 run; of an embedding only the rows that are looked up are
    widened.
    """
    tensors = {i.name: i for i in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    widened: set[str] = set()
    for node in graph.node:
        place = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        name = node.input[place] if place is not None and len(node.input) > place else ""
        # Small ones are not worth their scales, and heads are small.
        if name in tensors and tensors[name].data_type == TensorProto.FLOAT and len(tensors[name].dims) == 2 and min(tensors[name].dims) >= SMALL:
            if node.op_type == "Gather":
                out = node.output[0]
                rows, scales = helper.make_node("Gather", [f"{name}{INT8}", node.input[1]], [f"{out}{INT8}"]), helper.make_node("Gather", [f"{name}{SCALE}", node.input[1]], [f"{out}{SCALE}"])
                cast = helper.make_node("Cast", [f"{out}{INT8}"], [f"{out}_wide"], to=TensorProto.FLOAT)
                nodes += [rows, scales, cast, helper.make_node("Mul", [f"{out}_wide", f"{out}{SCALE}"], [out])]
                widened.add(name)
                continue
            if name not in widened:
                cast = helper.make_node("Cast", [f"{name}{INT8}"], [f"{name}_wide"], to=TensorProto.FLOAT)
                nodes += [cast, helper.make_node("Mul", [f"{name}_wide", f"{name}{SCALE}"], [f"{name}_float"])]
                widened.add(name)
            node.input[place] = f"{name}_float"
        nodes.append(node)
    for name in widened:
        whole = numpy_helper.to_array(tensors[name])
        # An embedding is looked up by rows, a layer's weight [inputs, outputs] multiplied from the left.
        axis = 0 if name.endswith(TRANSPOSED) else 1
        scale = np.maximum(np.abs(whole).max(axis, keepdims=True), np.finfo(np.float32).tiny) / 127
        graph.initializer.remove(tensors[name])
        graph.initializer.append(numpy_helper.from_array(np.rint(whole / scale).astype(np.int8), f"{name}{INT8}"))
        graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}{SCALE}"))
    del graph.node[:]
    graph.node.extend(nodes)


def load(folder: Path, card: dict[str, Any] | None = None) -> tuple[net.Encoder | Filler, Tokenizer]:
    """The weights of an exported folder; int8 ones at the values that serve. `card` is of a folder that has none yet."""
    card = card or tomllib.loads((folder / "card.toml").read_text())
    if card["kind"] == "fill":
        shape = shape_of(folder)
    else:
        about = card.get("tag") or {"classes": card["classify"]["labels"], "labels": []}
        shape = net.Shape(tuple(about["classes"]), tuple(about["labels"]))
    encoder = net.made(BertConfig(**json.loads((folder / CONFIG).read_text())), shape)
    tensors = {i.name: numpy_helper.to_array(i) for i in onnx.load(folder / "model.onnx").graph.initializer}
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            parameter.copy_(torch.from_numpy(_tensor(tensors, name)))
    encoder.eval()
    return encoder, untouched(Tokenizer.from_file(str(folder / "tokenizer.json")))


def _tensor(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
    for stored, turned in ((name, False), (name + TRANSPOSED, True)):
        found = tensors.get(stored)
        if found is None and f"{stored}{INT8}" in tensors:
            found = tensors[f"{stored}{INT8}"].astype(np.float32) * tensors[f"{stored}{SCALE}"]
        if found is not None:
            return np.array(found.T if turned else found, np.float32, order="C")
    raise KeyError(name)
