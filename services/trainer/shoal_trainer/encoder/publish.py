"""An encoder's checkpoint to its folder, proved: the fp32 export says what the checkpoint says, and int8 costs at most half a point."""
from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Encoding, Tokenizer

from .. import parity
from ..calibrate import Map
from ..data import spread
from ..evaluate import Judged
from ..export import ExportError
from ..tasks import Row, Task
from . import align, net
from .export import export as to_onnx
from .export import load as weights_of
from .fill import folder as fill_folder
from .fill import net as fill
from .fill import reader as fill_reader
from .fill.asked import Way
from .fill.folder import SLOTS, as_json
from .runtime import Folder, Reader, open_folder

COSTS = 0.005  # Of the main metric, at most, for int8 weights, and for a threshold.


Asked = list[tuple[Task, list[Row]]]  # Tasks with rows to ask them with.


def export(folder: Path, weights: Path, asked: Asked, precision: str, least: float) -> dict[str, Any]:
    """Writes the version's files but its card, and gives what the card says of them."""
    held(precision)
    if len(asked) > 1 and any(task.kind != "fill" for task, _ in asked):
        raise ExportError('an encoder has one task, but for tasks of kind "fill"')
    encoder, tokenizer = net.load(weights)
    fills = isinstance(encoder, fill.Filler)
    if any((task.kind == "fill") != fills for task, _ in asked):
        raise ExportError(f"{weights} was trained with --kind {'fill' if fills else 'tag or classify'}: give the same for its export")
    about = card(encoder, [task for task, _ in asked])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (entry for task, _ in asked for entry in files(task).items()):
        (folder / name).write_text(content)
    if fills:
        (folder / SLOTS).write_text(as_json(encoder.shape))
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "1"
        shutil.copytree(folder, plain)
        to_onnx(encoder, tokenizer, plain, "fp32")
        opened = open_folder(plain, about)
        proved = [(task, row) for task, rows in asked for row in spread(rows, parity.ROWS // len(asked))]
        of_checkpoint = texts(encoder, opened, proved)
        about["training"] |= {"parity": agreed(folder, of_checkpoint, opened, proved, least, "the checkpoint's")}
        to_onnx(encoder, tokenizer, folder, precision)
        if precision == "int8":
            narrow = open_folder(folder, about)
            # The file that ships is held to its own weights, as any export is. Of the checkpoint's answers rounding turns some, where choices were close:
            # the card says how many are left, and what that may cost is held below.
            of_weights = texts(weights_of(folder, about)[0], narrow, proved)
            about["training"] |= {"parity": agreed(folder, of_weights, narrow, proved, least, "those of its own weights")}
            about["training"] |= {"parity_int8": agreed(folder, of_checkpoint, narrow, proved, 0.0, "those of the fp32 checkpoint")}
            about["training"] |= {"right_fp32": {}, "right_int8": {}}
            for task, rows in asked:
                full, small = _share(opened, task, rows), _share(narrow, task, rows)
                # Of few rows half a point is less than one.
                if full - small > max(COSTS, 1 / len(rows)) + 1e-9:
                    raise parity.ParityError(f"{folder}: int8 weights answer {small:.4f} of {task.name}'s dev right, fp32 ones {full:.4f}; export in fp32")
                about["training"]["right_fp32"][task.name], about["training"]["right_int8"][task.name] = round(full, 4), round(small, 4)
    for name, way in about.get("fill", {}).items():
        if way.get("single"):
            continue
        task, rows = next((task, rows) for task, rows in asked if task.name == name)
        way["called"] = called(fill_folder.Folder(folder, about), task, rows)
    return about


PRECISIONS = ("fp32", "int8")


def held(precision: str) -> None:
    """Raises unless an encoder can be exported so."""
    if precision not in PRECISIONS:
        raise ExportError(f"an encoder is exported in {' or '.join(PRECISIONS)}, not in {precision}")


# Down to one in twenty and no less: a call acts on the world.
CALLED = (0.5, 0.25, 0.1, 0.05)


def called(opened: fill_folder.Folder, task: Task, rows: list[Row]) -> float:
    """The probability from which on a method is called: of `CALLED` the one with the best main metric, on services seen in training. How many of the
    methods that are offered are called differs between corpora and their splits."""
    said = [(row, found, opened.logits(*found)) for row in rows if row.get("seen", True) and (found := opened.asked(task.name, row["input"]))]

    def metric(least: float) -> float:
        read = ((row, task.read(opened.reader.answer(task.name, *found, out, least).text)) for row, found, out in said)
        return task.metrics([(row, row["target"], output) for row, output in read])[task.main]

    return max(CALLED, key=metric) if said else CALLED[0]


def card(encoder: net.Encoder | fill.Filler, tasks: list[Task]) -> dict[str, Any]:
    """What of the card the runtime needs, and what is known before any answer. More than one task are of kind "fill"."""
    task = tasks[0]
    parameters = sum(p.numel() for p in encoder.parameters())
    config = encoder.body.config
    about: dict[str, Any] = {
        "kind": task.kind,
        "description": f"{', '.join(t.name for t in tasks)}: {parameters / 1e6:.1f} M parameters, {config.num_hidden_layers} layers, BERT-shaped, trained by services/trainer",
        "limits": {"context_tokens": config.max_position_embeddings, "max_new_tokens": 0},
        "output": {},
        "training": {"parameters": parameters},
    }
    if task.kind == "classify":
        return {**about, "classify": {"labels": list(encoder.shape.classes)}}
    output = {t.name: _form(t) for t in tasks}
    if task.kind == "fill":
        return {**about, "fill": {t.name: _way(t.way) for t in tasks if t.way}, "output": output}
    tag: dict[str, Any] = {"classes": list(encoder.shape.classes), "labels": list(encoder.shape.labels)}
    if allowed := task.classes():
        tag["allowed"] = {name: sorted(labels) for name, labels in allowed.items()}
    if task.fields:
        tag["input"] = task.fields
    return {**about, "tag": tag, "output": output}


def _way(way: Way) -> dict[str, Any]:
    """A card says what is not as it mostly is, and nothing that would be without effect: of one call nobody asks how probable it must be."""
    said = {name: value for name, value in asdict(way).items() if value or name not in ("input", "single", "literal")}
    return {name: value for name, value in said.items() if not (way.single and name == "called")}


def _form(task: Task) -> dict[str, str]:
    schema = (task.output() or {}).get("schema")
    return {"template": _template(task), **({"schema": schema} if schema else {})}


def thresholds(task: Task, judged: list[Judged], about: dict[str, Any]) -> dict[str, float]:
    """One least score for every label but `task.other`, under which a text is that: where the task's metrics together are highest, among those
    that cost the main one at most half a point. To send a text away that was meant for a label is what people notice."""
    if task.other is None:
        return {}
    score = Map.of(about["calibration"][task.name])
    said = [(j.row, j.text, score(j.statistics)) for j in judged]

    def metrics(least: float) -> dict[str, float]:
        found = task.metrics([(row, row["target"], text if s >= least else task.other) for row, text, s in said])
        # A metric over rows that dev does not have is None, and says nothing for or against a threshold.
        return {name: value or 0.0 for name, value in found.items()}

    tried = {least: metrics(least) for least in sorted({0.0, *(round(s, 4) for _, _, s in said)})}
    enough = max(found["score"] for found in tried.values()) - COSTS
    best = max((least for least, found in tried.items() if found["score"] >= enough), key=lambda least: sum(tried[least].values()))
    return {label: best for label in about["classify"]["labels"] if label != task.other}


def files(task: Task) -> dict[str, str]:
    """The template of a tagger's or a filler's answers, and their schema."""
    if task.kind == "classify":
        return {}
    schema = (task.output() or {}).get("schema")
    reads = {task.way.input: task.input_template()} if task.kind == "fill" and task.way and task.way.input else {}
    return {_template(task): task.answer_template(), **reads, **({schema: task.files()[schema]} if schema else {})}


def _template(task: Task) -> str:
    return f"{task.name}.answer.jinja"


def glance(encoder: net.Encoder | fill.Filler, tokenizer: Tokenizer, task: Task, rows: list[Row]) -> dict[str, float]:
    """What a checkpoint answers right, and a filler's metrics; for a look while it trains."""
    said = _said(encoder, tokenizer, task, rows)
    found = {"right": round(_right(task, said), 4)}
    return found | task.metrics([(row, row["target"], out) for row, out in said]) if isinstance(encoder, fill.Filler) else found


def right(encoder: net.Encoder | fill.Filler, tokenizer: Tokenizer, task: Task, rows: list[Row]) -> float:
    """The share that a checkpoint answers right, of corrections too: these have not what metrics need, such as what a call returned."""
    return _right(task, _said(encoder, tokenizer, task, rows))


def _right(task: Task, said: list[tuple[Row, Any]]) -> float:
    return sum(task.right(row, out) for row, out in said) / max(1, len(said))


def _said(encoder: net.Encoder | fill.Filler, tokenizer: Tokenizer, task: Task, rows: list[Row]) -> list[tuple[Row, Any]]:
    """A checkpoint's answers, read."""
    if isinstance(encoder, fill.Filler):
        reader = fill_reader.Reader(encoder.shape, {task.name: task.way}, {task.name: task.answer_template()}, {task.name: task.input_template()})
        return [(row, task.read(_filled(encoder, tokenizer, reader, task, row))) for row in rows]
    with tempfile.TemporaryDirectory() as scratch:
        about = card(encoder, [task])
        for name, content in files(task).items():
            (Path(scratch) / name).write_text(content)
        reader = Reader(Path(scratch), about) if task.kind == "tag" else None
        return [(row, task.read(_answer(encoder, align.Asked.of(row["input"], task.fields).encoded(tokenizer), reader, task, row))) for row in rows]


def _filled(filler: fill.Filler, tokenizer: Tokenizer, reader: fill_reader.Reader, task: Task, row: Row) -> str:
    """A checkpoint's answer; nothing where the row does not fit."""
    given, encoding, places = reader.asked(task.name, row["input"], tokenizer)
    if len(encoding.ids) > filler.body.config.max_position_embeddings:
        return ""
    return reader.answer(task.name, given, encoding, places, fill_reader.logits(filler, fill_reader.inputs(encoding, given, places))).text


@torch.no_grad()
def _answer(encoder: net.Encoder, encoding: Encoding, reader: Reader | None, task: Task, row: Row) -> str:
    ids = torch.tensor([encoding.ids], device=next(encoder.parameters()).device)
    tags, classes = (None if out is None else out[0].float().cpu().numpy() for out in encoder(ids, torch.ones_like(ids)))
    if reader is None:
        return encoder.shape.classes[int(classes.argmax())]
    return reader.answer(task.name, row["input"], encoding, tags, classes).text


def texts(encoder: net.Encoder | fill.Filler, opened: Folder | fill_folder.Folder, rows: list[tuple[Task, Row]]) -> list[str | None]:
    """What weights answer, asked and read as the folder does; None to a row that does not fit."""

    def text(task: Task, row: Row) -> str | None:
        if isinstance(encoder, fill.Filler):
            found = opened.asked(task.name, row["input"])
            return found and opened.reader.answer(task.name, *found, fill_reader.logits(encoder, fill_reader.inputs(found[1], found[0], found[2]))).text
        found = opened.logits(row["input"])
        return found and _answer(encoder, found[0], opened.reader, task, row)

    return [text(task, row) for task, row in rows]


def agreed(folder: Path, said: list[str | None], opened: Folder | fill_folder.Folder, rows: list[tuple[Task, Row]], least: float, whose: str) -> float:
    """The share of answers of a folder that are those in `said`, over the rows that fit; raises under `least`."""
    pairs = [(text, opened.greedy(task.name, row["input"]).text) for text, (task, row) in zip(said, rows, strict=True) if text is not None]
    return round(parity.held(folder, sum(text == answer for text, answer in pairs), len(pairs), least, whose), 4)


def _share(opened: Folder | fill_folder.Folder, task: Task, rows: list[Row]) -> float:
    """What int8 weights must not lose of: the share of right answers; of calls, of which few are right as a whole, the main metric."""
    said = [(row, task.read(a.text)) for row in rows if (a := opened.greedy(task.name, row["input"]))]
    if task.kind == "fill":
        return task.metrics([(row, row["target"], out) for row, out in said])[task.main]
    return sum(task.right(row, out) for row, out in said) / max(1, len(rows))
