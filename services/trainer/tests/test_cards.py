"""What the shipped cards say of the weights' making, of the larger tier, and by samples; and the commands that write it there."""
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import tomli_w
from conftest import rows

from shoal_trainer import data, evaluate, lineage, publish, tasks
from shoal_trainer.__main__ import main

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "models"
SHIPPED = sorted(MODELS.glob("*/[0-9]*"))


def card(folder: Path) -> dict:
    return tomllib.loads((folder / "card.toml").read_text())


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_a_card_says_what_its_weights_were_made_of_and_what_that_cost(folder: Path) -> None:
    about, made = card(folder), lineage.of(folder)
    assert about["training"]["cost"] == lineage.cost(made) and about["training"]["cost"]["usd"] > 0, "write it: python -m shoal_trainer cost"
    assert about["licence"] == lineage.licence(made) and about["files"]["samples.json"] == data.sha256(folder / "samples.json")
    for run in made["runs"]:
        # Others are no trainings: a mean, a lengthening.
        if "tasks" in run:
            assert {"seed", "seconds", "rows"} <= set(run), run
    assert all(len(digest) == 64 for entry in made["data"] for digest in entry["sha256"].split())
    assert {name.split(".")[0] for name in about["training"]["judged_on"]} == set(about["scores"])


def test_what_a_training_cost_is_written_from_the_runs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    there = shutil.copytree(MODELS / "tool_call", tmp_path / "tool_call") / "1"
    before = card(there)
    del before["training"]["cost"]
    before["training"]["runs"] = [{"seconds": 3600.0, "threads": 2, "device": "cpu"}, {"seconds": 1800.0, "device": "cpu"}]
    (there / "card.toml").write_text(tomli_w.dumps(before))
    monkeypatch.setattr(sys, "argv", ["shoal-train", "cost", str(there)])
    assert main() == 0 and json.loads(capsys.readouterr().out)["usd"] == 0.05
    after = card(there)
    assert after["training"].pop("cost") == {"core_hours": 2.5, "usd_per_core_hour": 0.02, "usd": 0.05} and after == before


CHAINS = {task: of["chain"] for task, of in tomllib.loads((ROOT / "mesh.toml").read_text())["task"].items() if len(of["chain"]) > 1}


def specialist(name: str) -> str:
    """Who answers for a target of a chain: itself, or whoever listens where an endpoint points to."""
    mesh = tomllib.loads((ROOT / "mesh.toml").read_text())
    if name in mesh["specialist"]:
        return name
    asked = mesh["endpoint"][name]["base_url"]
    return next(other for other, of in mesh["specialist"].items() if of["http_listen"] in asked)


def of_chain(task: str) -> tuple[dict, str, str]:
    """What is known of a chain's larger model, and the names of both."""
    small, large = map(specialist, CHAINS[task])
    active = tomllib.loads((MODELS / small / "specialist.toml").read_text())["active_version"]
    about = card(MODELS / small / str(active))
    known = about["training"].get("escalation", {}).get(task)
    assert known, f"python -m shoal_trainer escalate --write --task {task} models/{small}/{active} models/{large}/…"
    assert known["threshold"] == about["calibration"][task]["confidence_threshold"], "of another threshold: measure it anew"
    return known, small, large


@pytest.mark.parametrize("task", CHAINS)
def test_a_chain_goes_to_a_larger_model_that_is_right_five_points_more_often(task: str) -> None:
    known, _, large = of_chain(task)
    active = tomllib.loads((MODELS / large / "specialist.toml").read_text())["active_version"]
    assert known["larger"] == f"{large}@{active}"
    assert known["seen"]["large_right"] - known["seen"]["small_right"] >= 0.05, known


@pytest.mark.parametrize("task", CHAINS)
def test_the_readme_says_of_a_larger_model_what_the_card_does(task: str) -> None:
    known, small, _ = of_chain(task)
    seen, of = known["seen"], " of services seen in training" if "unseen" in known else ""
    left, helped, alone = (f"{100 * share:.0f} %" for share in (seen["left"] / seen["rows"], seen["large_right"], seen["small_right"]))
    said = f"Of the {left} of dev rows{of} that `{small}` is not sure of it has {helped} right, where `{small}` would have {alone}"
    assert said in " ".join((ROOT / "README.md").read_text().split()), said


