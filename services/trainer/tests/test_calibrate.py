"""Confidence: a map that keeps its promises, and the threshold."""
import argparse
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w
from conftest import rows

from shoal_trainer import __main__ as commands
from shoal_trainer import calibrate, evaluate, publish, tasks


def answers(n: int, seed: int) -> tuple[list[dict[str, float]], list[bool]]:
    """Answers that are right with the probability exp(sum_logprob)."""
    rng = random.Random(seed)
    sums = [-rng.random() ** 4 * 3 for _ in range(n)]
    right = [rng.random() < 2.718281828**s for s in sums]
    noise = [rng.gauss(0, 1) for _ in range(n)]
    return [{"sum_logprob": s, "mean_logprob": x, "min_logprob": x} for s, x in zip(sums, noise)], right


def table(statistics: list[dict[str, float]], right: list[bool]) -> dict:
    return calibrate.table(statistics, right, calibrate.held_out(statistics, right))


def test_the_statistic_that_tells_right_from_wrong_is_taken_and_its_map_is_calibrated_on_other_rows() -> None:
    statistics, right = answers(2000, 1)
    made = table(statistics, right)
    assert made["statistic"] == "sum_logprob" and made["expected_calibration_error"] <= 0.05
    xs, ps = zip(*made["knots"])
    assert list(xs) == sorted(set(xs)) and list(ps) == sorted(ps) and 0 <= ps[0] <= ps[-1] <= 1


def test_a_map_of_few_rows_is_nearer_to_the_truth_than_one_that_follows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def off() -> float:
        """From the probability that answers were made with, over many samples of 300."""
        found = []
        for seed in range(20):
            statistics, right = answers(300, seed)
            truth = [2.718281828 ** of["sum_logprob"] for of in statistics]
            found += [abs(score - true) for score, true in zip(calibrate.fit(statistics, right).over(statistics), truth)]
        return sum(found) / len(found)

    mean = off()
    monkeypatch.setattr(calibrate, "BAGS", 1)
    monkeypatch.setattr(calibrate, "SHARES", 20)
    assert mean < 0.8 * off()


def test_rows_that_share_a_statistic_are_promised_what_came_of_all_of_them() -> None:
    off = []
    for seed in range(20):
        rng = random.Random(seed)
        sums = [0.0 if rng.random() < 0.6 else -rng.random() for _ in range(400)]
        right = [rng.random() < (0.8 if s == 0.0 else 0.5) for s in sums]
        tied = [r for s, r in zip(sums, right) if s == 0.0]
        made = calibrate.fit([{name: s for name in calibrate.STATISTICS} for s in sums], right)
        off.append(made.knots[-1][1] - sum(tied) / len(tied))
    assert made.knots[-1][0] == 0.0 and sum(off) / len(off) < 0.01


def test_what_is_kept_over_the_threshold_is_right_in_97_percent() -> None:
    statistics, right = answers(2000, 2)
    made = table(statistics, right)
    assert made["accuracy_kept"] >= 0.97 and made["coverage"] >= 0.2


def test_a_model_that_is_seldom_wrong_is_doubted_where_it_is_and_trusted_everywhere_else() -> None:
    rng = random.Random(1)
    # Wrong in one of twenty-five, nearly all of them among the twentieth that it is least sure of.
    sums = [-20 * rng.random() ** 12 for _ in range(3000)]
    right = [rng.random() < (0.2 if s < -11 else 0.995) for s in sums]
    known = [{name: s for name in calibrate.STATISTICS} for s in sums]
    held = calibrate.held_out(known, right)
    assert held.error < 0.012 and held.error < held.floor + 0.006


def test_a_threshold_of_97_percent_that_most_folds_have_no_use_of_is_luck_and_the_knee_is_taken() -> None:
    statistics, right = answers(2000, 2)
    held = calibrate.held_out(statistics, right)
    assert not held.knee
    made, lucky = (calibrate.table(statistics, right, replace(held, knee=knee)) for knee in (False, True))
    assert made["accuracy_kept"] >= 0.97 > lucky["accuracy_kept"] and lucky["coverage"] > made["coverage"]
    told = calibrate.told(lucky, statistics, right, replace(held, knee=True))
    assert told["at_97"] == {"threshold": made["confidence_threshold"], "coverage": made["coverage"]}, "both are told"
    # The surest tenth is right, and of all others a half.
    known = [{name: float(i) for name in calibrate.STATISTICS} for i in range(400)]
    assert calibrate.held_out(known, [i >= 360 or i % 2 == 0 for i in range(400)]).knee


