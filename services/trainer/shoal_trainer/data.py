"""Rows from JSON lines. Whatever is wrong with a file is found before any training starts, with its file and line."""
from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any, Iterator

from .tasks import Row, Task
from .tasks.base import loads


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


def digests(folder: Path, tasks: list[str], *splits: str) -> dict[str, str]:
    """sha256 of the tasks' files by name, for a card: the same rows packed and unpacked are two files."""
    return {path.name: sha256(path) for task in tasks for split in splits for path in (find(folder, task, split),)}


def read(path: Path, task: Task) -> list[Row]:
    """Every row of `path`, checked against the task. At least two, since one row can neither be split nor learned from."""
    rows = []
    for number, raw in enumerate(lines(path), 1):
        if not raw.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = parse(raw)
        except ValueError as error:
            raise DataError(f"{where}: {error}") from None
        check(row, task, where)
        rows.append(row)
    if len(rows) < 2:
        raise DataError(f"{path}: {len(rows)} rows; at least 2 are needed")
    return rows


def lines_of(path: Path, rows: list[Row]) -> list[int]:
    """The lines on which a few of its rows stand: `read` keeps none. Of rows that are alike each has its own."""
    found: dict[int, int] = {}
    for number, raw in enumerate(lines(path) if rows else (), 1):
        here = parse(raw) if raw.strip() else None
        # As text, for a number that is none is not even equal to itself.
        at = next((i for i, row in enumerate(rows) if here and i not in found and row["id"] == here["id"] and json.dumps(row) == json.dumps(here)), None)
        if at is not None:
            found[at] = number
        if len(found) == len(rows):
            break
    return [found[i] for i in range(len(rows))]


def judgeable(rows: list[Row], path: Path, but: str = "") -> None:
    """Raises unless rows are of services seen in training: scores and confidence are of those, and a map of one row could be held against no other."""
    seen = sum(row.get("seen", True) for row in rows)
    if seen == 1:
        raise DataError(f"{path}: of the rows that are judged one alone is {but}of a service seen in training; at least 2 are needed")
    if not seen:
        raise DataError(f"{path}: of the rows that are judged none is {but}of a service seen in training (`seen`), so nothing could be said of the model")


def spread(rows: list[Row], count: int) -> list[Row]:
    """So many of the rows, evenly spaced, and the same each time; all of them where there are no more, or `count` is 0. A file may be grouped by answer,
    and its first rows hold few of them."""
    return [rows[i * len(rows) // count] for i in range(count)] if 0 < count < len(rows) else rows


def parse(raw: bytes) -> Any:
    """What one line says. Raises ValueError, with the reason, where it is no JSON in UTF-8."""
    try:
        return loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def check(row: Any, task: Task, where: str) -> None:
    """Raises unless `row` has the task's shapes, and its target says nothing but what its input offers."""
    found = fault(row, task) or task.astray(row)
    if found:
        raise DataError(f"{where}: {found}")


def fault(row: Any, task: Task) -> str | None:
    """Why `row` is not `{"id", "task", "input", "target"}` in the task's shapes, or None."""
    if not isinstance(row, dict):
        return f"a row must be an object, not {type(row).__name__}"
    for field, kind in (("id", str), ("task", str), ("input", task.input_type)):
        if field not in row:
            return f"missing field `{field}`"
        if not isinstance(row[field], kind):
            return f"`{field}` must be {kind.__name__}, not {type(row[field]).__name__}"
    if "target" not in row:
        return "missing field `target`"
    for field in ("seen", "cross"):  # What metrics are told apart by.
        if not isinstance(row.get(field, True), bool):
            return f"`{field}` must be true or false"
    if row["task"] != task.name:
        return f"task is `{row['task']}`, this run trains `{task.name}`"
    if found := task.input_fault(row["input"]):
        return f"input breaks the task's schema: {found}"
    if found := task.fault(row["target"]):
        return f"target breaks the task's schema: {found}"
    return None


def lines(path: Path) -> Iterator[bytes]:
    """As they are told apart by line feeds alone: a text may have other separators in it."""
    where = f"{path}"
    try:
        with (gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as file:
            where = f"{path}:1"
            for number, line in enumerate(file, 2):
                yield line
                where = f"{path}:{number}"
    except (OSError, EOFError, zlib.error) as error:
        damaged = " (the file is damaged: fetch it anew)" if isinstance(error, zlib.error) else ""
        raise DataError(f"{where}: cannot be read: {error}{damaged}") from None
