"""Which inputs are nearly the same. A copy with another comma is no second witness, and must not be learned from and tested on at once."""
from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter, defaultdict
from typing import Any

from . import score

# Jaccard similarity of two inputs' words from which on they are near. In a request of ten words one may differ; a name swapped for another
# in a shorter one makes a new request.
NEAR = 0.8
# Keys of structured inputs that say what may be answered, not what was asked: two conversations over the same methods are no copies.
OFFERED = ("methods", "slots", "service")


# What ends or parts sentences. A sign before a number, a currency, a "+" and a mark over a letter are no punctuation: they tell requests apart.
SAID = re.compile(r"[^\s.,;:!?\"'()\[\]{}«»“”„‘’…–—]+")


def words(given: Any) -> frozenset[str]:
    """The words that people said, in one case and one spelling; the empty text is one word, so that two of them are the same."""
    return frozenset(re.findall(r"\w+", _plain(given))) or frozenset([""])


def key(given: Any) -> str:
    """The same for inputs that differ in capitals, blanks, punctuation, in how a letter is encoded, and the order of keys and of what is offered only, and
    for no others."""
    heard = SAID.findall(_plain(given))
    offered = {k: given[k] for k in OFFERED if k in given} if isinstance(given, dict) else {}
    return " ".join(heard) + (json.dumps(_unordered(score.norm(offered)), sort_keys=True) if offered else "")


def said(row: dict[str, Any]) -> str:
    """What a row's target says, the same for those that `score` takes for the same."""
    return json.dumps(score.norm(row["target"]), sort_keys=True, ensure_ascii=False)


def _plain(given: Any) -> str:
    return unicodedata.normalize("NFKC", " ".join(_texts(given))).casefold()


def _unordered(value: Any) -> Any:
    """With lists sorted: in which order something is offered says nothing."""
    if isinstance(value, dict):
        return {k: _unordered(v) for k, v in value.items()}
    return sorted(map(_unordered, value), key=json.dumps) if isinstance(value, list) else value


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [t for k, v in sorted(value.items()) if k not in OFFERED for t in _texts(v)]
    if isinstance(value, list):
        return [t for v in value for t in _texts(v)]
    return [value] if isinstance(value, str) else []


def similar(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether the two share enough of their words."""
    return len(one & other) >= NEAR * len(one | other)


def groups(bags: list[frozenset[str]]) -> list[list[int]]:
    """Indices, by chains of near pairs; in order of each group's first.

    A near pair shares one of its rarest words (prefix filtering: Bayardo, Ma, Srikant 2007), so that not every pair is looked at.
    """
    often = Counter(word for bag in bags for word in bag)
    parent = list(range(len(bags)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    seen: dict[str, list[int]] = defaultdict(list)
    for i, bag in enumerate(bags):
        rarest = sorted(bag, key=lambda word: (often[word], word))[: len(bag) - math.ceil(NEAR * len(bag)) + 1]
        for j in {j for word in rarest for j in seen[word]}:
            if similar(bag, bags[j]):
                low, high = sorted((root(i), root(j)))
                parent[high] = low
        for word in rarest:
            seen[word].append(i)
    found: dict[int, list[int]] = defaultdict(list)
    for i in range(len(bags)):
        found[root(i)].append(i)
    return list(found.values())
