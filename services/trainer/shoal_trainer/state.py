"""A run on disk: `state.pt` in its folder is all that it goes on from, the weights that were best on dev among it."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

FILE = "state.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Whole or not at all, whenever the run is stopped: the file before it stays until the new one is complete."""
    torch.save(state, folder / "state.partial")
    (folder / "state.partial").replace(folder / FILE)


def load(folder: Path, device: torch.device | str) -> dict[str, Any] | None:
    """What the folder has of a run that was stopped, or None."""
    return torch.load(folder / FILE, map_location=device, weights_only=True) if (folder / FILE).is_file() else None


def forget(folder: Path) -> None:
    """Of a run before this one, which nobody may go on from by mistake."""
    (folder / FILE).unlink(missing_ok=True)
