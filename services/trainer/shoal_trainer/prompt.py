"""Text to token ids: a byte-level BPE of the task's own text, and the chat template that the specialist renders too.

Both sides render the very same file with the very same variables, so what a model saw in training is what it sees in serving.
"""
from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any, Iterable

import jinja2
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
SPECIAL = [END, "<|task|>", "<|input|>", "<|output|>"]


def template_text() -> str:
    """The chat template that ships in every folder."""
    return resources.files(__package__).joinpath("templates/chat_template.jinja").read_text()


class Prompt:
    """A tokenizer and a template: what a model is asked, as ids."""

    def __init__(self, tokenizer: Tokenizer, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self._template = jinja2.Environment(autoescape=False).from_string(template or template_text())

    @classmethod
    def learn(cls, texts: Iterable[str], vocabulary: int) -> Prompt:
        """Trains the BPE. Every byte is in the alphabet, so that no text is outside it."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
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
        messages = [{"role": "user", "content": content}]
        return self._template.render(messages=messages, task=task, bos_token="", eos_token=END, add_generation_prompt=True)

    def ask(self, task: str, content: Any) -> list[int]:
        """Prompt ids."""
        return self.tokenizer.encode(self.render(task, content), add_special_tokens=False).ids

    def answer(self, text: str) -> list[int]:
        """Answer ids, end included."""
        return [*self.tokenizer.encode(text, add_special_tokens=False).ids, self.end]

    def text(self, ids: list[int]) -> str:
        """Ids as text, up to the end token."""
        return self.tokenizer.decode(ids[: ids.index(self.end)] if self.end in ids else ids, skip_special_tokens=False)