def test_escalation_is_written_only_where_the_threshold_is_of_the_same_dev_and_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for split, part in (("train", rows("tool_call")[:20]), ("dev", rows("tool_call")[20:50])):
        (tmp_path / f"tool_call.{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    there = shutil.copytree(MODELS / "tool_call", tmp_path / "tool_call") / "1"
    before = card(there)
    monkeypatch.setattr(sys, "argv", ["shoal-train", "escalate", "--write", "--task", "tool_call", "--data", str(tmp_path), str(there), str(MODELS / "tool_call_wide" / "1")])
    assert main() == 65 and "its threshold is not of the dev file" in capsys.readouterr().err and card(there) == before
    before["training"]["judged_on"] = data.digests(tmp_path, ["tool_call"], "dev")
    (there / "card.toml").write_text(tomli_w.dumps(before))
    assert main() == 0
    found, after = json.loads(capsys.readouterr().out), card(there)
    kept = before["calibration"]["tool_call"]["confidence_threshold"]
    assert after["training"].pop("escalation")["tool_call"] == {"larger": "tool_call_wide@1", "threshold": kept, "seen": found["seen"], "all": found["all"]}
    before["training"].pop("escalation", None)
    assert after == before and found["all"]["rows"] == 30
    judged = [evaluate.Judged(row, "", None, {s: -i / 30 for s in ("sum_logprob", "mean_logprob", "min_logprob")}, i % 3 > 0) for i, row in enumerate(rows("tool_call")[:30])]
    about = {**after, "training": {"escalation": {"tool_call": {}}}}
    publish.calibrated(about, tasks.KNOWN["tool_call"](), lambda: judged)
    assert "escalation" not in about["training"], "of the threshold before"


def test_what_had_to_be_said_for_a_reply_is_right_and_yet_counted_apart() -> None:
    def said(task: str, aided: int, seen: bool) -> list[evaluate.Judged]:
        answered = [{**row, "seen": seen} for row in rows(task)[:10]]
        return [evaluate.Judged(row, "", row["target"], {}, True, unaided=i >= aided) for i, row in enumerate(answered)]

    found = evaluate.metrics(tasks.KNOWN["compose"](), said("compose", 3, True) + said("compose", 6, False))
    assert (found["score"], found["unaided"], found["unseen_score"], found["unseen_unaided"]) == (1.0, 0.7, 1.0, 0.4)
    assert "unaided" not in evaluate.metrics(tasks.KNOWN["tool_call"](), said("tool_call", 0, True)), "nothing is said for it"


def test_what_compose_says_by_itself_is_the_end_of_its_curve() -> None:
    about = card(MODELS / "compose" / "1")
    assert about["scores"]["compose"]["score"] == 1.0, "or what is trusted is fewer than what is unaided"
    assert about["training"]["confidence"]["compose"]["curve"][-1] == [1.0, about["scores"]["compose"]["unaided"]]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.parent.name)
def test_the_samples_of_a_version_show_a_right_answer_that_says_something_and_a_wrong_one(folder: Path) -> None:
    samples = json.loads((folder / "samples.json").read_text())
    for task in card(folder)["scores"]:
        right, wrong = (sample for sample in samples if sample["task"] == task)
        assert right["right"] and tasks.KNOWN[task]().read(right["output"]), task
        assert wrong["people"] != wrong["output"] and tasks.KNOWN[task]().read(wrong["people"]) is not None, task


def test_the_sample_that_is_wrong_is_the_farthest_from_peoples_where_none_is_wrong() -> None:
    def judged(target: object, said: str, right: bool = True, **given: object) -> evaluate.Judged:
        return evaluate.Judged({"input": given, "target": target}, said, said, {}, right)

    def reply(value: str, said: str, people: str, right: bool = True) -> evaluate.Judged:
        return judged(people, said, right, service="S", acts=[{"act": "OFFER", "slot": "name", "values": [value] if value else []}])

    compose, extract = tasks.KNOWN["compose"](), tasks.KNOWN["extract"]()
    dull, close, far = reply("", "Bye.", "Farewell to you!"), reply("Oslo", "It is in Oslo.", "It is in Oslo."), reply("Rome", "Rome it would be there.", "How about Rome?")
    shown = publish.shown(compose, [dull, close, far])
    assert [s["output"] for s in shown] == [close.text, far.text] and shown[1]["right"] and shown[1]["people"] == "How about Rome?", "a reply that has nothing to say shows nothing"
    wrong = reply("Bonn", "Where?", "Bonn.", right=False)
    assert [(s["output"], s["right"], "people" in s) for s in publish.shown(compose, [close, far, wrong])] == [(close.text, True, False), ("Where?", False, True)]
    empty, full = judged({}, "{}"), judged({"city": "Oslo"}, '{"city":"Oslo"}')
    assert [s["output"] for s in publish.shown(extract, [empty, full])] == [full.text], "one answer is right: none is far from it"
    assert [s["output"] for s in publish.shown(extract, [empty])] == ["{}"], "where no other is right"
