"""Inputs of any form to what a filler reads: a task whose inputs are no methods and turns has a template that makes them."""
from __future__ import annotations

import json
from typing import Any

from ...prompt import environment
from .asked import Asked, Way


class Inputs:
    """A task's inputs to what is read of them: `template` is the text of its way's `input`."""

    def __init__(self, way: Way, template: str = "") -> None:
        self._way, self._template = way, environment().from_string(template) if way.input else None

    def __call__(self, content: Any) -> Asked:
        return Asked.of(self.object(content), self._way)

    def object(self, content: Any) -> dict[str, Any]:
        """The object that is read."""
        return json.loads(self._template.render(input=content)) if self._template else content
