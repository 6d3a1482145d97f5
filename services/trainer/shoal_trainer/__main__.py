"""The trainer's commands.

    python -m shoal_trainer train --task tool_call --data DIR --from minilm --epochs 12 --out OUT/tool_call
    python -m shoal_trainer train --task episode --data DIR --from models/planner/1 --epochs 1 --version 2 --out OUT/planner
    python -m shoal_trainer recipe --data DIR --out OUT --jobs 8
    python -m shoal_trainer export --task tool_call --data DIR --from CHECKPOINT --out OUT/tool_call
    python -m shoal_trainer average A.work B.work C.work --out AVERAGE
    python -m shoal_trainer narrow models/route/1 --out ROUTE.work
    python -m shoal_trainer lengthen models/summarize/1 --positions 1024 --out SUMMARIZE.work
    python -m shoal_trainer evaluate --task tool_call --data DIR --from models/tool_call/1
    python -m shoal_trainer retrain --task tool_call --corrections FILE --specialist models/tool_call --data DIR --work DIR
    python -m shoal_trainer escalate --task tool_call --data DIR models/tool_call/1 models/tool_call_wide/1
    python -m shoal_trainer end-to-end --data DIR models/splitter/1 models/tool_call/1 --large models/tool_call_wide/1
    python -m shoal_trainer rescore --data DIR models/tool_call/1
    python -m shoal_trainer cost models/tool_call/1
    python -m shoal_trainer rules --data DIR
    python -m shoal_trainer table models > models/README.md
"""
from __future__ import annotations

import argparse
import functools
import json
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import tomli_w

from . import calibrate, card, data, effect, end_to_end, evaluate, flags, folders, lineage, model, parity, publish, recipe, retrain, rules, table, tasks, training
from .encoder import average as soup
from .encoder import narrow, net
from .export import PRECISIONS, ExportError


ANSWER_TOKENS = 224  # Of a decoder's answer, unless one asks otherwise.


def train(args: argparse.Namespace) -> None:
    """Weights, then everything that `export` does."""
    work = training.train(args)
    if not args.no_export:
        _publish(args, work)


def export_only(args: argparse.Namespace) -> None:
    """An existing checkpoint to a folder: export, parity, scores, calibration, card."""
    if not folders.checkpoint(Path(args.source)):
        folders.weights(Path(args.source))
        raise data.DataError(f"{args.source} is a version, exported already: give the checkpoint that it was made of, a .work folder")
    _publish(args, Path(args.source))


def _publish(args: argparse.Namespace, weights: Path) -> None:
    from . import publish

    wanted, _, dev, _ = training.read(args)
    effect.of_other(args, wanted[0].kind)
    training.exportable(args, wanted, dev)
    name = args.name or args.out.name
    # Made beside it: what is refused, or broken off, has touched nothing that is there.
    made = args.out.with_name(args.out.name + ".new")
    shutil.rmtree(made, ignore_errors=True)
    version = publish.Version(made, name, args.version, args.precision, args.answer_tokens or ANSWER_TOKENS, args.parity, args.dev_rows, args.description, data.digests(args.data, [task.name for task in wanted], "dev"))
    try:
        told = publish.publish(version, weights, wanted, dev)
        print(json.dumps(told | {"folder": str(folders.place(made, args.out, args.version))}))
    finally:
        shutil.rmtree(made, ignore_errors=True)


def numbers(said: str) -> list[float]:
    """Numbers with commas between them; argparse says by this name what was wrong."""
    return [float(number) for number in said.split(",")]


def averaged(args: argparse.Namespace) -> None:
    """The mean of encoders' checkpoints that were trained on from one, with other seeds or on other tasks."""
    soup.average(args.folders, args.weights or [1.0] * len(args.folders), args.out)


def cooked(args: argparse.Namespace) -> None:
    """Every shipped model in one go, by recipe.toml; stopped, it goes on with the same command."""
    steps = recipe.read(args.recipe)
    steps = recipe.wanted(steps, [name for name in args.only.split(",") if name], recipe.finished(steps, args.data, args.out))
    if args.dry_run:
        for step in steps:
            for command in step.commands(args.data, args.out):
                print(shlex.join(["python", "-m", "shoal_trainer", *command]))
        return
    said: dict[str, object] = {"seconds": {name: round(s, 1) for name, s in recipe.run(steps, args.data, args.out, args.jobs).items()}}
    if args.parts:
        said["parts"] = recipe.parts(args.out, args.parts)
    print(json.dumps(said))


