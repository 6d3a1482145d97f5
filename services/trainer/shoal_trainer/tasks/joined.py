"""Two conversations over different services, one behind the other, as one row.

A corpus joins services by scenarios, and in each of them the same calls are made: in the Schema-Guided Dialogue's training split nobody who looks for a home
and rents a car visits the home, in dev everybody does. From those rows alone a model learns which services stand together, and not what was said.
"""
from __future__ import annotations

import random
from collections import defaultdict
from typing import Any, Callable, Iterator

Row = dict[str, Any]


class Partners:
    """Rows to stand behind others. `turns` is the field of the input that they are joined in, `longest` how many turns of it a partner may have, and
    `most` how many both may have: what is joined must fit, and a long row costs as much as several."""

    def __init__(self, turns: str, longest: int, most: int) -> None:
        self._turns, self._longest, self._most = turns, longest, most
        self._rows: dict[frozenset[str], list[Row]] = defaultdict(list)

    def learn(self, rows: list[Row]) -> None:
        """Takes the rows in that may be partners."""
        for row in rows:
            if len(row["input"][self._turns]) <= self._longest:
                self._rows[domains(row)].append(row)

    def other(self, row: Row, rng: random.Random) -> Row | None:
        """One that shares no service with the row, of each combination of services as often; None where none fits."""
        own, room = domains(row), self._most - len(row["input"][self._turns])
        found = [of for services, of in self._rows.items() if not services & own]
        partner = rng.choice(rng.choice(found)) if found else None
        return partner if partner and len(partner["input"][self._turns]) <= room else None

    def offered(self, row: Row, rng: random.Random) -> dict[str, Any]:
        """The methods of a service that nobody in the row speaks of."""
        other = self.other(row, rng)
        return other["input"]["methods"] if other else {}


def domains(row: Row) -> frozenset[str]:
    """What the services are of: `Homes_1` and `Homes_2` are two of one kind, and what is said to one could be meant for the other."""
    return frozenset(service.split("_")[0] for service in row["input"]["methods"])


def join(first: Row, second: Row, turns: str, moved: Callable[[Any, int], Any]) -> Row:
    """The second behind the first. `moved` gives a value of the second's calls, which have so many calls more before them."""
    before = len(first["target"])
    given = {"methods": {**first["input"]["methods"], **second["input"]["methods"]}, turns: [*first["input"][turns], *second["input"][turns]]}
    return {**first, "input": {**first["input"], **given}, "target": [*first["target"], *_moved(second["target"], before, moved)]}


def _moved(calls: list[dict[str, Any]], before: int, moved: Callable[[Any, int], Any]) -> Iterator[dict[str, Any]]:
    for call in calls:
        place = {"id": call["id"] + before} if "id" in call else {}
        yield {**call, **place, "parameters": {name: moved(value, before) for name, value in call["parameters"].items()}}
