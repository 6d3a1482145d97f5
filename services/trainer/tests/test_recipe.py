"""The recipe: steps in the order of their needs, done once, gone on with after a stop, and carried away in parts."""
import json
import shlex
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
from conftest import rows

from shoal_trainer import folders, recipe, tasks
from shoal_trainer.__main__ import parser
from shoal_trainer.data import DataError
from shoal_trainer.encoder.loop import Recipe
from shoal_trainer.encoder.net import MINILM_POSITIONS

MODELS = Path(__file__).parents[3] / "models"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_the_shipped_recipe_makes_every_shipped_model_of_commands_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    # The command line is read, not run: no folder is there.
    monkeypatch.setattr(folders, "of_version", Path)
    steps = recipe.read(recipe.SHIPPED)
    shipped = {p.parent.name for p in MODELS.glob("*/specialist.toml")}
    assert {s.name for s in steps if s.export} == shipped
    for i, step in enumerate(steps):
        assert {s.name for s in steps[:i]} >= set(step.needs)
        for command in step.commands(Path("data"), Path("out")):
            args = parser().parse_args(command)
            assert not hasattr(args, "task") or tasks.named(args.task)
    closing = [shlex.join(command) for step in steps if step.close for command in step.commands(Path("data"), Path("out"))]
    assert closing == [
        "end-to-end out/splitter/1 out/tool_call/1 --large out/tool_call_wide/1 --data data",
        "escalate --task tool_call out/tool_call/1 out/tool_call_wide/1 --write --data data",
        "table out --out out/README.md",
    ]
    assert {s.name for s in steps if s.close} == {s.name for s in steps[-3:]} and len(steps[-1].needs) == len(steps) - 1


def told(steps: dict[str, recipe.Step], name: str) -> list[dict]:
    """What a step and those that it starts from say to `train`, the first one first."""
    args = parser().parse_args(["train", *shlex.split(steps[name].train or ""), "--data", "d", "--out", "o"])
    before = told(steps, args.source[1:]) if args.source.startswith("@") else []
    positions = args.positions or (before[-1]["positions"] if before else MINILM_POSITIONS)
    return [*before, {"tasks": args.task.split(","), "epochs": args.epochs, "rate": args.rate or Recipe.rate, "batch_rows": args.batch_rows, "seed": args.seed, "positions": positions}]


@pytest.mark.parametrize("name", ["tool_call", "splitter", "planner", "summarize", "extract"])
def test_the_steps_to_a_model_are_the_runs_that_its_card_lists(name: str) -> None:
    steps = {s.name: s for s in recipe.read(recipe.SHIPPED)}
    runs = [run for run in tomllib.loads((MODELS / name / "1" / "card.toml").read_text())["training"]["runs"] if "tasks" in run]
    for said, run in zip(told(steps, name), runs, strict=True):
        # Of old runs not everything is written down.
        written_down = said.keys() & run.keys()
        assert {key: said[key] for key in written_down} == {key: run[key] for key in written_down} and written_down >= {"tasks", "epochs", "rate", "seed"}


def test_the_first_of_those_whose_mean_is_taken_reads_as_many_tokens_as_any() -> None:
    steps = {s.name: s for s in recipe.read(recipe.SHIPPED)}
    for step in steps.values():
        reads = [told(steps, name)[-1]["positions"] for name in step.average]
        assert not reads or reads[0] == max(reads), step.name


def test_what_closes_is_done_where_all_that_it_reads_is_there_and_again_when_that_is_made_anew(tmp_path: Path) -> None:
    text = '[a]\ntrain = "--from minilm"\nexport = ""\n[b]\ntrain = "--from minilm"\nexport = ""\n[pair]\nclose = "escalate @a/1 @b/1"\n[page]\nclose = "table @ --out @/README.md"\n[c]\ntrain = "--from @b"\n'
    steps = recipe.read(written(tmp_path, text))
    assert [s.name for s in steps] == ["a", "b", "c", "pair", "page"] and steps[-1].commands(tmp_path, Path("out")) == [["table", "out", "--out", "out/README.md"]]
    assert [s.name for s in recipe.wanted(steps, ["a"])] == ["a"] and [s.name for s in recipe.wanted(steps, ["a", "b"])] == ["a", "b", "pair"]
    assert [s.name for s in recipe.wanted(steps, ["a"], frozenset({"b"}))] == ["a", "b", "pair"] and [s.name for s in recipe.wanted(steps, ["a", "c"])] == [s.name for s in steps]
    for name, stamp in recipe.stamps(steps, tmp_path).items():
        (tmp_path / f"{name}.done").write_text(stamp)
    assert recipe.finished(steps, tmp_path, tmp_path) == {s.name for s in steps}
    (tmp_path / "a.done").unlink()
    assert recipe.finished(steps, tmp_path, tmp_path) == {"b", "c"}, "its card is written anew"


