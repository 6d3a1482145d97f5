"""`compose`: dialogue acts to the reply that an assistant gives."""
from __future__ import annotations

import random
import re
from collections import Counter
from importlib import resources
from typing import Any

from .. import score
from . import forms
from .base import SGD, Row, Task
from .vary import Pools, swap

# Replies in which a capitalised word must stand to be one that begins sentences, and no name: 222 of the corpus' 1,197 words do, and 3 % of
# its replies say one of the others, or a number that is no value.
LEAST_SEEN = 10
# Those that begin the sentences of `compose.required.jinja`, seen or not.
OPENERS = ("I", "It", "Perhaps", "The", "There")


class Compose(Task):
    """Free text. Right if every value that is to be said is said; fluency is BLEU's."""

    name = "compose"
    corpus = SGD
    bars = {"score": 0.99, "bleu": 32.0}
    beside = "a template look-up (`rules`): score 0.993, bleu 27.974, unseen_score 0.995, unseen_bleu 15.830; naming the values scores 1.0"
    input_type = dict
    one_answer = False  # People say the same in many ways.

    VARIED = 0.5
    SWAPPED = 0.6
    INVENTED = 0.3

    def __init__(self) -> None:
        self.pools = Pools()
        self.capitals: list[str] = []

    def input_fault(self, given: Any) -> str | None:
        acts = given.get("acts")
        if not isinstance(acts, list) or not acts or not all(isinstance(a, dict) and isinstance(a.get("act"), str) for a in acts):
            return '`acts` must be a list of {"act", "slot", "values"}'
        for i, act in enumerate(acts):
            values = act.get("values", [])
            if not isinstance(act.get("slot"), (str, type(None))) or not isinstance(values, list) or not all(isinstance(v, str) for v in values):
                return f"act {i}: `slot` must be text, and `values` a list of texts where it has any"
        return None if isinstance(given.get("service"), str) else "`service` must be text"

    def fault(self, target: Any) -> str | None:
        return None if isinstance(target, str) and target.strip() else "must be text that is not empty"

    def learn(self, rows: list[Row]) -> None:
        seen = Counter(word for row in rows for word in _capitals(row))
        self.capitals = sorted(word for word, replies in seen.items() if replies >= LEAST_SEEN)
        for row in rows:
            for act in row["input"]["acts"]:
                self.pools.add(act.get("slot"), [v for v in act.get("values", []) if v in row["target"]])
        self.pools.close()

    def unsaid(self, row: Row) -> str | None:
        silent = [v for v in score.spoken(row["input"]["acts"]) if v not in score.norm(row["target"])]
        return f"the reply does not say {silent[0]!r}" if silent else None

    def output(self) -> dict[str, str]:
        return {"grammar": "compose.lark.jinja", "required": "compose.required.jinja"}

    def files(self) -> dict[str, str]:
        templates = resources.files("shoal_trainer").joinpath("templates")
        capitals = forms.either([forms.quoted(word) for word in sorted({*self.capitals, *OPENERS})])
        grammar = templates.joinpath("compose.lark.jinja").read_text().replace("@CAPITALS@", capitals)
        return {"compose.lark.jinja": grammar, "compose.required.jinja": templates.joinpath("compose.required.jinja").read_text()}

    def say(self, target: Any) -> str:
        return " ".join(target.split())

    def read(self, text: str) -> Any:
        return text

    def vary(self, row: Row, rng: random.Random) -> Row:
        if rng.random() >= self.VARIED:
            return row
        acts = row["input"]["acts"]
        values = [(act.get("slot"), v) for act in acts for v in act.get("values", [])]
        swapped = swap(row["target"], values, self.pools, rng, self.SWAPPED, self.INVENTED)
        if not swapped:
            return row
        text, new = swapped
        acts = [{**act, "values": [new(v) for v in act["values"]]} if "values" in act else act for act in acts]
        return {**row, "input": {**row["input"], "acts": acts}, "target": text}

    def tells(self, row: Row) -> bool:
        return bool(score.spoken(row["input"]["acts"]))

    def right(self, row: Row, output: Any) -> bool:
        return isinstance(output, str) and all(v in score.norm(output) for v in score.spoken(row["input"]["acts"]))


def _capitals(row: Row) -> set[str]:
    """The capitalised words of a reply outside of its values."""
    text = row["target"]
    for value in sorted((v for act in row["input"]["acts"] for v in act.get("values", [])), key=len, reverse=True):
        text = re.sub(re.escape(value), " ", text, flags=re.IGNORECASE)
    return set(re.findall(r"[A-Z][\w'’]*", text))
