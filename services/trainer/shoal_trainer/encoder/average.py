"""Several checkpoints to one: the mean of their weights (Wortsman et al., Model soups, arXiv 2203.05482). They must have been trained on from one
checkpoint: only then do they lie in one basin, and their mean in it too."""
from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import torch

from .. import lineage
from ..export import ExportError
from . import net
from .fill import net as fill

Encoder = net.Encoder | fill.Filler


def average(folders: list[Path], weights: list[float], into: Path) -> None:
    """Writes the mean, with every run that any of them comes from. Of `weights` each has its share of their sum. Those with fewer
    positions than the first are lengthened before, and fillers with fewer layers, or that know other values and fields, are brought into its form."""
    if len(weights) != len(folders) or not all(0 < weight < float("inf") for weight in weights):
        raise ExportError(f"{len(folders)} checkpoints need as many weights, each above 0; given were {', '.join(f'{w:g}' for w in weights)}")
    (encoder, tokenizer), *others = (net.opened(folder) for folder in folders)
    states = [encoder.state_dict()]
    for folder, (other, its) in zip(folders[1:], others):
        if its.to_str() != tokenizer.to_str() or (alike := _like(encoder, other)) is None:
            raise ExportError(f"{folder} is not of one kind with {folders[0]}: other outputs, another vocabulary, or more layers or positions")
        states.append(alike.state_dict())
    shares = [weight / sum(weights) for weight in weights]
    with torch.no_grad():
        mean = {name: sum(share * state[name] for share, state in zip(shares, states)) if first.is_floating_point() else first for name, first in states[0].items()}
    encoder.load_state_dict(mean)
    net.save(encoder, tokenizer, into)
    lineage.write(_lineage(folders, shares), into)


def _like(first: Encoder, other: Encoder) -> Encoder | None:
    """The other with the outputs, the depth and the positions of the first; None if it cannot be had."""
    layers, has = first.body.config.num_hidden_layers, other.body.config.num_hidden_layers
    if other.body.config.max_position_embeddings > first.body.config.max_position_embeddings:
        return None
    other = net.lengthen(other, first.body.config.max_position_embeddings)
    if other.shape == first.shape and has == layers:
        return other
    if not isinstance(first, fill.Filler) or not isinstance(other, fill.Filler) or has > layers:
        return None
    net.grow(other, layers)
    # Of a value that it does not know it has no opinion: the first's stands.
    alike = copy.deepcopy(first)
    alike.body.load_state_dict(other.body.state_dict())
    alike.carry(other)
    return alike


def _lineage(folders: list[Path], shares: list[float]) -> lineage.Lineage:
    before = [lineage.of(folder) for folder in folders]
    data: dict[str, dict[str, str]] = {}
    for entry in (entry for one in before for entry in one["data"]):
        known = data.setdefault(entry["source"], {**entry, "sha256": ""})
        known["sha256"] = " ".join(dict.fromkeys([*known["sha256"].split(), *entry["sha256"].split()]))
    runs: list[dict[str, Any]] = [run for i, one in enumerate(before) for run in one["runs"] if not any(run in earlier["runs"] for earlier in before[:i])]
    mean = {"average": [_name(folder) for folder in folders], "weights": [round(share, 4) for share in shares]}
    return {"runs": [*runs, mean], "data": list(data.values())}


def _name(folder: Path) -> str:
    """NAME@VERSION of a version, a checkpoint's own name."""
    if not (folder / "card.toml").is_file():
        return folder.name
    card = tomllib.loads((folder / "card.toml").read_text())
    return f"{card['name']}@{card['version']}"
