"""A checkpoint to a version of a specialist's folder: export, parity, scores, calibration, samples, card."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import torch

from . import bleu, calibrate, card, data, evaluate, lineage, model, parity
from .encoder import publish as encoder
from .export import export
from .tasks import Row, Task


@dataclass(frozen=True)
class Version:
    """What is published, and where."""

    folder: Path  # The specialist's; versions are below it.
    name: str
    version: int
    precision: str
    answer_tokens: int
    parity: float  # Least share of equal answers; under it the export is refused.
    dev_rows: int  # Of each task; 0 is all.
    description: str | None = None
    judged_on: dict[str, str] = field(default_factory=dict)  # sha256 of the files that scores, confidence and thresholds are of, by name.

    @property
    def here(self) -> Path:
        """The version's own folder."""
        return self.folder / str(self.version)

    def rows(self, part: list[Row]) -> list[Row]:
        """The dev rows that are judged."""
        return data.spread(part, self.dev_rows)


def publish(version: Version, weights: Path, tasks: list[Task], dev: dict[str, list[Row]], judge: Callable[..., list[evaluate.Judged]] = evaluate.judge) -> dict[str, Any]:
    """Writes the folder; returns what a caller wants to print. A caller that needs the answers too gives its own `judge`."""
    from_where = lineage.of(weights)
    about: dict[str, Any] = {"name": version.name, "version": version.version, "licence": lineage.licence(from_where), "price": card.PRICE}
    if (weights / "encoder.safetensors").is_file():
        about |= encoder.export(version.here, weights, [(task, version.rows(dev[task.name])) for task in tasks], version.precision, version.parity)
    else:
        about |= _decoder(version, weights, tasks, dev)
    about["description"] = version.description or about["description"]
    about |= {"calibration": {}, "scores": {}}
    samples = []
    for task in tasks:
        judged = calibrated(about, task, lambda: judge(version.here, task, version.rows(dev[task.name]), version.answer_tokens, about))
        about["scores"][task.name] = evaluate.metrics(task, judged)
        samples += shown(task, judged)
    show(version.here, samples)
    about["training"] |= {"precision": version.precision, "torch": torch.__version__, "cost": lineage.cost(from_where), "judged_on": version.judged_on, "runs": from_where["runs"]}
    about["data"] = from_where["data"]
    card.write(version.folder, version.name, [t.name for t in tasks], about)
    return {"folder": str(version.here), "parity": about["training"]["parity"], "scores": about["scores"], "calibration": about["calibration"]}


def shown(task: Task, judged: list[evaluate.Judged]) -> list[dict[str, Any]]:
    """A task's samples: the first right answer that shows anything, and the first wrong one, with what people wrote beside it. Where one may say it in many
    ways and none is wrong, the answer that is farthest from what people said."""
    right = next((j for j in judged if j.right and task.tells(j.row)), None) or next((j for j in judged if j.right), None)
    wrong = next((j for j in judged if not j.right), None)
    if not wrong and not task.one_answer:
        wrong = min([j for j in judged if task.tells(j.row)] or judged, key=lambda j: bleu.sentence(j.text, task.say(j.row["target"])))
    samples = [{"task": task.name, "input": _flat(j.row["input"]), "output": j.text, "right": j.right} for j in (right, wrong) if j]
    if wrong:
        samples[-1]["people"] = task.say(wrong.row["target"])
    return samples


def show(here: Path, samples: list[dict[str, Any]]) -> None:
    """Writes the samples of all tasks of a version."""
    (here / "samples.json").write_text(json.dumps(samples, ensure_ascii=False, indent=1) + "\n")


def calibrated(about: dict[str, Any], task: Task, judge: Callable[[], list[evaluate.Judged]]) -> list[evaluate.Judged]:
    """Puts the task's confidence into a card, and of a classifier its thresholds, which are in the terms of that; gives what the version then answers."""
    if about["kind"] == "classify":
        about["classify"]["thresholds"] = {}
    judged = judge()
    # Confidence is fitted on services seen in training; what it is worth on others is told beside.
    seen, others = ([j for j in judged if j.row.get("seen", True) is known] for known in (True, False))
    known = [j.statistics for j in seen], [j.trusted for j in seen]
    held = calibrate.held_out(*known)
    made = about.setdefault("calibration", {})[task.name] = calibrate.table(*known, held)
    beside = calibrate.told(made, *known, held)
    if others:
        beside |= calibrate.elsewhere(made, [j.statistics for j in others], [j.trusted for j in others])
    about.setdefault("training", {}).setdefault("confidence", {})[task.name] = beside
    # What a larger model had of the rows under it was of the threshold before.
    left = about["training"].pop("escalation", {})
    left.pop(task.name, None)
    about["training"] |= {"escalation": left} if left else {}
    if about["kind"] == "classify":
        about["classify"]["thresholds"] = encoder.thresholds(task, judged, about)
        judged = judge()
    return judged


def _decoder(version: Version, weights: Path, tasks: list[Task], dev: dict[str, list[Row]]) -> dict[str, Any]:
    """Exports a decoder and proves it; what its card says of it."""
    export(weights, version.here, tasks, version.precision)
    rows = [row for task in tasks for row in data.spread(dev[task.name], parity.ROWS // len(tasks))]
    same = parity.check(weights, version.here, rows, version.answer_tokens, version.parity)
    checkpoint = model.load(weights)[0]
    parameters = sum(p.numel() for p in checkpoint.parameters())
    return {
        "kind": "generate",
        "description": f"{', '.join(t.name for t in tasks)}: {parameters / 1e6:.1f} M parameters, Llama-shaped, trained by services/trainer",
        "limits": {"context_tokens": checkpoint.config.max_position_embeddings, "max_new_tokens": version.answer_tokens},
        "output": {t.name: form for t in tasks if (form := t.output())},
        "training": {"parameters": parameters, "parity": round(same, 4)},
    }


def _flat(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
