"""The tiny models of tests/fixtures/models, for tests of the engine that must not depend on what a model knows: random weights, and for
the tagger tables by token, so that its answers can be worked out by hand.

    python -m shoal_trainer.fixtures tests/fixtures/models
"""
from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, BertModel, LlamaConfig, LlamaForCausalLM

from . import card, model
from .encoder.export import export as export_encoder
from .encoder.fill import net as fill
from .encoder.fill.folder import SLOTS, Folder, as_json
from .export import export
from .prompt import SPECIAL, Prompt
from .tasks import extract


SEED = 20261123
LABELS = ["play_music", "book_table", "weather", "oos"]
CALL = {
    "x-guidance": {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"},
    "type": "object",
    "properties": {"tool": {"enum": ["A", "B"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}, "name": {"type": "string", "maxLength": 12}},
    "required": ["tool", "count", "name"],
    "additionalProperties": False,
}

CLASSES = ["PlayMusic", "BookRestaurant"]
TAGS = ["genre", "artist", "city", "party_size"]
ALLOWED = {"PlayMusic": ["genre", "artist"], "BookRestaurant": ["city", "party_size"]}
# What a token says for a tag, as a logit: all other tags have 0, and O has 4 with every token.
TAGGED = {
    "jazz": {"B-genre": 6}, "rock": {"B-genre": 6}, "##y": {"I-genre": 6}, "miles": {"B-artist": 6}, "davis": {"B-artist": 5, "I-artist": 6},
    "york": {"I-city": 6}, "new": {"B-city": 6}, "oslo": {"B-city": 6}, "two": {"B-party_size": 5}, "cafe": {"I-city": 9},
}
# What a token says for a class: the logits of a text are the sums over its tokens.
CLASSED = {"play": {"PlayMusic": 4}, "book": {"BookRestaurant": 4}, "table": {"BookRestaurant": 1}}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TAGGED, *CLASSED, "some", "by", "a", "for", "in", "and", "then", ",", "."]
TOOL = {
    "type": "object",
    "properties": {"tool": {"enum": CLASSES}, "arguments": {"type": "object", "additionalProperties": {"type": "string"}}},
    "required": ["tool", "arguments"],
    "additionalProperties": False,
}
ANSWERS = {
    "call.answer.jinja": """{"tool": {{ class | tojson }}, "arguments": {
{%- for label in spans | map(attribute="label") | unique %}
{{- label | tojson }}: {{ spans | selectattr("label", "equalto", label) | map(attribute="text") | join(" and ") | tojson }}{{ ", " if not loop.last }}
{%- endfor %}}}
""",
    "steps.answer.jinja": """{% for span in spans %}
{{ loop.index }}. {{ span.label }}: {{ span.text }}
{% endfor %}
""",
    "extract.answer.jinja": extract.ANSWER,
}


def sample_text() -> list[str]:
    """Words in random order: enough for a BPE of 512 entries to have merges."""
    rng, words = random.Random(SEED), "play some jazz book a table for two find the weather in newark and then reserve it at noon please".split()
    return [" ".join(rng.choices(words, k=8)) for _ in range(400)]


# In one line, as most exporters write it.
TEMPLATE = (
    "{%- set content = messages[-1].content -%}<|task|>{{ task }}<|input|>{%- if content is mapping -%}{%- for service, methods in content.methods.items() -%}"
    "{%- for method, parameters in methods.items() -%}{{ service }}.{{ method }}({{ parameters | join(', ') }}){{ '\\n' }}{%- endfor -%}{%- endfor -%}"
    "{%- for turn in content.turns -%}> {{ turn }}{{ '\\n' }}{%- endfor -%}{%- else -%}{{ content }}{%- endif -%}<|output|>"
)


def prompt() -> Prompt:
    """A byte-level BPE of 512 entries that cuts as GPT-2's does, blanks before words: other than the trainer's own, as a user's model will be."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=512, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(sample_text(), trainer)
    return Prompt(tokenizer, TEMPLATE)


def about(name: str, kind: str, licence: str = "Apache-2.0") -> dict:
    """What every fixture's card says."""
    return {
        "name": name,
        "version": 1,
        "kind": kind,
        "description": "random weights, for tests",
        "licence": licence,
        "limits": {"context_tokens": 256, "max_new_tokens": 64},
        "price": card.PRICE,
    }


def decoder(root: Path) -> None:
    """tiny_decoder: tasks `echo` (free text) and `call` (held to a schema)."""
    torch.manual_seed(SEED)
    asked = prompt()
    config = LlamaConfig(
        vocab_size=asked.tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=128, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None, eos_token_id=asked.end, pad_token_id=asked.end,
        initializer_range=0.2,  # Wide, so that logits differ enough for greedy choices never to hang on rounding.
    )
    here = root / "tiny_decoder" / "1"
    with tempfile.TemporaryDirectory() as scratch:
        model.save(LlamaForCausalLM(config), asked, Path(scratch))
        export(Path(scratch), here, [])
    (here / "output.schema.json").write_text(json.dumps(CALL, indent=1) + "\n")
    extra = {"output": {"call": {"schema": "output.schema.json"}}, "calibration": {"call": {"confidence_threshold": 0.5}}, "training": {"seed": SEED}}
    card.write(root / "tiny_decoder", "tiny_decoder", ["echo", "call"], {**about("tiny_decoder", "generate"), **extra})


def bert_tokenizer() -> Tokenizer:
    """The same BPE with [CLS] and [SEP]-like marks, as encoders expect."""
    tokenizer = prompt().tokenizer
    mark = tokenizer.token_to_id("<|task|>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<|task|> $A", special_tokens=[("<|task|>", mark)])
    return tokenizer


def encoder(root: Path, name: str, kind: str, extra: dict) -> None:
    """tiny_classifier or tiny_embedder: a BERT-shaped encoder. Inputs input_ids, attention_mask: [rows, seq] i64."""
    torch.manual_seed(SEED)
    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=128,
        num_labels=len(LABELS), initializer_range=0.2, attn_implementation="eager",
    )
    network = BertForSequenceClassification(config) if kind == "classify" else BertModel(config, add_pooling_layer=False)
    network.eval()

    class Named(torch.nn.Module):
        """The network with two inputs and one output."""

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            out = network(input_ids=input_ids, attention_mask=attention_mask)
            return out.logits if kind == "classify" else out.last_hidden_state

    named = Named()
    named.network = network
    here = root / name / "1"
    here.mkdir(parents=True, exist_ok=True)
    ids = torch.ones((2, 7), dtype=torch.int64)
    output = "logits" if kind == "classify" else "last_hidden_state"
    axes = {"input_ids": {0: "rows", 1: "seq"}, "attention_mask": {0: "rows", 1: "seq"}, output: {0: "rows", **({} if kind == "classify" else {1: "seq"})}}
    torch.onnx.export(
        named, (ids, ids), str(here / "model.onnx"), input_names=["input_ids", "attention_mask"], output_names=[output], dynamic_axes=axes, dynamo=False, opset_version=17
    )
    tokenizer.save(str(here / "tokenizer.json"))
    card.write(root / name, name, ["route"] if kind == "classify" else ["embed"], {**about(name, kind), **extra, "training": {"seed": SEED}})


