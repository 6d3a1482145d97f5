"""What a folder says of itself: specialist.toml, N/card.toml, and the table of models/README.md, made from the cards alone."""
from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from .data import sha256

# What an operator books, US dollars per million tokens: two cores at 0.04 dollars an hour and 2,000 tokens a second are 0.006; doubled.
PRICE = {"input_usd_per_million_tokens": 0.01, "output_usd_per_million_tokens": 0.02}
STAYS_RIGHT = 0.97  # Of what stays under the threshold's rule; see `threshold`.
KEEPS = 0.20


def threshold(judged: list[tuple[float, bool]]) -> dict[str, float]:
    """The lowest confidence from which on what stays is right in 97 %; where that keeps under 20 %, the knee of risk over coverage."""
    ordered = sorted(judged, key=lambda pair: -pair[0])
    right, points = 0, []
    for kept, (confidence, correct) in enumerate(ordered, 1):
        right += correct
        points.append((kept / len(ordered), right / kept, confidence))
    good = [p for p in points if p[1] >= STAYS_RIGHT and p[0] >= KEEPS]
    # The knee: where coverage times what it gains over answering everything is largest.
    base = points[-1][1]
    coverage, accuracy, confidence = good[-1] if good else max(points, key=lambda p: p[0] * (p[1] - base))
    return {"confidence_threshold": round(confidence, 4), "coverage": round(coverage, 4), "accuracy_kept": round(accuracy, 4)}


def write(folder: Path, name: str, tasks: list[str], card: dict[str, Any]) -> None:
    """Writes `folder/specialist.toml` and `folder/VERSION/card.toml`, with the sha256 of every other file of the version."""
    version = card["version"]
    here = folder / str(version)
    card["files"] = {p.name: sha256(p) for p in sorted(here.iterdir()) if p.name != "card.toml"}
    (here / "card.toml").write_text(toml(card))
    (folder / "specialist.toml").write_text(toml({"name": name, "tasks": tasks, "active_version": version}))


def toml(table: dict[str, Any], path: str = "") -> str:
    """A TOML document: plain values first, then tables. Enough for a card; the standard library only reads TOML."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict) and not (isinstance(v, list) and v and isinstance(v[0], dict))}
    text = "".join(f"{_key(k)} = {_value(v)}\n" for k, v in plain.items())
    for key, value in table.items():
        at = f"{path}.{_key(key)}" if path else _key(key)
        if isinstance(value, dict):
            inner = toml(value, at)
            head = "" if value and all(isinstance(v, dict) for v in value.values()) else f"\n[{at}]\n"
            text += head + inner
        elif key not in plain:
            text += "".join(f"\n[[{at}]]\n{toml(item, at)}" for item in value)
    return text


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    return repr(value)


def table(models: Path) -> str:
    """The whole of models/README.md."""
    lines = [
        "# The shipped specialists",
        "",
        "Made by `python -m shoal_trainer table models > models/README.md` from the cards; not typed. Scores are on the dev split, by the",
        "definitions of `services/trainer/shoal_trainer/score.py`; `kept` is the share of answers at or over the confidence threshold, and how many of those are right.",
        "",
        "| folder | task | version | parameters | size | score | other metrics | threshold | kept | right of kept | trained in |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    examples = []
    for spec in sorted(models.glob("*/specialist.toml")):
        about = tomllib.loads(spec.read_text())
        here = spec.parent / str(about["active_version"])
        card = tomllib.loads((here / "card.toml").read_text())
        size = sum(p.stat().st_size for p in here.iterdir()) / 1e6
        for task, scores in card["scores"].items():
            other = ", ".join(f"{k} {v:.3f}" for k, v in scores.items() if isinstance(v, float) and k != "score")
            cal = card.get("calibration", {}).get(task, {})
            shown = [f"{cal[k]:.3f}" if k in cal else "" for k in ("confidence_threshold", "coverage", "accuracy_kept")]
            minutes = card["training"].get("seconds", 0) / 60
            score = f"{scores['score']:.3f}" if "score" in scores else ""
            lines.append(
                f"| {spec.parent.name} | {task} | {card['version']} | {card['training']['parameters'] / 1e6:.1f} M | {size:.1f} MB | {score} | {other} | "
                f"{shown[0]} | {shown[1]} | {shown[2]} | {minutes:.0f} min |"
            )
        for sample in json.loads((here / "samples.json").read_text()):
            verdict = "right" if sample["right"] else "WRONG"
            examples += ["", f"**{spec.parent.name}**, {sample['task']}, {verdict}:", "", "    " + sample["input"], "    -> " + sample["output"].replace("\n", "\n       ")]
    return "\n".join([*lines, "", "## One real input and output of each, dev split", "Wrong ones included.", *examples, ""]) + "\n"
