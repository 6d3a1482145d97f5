"""The training loop of encoders: AdamW, one cycle of the learning rate, the word pieces' embeddings left as they are where they know words. A run can be stopped at any
moment, and `resume` goes on from its last look at dev."""
from __future__ import annotations

import json
import math
import random
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator

import torch
from tokenizers import Tokenizer
from torch import nn
from tqdm import tqdm

from .. import precision
from .. import state as disk
from ..batches import Share
from ..data import DataError
from ..tasks import Row, Task
from . import net, study
from .fill import study as of_fillers
from .fill.net import Filler

POOL = 2048  # Rows that are sorted together by length: batches of like length, and still mixed.


@dataclass(frozen=True)
class Recipe:
    """How to train. Chosen on one CPU thread."""

    epochs: float = 6.0
    rate: float = 2e-4  # Peak, of the body.
    head_rate: float = 1e-3  # Peak, of the heads, which start at random.
    batch_rows: int = 64  # Of a batch.
    varied: float = 0.5  # Share of rows that are variants, each time they are seen.
    class_weight: float = 0.3  # Of the class's loss beside the tags'.
    decay: float = 0.01
    embeddings: bool = False  # Whether the word pieces' are learned too: random ones must be.
    looks: int = 20  # Looks at dev over the whole run.
    patience: int = 10  # Looks without a better one before it stops: half of them, for much of what a cycle gains comes in its last third.
    seed: int = 1


def study_of(encoder: nn.Module, tokenizer: Tokenizer, task: Task, recipe: Recipe) -> Any:
    """How this kind of encoder learns: `example` of a row, `batch` of examples, `loss` of a batch."""
    return of_fillers.Study(encoder, tokenizer, task) if isinstance(encoder, Filler) else study.Study(encoder, tokenizer, task, recipe.class_weight)


Look = Callable[[], tuple[float, dict[str, float]]]  # What is to rise, and what is to be said.


def train(encoder: nn.Module, tokenizer: Tokenizer, shares: list[Share], recipe: Recipe, look: Look | None = None, folder: Path | None = None, resume: bool = False, asked: dict[str, Any] | None = None) -> dict[str, Any]:
    """Trains in place, looks at dev, and leaves the weights as they were best there; without a `look` as they are at the end. A batch is of one share.
    `folder` gets what `resume` goes on from: the last look, and `asked`, for `state.same` to compare. Returns what the card says of the run."""
    torch.manual_seed(recipe.seed)
    encoder.to("cuda" if torch.cuda.is_available() else "cpu")
    device = next(encoder.parameters()).device
    studies = [study_of(encoder, tokenizer, share.task, recipe) for share in shares]
    adapters = any("lora_" in name for name, _ in encoder.body.named_parameters())
    # MiniLM has learned its own positions; those that a lengthened encoder has beyond them begin as copies, and only learning tells them from the others.
    longer = encoder.body.config.max_position_embeddings > net.MINILM_POSITIONS
    for name, parameter in encoder.body.named_parameters():
        # A word that the rows do not hold must stay where its neighbours are, if it has such. With adapters they alone are trained.
        learned = recipe.embeddings or not name.startswith("embeddings.") or (longer and name.startswith("embeddings.position_embeddings."))
        parameter.requires_grad = "lora_" in name if adapters else learned
    heads = [p for n, p in encoder.named_parameters() if not n.startswith("body.")]
    body = [p for p in encoder.body.parameters() if p.requires_grad]
    steps = max(1, int(recipe.epochs * sum(len(share.rows) * share.weight for share in shares) / recipe.batch_rows))
    optimizer = torch.optim.AdamW([{"params": heads, "lr": recipe.head_rate}, {"params": body, "lr": recipe.rate}], weight_decay=recipe.decay, fused=True)
    saved = _State(encoder, optimizer, steps, folder, asked)
    if resume:
        saved.load()
    else:
        saved.forget()
    at = saved.at
    # A resumed run draws other variants than the first part of it did, not the same ones again.
    rng = random.Random(recipe.seed + at.step)
    examples = [_Examples(learns.example, share, recipe, rng) for learns, share in zip(studies, shares)]
    began = time.monotonic() - at.seconds
    encoder.train()
    bar = tqdm(total=steps, initial=at.step, unit="step", mininterval=5)
    for learns, drawn in _mixed(studies, examples, shares, rng):
        if at.step >= steps or at.stale >= recipe.patience:
            break
        batch = tuple(part.to(device) for part in learns.batch(drawn))
        loss = learns.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_([*heads, *body], 1.0)
        share, momentum = cycle(at.step, steps)
        for part, peak in zip(optimizer.param_groups, (recipe.head_rate, recipe.rate), strict=True):
            part["lr"], part["betas"] = share * peak, (momentum, part["betas"][1])
        optimizer.step()
        optimizer.zero_grad()
        at.step, at.tokens, at.seconds = at.step + 1, at.tokens + int(batch[1].sum()), time.monotonic() - began  # Of the batch its mask.
        bar.update()
        bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
        if look and at.step * recipe.looks // steps > (at.step - 1) * recipe.looks // steps:
            encoder.eval()
            reached, said = look()
            encoder.train()
            bar.write(json.dumps({"step": at.step, **said}))
            saved.looked(reached)
    bar.close()
    saved.best()
    encoder.to("cpu").eval()
    unreadable = sum(of.unreadable for of in examples)
    best = {"best_dev": round(at.best, 4), "curve": at.curve} if at.best >= 0 else {}
    return {"device": device.type, "precision": precision.name(device.type), "steps": at.step, "tokens": at.tokens, "seconds": round(time.monotonic() - began, 1), "unreadable_rows": unreadable, **best}