def narrowed(args: argparse.Namespace) -> None:
    """An encoder without the word pieces of other scripts than Latin: a megabyte less."""
    print(json.dumps({"pieces": narrow.narrow(args.source, args.out)}))


def lengthened(args: argparse.Namespace) -> None:
    """An encoder that reads longer texts, as far as it can without having seen any."""
    encoder, tokenizer = net.opened(args.source)
    net.save(net.lengthen(encoder, args.positions), tokenizer, args.out)
    lineage.write(lineage.extended(lineage.of(args.source), {"lengthened_to": args.positions}, []), args.out)


def evaluated(args: argparse.Namespace) -> None:
    """Scores of an exported folder on dev."""
    effect.of_other(args, folders.version(Path(args.source))["kind"])
    wanted, _, dev, _ = training.read(args)
    for task in wanted:
        judged = evaluate.judge(Path(args.source), task, data.spread(dev[task.name], args.dev_rows), args.answer_tokens or ANSWER_TOKENS)
        print(json.dumps({"task": task.name, **evaluate.metrics(task, judged)}))
        if args.show:
            for j in [j for j in judged if not j.right][: args.show]:
                print(json.dumps({"input": j.row["input"], "target": task.say(j.row["target"]), "output": j.text}, ensure_ascii=False))


def rescored(args: argparse.Namespace) -> None:
    """Judges shipped versions anew on dev and writes the scores into their cards, and their samples; weights stay, and thresholds without --calibrate."""
    if args.calibrate and args.dev_rows:
        raise SystemExit("--calibrate writes into the card, and with --dev-rows nothing is written: leave one out")
    cards = {folder: tomllib.loads((folder / "card.toml").read_text()) for folder in args.folders}
    # A card that nobody scored yet has none of its tasks.
    answered = {folder: list(about.get("scores") or folders.specialist(folder.parent)["tasks"]) for folder, about in cards.items()}
    for folder, about in cards.items():
        # Scores, confidence and thresholds of a card are of one dev.
        fitted = about.get("calibration") and not args.calibrate and not args.dev_rows
        if fitted and about.get("training", {}).get("judged_on") != data.digests(args.data, answered[folder], "dev"):
            raise data.DataError(f"{folder}: its confidence is not of the dev files in {args.data}: give --calibrate to fit it to these, the files that `judged_on` in its card names, or --dev-rows to write nothing")
    for folder, about in cards.items():
        names, samples = answered[folder], []
        for name in names:
            task = tasks.named(name)[0]
            task.kind = about["kind"]
            task.learn(data.read(data.find(args.data, name, "train"), task))
            file = data.find(args.data, name, "dev")
            asked = data.spread(data.read(file, task), args.dev_rows)
            data.judgeable(asked, file)
            judge = functools.partial(evaluate.judge, folder, task, asked, about["limits"]["max_new_tokens"], about)
            judged = publish.calibrated(about, task, judge) if args.calibrate else judge()
            scores = about.setdefault("scores", {})[name] = evaluate.metrics(task, judged)
            samples += publish.shown(task, judged)
            print(json.dumps({"folder": str(folder), "task": name, **scores}))
        if not args.dev_rows:
            about.setdefault("training", {})["judged_on"] = data.digests(args.data, names, "dev")
            lineage.account(about)
            publish.show(folder, samples)
            about.setdefault("files", {})["samples.json"] = data.sha256(folder / "samples.json")
            (folder / "card.toml").write_bytes(tomli_w.dumps(about).encode())


def accounted(args: argparse.Namespace) -> None:
    """Writes into cards what the trainings of their weights cost, by the runs that they list; no row is read and no weight."""
    for folder in args.folders:
        about = tomllib.loads((folder / "card.toml").read_text())
        print(json.dumps({"folder": str(folder), **lineage.account(about)}))
        (folder / "card.toml").write_bytes(tomli_w.dumps(about).encode())


