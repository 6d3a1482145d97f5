"""Plans with the calls behind them."""
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from conftest import rows

from shoal_trainer import end_to_end, score
from shoal_trainer.runtime import Answer

MODELS = Path(__file__).parents[3] / "models"
ROWS = [
    {"id": "a", "input": "play x and rate y", "target": [{"task": "tool_call", "input": "play x", "output": {"tool": "P"}}, {"task": "tool_call", "input": "rate y", "output": {"tool": "R"}}]},
    {"id": "b", "input": "play x", "target": [{"task": "tool_call", "input": "play x", "output": {"tool": "P"}}]},
]


def planned(*plans: list[str] | None) -> end_to_end.Planned:
    return [(row, plan and [{"task": "tool_call", "input": step} for step in plan]) for row, plan in zip(ROWS, plans, strict=True)]


def test_a_goal_is_right_if_the_calls_of_all_its_steps_are() -> None:
    right = {"play x": {"tool": "P"}, "rate y": {"tool": "R"}}
    plans = planned(["play x", "rate y"], ["play x"])
    assert end_to_end.steps(plans) == ["play x", "rate y"], "each is asked for once"
    for calls, wanted in ((right, 1.0), ({**right, "rate y": {"tool": "P"}}, 0.5), ({**right, "play x": None}, 0.0)):
        assert score.plan(end_to_end.whole(plans, calls))["score"] == wanted
    # A plan that is none, and one that lacks a step.
    assert score.plan(end_to_end.whole(planned(None, ["play x"]), right))["score"] == 0.5
    assert score.plan(end_to_end.whole(planned(["play x"], ["play x"]), right))["score"] == 0.5
    # It is the calls that count: another split that leads to the same ones is right.
    assert score.plan(end_to_end.whole(planned(["play x", "rate y"], ["play x now"]), {**right, "play x now": {"tool": "P"}}))["score"] == 1.0


def test_a_step_under_the_threshold_and_one_without_an_answer_are_left_to_the_larger_model() -> None:
    known = {"statistic": "sum_logprob", "knots": [[-1.0, 0.0], [0.0, 1.0]], "confidence_threshold": 0.5}
    said = {"sure": Answer("", (), (-0.5,)), "unsure": Answer("", (), (-0.6,)), "too long": None}
    assert end_to_end.unsure(said, known) == ["unsure", "too long"]


def test_the_command_writes_the_score_into_the_card_of_the_splitter(tmp_path: Path) -> None:
    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "shoal_trainer", "end-to-end", "--data", str(tmp_path), *map(str, args)], capture_output=True, text=True, check=False)

    shutil.copytree(MODELS / "splitter" / "1", tmp_path / "1")
    some = rows("plan")[:20]
    (tmp_path / "plan.dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    done = run(tmp_path / "1", MODELS / "tool_call" / "1", "--large", MODELS / "tool_call_wide" / "1")
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = (tomllib.loads((folder / "card.toml").read_text()) for folder in (MODELS / "splitter" / "1", tmp_path / "1"))
    found = after["scores"]["plan"]
    assert 0.5 < found["score"] <= 1 and found["score_low"] <= found["score"] <= found["score_high"] and found["score_escalated"] >= 0.5
    assert json.loads(done.stdout)["score"] == found["score"] and found["splits"] == before["scores"]["plan"]["splits"]
    assert after["training"]["end_to_end"] == {"calls": "tool_call@1", "escalated_to": "tool_call_wide@1"}
    some_rows = run(tmp_path / "1", MODELS / "tool_call" / "1", "--dev-rows", "5")
    assert json.loads(some_rows.stdout)["rows"] == 5 and tomllib.loads((tmp_path / "1" / "card.toml").read_text()) == after, "of some rows nothing is written"
    done = run(MODELS / "route" / "1", MODELS / "tool_call" / "1")
    assert done.returncode == 65 and "does not answer `plan`" in done.stderr
    del some[1]["target"][0]["output"]
    (tmp_path / "plan.dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    done = run(tmp_path / "1", MODELS / "tool_call" / "1")
    assert done.returncode == 65 and "no `output`" in done.stderr and some[1]["id"] in done.stderr
