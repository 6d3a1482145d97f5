"""Rows from JSON lines. Whatever is wrong with a file is found before any training starts, with its file and line."""
from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any, Iterator

from .tasks import Row, Task


class DataError(Exception):
    """A dataset that cannot be trained on; the message names file and line."""


def find(folder: Path, task: str, split: str) -> Path:
    """The file of one split: `TASK.SPLIT.jsonl.gz`, or without `.gz`."""
    for name in (f"{task}.{split}.jsonl.gz", f"{task}.{split}.jsonl"):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder}: no {task}.{split}.jsonl.gz and no {task}.{split}.jsonl; --data must hold both train and dev")


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()


def read(path: Path, task: Task) -> list[Row]:
    """Every row of `path`, checked against the task. At least two, since one row can neither be split nor learned from."""
    rows = []
    for number, raw in enumerate(_lines(path), 1):
        where = f"{path}:{number}"
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not UTF-8 (byte {error.start})") from None
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{where}: not JSON: {error}") from None
        check(row, task, where)
        rows.append(row)
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} rows; at least 2 are needed")
    return rows


def check(row: Any, task: Task, where: str) -> None:
    """Raises unless `row` is `{"id", "task", "input", "target"}` in the task's shapes."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row must be an object, not {type(row).__name__}")
    for field, kind in (("id", str), ("task", str), ("input", task.input_type)):
        if field not in row:
            raise DataError(f"{where}: missing field `{field}`")
        if not isinstance(row[field], kind):
            raise DataError(f"{where}: `{field}` must be {kind.__name__}, not {type(row[field]).__name__}")
    if "target" not in row:
        raise DataError(f"{where}: missing field `target`")
    if row["task"] != task.name:
        raise DataError(f"{where}: task is `{row['task']}`, this run trains `{task.name}`")
    fault = task.input_fault(row["input"])
    if fault:
        raise DataError(f"{where}: input breaks the task's schema: {fault}")
    fault = task.fault(row["target"])
    if fault:
        raise DataError(f"{where}: target breaks the task's schema: {fault}")


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with (gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as file:
            yield from file
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
