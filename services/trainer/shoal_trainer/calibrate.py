"""From a model's log probabilities to a probability of being right, and to the threshold at which a node leaves for the larger tier.

The card keeps the map as knots of a piecewise-linear function of one statistic; the specialist computes just that. The error of the map
is measured on rows that it was not fitted on. Coverage and accuracy of what is kept are not: they say where on the curve of these rows the
threshold was put.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

STATISTICS = ("sum_logprob", "mean_logprob", "min_logprob")
KNOTS = 20  # Quantiles that the map is fitted on: with 400 rows each holds twenty, enough for a share to mean something.
BINS = 10  # Of the expected calibration error (Guo 2017), equally filled.
FOLDS = 10  # Of the rows, in which the map is held against what it was not fitted on.
PARTITIONS = 32  # Ways to part the rows in folds: of 326 rows one moves the error by a quarter, and eight were off by a third together.
DRAWS = 5  # Of what might have come true, a partition.
STAYS_RIGHT = 0.97  # Of what stays with the specialist.
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
        xs, ps = zip(*self.knots)
        return float(np.interp(statistics[self.statistic], xs, ps))


def fit(statistics: list[dict[str, float]], right: list[bool]) -> Map:
    """The map over the statistic that tells right from wrong best."""
    if len(set(right)) < 2:
        return Map(STATISTICS[0], [(0.0, float(right[0]))])
    best = max(STATISTICS, key=lambda s: roc_auc_score(right, [x[s] for x in statistics]))
    order = np.argsort([x[best] for x in statistics], kind="stable")
    xs, ys = np.array([statistics[i][best] for i in order]), np.array([right[i] for i in order], float)
    parts = [part for part in np.array_split(np.arange(len(xs)), min(KNOTS, max(2, len(xs) // 10))) if len(part)]
    centres, shares, sizes = ([f(part) for part in parts] for f in (lambda p: xs[p].mean(), lambda p: ys[p].mean(), len))
    levels = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(centres, shares, sample_weight=sizes)
    knots: list[tuple[float, float]] = []
    for x, p in zip(centres, levels):
        if not knots or x > knots[-1][0] + 1e-9:
            knots.append((round(float(x), 6), round(float(p), 4)))
    return Map(best, knots)


def error(scores: list[float], right: list[bool]) -> float:
    """Expected calibration error: mean gap between what was promised and what came, over bins of equal size."""
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    s, r = np.array(scores), np.array(right, float)
    return float(sum(len(part) * abs(s[part].mean() - r[part].mean()) for part in parts) / len(scores))


def held_out(statistics: list[dict[str, float]], right: list[bool]) -> tuple[float, float]:
    """The error of maps fitted on nine rows of ten, on the tenth: such a map is nearly the one that is shipped, which all rows made. And its floor: the
    error that promises without fault would show on as many rows, by chance alone. Both are means over partitions."""
    found = []
    for seed in range(PARTITIONS):
        rng, scores = np.random.default_rng(seed), np.zeros(len(right))
        place = rng.permutation(len(right)) % FOLDS
        for fold in range(FOLDS):
            fitted, held = np.flatnonzero(place != fold), np.flatnonzero(place == fold)
            if len(fitted) and len(held):
                one = fit([statistics[i] for i in fitted], [right[i] for i in fitted])
                scores[held] = [one(statistics[i]) for i in held]
        chance = [error(list(scores), list(rng.random(len(scores)) < scores)) for _ in range(DRAWS)]
        found.append((error(list(scores), right), np.mean(chance)))
    off, floor = np.mean(found, axis=0)
    return float(off), float(floor)


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


def threshold(points: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The point of largest coverage at which what stays is right in 97 %; where that keeps under 20 %, the knee."""
    good = [p for p in points if p[1] >= STAYS_RIGHT and p[0] >= KEEPS]
    # The knee: where coverage times what it gains over answering everything is largest.
    return good[-1] if good else max(points, key=lambda p: p[0] * (p[1] - points[-1][1]))


def table(statistics: list[dict[str, float]], right: list[bool]) -> dict[str, Any]:
    """The card's `[calibration.TASK]`. `coverage` and `accuracy_kept` are of the rows that the threshold was chosen on: models/README.md has what they are
    on others."""
    fitted = fit(statistics, right)
    points = curve([fitted(s) for s in statistics], right)
    coverage, accuracy, least = threshold(points)
    off, floor = held_out(statistics, right)
    return {
        "confidence_threshold": round(least, 4),
        "coverage": round(coverage, 4),
        "accuracy_kept": round(accuracy, 4),
        "expected_calibration_error": round(off, 4),
        "calibration_error_floor": round(floor, 4),
        "statistic": fitted.statistic,
        "knots": [list(knot) for knot in fitted.knots],
    }