WARM_UP = 0.1  # Of the steps.
FIRST, LAST = 1 / 25, 1 / 25e4  # Shares of the peak rate.
MOMENTUM = 0.95, 0.85  # Where the rate is least, and at its peak.


def cycle(step: int, steps: int) -> tuple[float, float]:
    """The share of the peak rate, and the momentum, of a step (from 0 on) of so many: one cycle (Smith 2018), up and down along a cosine, as torch's
    OneCycleLR has it. That one divides by zero in a run of ten steps and has no rate in a run of one: a run too short to warm up begins at the peak."""
    peak = max(0.0, WARM_UP * steps - 1)
    if step < peak:
        least, height = FIRST, step / peak
    else:
        least, height = LAST, 1 - (step - peak) / max(1.0, steps - 1 - peak)
    risen = (1 - math.cos(math.pi * height)) / 2
    slow, fast = MOMENTUM
    return least + (1 - least) * risen, slow + (fast - slow) * risen


@dataclass
class _At:
    """Where a run is."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    best: float = -1.0  # Reached on dev.
    stale: int = 0  # Looks since.
    curve: list[list[float]] = field(default_factory=list)  # Of each look the step, and what was reached on dev.


class _State:
    """A run and its folder, if it has one."""

    def __init__(self, encoder: nn.Module, optimizer: torch.optim.Optimizer, steps: int, folder: Path | None, asked: dict[str, Any] | None = None) -> None:
        self._encoder, self._parts, self._steps, self._folder = encoder, {"model": encoder, "optimizer": optimizer}, steps, folder
        self._asked = asked
        self._kept: dict[str, torch.Tensor] | None = None
        self.at = _At()

    def looked(self, reached: float) -> None:
        """After a look at dev."""
        self.at.curve.append([self.at.step, round(reached, 4)])
        self.at.stale = 0 if reached > self.at.best else self.at.stale + 1
        if reached > self.at.best:
            self.at.best = reached
            self._kept = {name: part.detach().clone() for name, part in self._encoder.state_dict().items()}
        if self._folder:
            parts = {name: part.state_dict() for name, part in self._parts.items()}
            disk.save(self._folder, {**parts, "steps": self._steps, "asked": self._asked, "at": asdict(self.at), "best": self._kept})

    def forget(self) -> None:
        """A run before this one, which nobody may go on from by mistake."""
        if self._folder:
            disk.forget(self._folder)

    def load(self) -> None:
        """What the folder has of a run that was stopped."""
        state = disk.load(self._folder, next(self._encoder.parameters()).device) if self._folder else None
        if state is None:
            return
        if state["steps"] != self._steps:
            raise DataError(f"{self._folder} is of a run of {state['steps']} steps, and this one has {self._steps}: resume with the same data, --epochs, --batch-rows and --mix")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.at, self._kept = _At(**state["at"]), state["best"]

    def best(self) -> None:
        """Sets the weights to those that were best on dev, if anybody looked."""
        if self._kept:
            self._encoder.load_state_dict(self._kept)


def _mixed(studies: list[Any], examples: list[_Examples], shares: list[Share], rng: random.Random) -> Iterator[tuple[Any, list[Any]]]:
    """Batches without end, each with its study; of each share as many as its rows and its weight say."""
    streams = [iter(of) for of in examples]
    weights = [len(share.rows) * share.weight for share in shares]
    while True:
        i = rng.choices(range(len(shares)), weights)[0] if len(shares) > 1 else 0
        yield studies[i], next(streams[i])


class _Examples:
    """Batches without end: every row once a round, in random order."""

    def __init__(self, make: Callable[[Row], Any], share: Share, recipe: Recipe, rng: random.Random) -> None:
        self._make, self._task, self._rows, self._recipe, self._rng = make, share.task, share.rows, recipe, rng
        self.unreadable = 0  # Rows of the first round whose target is no reading of their input: they are left out.

    def __iter__(self) -> Iterator[list[Any]]:
        first = True
        while True:
            order = self._rng.sample(self._rows, len(self._rows))
            if not first and self.unreadable == len(self._rows):
                raise DataError(f"{self._task.name}: no row's target can be read off its input: a span must stand in it word for word, and the row must fit")
            for at in range(0, len(order), POOL):
                drawn = [self._draw(row) for row in order[at : at + POOL]]
                if first:
                    self.unreadable += drawn.count(None)
                ready = sorted((e for e in drawn if e), key=lambda e: len(e.ids))
                batches = [ready[i : i + self._recipe.batch_rows] for i in range(0, len(ready), self._recipe.batch_rows)]
                self._rng.shuffle(batches)
                yield from batches
            first = False

    def _draw(self, row: Row) -> Any:
        varied = self._task.vary(row, self._rng) if self._rng.random() < self._recipe.varied else row
        return self._make(varied) or self._make(row)

