"""What weights come from: every run that trained them, and every corpus that those runs read. A card's licence follows from it."""
from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from .data import DataError
from .tasks import Corpus

OWN = "CORPUS.toml"  # Beside rows that are not of the corpora here.

# The first of these that any corpus or base model has is the weights' own: share-alike binds what is made of it.
STRICTEST = ("CC-BY-SA-4.0", "CC-BY-3.0", "Apache-2.0", "CC0-1.0")

Lineage = dict[str, Any]  # {"runs": [...], "data": [{"name", "source", "licence", "sha256"}]}


def of(folder: Path) -> Lineage:
    """The lineage of a checkpoint (its training.json) or of a version (its card)."""
    if (folder / "training.json").is_file():
        return json.loads((folder / "training.json").read_text())
    if (folder / "card.toml").is_file():
        card = tomllib.loads((folder / "card.toml").read_text())
        return {"runs": _runs(card), "data": card.get("data", [])}
    return {"runs": [], "data": []}


def extended(before: Lineage, run: dict[str, Any], read: list[tuple[Corpus, str]]) -> Lineage:
    """One run more, over files of (corpus, sha256)."""
    data = [dict(entry) for entry in before["data"]]
    for corpus, digest in read:
        known = next((entry for entry in data if entry["source"] == corpus.source), None)
        if known is None:
            data.append({"name": corpus.name, "source": corpus.source, "licence": corpus.licence, "sha256": digest})
        elif digest not in known["sha256"].split():
            known["sha256"] = f"{known['sha256']} {digest}".strip()
    return {"runs": [*before["runs"], run], "data": data}


def corpus_of(rows: Path, usual: Corpus) -> Corpus:
    """Where a file's rows are from: what `CORPUS.toml` beside it says, or the corpus that the task's rows are usually of."""
    said = rows.parent / OWN
    if not said.is_file():
        return usual
    try:
        table = tomllib.loads(said.read_text())
        return Corpus(*(str(table[key]) for key in ("name", "source", "licence")))
    except (KeyError, OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f'{said}: it says where the rows are from, as name = "…", source = "…", licence = "…" (an SPDX identifier, or LicenseRef-…): {error}') from None


def licence(lineage: Lineage) -> str:
    """The one that the weights carry; with one that is not known here, both bind."""
    found = {entry["licence"] for entry in lineage["data"]}
    known = [one for one in STRICTEST if one in found][:1]
    return " AND ".join([*sorted(found - set(STRICTEST)), *known]) or "CC0-1.0"


def minutes(lineage: Lineage) -> float:
    """Of training, over all runs."""
    return sum(run.get("seconds", 0) for run in counted(lineage)) / 60


def counted(lineage: Lineage) -> list[dict[str, Any]]:
    """Runs whose seconds add up: a resumed run counts its own from the beginning of the one that it goes on from."""
    runs = lineage["runs"]
    return [run for run, then in zip(runs, [*runs[1:], {}]) if not then.get("resumed")]


# US dollars an hour that an operator books: two cores for 0.04, as in a card's price, and a GPU with the cores beside it for 2.50. A rate to compare
# trainings by, no bill: what is rented or owned, and at which load, differs.
USD_PER_HOUR = {"core": 0.02, "gpu": 2.5}


def cost(lineage: Lineage) -> dict[str, float]:
    """Of training, over all runs: hours, each core's its own (a run without `threads` had one), and dollars at the rates above. Export and scores
    are not in it."""
    return _booked(counted(lineage))


def together(lineages: list[Lineage]) -> dict[str, float]:
    """`cost` of several: a run that more than one comes from is counted once."""
    runs: list[dict[str, Any]] = []
    for run in (run for lineage in lineages for run in counted(lineage)):
        if run not in runs:
            runs.append(run)
    return _booked(runs)


def _booked(runs: list[dict[str, Any]]) -> dict[str, float]:
    hours = {"core": 0.0, "gpu": 0.0}
    for run in runs:
        gpu = str(run.get("device")).startswith("cuda")  # Some runs have the GPU's number behind it.
        hours["gpu" if gpu else "core"] += run.get("seconds", 0) / 3600 * (1 if gpu else run.get("threads", 1))
    booked = {unit: of for unit, of in hours.items() if of} or {"core": 0.0}
    said = {f"{unit}_hours": round(of, 4) for unit, of in booked.items()} | {f"usd_per_{unit}_hour": USD_PER_HOUR[unit] for unit in booked}
    return said | {"usd": round(sum(of * USD_PER_HOUR[unit] for unit, of in booked.items()), 4)}


def account(card: dict[str, Any]) -> dict[str, float]:
    """Puts into a card what its own runs cost, and gives it."""
    card["training"]["cost"] = found = cost({"runs": _runs(card), "data": []})
    return found


def _runs(card: dict[str, Any]) -> list[dict[str, Any]]:
    training = card.get("training", {})
    return training.get("runs", [training])


def write(lineage: Lineage, folder: Path) -> None:
    """Beside a checkpoint."""
    (folder / "training.json").write_text(json.dumps(lineage, indent=1) + "\n")
