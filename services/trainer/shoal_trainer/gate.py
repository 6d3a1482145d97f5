"""Whether a candidate may take the incumbent's place. Pure: what both answered in, a verdict out.

Both answered the same rows, so differences are taken row by row. What decides is the shares: what was taught got better, nothing else lost more than
half a point. The bounds are a paired bootstrap (Efron 1979) of the rows; they say how sure a figure is, and decide only where a rise would be no news.
"""
from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Sequence

DROP = 0.005  # Share of right answers that may be lost on dev: half a point is under what 700 rows can tell apart from none.
SAMPLES = 2000  # Of the bootstrap: the 2.5 % bounds then rest on fifty of them.
HAIR = 1e-9  # Shares are of whole rows, and 0.5 points of 200 of them is exactly one.

Pair = tuple[float, float]  # What the incumbent's, and what the candidate's answer to a row is worth: right (True) or not, or how close it is, 0 to 1.


@dataclass(frozen=True)
class Figures:
    """Means of what answers are worth, which of right ones are shares, and the bounds of a 95 % interval of candidate minus incumbent."""

    rows: int
    incumbent: float
    candidate: float
    low: float
    high: float

    def __str__(self) -> str:
        change = self.candidate - self.incumbent
        return f"{self.incumbent:.3f} -> {self.candidate:.3f} on {self.rows} rows ({change:+.3f}, 95 % from {self.low:+.3f} to {self.high:+.3f})"


@dataclass(frozen=True)
class Bar:
    """What a shipped specialist has of a metric on dev, and what both have."""

    name: str
    bar: float
    incumbent: float
    candidate: float
    fewer: bool = False  # Less is better, and the bar is what there is of it at most.

    @property
    def broken(self) -> bool:
        """Held by the incumbent, and by the candidate no longer. What was never held cannot be lost: a small model may learn too."""
        return self._held(self.incumbent) and not self._held(self.candidate)

    def _held(self, value: float) -> bool:
        return value <= self.bar if self.fewer else value >= self.bar


@dataclass(frozen=True)
class Verdict:
    """`why` says what was missing, or that nothing was. `below`: how far under the best of its lineage the candidate is on dev, by name. `held_out_right`: of
    the held-out corrections that are right, how many are `kept` and how many `escalated`; it is told, and decides nothing."""

    accepted: bool
    why: str
    held_out: Figures
    dev: dict[str, Figures]
    below: dict[str, float] = field(default_factory=dict)
    held_out_right: dict[str, int] = field(default_factory=dict)


def weigh(
    held_out: list[Pair],
    dev: dict[str, list[Pair]],
    below: dict[str, float] | None = None,
    bars: Sequence[Bar] = (),
    still_right: list[Pair] | None = None,
) -> Verdict:
    """The verdict over the held-out corrections and, by name, what is to be kept on the dev rows of everything that the model serves.

    `below`: how far the incumbent itself is under the best of its lineage; the half point counts from there, or each turn would lose another.
    `still_right`: of a task in which many answers are right, whether the held-out answers were: of that nothing may be lost, and `held_out` is then how
    close answers come. Closeness always moves a little, so there a rise must be one that the interval is sure of.
    """
    taught, kept = figures(held_out), {name: figures(pairs) for name, pairs in dev.items()}
    lost = {name: max(0.0, (below or {}).get(name, 0.0) + f.incumbent - f.candidate) for name, f in kept.items()}
    better = taught.low > HAIR if still_right is not None else taught.candidate > taught.incumbent
    faults = [] if better else [f"held-out corrections did not get better: {taught}"]
    right = figures(still_right or [])
    faults += [f"of the held-out corrections less is right: {right}"] if right.candidate < right.incumbent else []
    for name, f in kept.items():
        if lost[name] > DROP + HAIR:
            before = f", after {below[name]:.3f} in turns before" if below and below.get(name) else ""
            faults.append(f"{name} on dev lost more than {DROP:.1%}: {f}{before}")
    faults += [f"{b.name} breaks its bar of {b.bar:g}, which the version before it held: {b.incumbent:.3f} -> {b.candidate:.3f}" for b in bars if b.broken]
    # The rule allows half a point for what was taught, also where it is surely gone; whoever put the rule up will want to know.
    gone = [f"{name} on dev lost surely, but at most {DROP:.1%}: {f}" for name, f in kept.items() if f.high < -HAIR]
    why = "; ".join(faults or ["held-out corrections got better, and dev was kept", *gone])
    return Verdict(not faults, why, taught, kept, lost)


def figures(pairs: list[Pair]) -> Figures:
    """Means and bounds; nothing was asked: all zero."""
    if not pairs:
        return Figures(0, 0.0, 0.0, 0.0, 0.0)
    rng, n = random.Random(1), len(pairs)
    change = [candidate - incumbent for incumbent, candidate in pairs]
    means = sorted(sum(rng.choices(change, k=n)) / n for _ in range(SAMPLES))
    low, high = means[int(SAMPLES * 0.025)], means[int(SAMPLES * 0.975) - 1]
    return Figures(n, sum(i for i, _ in pairs) / n, sum(c for _, c in pairs) / n, low, high)