def escalated(args: argparse.Namespace) -> None:
    """What a larger model answers right of the dev rows that a specialist leaves, those under its threshold: on services seen in training, on others, and on all."""
    task = tasks.named(args.task)[0]
    small, large = cards = [tomllib.loads((folder / "card.toml").read_text()) for folder in (args.small, args.large)]
    of = data.digests(args.data, [task.name], "dev")
    if args.write and not of.items() <= small["training"].get("judged_on", {}).items():
        raise data.DataError(f"{args.small}: its threshold is not of the dev file in {args.data}: give the one that `judged_on` in its card names, or leave --write out")
    judged = []
    for folder, about in zip((args.small, args.large), cards):
        task.kind = about["kind"]
        task.learn(data.read(data.find(args.data, task.name, "train"), task))
        dev = data.read(data.find(args.data, task.name, "dev"), task)
        judged.append(evaluate.judge(folder, task, dev, about["limits"]["max_new_tokens"], about))
    kept = small["calibration"][task.name]
    found = evaluate.escalation(*judged, kept["confidence_threshold"], calibrate.Map.of(kept))
    print(json.dumps({"task": task.name, **found}))
    if args.write:
        small["training"].setdefault("escalation", {})[task.name] = {"larger": card.named(large), "threshold": kept["confidence_threshold"], **found}
        (args.small / "card.toml").write_bytes(tomli_w.dumps(small).encode())


def scored_whole(args: argparse.Namespace) -> None:
    """Scores plans with what makes their calls behind them, and writes that into the splitter's card; of some rows only it writes nothing."""
    task = tasks.named("plan")[0]
    dev = data.read(data.find(args.data, task.name, "dev"), task)
    print(json.dumps(end_to_end.measured(args.splitter, args.caller, args.large, data.spread(dev, args.dev_rows), write=not args.dev_rows)))


def ruled(args: argparse.Namespace) -> None:
    """What rules without a model answer of dev, scored as a specialist's answers are."""
    for task in tasks.named(args.task):
        if task.name not in rules.RULES:
            raise SystemExit(f"there are rules for {', '.join(rules.RULES)}, not for {task.name}")
        train, dev = (data.read(data.find(args.data, task.name, split), task) for split in ("train", "dev"))
        answered = rules.answered(task, train, dev)
        for seen in (True, False):
            if part := [a for a in answered if a[0].get("seen", True) is seen]:
                print(json.dumps({"task": task.name, "seen": seen, "rows": len(part), **task.metrics(part)}))


