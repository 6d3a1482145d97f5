"""Replies by looking up: the one that training rows gave most often to the same acts, with its values in place of theirs; to acts that no row had
together, what was said most often to each of them alone."""
from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

from ..tasks import Row

# An act as a template is found by it: what it is, of which slot, and how many values it says.
Act = tuple[str, str, int]


class ComposeRules:
    """Acts to replies, by looking up templates."""

    def __init__(self, rows: list[Row]) -> None:
        heard: dict[tuple[str, tuple[Act, ...]], Counter[str]] = defaultdict(Counter)
        for row in rows:
            acts, template = _acts(row["input"]), _template(row)
            if template is not None:
                # Of this kind of service, and of any.
                for service in (_kind(row["input"]), ""):
                    heard[service, tuple(act for act, _ in acts)][template] += 1
        self._said = {key: of.most_common(1)[0][0] for key, of in heard.items()}

    def __call__(self, content: dict[str, Any]) -> str:
        acts = _acts(content)
        whole = self._filled(_kind(content), acts)
        if whole is not None:
            return whole
        parts = [self._filled(_kind(content), [act]) or " ".join(act[1]) for act in acts]
        return " ".join(part for part in parts if part)

    def _filled(self, service: str, acts: list[tuple[Act, list[str]]]) -> str | None:
        key = tuple(act for act, _ in acts)
        template = self._said.get((service, key), self._said.get(("", key)))
        values = [value for _, of in acts for value in of]
        return None if template is None else re.sub(r"\{(\d+)\}", lambda place: values[int(place[1])], template)


def _kind(content: dict[str, Any]) -> str:
    """Of "Hotels_2" that it is of hotels."""
    return content["service"].split("_")[0]


def _acts(content: dict[str, Any]) -> list[tuple[Act, list[str]]]:
    """In an order of their own, so that the same acts are found in whichever they come."""
    values = lambda act: [v for v in act.get("values", []) if v]  # noqa: E731
    acts = [((act["act"], act.get("slot") or "", len(values(act))), values(act)) for act in content["acts"]]
    return sorted(acts)


def _template(row: Row) -> str | None:
    """The row's reply with places for its values, by number; nothing if it does not say one of them."""
    values = [value for _, of in _acts(row["input"]) for value in of]
    reply = row["target"].replace("{", "(").replace("}", ")")
    # The longest first: "5" may lie in "5 pm".
    for number in sorted(range(len(values)), key=lambda i: -len(values[i])):
        reply, found = re.subn(rf"(?<![\w{{]){re.escape(values[number])}(?![\w}}])", f"{{{number}}}", reply, flags=re.IGNORECASE)
        if not found and values[number] not in values[:number]:
            return None
    return reply
