"""The whole turn of a retraining on a tiny model: corrections make the next version better, a poisoned set teaches nothing, a worse candidate
is refused."""
import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import GENRES, call, two_tools, write

from shoal_trainer import data
from shoal_trainer import retrain as rules

# What nobody has asked before: the first version has no right answer to it.
TAUGHT = ["spin me a bit of {}", "crank up the {} now"]
TINY = "--kind generate --hidden 64 --layers 2 --vocabulary 500 --context 128 --looks 2 --uncompiled --steps 260 --rate 8e-3 --batch-tokens 768 --answer-tokens 32 --parity 0.9".split()


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "shoal_trainer", *map(str, args)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A specialist of two tools with its first version, and its data."""
    where = tmp_path_factory.mktemp("turn")
    two_tools(where)
    done = run("train", "--task", "tool_call", "--data", where, "--from", "scratch", "--out", where / "tiny", *TINY)
    assert done.returncode == 0, done.stderr[-3000:]
    return where / "tiny", where


def retrain(first: tuple[Path, Path], work: Path, corrections: list[dict], *more: object) -> tuple[int, dict, str]:
    specialist, folder = first
    work.mkdir(exist_ok=True)
    file = write(work / "corrections.jsonl", corrections)
    done = run("retrain", "--task", "tool_call", "--corrections", file, "--specialist", specialist, "--data", folder, "--work", work, "--parity", "0.9", *more)
    return done.returncode, json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}, done.stderr[-3000:]


def test_corrections_make_the_next_version_better_and_poison_is_set_aside(first: tuple[Path, Path], tmp_path: Path) -> None:
    lessons = [call("PlayMusic", said, value, "ann") for said in TAUGHT for value in GENRES]
    poison = [
        {**lessons[0], "id": "against", "target": {"tool": "GetWeather", "arguments": {}}, "source": "mallory"},
        {**lessons[1], "id": "invented", "target": {"tool": "PlayMusic", "arguments": {"genre": "malware"}}, "source": "mallory"},
        {**lessons[1], "id": "shapeless", "target": "anything", "source": "mallory"},
        *({**call("PlayMusic", "give me {} at once", "soul", "mallory"), "id": f"copy{i}"} for i in range(1000)),
    ]
    code, report, said = retrain(first, tmp_path, lessons + poison, "--steps", 100, "--rate", 4e-3)
    assert code == 0 and report["accepted"], (report, said)
    assert report["reasons"] == {"contradiction": 2, "unsayable": 1, "schema": 1, "flood": 1000}
    assert report["sources"] == {"mallory": 1003, "ann": 1}
    assert report["corrections"] == len(lessons) - 1 and report["quarantined"] == 1004 and report["held_out"]["candidate"] > report["held_out"]["incumbent"]
    assert report["dev"]["incumbent"] - report["dev"]["candidate"] <= 0.005 and report["seconds"] > 0
    right = report["held_out_right"]
    assert set(right) == {"kept", "escalated"} and sum(right.values()) > 0 and f"threshold keeps {right['kept']}, and {right['escalated']} go to" in said, said
    set_aside = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert {r["reason"] for r in set_aside if r["id"] == "invented"} == {"unsayable"}
    assert "held-out corrections: " in said and "95 %" in said, said
    assert json.loads((tmp_path / "report.json").read_text())["sources"] == report["sources"]

    candidate = Path(report["candidate"])
    assert candidate == tmp_path / "candidate" / "2" and report["to_version"] == 2
    card = tomllib.loads((candidate / "card.toml").read_text())
    first_run, last_run = card["training"]["runs"]
    assert card["version"] == 2 and first_run["from"] == "scratch" and last_run["from"] == "tiny@1" and last_run["corrections"] > 0
    files = {"corrections.jsonl": tmp_path, "tool_call.train.jsonl": first[1], "tool_call.dev.jsonl": first[1]}
    assert last_run["sha256"] == {name: data.sha256(where / name) for name, where in files.items()}
    assert card["training"]["judged_on"] == {"tool_call.dev.jsonl": last_run["sha256"]["tool_call.dev.jsonl"]} and card["training"]["cost"]["usd"] > 0
    assert all(data.sha256(candidate / name) == digest for name, digest in card["files"].items())
    specialist = first[0]
    assert (candidate / "tool_call.schema.json").read_text() == (specialist / "1" / "tool_call.schema.json").read_text(), "the form is kept"
    assert sorted(p.name for p in specialist.iterdir()) == ["1", "specialist.toml"], "nothing but the work folder was written"


def test_a_candidate_that_has_unlearned_what_it_knew_is_refused(first: tuple[Path, Path], tmp_path: Path) -> None:
    # The rehearsal is not what the first version was taught: every city is music to it.
    specialist, folder = first
    spoiled = [json.loads(line) for line in (folder / "tool_call.train.jsonl").read_text().splitlines()]
    for r in spoiled:
        r["target"] = {"tool": "PlayMusic", "arguments": {"genre": next(iter(r["target"]["arguments"].values()))}}
    write(tmp_path / "tool_call.train.jsonl", spoiled)
    shutil.copy(folder / "tool_call.dev.jsonl", tmp_path)
    lessons = [call("PlayMusic", TAUGHT[0], value, "ann") for value in GENRES]
    code, report, said = retrain((specialist, tmp_path), tmp_path / "work", lessons, "--steps", 80, "--rate", 4e-3)
    assert code == 3 and not report["accepted"] and "dev lost more than" in report["why"], (report, said)
    assert report["held_out"]["candidate"] > report["held_out"]["incumbent"], "what was taught it has learned"
    assert "refused: " in said and json.loads((tmp_path / "work" / "report.json").read_text()) == report
    assert sorted(p.name for p in specialist.iterdir()) == ["1", "specialist.toml"]


@pytest.mark.parametrize(
    ("corrections", "more", "said"),
    [
        ([], [], "corrections.jsonl: no row in it"),
        ([{"no": "row"}], [], "no correction is left to learn from; .*quarantine.jsonl says why"),
        ([call("PlayMusic", TAUGHT[0], "jazz")], ["--minutes", "0"], "both 0"),
        ([call("PlayMusic", TAUGHT[0], "jazz")], ["--data", "nowhere"], "no tool_call.train.jsonl"),
        ([call("PlayMusic", TAUGHT[0], "jazz")], ["--task", "plan"], "serves tool_call, not plan"),
    ],
)
def test_what_cannot_be_taught_is_said_before_any_training(first: tuple[Path, Path], tmp_path: Path, corrections: list[dict], more: list[str], said: str) -> None:
    specialist, folder = first
    parser = argparse.ArgumentParser()
    rules.arguments(parser)
    file = write(tmp_path / "corrections.jsonl", corrections)
    given = ["--task", "tool_call", "--corrections", file, "--specialist", specialist, "--data", folder, "--work", tmp_path, *more]
    with pytest.raises(data.DataError, match=said):
        rules.retrain(parser.parse_args(list(map(str, given))))


def test_a_dev_file_of_nothing_but_what_is_taught_cannot_judge(first: tuple[Path, Path], tmp_path: Path) -> None:
    specialist, folder = first
    shutil.copy(folder / "tool_call.train.jsonl", tmp_path)
    taught = call("PlayMusic", TAUGHT[0], "jazz")
    write(tmp_path / "tool_call.dev.jsonl", [taught, {**taught, "id": "again"}])
    code, _, said = retrain((specialist, tmp_path), tmp_path / "work", [taught], "--steps", 1)
    assert code == 65 and "tool_call.dev.jsonl: of the rows that are judged none is not nearly one of the corrections" in said, said
