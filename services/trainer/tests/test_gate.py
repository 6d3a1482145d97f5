"""What a candidate is refused for, and what it is judged by, without any training: bars, losses of several turns, answers of which many are right."""
import random
import tomllib
from pathlib import Path

import pytest
import tomli_w
from conftest import learned

from shoal_trainer import bleu, gate
from shoal_trainer.evaluate import Judged
from shoal_trainer.lesson import Lesson, Staged
from shoal_trainer.split import Split
from shoal_trainer.turn import BELOW, routed, turn

TAUGHT = [(False, True)] * 5


def pairs(both: int, lost: int, gained: int = 0) -> list[gate.Pair]:
    return [(True, True)] * both + [(True, False)] * lost + [(False, True)] * gained


def test_a_sure_loss_under_half_a_point_passes_by_the_rule_and_is_told() -> None:
    verdict = gate.weigh(TAUGHT, {"route": pairs(3085, 15)})
    assert verdict.accepted and "route on dev lost surely, but at most 0.5%" in verdict.why and verdict.dev["route"].high < 0
    unsure = gate.weigh(TAUGHT, {"route": pairs(3085, 15, 12)})
    assert unsure.accepted and "surely" not in unsure.why
    assert not gate.weigh(TAUGHT, {"route": pairs(3084, 16)}).accepted


def test_the_half_point_is_of_the_lineage_and_not_of_each_turn() -> None:
    below: dict[str, float] = {}
    accepted = []
    for _ in range(3):
        verdict = gate.weigh(TAUGHT, {"route": pairs(997, 3)}, below)
        accepted.append(verdict.accepted)
        below = verdict.below if verdict.accepted else below
    assert accepted == [True, False, False] and below == {"route": pytest.approx(0.003)}
    assert "after 0.003 in turns before" in verdict.why
    regained = gate.weigh(TAUGHT, {"route": pairs(997, 0, 3)}, below)
    assert regained.accepted and regained.below == {"route": pytest.approx(0.0)}, "what came back is no debt"
    assert gate.weigh(TAUGHT, {"route": pairs(900, 0, 100)}, below).below == {"route": 0.0}, "the best is now the candidate itself"


@pytest.mark.parametrize(
    ("bar", "accepted"),
    [
        (gate.Bar("route's oos_recall on dev", 0.60, 0.71, 0.56), False),
        (gate.Bar("route's oos_recall on dev", 0.60, 0.71, 0.60), True),
        (gate.Bar("route's oos_recall on dev", 0.60, 0.50, 0.40), True),
        (gate.Bar("extract's false_extraction on dev", 0.02, 0.018, 0.021, fewer=True), False),
        (gate.Bar("extract's false_extraction on dev", 0.02, 0.018, 0.02, fewer=True), True),
        (gate.Bar("extract's false_extraction on dev", 0.02, 0.03, 0.04, fewer=True), True),
    ],
)
def test_a_bar_that_the_incumbent_held_must_not_break(bar: gate.Bar, accepted: bool) -> None:
    verdict = gate.weigh(TAUGHT, {"t": pairs(100, 0)}, bars=[bar])
    assert verdict.accepted is accepted and (accepted or f"{bar.name} breaks its bar of {bar.bar:g}" in verdict.why)


def test_where_many_answers_are_right_closeness_must_surely_rise_and_nothing_right_be_lost() -> None:
    right = [(True, True)] * 6
    rise, noise = [(0.4, 0.6 + i / 50) for i in range(6)], [(0.4, 0.41), (0.5, 0.48), (0.3, 0.33), (0.6, 0.59), (0.4, 0.41), (0.5, 0.5)]
    assert gate.weigh(rise, {}, still_right=right).accepted
    unsure = gate.weigh(noise, {}, still_right=right)
    assert not unsure.accepted and unsure.held_out.candidate > unsure.held_out.incumbent and "did not get better" in unsure.why
    assert "less is right" in gate.weigh(rise, {}, still_right=[*right[1:], (True, False)]).why


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("There are 4 hotels in Oslo.", 1.0, 1.0),
        ("there ARE 4 hotels  in oslo .", 1.0, 1.0),
        ("I found 4 hotels in Oslo.", 0.5, 0.8),
        ("There are 4", 0.2, 0.5),
        ("Which day?", 0.0, 0.1),
        ("", 0.0, 0.0),
    ],
)
def test_closeness_is_one_of_the_same_words_and_less_of_others(said: str, least: float, most: float) -> None:
    assert least - 1e-9 <= bleu.sentence(said, "There are 4 hotels in Oslo.") <= most + 1e-9
    assert bleu.sentence("Yes", "yes") == pytest.approx(1.0) and bleu.sentence("", "") == 1.0


def test_closeness_is_the_library_s_sentence_bleu_but_for_its_smoothing(rng: random.Random) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    metric = sacrebleu.metrics.BLEU(lowercase=True, effective_order=False, smooth_method="add-k", smooth_value=1)
    for _ in range(50):
        one, other = (" ".join(rng.choices("a b c d the hotel in Oslo".split(), k=rng.randint(4, 12))) for _ in range(2))
        assert bleu.sentence(one, other) == pytest.approx(metric.sentence_score(one, [other]).score / 100, abs=0.02)