def test_steps_stand_behind_what_they_need_and_what_nobody_asked_for_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, '[c]\naverage = ["a", "b"]\n[b]\ntrain = "--from @a"\n[a]\ntrain = "--from minilm"\n[d]\ntrain = "--from minilm"\n')
    steps = recipe.read(path)
    assert [s.name for s in steps] == ["a", "d", "b", "c"] and [s.name for s in recipe.wanted(steps, ["c"])] == ["a", "b", "c"]
    before = recipe.stamps(steps, tmp_path)
    path.write_text(path.read_text().replace('[a]\ntrain = "--from minilm"', '[a]\ntrain = "--from minilm --seed 2"'))
    after = recipe.stamps(recipe.read(path), tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"a", "b", "c"}, "what starts from it is another one too"
    path.write_text('[a]\ntrain = "--task plan,route"\n[b]\ntrain = "--task plan_b"\n')
    before = recipe.stamps(recipe.read(path), tmp_path)
    (tmp_path / "route.dev.jsonl").write_text("{}")
    after = recipe.stamps(recipe.read(path), tmp_path)
    assert {name for name in before if before[name] != after[name]} == {"a"}, "its data is another"
    with pytest.raises(DataError, match="--jobs is 0"):
        recipe.run(recipe.read(path), tmp_path, tmp_path / "out", 0)
    with pytest.raises(DataError, match="into itself"):
        recipe.parts(tmp_path, tmp_path / "parts")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[a]\ntrain = "--from @b"\n[b]\ntrain = "--from @a"\n', "needs it in turn"),
        ('[a]\ntrain = "--from @nobody"\n', "`nobody`, which is no step"),
        ('[a]\ntrain = "x"\naverage = ["a"]\n', "one of them"),
        ('[a]\nclose = "table @"\nexport = "x"\n', "`export` beside `close`"),
        ('[a]\nclose = "escalate @b/1"\n', "`b`, which is no step"),
        ('[a]\nclose = "escalate @b/1"\n[b]\ntrain = "--from @a"\n', "needs it in turn"),
        ('[a]\naverage = ["b"]\nweights = [1, 2]\n[b]\ntrain = "x"\n', r"\[1, 2\] for 1 steps"),
        ('[a]\naverage = ["b"]\nweights = 3\n[b]\ntrain = "x"\n', "the weights 3 for 1 steps"),
        ('[a]\ntrian = "x"\n', "has `trian`"),
        ("[a\n", "recipe.toml"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DataError, match=told):
        recipe.read(written(tmp_path, text))


def test_a_recipe_goes_on_where_it_failed_and_does_nothing_twice(tmp_path: Path) -> None:
    again = "--epochs 1 --looks 0 --threads 2"
    small = f"--layers 1 --vocabulary 3000 {again}"
    path = written(
        tmp_path,
        f'[one]\ntrain = "--task tool_call --from minilm {small}"\n[two]\ntrain = "--task tool_call --from @one {again} --seed 2"\n'
        '[both]\naverage = ["one", "two"]\nweights = [2, 1]\nnarrow = true\nexport = "--task tool_call --precision int8 --dev-rows 10"\n'
        '[tier]\nclose = "escalate --task tool_call @both/1 @both/1 --write"\n[page]\nclose = "table @ --out @/README.md"\n',
    )
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "tool_call.train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows("tool_call")[:100]))

    def run() -> subprocess.CompletedProcess[str]:
        asked = ("recipe", "--recipe", path, "--data", data, "--out", out, "--jobs", "2", "--parts", tmp_path / "parts")
        return subprocess.run([sys.executable, "-m", "shoal_trainer", *map(str, asked)], capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 65 and "one.log says why" in done.stderr and "tool_call.dev.jsonl" in (out / "one.log").read_text()
    (data / "tool_call.dev.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows("tool_call")[100:120]))
    done = run()
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(json.loads(done.stdout)["seconds"]) == {"one", "two", "both", "tier", "page"} and (out / "both" / "1" / "card.toml").is_file()
    assert tomllib.loads((out / "both" / "1" / "card.toml").read_text())["training"]["escalation"]["tool_call"]["larger"] == "both@1" and "| both@1 has " in (out / "README.md").read_text()
    (tmp_path / "parts" / "009").mkdir()
    (tmp_path / "parts" / "009" / "part.072").write_text("of an earlier time")
    done = run()
    assert done.returncode == 0 and json.loads(done.stdout)["seconds"] == {}
    pieces = sorted((tmp_path / "parts").glob("*/part.*"))
    assert len(pieces) == json.loads(done.stdout)["parts"] > 1 and all(p.stat().st_size <= recipe.PART_BYTES for p in pieces)
    (tmp_path / "whole.tar").write_bytes(b"".join(p.read_bytes() for p in pieces))
    with tarfile.open(tmp_path / "whole.tar") as tar:
        tar.extractall(tmp_path / "there", filter="data")
    assert (tmp_path / "there" / "both" / "1" / "model.onnx").read_bytes() == (out / "both" / "1" / "model.onnx").read_bytes()
