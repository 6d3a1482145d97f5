"""Variants of a row: values swapped with other rows' or with made-up names, so that a model learns to copy what it has never seen.

Names never seen in training are most of the errors of a small model, and no more parameters would cure them.
"""
from __future__ import annotations

import random
import re
from collections import defaultdict
from typing import Any, Callable, Iterable

SYLLABLES = "ba be bi bo bu ca ce co cra da de di do dra el en er fa fe fi fo ga ge gi go gra ha he hi ho in is ja jo ka ke ki ko la le li lo lu ma me mi mo mu na ne ni no nu on or pa pe pi po pra qua ra re ri ro ru sa se sha si so sta su ta te the ti to tra tu un va ve vi vo wa we wi xa ya yo za zo".split()


def stands(text: str, value: str, most: int = 1) -> bool:
    """Whether `value` stands in `text` at least once and at most `most` times, each time as whole words."""
    if not value or not 1 <= text.count(value) <= most:
        return False
    return len(re.findall(rf"(?<![^\W_]){re.escape(value)}(?![^\W_])", text)) == text.count(value)


def made_up(rng: random.Random) -> str:
    """A name that nobody has: one to three words of one to three syllables."""
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(rng.randint(1, 3))]
    return " ".join(word.capitalize() for word in words) if rng.random() < 0.8 else " ".join(words)


class Pools:
    """Values by kind (a slot name, say), to swap with. A kind whose values are few is closed: it is never invented for."""

    OPEN = 60  # Distinct values from which on a kind is taken for names; measured on SNIPS: units, terms and rooms lie below.

    def __init__(self) -> None:
        self._values: dict[Any, list[str]] = defaultdict(list)
        self._open: set[Any] = set()

    def add(self, kind: Any, values: Iterable[str]) -> None:
        """Takes values in, as often as they occur: swaps follow their frequency."""
        self._values[kind].extend(values)

    def close(self) -> None:
        """All values are in."""
        self._open = {kind for kind, values in self._values.items() if len(set(values)) >= self.OPEN and sum(map(_wordy, values)) > 0.9 * len(values)}

    def other(self, kind: Any, rng: random.Random, invent: float) -> str | None:
        """Another value of the kind: one that occurs, or, for a share `invent` of an open kind's, one that was made up or mixed."""
        values = self._values.get(kind)
        if not values:
            return None
        if kind in self._open and rng.random() < invent:
            if rng.random() < 0.5:
                return made_up(rng)
            first, second = rng.choice(values).split(), rng.choice(values).split()
            return " ".join(first[: max(1, len(first) // 2)] + second[len(second) // 2 :])
        return rng.choice(values)


def _wordy(value: str) -> bool:
    return not re.search(r"\d", value)


def swap(text: str, values: list[tuple[Any, str]], pools: Pools, rng: random.Random, share: float, invent: float, most: int = 1) -> tuple[str, Callable[[str], str]] | None:
    """`text` with some of `values` (kind, value) replaced, and the function that maps an old value to its new one.

    None if nothing changed, or if a replacement would have broken another value.
    """
    mapping: dict[str, str] = {}
    for kind, value in values:
        if value in mapping or rng.random() >= share or not stands(text, value, most):
            continue
        other = pools.other(kind, rng, invent)
        if other and other != value:
            mapping[value] = other
    if not mapping:
        return None
    # One pass over the old text, longest first: no replacement is ever replaced again.
    pattern = re.compile("|".join(re.escape(v) for v in sorted(mapping, key=len, reverse=True)))
    new = pattern.sub(lambda m: mapping[m[0]], text)
    if any(mapping.get(value, value) not in new for _, value in values if value in text):
        return None
    return new, lambda value: mapping.get(value, value)
