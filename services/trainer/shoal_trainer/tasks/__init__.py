"""What each task's rows and answers look like, one file a task: target to text, text back to target, the form that serving holds
answers to, and variants of a row to learn from.

`base` is the shape of a task, `forms` the pieces of grammar that several share, `vary` the swapping of values.
"""
from __future__ import annotations

from .base import Corpus, Row, Task
from .compose import Compose
from .episode import Episode
from .extract import Extract
from .plan import Plan
from .route import Route
from .summarize import Summarize
from .tool_call import ToolCall

KNOWN: dict[str, type[Task]] = {t.name: t for t in (ToolCall, Plan, Episode, Route, Extract, Compose, Summarize)}

__all__ = ["KNOWN", "Corpus", "Row", "Task", "named"]


def named(names: str) -> list[Task]:
    """The tasks of a comma-separated list; `all` is every one."""
    wanted = list(KNOWN) if names == "all" else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in KNOWN]
    if unknown:
        from ..data import DataError

        raise DataError(f"no task `{unknown[0]}`; there are: {', '.join(KNOWN)}, all")
    return [KNOWN[name]() for name in wanted]
