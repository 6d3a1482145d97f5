"""A run on disk: `state.pt` in its folder is all that it goes on from, the weights that were best on dev among it, and `asked`, what the run was told."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .data import DataError

FILE = "state.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Whole or not at all, whenever the run is stopped: the file before it stays until the new one is complete."""
    torch.save(state, folder / "state.partial")
    (folder / "state.partial").replace(folder / FILE)


def load(folder: Path, device: torch.device | str) -> dict[str, Any] | None:
    """What the folder has of a run that was stopped, or None."""
    return torch.load(folder / FILE, map_location=device, weights_only=True) if (folder / FILE).is_file() else None


def same(folder: Path, asked: dict[str, Any]) -> None:
    """Raises unless the folder has a run, and that was asked what is asked now: it would go on as it began, and its card would say something else."""
    found = load(folder, "cpu")
    if found is None:
        raise DataError(f"{folder}: no {FILE} there, so there is no run to go on from: give the --out, or the --work, of the run that was stopped. It has one from its first look at dev on; before that leave --resume out, and the training starts anew")
    before = found.get("asked")
    if before is None:
        raise DataError(f"{folder}/{FILE} does not say what its run was asked, so nothing goes on from it: delete it or leave --resume out, and the training starts anew")
    different = [f"{name} was {before.get(name)!r} and is {asked.get(name)!r}" for name in sorted({*before, *asked}) if before.get(name) != asked.get(name)]
    if different:
        raise DataError(f"{folder} is of another run: {'; '.join(different)}. Resume it with the command that began it, or leave --resume out to start anew")


def forget(folder: Path) -> None:
    """Of a run before this one, which nobody may go on from by mistake."""
    (folder / FILE).unlink(missing_ok=True)
