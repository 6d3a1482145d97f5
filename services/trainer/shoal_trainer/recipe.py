"""Every shipped model in one go: the steps of recipe.toml, each a command of this package, in the order that they need each other.

A step that is done is not done again, unless its own text, its data or what it starts from has changed; one that was cut off goes on from its last look at
dev, if it had one. So a run that was stopped goes on with the same command. What is measured of several models comes last, where these are all there. What came
out can be put into parts, for a machine that sends little at a time.
"""
from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import state
from .data import DataError, sha256

SHIPPED = Path(__file__).with_name("recipe.toml")
PART_BYTES = 16_000_000  # Of a part, and how many go together: what the lent GPU machines of the team give back at a time.
TOGETHER = 8
KEYS = {"train", "average", "weights", "narrow", "export", "close"}


@dataclass(frozen=True)
class Step:
    """One table of a recipe."""

    name: str
    train: str | None
    average: tuple[str, ...]
    weights: tuple[float, ...]  # Of `average`; none: as much of all.
    narrow: bool
    export: str | None
    close: str | None  # A command over folders that are done: `@NAME/1` is one, and `@` where they all are.
    needs: tuple[str, ...]  # The steps whose checkpoints it starts from, or whose folders it reads.

    @property
    def tasks(self) -> list[str]:
        """Whose rows it reads."""
        words = shlex.split(f"{self.train or ''} {self.export or ''}")
        return sorted({name for flag, value in zip(words, words[1:]) if flag == "--task" for name in value.split(",")})

    def commands(self, data: Path, out: Path) -> list[list[str]]:
        """Arguments of this package's commands, one after the other."""
        if self.close is not None:
            words = [str(out / word[1:].lstrip("/")) if word.startswith("@") else word for word in shlex.split(self.close)]
            return [words if words[0] == "table" else [*words, "--data", str(data)]]
        work, narrow = out / f"{self.name}.work", out / f"{self.name}.narrow"
        if self.train is not None:
            words = [str(out / f"{word[1:]}.work") if word.startswith("@") else word for word in shlex.split(self.train)]
            resumed = ["--resume"] if (work / state.FILE).is_file() else []
            made = ["train", *words, *resumed, "--data", str(data), "--out", str(out / self.name), "--no-export"]
        else:
            weights = ["--weights", ",".join(f"{weight:g}" for weight in self.weights)] if self.weights else []
            made = ["average", *(str(out / f"{name}.work") for name in self.average), *weights, "--out", str(work)]
        then = [["narrow", str(work), "--out", str(narrow)]] if self.narrow else []
        if self.export is not None:
            then.append(["export", *shlex.split(self.export), "--from", str(narrow if self.narrow else work), "--data", str(data), "--out", str(out / self.name), "--overwrite"])
        return [made, *then]


def read(path: Path) -> list[Step]:
    """The steps of a recipe, each behind those that it needs."""
    try:
        tables: dict[str, dict[str, Any]] = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from None
    steps = {}
    for name, table in tables.items():
        if stray := set(table) - KEYS:
            raise DataError(f"{path}: [{name}] has `{sorted(stray)[0]}`: a step has {', '.join(sorted(KEYS))}")
        if sum(key in table for key in ("train", "average", "close")) != 1:
            raise DataError(f"{path}: [{name}] needs `train`, `average` or `close`, one of them")
        if "close" in table and len(table) > 1:
            raise DataError(f"{path}: [{name}] has `{sorted(set(table) - {'close'})[0]}` beside `close`, which is a whole command")
        weights, of = table.get("weights"), table.get("average", ())
        if weights is not None and (not isinstance(weights, list) or len(weights) != len(of) or not all(isinstance(w, (int, float)) and w > 0 for w in weights)):
            raise DataError(f"{path}: [{name}] has the weights {weights!r} for {len(of)} steps: give each a number above 0, or none")
        steps[name] = Step(name, table.get("train"), tuple(of), tuple(weights or ()), table.get("narrow", False), table.get("export"), table.get("close"), _needs(table, [other for other in tables if other != name]))
    ordered: list[Step] = []
    waiting = list(steps.values())
    while waiting:
        made = all(s.close is not None for s in waiting)
        ready = [s for s in waiting if (made or s.close is None) and all(any(done.name == name for done in ordered) for name in s.needs)]
        if not ready:
            raise DataError(f"{path}: [{waiting[0].name}] starts from `{waiting[0].needs[0]}`, which is no step, or needs it in turn")
        ordered += ready
        waiting = [s for s in waiting if s not in ready]
    return ordered


def _needs(table: dict[str, Any], others: list[str]) -> tuple[str, ...]:
    words = [word[1:].partition("/")[0] for word in shlex.split(table.get("train") or table.get("close") or "") if word.startswith("@")]
    # Where all folders are read, all are to be there, with what is written into them.
    return tuple(others) if "" in words else (*words, *table.get("average", ()))


def wanted(steps: list[Step], names: list[str], done: frozenset[str] = frozenset()) -> list[Step]:
    """The named steps, and what they need; all if none is named. Of those that close only such as read nothing but these and what is done."""
    if stray := [name for name in names if all(s.name != name for s in steps)]:
        raise DataError(f"`{stray[0]}` is no step of the recipe; there are {', '.join(s.name for s in steps)}")
    kept = _with_needs(steps, set(names or (s.name for s in steps)))
    there, closing = kept | done, set()
    for step in steps:
        if step.close is not None and (there | closing).issuperset(step.needs):
            closing.add(step.name)
    kept = _with_needs(steps, kept | closing)
    return [s for s in steps if s.name in kept]


