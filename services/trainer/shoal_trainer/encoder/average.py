"""Several checkpoints to one: the mean of their weights (Wortsman et al., Model soups, arXiv 2203.05482). They must have been trained on from one
checkpoint: only then do they lie in one basin, and their mean in it too."""
from __future__ import annotations

from pathlib import Path

import torch

from .. import lineage
from ..export import ExportError
from . import net


def average(folders: list[Path], into: Path) -> None:
    """Writes the mean, with every run that any of them comes from."""
    loaded = [net.load(folder) for folder in folders]
    (encoder, tokenizer), *others = loaded
    for folder, (other, its) in zip(folders[1:], others):
        if other.shape != encoder.shape or its.to_str() != tokenizer.to_str():
            raise ExportError(f"{folder} is not of one kind with {folders[0]}: other outputs, or another vocabulary")
    states = [other.state_dict() for other, _ in loaded]
    with torch.no_grad():
        mean = {name: torch.stack([state[name] for state in states]).mean(0) if first.is_floating_point() else first for name, first in states[0].items()}
    encoder.load_state_dict(mean)
    net.save(encoder, tokenizer, into)
    before = [lineage.of(folder) for folder in folders]
    data: dict[str, dict[str, str]] = {}
    for entry in (entry for one in before for entry in one["data"]):
        known = data.setdefault(entry["source"], {**entry, "sha256": ""})
        known["sha256"] = " ".join(dict.fromkeys([*known["sha256"].split(), *entry["sha256"].split()]))
    runs = [run for i, one in enumerate(before) for run in one["runs"] if not any(run in earlier["runs"] for earlier in before[:i])]
    lineage.write({"runs": runs, "data": list(data.values())}, into)
