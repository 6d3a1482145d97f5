"""Answers that need no model: what a careful engineer would write in an afternoon, and what a trained model must beat.

    python -m shoal_trainer rules --data DIR

`plan` is cut where requests begin (`plan.py`). `episode` and `summarize` call every method of the input, with what was said last for each parameter
(`calls.py`). `extract` and `tool_call` find known values in the text (`spans.py`). `compose` looks its reply up (`compose.py`). Of `route` others have
published what models without a network get.
"""
from __future__ import annotations

from typing import Any, Callable

from ..tasks import Row, Task
from .calls import EpisodeRules, SummarizeRules
from .compose import ComposeRules
from .plan import PlanRules
from .spans import ExtractRules, ToolCallRules

# Of each task that has some.
RULES: dict[str, Callable[[list[Row], Task], Callable[[Any], Any]]] = {
    "tool_call": lambda rows, _: ToolCallRules(rows),
    "plan": lambda rows, _: PlanRules(rows),
    "episode": EpisodeRules,
    "extract": lambda rows, _: ExtractRules(rows),
    "compose": lambda rows, _: ComposeRules(rows),
    "summarize": SummarizeRules,
}


def answered(task: Task, train: list[Row], dev: list[Row]) -> list[tuple[Row, Any, Any]]:
    """(row, target, what the rules say), of dev."""
    rules = RULES[task.name](train, task)
    return [(row, row["target"], rules(row["input"])) for row in dev]
