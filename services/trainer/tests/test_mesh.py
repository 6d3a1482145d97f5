"""The whole turn through a running mesh, by commands alone: answers that were wrong are corrected, `shoal retrain` exports them, trains, places and
activates version 2 while version 1 serves, and the corrected requests are right."""
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import GENRES, call, two_tools

TINY = "--from minilm --layers 1 --vocabulary 3000 --epochs 30 --looks 1 --threads 2 --precision int8 --parity 0.9".split()
# Words of the weather that people use for music: no version knows it that was not told.
TAUGHT = ["make it rain {} in here", "a forecast of {} tonight"]


@dataclass(frozen=True)
class Mesh:
    """One that runs."""

    binary: str
    config: Path

    def __call__(self, *args: object) -> dict:
        """A command's last object, of one that must end well."""
        command = [self.binary, *map(str, args), "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (args, done.stdout[-2000:], done.stderr[-4000:])
        return json.loads(done.stdout.splitlines()[-1]) if "--json" in args else {}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What the first version learns, and is judged by."""
    return two_tools(tmp_path)


@pytest.fixture
def binary() -> str:
    """The program."""
    binary = os.environ.get("SHOAL_BIN")
    if not binary:
        pytest.skip("skipped: needs SHOAL_BIN, the path of a built `shoal`")
    return str(Path(binary).resolve())


@pytest.fixture
def mesh(binary: str, data: Path) -> Iterator[Mesh]:
    """A gateway, a store and one small tagger, as `shoal up` starts them."""
    train = [sys.executable, "-m", "shoal_trainer", "train", "--task", "tool_call", "--data", str(data), "--out", str(data / "tiny"), *TINY]
    done = subprocess.run(train, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    config = f"""
        [gateway]
        spool = "{data}/spool"
        feedback = "http://127.0.0.1:7410"
        [feedback]
        store = "{data}/outcomes.sqlite"
        [specialist.tiny]
        folder = "{data}/tiny"
        [task.tool_call]
        chain = ["tiny"]
    """
    (data / "mesh.toml").write_text(config)
    command = [binary, "up", "--free-ports", "--exit-with-parent", "--data", str(data / "up"), "--config", str(data / "mesh.toml")]
    with (data / "log").open("w") as log:
        up = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert up.stdin and up.stdout
    try:
        if not any("processes are healthy" in line for line in up.stdout):
            pytest.fail((data / "log").read_text()[-3000:])
        yield Mesh(binary, data / "up" / f"run-{up.pid}" / "mesh.toml")
    finally:
        up.stdin.close()
        up.wait(60)


def answers(mesh: Mesh, data: Path, lessons: list[dict]) -> tuple[str, list[dict]]:
    """One plan that asks all of them; its id, and the nodes in their order."""
    plan = data / "lessons.plan"
    plan.write_text("".join(f"{i}. tool_call: {r['input']}\n" for i, r in enumerate(lessons, 1)))
    done = mesh("run", plan, "--json")
    return done["plan_id"], sorted(done["nodes"], key=lambda node: int(node["id"]))


def test_a_correction_over_the_wire_is_right_from_the_version_that_learned_it(mesh: Mesh, data: Path) -> None:
    lessons = [call("PlayMusic", said, value) for said in TAUGHT for value in GENRES]
    plan, before = answers(mesh, data, lessons)
    wrong = [i for i, (node, r) in enumerate(zip(before, lessons, strict=True)) if node["output"] != r["target"]]
    assert len(wrong) > len(lessons) / 2 and {node["model"] for node in before} == {"tiny@1"}, before
    for i in wrong:
        mesh("feedback", "submit", plan, before[i]["id"], "--correction", json.dumps(lessons[i]["target"]), "--source", "ann")

    report = mesh("retrain", "tool_call", "--data", data, "--steps", 60, "--python", sys.executable, "--work", data / "work", "--json")
    assert report["accepted"] and (report["from_version"], report["to_version"], report["corrections"]) == (1, 2, len(wrong)), report

    # Active in the file, and what the process says of itself.
    listed = mesh("activate", "tiny", "--json")
    assert (listed["active_version"], listed["serving"], listed["refused"]) == (2, 2, None), listed
    assert tomllib.loads((data / "tiny" / "specialist.toml").read_text())["active_version"] == 2
    _, after = answers(mesh, data, [lessons[i] for i in wrong])
    right = [node["output"] == lessons[i]["target"] for i, node in zip(wrong, after, strict=True)]
    assert {node["model"] for node in after} == {"tiny@2"} and sum(right) >= 0.8 * len(right), after
