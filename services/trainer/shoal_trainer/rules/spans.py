"""Texts to the known values that they say: what training rows had there for a name, if they had it there often enough."""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from math import log
from typing import Any, Iterable, Iterator

from ..tasks import Row
from ..tasks.base import texts

WORD = re.compile(r"\w+|[^\w\s]")
LONGEST = 8  # Words of a value that is looked for.
# Of the times that a text says a value and could have meant a name by it, in which it must have: at none more is found and more of it wrong, at a
# half too much is missed. Of dev at none, a quarter and a half: F1 of `extract` 0.828, 0.820, 0.765, calls of `tool_call` wholly right 0.270, 0.310, 0.304.
OFTEN = 0.25


def key(text: str) -> str:
    """As values are compared; score.py's `norm` would take "York," for the longer one of "York"."""
    return " ".join(text.lower().split())


def runs(text: str) -> Iterator[tuple[int, int, str]]:
    """Beginning, end and key of every run of whole words."""
    words = [word.span() for word in WORD.finditer(text)]
    for i, (start, _) in enumerate(words):
        for _, end in words[i : i + LONGEST]:
            yield start, end, key(text[start:end])


class Gazetteer:
    """Values and what they were given for, of rows as (text, names that could have been meant, [(name, value)])."""

    def __init__(self, rows: Iterable[tuple[str, Iterable[str], list[tuple[str, str]]]]) -> None:
        rows = list(rows)
        given = Counter((key(value), name) for _, _, said in rows for name, value in said)
        names: dict[str, set[str]] = defaultdict(set)
        for value, name in given:
            names[value].add(name)
        could: Counter[tuple[str, str]] = Counter()
        for text, offered, _ in rows:
            for value in {run for _, _, run in runs(text) if run in names}:
                could.update((value, name) for name in names[value].intersection(offered))
        self._meant: dict[str, dict[str, float]] = defaultdict(dict)
        for (value, name), n in given.items():
            if could[value, name] and n / could[value, name] >= OFTEN:
                self._meant[value][name] = n / could[value, name]

    def __call__(self, text: str, offered: Iterable[str]) -> list[tuple[str, str]]:
        """(name, text) of what is said, in the order of the text: longer before shorter, and of each the name that is meant by it most often."""
        found = [(end - start, share, start, name) for start, end, run in runs(text) for name, share in self._meant.get(run, {}).items() if name in offered]
        taken: list[tuple[int, int, str]] = []
        for length, _, start, name in sorted(found, reverse=True):
            if not any(start < end and begin < start + length for begin, end, _ in taken):
                taken.append((start, start + length, name))
        return [(name, text[start:end]) for start, end, name in sorted(taken)]


class ExtractRules:
    """A user's turn to the slots' values; a slot that is said twice has what was said last."""

    def __init__(self, rows: list[Row]) -> None:
        self._known = Gazetteer((row["input"]["user"], row["input"]["slots"], list(row["target"].items())) for row in rows)

    def __call__(self, content: dict[str, Any]) -> dict[str, str]:
        return dict(self._known(content["user"], content["slots"]))


class ToolCallRules:
    """An utterance to a call: the tool by its words (naive Bayes, one added to each count), the arguments by what that tool's were."""

    def __init__(self, rows: list[Row]) -> None:
        called: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            called[row["target"]["tool"]].append(row)
        self._tools = {tool: len(of) for tool, of in called.items()}
        self._words = {tool: Counter(word for row in of for word in _words(row["input"])) for tool, of in called.items()}
        self._names = {tool: {name for row in of for name in row["target"]["arguments"]} for tool, of in called.items()}
        self._known = {tool: Gazetteer((row["input"], self._names[tool], _said(row)) for row in of) for tool, of in called.items()}

    def __call__(self, text: str) -> dict[str, Any]:
        words = _words(text)
        tool = max(self._tools, key=lambda of: log(self._tools[of]) + sum(log((self._words[of][word] + 1) / (self._tools[of] + 2)) for word in words))
        said: dict[str, list[str]] = defaultdict(list)
        for name, value in self._known[tool](text, self._names[tool]):
            said[name].append(value)
        return {"tool": tool, "arguments": {name: of[0] if len(of) == 1 else of for name, of in said.items()}}


def _words(text: str) -> set[str]:
    return set(WORD.findall(text.lower()))


def _said(row: Row) -> list[tuple[str, str]]:
    return [(name, value) for name, of in row["target"]["arguments"].items() for value in texts(of)]
