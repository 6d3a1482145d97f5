"""`train`: from the command line to a checkpoint. Decoders and encoders have each a loop of their own (`loop`, `encoder.loop`); what is around them is here."""
from __future__ import annotations

import argparse
import functools
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable

from . import audit, batches, data, effect, folders, lineage, model, precision, state, tasks
from . import loop as loop_of_decoders
from .encoder import loop as loop_of_encoders
from .encoder import net
from .encoder import publish as publish_encoder
from .encoder import readable
from .encoder.fill.study import shape_of


LOOKED = 400  # Dev rows of each task that an encoder's looks are at.


def train(args: argparse.Namespace) -> Path:
    """The checkpoint's folder, with the lineage of its weights."""
    import torch

    if effect.origin(args) == "checkpoint" and not args.resume:
        folders.weights(Path(args.source))
    wanted, rows, dev, files = read(args)
    kind = wanted[0].kind
    effect.refuse(args, kind)
    if kind == "generate":
        args.minutes = args.minutes or loop_of_decoders.Recipe.minutes
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    if not args.no_export:
        exportable(args, wanted, dev)
    work = args.work or args.out.with_name(args.out.name + ".work")
    asked = _asked(args, wanted, files)
    if args.resume:
        state.same(work, asked)
    folders.writable(work)
    before = lineage.of(work if args.resume else Path(args.source))
    corpora = [(lineage.corpus_of(files[task.name], task.corpus), data.sha256(files[task.name])) for task in wanted]
    if args.source == net.MINILM:
        corpora.insert(0, (net.MINILM_CORPUS, net.digest()))
    elif args.source == net.SCRATCH and kind != "generate":
        corpora.insert(0, (net.PIECES_CORPUS, net.digest(net.PIECES)))
    run = {
        "tasks": [t.name for t in wanted],
        "rows": {t: len(r) for t, r in rows.items()},
        "from": effect.origin(args),
        "resumed": args.resume,
        "threads": args.threads,
        "seed": args.seed,
        "sha256": data.digests(args.data, [t.name for t in wanted], "train", "dev"),
        "dev": {t.name: audit.dev(t, rows[t.name], dev[t.name], data.find(args.data, t.name, "dev")) for t in wanted},
    }
    decoder = kind == "generate"
    told = ("minutes", "batch_tokens", "mix", "lora") if decoder else ("epochs", "batch_rows", "mix", "lora")

    def begin() -> None:
        # What the run starts from stays, or one that is stopped early would have lost it.
        if not args.resume and Path(args.source).resolve() != work.resolve():
            folders.forget(work)
        # Now, and with its figures at the end: if this run is stopped, the one that goes on from it can still say what it was.
        lineage.write(lineage.extended(before, {**run, **{k: getattr(args, k) for k in told}, "rate": asked["--rate"], "stopped": True}, corpora), work)

    ran = (_decoder if decoder else _encoder)(args, wanted, rows, dev, work, asked, begin)
    lineage.write(lineage.extended(before, {**run, **ran}, corpora), work)
    return work


# Of the command line, what a run that is gone on from must have been told too, with `_asked`'s own. A decoder's length is not among it: it may be given
# more minutes. An encoder's schedule is laid out at its start.
SAME_OF_DECODERS = ("seed", "rows", "lora", "batch_tokens", "hidden", "layers", "vocabulary", "context")
SAME_OF_ENCODERS = ("seed", "rows", "lora", "epochs", "batch_rows", "layers", "vocabulary", "positions")


# Peak rate of an encoder whose weights are random. One layer on 3,000 rows of `tool_call`, eight epochs in batches of 32, had 0.30 of 400 dev rows right at
# 2e-4, at which MiniLM is trained on, 0.42 at 5e-4, 0.48 at 1e-3 and 0.44 at 2e-3.
FRESH_RATE = 1e-3


def _asked(args: argparse.Namespace, wanted: list[tasks.Task], files: dict[str, Path]) -> dict[str, Any]:
    """What makes a run this one and no other, in plain values."""
    kind, origin, rate = wanted[0].kind, effect.origin(args), loop_of_encoders.Recipe.rate
    if kind == "generate":
        rate = loop_of_decoders.Recipe.rate if origin == net.SCRATCH else loop_of_decoders.Recipe.rate / 4
    elif origin == net.SCRATCH:
        rate = FRESH_RATE
    told = {effect.flag(name): getattr(args, name) for name in (SAME_OF_DECODERS if kind == "generate" else SAME_OF_ENCODERS)}
    read = {f"{task.name}.{split}.jsonl": path for task in wanted for split, path in (("train", files[task.name]), ("dev", data.find(args.data, task.name, "dev")))}
    digests = {name: data.sha256(path) for name, path in read.items()}
    return {"--task": [t.name for t in wanted], "--kind": kind, "--from": origin, "--rate": args.rate or rate, "--mix": _weights(args.mix), **told, **digests}


