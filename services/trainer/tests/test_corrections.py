"""Corrections as anybody may write them: whatever a line holds, it is learned from or set aside with its line, and never ends a retraining."""
import argparse
import json
from pathlib import Path

import pytest

from shoal_trainer import encode, quarantine, tasks
from shoal_trainer import retrain as rules
from shoal_trainer.lesson import LessonError

MODELS = Path(__file__).parents[3] / "models"
METHODS = {"S_1": {"Find": ["city", "day"], "Book": ["name", "city"]}}


def made(task: str, given: object, target: object, **more: object) -> dict:
    return {"id": "b", "task": task, "input": given, "target": target, "source": "bob", **more}


def episode(*calls: dict, **given: object) -> dict:
    return made("episode", {"methods": METHODS, "turns": ["find me something in Oslo", "book it"], **given}, list(calls))


def call(method: str, number: object = None, service: str = "S_1", **parameters: object) -> dict:
    return {**({} if number is None else {"id": number}), "service": service, "method": method, "parameters": parameters}


def summary(*calls: dict) -> dict:
    return made("summarize", {"methods": METHODS, "dialogue": [{"speaker": "user", "text": "2 in Oslo"}]}, list(calls))


def compose(act: dict) -> dict:
    return made("compose", {"service": "S", "acts": [{"act": "INFORM", **act}]}, "It is 4.")


GOOD = {
    "tool_call": made("tool_call", "play some jazz", {"tool": "PlayMusic", "arguments": {"genre": "jazz"}}),
    "extract": made("extract", {"service": "Hotels_4", "slots": ["location"], "system": "", "user": "in Oslo"}, {"location": "Oslo"}),
    "route": made("route", "say it in spanish", "translate"),
    "episode": episode(call("Find", 1, city="Oslo"), call("Book", 2, name="${1.name}")),
    "summarize": summary(call("Find", city="Oslo")),
    "compose": compose({"slot": "n", "values": ["4"]}),
}
MODEL = {"episode": "planner"}


def dry_run(task: str, lines: list[bytes], folder: Path, *more: object) -> list[dict]:
    """What a dry run sets aside of a good row and `lines`; the good one is always kept."""
    file = folder / "corrections.jsonl"
    file.write_bytes(b"\n".join([json.dumps(GOOD[task] | {"id": "good"}).encode(), *lines]) + b"\n")
    parser = argparse.ArgumentParser()
    rules.arguments(parser)
    given = ["--task", task, "--corrections", file, "--specialist", MODELS / MODEL.get(task, task), "--work", folder / "work", "--dry-run", *more]
    assert rules.retrain(parser.parse_args(list(map(str, given)))) == 0
    return [json.loads(line) for line in (folder / "work" / "quarantine.jsonl").read_bytes().split(b"\n") if line]


DEEP = "[" * 300 + "]" * 300

