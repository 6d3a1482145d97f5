"""`compose`: dialogue acts to the reply that an assistant gives."""
from __future__ import annotations

import random
from typing import Any

from .. import score
from .base import SGD, Row, Task
from .vary import Pools, swap


class Compose(Task):
    """Free text. Right if every value that is to be said is said; fluency is BLEU's."""

    name = "compose"
    corpus = SGD
    beside = "naming the values scores 1.0; a template look-up has BLEU near 30"
    input_type = dict
    one_answer = False  # People say the same in many ways.

    VARIED = 0.5
    SWAPPED = 0.6
    INVENTED = 0.3

    def __init__(self) -> None:
        self.pools = Pools()

    def input_fault(self, given: Any) -> str | None:
        acts = given.get("acts")
        if not isinstance(acts, list) or not acts or not all(isinstance(a, dict) and isinstance(a.get("act"), str) for a in acts):
            return '`acts` must be a list of {"act", "slot", "values"}'
        return None if isinstance(given.get("service"), str) else "`service` must be text"

    def fault(self, target: Any) -> str | None:
        return None if isinstance(target, str) and target.strip() else "must be text that is not empty"

    def learn(self, rows: list[Row]) -> None:
        for row in rows:
            for act in row["input"]["acts"]:
                self.pools.add(act.get("slot"), [v for v in act.get("values", []) if v in row["target"]])
        self.pools.close()

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

    def right(self, row: Row, output: Any) -> bool:
        return isinstance(output, str) and all(v in score.norm(output) for v in score.spoken(row["input"]["acts"]))
