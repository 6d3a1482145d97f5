"""Why an encoder would learn nothing from a row: in words, for whoever wrote it."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from . import align
from .fill.inputs import Inputs

if TYPE_CHECKING:
    from ..tasks import Row, Task


def fault(row: Row, task: Task, study: Any, tokenizer: Tokenizer, context: int) -> str | None:
    """None if `study` makes an example of it. `context`: tokens that the encoder reads."""
    if study.example(row):
        return None
    if (task.calls(row) if task.kind == "fill" else task.reading(row)) is None:
        return task.unsaid(row) or "its target cannot be read off its input: two values share words, stand in another order, or one name has several"
    asked = Inputs(task.way, task.input_template())(row["input"]) if task.kind == "fill" else align.Asked.of(row["input"], task.fields)
    tokens = len(asked.encoded(tokenizer).ids)
    return f"{tokens} tokens, and the encoder reads {context}" if tokens > context else "a value begins or ends inside of a piece that the tokenizer does not part"
