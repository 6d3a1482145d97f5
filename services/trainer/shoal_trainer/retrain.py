"""Corrections in, a candidate for the next version out, and whether it may take the incumbent's place.

    python -m shoal_trainer retrain --task tool_call --corrections FILE --specialist models/tool_call --data DIR --work DIR

One way, each step a file: `quarantine` (which corrections may be learned from), `split` (which of them judge the result), `generate` (train
from the active version's own weights, export), `turn` (both versions judged), `gate` (better on what was held out, dev kept, no bar broken). The
candidate is written below `--work` and nowhere else: `shoal retrain`, which calls this, moves an accepted one into the specialist's folder and
activates it.

`quarantine.jsonl` in `--work` has the rows that were set aside. The last line of standard output is the report, one JSON object. Exit codes:
0 accepted (or a dry run is done), 3 refused by the gate, 65 a fault of the data.

A dry run reads rows and sorts them, and needs nothing but Python: run as `python -m shoal_trainer.retrain`, this file loads torch only to
train. Kinds of models that can be retrained are in `KINDS`; each is a module with `train_from` and `judge`.
"""
from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from . import data, flags, folders, gate, quarantine, tasks
from .lesson import Lesson, Unservable
from .split import apart, split
from .turn import turn

KINDS = {"generate": "shoal_trainer.generate", "tag": "shoal_trainer.encode", "classify": "shoal_trainer.encode", "fill": "shoal_trainer.encode"}
REFUSED = 3
SHOWN = 10  # Of the rows in quarantine, and of their sources, on standard error.


