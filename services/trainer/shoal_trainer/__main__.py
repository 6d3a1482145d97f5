"""The trainer's commands.

    python -m shoal_trainer train --task tool_call --data DIR --from scratch --out models/tool_call
    python -m shoal_trainer train --task plan,episode --data DIR --from CHECKPOINT --out models/planner
    python -m shoal_trainer export --task tool_call --data DIR --from CHECKPOINT --out models/tool_call
    python -m shoal_trainer evaluate --task tool_call --data DIR --from models/tool_call/1
    python -m shoal_trainer table models > models/README.md
"""
from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import asdict
from pathlib import Path

from . import batches, data, evaluate, parity, table, tasks
from .export import PRECISIONS, ExportError


def train(args: argparse.Namespace) -> None:
    """Weights, then everything that `export` does."""
    import torch

    from . import loop, model

    wanted, rows, dev, _ = _read(args)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    work = args.work or args.out.with_name(args.out.name + ".work")
    fresh = args.source == "scratch"
    resume = args.resume and (work / "state.pt").is_file()
    if resume:
        weights, prompt = model.load(work)
    elif fresh:
        size = model.Size(args.hidden, args.layers, args.vocabulary, args.context)
        prompt = _prompt(args, wanted, rows)
        weights = model.fresh(size, prompt)
    else:
        weights, prompt = model.load(Path(args.source))
    if not resume:
        model.save(weights, prompt, work)
        (work / "log.jsonl").unlink(missing_ok=True)
        (work / "best.pt").unlink(missing_ok=True)
    if args.lora:
        weights = model.adapted(weights, args.lora)
    weights.to("cuda" if torch.cuda.is_available() else "cpu")
    weigh = dict(pair.split("=") for pair in args.mix.split(",") if pair)
    shares = [batches.Share(t, rows[t.name], float(weigh.get(t.name, 1))) for t in wanted]
    recipe = loop.Recipe(
        minutes=args.minutes,
        rate=args.rate or (loop.Recipe.rate if fresh else loop.Recipe.rate / 4),
        batch_tokens=args.batch_tokens,
        looks=args.looks,
        patience=args.patience,
        seed=args.seed,
        compiled=not args.uncompiled,
    )
    ran = loop.train(weights, prompt, shares, [batches.Share(t, dev[t.name]) for t in wanted], recipe, work, resume)
    done = model.merged(weights).to("cpu")
    model.save(done, prompt, work)
    settings = {**asdict(recipe), **ran, "mix": args.mix, "lora": args.lora, "threads": args.threads, "rows": {t: len(r) for t, r in rows.items()}}
    how = {"from": "scratch" if fresh else "checkpoint", "device": str(weights.device), **settings}
    (work / "training.json").write_text(json.dumps(how, indent=1) + "\n")
    if not args.no_export:
        _publish(args, work, how)


def _prompt(args: argparse.Namespace, wanted: list[tasks.Task], rows: dict[str, list[data.Row]]):  # noqa: ANN202
    """A tokenizer trained on the tasks, or the one of another checkpoint."""
    from .prompt import Prompt

    if args.tokenizer:
        return Prompt.load(args.tokenizer)
    untrained = Prompt.untrained()
    rng = random.Random(args.seed)

    def texts():  # noqa: ANN202
        for task in wanted:
            # As many rows of each: a task with long prompts must not own the vocabulary.
            for row in rng.sample(rows[task.name], min(8000, len(rows[task.name]))):
                yield untrained.render(task.name, row["input"])
                yield task.say(row["target"])

    return Prompt.learn(texts(), args.vocabulary)


def export_only(args: argparse.Namespace) -> None:
    """An existing checkpoint to a folder: export, parity, scores, calibration, card."""
    log = Path(args.source) / "training.json"
    _publish(args, Path(args.source), json.loads(log.read_text()) if log.is_file() else {"from": "checkpoint"})


def _publish(args: argparse.Namespace, weights: Path, training: dict) -> None:
    from . import publish

    wanted, _, dev, files = _read(args)
    name = args.name or args.out.name
    version = publish.Version(args.out, name, args.version, args.precision, args.answer_tokens, args.parity, args.dev_rows, args.description)
    print(json.dumps(publish.publish(version, weights, wanted, dev, files, training)))