BAD = [
    ("route", made("route", "order me a bike", "bike_rental"), "unsayable", "no label `bike_rental`"),
    ("summarize", summary(call("Find", day=2)), "schema", "call 0: every parameter must be text"),
    ("episode", episode(call("Find", [1], city="Oslo")), "schema", "call 0: `id` must be 1"),
    ("episode", episode(call("Find", True, city="Oslo")), "schema", "call 0: `id` must be 1"),
    ("episode", episode(call("Find", 7, city="Oslo")), "schema", "call 0: `id` must be 1"),
    ("episode", episode({**call("Find", 1, city="Oslo"), "result": 5}), "schema", "`result` must be an object"),
    ("episode", episode(call("Find", 1, city="Oslo"), methods={"S_1": {"Find": [1]}}), "schema", "`methods` must be"),
    ("episode", {**episode(), "target": "1" * 5000 + '. S_1.Find(city="Oslo")'}, "schema", "must be a list"),
    ("episode", {**episode(), "target": r'1. S_1.Find(city="\ud800")'}, "schema", "must be a list"),
    ("compose", compose({"slot": "n", "values": None}), "schema", "act 0: "),
    ("compose", compose({"slot": "n", "values": 5}), "schema", "act 0: "),
    ("compose", compose({"slot": "n", "values": [4]}), "schema", "act 0: "),
    ("compose", compose({"slot": ["n"], "values": ["4"]}), "schema", "act 0: "),
    ("compose", compose({"slot": [], "values": ["4"]}), "schema", "act 0: "),
    ("tool_call", b'{"id": "\xff"}', "schema", "not UTF-8 (byte 8)"),
    ("tool_call", b'{"id": ', "schema", "not JSON"),
    ("tool_call", b"[1]", "schema", "must be an object, not list"),
    ("tool_call", b"[" * 100_000, "schema", "nested deeper"),
    ("episode", json.dumps(GOOD["episode"]).replace('"turns"', f'"deep": {DEEP}, "turns"').encode(), "schema", "nested deeper"),
    ("summarize", {**summary(), "target": json.dumps([call("Find", city="Oslo")]).replace('"method"', f'"deep": {DEEP}, "method"')}, "schema", "must be a list"),
    ("tool_call", rb'{"id": "\ud800", "task": "tool_call", "input": "x", "target": {}}', "schema", "half of a surrogate pair"),
    ("tool_call", {**GOOD["tool_call"], "seen": "yes"}, "schema", "`seen` must be true or false"),
]


