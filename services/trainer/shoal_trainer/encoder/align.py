"""Text and spans to token ids and tags, and tags back to spans. A tokenizer's special tokens, and tokens of no text, have no tag."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Sequence

if TYPE_CHECKING:  # Tasks know spans, and sorting corrections needs tasks and nothing but Python.
    from tokenizers import Encoding, Tokenizer

OUTSIDE = 0
UNTAGGED = -100  # What torch's cross entropy leaves out.


@dataclass(frozen=True)
class Span:
    """A run of the text, in characters, and what it is."""

    label: str
    start: int
    end: int


def locate(text: str, values: Iterable[tuple[str, str]]) -> list[Span] | None:
    """Where the (label, value) of a target stand in the text, as whole words, none over another; read in the order of the text where they
    occur more than once. None if one does not stand there."""
    found: list[Span] = []
    at = 0
    for label, value in values:
        free = [s for s in _places(text, value) if all(s + len(value) <= f.start or f.end <= s for f in found)]
        if not free:
            return None
        start = next((s for s in free if s >= at), free[0])
        found.append(Span(label, start, start + len(value)))
        at = start + len(value)
    return found


def _places(text: str, value: str) -> list[int]:
    if not value:
        return []
    before = r"(?<![^\W_])" if value[0].isalnum() else ""
    behind = r"(?![^\W_])" if value[-1].isalnum() else ""
    return [m.start() for m in re.finditer(f"(?={before}{re.escape(value)}{behind})", text)]


def tagged(encoding: Encoding, spans: Sequence[Span], labels: dict[str, int]) -> list[int] | None:
    """One tag a token; None if a span holds no whole token, or cuts one in two."""
    tags = [UNTAGGED if no_text(encoding, i) else OUTSIDE for i in range(len(encoding.ids))]
    for span in spans:
        inside = [i for i, (a, b) in enumerate(encoding.offsets) if tags[i] != UNTAGGED and a < span.end and b > span.start]
        if not inside or encoding.offsets[inside[0]][0] < span.start or encoding.offsets[inside[-1]][1] > span.end:
            return None
        begin = 1 + 2 * labels[span.label]
        for i in inside:
            tags[i] = begin if i == inside[0] else begin + 1
    return tags


def no_text(encoding: Encoding, i: int) -> bool:
    """Whether a token stands for no character of the text: [CLS], [SEP], and all of what was said before it."""
    start, end = encoding.offsets[i]
    last = encoding.n_sequences - 1
    return bool(encoding.special_tokens_mask[i]) or encoding.sequence_ids[i] != last or start >= end


@dataclass(frozen=True)
class Asked:
    """An input as an encoder reads it."""

    text: str
    before: str | None = None
    labels: tuple[str, ...] | None = None  # Which may be found; None: all.

    @classmethod
    def of(cls, content: Any, fields: dict[str, str]) -> Asked:
        """`fields` says which of an object's fields are which; without them the input is the text."""
        if not fields:
            return cls(content)
        labels = content[fields["labels"]] if "labels" in fields else None
        return cls(content[fields["text"]], content[fields["before"]] if "before" in fields else None, None if labels is None else tuple(labels))

    def encoded(self, tokenizer: Tokenizer) -> Encoding:
        """One sequence, or two: what came before, and the text."""
        return tokenizer.encode(self.text) if self.before is None else tokenizer.encode(self.before, self.text)


def allowed(shape_labels: Sequence[str], wanted: Iterable[str] | None) -> list[bool]:
    """Which tags may be chosen, [tags]: O, and B and I of the labels that are wanted."""
    found = None if wanted is None else set(wanted)
    return [True, *(found is None or label in found for label in shape_labels for _ in range(2))]


def spans(offsets: Sequence[tuple[int, int]], tags: Sequence[int], labels: Sequence[str]) -> list[Span]:
    """A valid path of tags as spans."""
    found: list[Span] = []
    for (start, end), tag in zip(offsets, tags):
        if tag == OUTSIDE:
            continue
        label = labels[(tag - 1) // 2]
        if tag % 2:
            found.append(Span(label, start, end))
        else:
            found[-1] = Span(label, found[-1].start, end)
    return found


def untouched(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without the cutting and padding that its file may ask for: a text that does not fit must not be hidden."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
