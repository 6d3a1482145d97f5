"""The whole way from rows to a folder, on a small model, on the CPU."""
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import rows

from shoal_trainer import data, tasks

BRIEF = "--looks 2 --uncompiled --minutes 0.2 --kind generate".split()
SIZE = "--hidden 64 --layers 1 --vocabulary 600 --context 320".split()
SHORT = [*BRIEF, *"--answer-tokens 48 --dev-rows 20".split()]
SMALL = [*SIZE, *SHORT]


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "shoal_trainer", *map(str, args)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of two tasks."""
    where = tmp_path_factory.mktemp("data")
    for task in ("tool_call", "plan"):
        for split, part in (("train", rows(task)[:160]), ("dev", rows(task)[160:])):
            (where / f"{task}.{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    return where


@pytest.fixture(scope="module")
def first(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A first training of two tasks."""
    out = tmp_path_factory.mktemp("models") / "both"
    done = run("train", "--task", "tool_call,plan", "--data", folder, "--from", "scratch", "--out", out, *SMALL)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, json.loads(done.stdout.strip().splitlines()[-1])


def test_a_first_training_ends_in_a_folder_whose_card_tells_the_truth(first: tuple[Path, dict]) -> None:
    out, said = first
    assert said["parity"] >= 0.99
    card = tomllib.loads((out / "1" / "card.toml").read_text())
    assert card["kind"] == "generate" and set(card["files"]) == {p.name for p in (out / "1").iterdir()} - {"card.toml"}
    assert all(data.sha256(out / "1" / name) == digest for name, digest in card["files"].items())
    assert set(card["scores"]) == {"tool_call", "plan"} == set(card["calibration"]) and card["training"]["runs"][-1]["steps"] > 0
    manifest = tomllib.loads((out / "specialist.toml").read_text())
    assert manifest == {"name": "both", "tasks": ["tool_call", "plan"], "active_version": 1}


def test_a_training_goes_on_where_it_stopped(first: tuple[Path, dict], folder: Path, tmp_path: Path) -> None:
    # In a copy: what goes on may find better weights, and other tests compare the first training's with its export.
    out = tmp_path / "both"
    work = Path(shutil.copytree(first[0].with_name("both.work"), out.with_name("both.work")))
    before = json.loads((work / "training.json").read_text())
    done = run("train", "--task", "tool_call,plan", "--data", folder, "--from", "scratch", "--out", out, *SIZE, *BRIEF, "--minutes", "1", "--resume", "--no-export")
    assert done.returncode == 0, done.stderr[-3000:]
    after = json.loads((work / "training.json").read_text())
    assert [run["resumed"] for run in after["runs"]] == [False, True] and after["runs"][0] == before["runs"][0]
    assert all(after["runs"][1][k] > before["runs"][0][k] for k in ("steps", "seconds"))


@pytest.mark.parametrize("how", [["--lora", "4"], []])
def test_a_fine_tune_starts_from_a_checkpoint_with_or_without_adapters(first: tuple[Path, dict], folder: Path, tmp_path: Path, how: list[str]) -> None:
    source = first[0].with_name("both.work")
    done = run("train", "--task", "tool_call", "--data", folder, "--from", source, "--out", tmp_path / "tool_call", "--version", "2", *SHORT, *how)
    assert done.returncode == 0, done.stderr[-3000:]
    card = tomllib.loads((tmp_path / "tool_call" / "2" / "card.toml").read_text())
    assert card["version"] == 2 and [run["from"] for run in card["training"]["runs"]] == ["scratch", "checkpoint"]
    assert card["training"]["runs"][-1]["lora"] == (4 if how else 0)


def test_an_export_that_says_something_else_than_its_checkpoint_is_refused(first: tuple[Path, dict], folder: Path, tmp_path: Path) -> None:
    from shoal_trainer import __main__ as commands
    from shoal_trainer.parity import ParityError

    there = tmp_path / "m"
    said = ["export", "--task", "tool_call", "--data", folder, "--from", first[0].with_name("both.work"), "--out", there, "--dev-rows", "5", "--kind", "generate", "--overwrite"]
    args = commands.parser().parse_args([str(word) for word in said])
    args.parity = 1.1  # More than all.
    with pytest.raises(ParityError, match="export at a higher precision"):
        commands.export_only(args)
    assert not (there / "1").exists() and not there.with_name("m.new").exists(), "nothing is left of it, and nothing that was there is touched"


def test_a_half_precision_export_is_half_as_large_says_the_same_and_is_its_own_checkpoint(first: tuple[Path, dict], folder: Path, tmp_path: Path) -> None:
    import torch

    from shoal_trainer import model

    work, out = first[0].with_name("both.work"), tmp_path / "half"
    done = run("export", "--task", "tool_call,plan", "--data", folder, "--from", work, "--out", out, "--precision", "fp16", "--dev-rows", "20", "--answer-tokens", "48", "--kind", "generate", "--parity", "0.95")
    # Twelve seconds of training leave choices so close that rounding to half precision turns one in a hundred.
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.strip().splitlines()[-1])["parity"] >= 0.95
    size = [(version / "model.onnx.data").stat().st_size for version in (out / "1", first[0] / "1")]
    assert size[0] < 0.6 * size[1]
    mine, again = (model.load(where)[0].state_dict() for where in (work, out / "1"))
    assert all(torch.equal(a.half(), b.half()) and torch.allclose(a, b, atol=1e-3) for a, b in zip(mine.values(), again.values()))


def test_an_export_is_its_own_checkpoint_and_keeps_the_licence_of_all_that_it_was_trained_on(first: tuple[Path, dict], folder: Path, tmp_path: Path) -> None:
    import torch

    from shoal_trainer import lineage, model

    shipped = first[0] / "1"
    mine, _ = model.load(first[0].with_name("both.work"))
    again, _ = model.load(shipped)
    assert all(torch.equal(a, b) for a, b in zip(mine.state_dict().values(), again.state_dict().values()))
    before = lineage.of(shipped)
    assert before["data"] == tomllib.loads((shipped / "card.toml").read_text())["data"]
    more = lineage.extended(before, {"steps": 1}, [(tasks.KNOWN["episode"].corpus, "abc")])
    assert lineage.licence(more) == "CC-BY-SA-4.0" and lineage.licence(before) == "CC0-1.0"