def test_where_97_percent_would_keep_too_little_the_knee_is_taken() -> None:
    points = [(0.1, 1.0, 0.9), (0.5, 0.8, 0.7), (1.0, 0.5, 0.1)]
    assert calibrate.threshold(points) == (0.5, 0.8, 0.7)


def test_an_answer_that_is_always_right_is_always_sure() -> None:
    made = table([{s: -1.0 for s in calibrate.STATISTICS}] * 50, [True] * 50)
    assert made["knots"] == [[0.0, 1.0]] and made["coverage"] == 1.0


def test_a_larger_model_is_held_against_the_rows_that_the_small_one_leaves() -> None:
    def judged(*rows: tuple[float, bool]) -> list[evaluate.Judged]:
        return [evaluate.Judged({}, "", None, {"sum_logprob": sure}, right) for sure, right in rows]

    small = judged((0.9, True), (0.2, False), (0.3, True), (0.5, False))
    large = judged((0.1, False), (0.1, True), (0.1, True), (0.1, False))
    found = evaluate.left(small, large, 0.5, lambda statistics: statistics["sum_logprob"])
    assert found == {"rows": 4, "left": 2, "small_right": 0.5, "large_right": 1.0}, "a row at the threshold stays"


def test_escalation_is_measured_on_services_seen_in_training_on_others_and_on_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    some = rows("summarize")[:5]
    for split in ("train", "dev"):
        (tmp_path / f"summarize.{split}.jsonl").write_text("".join(json.dumps({**row, "seen": i < 2}) + "\n" for i, row in enumerate(some)))
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
        known = {"statistic": "sum_logprob", "knots": [[0.0, 0.0], [1.0, 1.0]], "confidence_threshold": 0.5}
        (tmp_path / name / "card.toml").write_text(tomli_w.dumps({"kind": "fill", "limits": {"max_new_tokens": 0}, "calibration": {"summarize": known}}))

    def judge(folder: Path, task: object, dev: list[dict], *_: object) -> list[evaluate.Judged]:
        right, sure = {"small": "TFTFF", "large": "TTFFF"}[folder.name], (0.9, 0.1, 0.2, 0.3, 0.9)
        return [evaluate.Judged(row, "", None, {"sum_logprob": s}, r == "T") for row, r, s in zip(dev, right, sure, strict=True)]

    monkeypatch.setattr(evaluate, "judge", judge)
    commands.escalated(argparse.Namespace(task="summarize", data=tmp_path, small=tmp_path / "small", large=tmp_path / "large", write=False))
    assert json.loads(capsys.readouterr().out) == {
        "task": "summarize",
        "seen": {"rows": 2, "left": 1, "small_right": 0.0, "large_right": 1.0},
        "unseen": {"rows": 3, "left": 2, "small_right": 0.5, "large_right": 0.0},
        "all": {"rows": 5, "left": 3, "small_right": 0.3333, "large_right": 0.3333},
    }


def test_a_map_without_fault_is_off_by_its_floor_which_more_rows_lower_and_a_map_of_nothing_by_more() -> None:
    few, many = (calibrate.held_out(*answers(n, 3)) for n in (300, 3000))
    assert few.error < 2 * few.floor and many.error < 2 * many.floor and many.floor < few.floor / 2
    # Right where it was thought wrong, and the other way round.
    statistics, right = answers(300, 3)
    scores = [2.718281828 ** s["sum_logprob"] for s in statistics]
    assert calibrate.error(scores, [not r for r in right]) > 3 * few.floor


