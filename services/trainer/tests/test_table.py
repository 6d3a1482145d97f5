"""models/README.md is what the shipped folders say, and says what they do not promise."""
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w

from shoal_trainer import table
from shoal_trainer.data import DataError

MODELS = Path(__file__).parents[3] / "models"


def test_the_page_of_the_shipped_models_is_made_from_their_folders() -> None:
    assert table.table(MODELS) == (MODELS / "README.md").read_text(), "remake it: python -m shoal_trainer table models > models/README.md"


def row(models: Path, folder: str, task: str) -> dict[str, str]:
    lines = [line.strip("| ").split(" | ") for line in table.table(models).splitlines() if line.startswith("| ")]
    return next(dict(zip(lines[0], line)) for line in lines if line[:2] == [folder, task])


def one(tmp_path: Path, name: str) -> tuple[Path, dict]:
    """A shipped folder by itself, without weights, and its card."""
    shutil.copytree(MODELS / name, tmp_path / name, ignore=shutil.ignore_patterns("*.onnx*"))
    return tmp_path / name / "1" / "card.toml", tomllib.loads((tmp_path / name / "1" / "card.toml").read_text())


def test_it_tells_seen_services_from_others_and_kept_rows_from_held_out_ones(tmp_path: Path) -> None:
    path, card = one(tmp_path, "extract")
    card["calibration"]["extract"] |= {"coverage": 0.5, "accuracy_kept": 0.8, "confidence_threshold": 0.6}
    beside = {"held_out_coverage": 0.4, "held_out_accuracy_kept": 0.75, "at_97": {"threshold": 0.9, "coverage": 0.1}}
    card["training"]["confidence"] = {"extract": {**beside, "unseen_coverage": 0.7, "unseen_accuracy_kept": 0.3, "unseen_ece": 0.44}}
    path.write_text(tomli_w.dumps(card))
    shown = row(tmp_path, "extract", "extract")
    assert (shown["kept"], shown["right of kept"]) == ("0.500 (0.400)", "0.800 (0.750)")
    assert shown["at 97 %"] == "0.100 kept from 0.900 on"
    assert shown["on other services"] == "kept 0.700, right of kept 0.300, ECE 0.440"
    card["training"]["confidence"]["extract"] = {**beside, "at_97": {"coverage": 0.0}}
    path.write_text(tomli_w.dumps(card))
    shown = row(tmp_path, "extract", "extract")
    assert shown["at 97 %"] == "0.000 kept" and shown["on other services"].strip() == ""


def test_every_specialist_has_its_curve_what_held_out_rows_show_and_what_other_services_do() -> None:
    chains = tomllib.loads((MODELS.parent / "mesh.toml").read_text())["task"]
    for name, of in chains.items():
        folder = MODELS / of["chain"][0]
        active = tomllib.loads((folder / "specialist.toml").read_text())["active_version"]
        card = tomllib.loads((folder / str(active) / "card.toml").read_text())
        made, beside = card["calibration"][name], card["training"]["confidence"][name]
        assert beside["curve"][-1][0] == 1.0 and 0 < beside["held_out_coverage"] <= 1 and 0 < beside["held_out_accuracy_kept"] <= 1, name
        assert ("unseen_ece" in beside) == ("unseen_rows" in card["scores"][name]), name
        assert ("at_97" in beside) == (made["accuracy_kept"] < 0.97), (name, "at the knee, and only there")


def test_it_says_who_gets_what_is_left_and_what_the_training_cost(tmp_path: Path) -> None:
    path, card = one(tmp_path, "summarize")
    part = {"rows": 200, "left": 50, "small_right": 0.25, "large_right": 0.5}
    card["training"] |= {"escalation": {"summarize": {"larger": "wide@2", "threshold": 0.5, "seen": part, "unseen": {**part, "left": 150}, "all": part}}, "cost": {"core_hours": 2.25, "gpu_hours": 0.5, "usd": 1.295}}
    path.write_text(tomli_w.dumps(card))
    shown = row(tmp_path, "summarize", "summarize")
    assert shown["larger tier"] == "wide@2 has 0.500 of the 0.250 that are left, for 0.250; on other services 0.500 of the 0.750 that are left, for 0.250"
    assert shown["cost"] == "2.2 core hours, 0.5 gpu hours, 1.295 $"
    del card["training"]["escalation"], card["training"]["cost"]
    path.write_text(tomli_w.dumps(card))
    shown = row(tmp_path, "summarize", "summarize")
    assert shown["larger tier"].strip() == shown.get("cost", "").strip() == ""


