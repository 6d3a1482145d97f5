"""What a run may go on from, and which flags a training refuses since it would not read them."""
import argparse
import json
from pathlib import Path

import pytest
from conftest import rows

from shoal_trainer import effect, folders, state, training
from shoal_trainer.__main__ import parser
from shoal_trainer.data import DataError

KINDS = {
    "tag": "--task plan --from minilm --layers 1 --vocabulary 3000 --epochs 2 --batch-rows 10 --looks 2",
    "generate": "--task plan --kind generate --from scratch --hidden 64 --layers 1 --vocabulary 600 --context 320 --steps 4 --looks 2 --uncompiled",
}


def args(said: str, data: Path, out: Path, *more: str) -> argparse.Namespace:
    return parser().parse_args(["train", *said.split(), "--data", str(data), "--out", str(out), *more])


def write(folder: Path, split: str, part: list[dict]) -> None:
    (folder / f"plan.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path, "train", rows("plan")[:20])
    write(tmp_path, "dev", rows("plan")[20:30])
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_as_the_run_that_it_was_and_as_no_other(data: Path, kind: str) -> None:
    out = data / kind
    work = training.train(args(KINDS[kind], data, out))
    told = (work / "training.json").read_text()
    for more, said in (
        (["--rate", "0.001"], r"--rate was 0.00\d+ and is 0.001"),
        (["--seed", "2"], "--seed was 1 and is 2"),
        (["--mix", "plan=2"], "--mix was {} and is {'plan': 2.0}"),
        (["--batch-rows" if kind == "tag" else "--batch-tokens", "7"], "--batch-(rows|tokens) was .* and is 7"),
    ):
        with pytest.raises(DataError, match=said):
            training.train(args(KINDS[kind], data, out, "--resume", *more))
    write(data, "train", rows("plan")[:19])
    with pytest.raises(DataError, match="plan.train.jsonl was .* and is .* Resume it with the command that began it"):
        training.train(args(KINDS[kind], data, out, "--resume"))
    assert (work / "training.json").read_text() == told, "a run that was refused is no run"
    write(data, "train", rows("plan")[:20])
    training.train(args(KINDS[kind], data, out, "--resume", "--patience", "9", "--threads", "1"))
    runs = json.loads((work / "training.json").read_text())["runs"]
    assert [run["resumed"] for run in runs] == [False, True] and runs[0]["rate"] == runs[1]["rate"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_refused_leaves_the_checkpoint_before_it_and_one_that_is_stopped_none(data: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, other = data / "plan", next(k for k in KINDS if k != kind)
    work = training.train(args(KINDS[kind], data, out))
    kept = {path.name: path.read_bytes() for path in work.iterdir()}
    for said, more in ((KINDS[kind], ["--mix", "typo=2"]), (KINDS[other], ["--mix", "typo=2"]), (KINDS["tag"].replace("minilm", "scratch"), ["--lora", "4"])):
        with pytest.raises(SystemExit):
            training.train(args(said, data, out, *more))
    assert {path.name: path.read_bytes() for path in work.iterdir()} == kept
    # As the other kind, stopped before its first look: nothing of the first kind is left to pass for it.
    from shoal_trainer import loop

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    for module in (loop, training.loop_of_encoders):
        monkeypatch.setattr(module, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        training.train(args(KINDS[other], data, out))
    assert folders.checkpoint(work) == (other == "generate") and not (other == "generate" and (work / folders.ENCODER).is_file())
    run = json.loads((work / "training.json").read_text())["runs"][-1]
    assert run["stopped"]


def test_a_run_that_goes_on_in_the_folder_that_it_starts_from_does_not_lose_it(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = training.train(args(KINDS["tag"], data, data / "plan"))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training.loop_of_encoders, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        training.train(args(f"--task plan --from {work}", data, data / "plan"))
    assert folders.checkpoint(work) and len(json.loads((work / "training.json").read_text())["runs"]) == 2


def test_where_no_run_is_there_is_nothing_to_go_on_from_and_nothing_is_lost(data: Path) -> None:
    work = training.train(args(KINDS["tag"].replace("--looks 2", "--looks 0"), data, data / "plan"))
    kept = {path.name: path.read_bytes() for path in work.iterdir()}
    for out in (data / "plan", data / "typo"):
        with pytest.raises(DataError, match=f"{out}.work: no state.pt there"):
            training.train(args(KINDS["tag"], data, out, "--resume"))
    assert {path.name: path.read_bytes() for path in work.iterdir()} == kept and not (data / "typo.work").exists()


def test_a_state_that_does_not_say_what_its_run_was_told_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    state.save(tmp_path, {"steps": 3})
    with pytest.raises(DataError, match="does not say what its run was asked"):
        state.same(tmp_path, {"--seed": 1})


@pytest.mark.parametrize(
    ("kind", "said", "flag"),
    [
        ("tag", "--task tool_call --from minilm --steps 10", "--steps is for decoders"),
        ("tag", "--task tool_call --from models/tool_call/1 --vocabulary 500", "--vocabulary is for a training from nothing"),
        *(("generate", f"--task compose --from models/compose/1 --{flag}", f"--{flag.split()[0]} is for a training from nothing") for flag in ("hidden 64", "layers 12", "vocabulary 9000", "context 99", "tokenizer x")),
        ("generate", "--task compose --from scratch --tokenizer x --vocabulary 500", "--vocabulary is for a tokenizer that is trained"),
        ("tag", "--task tool_call --from minilm --answer-tokens 224", "--answer-tokens is for decoders"),
        ("generate", "--task compose --from scratch --steps 3 --minutes 60", "--steps says how long instead of --minutes"),
        *(
            ("generate", f"--task compose --from scratch --no-export --{flag}", f"--{flag.split()[0]} is for the export")
            for flag in ("answer-tokens 9", "name x", "version 2", "overwrite", "precision int8", "parity 0.9", "description x", "dev-rows 9")
        ),
        ("generate", "--task compose --from scratch --no-export --steps 3", ""),
        ("generate", "--task compose --from scratch --answer-tokens 9 --precision fp16 --minutes 3", ""),
        ("fill", "--task episode --from models/planner/1 --layers 6 --positions 1024", ""),
        ("tag", "--task tool_call --from minilm --layers 4 --vocabulary 500", ""),
        ("generate", "--task compose --from scratch --hidden 64 --layers 2 --vocabulary 500 --context 99 --steps 3", ""),
    ],
)
def test_a_flag_that_a_training_would_not_read_is_refused(tmp_path: Path, kind: str, said: str, flag: str) -> None:
    given = args(said, tmp_path, tmp_path)
    if not flag:
        return effect.refuse(given, kind)
    with pytest.raises(SystemExit, match=flag):
        effect.refuse(given, kind)