def _encoder(args: argparse.Namespace, wanted: list[tasks.Task], rows: dict[str, list[data.Row]], dev: dict[str, list[data.Row]], work: Path, asked: dict[str, Any], begin: Callable[[], None]) -> dict[str, object]:
    """One epoch-bound training of an encoder; its checkpoint is in `work` after it. `begin` is called when nothing is left that could refuse the run."""
    task = wanted[0]
    if {t.kind for t in wanted} != {"fill"} and len(wanted) > 1:
        raise SystemExit('an encoder has one task, but for tasks of kind "fill", which one may learn together: train the others one after the other')
    shape = shape_of([(t, rows[t.name]) for t in wanted]) if task.kind == "fill" else net.Shape(tuple(task.classes()), tuple(task.labels()))
    if args.source == net.MINILM:
        encoder, tokenizer = net.pretrained(shape, args.layers or 6, args.vocabulary, args.positions)
    elif args.source == net.SCRATCH:
        encoder, tokenizer = net.fresh(shape, args.layers or 6, args.vocabulary, args.positions)
    else:
        encoder, tokenizer = net.start(Path(args.source), shape, args.layers, args.positions)
    recipe = loop_of_encoders.Recipe(
        epochs=args.epochs,
        rate=asked["--rate"],
        batch_rows=args.batch_rows,
        looks=args.looks,
        patience=args.patience or loop_of_encoders.Recipe.patience,
        seed=args.seed,
        embeddings=args.source == net.SCRATCH,
    )
    looked = {t: data.spread([row for row in dev[t.name] if row.get("seen", True)], LOOKED) for t in wanted}

    def look() -> tuple[float, dict[str, float]]:
        found = {t: publish_encoder.glance(encoder, tokenizer, t, part) for t, part in looked.items()}
        said = {f"{t.name}_{metric}" if len(found) > 1 else metric: value for t, of in found.items() for metric, value in of.items()}
        return sum(of.get(t.main, of["right"]) for t, of in found.items()) / len(found), said

    shares = _shares(args, wanted, rows)
    for t in wanted:
        study = loop_of_encoders.study_of(encoder, tokenizer, t, recipe)
        why = functools.partial(readable.fault, task=t, study=study, tokenizer=tokenizer, context=encoder.body.config.max_position_embeddings)
        audit.learnable(data.find(args.data, t.name, "train"), rows[t.name], why)
    merge = net.adapted(encoder, args.lora) if args.lora else None
    begin()
    ran = loop_of_encoders.train(encoder, tokenizer, shares, recipe, look if args.looks else None, work, args.resume, asked)
    if merge:
        merge()
    if args.source == net.SCRATCH:
        net.settle(encoder)
    net.save(encoder, tokenizer, work)
    return {**asdict(recipe), **ran, "mix": args.mix, "lora": args.lora, "layers": encoder.body.config.num_hidden_layers, "vocabulary": encoder.body.config.vocab_size, "positions": encoder.body.config.max_position_embeddings}


def _decoder(args: argparse.Namespace, wanted: list[tasks.Task], rows: dict[str, list[data.Row]], dev: dict[str, list[data.Row]], work: Path, asked: dict[str, Any], begin: Callable[[], None]) -> dict[str, object]:
    """One time-bound training of a decoder; its best checkpoint is in `work` after it. `begin` is called when nothing is left that could refuse the run."""
    import torch

    fresh = args.source == net.SCRATCH
    if args.resume:
        weights, prompt = model.load(work)
    elif fresh:
        prompt = _prompt(args, wanted, rows)
        weights = model.fresh(model.Size(args.hidden, args.layers or 6, args.vocabulary or 4096, args.context), prompt)
    else:
        weights, prompt = model.load(Path(args.source))
    shares = _shares(args, wanted, rows)
    begin()
    if not args.resume:
        model.save(weights, prompt, work)
        (work / "log.jsonl").unlink(missing_ok=True)
        state.forget(work)
    if args.lora:
        weights = model.adapted(weights, args.lora)
    weights.to("cuda" if torch.cuda.is_available() else "cpu")
    recipe = loop_of_decoders.Recipe(
        minutes=args.minutes,
        steps=args.steps,
        rate=asked["--rate"],
        batch_tokens=args.batch_tokens,
        looks=args.looks,
        patience=args.patience or loop_of_decoders.Recipe.patience,
        seed=args.seed,
        compiled=not args.uncompiled,
    )
    ran = loop_of_decoders.train(weights, prompt, shares, [batches.Share(t, dev[t.name]) for t in wanted], recipe, work, args.resume, asked)
    device = weights.device.type
    model.save(model.merged(weights).to("cpu"), prompt, work)
    return {**asdict(recipe), **ran, "mix": args.mix, "lora": args.lora, "device": device, "precision": precision.name(device)}


