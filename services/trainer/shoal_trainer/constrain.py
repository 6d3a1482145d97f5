"""A task's form, as serving holds answers to it: the same grammar files, rendered for each request, over llguidance."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llguidance
import llguidance.hf
import llguidance.numpy
import numpy as np
from transformers import PreTrainedTokenizerFast

from .prompt import END, Prompt, environment, variables


class Constraint:
    """Grammars of one model folder."""

    def __init__(self, prompt: Prompt, width: int) -> None:
        wrapped = PreTrainedTokenizerFast(tokenizer_object=prompt.tokenizer, eos_token=END)
        self._tokenizer = llguidance.hf.from_tokenizer(wrapped, n_vocab=width)
        self._bitmask = llguidance.numpy.allocate_token_bitmask(1, width)
        self._width = width

    def begin(self, grammar: str, task: str, content: Any) -> llguidance.LLMatcher:
        """The matcher for one request. `grammar` is a Lark grammar, or a template of one."""
        text = environment().from_string(grammar).render(**variables(task, content)) if "{{" in grammar or "{%" in grammar else grammar
        matcher = llguidance.LLMatcher(self._tokenizer, llguidance.grammar_from("lark", text))
        if matcher.is_error():
            raise ValueError(f"the grammar does not compile: {matcher.get_error()}\n{text}")
        return matcher

    def allowed(self, matcher: llguidance.LLMatcher) -> np.ndarray:
        """[width] bool: which tokens may come next."""
        llguidance.numpy.fill_next_token_bitmask(matcher, self._bitmask)
        bits = np.unpackbits(self._bitmask[0].view(np.uint8), bitorder="little")
        return bits[: self._width].astype(bool)


@dataclass(frozen=True)
class Form:
    """What a task's answers are held to: the text of its grammar, and of the template of what must be said. Either may be missing."""

    grammar: str | None = None
    required: str | None = None

    @classmethod
    def of(cls, folder: Path, card: dict[str, Any], task: str) -> Form:
        """As a version's card has it."""
        named = card.get("output", {}).get(task, {})
        return cls(*((folder / named[key]).read_text() if key in named else None for key in ("grammar", "required")))