class Fake:
    """A kind of model without models: what each version answers is given."""

    def __init__(self, task: str, where: Path, below: dict | None = None) -> None:
        self.task, self.where, self.answers = learned(task), where, {}
        self.version = self.card(where / "models" / "1", {BELOW: below} if below else {})

    def card(self, version: Path, training: dict) -> Path:
        version.mkdir(parents=True)
        (version / "card.toml").write_text(tomli_w.dumps({"version": int(version.name), "training": training}))
        return version

    def judge(self, folder: Path, task: object, rows: list[dict]) -> list[Judged]:
        said = [self.answers[folder.name][row["id"]] for row in rows]
        return [Judged(row, text, text, {}, self.task.right(row, text)) for row, text in zip(rows, said)]

    def train_from(self, version: Path, lesson: Lesson, work: Path, staging: Path) -> Staged:
        work.mkdir(parents=True)
        candidate = self.card(staging / "2", {})
        return Staged(candidate, {lesson.task.name: self.judge(candidate, lesson.task, lesson.dev[lesson.task.name])})

    def turn(self, held_out: list[dict], dev: list[dict], before: list[str], after: list[str]) -> gate.Verdict:
        ids = [row["id"] for row in [*held_out, *dev]]
        self.answers = {"1": dict(zip(ids, before, strict=True)), "2": dict(zip(ids, after, strict=True))}
        name = self.task.name
        lesson = Lesson(self.task, held_out, held_out, [self.task], {name: []}, {name: dev}, {}, 2, 1.0, 0, 1e-3, 0.99, 0, 1, 1)
        return turn(self, self.version, lesson, Split(held_out, held_out), self.where / "work")

    def remembered(self) -> dict:
        return tomllib.loads((self.where / "work" / "candidate" / "2" / "card.toml").read_text())["training"][BELOW]


def labelled(count: int, target: str, prefix: str) -> list[dict]:
    return [{"id": f"{prefix}{i}", "task": "route", "input": f"{prefix} {i}", "target": target} for i in range(count)]


def test_a_router_that_sends_less_away_is_refused_though_its_share_is_kept(tmp_path: Path) -> None:
    fake = Fake("route", tmp_path)
    held_out, known, strange = labelled(5, "bike", "b"), labelled(2000, "greeting", "g"), labelled(10, "oos", "o")
    dev = [*known, *strange]
    before, after = (["greeting"] * 2000 + ["oos"] * kept + ["greeting"] * (10 - kept) for kept in (7, 5))
    verdict = fake.turn(held_out, dev, ["oos"] * 5 + before, ["bike"] * 5 + after)
    assert not verdict.accepted and verdict.why == "route's oos_recall on dev breaks its bar of 0.6, which the version before it held: 0.700 -> 0.500"
    assert fake.remembered() == {"route": pytest.approx(2 / 2010, abs=1e-6)}


def test_what_a_version_s_card_says_was_lost_counts(tmp_path: Path) -> None:
    for below, accepted in ((None, True), ({"route": 0.004}, False)):
        fake = Fake("route", tmp_path / str(accepted), below)
        verdict = fake.turn(labelled(5, "bike", "b"), labelled(1000, "greeting", "g"), ["oos"] * 5 + ["greeting"] * 1000, ["bike"] * 5 + ["greeting"] * 997 + ["oos"] * 3)
        assert verdict.accepted is accepted and fake.remembered()["route"] == pytest.approx(0.003 + (below or {}).get("route", 0))


def test_of_right_answers_it_is_told_how_many_the_candidate_s_own_threshold_keeps() -> None:
    known = {"confidence_threshold": 0.7, "statistic": "sum_logprob", "knots": [[-2.0, 0.0], [0.0, 1.0]]}
    sure = [(0.0, True), (-0.6, True), (-0.7, True), (-1.9, True), (0.0, False), (-1.9, False)]
    judged = [Judged({}, "", None, {"sum_logprob": said}, right) for said, right in sure]
    assert routed({"calibration": {"route": known}}, learned("route"), judged) == {"kept": 2, "escalated": 2}
    assert routed({"calibration": {}}, learned("route"), judged) == {}


def replies(count: int, prefix: str, target: str) -> list[dict]:
    acts = [{"act": "INFORM", "slot": "city", "values": ["Oslo"]}]
    return [{"id": f"{prefix}{i}", "task": "compose", "input": {"service": "S", "acts": acts}, "target": target} for i in range(count)]


@pytest.mark.parametrize(
    ("held_out", "dev", "accepted", "why"),
    [
        ("Okay, the city is Oslo.", "It is in Oslo.", True, "got better"),
        ("The city is Oslo.", "It is in Oslo.", False, "did not get better"),
        ("Okay, the city is Rome.", "It is in Oslo.", False, "less is right"),
        ("Okay, the city is Oslo.", "Okay, it is in Oslo.", False, "compose's closeness on dev lost more"),
    ],
)
def test_a_reply_that_was_right_before_is_judged_by_how_close_it_comes(tmp_path: Path, held_out: str, dev: str, accepted: bool, why: str) -> None:
    fake = Fake("compose", tmp_path)
    before = ["The city is Oslo."] * 4 + ["It is in Oslo."] * 40
    verdict = fake.turn(replies(4, "c", "Okay, the city is Oslo!"), replies(40, "d", "It is in Oslo."), before, [held_out] * 4 + [dev] * 40)
    assert verdict.accepted is accepted and why in verdict.why, verdict.why
    assert set(fake.remembered()) == {"compose", "compose's closeness"}