def _with_needs(steps: list[Step], names: set[str]) -> set[str]:
    kept = set(names)
    for step in reversed(steps):
        if step.name in kept:
            kept.update(step.needs)
    return kept


def finished(steps: list[Step], data: Path, out: Path) -> frozenset[str]:
    """The steps that are done. What one that closes wrote into a card is gone when that is made anew."""
    stamp, done = stamps(steps, data), set()
    for step in steps:
        mark = _mark(out, step.name)
        if mark.is_file() and mark.read_text() == stamp[step.name] and (step.close is None or done.issuperset(step.needs)):
            done.add(step.name)
    return frozenset(done)


def stamps(steps: list[Step], data: Path) -> dict[str, str]:
    """What each step's result hangs on: its own text, the data of its tasks, and the stamps of what it starts from."""
    digests = {path.name: sha256(path) for path in sorted(data.glob("*.jsonl*"))}
    made: dict[str, str] = {}
    for step in steps:
        read = {name: digest for name, digest in digests.items() if name.split(".")[0] in step.tasks}
        closing = [] if step.close is None else [step.close]
        text = json.dumps([step.train, step.average, step.weights, step.narrow, step.export, read, [made[name] for name in step.needs], *closing])
        made[step.name] = hashlib.sha256(text.encode()).hexdigest()
    return made


def run(steps: list[Step], data: Path, out: Path, jobs: int) -> dict[str, float]:
    """Does what is not done, `jobs` steps at a time; seconds of each that was. The first that fails ends it, when those beside it have ended."""
    if jobs < 1:
        raise DataError(f"--jobs is {jobs}: one step at a time is the least")
    out.mkdir(parents=True, exist_ok=True)
    stamp = stamps(steps, data)
    done = set(finished(steps, data, out))
    left = [s for s in steps if s.name not in done]
    seconds: dict[str, float] = {}
    running: dict[Future[float], Step] = {}
    failed: DataError | None = None
    with ThreadPoolExecutor(jobs) as pool:
        while running or (left and not failed):
            for step in [s for s in left if not failed and done.issuperset(s.needs)][: jobs - len(running)]:
                # Two that write into cards, or read them, would meet there.
                if step.close is not None and any(other.close is not None for other in running.values()):
                    continue
                left.remove(step)
                print(f"{step.name}: begins; what it says is in {out / step.name}.log", file=sys.stderr, flush=True)
                running[pool.submit(_do, step, data, out, stamp[step.name])] = step
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                try:
                    seconds[step.name] = future.result()
                    done.add(step.name)
                    print(f"{step.name}: done, {seconds[step.name]:.0f} s", file=sys.stderr, flush=True)
                except DataError as error:
                    failed = failed or error
    if failed:
        raise failed
    return seconds


def _mark(out: Path, name: str) -> Path:
    return out / f"{name}.done"


def _do(step: Step, data: Path, out: Path, stamp: str) -> float:
    began, log = time.monotonic(), out / f"{step.name}.log"
    begun = out / f"{step.name}.begun"
    if not begun.is_file() or begun.read_text() != stamp:
        # A checkpoint of another text is none to go on from.
        shutil.rmtree(out / f"{step.name}.work", ignore_errors=True)
        begun.write_text(stamp)
    with log.open("a") as said:
        for command in step.commands(data, out):
            print("$", shlex.join(["python", "-m", "shoal_trainer", *command]), file=said, flush=True)
            code = subprocess.run([sys.executable, "-m", "shoal_trainer", *command], stdout=said, stderr=subprocess.STDOUT, env=os.environ, check=False).returncode
            if code:
                raise DataError(f"{step.name}: `{command[0]}` ended with exit code {code}; {log} says why. The same command goes on from here")
    _mark(out, step.name).write_text(stamp)
    return time.monotonic() - began


def parts(out: Path, into: Path) -> int:
    """Puts what came out, checkpoints without optimizers, into one archive in parts, so many a folder; returns how many. `cat INTO/*/part.* | tar x`
    puts it together again."""
    if into.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{into} lies in {out}, and would be put into itself: name another folder for the parts")
    # Those of an earlier time may be more.
    for old in into.glob("*/part.*"):
        old.unlink()
    # `w|`: a stream, written block by block, so that no part and no archive is ever whole in memory.
    written = _Parts(into)
    with io.BufferedWriter(written) as archive, tarfile.open(fileobj=archive, mode="w|") as tar:
        for path in sorted(out.iterdir()):
            tar.add(path, arcname=path.name, filter=lambda entry: None if entry.name.endswith((state.FILE, ".partial", ".log")) else entry)
    return written.count


class _Parts(io.RawIOBase):
    """What is written goes into files of at most PART_BYTES, TOGETHER to a folder."""

    def __init__(self, into: Path) -> None:
        self.count, self._into, self._part = 0, into, None

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        if self._part is None or self._part.tell() == PART_BYTES:
            self._next()
        return self._part.write(memoryview(content)[: PART_BYTES - self._part.tell()])

    def _next(self) -> None:
        if self._part is not None:
            self._part.close()
        folder = self._into / f"{self.count // TOGETHER:03}"
        folder.mkdir(parents=True, exist_ok=True)
        self._part = (folder / f"part.{self.count:03}").open("wb")
        self.count += 1

    def close(self) -> None:
        if self._part is not None:
            self._part.close()
        super().close()