@pytest.fixture
def few_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is no figure of a card."""
    monkeypatch.setattr(calibrate, "PARTITIONS", 2)


@pytest.mark.usefixtures("few_partitions")
def test_what_is_kept_on_other_rows_is_less_right_than_where_the_threshold_was_chosen() -> None:
    # Noise alone: a threshold that looks good on these rows was luck, and says nothing of others.
    rng = random.Random(4)
    statistics = [{s: rng.gauss(0, 1) for s in calibrate.STATISTICS} for _ in range(200)]
    right = [rng.random() < 0.5 for _ in statistics]
    held = calibrate.held_out(statistics, right)
    assert held.accuracy < table(statistics, right)["accuracy_kept"] - 0.05 and 0.4 < held.accuracy < 0.6
    # And where confidence tells, it is nearly as good on others.
    statistics, right = answers(2000, 2)
    held, made = calibrate.held_out(statistics, right), table(statistics, right)
    assert abs(held.coverage - made["coverage"]) < 0.03 and abs(held.accuracy - made["accuracy_kept"]) < 0.02


@pytest.mark.usefixtures("few_partitions")
def test_a_card_keeps_the_curve_and_where_the_knee_was_taken_what_97_percent_would_keep() -> None:
    def told(right: list[bool]) -> tuple[dict, dict]:
        statistics = [{s: float(i) for s in calibrate.STATISTICS} for i in range(len(right))]
        held = calibrate.held_out(statistics, right)
        made = calibrate.table(statistics, right, held)
        return made, calibrate.told(made, statistics, right, held)

    # Of 400 the surest 40 are right, of the next 180 three in four, and no other.
    made, beside = told([False] * 180 + [i % 4 > 0 for i in range(180)] + [True] * 40)
    coverages, accuracies = zip(*beside["curve"])
    assert 4 <= len(coverages) <= calibrate.POINTS and list(coverages) == sorted(set(coverages)) and coverages[-1] == 1.0
    assert accuracies[-1] == 175 / 400 and accuracies[0] > 0.95, "it ends with all rows"
    assert made["accuracy_kept"] < 0.97 and beside["at_97"]["coverage"] < 0.2 and beside["at_97"]["threshold"] > made["confidence_threshold"]
    assert any(abs(coverage - made["coverage"]) < 0.05 for coverage in coverages), "the threshold is on it"
    made, beside = told([False, True] * 200)
    assert beside["at_97"] == {"coverage": 0.0}, "no threshold does it"
    made, beside = told([i >= 200 for i in range(400)])
    assert made["accuracy_kept"] >= 0.97 and "at_97" not in beside


@pytest.mark.usefixtures("few_partitions")
def test_confidence_is_fitted_on_services_seen_in_training_and_what_it_is_worth_on_others_is_told() -> None:
    statistics, right = answers(400, 5)
    judged = [evaluate.Judged({"seen": True}, "", None, s, r) for s, r in zip(statistics, right)]
    # As sure as those, and wrong.
    judged += [evaluate.Judged({"seen": False}, "", None, s, False) for s in statistics[:100]]
    about: dict = {"kind": "fill", "calibration": {}, "training": {}}
    publish.calibrated(about, tasks.KNOWN["extract"](), lambda: judged)
    made, beside = about["calibration"]["extract"], about["training"]["confidence"]["extract"]
    assert made == table(statistics, right), "others change nothing of it"
    # Serving refuses a card with any other key here: services/specialist/src/folder/manifest.rs.
    assert set(made) == {"confidence_threshold", "coverage", "accuracy_kept", "expected_calibration_error", "calibration_error_floor", "statistic", "knots"}
    sure = [s for s in statistics[:100] if calibrate.Map.of(made)(s) >= made["confidence_threshold"]]
    assert beside["unseen_coverage"] == len(sure) / 100 and beside["unseen_accuracy_kept"] == 0.0
    assert beside["unseen_ece"] == pytest.approx(sum(calibrate.Map.of(made)(s) for s in statistics[:100]) / 100, abs=1e-4), "it promised that much, and nothing came"
    publish.calibrated(about, tasks.KNOWN["extract"](), lambda: judged[:400])
    assert "unseen_ece" not in about["training"]["confidence"]["extract"]