def retrain(args: argparse.Namespace) -> int:
    """A candidate from corrections; exit code 3 if it is refused"""
    if args.exit_with_parent:
        threading.Thread(target=_end_with_parent, name="parent watcher", daemon=True).start()
    began = time.monotonic()
    manifest = folders.specialist(args.specialist)
    version = args.specialist / str(manifest["active_version"])
    card = folders.version(version)
    if args.task not in manifest["tasks"]:
        raise data.DataError(f"{args.specialist}: serves {', '.join(manifest['tasks'])}, not {args.task}")
    served = tasks.named(",".join(manifest["tasks"]))
    task = next(t for t in served if t.name == args.task)
    files = {t.name: data.find(args.data, t.name, "train") for t in served} if args.data else {}
    rehearsal = {t.name: data.read(files[t.name], t) for t in served if files}
    for each in served:
        each.kind = card["kind"]
        if files:
            each.learn(rehearsal[each.name])
        each.recall(_form(version, card, each.name), _heads(version, card))

    rows, broken = quarantine.read(args.corrections)
    dev = {t.name: data.read(data.find(args.data, t.name, "dev"), t) for t in served} if files else {}
    found = quarantine.sort(rows, task, args.most_per_source, [row for part in (rehearsal, dev) for row in part.get(task.name, ())])
    found.quarantined.extend(broken)
    (folders.writable(args.work) / "quarantine.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found.quarantined), encoding="utf-8")
    _say(f"{len(found.clean)} corrections to learn from, {len(found.quarantined)} in quarantine {found.reasons or ''}".rstrip())
    if found.quarantined:
        _say(f"they are of the sources {dict(list(found.sources.items())[:SHOWN])}{f' and {len(found.sources) - SHOWN} more' if len(found.sources) > SHOWN else ''}")
    for row in sorted(found.quarantined, key=lambda row: row["line"])[:SHOWN]:
        _say(f"{args.corrections}:{row['line']}: {row['reason']}: {row['why']}")
    if len(found.quarantined) > SHOWN:
        _say(f"and {len(found.quarantined) - SHOWN} more, in {args.work / 'quarantine.jsonl'}")
    report: dict[str, Any] = {
        "task": args.task,
        "model": manifest["name"],
        "from_version": manifest["active_version"],
        "to_version": max(int(p.name) for p in args.specialist.iterdir() if p.name.isdigit()) + 1,
        "corrections": len(found.clean),
        "quarantined": len(found.quarantined),
        "reasons": found.reasons,
        "sources": found.sources,
    }
    if args.dry_run:
        print(json.dumps(report))
        return 0
    if card["kind"] not in KINDS:
        raise data.DataError(f"{version}: models of kind `{card['kind']}` cannot be retrained; of kind {', '.join(KINDS)} they can")
    if not files:
        raise data.DataError("--data DIR is needed, with TASK.train.jsonl[.gz] to rehearse and TASK.dev.jsonl[.gz] to judge by")
    if not args.minutes and not args.steps:
        raise data.DataError("--minutes and --steps are both 0: give the training a length")
    if not found.clean:
        if not found.quarantined:
            raise data.DataError(f"{args.corrections}: no row in it, so there is nothing to learn from")
        raise data.DataError(f"no correction is left to learn from; {args.work / 'quarantine.jsonl'} says why")
    learner = importlib.import_module(KINDS[card["kind"]])
    # Of a task with many right answers nothing is known by being right: what people correct there is how it is said.
    right = [judged.right for judged in learner.judge(version, task, found.clean)] if task.one_answer else []
    if right:
        _say(f"{sum(right)} of {len(right)} are answered rightly already")
    sides = split(found.clean, task, right)
    held = "variants of the learned rows (they are all nearly the same)" if sides.varied else "rows unlike those learned from"
    _say(f"learning from {len(sides.train)}; held out: {len(sides.held_out)}, {held}")
    # A correction may be of a request that the data has too; one that the data denies in other words stays, and shows what the correction does to it.
    dev[task.name] = apart(dev[task.name], sides.train, agreeing=task.one_answer)
    rehearsal[task.name] = apart(rehearsal[task.name], sides.held_out)
    if not rehearsal[task.name]:
        raise data.DataError(f"{files[task.name]}: every row is nearly a held-out correction, and nothing is left to rehearse")
    dev = {name: data.spread(part, args.dev_rows) for name, part in dev.items()}
    for name, part in dev.items():
        data.judgeable(part, data.find(args.data, name, "dev"), "not nearly one of the corrections, and ")
    lesson = Lesson(
        task=task,
        corrections=sides.train,
        held_out=sides.held_out,
        tasks=served,
        rehearsal=rehearsal,
        dev=dev,
        files=files,
        read={args.corrections.name: data.sha256(args.corrections), **data.digests(args.data, manifest["tasks"], "train", "dev")},
        judged_on=data.digests(args.data, manifest["tasks"], "dev"),
        version=report["to_version"],
        minutes=args.minutes,
        steps=args.steps,
        rate=args.rate,
        parity=args.parity,
        dev_rows=args.dev_rows,
        threads=args.threads,
        seed=args.seed,
    )
    try:
        verdict = turn(learner, version, lesson, sides, args.work)
    except Unservable as error:
        report |= {"accepted": False, "why": str(error), "seconds": round(time.monotonic() - began, 1)}
        return _told(report, args.work, REFUSED)
    report |= {"held_out": _pair(verdict.held_out), "held_out_right": verdict.held_out_right or None, "dev": _pair(verdict.dev[args.task]), "accepted": verdict.accepted, "why": verdict.why}
    report |= {"judged_by": "right" if task.one_answer else "closeness"}
    report |= {"candidate": str(args.work / "candidate" / str(lesson.version)), "seconds": round(time.monotonic() - began, 1)}
    return _told(report, args.work, 0 if verdict.accepted else REFUSED)


def _told(report: dict[str, Any], work: Path, code: int) -> int:
    (work / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
    return code


def _form(version: Path, card: dict[str, Any], task: str) -> dict[str, str]:
    names = card.get("output", {}).get(task, {})
    return {name: (version / name).read_text() for name in names.values()}


def _heads(version: Path, card: dict[str, Any]) -> dict[str, Any]:
    """What the version's weights have places for; see `Task.recall`."""
    slots, labels = version / "slots.json", card.get(card["kind"], {}).get("labels")
    return (json.loads(slots.read_text()) if slots.is_file() else {}) | ({"labels": labels} if labels is not None else {})


def _pair(figures: gate.Figures) -> dict[str, float]:
    return {"incumbent": round(figures.incumbent, 4), "candidate": round(figures.candidate, 4)}


def _end_with_parent() -> None:
    """`shoal retrain` holds the other end of standard input: it ends when that process does, however that went."""
    while os.read(0, 64):
        pass
    # What else runs for this training is in the group that `shoal retrain` made for it.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments(p: argparse.ArgumentParser) -> None:
    """The command line."""
    p.set_defaults(run=retrain)
    p.add_argument("--task", required=True, choices=tasks.KNOWN, help="whose corrections they are")
    p.add_argument("--corrections", type=Path, required=True, help="what `shoal feedback export --corrected --format task` wrote")
    p.add_argument("--specialist", type=Path, required=True, help="the specialist's folder; its active version is what is trained further")
    p.add_argument("--data", type=Path, help="folder with TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz] of every task that the model serves")
    p.add_argument("--work", type=Path, required=True, help="where quarantine, checkpoint, candidate and report go")
    p.add_argument("--exit-with-parent", action="store_true", help=argparse.SUPPRESS)
    p.add_argument("--dry-run", action="store_true", help="stop after the quarantine")
    p.add_argument("--most-per-source", type=flags.several, default=quarantine.MOST, help="corrections taken from one source; the rest is quarantined as a flood")
    p.add_argument("--minutes", type=flags.amount, default=4.0, help="of training; judging both versions takes about as long again")
    p.add_argument("--steps", type=flags.count, default=0, help="length of the training in steps instead of minutes: the same on a busy machine; 0 goes by the clock")
    p.add_argument("--rate", type=flags.positive, default=5e-4, help="peak learning rate")
    p.add_argument("--dev-rows", type=flags.count, default=0, help="judge on N dev rows of each task, evenly spaced; 0 is all")
    p.add_argument("--parity", type=flags.share, default=0.99, help="least share of answers in which export and checkpoint agree")
    p.add_argument("--threads", type=flags.several, default=2, help="CPU threads")
    p.add_argument("--seed", type=int, default=1, help="of order and variants")


def main() -> int:
    """The command alone, without what the other commands load."""
    parser = argparse.ArgumentParser(prog="shoal-train retrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    args = parser.parse_args()
    try:
        return args.run(args)
    except data.DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 65


if __name__ == "__main__":
    sys.exit(main())
