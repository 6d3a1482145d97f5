"""A folder or a number that a command cannot use is one line that says what it lacks, and what would do; nothing is asked of a hub."""
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
from conftest import rows

from shoal_trainer import card, folders, lineage, tasks
from shoal_trainer.__main__ import main
from shoal_trainer.data import DataError, digests, sha256

MODELS = Path(__file__).parents[3] / "models"


def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *said: object) -> tuple[int, str]:
    """A command's exit code and its last line of standard error."""
    monkeypatch.setattr(sys, "argv", ["shoal-train", *map(str, said)])
    code = main()
    return code, (capsys.readouterr().err.strip().splitlines() or [""])[-1]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for task in ("tool_call", "compose"):
        for split, part in (("train", rows(task)[:20]), ("dev", rows(task)[20:30])):
            (tmp_path / f"{task}.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return tmp_path


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("retrain --task tool_call --corrections c.jsonl --specialist models/TYPO --work {w}", "models/TYPO: no such folder: give the folder of a specialist"),
        ("retrain --task tool_call --corrections c.jsonl --specialist {m}/tool_call/1 --work {w}", "it is a version; give {m}/tool_call"),
        ("retrain --task tool_call --corrections nowhere.jsonl --specialist {m}/tool_call --work {w}", "nowhere.jsonl: cannot be read: "),
        ("retrain --task tool_call --corrections {d}/tool_call.dev.jsonl --specialist {m}/tool_call --work {d}/tool_call.dev.jsonl", "cannot be written to: "),
        ("evaluate --task tool_call --data {d} --from models/TYPO", "models/TYPO: no such folder: give a version of a specialist"),
        ("evaluate --task tool_call --data {d} --from {m}/tool_call", "it is a specialist; give a version of it, such as {m}/tool_call/1"),
        ("rescore --data {d} models/TYPO", "models/TYPO: no such folder: give a version"),
        ("escalate --task tool_call --data {d} models/TYPO {m}/tool_call_wide/1", "models/TYPO: no such folder: give a version"),
        ("escalate --task tool_call --data {d} {m}/tool_call/1 {m}/tool_call_wide", "it is a specialist; give a version"),
        ("end-to-end --data {d} models/TYPO {m}/tool_call/1", "models/TYPO: no such folder: give a version"),
        ("end-to-end --data {d} {m}/splitter/1 {m}/tool_call/1 --large {m}/tool_call_wide", "it is a specialist; give a version"),
        ("train --task compose --data {d} --from models/TYPO --out {w}", "models/TYPO: no such folder: give a checkpoint"),
        ("train --task tool_call --data {d} --from models/TYPO --out {w}", "models/TYPO: no such folder: give a checkpoint"),
        ("train --task tool_call --data {d} --from {d} --out {w}", "{d}: no encoder.safetensors, no model.safetensors and no card.toml there: give a checkpoint"),
        ("train --task tool_call --data {d} --from {m}/tool_call --out {w}", "it is a specialist; give a version of it"),
        ("train --task tool_call --kind generate --data {d} --from {m}/tool_call/1 --out {w} --uncompiled", "has the weights of an encoder, and a decoder is asked for"),
        ("train --task tool_call --data {d} --from {m}/compose/1 --out {w}", "no encoder that this trainer made"),
        ("train --task compose --data {d} --from scratch --tokenizer models/TYPO --out {w}", "no tokenizer.json there"),
        ("train --task tool_call --data {d} --from minilm --out {d}/tool_call.dev.jsonl", "cannot be written to: "),
        ("train --task tool_call --data {d} --from minilm --precision int4 --out {w}", "an encoder is exported in fp32 or int8, not in int4"),
        ("export --task compose --data {d} --from models/TYPO --out {w}", "models/TYPO: no such folder: give a checkpoint"),
        ("export --task tool_call --data {d} --from {m}/tool_call/1 --out {w}", "is a version, exported already"),
        ("average {m}/tool_call/1 models/TYPO --out {w}", "models/TYPO: no such folder: give a checkpoint"),
        ("recipe --data {d} --out {w} --recipe nowhere.toml", "nowhere.toml"),
    ],
)
def test_a_wrong_folder_is_told_with_what_would_be_right(said: str, why: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    import socket

    def asked(*_: object) -> None:
        raise AssertionError("somebody was asked on the network")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    names = {"d": data, "m": MODELS, "w": data / "work"}
    code, told = ended(monkeypatch, capsys, *(word.format(**names) for word in said.split()))
    assert not list(data.glob("work.work/*")), "found before anything was trained"
    assert code == 65 and told.startswith("error: ") and why.format(**names) in told, told


@pytest.mark.parametrize(
    ("task", "kind", "possible"),
    [("tool_call", "classify", "tag or fill or generate"), ("compose", "tag", "generate"), ("tool_call,compose", "fill", "generate")],
)
def test_a_kind_that_cannot_answer_a_task_is_told_with_those_that_can(task: str, kind: str, possible: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    code, told = ended(monkeypatch, capsys, "train", "--from", "minilm", "--no-export", "--task", task, "--kind", kind, "--data", data, "--out", data / "m")
    assert code == 65 and f"give --kind {possible}, or leave it out" in told and not (data / "m.work").exists(), told


def test_a_card_is_not_given_scores_of_other_rows_than_its_confidence(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    there = shutil.copytree(MODELS / "tool_call", data / "tool_call") / "1"
    before = (there / "card.toml").read_bytes()
    code, told = ended(monkeypatch, capsys, "rescore", "--data", data, there)
    assert code == 65 and "its confidence is not of the dev files" in told and "--calibrate" in told
    code, _ = ended(monkeypatch, capsys, "rescore", "--data", data, there, "--dev-rows", "4")
    assert code == 0 and (there / "card.toml").read_bytes() == before, "of some rows nothing is written"
    with pytest.raises(SystemExit, match="leave one out"):
        ended(monkeypatch, capsys, "rescore", "--data", data, there, "--dev-rows", "4", "--calibrate")
    # Of the dev that it was judged on, its scores alone are made anew.
    known = tomllib.loads(before.decode())
    known["training"]["judged_on"] = digests(data, ["tool_call"], "dev")
    (there / "card.toml").write_text(tomli_w.dumps(known))
    code, _ = ended(monkeypatch, capsys, "rescore", "--data", data, there)
    after = tomllib.loads((there / "card.toml").read_text())
    assert code == 0 and after["scores"]["tool_call"]["rows"] == 10
    shown = json.loads((there / "samples.json").read_text())
    assert shown[0]["input"] in {row["input"] for row in rows("tool_call")[20:30]} and after["files"].pop("samples.json") == sha256(there / "samples.json")
    known["files"].pop("samples.json")
    known["training"]["cost"] = lineage.cost(lineage.of(there))
    assert {**after, "scores": {}} == {**known, "scores": {}}, "of everything else nothing"
    unseen = [{**row, "seen": False} for row in rows("tool_call")[20:30]]
    (data / "tool_call.dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unseen))
    code, told = ended(monkeypatch, capsys, "rescore", "--data", data, there, "--calibrate")
    assert code == 65 and "tool_call.dev.jsonl: of the rows that are judged none is" in told


def test_a_limit_of_answers_that_have_none_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="--answer-tokens is for decoders, and .* is of kind `tag`: leave it out"):
        ended(monkeypatch, capsys, "evaluate", "--task", "tool_call", "--data", data, "--from", MODELS / "tool_call" / "1", "--answer-tokens", "9")
    (data / "m.work").mkdir()
    (data / "m.work" / folders.ENCODER).touch()
    with pytest.raises(SystemExit, match="--answer-tokens is for decoders, and .* is of kind `tag`: leave it out"):
        ended(monkeypatch, capsys, "export", "--task", "tool_call", "--data", data, "--from", data / "m.work", "--out", data / "m", "--answer-tokens", "224")


def test_a_version_that_was_not_copied_whole_is_told_by_the_files_that_it_lacks(tmp_path: Path) -> None:
    there = shutil.copytree(MODELS / "tool_call" / "1", tmp_path / "1")
    assert folders.version(there)["kind"] == "tag"
    (there / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="tokenizer.json is missing, which card.toml lists"):
        folders.version(there)
    for spoiled, why in (("name = ", "cannot be read"), ('name = "x"', "no `version` in it")):
        (there / "card.toml").write_text(spoiled)
        with pytest.raises(DataError, match=why):
            folders.version(there)


@pytest.mark.parametrize(("flag", "value"), [("--minutes", "0"), ("--minutes", "nan"), ("--batch-rows", "0"), ("--threads", "-1"), ("--epochs", "-2"), ("--dev-rows", "x")])
def test_a_number_that_nothing_can_be_divided_by_is_refused_with_its_flag(flag: str, value: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as error:
        ended(monkeypatch, capsys, "train", "--task", "tool_call", "--data", data, "--from", "minilm", "--out", data / "m", f"{flag}={value}")
    assert error.value.code == 2 and f"argument {flag}: `{value}` is no" in capsys.readouterr().err


def test_dev_rows_that_nothing_could_be_said_by_end_a_training_before_it_begins(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    unseen = [{**row, "seen": False} for row in rows("tool_call")[20:30]]
    (data / "tool_call.dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unseen))
    code, told = ended(monkeypatch, capsys, "train", "--task", "tool_call", "--data", data, "--from", "minilm", "--out", data / "m")
    assert code == 65 and "tool_call.dev.jsonl: of the rows that are judged none is" in told and not (data / "m.work").exists()


def test_rows_of_ones_own_are_cited_as_such_and_their_licence_binds(tmp_path: Path) -> None:
    rows, usual = tmp_path / "extract.train.jsonl", tasks.named("extract")[0].corpus
    assert lineage.corpus_of(rows, usual) == usual
    said = tmp_path / "CORPUS.toml"
    said.write_text('name = "Our desk"\nsource = "tickets of 2026"\nlicence = "LicenseRef-ours"\n')
    ours = lineage.corpus_of(rows, usual)
    assert (ours.name, ours.licence) == ("Our desk", "LicenseRef-ours")
    before = {"runs": [], "data": []}
    assert lineage.licence(lineage.extended(before, {}, [(ours, "1")])) == "LicenseRef-ours"
    assert lineage.licence(lineage.extended(before, {}, [(ours, "1"), (usual, "2")])) == "LicenseRef-ours AND CC-BY-SA-4.0"
    assert lineage.licence(lineage.extended(before, {}, [(usual, "2")])) == "CC-BY-SA-4.0"
    said.write_text('name = "Our desk"')
    with pytest.raises(DataError, match="CORPUS.toml: it says where the rows are from"):
        lineage.corpus_of(rows, usual)


def shipped(folder: Path, *versions: int, kind: str = "fill") -> Path:
    """A specialist whose versions are cards, and their files."""
    for version in versions:
        here = folder / str(version)
        here.mkdir(parents=True)
        (here / "model.onnx").write_bytes(b"a graph")
        card.write(folder, folder.name, ["extract"], {"name": folder.name, "version": version, "kind": kind, "limits": {}})
    return folder


def test_a_version_that_is_there_is_not_written_over_and_the_refusal_says_what_would_do(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "extract", 1, 3)
    folders.vacant(folder, 2)
    folders.vacant(tmp_path / "new", 1)
    with pytest.raises(DataError, match=r"version 1 already: give --version 4, another --out, or --overwrite"):
        folders.vacant(folder, 1)


def test_a_version_is_put_in_its_place_as_a_whole_and_does_not_serve_before_somebody_says_so(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "extract", 1)
    assert folders.place(shipped(tmp_path / "extract.new", 2), folder, 2) == folder / "2"
    assert folders.specialist(folder)["active_version"] == 1 and folders.version(folder / "2")["version"] == 2
    # Written over, nothing of the old one is left.
    (folder / "2" / "stale.json").write_text("{}")
    folders.place(shipped(tmp_path / "extract.new", 2), folder, 2)
    assert sorted(p.name for p in (folder / "2").iterdir()) == ["card.toml", "model.onnx"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["extract"] and sorted(p.name for p in folder.iterdir()) == ["1", "2", "specialist.toml"]
    with pytest.raises(OSError):
        folders.place(shipped(tmp_path / "extract.new", 3), folder, 2)
    assert folders.version(folder / "2")["version"] == 2, "where the new one cannot come, the old one is back"
    shutil.rmtree(tmp_path / "extract.new")
    folders.place(shipped(tmp_path / "first.new", 2), tmp_path / "first", 2)
    assert folders.specialist(tmp_path / "first")["active_version"] == 2, "the first of a folder serves"


def test_a_version_for_other_tasks_or_of_another_name_does_not_belong_beside_one(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "extract", 1)
    folders.beside(folder, "extract", ["extract"])
    folders.beside(tmp_path / "new", "anything", ["route"])
    for name, of in (("extract", ["extract", "route"]), ("other", ["extract"])):
        with pytest.raises(DataError, match="give another --out, or the same --name and --task"):
            folders.beside(folder, name, of)


def test_what_is_trained_on_from_a_version_stays_of_its_kind_if_that_answers_the_task(tmp_path: Path) -> None:
    folder = shipped(tmp_path / "extract", 1)
    assert folders.kind_of(folder / "1", "extract") == "fill"
    assert folders.kind_of(folder / "1", "tool_call") is None and folders.kind_of(Path("minilm"), "extract") is None
