"""Rows that would be left out in silence, and a dev that judges other than it seems to: said before a training, and counted in its card."""
import argparse
import json
from pathlib import Path

import pytest
from conftest import call, learned, rows, write

from shoal_trainer import audit, data, tasks, training
from shoal_trainer.__main__ import parser

GOOD = [call("PlayMusic", "play some {}", value) for value in ("jazz", "blues", "rock", "soul", "funk")]
NEVER_SAID = {**GOOD[0], "id": "n", "target": {"tool": "PlayMusic", "arguments": {"genre": "polka"}}}
CUT = {**GOOD[0], "id": "c", "input": "play jazz\U0001f3b7"}
SHARED = {**GOOD[0], "id": "s", "target": {"tool": "PlayMusic", "arguments": {"genre": "some jazz", "city": "jazz"}}}
LONG = {**call("PlayMusic", "play some {}", "jazz"), "id": "l", "input": "play some jazz" + " now" * 600}


def args(folder: Path, train: list[dict], dev: list[dict], *more: str) -> argparse.Namespace:
    write(folder / "tool_call.train.jsonl", train)
    write(folder / "tool_call.dev.jsonl", dev)
    said = "train --task tool_call --from minilm --layers 1 --vocabulary 3000 --epochs 1 --batch-rows 4 --looks 0 --threads 1 --no-export"
    return parser().parse_args([*said.split(), "--data", str(folder), "--out", str(folder / "m"), *more])


def test_rows_that_are_left_out_are_told_with_line_and_reason_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    training.train(args(tmp_path, [GOOD[0], NEVER_SAID, *GOOD[1:], SHARED, LONG, CUT], GOOD[:2]))
    said, file = capsys.readouterr().err.splitlines(), tmp_path / "tool_call.train.jsonl"
    told = [line for line in said if line.startswith(str(file))]
    assert [line.split(": ")[0] for line in told[:-1]] == [f"{file}:{line}" for line in (2, 7, 8, 9)]
    assert all(": left out: " in line for line in told[:-1])
    for line, why in zip(told, ("`polka` is no run of the input's words", "two values share words", "tokens, and the encoder reads 512", "inside of a piece")):
        assert why in line
    assert told[-1] == f"{file}: 4 of 9 rows are left out"
    (run,) = json.loads((tmp_path / "m.work" / "training.json").read_text())["runs"]
    assert run["unreadable_rows"] == 4


def test_a_file_of_which_more_than_half_would_be_left_out_is_refused_before_anything_is_touched(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    polka = [{**NEVER_SAID, "id": f"n{i}"} for i in range(15)]
    with pytest.raises(data.DataError, match="of 20 rows only 5 have a target that can be read off its input"):
        training.train(args(tmp_path, [*GOOD, *polka], GOOD))
    said = capsys.readouterr().err
    assert said.count("left out: ") == audit.SHOWN and "15 of 20 rows are left out; the first 10 are above" in said
    assert not (tmp_path / "m.work" / "training.json").exists()
    audit.learnable(tmp_path / "tool_call.train.jsonl", [*GOOD, *polka[:5]], lambda row: "so it is" if row["id"].startswith("n") else None)


def test_a_conversation_that_does_not_fit_a_filler_is_told_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = rows("episode")[:6]
    found[3] = {**found[3], "input": {**found[3]["input"], "turns": [*found[3]["input"]["turns"], "well " * 600]}}
    for split in ("train", "dev"):
        write(tmp_path / f"episode.{split}.jsonl", found)
    said = f"train --task episode --from minilm --layers 1 --vocabulary 3000 --epochs 1 --batch-rows 3 --looks 0 --threads 1 --no-export --data {tmp_path} --out {tmp_path / 'm'}"
    training.train(parser().parse_args(said.split()))
    assert "episode.train.jsonl:4: left out: " in (err := capsys.readouterr().err) and "tokens, and the encoder reads 512" in err


def test_a_large_file_is_asked_in_part(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "ASKED", 3)
    asked = []
    audit.learnable(write(tmp_path / "x.jsonl", GOOD), GOOD, lambda row: asked.append(row) or ("no" if row is GOOD[0] else None))
    assert len(asked) == 3 and "1 of 3 rows are left out" in capsys.readouterr().err


def test_a_dev_that_asks_what_train_has_or_has_labels_of_its_own_is_told_and_in_the_card(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dev = [
        {**GOOD[0], "input": "Play some JAZZ!"},
        call("GetWeather", "weather in {}", "Oslo"),
        {**call("PlayMusic", "hear {}", "Nina"), "target": {"tool": "PlayMusic", "arguments": {"artist": "Nina"}}},
        {**call("OpenDoor", "open {}", "sesame"), "seen": False},
    ]
    training.train(args(tmp_path, GOOD, dev))
    said, file = capsys.readouterr().err, tmp_path / "tool_call.dev.jsonl"
    assert f"{file}: 1 of 4 inputs are in train as well" in said
    assert f"{file}: no training row has `GetWeather`, `PlayMusic.artist`: " in said
    (run,) = json.loads((tmp_path / "m.work" / "training.json").read_text())["runs"]
    assert run["dev"] == {"tool_call": {"inputs_in_train": 1, "labels_not_in_train": 2}}


@pytest.mark.parametrize("name", tasks.KNOWN)
def test_of_rows_of_one_kind_nothing_is_missing_and_other_rows_are_not_the_same(name: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    task, some = learned(name), rows(name)
    assert audit.dev(task, some, some[:50], tmp_path) == {"inputs_in_train": 50, "labels_not_in_train": 0}
    assert audit.dev(task, [], some[:50], tmp_path)["inputs_in_train"] == 0
    capsys.readouterr()


def test_labels_of_a_classifier_and_of_a_tagger_without_classes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    route = tasks.KNOWN["route"]()
    route.learn([{"target": f"label {i}"} for i in range(2)])
    asked = [{"input": f"text {i}", "target": f"label {i}"} for i in range(20)]
    assert audit.dev(route, [], asked, tmp_path)["labels_not_in_train"] == 18 and "and 8 more: " in capsys.readouterr().err
    extract, row = tasks.KNOWN["extract"](), {"input": {"service": "S", "slots": ["a"], "system": "", "user": "x"}, "target": {"a": "x"}}
    assert audit.dev(extract, [], [row], tmp_path)["labels_not_in_train"] == 1
    extract.kind = "fill"
    assert audit.dev(extract, [], [row], tmp_path)["labels_not_in_train"] == 0, "it reads names"


def test_the_lines_of_rows_are_found_where_they_are_alike_and_where_a_number_is_none(tmp_path: Path) -> None:
    odd = {**GOOD[0], "more": float("nan")}
    file = tmp_path / "tool_call.train.jsonl"
    file.write_text("\n\n" + "".join(json.dumps(row) + "\n\n" for row in (GOOD[0], GOOD[1], odd, GOOD[1])))
    found = data.read(file, tasks.KNOWN["tool_call"]())
    assert data.lines_of(file, [found[3], found[2], found[1]]) == [5, 7, 9] and data.lines_of(file, []) == []
