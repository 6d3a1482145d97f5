"""What a folder says of itself: specialist.toml and N/card.toml."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from .data import sha256

# What an operator books, US dollars per million tokens: two cores at 0.04 dollars an hour and 2,000 tokens a second are 0.006; doubled.
# That is of serving; what a training costs is `lineage.cost`.
PRICE = {"input_usd_per_million_tokens": 0.01, "output_usd_per_million_tokens": 0.02}


def named(card: dict[str, Any]) -> str:
    """`NAME@VERSION`, as the mesh says who answered."""
    return f"{card['name']}@{card['version']}"


def write(folder: Path, name: str, tasks: list[str], card: dict[str, Any]) -> None:
    """Writes `folder/specialist.toml` and `folder/VERSION/card.toml`, with the sha256 of every other file of the version."""
    here = folder / str(card["version"])
    card["files"] = {p.name: sha256(p) for p in sorted(here.iterdir()) if p.name != "card.toml"}
    (here / "card.toml").write_bytes(tomli_w.dumps(card).encode())
    (folder / "specialist.toml").write_bytes(tomli_w.dumps({"name": name, "tasks": tasks, "active_version": card["version"]}).encode())
