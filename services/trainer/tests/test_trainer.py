"""Behaviour of the trainer, on the CPU, in under two minutes."""
import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

import llguidance
import pytest

from shoal_trainer import augment, card, data, score, tasks
from shoal_trainer.prompt import Prompt, template_text

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "tests" / "data"


def rows(task: str) -> list[dict]:
    return [json.loads(line) for line in (SAMPLES / f"{task}.sample.jsonl").read_text().splitlines()]


def write(folder: Path, lines: list[bytes]) -> Path:
    path = folder / "tool_call.train.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


GOOD = json.dumps({"id": "a", "task": "tool_call", "input": "play jazz", "target": {"tool": "PlayMusic", "arguments": {"genre": "jazz"}}}).encode()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b'{"id": "b", "task": "tool_call", "input": "x"}', "missing field `target`"),
        (b'{"task": "tool_call", "input": "x", "target": {}}', "missing field `id`"),
        (b'{"id": "b", "task": "tool_call", "input": 7, "target": {}}', "`input` must be str, not int"),
        (b'{"id": "b", "task": "plan", "input": "x", "target": []}', "task is `plan`"),
        (b'{"id": "b", "task": "tool_call", "input": "x", "target": {"tool": "T", "arguments": {"a": 1}}}', "argument `a` must be text"),
        (b'{"id": "b", "task": "tool_call", "input": "x", "target": {"tool": "T"}}', 'must be {"tool"'),
        (b'{"id": "\xff"}', "not UTF-8"),
        (b'{"id": ', "not JSON"),
        (b"[1]", "must be an object, not list"),
    ],
)
def test_a_broken_row_is_refused_with_its_file_and_line(tmp_path: Path, bad: bytes, said: str) -> None:
    path = write(tmp_path, [GOOD, bad])
    with pytest.raises(data.DataError) as error:
        data.read(path, tasks.task("tool_call"))
    assert str(error.value).startswith(f"{path}:2: ") and said in str(error.value)


@pytest.mark.parametrize("lines", [[], [GOOD]])
def test_an_empty_file_and_a_single_row_are_refused(tmp_path: Path, lines: list[bytes]) -> None:
    with pytest.raises(data.DataError, match="at least 2"):
        data.read(write(tmp_path, lines), tasks.task("tool_call"))


def test_a_truncated_gzip_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tool_call.train.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD * 100)[:40])
    with pytest.raises(data.DataError, match="cannot be read"):
        data.read(path, tasks.task("tool_call"))


@pytest.mark.parametrize("name", ["tool_call", "plan", "episode"])
def test_every_target_is_said_and_read_back_the_same(name: str) -> None:
    task = tasks.task(name)
    task.learn(rows(name))
    for row in rows(name):
        back = task.read(task.say(row["target"]))
        if name == "episode":
            assert [(c["service"], c["method"], c["parameters"]) for c in back] == [(c["service"], c["method"], c["parameters"]) for c in row["target"]]
        else:
            asked = row["target"] if name == "tool_call" else [{"task": s["task"], "input": s["input"]} for s in row["target"]]
            assert score.norm(back) == score.norm(asked)


@pytest.mark.parametrize("name", ["tool_call", "plan", "episode"])
def test_the_form_that_serving_holds_answers_to_admits_every_target(name: str) -> None:
    task = tasks.task(name)
    task.learn(rows(name))
    file, content = task.form()
    prompt = Prompt.learn((task.say(r["target"]) for r in rows(name)), 600)
    import llguidance.hf
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(tokenizer_object=prompt.tokenizer, eos_token="<|end|>")
    tokenizer = llguidance.hf.from_tokenizer(wrapped)
    grammar = llguidance.grammar_from("json_schema" if file.endswith(".json") else "lark", content)
    refused = 0
    for row in rows(name):
        matcher = llguidance.LLMatcher(tokenizer, grammar)
        assert not matcher.is_error(), matcher.get_error()
        ids = prompt.answer(task.say(row["target"]))[:-1]
        refused += matcher.validate_tokens(ids) != len(ids)
    assert refused == 0


def test_arguments_are_written_in_the_order_of_the_schema_whatever_order_a_row_has() -> None:
    task = tasks.task("tool_call")
    task.learn(rows("tool_call"))
    row = next(r for r in rows("tool_call") if len(r["target"]["arguments"]) > 1)
    turned = {"tool": row["target"]["tool"], "arguments": dict(reversed(row["target"]["arguments"].items()))}
    assert task.say(turned) == task.say(row["target"])


def test_an_augmented_row_only_says_what_its_input_holds() -> None:
    task = tasks.task("tool_call")
    vary, rng, changed = augment.Augment(task, rows("tool_call")), random.Random(1), 0
    for row in rows("tool_call") * 5:
        new = vary(row, rng)
        changed += new != row
        for value in new["target"]["arguments"].values():
            assert all(v in new["input"] for v in ([value] if isinstance(value, str) else value))
    assert changed > 200


def test_the_template_renders_text_and_conversations() -> None:
    prompt = Prompt.learn(["play jazz"], 300)
    assert prompt.render("tool_call", "play jazz") == "<|task|>tool_call<|input|>play jazz<|output|>"
    turns = {"methods": {"S_1": {"Find": ["a", "b"]}}, "turns": ["hello", "now"]}
    assert prompt.render("episode", turns) == "<|task|>episode<|input|>S_1.Find(a, b)\n> hello\n> now\n<|output|>"
    assert "\n" not in template_text()


def test_the_threshold_keeps_what_is_right_in_97_percent() -> None:
    judged = [(1 - i / 100, i < 60) for i in range(100)]
    found = card.threshold(judged)
    assert found["accuracy_kept"] >= 0.97 and 0.60 <= found["coverage"] <= 0.62


def test_train_export_and_parity_run_end_to_end_on_a_small_model(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, part in (("train", rows("tool_call")[:160]), ("dev", rows("tool_call")[160:])):
        (folder / f"tool_call.{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    out = tmp_path / "models" / "tool_call"
    command = [sys.executable, "-m", "shoal_trainer", "train", "--task", "tool_call", "--data", folder, "--from", "scratch", "--out", out]
    command += ["--hidden", "64", "--layers", "1", "--vocabulary", "512", "--epochs", "2", "--context", "256", "--answer-tokens", "48", "--dev-rows", "20"]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    assert said["parity"] >= 0.99 and 0 <= said["score"] <= 1
    import tomllib

    written = tomllib.loads((out / "1" / "card.toml").read_text())
    assert written["kind"] == "generate" and set(written["files"]) == {p.name for p in (out / "1").iterdir()} - {"card.toml"}
    assert all(data.sha256(out / "1" / name) == digest for name, digest in written["files"].items())
    resumed = subprocess.run([str(c) for c in command] + ["--resume", "--epochs", "3"], capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert [json.loads(line)["epoch"] for line in (tmp_path / "models" / "tool_call.work" / "log.jsonl").read_text().splitlines()] == [1, 2, 3]


def test_a_data_error_ends_the_command_with_one_line_before_training(tmp_path: Path) -> None:
    write(tmp_path, [GOOD, b"{}"])
    command = [sys.executable, "-m", "shoal_trainer", "train", "--task", "tool_call", "--data", str(tmp_path), "--from", "scratch", "--out", str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 65 and "tool_call.train.jsonl:2: missing field `id`" in done.stderr and "Traceback" not in done.stderr
