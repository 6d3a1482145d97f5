"""Folders that a command is given: what a wrong one lacks, and what a right one would be, before anything reads it. A dry run needs nothing but Python,
so no torch here.

    models/NAME          a specialist: specialist.toml, and a folder for each version
    models/NAME/1        a version: card.toml, and the files that it lists
    NAME.work            a checkpoint: encoder.safetensors, or config.json and model.safetensors of a decoder
"""
from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

from .data import DataError

ENCODER = "encoder.safetensors"
DECODER = "config.json", "model.safetensors"  # As transformers writes them.
WRITTEN = (ENCODER, *DECODER, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "log.jsonl")  # By a training of either kind.


def specialist(folder: Path) -> dict[str, Any]:
    """A specialist's manifest."""
    if not (folder / "specialist.toml").is_file():
        here = f": it is a version; give {folder.parent}" if (folder / "card.toml").is_file() else ""
        raise DataError(f"{_no(folder, 'specialist.toml')}{here or ': give the folder of a specialist, such as models/tool_call, with its versions below it'}")
    return _toml(folder / "specialist.toml", "name", "tasks", "active_version")


def version(folder: Path) -> dict[str, Any]:
    """A version's card; the files that it lists are there."""
    if not (folder / "card.toml").is_file():
        raise DataError(f"{_no(folder, 'card.toml')}{_instead(folder) or ': give a version of a specialist, such as models/tool_call/1'}")
    card = _toml(folder / "card.toml", "name", "version", "kind", "limits", "files")
    if missing := [name for name in card["files"] if not (folder / name).is_file()]:
        raise DataError(f"{folder}: {', '.join(missing)} is missing, which card.toml lists: copy the whole version")
    return card


def of_version(said: str) -> Path:
    """A version's folder, as the command line names it."""
    version(Path(said))
    return Path(said)


def weights(folder: Path) -> None:
    """Whether weights can be read from it: a checkpoint's, or a version's."""
    if (folder / "card.toml").is_file():
        version(folder)
    elif not checkpoint(folder):
        other = _instead(folder) or ": give a checkpoint (the .work folder of a training) or a version of a specialist, such as models/tool_call/1"
        raise DataError(f"{_no(folder, f'{ENCODER}, no {DECODER[1]} and no card.toml')}{other}")


def checkpoint(folder: Path) -> bool:
    """Whether it is one, of an encoder or of a decoder."""
    return (folder / ENCODER).is_file() or all((folder / name).is_file() for name in DECODER)


def forget(folder: Path) -> None:
    """Removes a checkpoint's files: beside a new run's lineage the old weights would pass for that run's, and beside the files of another kind of model for
    a checkpoint of theirs."""
    for name in WRITTEN:
        (folder / name).unlink(missing_ok=True)


def writable(folder: Path) -> Path:
    """The folder, made if it is not there, before hours go into what could not be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written to: {error.strerror or error}") from None
    return folder


def kind_of(source: Path, task: str) -> str | None:
    """What a version answers this task as: trained on, it stays that."""
    if not (source / "card.toml").is_file() or task not in specialist(source.parent)["tasks"]:
        return None
    return str(version(source)["kind"])


def vacant(folder: Path, version: int) -> None:
    """Whether a version can be written there: one that is there may serve."""
    if (folder / str(version) / "card.toml").is_file():
        raise DataError(f"{folder}: has a version {version} already: give --version {last(folder) + 1}, another --out, or --overwrite")


def beside(folder: Path, name: str, tasks: list[str]) -> None:
    """Whether a version of this name, for these tasks, belongs there: specialist.toml speaks for all versions of a folder."""
    if (folder / "specialist.toml").is_file():
        there = specialist(folder)
        if (there["name"], sorted(there["tasks"])) != (name, sorted(tasks)):
            raise DataError(f"{folder}: is `{there['name']}`, for {', '.join(there['tasks'])}, and not `{name}`, for {', '.join(tasks)}: give another --out, or the same --name and --task")


def place(made: Path, folder: Path, version: int) -> Path:
    """A version that is done moves from the folder in which it was made to its place, as a whole. Which one is active there stays as it is: a process may
    serve it, and follows that file."""
    folder.mkdir(parents=True, exist_ok=True)
    here, old = folder / str(version), folder / f".{version}.old"
    shutil.rmtree(old, ignore_errors=True)
    if here.is_dir():
        here.rename(old)
    try:
        (made / str(version)).rename(here)
    except OSError:
        if old.is_dir():
            old.rename(here)
        raise
    shutil.rmtree(old, ignore_errors=True)
    if not (folder / "specialist.toml").is_file():
        (made / "specialist.toml").rename(folder / "specialist.toml")
    shutil.rmtree(made)
    return here


def last(folder: Path) -> int:
    """The highest version of a specialist's folder; 0 where there is none."""
    return max((int(p.parent.name) for p in folder.glob("*/card.toml") if p.parent.name.isdigit()), default=0)


def _no(folder: Path, names: str) -> str:
    return f"{folder}: no {names} there" if folder.is_dir() else f"{folder}: no such folder"


def _instead(folder: Path) -> str:
    """What was likely meant."""
    if (folder / "specialist.toml").is_file():
        versions = sorted((p for p in folder.iterdir() if (p / "card.toml").is_file()), key=lambda p: p.name)
        return f": it is a specialist; give a version of it, such as {versions[-1]}" if versions else ": it is a specialist without versions"
    if checkpoint(folder):
        return ": it is a checkpoint; `export` it, and give the version that comes of it"
    return ""


def _toml(path: Path, *keys: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if missing := [key for key in keys if key not in found]:
        raise DataError(f"{path}: no `{missing[0]}` in it")
    return found
