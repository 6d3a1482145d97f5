"""Token and class log probabilities to the likeliest valid reading. Pure; the specialist decodes by the same rules."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reading:
    """A class (or None where there are none), a tag for each token, and the log probability of each choice."""

    chosen: int | None
    tags: tuple[int, ...]
    logprobs: tuple[float, ...]  # The class's first, if there is one; then one for each token.


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def path(logprobs: np.ndarray, allowed: np.ndarray) -> tuple[float, list[int]]:
    """The best tags for `logprobs` [tokens, tags], and their sum. Tag 0 is O, 1 + 2i is B of label i, 2 + 2i is I of label i; I follows only
    B or I of its own label. `allowed` [tags] bool."""
    tokens, tags = logprobs.shape
    if tokens == 0:
        return 0.0, []
    scores = np.where(allowed, logprobs, -np.inf)
    best = scores[0].copy()
    best[2::2] = -np.inf
    back = np.zeros((tokens, tags), np.int64)
    begins, insides = np.arange(1, tags, 2), np.arange(2, tags, 2)
    for i in range(1, tokens):
        back[i] = best.argmax()
        back[i, 2::2] = np.where(best[1::2] >= best[2::2], begins, insides)
        best = best[back[i]] + scores[i]
    tag = int(best.argmax())
    total, found = float(best[tag]), [tag]
    for i in range(tokens - 1, 0, -1):
        tag = int(back[i, tag])
        found.append(tag)
    return total, found[::-1]


def read(tags: np.ndarray, classes: np.ndarray | None, allowed: np.ndarray) -> Reading:
    """Class and tags that are likeliest together. `tags` [tokens, tags] and `classes` [classes] are logits; `allowed` [classes or 1, tags] bool."""
    by_token = log_softmax(tags)
    if classes is None:
        _, best = path(by_token, allowed[0])
        chosen, head = None, []
    else:
        by_class = log_softmax(classes)
        paths = [path(by_token, allowed[c]) for c in range(len(by_class))]
        chosen = int(np.argmax([by_class[c] + total for c, (total, _) in enumerate(paths)]))
        best, head = paths[chosen][1], [float(by_class[chosen])]
    return Reading(chosen, tuple(best), (*head, *(float(by_token[i, tag]) for i, tag in enumerate(best))))
