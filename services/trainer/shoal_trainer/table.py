"""models/README.md, made from the shipped folders alone and never typed."""
from __future__ import annotations

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

from . import lineage, tasks
from .data import DataError
from .tasks.base import FEWER

HEAD = """\
# The shipped specialists

Made by `python -m shoal_trainer table models > models/README.md` from the folders; not typed. Scores are on the dev split, answers held
to their form as in serving, by the definitions of `services/trainer/shoal_trainer/score.py`; in brackets behind the main metric its 95 % bootstrap interval.
`score` of `plan`, a goal with all its calls right, is measured by `end-to-end`, with the specialist behind it that is named there.
`beside it`: what stands published on the corpus's own test split, or what a rule gets, for a sense of scale;
`bar`: what a version must have to be its task's specialist, the first of its chain in mesh.toml, on services seen in training (a test holds them to it); of a folder
that is first of none it is empty. Those of episode, extract, compose and
summarize were raised when the first models passed the ones that had been set without a model.

**Confidence is fitted and measured on services seen in training alone, and holds for those**: so is all that stands under `threshold`, `at 97 %`, `kept`, `right of kept` and `ECE`; a task
without such a division has these of all rows. Under `on other services` stands what the same map and threshold are worth on services not seen in training: of most tasks more is wrong
there than the confidence says, and where the ECE is far over the one beside it, the confidence does not hold.

- `kept`: the share of answers whose confidence is at or over the threshold; `right of kept`: how many of those are right. Both are of the rows that the threshold was chosen on and the
  confidence fitted on; in brackets of rows that both were made without (ten folds, 32 times).
- Of `compose` that is stricter than its `score`: what the model leaves out is said for it (`required`), so its reply has every value and `score` is 1. For the confidence a reply is right
  only if nothing had to be said for it; `unaided` is the share of those among all replies.
- `at 97 %`: where what stays is right in 97 % only if less than 20 % stays, of these rows or of most of those folds, the threshold is at the knee of the curve, and here is what would be kept
  at 97 %, and from which threshold on.
- `ECE`: expected calibration error of the confidence, on rows that it was not fitted on, with what promises without fault would show on as many rows in brackets.
- `rules' error gone`: of the error that rules without a model make, the `rules` of `beside it`, the share that the specialist does not make; under 50 % it is not halved (the list is below the
  table), under 0 % it is larger. `bleu` has none.
- `same in int8`: the share of 200 dev rows that the int8 file answers as the fp32 checkpoint does, wherever that was measured. It refuses nothing: an int8 file is held to half a
  point of dev's score.
- `larger tier`: the next of the task's chain in mesh.toml, which gets what is under the threshold: how many of the rows that are, and what share of them it has right, for the
  specialist's own. `escalate --write` measures it, of what mesh.toml chains.
- `cost`: of training, over all runs that the weights come from, each hour of a core taken for 0.02 dollars (and of a GPU for 2.50): a rate to compare by, no bill.
- The risk-coverage curve is `curve` in `[training.confidence.TASK]` of each card.

| folder | task | version | parameters | size | same in int8 | main metric | other metrics | bar | beside it | rules' error gone | threshold | at 97 % | kept | right of kept | ECE | on other services | larger tier | trained for | cost |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def table(models: Path) -> str:
    """The whole page."""
    manifests = sorted(models.glob("*/specialist.toml"))
    if not manifests:
        raise DataError(f"{models}: no specialist.toml in any folder of it: name the folder that the specialists' folders are in")
    lines, much, examples, made, first = [], [], [], [], _first(models)
    for manifest in manifests:
        about = tomllib.loads(manifest.read_text())
        here = manifest.parent / str(about["active_version"])
        card = tomllib.loads((here / "card.toml").read_text())
        made.append(lineage.of(here))
        size = sum(p.stat().st_size for p in here.iterdir()) / 1e6
        for task in card["scores"]:
            known = tasks.KNOWN[task]
            gone = _gone(card["scores"][task], known)
            if few := {name: share for name, share in gone.items() if share < 0.5}:
                much.append(f"{manifest.parent.name}, {task}: {_shares(few)}")
            cells = [manifest.parent.name, task, card["version"], f"{card['training']['parameters'] / 1e6:.1f} M", f"{size:.1f} MB", _same(card), *_scores(card, known)]
            cells += [_bars(known) if first.get(task, manifest.parent.name) == manifest.parent.name else "", known.beside, _shares(gone)]
            cells += [*_confidence(card, task), _larger(card, task), f"{lineage.minutes(made[-1]):.0f} min", _cost(card["training"].get("cost", {}))]
            lines.append("| " + " | ".join(str(c) for c in cells) + " |")
        for sample in json.loads((here / "samples.json").read_text()):
            verdict = "WRONG" if not sample["right"] else "farthest from people's" if "people" in sample else "right"
            said, people = (sample.get(key, "").replace("\n", "\n       ") for key in ("output", "people"))
            people = people and f"\n    people: {people}"
            examples.append(f"\n**{manifest.parent.name}**, {sample['task']}, {verdict}:\n\n    {sample['input']}\n    -> {said}{people}")
    total = f"\n\nAll of them together, a run that several come from counted once: {_cost(lineage.together(made))}."
    total += f"\n\nThe rules' error is not halved in these, of which so much is gone: {'; '.join(much)}." if much else ""
    return HEAD + "\n".join(lines) + total + "\n\n## Real inputs and outputs, dev split\n\nThe first right and the first wrong answer of each, and below that what people wrote down as right (`people`); where none is wrong, the right one that is farthest from what people said (by bleu.py).\n" + "\n".join(examples) + "\n"


def _gone(scores: dict[str, Any], task: type[tasks.Task]) -> dict[str, float]:
    """By metric, the share of the rules' error that is none of the specialist's. Rules without an error leave nothing to be gone."""
    of = {name: float(value) for name, value in re.findall(r"(\w+) ([01]\.\d+)\b", task.beside.partition("(`rules`):")[2].partition(";")[0])}
    error = lambda name, value: value if name.removeprefix("unseen_") in FEWER else 1 - value  # noqa: E731
    return {name: 1 - error(name, scores[name]) / error(name, value) for name, value in of.items() if name in scores and error(name, value)}


def _shares(gone: dict[str, float]) -> str:
    # Rounded down: what is not halved never reads as 50 %.
    return ", ".join(f"{name} {math.floor(100 * share)} %" for name, share in gone.items())


def _same(card: dict[str, Any]) -> str:
    """Empty where a card does not say: nothing was rounded, or nobody compared."""
    same = card["training"].get("parity_int8")
    return "" if same is None else f"{same:.3f}"


def _first(models: Path) -> dict[str, str]:
    """By task, who is asked first. Without a mesh.toml beside the folders nobody is known to be asked later."""
    mesh = models.absolute().parent / "mesh.toml"
    return {task: of["chain"][0] for task, of in tomllib.loads(mesh.read_text())["task"].items()} if mesh.is_file() else {}


def _bars(task: type[tasks.Task]) -> str:
    return ", ".join(f"{name} {'≤' if name in FEWER else '≥'} {bar:g}" for name, bar in (task.bars | task.bars_end_to_end).items())


def _scores(card: dict[str, Any], task: type[tasks.Task]) -> tuple[str, str]:
    """The main metric, and the others."""
    scores, behind = card["scores"][task.name], card["training"].get("end_to_end", {})
    bounds = {name: f" ({scores[f'{name}_low']:.3f} to {scores[f'{name}_high']:.3f})" for name in scores if f"{name}_low" in scores}
    whose = {}
    if task.bars_end_to_end:
        whose = {"score": f" with {behind.get('calls')} behind it", "score_escalated": f" with {behind.get('escalated_to')} for what that is not sure of"}
    said = {k: f"{k} {v:.3f}{bounds.get(k, '')}{whose.get(k, '')}" for k, v in scores.items() if isinstance(v, float) and not k.endswith(("_low", "_high"))}
    return said.pop(task.main), ", ".join(said.values())


def _confidence(card: dict[str, Any], task: str) -> list[str]:
    """From `threshold` to `on other services`; empty where a card does not say."""
    made, beside = card.get("calibration", {}).get(task, {}), card["training"].get("confidence", {}).get(task, {})
    least, kept, right, off, floor = (f"{made[k]:.3f}" if k in made else "" for k in ("confidence_threshold", "coverage", "accuracy_kept", "expected_calibration_error", "calibration_error_floor"))
    held = [f" ({beside[k]:.3f})" if k in beside else "" for k in ("held_out_coverage", "held_out_accuracy_kept")]
    point = beside.get("at_97")
    surest = "" if point is None else f"{point['coverage']:.3f} kept" + (f" from {point['threshold']:.3f} on" if "threshold" in point else "")
    others = "kept {unseen_coverage:.3f}, right of kept {unseen_accuracy_kept:.3f}, ECE {unseen_ece:.3f}".format(**beside) if "unseen_ece" in beside else ""
    return [least, surest, kept + held[0], right + held[1], f"{off} ({floor})" if off and floor else off, others]


def _larger(card: dict[str, Any], task: str) -> str:
    """Who gets what is left, and what share of it is right then; empty where a card does not say."""
    made = card["training"].get("escalation", {}).get(task)
    if made is None:
        return ""

    def said(part: dict[str, Any]) -> str:
        return f"{part['large_right']:.3f} of the {part['left'] / part['rows']:.3f} that are left, for {part['small_right']:.3f}"

    others = f"; on other services {said(made['unseen'])}" if "unseen" in made else ""
    return f"{made['larger']} has {said(made['seen'])}{others}"


def _cost(cost: dict[str, float]) -> str:
    """Hours and dollars; empty where a card does not say."""
    hours = [f"{cost[f'{unit}_hours']:.1f} {unit} hours" for unit in ("core", "gpu") if f"{unit}_hours" in cost]
    return ", ".join([*hours, f"{cost['usd']:.3f} $"]) if cost else ""
