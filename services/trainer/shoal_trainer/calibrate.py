"""From a model's log probabilities to a probability of being right, and to the threshold at which a node leaves for the larger tier.

The card keeps the map as knots of a piecewise-linear function of one statistic; the specialist computes just that. The error of the map
is measured on rows that it was not fitted on. Coverage and accuracy of what is kept beside the threshold are not: they say where on the curve
of these rows it was put. What they are on other rows, and on services not seen in training, is told beside (`Held`, `told`).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np
from scipy.optimize import isotonic_regression
from sklearn.metrics import roc_auc_score

STATISTICS = ("sum_logprob", "mean_logprob", "min_logprob")
KNOTS = 20  # Of a map, at as many quantiles, or as many as it has shares.
# Quantiles whose shares of right answers a map is fitted on: each holds thirty rows, enough for a share to mean something. Of a model that is seldom
# wrong, a twelfth of the rows holds nearly all that it has wrong, surer and less sure alike: with no more than twelve the error of `route` was 0.022
# and that of `compose` 0.031, with a share for every thirty rows 0.007 and 0.008.
SHARES, SHARE_ROWS, MOST_SHARES = 12, 30, 40
# Draws of the rows whose maps' mean is the map (bagging: Breiman 1996). A single one, over twenty shares, follows the luck of its rows: on rows that it
# had not seen its error was 0.050, 0.066 and 0.041 (the planner's episodes, the generalist's, its summaries), and the mean's 0.049, 0.055 and 0.039, with
# the lower log loss on all three. A logistic curve over the statistic, its logarithm or both had 0.064, 0.071 and 0.035.
BAGS = 20
BINS = 10  # Of the expected calibration error (Guo 2017), equally filled.
FOLDS = 10  # Of the rows, in which the map is held against what it was not fitted on.
PARTITIONS = 32  # Ways to part the rows in folds: of 326 rows one moves the error by a quarter, and eight were off by a third together.
DRAWS = 5  # Of what might have come true, a partition.
STAYS_RIGHT = 0.97  # Of what stays with the specialist.
POINTS = 20  # Of the curve that a card keeps: every twentieth of the rows.
LEAST = 0.02  # Of the rows: the surest few are all right by luck.
KEEPS = 0.20  # A threshold that keeps less than this is of no use: then the knee of the curve is taken.


@dataclass(frozen=True)
class Map:
    """Statistic to probability: linear between knots, flat beyond them."""

    statistic: str
    knots: list[tuple[float, float]]

    @classmethod
    def of(cls, table: dict[str, Any]) -> Map:
        """From a card's `[calibration.TASK]`."""
        return cls(table["statistic"], [(x, p) for x, p in table["knots"]])

    def __call__(self, statistics: dict[str, float]) -> float:
        return float(self.over([statistics])[0])

    def over(self, statistics: Sequence[dict[str, float]]) -> np.ndarray:
        """Of many."""
        xs, ps = zip(*self.knots)
        return np.interp([of[self.statistic] for of in statistics], xs, ps)


def fit(statistics: list[dict[str, float]], right: list[bool]) -> Map:
    """The map over the statistic that tells right from wrong best."""
    if len(set(right)) < 2:
        return Map(STATISTICS[0], [(0.0, float(right[0]))])
    best = max(STATISTICS, key=lambda s: roc_auc_score(right, [x[s] for x in statistics]))
    xs, ys = np.array([x[best] for x in statistics]), np.array(right, float)
    rng = np.random.default_rng(0)
    at = np.unique(np.quantile(xs, np.linspace(0, 1, max(KNOTS, _shares(len(xs))))).round(6))
    drawn = (rng.integers(len(xs), size=len(xs)) for _ in range(BAGS))
    levels = np.mean([np.interp(at, *_isotonic(xs[rows], ys[rows])) for rows in drawn], axis=0)
    return Map(best, [(float(x), round(float(p), 4)) for x, p in zip(at, levels)])


