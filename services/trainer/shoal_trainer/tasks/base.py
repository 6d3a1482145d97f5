"""The shape of a task."""
from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, ClassVar, Iterable

from .. import score
from ..encoder.align import Span
from ..encoder.fill.asked import Call, Way

Row = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """Where a task's rows are from; every card cites it."""

    name: str
    source: str
    licence: str


SNIPS = Corpus("SNIPS custom intents", "sonos/nlu-benchmark", "CC0-1.0")
SGD = Corpus("Schema-Guided Dialogue", "google-research-datasets/dstc8-schema-guided-dialogue", "CC-BY-SA-4.0")
CLINC = Corpus("CLINC150", "clinc/oos-eval", "CC-BY-3.0")


FEWER = {"false_extraction"}  # Metrics of which less is better.


class Task:
    """How one task's rows are checked, said, read back, varied and scored."""

    name: ClassVar[str]
    corpus: ClassVar[Corpus]
    input_type: ClassVar[type] = str
    beside: ClassVar[str] = ""  # What stands published on the corpus, or what a rule gets: models/README.md shows it beside ours.
    bars: ClassVar[dict[str, float]] = {}  # What a shipped specialist has of score.py's metrics on dev at least; of `FEWER` at most.
    bars_end_to_end: ClassVar[dict[str, float]] = {}  # Of metrics that hang on another specialist too: what is shipped has them; a retraining alone cannot tell.
    kind: str = "generate"  # Or "tag", "classify" or "fill": what answers it, unless one asks otherwise.
    kinds: ClassVar[tuple[str, ...]] = ("generate",)  # All that can.
    one_answer: ClassVar[bool] = True  # Whether only one answer to an input can be right.
    varies: ClassVar[bool] = True  # Whether a variant of a row still asks for what that row does, so that it shows whether the row was learned.
    kept: dict[str, str] = {}  # A version's own form files, by name; see `recall`.

    def fault(self, target: Any) -> str | None:
        """Why `target` is none of this task's, or None."""
        raise NotImplementedError

    def input_fault(self, given: Any) -> str | None:
        """Why `given` is no input of this task, or None; its type has been checked."""
        return None

    def learn(self, rows: list[Row]) -> None:
        """Takes from the training rows what the form and the variants need."""

    def astray(self, row: Row) -> str | None:
        """What of the row's target its own input does not offer, or None; both have been checked. No training could make sense of it."""
        return None

    def recall(self, files: dict[str, str], heads: dict[str, Any] | None = None) -> None:
        """Takes over a version's form, after `learn`: a retraining must not narrow it to what its own rows happen to hold, nor widen it to what
        its weights have no place for. `heads` says what these are: `labels` of a tagger or a classifier, `values` and `slots` of a filler."""
        self.kept = files

    def unsaid(self, row: Row) -> str | None:
        """What of the row's target the task's form could never say of its input, or None; both have been checked."""
        return None

    def say(self, target: Any) -> str:
        """The target as the text that the model learns."""
        raise NotImplementedError

    def read(self, text: str) -> Any:
        """The model's text as a target; None if it is none."""
        raise NotImplementedError

    def files(self) -> dict[str, str]:
        """File name to content of what a folder needs to hold this task's answers to their form."""
        return {}

    other: ClassVar[str | None] = None  # Of a classifier: the label of what no other label is sure of.

    def classes(self) -> dict[str, list[str]]:
        """Of an encoder: the classes of a text, and the labels that a span of such a text may have (classify: none). Empty: no classes."""
        return {}

    def labels(self) -> list[str]:
        """Of a tagger: what a span may be."""
        return []

    # Of an encoder whose input is an object: the fields that it reads. `text` is the one whose runs are spans; `before`, read and never tagged;
    # `labels`, a list of what may be found this time.
    fields: ClassVar[dict[str, str]] = {}
    way: ClassVar[Way | None] = None  # Of a filler: how an input is read.

    def reading(self, row: Row) -> tuple[str | None, list[Span]] | None:
        """Of an encoder: the row's class and spans; None if its target cannot be read off its input."""
        raise NotImplementedError

    def calls(self, row: Row) -> list[Call] | None:
        """Of a filler: the calls of a row's target; None where calls cannot say it."""
        raise NotImplementedError

    def returned(self, target: Any) -> list[tuple[str, Iterable[str]]]:
        """Of a filler: what the target's calls returned, (`Service.method`, names of fields), where that was recorded."""
        return []

    def input_template(self) -> str:
        """Of a filler whose `way` names one: Jinja that makes the object that is read, as JSON, of `input`."""
        return ""

    def answer_template(self) -> str:
        """Jinja that gives what `say` says. Of a tagger: over `class`, `spans` (each with `label` and `text`) and `input`. Of a filler: over `calls`,
        each with `service`, `method` and `parameters`, and those with `name` and either `text` or `call` (the number of an earlier one) and `field`."""
        raise NotImplementedError

    def output(self) -> dict[str, str] | None:
        """The card's `[output.TASK]`: `schema` says what an answer is, `grammar` how it is decoded, `required` what it must say. None: free text."""
        return None

    def vary(self, row: Row, rng: random.Random) -> Row:
        """A variant of the row that is as right as the row, or the row itself."""
        return row

    def tells(self, row: Row) -> bool:
        """Whether a right answer to the row shows anything: an empty one does not."""
        return bool(row["target"])

    def right(self, row: Row, output: Any) -> bool:
        """Whether an answer is right: exact, unless a task says otherwise."""
        return output is not None and score.norm(self.read(self.say(row["target"]))) == score.norm(output)

    main: ClassVar[str] = "score"  # The metric that an interval is given of.

    def weight(self, judged: tuple[Row, Any, Any]) -> tuple[float, float]:
        """What one row adds to the main metric's two sums: of a share, its own value of one; of rows of another kind, nothing of nothing."""
        value = self.metrics([judged])[self.main]
        return (0.0, 0.0) if value is None else (float(value), 1.0)

    def metrics(self, judged: list[tuple[Row, Any, Any]]) -> dict[str, float]:
        """score.py's metrics over (row, target, output)."""
        return getattr(score, self.name)(judged)


DEEPEST = 64  # Levels of JSON that are read: what walks over a value afterwards goes down with it, and Python only so far.


def loads(text: str) -> Any:
    """JSON of whole characters and a bounded depth. Raises ValueError for anything else: half of a surrogate pair can be escaped, and neither
    written nor tokenized."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    if text.count("[") + text.count("{") > DEEPEST or "\\ud" in text.lower():
        _look_through(value)
    return value


def _look_through(value: Any) -> None:
    waiting = [(value, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            raise ValueError("half of a surrogate pair")
        if isinstance(value, (dict, list)):
            if depth == DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST} levels")
            waiting += [(v, depth + 1) for v in ([*value, *value.values()] if isinstance(value, dict) else value)]


def parse(text: str) -> Any:
    """JSON, or None."""
    try:
        return loads(text)
    except ValueError:
        return None


def texts(value: Any) -> list[str]:
    """The texts of a value that is a text or a list of texts."""
    return [value] if isinstance(value, str) else list(value)
