"""How close a sentence comes to another: BLEU of one sentence, for judging row by row. Pure: a task's `bleu` is `score.py`'s, of a whole file.

BLEU (Papineni 2002) up to four words, where a sentence that has none of some length is not worth nothing: one is added to hits and counts of
two words and more (Lin and Och 2004).
"""
from __future__ import annotations

import math
import re
from collections import Counter

LONGEST = 4  # Words of a run.


def sentence(said: str, wanted: str) -> float:
    """From 0, no word in common, to 1, the same words in the same order; upper and lower case are the same."""
    found, asked = _words(said), _words(wanted)
    if not found or not asked:
        return float(found == asked)
    precisions = []
    for n in range(1, LONGEST + 1):
        mine, theirs = _runs(found, n), _runs(asked, n)
        hits, more = sum((mine & theirs).values()), int(n > 1)
        if not hits + more:
            return 0.0
        precisions.append((hits + more) / (sum(mine.values()) + more))
    short = min(1.0, math.exp(1 - len(asked) / len(found)))
    return short * math.exp(sum(map(math.log, precisions)) / LONGEST)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def _runs(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