def table(name: str, rows: dict[str, dict[str, int]], columns: list[str], floor: dict[str, int]) -> onnx.TensorProto:
    """Logits by token: [len(WORDS), len(columns)] f32."""
    values = [float(rows.get(word, {}).get(column, floor.get(column, 0))) for word in WORDS for column in columns]
    return helper.make_tensor(name, TensorProto.FLOAT, [len(WORDS), len(columns)], values)


def tagger(root: Path, name: str, forms: dict[str, dict[str, str]], more: dict, pair: str | None = None) -> None:
    """A tag's logits are looked up by token, a class's are summed over all that is read. `pair` is how the tokenizer puts two texts together."""
    here = root / name / "1"
    here.mkdir(parents=True, exist_ok=True)
    tags = ["O", *(f"{mark}-{tag}" for tag in TAGS for mark in "BI")]
    nodes = [
        helper.make_node("Gather", ["tags", "input_ids"], ["tag_logits"]),
        helper.make_node("Gather", ["classes", "input_ids"], ["said"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["said", "weights"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "middle"], ["class_logits"], keepdims=0),
    ]
    tables = [
        table("tags", TAGGED, tags, {"O": 4}), table("classes", CLASSED, CLASSES, {}),
        helper.make_tensor("last", TensorProto.INT64, [1], [2]), helper.make_tensor("middle", TensorProto.INT64, [1], [1]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value(name, TensorProto.INT64, ["rows", "tokens"]) for name in ("input_ids", "attention_mask")]
    outputs = [value("tag_logits", TensorProto.FLOAT, ["rows", "tokens", len(tags)]), value("class_logits", TensorProto.FLOAT, ["rows", len(CLASSES)])]
    network = helper.make_model(helper.make_graph(nodes, name, inputs, outputs, tables), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(network)
    onnx.save(network, str(here / "model.onnx"))
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=[(mark, WORDS.index(mark)) for mark in ("[CLS]", "[SEP]")])
    tokenizer.save(str(here / "tokenizer.json"))
    for form in forms.values():
        (here / form["template"]).write_text(ANSWERS[form["template"]])
    (here / "call.schema.json").write_text(json.dumps(TOOL, indent=1) + "\n")
    extra = {
        "limits": {"context_tokens": 32, "max_new_tokens": 0},
        "tag": {"classes": CLASSES, "labels": TAGS, "allowed": ALLOWED, **more},
        "output": forms,
        "calibration": {"call": {"confidence_threshold": 0.5, "statistic": "sum_logprob", "knots": [[-8.0, 0.1], [0.0, 0.9]]}},
    }
    card.write(root / name, name, list(forms), {**about(name, "tag"), "description": "tables by token, for tests", **extra})


def taggers(root: Path) -> None:
    """tiny_tag: tasks `call` (JSON) and `steps` (lines), of a text. tiny_tag_pair: tasks `call` and `extract`, of an object."""
    call = {"schema": "call.schema.json", "template": "call.answer.jinja"}
    tagger(root, "tiny_tag", {"call": call, "steps": {"template": "steps.answer.jinja"}}, {})
    fields = {"input": {"text": "user", "before": "system", "labels": "slots"}}
    tagger(root, "tiny_tag_pair", {"call": call, "extract": {"template": "extract.answer.jinja"}}, fields, "[CLS] $A [SEP] $B:1 [SEP]:1")


METHODS = {"Cabs_1": {"GetRide": ["to", "riders"], "FindStop": ["near_to"]}, "Food_2": {"BookTable": ["city", "at_time"]}}
CONVERSATIONS = [
    {"methods": METHODS, "turns": ["A table in Oslo at noon, please.", "And a cab for 2 there!"]},
    {"methods": {"Food_2": METHODS["Food_2"]}, "turns": [{"speaker": "user", "text": "Dinner?"}, {"speaker": "system", "text": "Where, and when?"}, {"speaker": "user", "text": "Zürich, 7 pm"}]},
    {"methods": {"X": {"Ping": []}}, "turns": ["go"]},
    {"methods": {"Cabs_1": METHODS["Cabs_1"]}, "turns": ["... ", "近くの駅 please"]},
]
CALLS = """{%- for call in calls -%}
{{ call.service }}.{{ call.method }}({% for p in call.parameters %}{{ p.name }}={% if p.call is defined %}${{ p.call }}.{{ p.field }}{% else %}{{ p.text | tojson }}{% endif %}{{ ", " if not loop.last }}{% endfor %}){{ "\n" if not loop.last }}
{%- endfor -%}
"""


def filler(root: Path) -> None:
    """tiny_fill: task `calls` of a conversation. Beside the version, what the trainer's own reading makes of some conversations."""
    torch.manual_seed(SEED + 18)  # Whose answers have known values, runs of words and references.
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    vocabulary = [*WORDS[:4], *characters, *(f"##{c}" for c in characters if c.isalnum())]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(WORDS[:4])
    marks = [(mark, WORDS.index(mark)) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks)
    shape = fill.Shape(("1", "2", "noon", "Oslo"), {"Cabs_1.riders": (0, 1), "Food_2.city": (3,)}, ("street",), {"Cabs_1.FindStop": ("near_to", "riders")})
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=256, initializer_range=0.5,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    network = fill.Filler(config, shape)
    for parameter in (p for name, p in network.named_parameters() if not name.startswith("body.") and p.ndim == 2):
        torch.nn.init.normal_(parameter, std=0.5)  # Wide, so that no choice hangs on rounding.
    here = root / "tiny_fill" / "1"
    export_encoder(network, tokenizer, here, "fp32")
    (here / SLOTS).write_text(as_json(shape))
    (here / "calls.answer.jinja").write_text(CALLS)
    extra = {
        "limits": {"context_tokens": 256, "max_new_tokens": 0},
        "fill": {"calls": {"methods": "methods", "turns": "turns", "references": True}},
        "output": {"calls": {"template": "calls.answer.jinja"}},
        "training": {"seed": SEED},
    }
    about_it = {**about("tiny_fill", "fill"), **extra}
    card.write(root / "tiny_fill", "tiny_fill", ["calls"], about_it)
    opened = Folder(here, about_it)
    said = [(given, opened.greedy("calls", given)) for given in CONVERSATIONS]
    expected = [{"input": given, "text": answer.text, "logprobs": [round(x, 4) for x in answer.logprobs]} for given, answer in said]
    (root / "tiny_fill" / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")


def main(root: Path) -> None:
    """All six."""
    decoder(root)
    encoder(root, "tiny_classifier", "classify", {"classify": {"labels": LABELS}})
    encoder(root, "tiny_embedder", "embed", {"embed": {"pooling": "mean", "normalise": True, "dimensions": 32}})
    taggers(root)
    filler(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
