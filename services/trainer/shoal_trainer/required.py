"""What an answer must say: the texts that a task's `required` template makes of a request, each with sentences that say it.

The same rules as the specialist's `constrain::required`, whose documentation has the reasons.
"""
from __future__ import annotations

import json
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from .prompt import environment, variables

DROPPED = " .?!,"  # At the end of a text, as `score.norm` drops them.


class Required:
    """The texts of one request, and which of them may still have to be said."""

    def __init__(self, tokenizer: Tokenizer, template: str, task: str, content: Any) -> None:
        self._missing: list[tuple[str, list[list[int]]]] = []
        self._forced: list[int] = []
        self.helped = False
        for entry in json.loads(environment().from_string(template).render(**variables(task, content))):
            text = _norm(entry["text"]).rstrip(DROPPED)
            ways = [ids for way in entry["say"] if (ids := _ids(tokenizer, way))]
            if text and all(text != other for other, _ in self._missing):
                self._missing.append((text, ways))

    def going_on(self, allowed: np.ndarray) -> int | None:
        """The next token of a sentence that has been begun. `allowed`: a boolean per token; what is not allowed ends the sentence there."""
        token = self._forced.pop(0) if self._forced else None
        if token is None or allowed[token]:
            return token
        self._forced = []
        return None

    def instead_of_end(self, said: str, logits: np.ndarray, allowed: np.ndarray) -> int | None:
        """What to say where the model would end after `said`: the first token of a sentence for the first text that is missing."""
        said = _norm(said)
        while self._missing:
            text, ways = self._missing.pop(0)
            open_ways = [] if holds(said, text) else [way for way in ways if allowed[way[0]]]
            if open_ways:
                self._forced = list(max(open_ways, key=lambda way: logits[way[0]]))
                self.helped = True
                return self._forced.pop(0)
        return None


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    tokenizer.encode_special_tokens = True  # What reads like a control token is text here.
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.encode_special_tokens = False


def _norm(text: str) -> str:
    """As `score.norm`, but letter by letter, so that text can be added to."""
    return " ".join("".join(c.lower() for c in text).split())


def holds(said: str, text: str) -> bool:
    """Whether `said` holds `text`. Between two digits no text begins or ends: "4" is not said by "14"."""
    at = said.find(text)
    while at >= 0:
        before, after = said[max(0, at - 1) : at], said[at + len(text) :][:1]
        if not (_digit(text[0]) and _digit(before)) and not (_digit(text[-1]) and _digit(after)):
            return True
        at = said.find(text, at + 1)
    return False


def _digit(letter: str) -> bool:
    return letter.isascii() and letter.isdigit()
