"""Encoders from scratch: of MiniLM's shape and with its word pieces, and of its weights nothing."""
import argparse
import json
import tomllib
from pathlib import Path

import pytest
import torch
from conftest import learned, rows

from shoal_trainer import batches, state, training
from shoal_trainer.__main__ import parser
from shoal_trainer.encoder import loop, net

WORDS = "embeddings.word_embeddings.weight"
SMALL = "--layers 1 --vocabulary 3000 --epochs 4 --batch-rows 20 --looks 2 --threads 1".split()


def args(task: str, folder: Path, *more: str) -> argparse.Namespace:
    for split, part in (("train", rows(task)[:40]), ("dev", rows(task)[40:60])):
        (folder / f"{task}.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return parser().parse_args(["train", "--task", task, "--from", "scratch", "--data", str(folder), "--out", str(folder / "m"), *SMALL, *more])


def test_it_is_trained_and_exported_and_its_card_cites_the_vocabulary_and_no_weights(tmp_path: Path) -> None:
    given = args("tool_call", tmp_path)
    given.run(given)
    card = tomllib.loads((tmp_path / "m" / "1" / "card.toml").read_text())
    (run,) = card["training"]["runs"]
    assert card["kind"] == "tag" and run["from"] == "scratch" and run["embeddings"] and run["rate"] == 1e-3 and (run["layers"], run["vocabulary"], run["positions"]) == (1, 3000, 512)
    assert [(d["source"], d["licence"]) for d in card["data"]] == [("sentence-transformers/all-MiniLM-L6-v2/tokenizer.json", "Apache-2.0"), ("sonos/nlu-benchmark", "CC0-1.0")]
    assert card["data"][0]["sha256"] == net.digest("tokenizer.json") != net.digest() and card["licence"] == "Apache-2.0"
    encoder, tokenizer = net.opened(tmp_path / "m" / "1")
    minilm, its = net.pretrained(encoder.shape, layers=1, vocabulary=3000)
    mine, theirs = encoder.state_dict(), minilm.state_dict()
    assert tokenizer.to_str() == its.to_str() and {k: v.shape for k, v in mine.items()} == {k: v.shape for k, v in theirs.items()}
    assert not any(torch.equal(mine[k], theirs[k]) for k in mine)
    assert encoder.body.config.hidden_dropout_prob == 0, "what is trained on from it has none, as from MiniLM"


@pytest.mark.parametrize("task", ["tool_call", "route", "episode"])
def test_random_words_are_learned_and_those_that_no_row_holds_stay_where_they_began(task: str) -> None:
    of, share = learned(task), batches.Share(learned(task), rows(task)[:20])
    shape = training.shape_of([(of, rows(task)[:20])]) if task == "episode" else net.Shape(tuple(of.classes()), tuple(of.labels()))
    encoder, tokenizer = net.fresh(shape, layers=1, vocabulary=3000, positions=700)
    assert {part.p for part in encoder.body.modules() if isinstance(part, torch.nn.Dropout)} == {0.1}
    before = {name: part.clone() for name, part in encoder.body.named_parameters()}
    loop.train(encoder, tokenizer, [share], loop.Recipe(epochs=2.0, batch_rows=10, varied=0.0, decay=0.0, embeddings=True))
    moved = {name for name, part in encoder.body.named_parameters() if not torch.equal(part, before[name])}
    assert moved == set(before)
    rows_moved = (encoder.body.get_input_embeddings().weight != before[WORDS]).any(1)
    assert rows_moved[tokenizer.token_to_id("[CLS]")] and 20 < int(rows_moved.sum()) < 2000


def test_random_attention_of_a_filler_drops_out_while_it_is_trained_and_only_then() -> None:
    of = learned("episode")
    filler, tokenizer = net.fresh(training.shape_of([(of, rows("episode")[:20])]), layers=1, vocabulary=3000)
    for part in filler.body.modules():
        if isinstance(part, torch.nn.Dropout):  # A layer's attention has its own, which is no part of what is left then.
            part.p = 0.9 if part is filler.body.encoder.layer[0].attention.self.dropout else 0.0
    ids = torch.tensor([tokenizer.encode("find me a table in oslo").ids])
    for training_, same in ((True, False), (False, True)):
        filler.train(training_)
        one, two = (filler.body(ids).last_hidden_state for _ in range(2))
        assert torch.equal(one, two) == same


def test_a_run_that_goes_on_after_a_stop_goes_on_learning_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, glance = [0], training.publish_encoder.glance

    def stopped(*given: object) -> dict[str, float]:
        looks[0] += 1
        if looks[0] == 2:
            raise KeyboardInterrupt
        return glance(*given)

    monkeypatch.setattr(training.publish_encoder, "glance", stopped)
    with pytest.raises(KeyboardInterrupt):
        training.train(args("tool_call", tmp_path))
    had = state.load(tmp_path / "m.work", "cpu")["model"][f"body.{WORDS}"]
    work = training.train(args("tool_call", tmp_path, "--resume"))
    first, then = json.loads((work / "training.json").read_text())["runs"]
    assert (first["from"], first["stopped"], then["from"], then["resumed"], then["embeddings"]) == ("scratch", True, "scratch", True, True)
    last = state.load(work, "cpu")["model"][f"body.{WORDS}"]
    assert (last != had).any(1).sum() > 20


def test_adapters_beside_weights_that_know_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--lora is for weights that know something"):
        training.train(args("tool_call", tmp_path, "--lora", "4"))
