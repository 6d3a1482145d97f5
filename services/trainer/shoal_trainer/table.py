"""models/README.md, made from the shipped folders alone and never typed."""
from __future__ import annotations

import json
import tomllib
from pathlib import Path

from . import lineage, tasks
from .tasks.base import FEWER

HEAD = """\
# The shipped specialists

Made by `python -m shoal_trainer table models > models/README.md` from the folders; not typed. Scores are on the dev split, answers held
to their form as in serving, by the definitions of `services/trainer/shoal_trainer/score.py`. `kept`: the share of answers whose confidence
is at or over the threshold; `right of kept`: how many of those are right. Both are of the rows that the threshold was chosen on and the confidence
fitted on; with both made without the rows that are judged (ten folds, ten times), tool_call keeps 0.762 with 0.968 right, for 0.763 and 0.970, and
summarize, which has half as many rows and its threshold at the knee of the curve, 0.48 with 0.84 right, for 0.571 and 0.817. `ECE`: expected calibration error of the confidence, on rows that
it was not fitted on, with what promises without fault would show on as many rows in brackets; in brackets behind the score the 95 % bootstrap interval of the main metric, on services seen in training; `beside it`: what stands published on the corpus's own test split, or what a rule gets, for a sense of scale;
`bar`: what a version must have to be its task's specialist, the first of its chain in mesh.toml, on services seen in training (a test holds them to it). Those of episode, extract, compose and
summarize were raised when the first models passed the ones that had been set without a model.

| folder | task | version | parameters | size | score | other metrics | bar | beside it | threshold | kept | right of kept | ECE | trained for |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def _bars(task: type[tasks.Task]) -> str:
    return ", ".join(f"{name} {'≤' if name in FEWER else '≥'} {bar:g}" for name, bar in task.bars.items())


def table(models: Path) -> str:
    """The whole page."""
    lines, examples = [], []
    for manifest in sorted(models.glob("*/specialist.toml")):
        about = tomllib.loads(manifest.read_text())
        here = manifest.parent / str(about["active_version"])
        card = tomllib.loads((here / "card.toml").read_text())
        size = sum(p.stat().st_size for p in here.iterdir()) / 1e6
        for task, scores in card["scores"].items():
            kept = card.get("calibration", {}).get(task, {})
            shown = [f"{kept[k]:.3f}" if k in kept else "" for k in ("confidence_threshold", "coverage", "accuracy_kept")]
            shown.append(f"{kept['expected_calibration_error']:.3f} ({kept['calibration_error_floor']:.3f})" if "calibration_error_floor" in kept else "")
            main = tasks.KNOWN[task].main
            other = ", ".join(f"{k} {v:.3f}" for k, v in scores.items() if isinstance(v, float) and not k.startswith(main))
            bounds = f" ({scores[f'{main}_low']:.3f} to {scores[f'{main}_high']:.3f})" if f"{main}_low" in scores else ""
            score = f"{scores[main]:.3f}{bounds}"
            cells = [manifest.parent.name, task, card["version"], f"{card['training']['parameters'] / 1e6:.1f} M", f"{size:.1f} MB", score, other, _bars(tasks.KNOWN[task]), tasks.KNOWN[task].beside, *shown]
            lines.append("| " + " | ".join(str(c) for c in [*cells, f"{lineage.minutes(lineage.of(here)):.0f} min"]) + " |")
        for sample in json.loads((here / "samples.json").read_text()):
            verdict = "right" if sample["right"] else "WRONG"
            said = sample["output"].replace("\n", "\n       ")
            examples.append(f"\n**{manifest.parent.name}**, {sample['task']}, {verdict}:\n\n    {sample['input']}\n    -> {said}")
    return HEAD + "\n".join(lines) + "\n\n## Real inputs and outputs, dev split\n\nThe first right and the first wrong answer of each.\n" + "\n".join(examples) + "\n"
