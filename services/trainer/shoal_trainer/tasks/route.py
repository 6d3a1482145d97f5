"""`route`: an utterance to one of its labels, or `oos` (out of scope)."""
from __future__ import annotations

from typing import Any

from ..encoder.align import Span
from . import forms
from .base import CLINC, Row, Task


class Route(Task):
    """A label. A classifier answers it by index; a generator writes its name."""

    name = "route"
    corpus = CLINC
    bars = {"score": 0.95, "oos_recall": 0.60}
    beside = "score/oos_recall: SVM 0.910/0.145, MLP 0.935/0.474, BERT 0.969/0.403"
    kind = "classify"
    kinds = ("classify",)
    other = "oos"  # What a text is that no other label is sure of.

    def __init__(self) -> None:
        self.names: list[str] = []

    def fault(self, target: Any) -> str | None:
        return None if isinstance(target, str) and target else "must be a label"

    def learn(self, rows: list[Row]) -> None:
        self.names = sorted({row["target"] for row in rows})

    def recall(self, files: dict[str, str], heads: dict[str, Any] | None = None) -> None:
        super().recall(files, heads)
        if heads and "labels" in heads:
            self.names = list(heads["labels"])

    def unsaid(self, row: Row) -> str | None:
        return f"no label `{row['target']}` is in the form" if self.names and row["target"] not in self.names else None

    def say(self, target: Any) -> str:
        return target

    def read(self, text: str) -> Any:
        return text

    def classes(self) -> dict[str, list[str]]:
        return {label: [] for label in self.names}

    def reading(self, row: Row) -> tuple[str | None, list[Span]] | None:
        return row["target"], []

    def output(self) -> dict[str, str]:
        return {"grammar": "route.lark"}

    def files(self) -> dict[str, str]:
        return {"route.lark": "// One of the labels.\n" + forms.alternatives("start", [forms.quoted(label) for label in self.names])}