def _shares(args: argparse.Namespace, wanted: list[tasks.Task], rows: dict[str, list[data.Row]]) -> list[batches.Share]:
    """Each task's rows, as often as `--mix` says."""
    weigh = _weights(args.mix)
    if stray := set(weigh) - {t.name for t in wanted}:
        raise SystemExit(f"--mix names `{min(stray)}`, which is not trained here")
    return [batches.Share(t, rows[t.name], weigh.get(t.name, 1.0)) for t in wanted]


def _weights(mix: str) -> dict[str, float]:
    try:
        weigh = {name: float(weight) for name, weight in (pair.split("=") for pair in mix.split(",") if pair)}
    except ValueError:
        weigh = {"": 0.0}
    if not all(0 < weight < float("inf") for weight in weigh.values()):
        raise SystemExit(f"--mix is `{mix}`: give TASK=WEIGHT, separated by commas, each weight over 0")
    return weigh


def _prompt(args: argparse.Namespace, wanted: list[tasks.Task], rows: dict[str, list[data.Row]]):  # noqa: ANN202
    """A tokenizer trained on the tasks, or the one of another checkpoint."""
    from .prompt import Prompt

    if args.tokenizer:
        if not (args.tokenizer / "tokenizer.json").is_file():
            raise data.DataError(f"--tokenizer {args.tokenizer}: no tokenizer.json there: give a checkpoint or a version of a decoder")
        return Prompt.load(args.tokenizer)
    untrained = Prompt.untrained()
    rng = random.Random(args.seed)

    def texts():  # noqa: ANN202
        for task in wanted:
            # As many rows of each: a task with long prompts must not own the vocabulary.
            for row in rng.sample(rows[task.name], min(8000, len(rows[task.name]))):
                yield untrained.render(task.name, row["input"])
                yield task.say(row["target"])

    return Prompt.learn(texts(), args.vocabulary or 4096)


def exportable(args: argparse.Namespace, wanted: list[tasks.Task], dev: dict[str, list[data.Row]]) -> None:
    """Raises where an export, which may come hours later, could not be made, judged or written."""
    if any(task.kind != "generate" for task in wanted):
        publish_encoder.held(args.precision)
    for name, part in dev.items():
        data.judgeable(data.spread(part, args.dev_rows), data.find(args.data, name, "dev"))
    folders.writable(args.out)
    folders.beside(args.out, args.name or args.out.name, list(dev))
    if not args.overwrite:
        folders.vacant(args.out, args.version)


def read(args: argparse.Namespace) -> tuple[list[tasks.Task], dict[str, list[data.Row]], dict[str, list[data.Row]], dict[str, Path]]:
    """Tasks that have learned from their training rows, those rows, the dev rows, and the training files."""
    wanted = tasks.named(args.task)
    for task in wanted:
        task.kind = args.kind or folders.kind_of(Path(args.source), task.name) or task.kind
        if task.kind not in task.kinds:
            raise data.DataError(f"`{task.name}` is not answered by models of kind `{task.kind}`: give --kind {' or '.join(task.kinds)}, or leave it out")
    files = {t.name: data.find(args.data, t.name, "train") for t in wanted}
    rows = {t.name: data.read(files[t.name], t) for t in wanted}
    dev = {t.name: data.read(data.find(args.data, t.name, "dev"), t) for t in wanted}
    for task in wanted:
        task.learn(rows[task.name])
    if getattr(args, "rows", 0):
        rows = {name: random.Random(args.seed).sample(part, min(args.rows, len(part))) for name, part in rows.items()}
    return wanted, rows, dev, files
