"""Flags that a training or an export would not read: each is refused before anything begins, with the reason."""
from __future__ import annotations

import argparse

from .encoder import net

# What only one kind of model reads.
OF_DECODERS = ("minutes", "steps", "batch_tokens", "tokenizer", "hidden", "context", "uncompiled", "answer_tokens")
OF_ENCODERS = ("epochs", "batch_rows", "positions")
# What a checkpoint has already. An encoder's `--layers` and `--positions` are read: it may grow.
OF_FRESH_DECODERS = ("hidden", "layers", "vocabulary", "context", "tokenizer")
OF_FRESH_ENCODERS = ("vocabulary",)
OF_EXPORTS = ("answer_tokens", "name", "version", "overwrite", "precision", "parity", "description", "dev_rows")
ALL = {*OF_DECODERS, *OF_ENCODERS, *OF_FRESH_DECODERS, *OF_EXPORTS}


def refuse(args: argparse.Namespace, kind: str) -> None:
    """Raises for the first flag that a training of this kind does not read."""
    of_other(args, kind)
    if args.no_export and (given := _given(args, OF_EXPORTS)):
        raise SystemExit(f"{flag(given)} is for the export, and with --no-export there is none: give it to `export`")
    if origin(args) == "checkpoint" and (given := _given(args, OF_FRESH_DECODERS if kind == "generate" else OF_FRESH_ENCODERS)):
        raise SystemExit(f"{flag(given)} is for a training from nothing, and {args.source} has its own: leave it out")
    if args.steps and args.minutes:
        raise SystemExit("--steps says how long instead of --minutes: leave one out")
    if args.lora and origin(args) == net.SCRATCH:
        raise SystemExit("--lora is for weights that know something, which it leaves as they are, and from scratch there are none: leave it out")
    if args.tokenizer and args.vocabulary:
        raise SystemExit("--vocabulary is for a tokenizer that is trained, and --tokenizer names one that is there: leave one out")


def of_other(args: argparse.Namespace, kind: str) -> None:
    """Raises for the first flag that only the other kind of model reads."""
    flags, other = (OF_ENCODERS, "encoders") if kind == "generate" else (OF_DECODERS, "decoders")
    if given := _given(args, flags):
        raise SystemExit(f"{flag(given)} is for {other}, and this model is of kind `{kind}`: leave it out")


def _given(args: argparse.Namespace, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if getattr(args, name, None) != args.defaults.get(name)), None)


def flag(name: str) -> str:
    """As the command line has it."""
    return "--" + name.replace("_", "-")


def origin(args: argparse.Namespace) -> str:
    """What a training starts from."""
    return args.source if args.source in (net.SCRATCH, net.MINILM) else "checkpoint"
