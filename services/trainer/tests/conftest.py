"""Samples of the task data, as they stand in the repository."""
import gzip
import json
import random
from pathlib import Path

import pytest

from shoal_trainer import tasks

SAMPLES = Path(__file__).resolve().parents[3] / "tests" / "data"


def rows(task: str) -> list[dict]:
    """The sample of a task: at most 200 real rows."""
    plain = SAMPLES / f"{task}.sample.jsonl"
    text = plain.read_text() if plain.is_file() else gzip.open(f"{plain}.gz", "rt").read()
    return [json.loads(line) for line in text.splitlines()]


def learned(task: str) -> tasks.Task:
    """The task, having learned from its sample."""
    found = tasks.KNOWN[task]()
    found.learn(rows(task))
    return found


GENRES = "jazz blues rock soul funk disco opera techno reggae salsa samba swing".split()
CITIES = "Oslo Rome Paris Lima Cairo Delhi Tokyo Quito Dakar Minsk Sofia Turin".split()
KNOWN = {
    "PlayMusic": ["play some {}", "put on {} please", "i want to hear {}"],
    "GetWeather": ["weather in {}", "will it rain in {}", "forecast for {} today"],
}


def call(tool: str, said: str, value: str, source: str = "") -> dict:
    """A row of a `tool_call` of two tools, small enough to be learned in a test."""
    text = said.format(value)
    return {"id": text, "task": "tool_call", "input": text, "target": {"tool": tool, "arguments": {"genre" if tool == "PlayMusic" else "city": value}}, "source": source}


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def two_tools(folder: Path) -> Path:
    """Writes what a first version of that learns. Dev is of the same rows: it asks whether the next version has kept them."""
    known = [call(tool, said, value) for tool, all_said in KNOWN.items() for said in all_said for value in (GENRES if tool == "PlayMusic" else CITIES)]
    random.Random(1).shuffle(known)
    write(folder / "tool_call.train.jsonl", known)
    write(folder / "tool_call.dev.jsonl", known[:24])
    return folder


@pytest.fixture
def rng() -> random.Random:
    """The same one each time."""
    return random.Random(1)