def _shares(rows: int) -> int:
    """How many quantiles so many rows are parted in."""
    return min(MOST_SHARES, max(2, min(SHARES, rows // 10), rows // SHARE_ROWS))


def _isotonic(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of right answers over quantiles, made to rise."""
    order = np.argsort(xs, kind="stable")
    parts = [order[part] for part in np.array_split(np.arange(len(xs)), _shares(len(xs))) if len(part)]
    centres, shares, sizes = ([f(part) for part in parts] for f in (lambda p: xs[p].mean(), lambda p: ys[p].mean(), len))
    # A statistic that many rows share is one point, whatever came of those that lie last.
    at, which = np.unique(centres, return_inverse=True)
    weights = np.bincount(which, sizes)
    return at, isotonic_regression(np.bincount(which, np.multiply(shares, sizes)) / weights, weights=weights).x


def error(scores: list[float], right: list[bool]) -> float:
    """Expected calibration error: mean gap between what was promised and what came, over bins of equal size."""
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    s, r = np.array(scores), np.array(right, float)
    return float(sum(len(part) * abs(s[part].mean() - r[part].mean()) for part in parts) / len(scores))


@dataclass(frozen=True)
class Held:
    """What confidence is worth on rows that it was not made of."""

    error: float
    floor: float  # The error that promises without fault would show on as many rows, by chance alone.
    coverage: float
    accuracy: float  # Of what is kept.
    knee: bool  # Whether the threshold is to be at the knee: most maps of fewer rows keep too little at 97 %, so that one that does not has had luck.


def held_out(statistics: list[dict[str, float]], right: list[bool]) -> Held:
    """Of maps and thresholds that nine rows of ten made, on the tenth: such a map is nearly the one that is shipped, which all rows made. Means over
    partitions."""
    correct, errors, folds = np.array(right), [], []
    for seed in range(PARTITIONS):
        rng, scores = np.random.default_rng(seed), np.zeros(len(right))
        place = rng.permutation(len(right)) % FOLDS
        for fold in range(FOLDS):
            fitted, held = np.flatnonzero(place != fold), np.flatnonzero(place == fold)
            if len(fitted) and len(held):
                known = [statistics[i] for i in fitted]
                one = fit(known, [right[i] for i in fitted])
                scores[held] = one.over([statistics[i] for i in held])
                folds.append((curve(one.over(known).tolist(), correct[fitted].tolist()), scores[held], correct[held]))
        chance = [error(list(scores), list(rng.random(len(scores)) < scores)) for _ in range(DRAWS)]
        errors.append((error(list(scores), right), np.mean(chance)))
    off, floor = np.mean(errors, axis=0)
    knee = 2 * sum(keeps_enough(points) for points, _, _ in folds) < len(folds)
    kept = np.concatenate([came[scores >= threshold(points, knee)[2]] for points, scores, came in folds])
    return Held(float(off), float(floor), len(kept) / (PARTITIONS * len(right)), float(kept.sum()) / max(1, len(kept)), knee)


def curve(scores: list[float], right: list[bool]) -> list[tuple[float, float, float]]:
    """(coverage, accuracy of what is kept, threshold), one point for each distinct score, from the surest on."""
    points: list[tuple[float, float, float]] = []
    kept = 0
    for n, (score, correct) in enumerate(sorted(zip(scores, right), key=lambda pair: -pair[0]), 1):
        kept += correct
        if points and points[-1][2] == score:
            points.pop()
        points.append((n / len(right), kept / n, score))
    return points


def threshold(points: list[tuple[float, float, float]], knee: bool = False) -> tuple[float, float, float]:
    """The point of largest coverage at which what stays is right in 97 %; where that keeps under 20 %, or is not to be had, the knee."""
    if keeps_enough(points) and not knee:
        return surest(points)
    # Where coverage times what it gains over answering everything is largest.
    return max(points, key=lambda p: p[0] * (p[1] - points[-1][1]))


def keeps_enough(points: list[tuple[float, float, float]]) -> bool:
    """Whether a threshold at 97 % is of use."""
    good = surest(points)
    return good is not None and good[0] >= KEEPS


def surest(points: list[tuple[float, float, float]]) -> tuple[float, float, float] | None:
    """The point of largest coverage at which what stays is right in 97 %, if there is one that is not a handful of rows."""
    return next((p for p in reversed(points) if p[0] >= LEAST and p[1] >= STAYS_RIGHT), None)


def table(statistics: list[dict[str, float]], right: list[bool], held: Held) -> dict[str, Any]:
    """The card's `[calibration.TASK]`: no other keys are read in serving, and none are allowed. `coverage` and `accuracy_kept` are of the rows that the
    threshold was chosen on."""
    fitted = fit(statistics, right)
    coverage, accuracy, least = threshold(curve(fitted.over(statistics).tolist(), right), held.knee)
    return {
        "confidence_threshold": round(least, 4),
        "coverage": round(coverage, 4),
        "accuracy_kept": round(accuracy, 4),
        "expected_calibration_error": round(held.error, 4),
        "calibration_error_floor": round(held.floor, 4),
        "statistic": fitted.statistic,
        "knots": [list(knot) for knot in fitted.knots],
    }


def told(made: dict[str, Any], statistics: list[dict[str, float]], right: list[bool], held: Held) -> dict[str, Any]:
    """The card's `[training.confidence.TASK]`: what `table` made, on rows that it was not made of; its risk-coverage curve, as (coverage, accuracy); and
    where the knee was taken, what a threshold of 97 % would keep."""
    points = curve(Map.of(made).over(statistics).tolist(), right)
    shown = {min(points, key=lambda p: abs(p[0] - i / POINTS)) for i in range(1, POINTS + 1)}
    found: dict[str, Any] = {
        "held_out_coverage": round(held.coverage, 4),
        "held_out_accuracy_kept": round(held.accuracy, 4),
        "curve": [[round(coverage, 4), round(accuracy, 4)] for coverage, accuracy, _ in sorted(shown)],
    }
    best = surest(points)
    if best is None:
        found["at_97"] = {"coverage": 0.0}
    elif best[0] < KEEPS or held.knee:
        found["at_97"] = {"threshold": round(best[2], 4), "coverage": round(best[0], 4)}
    return found


def elsewhere(made: dict[str, Any], statistics: list[dict[str, float]], right: list[bool]) -> dict[str, Any]:
    """What `table` made is worth on rows of another kind, as serving uses it."""
    scores = Map.of(made).over(statistics)
    kept = [r for s, r in zip(scores, right) if s >= made["confidence_threshold"]]
    return {
        "unseen_coverage": round(len(kept) / len(right), 4),
        "unseen_accuracy_kept": round(sum(kept) / max(1, len(kept)), 4),
        "unseen_ece": round(error(scores.tolist(), right), 4),
    }
