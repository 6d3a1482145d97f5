"""The trainer's commands.

    python -m shoal_trainer train --task tool_call --data DIR --from scratch --out models/tool_call
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

from . import card, data, evaluate, parity, tasks
from .export import ExportError, export

CORPORA = {
    "tool_call": ("SNIPS custom intents", "sonos/nlu-benchmark", "CC0-1.0"),
    "plan": ("SNIPS custom intents, joined as MixSNIPS was", "sonos/nlu-benchmark", "CC0-1.0"),
    "episode": ("Schema-Guided Dialogue", "google-research-datasets/dstc8-schema-guided-dialogue", "CC-BY-SA-4.0"),
}
SPECIALIST = {"plan": "planner", "episode": "planner"}
SERVES = {"planner": ["plan", "episode"]}


def train(args: argparse.Namespace) -> None:
    """Weights, then everything that `publish` does."""
    import torch

    from . import loop, model
    from .prompt import Prompt

    task = tasks.task(args.task)
    rows, dev = (data.read(data.find(args.data, args.task, split), task) for split in ("train", "dev"))
    if args.rows:
        rows = random.Random(args.seed).sample(rows, min(args.rows, len(rows)))
    task.learn(rows)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    work = args.work or args.out.with_name(args.out.name + ".work")
    fresh = args.source == "scratch"
    size = model.Size(args.hidden, args.layers, args.vocabulary, args.context)
    resume = args.resume and (work / "state.pt").is_file()
    if resume:
        weights, prompt = model.load(work)
    elif fresh:
        texts = (text for row in rows for text in (_flat(row["input"]), task.say(row["target"])))
        prompt = Prompt.learn(texts, size.vocabulary)
        weights = model.fresh(size, prompt)
    else:
        weights, prompt = model.load(Path(args.source))
    weights.to(device)
    rate = args.rate or (2e-3 if fresh else 2e-4)
    recipe = loop.Recipe(epochs=args.epochs, minutes=args.minutes, rate=rate, batch_tokens=args.batch_tokens, seed=args.seed)
    model.save(weights, prompt, work, size)

    def score() -> float:
        part = dev[: recipe.dev_rows]
        said = model.greedy(weights, prompt, [prompt.ask(task.name, row["input"]) for row in part], recipe.answer_tokens)
        return sum(text == task.say(row["target"]) for text, row in zip(said, part)) / len(part)

    ran = loop.train(weights, prompt, task, rows, score, recipe, work, resume)
    settings = {**asdict(recipe), **asdict(size), "device": device, "threads": args.threads, "rows": len(rows), **ran}
    _publish(args, task, work, dev, {"from": "scratch" if fresh else "checkpoint", **settings})


def publish(args: argparse.Namespace) -> None:
    """An existing checkpoint to a folder: export, parity, scores, calibration, card."""
    task = tasks.task(args.task)
    rows, dev = (data.read(data.find(args.data, args.task, split), task) for split in ("train", "dev"))
    task.learn(rows)
    log = Path(args.source) / "training.json"
    _publish(args, task, Path(args.source), dev, json.loads(log.read_text()) if log.is_file() else {"from": "checkpoint"})


def _publish(args: argparse.Namespace, task: tasks.Task, weights: Path, dev: list[data.Row], training: dict) -> None:
    import torch

    from . import model

    (weights / "training.json").write_text(json.dumps(training) + "\n")
    name = args.name or SPECIALIST.get(args.task, args.task)
    served = SERVES.get(name, [args.task])
    here = args.out / str(args.version)
    export(weights, here, [task], args.precision)
    same = parity.check(weights, here, dev, least=args.parity)
    judged = evaluate.judge(here, task, dev[: args.dev_rows] if args.dev_rows else dev)
    scores = evaluate.metrics(task, judged)
    form = task.form()[0]
    corpus = CORPORA[args.task]
    parameters = sum(p.numel() for p in model.load(weights)[0].parameters())
    wrong = [j for j in judged if not j.right][:1]
    shown = [j for j in judged if j.right][:1] + wrong
    samples = [{"task": task.name, "input": _flat(j.row["input"]), "output": j.text, "right": j.right} for j in shown]
    (here / "samples.json").write_text(json.dumps(samples, ensure_ascii=False, indent=1) + "\n")
    card.write(
        args.out,
        name,
        served,
        {
            "name": name,
            "version": args.version,
            "kind": "generate",
            "description": args.description or f"{task.name}, {parameters / 1e6:.1f} M parameters, Llama-shaped, trained by services/trainer",
            "licence": corpus[2],
            "limits": {"context_tokens": model.load(weights)[0].config.max_position_embeddings, "max_new_tokens": args.answer_tokens},
            "price": card.PRICE,
            "output": {served_task: {"schema" if form.endswith(".json") else "grammar": form} for served_task in served},
            "calibration": {task.name: card.threshold([(j.confidence, j.right) for j in judged])},
            "scores": {task.name: scores},
            "training": {**training, "parameters": parameters, "precision": args.precision, "parity": round(same, 4), "torch": torch.__version__},
            "data": [
                {"name": corpus[0], "source": corpus[1], "licence": corpus[2], "sha256": data.sha256(data.find(args.data, args.task, "train"))},
            ],
        },
    )
    print(json.dumps({"folder": str(here), "parity": same, **scores}))


def _flat(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def evaluated(args: argparse.Namespace) -> None:
    """Scores of an exported folder on dev."""
    task = tasks.task(args.task)
    rows, dev = (data.read(data.find(args.data, args.task, split), task) for split in ("train", "dev"))
    task.learn(rows)
    print(json.dumps(evaluate.metrics(task, evaluate.judge(Path(args.source), task, dev[: args.dev_rows] if args.dev_rows else dev))))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="shoal-train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = root.add_subparsers(required=True)
    for name, run in (("train", train), ("export", publish), ("evaluate", evaluated)):
        p = commands.add_parser(name, help=(run.__doc__ or "").splitlines()[0])
        p.set_defaults(run=run)
        p.add_argument("--task", required=True, help="tool_call, plan or episode")
        p.add_argument("--data", type=Path, required=True, help="folder with TASK.train.jsonl[.gz] and TASK.dev.jsonl[.gz]")
        p.add_argument("--from", dest="source", required=True, help="a checkpoint folder, or `scratch` (train only), or a version folder (evaluate)")
        p.add_argument("--dev-rows", type=int, default=0, help="judge only the first N dev rows; 0 is all")
        if name == "evaluate":
            continue
        p.add_argument("--out", type=Path, required=True, help="the specialist's folder; a version is written below it")
        p.add_argument("--name", help="the specialist's name; default: by the task")
        p.add_argument("--version", type=int, default=1)
        p.add_argument("--precision", default="fp32", choices=["fp32", "int8", "int4"])
        p.add_argument("--parity", type=float, default=parity.SAME, help="least share of equal answers; under it the export is refused")
        p.add_argument("--answer-tokens", type=int, default=192)
        p.add_argument("--description")
    p = commands.choices["train"]
    for flag, kind, default, what in (
        ("--hidden", int, 192, "width, a multiple of 32"),
        ("--layers", int, 5, "depth"),
        ("--vocabulary", int, 3072, "BPE size"),
        ("--context", int, 512, "tokens of prompt and answer"),
        ("--epochs", int, 12, "at most"),
        ("--minutes", float, 60.0, "at most; the schedule ends with them"),
        ("--rate", float, 0.0, "peak learning rate; default 2e-3 from scratch, 2e-4 from a checkpoint"),
        ("--batch-tokens", int, 2048, "padded tokens of a batch"),
        ("--rows", int, 0, "train on a random N rows; 0 is all"),
        ("--threads", int, 2, "CPU threads"),
        ("--seed", int, 1, "of weights, order and augmentation"),
    ):
        p.add_argument(flag, type=kind, default=default, help=what)
    p.add_argument("--work", type=Path, help="where checkpoints go; default: OUT.work")
    p.add_argument("--resume", action="store_true", help="go on from the work folder")
    t = commands.add_parser("table", help="models/README.md from the cards, to standard output")
    t.add_argument("models", type=Path)
    t.set_defaults(run=lambda args: print(card.table(args.models), end=""))
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
