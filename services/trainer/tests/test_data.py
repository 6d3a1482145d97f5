"""What is wrong with a dataset is said with its file and line, before any training."""
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from shoal_trainer import data, quarantine, tasks

METHODS = {"S": {"F": ["n"], "H": ["n"]}}
SAID = [{"speaker": "user", "text": "2"}]
GOOD = json.dumps({"id": "a", "task": "tool_call", "input": "play jazz", "target": {"tool": "PlayMusic", "arguments": {"genre": "jazz"}}}).encode()


def write(folder: Path, lines: list[bytes]) -> Path:
    path = folder / "tool_call.train.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


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
        (b"[" * 100_000, "nested deeper"),
        (b'{"id": "b", "seen": 1, "task": "tool_call", "input": "x", "target": {"tool": "T", "arguments": {}}}', "`seen` must be true or false"),
        (b"[1]", "must be an object, not list"),
    ],
)
def test_a_broken_row_is_refused_with_its_file_and_line(tmp_path: Path, bad: bytes, said: str) -> None:
    path = write(tmp_path, [GOOD, bad])
    with pytest.raises(data.DataError) as error:
        data.read(path, tasks.KNOWN["tool_call"]())
    assert str(error.value).startswith(f"{path}:2: ") and said in str(error.value)


def test_some_rows_of_a_file_that_is_grouped_by_answer_hold_all_of_its_answers() -> None:
    grouped = [{"target": f"label {i // 20}"} for i in range(3000)]
    some = data.spread(grouped, 400)
    assert len(some) == 400 and {row["target"] for row in some} == {row["target"] for row in grouped} and some == data.spread(grouped, 400)
    assert data.spread(grouped, 2999) == grouped[:2999] and all(data.spread(grouped, count) == grouped for count in (0, 3000, 9999))


@pytest.mark.parametrize(
    ("task", "given", "target", "said"),
    [
        ("episode", {"turns": []}, [], "`turns`"),
        ("episode", {"turns": ["x"], "methods": {"S": []}}, [], "`methods`"),
        ("extract", {"slots": ["a"], "service": "S", "system": "", "user": 1}, {}, "must be text"),
        ("extract", {"slots": ["a"], "service": "S", "system": "", "user": "x"}, {"a": 1}, "must be {slot: text}"),
        ("compose", {"service": "S", "acts": []}, "x", "`acts`"),
        ("summarize", {"methods": {}, "dialogue": [{"speaker": "robot", "text": "x"}]}, [], "`dialogue`"),
        ("route", "x", "", "must be a label"),
        ("plan", "x", [{"task": "tool_call", "input": "a\nb"}], "one line"),
        ("compose", {"service": "S", "acts": [{"act": "INFORM", "slot": "n", "values": [4]}]}, "It is 4.", "act 0"),
        ("summarize", {"methods": METHODS, "dialogue": SAID}, [{"service": "S", "method": "F", "parameters": {"n": 2}}], "must be text"),
        ("summarize", {"methods": METHODS, "dialogue": SAID}, [{"service": "S", "method": "G", "parameters": {}}], "no method `S.G` is in the input"),
        ("episode", {"methods": METHODS, "turns": ["2"]}, [{"service": "S", "method": "F", "parameters": {"m": "2"}}], "no parameter `m`"),
        ("extract", {"slots": ["a"], "service": "S", "system": "", "user": "x"}, {"b": "x"}, "no slot `b` is in the input"),
    ],
)
def test_an_input_or_a_target_of_the_wrong_shape_is_refused_by_its_task(tmp_path: Path, task: str, given: object, target: object, said: str) -> None:
    row = {"id": "a", "task": task, "input": given, "target": target}
    with pytest.raises(data.DataError, match=said.replace("{", r"\{")):
        data.check(row, tasks.KNOWN[task](), "x:1")


@pytest.mark.parametrize("lines", [[], [GOOD]])
def test_an_empty_file_and_a_single_row_are_refused(tmp_path: Path, lines: list[bytes]) -> None:
    with pytest.raises(data.DataError, match="at least 2"):
        data.read(write(tmp_path, lines), tasks.KNOWN["tool_call"]())


def test_a_truncated_gzip_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "tool_call.train.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD * 100)[:40])
    with pytest.raises(data.DataError, match="cannot be read"):
        data.read(path, tasks.KNOWN["tool_call"]())


def test_a_damaged_gzip_is_refused_by_the_line_that_was_reached(tmp_path: Path) -> None:
    path = tmp_path / "tool_call.train.jsonl.gz"
    # Two members, so that the first line is read whatever happens to the second; of that the first block's type is one that there is not.
    first, second = gzip.compress(GOOD + b"\n"), bytearray(gzip.compress(GOOD * 100))
    second[10] = 0b110
    path.write_bytes(first + second)
    with pytest.raises(data.DataError) as error:
        data.read(path, tasks.KNOWN["tool_call"]())
    assert str(error.value).startswith(f"{path}:2: cannot be read: ") and "damaged" in str(error.value)
    with pytest.raises(data.DataError, match="damaged"):
        quarantine.read(path)
    path.write_bytes(first)
    assert [row["line"] for row in quarantine.read(path)[0]] == [1], "corrections may be packed too"


def test_a_data_error_ends_the_command_with_one_line_before_training(tmp_path: Path) -> None:
    write(tmp_path, [GOOD, b"{}"])
    command = [sys.executable, "-m", "shoal_trainer", "train", "--task", "tool_call", "--data", str(tmp_path), "--from", "scratch", "--out", str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 65 and "tool_call.train.jsonl:2: missing field `id`" in done.stderr and "Traceback" not in done.stderr


def test_what_only_a_corpus_records_no_metric_needs() -> None:
    episode, plan = tasks.KNOWN["episode"](), tasks.KNOWN["plan"]()
    calls = [{"service": "S", "method": "F", "parameters": {"n": "2"}}, {"service": "S", "method": "H", "parameters": {"n": "${1.n}"}}]
    row = {"id": "a", "task": "episode", "input": {"methods": METHODS, "turns": ["2"]}, "target": calls}
    data.check(row, episode, "x:1")
    said = episode.read(episode.say(calls))
    assert episode.metrics([(row, calls, said)]) == {"score": 1.0, "nodes_f1": 1.0, "edges_f1": 1.0, "cross": None} and episode.right(row, said)
    for wrong in ("${1.m}", "2", "${2.n}"):
        other = [said[0], {**said[1], "parameters": {"n": wrong}}]
        assert episode.metrics([(row, calls, other)])["score"] == 0.0 and not episode.right(row, other), wrong
    recorded = [{**calls[0], "result": {"n": "2"}}, calls[1]]
    assert episode.right({**row, "target": recorded}, [said[0], {**said[1], "parameters": {"n": "2"}}]), "it is what the call returned"
    steps = [{"task": "tool_call", "input": "play jazz"}]
    row = {"id": "a", "task": "plan", "input": "play jazz", "target": steps}
    data.check(row, plan, "x:1")
    assert plan.metrics([(row, steps, plan.read(plan.say(steps)))]) == {"splits": 1.0} and plan.metrics([(row, steps, None)]) == {"splits": 0.0}
