"""Whether a candidate may take the incumbent's place. Pure: answers in, a verdict out.

Both answered the same rows, so differences are taken row by row, and how sure they are is a paired bootstrap (Efron 1979) of the rows.
"""
from __future__ import annotations

import random
from dataclasses import dataclass

DROP = 0.005  # Share of right answers that may be lost on dev: half a point is under what 700 rows can tell apart from none.
SAMPLES = 2000  # Of the bootstrap: the 2.5 % bounds then rest on fifty of them.

Pair = tuple[bool, bool]  # Whether the incumbent, and whether the candidate, answered a row rightly.


@dataclass(frozen=True)
class Figures:
    """Shares of right answers, and the bounds of a 95 % interval of candidate minus incumbent."""

    rows: int
    incumbent: float
    candidate: float
    low: float
    high: float

    def __str__(self) -> str:
        change = self.candidate - self.incumbent
        return f"{self.incumbent:.3f} -> {self.candidate:.3f} on {self.rows} rows ({change:+.3f}, 95 % from {self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True)
class Verdict:
    """`why` says what was missing, or that nothing was."""

    accepted: bool
    why: str
    held_out: Figures
    dev: dict[str, Figures]


def weigh(held_out: list[Pair], dev: dict[str, list[Pair]]) -> Verdict:
    """The verdict over the held-out corrections and, by task, the dev rows of everything that the model serves."""
    taught, kept = figures(held_out), {task: figures(pairs) for task, pairs in dev.items()}
    faults = [] if taught.candidate > taught.incumbent else [f"held-out corrections did not get better: {taught}"]
    # A hair of tolerance: shares are of whole rows, and 0.5 points of 200 of them is exactly one.
    faults += [f"{task} on dev lost more than {DROP:.1%}: {f}" for task, f in kept.items() if f.incumbent - f.candidate > DROP + 1e-9]
    return Verdict(not faults, "; ".join(faults) or "held-out corrections got better, and dev was kept", taught, kept)


def figures(pairs: list[Pair]) -> Figures:
    """Shares and bounds; nothing was asked: all zero."""
    if not pairs:
        return Figures(0, 0.0, 0.0, 0.0, 0.0)
    rng, n = random.Random(1), len(pairs)
    change = [candidate - incumbent for incumbent, candidate in pairs]
    means = sorted(sum(rng.choices(change, k=n)) / n for _ in range(SAMPLES))
    low, high = means[int(SAMPLES * 0.025)], means[int(SAMPLES * 0.975) - 1]
    return Figures(n, sum(i for i, _ in pairs) / n, sum(c for _, c in pairs) / n, low, high)
