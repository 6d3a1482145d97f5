"""The training loop: one code for a first training, a full fine-tune and LoRA, on one task or a mixture.

Loss on the answer, lightly on the prompt; Muon on the matrices and AdamW on the rest; a schedule that ends with the time it was given;
weights averaged over the last steps. The checkpoint kept is the averaged one that was best on dev. A run can be stopped at any moment,
and `--resume` goes on from its last look at dev.
"""
from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from . import model as checkpoint
from . import precision
from . import state as disk
from .batches import Pair, Share, Stream, packed, tensors
from .data import spread
from .prompt import Prompt


@dataclass(frozen=True)
class Recipe:
    """How to train. Every number was chosen on two CPU threads; a GPU takes a larger `batch_tokens`."""

    minutes: float = 60.0  # The learning rate reaches its floor when they are up.
    steps: int = 0  # The run's length instead of `minutes`, so that it is the same on a busy machine; 0 goes by the clock.
    rate: float = 4e-3  # Peak, of a first training; a fine-tune starts at a quarter.
    warm_up: int = 100  # Steps.
    batch_tokens: int = 4096  # Padded tokens of a batch.
    prompt_weight: float = 0.1  # Of the prompt's loss: language helps a little, answers are what is wanted.
    smoothing: float = 0.0
    decay: float = 0.05
    average: float = 0.998  # Of the averaged weights, a step: about the last 500 steps count.
    looks: int = 20  # Looks at dev over the whole run.
    patience: int = 6  # Looks without a better one before it stops.
    dev_rows: int = 400  # Of each task.
    seed: int = 1
    compiled: bool = True  # torch.compile: twice as fast after a minute of compiling.


def train(weights: nn.Module, prompt: Prompt, shares: list[Share], dev: list[Share], recipe: Recipe, folder: Path, resume: bool = False, asked: dict[str, Any] | None = None) -> dict[str, float]:
    """Trains `weights` in place, and leaves them as they were best on dev. Returns what the card says of the run. `asked` is kept with it, for
    `state.same` to compare before anything goes on from it."""
    torch.manual_seed(recipe.seed)
    context = checkpoint.base(weights).config.max_position_embeddings
    optimizers = _optimizers(weights, recipe)
    averaged = _Average(weights, recipe.average)
    step, spent, best, stale, read = 0, 0.0, -1.0, 0, 0
    state = disk.load(folder, checkpoint.base(weights).device) if resume else None
    if state:
        weights.load_state_dict(state["model"])
        averaged.load(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, spent, best, stale, read = state["step"], state["seconds"], state["best"], state["stale"], state["tokens"]
    forward = _forward(weights, recipe.compiled)
    # A resumed run draws other variants than the first part of it did, not the same ones again.
    stream = iter(Stream(shares, prompt, context, recipe.batch_tokens, recipe.seed + step))
    began, kept = time.monotonic() - spent, state["kept"] if state else averaged.copy()
    looks = int(recipe.looks * _done(recipe, step, spent))
    unit = "steps" if recipe.steps else "s"
    bar = tqdm(total=recipe.steps or round(recipe.minutes * 60), initial=step if recipe.steps else round(spent), mininterval=5, bar_format="{l_bar}{bar}| {n:.0f}/{total} " + unit + "{postfix}")
    while True:
        seconds = time.monotonic() - began
        done = _done(recipe, step, seconds)
        if done * recipe.looks >= looks + 1 or done >= 1:
            looks = int(done * recipe.looks)
            with averaged.in_place_of(weights):
                exact = {share.task.name: teacher_forced(forward, weights, prompt, share, recipe) for share in dev}
            reached = sum(exact.values()) / len(exact)
            stale = 0 if reached > best else stale + 1
            if reached > best:
                best, kept = reached, averaged.copy()
            parts = {"model": weights.state_dict(), "average": averaged.state(), "optimizers": [o.state_dict() for o in optimizers], "kept": kept}
            disk.save(folder, {**parts, "step": step, "seconds": seconds, "best": best, "stale": stale, "tokens": read, "asked": asked})
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"seconds": round(seconds), "step": step, "tokens": read, "dev_exact": reached, **{k: round(v, 4) for k, v in exact.items()}}) + "\n")
            bar.write(json.dumps({"step": step, **{k: round(v, 4) for k, v in exact.items()}}))
            if done >= 1 or stale >= recipe.patience:
                break
        rate = min(1.0, (step + 1) / recipe.warm_up) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
        group = next(stream)
        loss = _step(forward, weights, group, recipe, prompt.end, optimizers, rate)
        averaged.add(weights, step)
        step += 1
        read += sum(len(asked) + len(answer) for asked, answer in group)
        bar.update((step if recipe.steps else round(seconds)) - bar.n)
        bar.set_postfix_str(f"step {step}, loss {loss:.3f}, {read / max(seconds, 1e-9):.0f} tokens/s", refresh=False)
    bar.close()
    averaged.load(kept)
    averaged.into(weights)
    return {"steps": step, "tokens": read, "seconds": round(time.monotonic() - began, 1), "best_dev_exact": round(best, 4)}


