"""A checkpoint to a version of a specialist's folder: export, parity, scores, calibration, samples, card."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import calibrate, card, evaluate, model, parity
from .data import sha256
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


def publish(version: Version, weights: Path, tasks: list[Task], dev: dict[str, list[Row]], data: dict[str, Path], training: dict[str, Any]) -> dict[str, Any]:
    """Writes the folder; returns what a caller wants to print."""
    here = version.folder / str(version.version)
    export(weights, here, tasks, version.precision)
    rows = [row for task in tasks for row in dev[task.name][: parity.ROWS // len(tasks)]]
    same = parity.check(weights, here, rows, version.answer_tokens, version.parity)
    checkpoint = model.load(weights)[0]
    parameters = sum(p.numel() for p in checkpoint.parameters())
    about: dict[str, Any] = {
        "name": version.name,
        "version": version.version,
        "kind": "generate",
        "description": version.description or f"{', '.join(t.name for t in tasks)}: {parameters / 1e6:.1f} M parameters, Llama-shaped, trained by services/trainer",
        "licence": "CC-BY-SA-4.0" if any("SA" in t.corpus.licence for t in tasks) else tasks[0].corpus.licence,
        "limits": {"context_tokens": checkpoint.config.max_position_embeddings, "max_new_tokens": version.answer_tokens},
        "price": card.PRICE,
        "output": {t.name: form for t in tasks if (form := t.output())},
        "calibration": {},
        "scores": {},
    }
    samples = []
    for task in tasks:
        part = dev[task.name][: version.dev_rows] if version.dev_rows else dev[task.name]
        judged = evaluate.judge(here, task, part, version.answer_tokens, about)
        about["scores"][task.name] = evaluate.metrics(task, judged)
        # Confidence is calibrated on services seen in training: on others the larger tier is wanted anyway.
        seen = [j for j in judged if j.row.get("seen", True)]
        about["calibration"][task.name] = calibrate.table([j.statistics for j in seen], [j.right for j in seen])
        shown = [next((j for j in judged if j.right), None), next((j for j in judged if not j.right), None)]
        samples += [{"task": task.name, "input": _flat(j.row["input"]), "output": j.text, "right": j.right} for j in shown if j]
    (here / "samples.json").write_text(json.dumps(samples, ensure_ascii=False, indent=1) + "\n")
    corpora = {task.corpus: [] for task in tasks}
    for task in tasks:
        corpora[task.corpus].append(sha256(data[task.name]))
    about["training"] = {**training, "parameters": parameters, "precision": version.precision, "parity": round(same, 4), "torch": torch.__version__}
    about["data"] = [{"name": c.name, "source": c.source, "licence": c.licence, "sha256": " ".join(sums)} for c, sums in corpora.items()]
    card.write(version.folder, version.name, [t.name for t in tasks], about)
    return {"folder": str(here), "parity": same, "scores": about["scores"], "calibration": about["calibration"]}


def _flat(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
