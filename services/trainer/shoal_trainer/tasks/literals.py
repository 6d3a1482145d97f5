"""Which texts the parameters of calls can be: what was said, as whole words, and what is known for a slot (`2019-03-02` for "tomorrow"). Pure; as
a filler reads them (`encoder/fill/decode.py`), and a reading of anything else would be an invention."""
from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Callable, Iterable

from .. import score

Calls = list[dict[str, Any]]


class Literals:
    """Known values by slot, `Service.parameter`."""

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = defaultdict(set)
        self._same_name: dict[str, set[str]] = defaultdict(set)

    def learn(self, targets: Iterable[Calls]) -> None:
        """Takes all values of training rows for known."""
        for call, name, value in ((call, name, value) for calls in targets for call in calls for name, value in call["parameters"].items()):
            self._add(f"{call['service']}.{name}", value)

    def recall(self, heads: dict[str, Any]) -> None:
        """Takes over what a version's weights know, where they do: its `slots.json`, instead of what was learned here."""
        if "slots" in heads:
            self._known.clear()
            self._same_name.clear()
            for slot, ids in heads["slots"].items():
                for i in ids:
                    self._add(slot, heads["values"][i])

    def _add(self, slot: str, value: str) -> None:
        self._known[slot].add(score.norm(value))
        self._same_name[slot.split(".", 1)[1]].add(score.norm(value))

    def unsaid(self, calls: Calls, text: str, literal: Callable[[str], bool] = lambda value: True) -> str | None:
        """The first value of the calls that stands nowhere in `text` and is not known, or None. A slot that was never seen has the values of its name
        in other services. Where no value at all is known, nothing was learned that could tell."""
        for call, name, value in ((call, name, value) for call in calls for name, value in call["parameters"].items()):
            slot = f"{call['service']}.{name}"
            known = self._known[slot] if slot in self._known else self._same_name.get(name, ())
            if self._known and literal(value) and score.norm(value) not in known and not stands(text, value):
                return f"`{value}` stands nowhere in the input, and is no known value of `{slot}`"
        return None


def stands(text: str, value: str) -> bool:
    """Whether `value` is a run of whole words of the text, in any case: the runs that a filler learns from are these."""
    if not value.strip():
        return False
    before, behind = (r"(?<![^\W_])" if value[0].isalnum() else "", r"(?![^\W_])" if value[-1].isalnum() else "")
    return re.search(f"{before}{re.escape(value)}{behind}", text, re.IGNORECASE) is not None
