"""Text to token ids: a byte-level BPE of the tasks' own text, and the chat template that the specialist renders too.

Both sides render the very same files with the very same variables, so what a model saw in training is what it sees in serving.

A blank is a token of its own. In most vocabularies it belongs to the word behind it, so that a name in the middle of a sentence and the
same name behind a quotation mark are different tokens, and a small model has to learn every name twice to copy it once.
"""
from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Iterable

import jinja2
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
SPECIAL = [END, "<|task|>", "<|input|>", "<|output|>"]
# Identifiers in one piece, digits one by one (dates and times are computed with), runs of punctuation, blanks one by one.
PIECES = r"[\p{L}\p{M}_]+|\p{N}|[^\s\p{L}\p{M}\p{N}_]+|\s"


def template_text() -> str:
    """The chat template that ships in every folder."""
    return resources.files(__package__).joinpath("templates/chat_template.jinja").read_text()


def environment() -> jinja2.Environment:
    """Jinja as transformers sets it up for chat templates, and as the specialist does."""
    env = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env


class Prompt:
    """A tokenizer and a template: what a model is asked, as ids."""

    def __init__(self, tokenizer: Tokenizer, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = template or template_text()
        self._compiled = environment().from_string(self.template)

    @classmethod
    def untrained(cls) -> Prompt:
        """One that renders, for the texts that a tokenizer is to be trained on."""
        return cls(Tokenizer(models.BPE()))

    @classmethod
    def learn(cls, texts: Iterable[str], vocabulary: int) -> Prompt:
        """Trains the BPE. Every byte is in the alphabet, so that no text is outside it."""
        tokenizer = Tokenizer(models.BPE())
        pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, folder: Path) -> Prompt:
        """From a checkpoint or a model folder."""
        template = folder / "chat_template.jinja"
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), template.read_text() if template.is_file() else None)

    @property
    def end(self) -> int:
        """Id of the end-of-sequence token."""
        return self.tokenizer.token_to_id(END)

    def render(self, task: str, content: Any) -> str:
        """The prompt's text. `content` is text, or a mapping for structured inputs."""
        return self._compiled.render(**variables(task, content))

    def ask(self, task: str, content: Any) -> list[int]:
        """Prompt ids."""
        return self.tokenizer.encode(self.render(task, content), add_special_tokens=False).ids

    def answer(self, text: str) -> list[int]:
        """Answer ids, end included."""
        return [*self.tokenizer.encode(text, add_special_tokens=False).ids, self.end]

    def text(self, ids: list[int]) -> str:
        """Ids as text, up to the end token."""
        return self.tokenizer.decode(ids[: ids.index(self.end)] if self.end in ids else ids, skip_special_tokens=False)


def variables(task: str, content: Any) -> dict[str, Any]:
    """What templates see: the chat template's, and a grammar's too."""
    return {"messages": [{"role": "user", "content": content}], "task": task, "bos_token": "", "eos_token": END, "add_generation_prompt": True}