@pytest.mark.parametrize(("task", "bad", "reason", "why"), BAD, ids=[f"{i}-{case[0]}" for i, case in enumerate(BAD)])
def test_what_would_end_a_training_is_set_aside_with_its_line(task: str, bad: object, reason: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (aside,) = dry_run(task, [bad if isinstance(bad, bytes) else json.dumps(bad).encode()], tmp_path)
    assert (aside["line"], aside["reason"]) == (2, reason) and why in aside["why"], aside
    said = capsys.readouterr()
    assert f"corrections.jsonl:2: {reason}: " in said.err and json.loads(said.out)["corrections"] == 1


def test_the_report_says_of_which_sources_the_rows_in_quarantine_are(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    copies = [json.dumps({**GOOD["tool_call"], "input": "Play jazz", "source": "mallory", "id": f"c{i}"}).encode() for i in range(1000)]
    nameless = json.dumps({**GOOD["tool_call"], "source": None, "target": 5}).encode()
    aside = dry_run("tool_call", [*copies, nameless, b"no row"], tmp_path)
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert (report["corrections"], report["quarantined"]) == (1, 1002) == (1, len(aside))
    assert report["reasons"] == {"flood": 1000, "schema": 2} and report["sources"] == {"mallory": 1000, "": 2}
    assert "they are of the sources {'mallory': 1000, '': 2}" in said.err and "corrections.jsonl:2: flood: said 1000 times" in said.err
    many = [json.dumps({**GOOD["tool_call"], "source": f"s{i}", "target": 5}).encode() for i in range(30)]
    dry_run("tool_call", many, tmp_path)
    assert "'s9': 1} and 20 more" in capsys.readouterr().err


def test_a_slot_without_a_label_is_sayable_to_who_reads_names_and_not_to_a_tagger(tmp_path: Path) -> None:
    row = {**GOOD["extract"], "input": {**GOOD["extract"]["input"], "slots": ["bike_kind"]}, "target": {"bike_kind": "Oslo"}}
    assert dry_run("extract", [json.dumps(row).encode()], tmp_path) == [], "the shipped one is a filler"
    tagger = tasks.KNOWN["extract"]()
    tagger.recall({}, {"labels": ["location"]})
    assert "no label for slot `bike_kind`" in str(tagger.unsaid(row)) and tagger.unsaid(GOOD["extract"]) is None


def test_a_label_that_only_the_training_rows_have_is_nothing_that_the_version_can_say(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        taught = [made("route", "order me a bike", "bike_rental"), made("route", "say it in spanish", "translate")]
        (tmp_path / f"route.{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in taught))
    (aside,) = dry_run("route", [json.dumps(made("route", "a bike, please", "bike_rental")).encode()], tmp_path, "--data", tmp_path)
    assert aside["reason"] == "unsayable"
    task = tasks.KNOWN["route"]()
    task.recall({}, {"labels": ["translate"]})
    assert encode._sayable(task, taught) == taught[1:], "nor is it rehearsed"
    with pytest.raises(LessonError, match="could give"):
        encode._sayable(task, taught[:1])


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_only_a_line_feed_ends_a_line(separator: str, tmp_path: Path) -> None:
    row = {**GOOD["tool_call"], "input": f"play{separator}blues now", "target": {"tool": "PlayMusic", "arguments": {"genre": "blues"}}}
    # Control characters JSON wants escaped; the others may stand as they are.
    assert dry_run("tool_call", [b"", json.dumps(row, ensure_ascii=separator < " ").encode()], tmp_path) == []
    read, broken = quarantine.read(tmp_path / "corrections.jsonl")
    assert [r["line"] for r in read] == [1, 3] and read[1]["input"] == row["input"] and not broken


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (episode(call("Book", 1, name="${2.name}"), call("Find", 2, city="Oslo")), "refers to call 2"),
        (episode(call("Find", 1, city="Oslo"), call("Book", 2, name="${2.name}")), "refers to call 2"),
        (episode(call("Book", 1, name="${9.name}")), "refers to call 9"),
        (episode(call("Book", name="${0.name}")), "refers to call 0"),
        (episode(call("Find", 1, city="Oslo"), call("Find", 2, city="Oslo")), "`S_1.Find` is called twice"),
        (episode(call("Find", 1, city="Rome")), "`Rome` stands nowhere"),
        (episode(call("Find", 1, city="Osl")), "`Osl` stands nowhere"),
        (episode(call("Find", 1, city="")), "`` stands nowhere"),
        (episode(call("Find", 1, city="Oslo"), call("Book", 2, name="at ${1.name}")), "`at ${1.name}` stands nowhere"),
        (episode(call("Find", 1, day="Oslo 2")), "`Oslo 2` stands nowhere"),
        (summary(call("Find", city="Oslo"), call("Find", city="Oslo")), "`S_1.Find` is called twice"),
        (summary(call("Find", city="Rome")), "`Rome` stands nowhere"),
    ],
)
def test_calls_that_a_filler_could_never_say_are_no_lesson(row: dict, why: str) -> None:
    task = tasks.KNOWN[row["task"]]()
    task.recall({}, {"values": ["2019-03-01"], "slots": {"S_1.day": [0]}})
    assert why in task.unsaid(row)


@pytest.mark.parametrize("name", ["episode", "summarize"])
def test_values_that_are_known_for_their_slot_need_not_be_said(name: str) -> None:
    make = {"episode": episode, "summarize": summary}[name]
    task = tasks.KNOWN[name]()
    assert task.unsaid(make(call("Find", city="Rome"))) is None, "nothing was learned that could tell"
    task.learn([make(call("Find", city="Rome"))])
    assert task.unsaid(make(call("Find", city="rome"))) is None and task.unsaid(make(call("Find", city="OSLO"))) is None
    assert task.unsaid(make(call("Book", city="Rome"))) is None and task.unsaid(make(call("Find", day="Rome"))), "the slot's own alone"
    task.recall({}, {"values": ["2019-03-01", "Lima"], "slots": {"T_1.day": [0], "S_1.city": [1]}})
    assert task.unsaid(make(call("Find", city="Lima", day="2019-03-01"))) is None, "another service's slot of the name"
    assert task.unsaid(make(call("Find", city="Rome"))), "the weights' values count, not the rows'"