def evaluated(args: argparse.Namespace) -> None:
    """Scores of an exported folder on dev."""
    wanted, _, dev, _ = _read(args)
    for task in wanted:
        judged = evaluate.judge(Path(args.source), task, dev[task.name][: args.dev_rows] if args.dev_rows else dev[task.name], args.answer_tokens)
        print(json.dumps({"task": task.name, **evaluate.metrics(task, judged)}))
        if args.show:
            for j in [j for j in judged if not j.right][: args.show]:
                print(json.dumps({"input": j.row["input"], "target": task.say(j.row["target"]), "output": j.text}, ensure_ascii=False))


def _read(args: argparse.Namespace) -> tuple[list[tasks.Task], dict[str, list[data.Row]], dict[str, list[data.Row]], dict[str, Path]]:
    """Tasks that have learned from their training rows, those rows, the dev rows, and the training files."""
    wanted = tasks.named(args.task)
    files = {t.name: data.find(args.data, t.name, "train") for t in wanted}
    rows = {t.name: data.read(files[t.name], t) for t in wanted}
    dev = {t.name: data.read(data.find(args.data, t.name, "dev"), t) for t in wanted}
    for task in wanted:
        task.learn(rows[task.name])
    if getattr(args, "rows", 0):
        rows = {name: random.Random(args.seed).sample(part, min(args.rows, len(part))) for name, part in rows.items()}
    return wanted, rows, dev, files


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="shoal-train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = root.add_subparsers(required=True)
    for name, run in (("train", train), ("export", export_only), ("evaluate", evaluated)):
        p = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0])
        p.set_defaults(run=run)
        p.add_argument("--task", required=True, help=f"one or more of {', '.join(tasks.KNOWN)}, separated by commas; or `all`")
        p.add_argument("--data", type=Path, required=True, help="folder with TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz]")
        p.add_argument("--from", dest="source", required=True, help="a checkpoint folder, or `scratch` (train only), or a version folder (evaluate)")
        p.add_argument("--dev-rows", type=int, default=0, help="judge only the first N dev rows; 0 is all")
        p.add_argument("--answer-tokens", type=int, default=224, help="of one answer at most")
        if name == "evaluate":
            p.add_argument("--show", type=int, default=0, help="print the first N wrong answers")
            continue
        p.add_argument("--out", type=Path, required=True, help="the specialist's folder; a version is written below it")
        p.add_argument("--name", help="the specialist's name; default: the folder's")
        p.add_argument("--version", type=int, default=1)
        p.add_argument("--precision", default="fp32", choices=PRECISIONS)
        p.add_argument("--parity", type=float, default=parity.SAME, help="least share of equal answers; under it the export is refused")
        p.add_argument("--description")
    p = commands.choices["train"]
    for flag, kind, default, what in (
        ("--hidden", int, 256, "width, a multiple of 32 (scratch)"),
        ("--layers", int, 6, "depth (scratch)"),
        ("--vocabulary", int, 4096, "BPE size (scratch)"),
        ("--context", int, 1280, "tokens of prompt and answer (scratch)"),
        ("--minutes", float, 60.0, "how long; the schedule ends with them"),
        ("--rate", float, 0.0, "peak learning rate; default: by --from"),
        ("--batch-tokens", int, 2048, "padded tokens of a batch"),
        ("--rows", int, 0, "train on a random N rows of each task; 0 is all"),
        ("--looks", int, 20, "looks at dev over the run"),
        ("--patience", int, 6, "looks without a better one before it stops"),
        ("--lora", int, 0, "train adapters of this rank, merged before the export; 0 trains all weights"),
        ("--threads", int, 2, "CPU threads"),
        ("--seed", int, 1, "of weights, order and variants"),
    ):
        p.add_argument(flag, type=kind, default=default, help=what)
    p.add_argument("--mix", default="", help="how often a round passes over each task's rows: `tool_call=2,plan=0.5`; default 1")
    p.add_argument("--tokenizer", type=Path, help="take the tokenizer of this checkpoint instead of training one (scratch)")
    p.add_argument("--work", type=Path, help="where checkpoints go; default: OUT.work")
    p.add_argument("--resume", action="store_true", help="go on from the work folder")
    p.add_argument("--no-export", action="store_true", help="leave the checkpoint in the work folder")
    p.add_argument("--uncompiled", action="store_true", help="no torch.compile: for runs of a minute or two")
    t = commands.add_parser("table", help="models/README.md from the folders, to standard output")
    t.add_argument("models", type=Path)
    t.set_defaults(run=lambda args: print(table.table(args.models), end=""))
    return root


def main() -> int:
    """Runs a command; a fault of the data or the export is one line and exit code 65."""
    args = parser().parse_args()
    try:
        args.run(args)
    except (data.DataError, ExportError, parity.ParityError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 65
    return 0


if __name__ == "__main__":
    sys.exit(main())
