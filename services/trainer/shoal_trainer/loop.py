"""The training loop: length-sorted batches, loss on the answer (lightly on the prompt), cosine schedule bounded by steps or minutes.

A run can be stopped at any moment: the checkpoint of the last epoch is whole, and `--resume` goes on from it.
"""
from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM

from . import model as checkpoint
from .augment import Augment
from .prompt import Prompt
from .tasks import Task

Row = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How to train. Every number was chosen on two CPU threads; a GPU takes a larger `batch_tokens`."""

    epochs: int = 12
    minutes: float = 60.0  # Ends the schedule early: the learning rate reaches its floor when the time is up.
    rate: float = 2e-3  # Peak; a 2-3M model from scratch takes it, a fine-tune wants a tenth.
    warm_up: int = 150  # Steps.
    batch_tokens: int = 2048  # Padded tokens of a batch.
    prompt_weight: float = 0.1  # Of the prompt's loss: language helps a little, answers are what is wanted.
    smoothing: float = 0.02
    patience: int = 4  # Epochs without a better dev score before it stops.
    dev_rows: int = 150
    answer_tokens: int = 192
    seed: int = 1


def batches(pairs: list[tuple[list[int], list[int]]], tokens: int, rng: random.Random) -> list[list[tuple[list[int], list[int]]]]:
    """Groups of like length, each at most `tokens` padded tokens, in random order."""
    ordered = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]) + rng.random() * 4)
    groups: list[list[tuple[list[int], list[int]]]] = [[]]
    for pair in ordered:
        length = len(pair[0]) + len(pair[1])
        if groups[-1] and length * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(pair)
    rng.shuffle(groups)
    return groups


def loss_of(model: LlamaForCausalLM, group: list[tuple[list[int], list[int]]], recipe: Recipe, pad: int) -> torch.Tensor:
    """Weighted cross entropy of one batch. ids: [rows, longest]."""
    longest = max(len(asked) + len(answer) for asked, answer in group)
    ids = torch.full((len(group), longest), pad)
    weight = torch.zeros((len(group), longest))
    for i, (asked, answer) in enumerate(group):
        end = len(asked) + len(answer)
        ids[i, :end] = torch.tensor(asked + answer)
        weight[i, : len(asked)] = recipe.prompt_weight
        weight[i, len(asked) : end] = 1.0
    ids, weight = ids.to(model.device), weight[:, 1:].to(model.device)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=model.device.type == "cuda"):
        logits = model(input_ids=ids).logits[:, :-1]
    each = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), ids[:, 1:].reshape(-1), reduction="none", label_smoothing=recipe.smoothing
    )
    return (each.view_as(weight) * weight).sum() / weight.sum()


def train(
    model: LlamaForCausalLM,
    prompt: Prompt,
    task: Task,
    rows: list[Row],
    score: Callable[[], float],
    recipe: Recipe,
    folder: Path,
    resume: bool = False,
) -> dict[str, float]:
    """Trains and keeps the checkpoint that scored best on dev in `folder`. Returns what the card says of the run."""
    rng = random.Random(recipe.seed)
    augment = Augment(task, rows)
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=recipe.rate, betas=(0.9, 0.98))
    state_file, step, first, best, stale = folder / "state.pt", 0, 0, -1.0, 0
    spent = 0.0
    if resume and state_file.is_file():
        state = torch.load(state_file, map_location=model.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, first, best, spent = state["step"], state["epoch"], state["best"], state["seconds"]
    limit = model.config.max_position_embeddings
    began = time.monotonic() - spent
    total = None
    for epoch in range(first, recipe.epochs):
        pairs = [(prompt.ask(task.name, row["input"]), prompt.answer(task.say(row["target"]))) for row in (augment(row, rng) for row in rows)]
        groups = batches([p for p in pairs if len(p[0]) + len(p[1]) <= limit], recipe.batch_tokens, rng)
        total = total or len(groups) * recipe.epochs
        bar = tqdm(groups, desc=f"epoch {epoch + 1}/{recipe.epochs}", unit="step", mininterval=2)
        model.train()
        for group in bar:
            done = max(step / total, (time.monotonic() - began) / 60 / recipe.minutes)
            if done >= 1:
                break
            factor = min(1.0, (step + 1) / recipe.warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            for part in optimizer.param_groups:
                part["lr"] = recipe.rate * factor
            loss = loss_of(model, group, recipe, prompt.end)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        reached = score()
        stale = 0 if reached > best else stale + 1
        if reached > best:
            best = reached
            checkpoint.save(model, prompt, folder)
        seconds = time.monotonic() - began
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "epoch": epoch + 1, "best": best, "seconds": seconds}, state_file)
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"epoch": epoch + 1, "step": step, "dev_score": reached, "seconds": round(seconds, 1)}) + "\n")
        if seconds / 60 >= recipe.minutes or stale > recipe.patience:
            break
    return {"steps": step, "seconds": round(time.monotonic() - began, 1), "best_dev_score_while_training": best}