def tabled(args: argparse.Namespace) -> None:
    """models/README.md from the folders, to standard output."""
    page = table.table(args.models)
    if args.out:
        args.out.write_text(page)
    else:
        print(page, end="")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="shoal-train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = root.add_subparsers(required=True)
    for name, run in (("train", train), ("export", export_only), ("evaluate", evaluated)):
        p = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0])
        p.set_defaults(run=run)
        p.add_argument("--task", required=True, help=f"one or more of {', '.join(tasks.KNOWN)}, separated by commas; or `all`")
        p.add_argument("--data", type=Path, required=True, help="folder with TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz]")
        p.add_argument("--from", dest="source", required=True, help="a checkpoint folder or a version of a shipped specialist; train: or `scratch`, random weights; encoders: or `minilm`")
        p.add_argument("--dev-rows", type=flags.count, default=0, help="judge only N dev rows, evenly spaced; 0 is all")
        p.add_argument("--answer-tokens", type=flags.several, help=f"of one answer of a decoder at most; default: {ANSWER_TOKENS}")
        if name == "evaluate":
            p.add_argument("--show", type=flags.count, default=0, help="print the first N wrong answers")
            # What is there already is of one kind.
            p.set_defaults(kind=None, defaults={})
            continue
        p.add_argument("--kind", choices=("generate", "tag", "classify", "fill"), help="what answers: a decoder or an encoder; default: what suits the task")
        p.add_argument("--out", type=Path, required=True, help="the specialist's folder; a version is written below it")
        p.add_argument("--name", help="the specialist's name; default: the folder's")
        p.add_argument("--version", type=flags.several, default=1)
        p.add_argument("--overwrite", action="store_true", help="write over a version that is there; without it that is refused")
        p.add_argument("--precision", default="fp32", choices=PRECISIONS)
        p.add_argument("--parity", type=flags.share, default=parity.SAME, help="least share of equal answers; under it the export is refused")
        p.add_argument("--description")
        p.set_defaults(defaults={})
    p = commands.choices["train"]
    for flag, kind, default, what in (
        ("--hidden", flags.several, 256, "width, a multiple of 32 (decoder from scratch)"),
        ("--layers", flags.count, 0, "depth (scratch: 6 by default; minilm: its first so many, all 6 by default; an encoder's checkpoint: grown to so many)"),
        ("--vocabulary", flags.count, 0, "decoder from scratch: BPE size, 4096 by default; encoder from scratch or minilm: how many of MiniLM's pieces are kept, all by default"),
        ("--context", flags.several, 1280, "tokens of prompt and answer (decoder from scratch)"),
        ("--minutes", flags.positive, None, "how long a decoder, 60 by default; the schedule ends with them"),
        ("--steps", flags.count, 0, "how long a decoder, in steps instead of minutes: the same on a busy machine; 0 goes by the clock"),
        ("--epochs", flags.positive, 6.0, "how long an encoder: passes over the rows"),
        ("--batch-rows", flags.several, 64, "rows of an encoder's batch"),
        ("--positions", flags.count, 0, "tokens that an encoder may read: at most twice what it could before, from scratch any number; default: as many as before, 512 of minilm and scratch"),
        ("--rate", float, 0.0, "peak learning rate; default: by --from"),
        ("--batch-tokens", flags.several, 2048, "padded tokens of a batch"),
        ("--rows", flags.count, 0, "train on a random N rows of each task; 0 is all"),
        ("--looks", flags.count, 20, "looks at dev over the run; an encoder's may be 0: it ends as it is then, and cannot be resumed"),
        ("--patience", flags.count, 0, "looks without a better one before it stops; default: a decoder 6, an encoder 10"),
        ("--lora", flags.count, 0, "train adapters of this rank, merged before the export; 0 trains all weights"),
        ("--threads", flags.several, 2, "CPU threads"),
        ("--seed", int, 1, "of weights, order and variants"),
    ):
        p.add_argument(flag, type=kind, default=default, help=what)
    p.add_argument("--mix", default="", help="how often a round passes over each task's rows: `tool_call=2,plan=0.5`; default 1")
    p.add_argument("--tokenizer", type=Path, help="take the tokenizer of this checkpoint instead of training one (decoder from scratch)")
    p.add_argument("--work", type=Path, help="where checkpoints go; default: OUT.work")
    p.add_argument("--resume", action="store_true", help="go on from the work folder, from the last look at dev")
    p.add_argument("--no-export", action="store_true", help="leave the checkpoint in the work folder")
    p.add_argument("--uncompiled", action="store_true", help="no torch.compile: for runs of a minute or two")
    retrain.arguments(commands.add_parser("retrain", help=(retrain.retrain.__doc__ or "").splitlines()[0]))
    p.set_defaults(defaults={name: p.get_default(name) for name in effect.ALL})
    c = commands.add_parser("recipe", help=(cooked.__doc__ or "").splitlines()[0])
    c.add_argument("--data", type=Path, required=True, help="folder with TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz]")
    c.add_argument("--out", type=Path, required=True, help="where folders, checkpoints and logs go")
    c.add_argument("--recipe", type=Path, default=recipe.SHIPPED, help="another recipe; default: the shipped models'")
    c.add_argument("--only", default="", help="these steps and what they start from, separated by commas; default: all")
    c.add_argument("--jobs", type=flags.several, default=1, help="steps at a time: on a GPU several, each alone does not fill it")
    c.add_argument("--parts", type=Path, help="put what came out here too, in parts of 16 MB, eight to a folder")
    c.add_argument("--dry-run", action="store_true", help="print the commands")
    c.set_defaults(run=cooked)
    a = commands.add_parser("average", help=(averaged.__doc__ or "").splitlines()[0])
    a.add_argument("folders", type=Path, nargs="+", help="checkpoints (the .work folders of runs with --no-export) or versions of shipped specialists; the first has the most layers")
    a.add_argument("--weights", type=numbers, help="how much of each, separated by commas; default: as much of all")
    a.add_argument("--out", type=Path, required=True, help="the checkpoint to write; `export --from` it")
    a.set_defaults(run=averaged)
    n = commands.add_parser("narrow", help=(narrowed.__doc__ or "").splitlines()[0])
    n.add_argument("source", type=Path, help="a checkpoint, or a version of a shipped specialist")
    n.add_argument("--out", type=Path, required=True, help="the checkpoint to write; `export --from` it")
    n.set_defaults(run=narrowed)
    g = commands.add_parser("lengthen", help=(lengthened.__doc__ or "").splitlines()[0])
    g.add_argument("source", type=Path, help="a checkpoint, or a version of a shipped specialist")
    g.add_argument("--positions", type=int, required=True, help="tokens that it is to read, at most twice what it could before")
    g.add_argument("--out", type=Path, required=True, help="the checkpoint to write; `export --from` it")
    g.set_defaults(run=lengthened)
    r = commands.add_parser("rescore", help=(rescored.__doc__ or "").splitlines()[0])
    r.add_argument("folders", type=folders.of_version, nargs="+", help="versions of shipped specialists")
    r.add_argument("--data", type=Path, required=True, help="folder with TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz]")
    r.add_argument("--dev-rows", type=flags.count, default=0, help="judge only N dev rows, evenly spaced, and write nothing; 0 is all")
    r.add_argument("--calibrate", action="store_true", help="fit confidence and thresholds anew too, as `export` does")
    r.set_defaults(run=rescored)
    k = commands.add_parser("cost", help=(accounted.__doc__ or "").splitlines()[0])
    k.add_argument("folders", type=folders.of_version, nargs="+", help="versions of shipped specialists")
    k.set_defaults(run=accounted)
    e = commands.add_parser("escalate", help=(escalated.__doc__ or "").splitlines()[0])
    e.add_argument("small", type=folders.of_version, help="a version of the specialist")
    e.add_argument("large", type=folders.of_version, help="a version of the larger model")
    e.add_argument("--task", required=True)
    e.add_argument("--data", type=Path, required=True, help="folder with TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz]")
    e.add_argument("--write", action="store_true", help="write it into the card of the specialist, whose threshold it is of")
    e.set_defaults(run=escalated)
    w = commands.add_parser("end-to-end", help=(scored_whole.__doc__ or "").splitlines()[0])
    w.add_argument("splitter", type=folders.of_version, help="a version that answers `plan`; its card is written")
    w.add_argument("caller", type=folders.of_version, help="a version that answers `tool_call`")
    w.add_argument("--large", type=folders.of_version, help="a version of the larger model of `tool_call`: for the steps that the caller is not sure of")
    w.add_argument("--data", type=Path, required=True, help="folder with plan.dev.jsonl[.gz]")
    w.add_argument("--dev-rows", type=flags.count, default=0, help="judge only N dev rows, evenly spaced, and write nothing; 0 is all")
    w.set_defaults(run=scored_whole)
    b = commands.add_parser("rules", help=(ruled.__doc__ or "").splitlines()[0])
    b.add_argument("--task", default=",".join(rules.RULES), help=f"one or several of {', '.join(rules.RULES)}; default: all of them")
    b.add_argument("--data", type=Path, required=True, help="folder with TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz]")
    b.set_defaults(run=ruled)
    t = commands.add_parser("table", help=(tabled.__doc__ or "").splitlines()[0])
    t.add_argument("models", type=Path)
    t.add_argument("--out", type=Path, help="write it to this file instead")
    t.set_defaults(run=tabled)
    return root


def main() -> int:
    """Runs a command; a fault of the data or the export is one line and exit code 65."""
    try:
        args = parser().parse_args()
        return args.run(args) or 0
    except (data.DataError, model.CheckpointError, ExportError, parity.ParityError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 65


if __name__ == "__main__":
    sys.exit(main())
