"""Which corrections may be learned from. Pure: rows in, clean rows and quarantined ones out, the same for the same rows.

Anybody who can reach the mesh can say that an answer was wrong, so a correction is a claim, not a fact. Five kinds are set aside:

- `schema`: a line is no JSON object in UTF-8, or input or target has not the task's shape.
- `unsayable`: the target holds what the task's form could never say of this input; learned from, it would teach to invent.
- `contradiction`: one input, several targets, or another than the training data or dev has. Nobody here can tell who is right, so all of them wait for
  a person, who corrects the data if that is wrong.
- `duplicate`: nearly the same input with the same target as an earlier row, however often and from whomever.
- `flood`: what one source says too much. Of one thing more than `COPIES` rows: then none of them is learned from. In all more than `MOST` rows: the newest are
  kept, or what was said first would be learned again for ever and nothing after it. In both cases what another source has said too is learned from that one.

A flood still contradicts: it may be one who shouts or many who gave no name, and a single row would have done as much.

What this does not stop: sources that say a wrong answer of a request that nobody else has answered, once or under many names. Sources are as good as whoever
checks names before the mesh; what they can do then is bounded by the gate, which a version that got worse on dev does not pass.
"""
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from . import data, near
from .tasks import Row, Task

# Of one source in one retraining. Corrections are three in ten of what is learned from (see `generate`), so a hundred rows are as many as a
# careful person writes in a morning, and too few for one hand to be most of a busy mesh's lessons.
MOST = 100
# Of one thing, nearly in the same words and with the same target, from one source. Who meets a wrong answer again corrects it again, a client that heard
# nothing sends twice, and all who give no name are one source: a score of them may meet the same answer between two retrainings, and their word counts
# once, as a `duplicate`. Beyond that a repetition is no evidence but a wish to be heard, and even one row of it would be heard well: three in ten of what is
# learned, where nothing else was corrected, and its variants are what the gate then judges by. Who is wronged by it needs one other voice.
COPIES = 20
SHOWN = 200  # Bytes of a line that is no row.


