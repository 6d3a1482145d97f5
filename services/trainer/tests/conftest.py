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


@pytest.fixture
def rng() -> random.Random:
    """The same one each time."""
    return random.Random(1)
