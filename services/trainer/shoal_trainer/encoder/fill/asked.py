"""An input as a filler reads it. Pure, and without a library: tasks say how theirs are read. The specialist reads by the same rules."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

USER, SYSTEM = ">", "<"  # Before each turn: whose it is.
_SEAM = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])")


def words(name: str) -> str:
    """An identifier as words: `FindEvents` and `find_events` are both two."""
    return _SEAM.sub(" ", name).strip()


CALLED = 0.5  # Probability from which on a method is called, unless a card says otherwise.


@dataclass(frozen=True)
class Way:
    """How a task is read, as `[fill.TASK]` of a card has it: which field of an input has the methods, `{service: {method: [parameter, ...]}}`, and
    which the turns, texts of a user or `{"speaker", "text"}`; whether a value may be what an earlier call returned; the probability from which on a
    method is called; the file of the Jinja that makes such an object of an input that is none (empty: it is one); whether exactly one method is
    called; and whether a value is nothing but a run of the last turn."""

    methods: str
    turns: str
    references: bool
    called: float = CALLED
    input: str = ""
    single: bool = False
    literal: bool = False


@dataclass(frozen=True)
class Reference:
    """What an earlier call returned."""

    call: tuple[str, str]
    field: str


@dataclass(frozen=True)
class Call:
    """A method, and what its parameters are: texts and references."""

    name: tuple[str, str]
    parameters: dict[str, str | Reference]


@dataclass(frozen=True)
class Asked:
    """What is read, and where in it the names stand."""

    methods: tuple[tuple[str, str], ...]  # (service, method), by name.
    parameters: tuple[tuple[int, str], ...]  # (which of `methods`, name).
    names: str
    method_starts: tuple[int, ...]  # Characters of `names`.
    parameter_starts: tuple[int, ...]
    text: str
    runs_from: int  # The character of `text` from which on a value may be a run of it.

    @classmethod
    def of(cls, content: dict[str, Any], way: Way) -> Asked:
        """An input, the task's way."""
        methods: list[tuple[str, str]] = []
        parameters: list[tuple[int, str]] = []
        method_starts: list[int] = []
        parameter_starts: list[int] = []
        names = ""
        # By name: an object has no order, and what carries it keeps none.
        for service, of in sorted(content[way.methods].items()):
            names += f"{words(service)} : "
            for method, wanted in sorted(of.items()):
                method_starts.append(len(names))
                names += f"{words(method)} ( "
                for name in wanted:
                    parameter_starts.append(len(names))
                    parameters.append((len(methods), name))
                    names += f"{words(name)} , "
                names += ") "
                methods.append((service, method))
        turns = [f"{who} {said}" for who, said in map(_turn, content[way.turns])]
        text = " ".join(turns)
        runs_from = len(text) - len(turns[-1]) if way.literal else 0
        return cls(tuple(methods), tuple(parameters), names, tuple(method_starts), tuple(parameter_starts), text, runs_from)

    def slot(self, parameter: int) -> str:
        """`Service.name` of one of `parameters`."""
        method, name = self.parameters[parameter]
        return f"{self.methods[method][0]}.{name}"

    def encoded(self, tokenizer: Tokenizer) -> Encoding:
        """Names, then the conversation."""
        return tokenizer.encode(self.names, self.text)


def _turn(turn: Any) -> tuple[str, str]:
    if isinstance(turn, str):
        return USER, turn
    return (USER if turn["speaker"] == "user" else SYSTEM), turn["text"]


@dataclass(frozen=True)
class Places:
    """Which tokens stand for what."""

    methods: tuple[int, ...]
    parameters: tuple[int, ...]
    text: tuple[int, ...]  # Those of the conversation that a value may be of.


def places(asked: Asked, encoding: Encoding) -> Places:
    """The token that a name begins with stands for it; of a name without a token it is the next one."""
    heads = [(end, i) for i, ((start, end), which) in enumerate(zip(encoding.offsets, encoding.sequence_ids)) if which == 0 and start < end]
    text = [i for i, ((start, end), which) in enumerate(zip(encoding.offsets, encoding.sequence_ids)) if which == 1 and max(start, asked.runs_from) < end]

    def at(start: int) -> int:
        return next((i for end, i in heads if end > start), 0)

    return Places(tuple(map(at, asked.method_starts)), tuple(map(at, asked.parameter_starts)), tuple(text))