@dataclass(frozen=True)
class Sorted:
    """Rows that may be learned from, and those that may not: these with `reason` (one word, above) and `why`."""

    clean: list[Row] = field(default_factory=list)
    quarantined: list[Row] = field(default_factory=list)

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were set aside for which reason."""
        return dict(Counter(row["reason"] for row in self.quarantined))

    @property
    def sources(self) -> dict[str, int]:
        """How many rows were set aside of which source, the most first; those without one, and lines that are no rows, are of the empty name."""
        return dict(Counter(source(row) for row in self.quarantined).most_common())


def read(path: Path) -> tuple[list[Row], list[Row]]:
    """The rows of a file, each with the `line` that it stands on; and the lines that are no rows, in quarantine: one of them must not keep the
    others from being learned."""
    rows, broken = [], []
    for number, raw in enumerate(data.lines(path), 1):
        if not raw.strip():
            continue
        try:
            row = data.parse(raw)
            if not isinstance(row, dict):
                raise ValueError(f"a row must be an object, not {type(row).__name__}")
            rows.append({**row, "line": number})
        except ValueError as error:
            text = raw[:SHOWN].rstrip(b"\n").decode("utf-8", "replace")
            broken.append({"id": f"line {number}", "line": number, "text": text, "reason": "schema", "why": str(error)})
    return rows, broken


def sort(rows: list[Row], task: Task, most: int = MOST, data_rows: Iterable[Row] = ()) -> Sorted:
    """Sorts `rows` as they were corrected, oldest first; `data_rows` are those whose answers are known. An export has them as their outcomes were recorded, and an old outcome may have been
    corrected today; rows of one time, or of none, stay in their order."""
    found = Sorted()
    rows = sorted(rows, key=corrected_at)

    def aside(row: Row, reason: str, why: str) -> None:
        found.quarantined.append({**row, "reason": reason, "why": why})

    formed = []
    for row in (_read(row, task) for row in rows):
        fault = data.fault(row, task)
        unsaid = None if fault else task.unsaid(row) or _unreadable(row, task)
        if fault:
            aside(row, "schema", fault)
        elif unsaid:
            aside(row, "unsayable", unsaid)
        else:
            formed.append(row)

    targets: dict[str, set[str]] = defaultdict(set)
    for row in formed:
        targets[near.key(row["input"])].add(near.said(row))
    known: dict[str, set[str]] = defaultdict(set)
    for row in data_rows:
        known[near.key(row["input"])].add(near.said(row))
    agreed = []
    for row in formed:
        several = len(targets[near.key(row["input"])])
        if several > 1 and task.one_answer:
            aside(row, "contradiction", f"{several} different targets for this input")
        elif task.one_answer and near.said(row) not in known.get(near.key(row["input"]), {near.said(row)}):
            aside(row, "contradiction", "the data that it would be learned beside has another target for this input")
        else:
            agreed.append(row)

    copies: dict[int, Row] = {}
    shouted: dict[int, int] = {}  # Rows of what their source said too often, and how often that was.
    place = {id(row): i for i, row in enumerate(agreed)}
    for group in _alike(agreed):
        times = Counter(map(source, group))
        shouted |= {id(row): times[source(row)] for row in group if times[source(row)] > COPIES}
        heard = [row for row in group if id(row) not in shouted]
        copies |= {id(row): heard[0] for row in heard[1:]}
        if heard:  # Who says it again has said it newly.
            place[id(heard[0])] = max(place[id(row)] for row in heard if source(row) == source(heard[0]))
    given: dict[str, list[Row]] = defaultdict(list)
    for row in agreed:
        if id(row) not in copies and id(row) not in shouted:
            given[source(row)].append(row)
    taken = {id(row) for of in given.values() for row in sorted(of, key=lambda row: -place[id(row)])[:most]}
    # A flood silences nobody else: for a row that it took away stands its newest copy of a source that has fewer.
    counted = Counter(source(row) for row in agreed if id(row) in taken)
    stands: dict[int, Row] = {}
    for row in reversed(agreed):
        first = copies.get(id(row), row)
        if id(row) not in shouted and id(first) not in taken and id(first) not in stands and counted[source(row)] < most:
            stands[id(first)] = row
            counted[source(row)] += 1
    taken |= {id(row) for row in stands.values()}
    for row in agreed:
        first = copies.get(id(row), row)
        if id(row) in taken:
            found.clean.append(row)
        elif id(row) in shouted:
            aside(row, "flood", f"said {shouted[id(row)]} times, nearly in these words, by {_who(row)}; of more than {COPIES} of one source none is learned from")
        elif row is first:
            aside(row, "flood", f"{most} newer rows are of {_who(row)}")
        else:
            aside(row, "duplicate", f"nearly the same as {stands.get(id(first), first)['id']}")
    return found


def _alike(rows: list[Row]) -> Iterator[list[Row]]:
    """Rows that say the same thing: near inputs, one target."""
    by_target: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_target[near.said(row)].append(row)
    for same in by_target.values():
        for group in near.groups([near.words(row["input"]) for row in same]):
            yield [same[i] for i in group]


def _unreadable(row: Row, task: Task) -> str | None:
    """Why a tagger could not give the target, though each of its values stands in the input."""
    if task.kind == "tag" and task.reading(row) is None:
        return "no reading of the input says it: two of its values share words, or they are not in the order of the text"
    return None


def source(row: Row) -> str:
    """Who said so; all who gave no name are one source."""
    return str(row.get("source") or "")


def _who(row: Row) -> str:
    return f"source `{source(row)}`" if source(row) else "those who gave no source"


def corrected_at(row: Row) -> float:
    """When it was corrected, in seconds since 1970; a row that does not say so is older than all that do."""
    try:
        at = datetime.fromisoformat(row["corrected_at"].replace("Z", "+00:00"))
    except (KeyError, AttributeError, TypeError, ValueError):
        return float("-inf")
    return (at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()


def _read(row: Row, task: Task) -> Row:
    """The row, with a target that was given as the text of an answer (plan text, say) read as what it means."""
    target = row.get("target") if isinstance(row, dict) else None
    if isinstance(target, str) and task.fault(target):
        meant = task.read(target)
        if meant is not None and not task.fault(meant):
            return {**row, "target": meant}
    return row