def test_below_it_stands_what_all_trainings_cost_and_a_run_that_two_come_from_once(tmp_path: Path) -> None:
    first, then, other = ({"seconds": seconds, "threads": 1, "seed": seed} for seconds, seed in ((3600.0, 1), (1800.0, 1), (7200.0, 2)))
    for name, runs in (("summarize", [first, then, {**then, "seconds": 3600.0, "resumed": True}]), ("planner", [first, other])):
        path, card = one(tmp_path, name)
        card["training"]["runs"] = runs
        path.write_text(tomli_w.dumps(card))
    assert "\n\nAll of them together, a run that several come from counted once: 4.0 core hours, 0.080 $.\n" in table.table(tmp_path)


def test_of_a_task_without_a_wrong_answer_the_one_is_shown_that_is_farthest_from_peoples(tmp_path: Path) -> None:
    path, _ = one(tmp_path, "compose")
    (path.parent / "samples.json").write_text('[{"task": "compose", "input": "ACTS", "output": "Oslo it is.", "right": true, "people": "How about Oslo?"}]')
    assert "\n**compose**, compose, farthest from people's:\n\n    ACTS\n    -> Oslo it is.\n    people: How about Oslo?\n" in table.table(tmp_path)


def test_a_wrong_answer_has_below_it_what_people_wrote_down_as_right(tmp_path: Path) -> None:
    path, _ = one(tmp_path, "planner")
    (path.parent / "samples.json").write_text('[{"task": "episode", "input": "TURNS", "output": "1. A.B()", "right": false, "people": "1. A.B()\\n2. A.C()"}]')
    assert "\n**planner**, episode, WRONG:\n\n    TURNS\n    -> 1. A.B()\n    people: 1. A.B()\n       2. A.C()\n" in table.table(tmp_path)


def test_whole_plans_stand_beside_what_is_published_of_them_and_splits_do_not(tmp_path: Path) -> None:
    path, card = one(tmp_path, "splitter")
    card["scores"]["plan"] |= {"splits": 0.98, "splits_low": 0.97, "splits_high": 0.99, "score": 0.75, "score_low": 0.7, "score_high": 0.8, "score_escalated": 0.78}
    card["training"]["end_to_end"] = {"calls": "tool_call@1", "escalated_to": "wide@2"}
    path.write_text(tomli_w.dumps(card))
    shown = row(tmp_path, "splitter", "plan")
    assert shown["main metric"] == "splits 0.980 (0.970 to 0.990)"
    assert shown["other metrics"] == "score 0.750 (0.700 to 0.800) with tool_call@1 behind it, score_escalated 0.780 with wide@2 for what that is not sure of"
    assert shown["bar"] == "splits ≥ 0.97, score ≥ 0.742"


def test_a_bar_stands_beside_who_is_asked_first_alone(tmp_path: Path) -> None:
    one(tmp_path / "models", "tool_call"), one(tmp_path / "models", "tool_call_wide")
    bars = lambda: [row(tmp_path / "models", name, "tool_call")["bar"].strip() for name in ("tool_call", "tool_call_wide")]  # noqa: E731
    assert bars() == ["score ≥ 0.87"] * 2, "without a mesh nobody is asked later"
    (tmp_path / "mesh.toml").write_text('[task.tool_call]\nchain = ["tool_call", "large"]\n')
    assert bars() == ["score ≥ 0.87", ""]


def test_it_says_how_many_answers_rounding_left_as_they_were_where_that_was_measured(tmp_path: Path) -> None:
    path, card = one(tmp_path, "tool_call")
    for measured, said in ((0.995, "0.995"), (None, "")):
        card["training"].pop("parity_int8", None)
        card["training"] |= {} if measured is None else {"parity_int8": measured}
        path.write_text(tomli_w.dumps(card))
        assert row(tmp_path, "tool_call", "tool_call")["same in int8"].strip() == said


def test_it_says_how_much_of_the_rules_error_is_gone_and_where_it_is_not_halved(tmp_path: Path) -> None:
    path, card = one(tmp_path, "extract")
    # The rules have 0.820, 0.736, 0.024 (of which less is better) and, of other services, 0.701, 0.554 and 0.019.
    card["scores"]["extract"] |= {"score": 0.93, "exact_nonempty": 0.87, "false_extraction": 0.005, "unseen_score": 0.71, "unseen_exact_nonempty": 0.33, "unseen_false_extraction": 0.0}
    path.write_text(tomli_w.dumps(card))
    assert row(tmp_path, "extract", "extract")["rules' error gone"] == (
        "score 61 %, exact_nonempty 50 %, false_extraction 79 %, unseen_score 3 %, unseen_exact_nonempty -51 %, unseen_false_extraction 100 %"
    )
    assert "\nThe rules' error is not halved in these, of which so much is gone: extract, extract: unseen_score 3 %, unseen_exact_nonempty -51 %.\n" in table.table(tmp_path)


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    for models in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="no specialist.toml"):
            table.table(models)
    done = subprocess.run([sys.executable, "-m", "shoal_trainer", "table", str(tmp_path / "TYPO")], capture_output=True, text=True, check=False)
    assert done.returncode == 65 and "TYPO: no specialist.toml" in done.stderr and done.stdout == ""