def _done(recipe: Recipe, step: int, seconds: float) -> float:
    """How far the run is, 1 at its end."""
    return step / recipe.steps if recipe.steps else seconds / 60 / recipe.minutes


def _optimizers(weights: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the hidden matrices, AdamW for embeddings, norms and adapters."""
    named = [(n, p) for n, p in weights.named_parameters() if p.requires_grad]
    hidden = [p for n, p in named if p.dim() == 2 and "embed" not in n and "lm_head" not in n and "lora_" not in n]
    rest = [p for n, p in named if not any(p is h for h in hidden)]
    found: list[torch.optim.Optimizer] = []
    if hidden:
        found.append(torch.optim.Muon(hidden, lr=recipe.rate, weight_decay=recipe.decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"))
    if rest:
        found.append(torch.optim.AdamW(rest, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0))
    for optimizer in found:
        for part in optimizer.param_groups:
            part["peak"] = part["lr"]
    return found


def _forward(weights: nn.Module, compiled: bool):  # noqa: ANN202 - a function of ids to logits
    """ids [rows, longest] to logits [rows, longest, vocabulary]. Right-padded and causal: no mask is needed."""

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return weights(input_ids=ids, use_cache=False).logits

    return torch.compile(logits, dynamic=True) if compiled else logits


def _step(forward, weights: nn.Module, group: list[Pair], recipe: Recipe, pad: int, optimizers: list[torch.optim.Optimizer], rate: float) -> float:  # noqa: ANN001
    device = checkpoint.base(weights).device
    ids, weight = (t.to(device) for t in tensors(group, recipe.prompt_weight, pad))
    with precision.autocast(device):
        logits = forward(ids)[:, :-1]
    each = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1), reduction="none", label_smoothing=recipe.smoothing
    )
    loss = (each.view_as(weight) * weight).sum() / weight.sum()
    loss.backward()
    nn.utils.clip_grad_norm_([p for p in weights.parameters() if p.requires_grad], 1.0)
    for optimizer in optimizers:
        for part in optimizer.param_groups:
            part["lr"] = part["peak"] * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


@torch.no_grad()
def teacher_forced(forward, weights: nn.Module, prompt: Prompt, share: Share, recipe: Recipe) -> float:  # noqa: ANN001
    """Share of rows whose every answer token is the likeliest one: just those that greedy decoding answers to the letter."""
    device = checkpoint.base(weights).device
    context = checkpoint.base(weights).config.max_position_embeddings
    rows = spread(share.rows, recipe.dev_rows)
    pairs = [(prompt.ask(share.task.name, row["input"]), prompt.answer(share.task.say(row["target"]))) for row in rows]
    fits = [pair for pair in pairs if len(pair[0]) + len(pair[1]) <= context]
    right = 0
    for group in packed(fits, recipe.batch_tokens):
        ids, weight = (t.to(device) for t in tensors(group, 0.0, prompt.end))
        with precision.autocast(device):
            best = forward(ids)[:, :-1].argmax(-1)
        right += int(((best == ids[:, 1:]) | (weight == 0)).all(1).sum())
    return right / max(1, len(rows))


class _Average:
    """Exponential moving average of the weights that are trained (Polyak 1990)."""

    def __init__(self, weights: nn.Module, decay: float) -> None:
        self._decay = decay
        self._mean = {n: p.detach().clone() for n, p in weights.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def add(self, weights: nn.Module, step: int) -> None:
        # Early on a long memory would be of random weights.
        decay = min(self._decay, (1 + step) / (10 + step))
        for n, p in weights.named_parameters():
            if n in self._mean:
                self._mean[n].lerp_(p, 1 - decay)

    def copy(self) -> dict[str, torch.Tensor]:
        return {n: t.clone() for n, t in self._mean.items()}

    def state(self) -> dict[str, torch.Tensor]:
        return self._mean

    def load(self, state: dict[str, torch.Tensor]) -> None:
        for n, t in state.items():
            self._mean[n].copy_(t)

    @torch.no_grad()
    def into(self, weights: nn.Module) -> None:
        for n, p in weights.named_parameters():
            if n in self._mean:
                p.copy_(self._mean[n])

    def in_place_of(self, weights: nn.Module) -> _Swapped:
        return _Swapped(self, weights)


class _Swapped:
    """While it is entered, the weights are the averaged ones."""

    def __init__(self, average: _Average, weights: nn.Module) -> None:
        self._average, self._weights = average, weights
        self._own: dict[str, torch.Tensor] = {}

    def __enter__(self) -> None:
        self._own = {n: p.detach().clone() for n, p in self._weights.named_parameters() if p.requires_grad}
        self._average.into(self._weights)

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for n, p in self._weights.named_parameters():
            if n in self._own:
                p.copy_(self._own[n])
