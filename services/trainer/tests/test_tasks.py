"""Each task's text form, its grammar as serving renders it, and its variants."""
import importlib.util
import json
import random
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import learned, rows

from shoal_trainer import data, evaluate, score, tasks
from shoal_trainer.constrain import Constraint
from shoal_trainer.prompt import Prompt, environment
from shoal_trainer.tasks import vary
from shoal_trainer.tasks.base import FEWER
from shoal_trainer.tasks.episode import asked_alone
from shoal_trainer.tasks.plan import Plan

ALL = list(tasks.KNOWN)
SHIPPED = sorted((Path(__file__).parents[3] / "models").glob("*/1"))


def prompt_of(task: tasks.Task) -> Prompt:
    untrained = Prompt.untrained()
    return Prompt.learn((t for r in rows(task.name) for t in (untrained.render(task.name, r["input"]), task.say(r["target"]))), 800)


@pytest.mark.parametrize("name", ALL)
def test_every_target_is_said_and_read_back_the_same(name: str) -> None:
    task = learned(name)
    for row in rows(name):
        assert task.right(row, task.read(task.say(row["target"]))), row["id"]


@pytest.mark.parametrize("name", ALL)
def test_score_gives_full_marks_to_the_targets_and_none_to_nothing(name: str) -> None:
    task = learned(name)
    full = task.metrics([(r, r["target"], task.read(task.say(r["target"]))) for r in rows(name)])
    none = task.metrics([(r, r["target"], None) for r in rows(name)])
    main = "splits" if name == "plan" else "score"
    assert full[main] >= (0.9 if name == "episode" else 1.0) and none[main] == 0


@pytest.mark.parametrize("name", [n for n in ALL if n != "compose"])
def test_the_grammar_that_serving_holds_answers_to_admits_the_targets(name: str) -> None:
    task = learned(name)
    prompt = prompt_of(task)
    constraint = Constraint(prompt, prompt.tokenizer.get_vocab_size())
    grammar = task.files()[task.output()["grammar"]]
    part, refused = rows(name)[:80], []
    for row in part:
        matcher = constraint.begin(grammar, name, row["input"])
        ids = prompt.answer(task.say(row["target"]))
        if matcher.validate_tokens(ids) != len(ids):
            refused.append(task.say(row["target"]))
    # A value may end in the middle of a run of punctuation ("3 p.m." of "3 p.m.?"): one in two thousand of the corpora.
    assert len(refused) <= 1, refused


def test_the_grammar_of_tool_call_refuses_what_nobody_said() -> None:
    task = learned("tool_call")
    prompt = prompt_of(task)
    constraint = Constraint(prompt, prompt.tokenizer.get_vocab_size())
    matcher = constraint.begin(task.files()["tool_call.lark.jinja"], "tool_call", 'play "Blue Train" by Coltrane')
    said = {"tool": "PlayMusic", "arguments": {"artist": "Coltrane"}}
    invented = {"tool": "PlayMusic", "arguments": {"artist": "Miles Davis"}}
    good, bad = (prompt.answer(task.say(t)) for t in (said, invented))
    assert matcher.validate_tokens(good) == len(good) and matcher.validate_tokens(bad) < len(bad)


@pytest.mark.parametrize("name", ["tool_call", "extract", "plan"])
def test_a_variant_says_only_what_its_input_holds(name: str, rng: random.Random) -> None:
    task, changed = learned(name), 0
    for row in rows(name) * 3:
        new = task.vary(row, rng)
        assert task.fault(new["target"]) is None and task.input_fault(new["input"]) is None
        changed += new["target"] != row["target"]
        values = {
            "tool_call": lambda t: [v for value in t["arguments"].values() for v in ([value] if isinstance(value, str) else value)],
            "extract": lambda t: list(t.values()),
            "plan": lambda t: [step["input"] for step in t],
        }[name](new["target"])
        text = new["input"]["user"] if name == "extract" else new["input"]
        assert all(value in text for value in values), new
    assert changed > 60


@pytest.mark.parametrize("name", ["episode", "summarize", "compose"])
def test_a_variant_is_a_row_of_its_task_and_its_grammar_names_the_same_methods_at_least(name: str, rng: random.Random) -> None:
    task, changed = learned(name), 0
    for row in rows(name):
        new = task.vary(row, rng)
        assert task.fault(new["target"]) is None and task.input_fault(new["input"]) is None
        changed += new["target"] != row["target"]
        if name != "compose":
            sort = lambda methods: {s: {m: sorted(p) for m, p in ms.items()} for s, ms in methods.items()}  # noqa: E731
            assert sort(new["input"]["methods"]).items() >= sort(row["input"]["methods"]).items()
    assert changed > 20


def test_a_first_turn_that_only_asks_is_one_call_with_what_it_says() -> None:
    def row(*turns: str, **more: str) -> dict:
        calls = [{"id": 1, "service": "Cars_1", "method": "Find", "parameters": {"city": "Oslo", "seats": "4", **more}}, {"id": 2, "service": "Cars_1", "method": "Reserve", "parameters": {}}]
        return {"input": {"methods": {}, "turns": list(turns)}, "target": calls}

    alone = asked_alone(row("A car in oslo, 14 days.", "With 4 seats.", "Book it."))
    assert alone and alone["input"]["turns"] == ["A car in oslo, 14 days."] and [c["parameters"] for c in alone["target"]] == [{"city": "Oslo"}]
    assert asked_alone(row("Reserve me a car in Oslo.", "With 4 seats.")) is None, "what it may mean is not known"
    assert asked_alone(row("A car.", "In Oslo, 4 seats.", day="2019-03-01")) is None, "any turn may have said `today`"
    assert asked_alone(row("A car in Oslo with 4 seats.")) is None, "it is alone as it is"
    found = [a for r in rows("episode") if (a := asked_alone(r))]
    assert found and all(len(a["target"]) == len(a["input"]["turns"]) == 1 for a in found)


def test_a_swap_never_breaks_a_value_that_contains_another() -> None:
    pools = vary.Pools()
    pools.add("city", ["York", "Oslo", "Rome"])
    pools.add("state", ["New York", "Ohio"])
    pools.close()
    for seed in range(200):
        found = vary.swap("from New York to Rome", [("state", "New York"), ("city", "Rome")], pools, random.Random(seed), 0.9, 0.5)
        if found:
            text, new = found
            assert all(new(value) in text for value in ("New York", "Rome"))


def test_the_grammar_of_compose_says_names_and_numbers_of_its_values_alone() -> None:
    task = learned("compose")
    prompt = prompt_of(task)
    constraint = Constraint(prompt, prompt.tokenizer.get_vocab_size())
    acts = [{"act": "OFFER", "slot": "artist", "values": ["Ludovico Einaudi"]}, {"act": "OFFER", "slot": "year", "values": ["2019"]}, {"act": "INFORM", "slot": "live", "values": ["True"]}]

    def taken(text: str) -> bool:
        ids = prompt.answer(text)
        matcher = constraint.begin(task.files()["compose.lark.jinja"], "compose", {"service": "Music_1", "acts": acts})
        return matcher.try_consume_tokens(ids) == len(ids)

    for text in ("I like Ludovico Einaudi's, of 2019.", "the year is 2019, and i like it!", "ludovico einaudi"):
        assert taken(text), text
    for text in ("I like Ludovov.", "I like it of 2018.", "Ludovico it is", "True"):
        assert not taken(text), text


def test_a_reply_is_right_if_it_says_every_value() -> None:
    task = tasks.KNOWN["compose"]()
    row = {"input": {"service": "S", "acts": [{"act": "OFFER", "slot": "city", "values": ["Oslo"]}]}, "target": "How about Oslo?"}
    assert task.right(row, "There is one in oslo.") and not task.right(row, "There is one.") and not task.right(row, None)


def test_what_is_shipped_has_its_bars_and_a_confidence_that_means_something() -> None:
    chains = tomllib.loads((Path(__file__).parents[3] / "mesh.toml").read_text())["task"]
    for folder in SHIPPED:
        card = tomllib.loads((folder / "card.toml").read_text())
        for name, scores in card["scores"].items():
            first = chains[name]["chain"][0] == card["name"]
            # Of the larger tier more is not asked than that it helps: `escalate` says whether.
            bars = tasks.KNOWN[name].bars | tasks.KNOWN[name].bars_end_to_end
            for metric, bar in bars.items() if first else ():
                assert metric in scores, f"{folder}: no {metric}; `end-to-end` measures what a rescore leaves out"
                assert scores[metric] <= bar if metric in FEWER else scores[metric] >= bar, (folder, metric)
            # Of few rows a map without fault would show as much: the 394 of the generalist's `episode` 0.047. Where no chain asks a model first it may be half again as far off.
            sure = card["calibration"][name]
            assert sure["expected_calibration_error"] <= (0.05 if first else max(0.05, 1.5 * sure["calibration_error_floor"])), folder
    assert {t for folder in SHIPPED for t in tomllib.loads((folder.parent / "specialist.toml").read_text())["tasks"]} == set(tasks.KNOWN)


@pytest.mark.parametrize("name", ALL)
def test_the_kinds_of_a_task_are_those_that_it_can_be_read_by(name: str) -> None:
    task = learned(name)
    assert task.kind in task.kinds and ("fill" in task.kinds) == (task.way is not None)
    assert ("tag" in task.kinds) == bool(task.labels()) and ("classify" in task.kinds) == bool(task.classes() and not task.labels())


def test_names_of_tasks_are_checked() -> None:
    assert [t.name for t in tasks.named("plan, episode")] == ["plan", "episode"] and len(tasks.named("all")) == len(ALL)
    with pytest.raises(data.DataError, match="no task `chat`"):
        tasks.named("chat")


def test_our_score_says_of_every_task_what_the_definition_of_the_task_data_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    fixtures = Path(__file__).parents[2] / "shoal" / "fixtures" / "score"
    measured = importlib.util.find_spec("sacrebleu") is not None
    lines = (fixtures / "expected.jsonl").read_text().splitlines()
    for expected in map(json.loads, lines):
        name = expected["task"]
        monkeypatch.setattr(sys, "argv", ["score.py", name, str(fixtures / f"{name}.gold.jsonl"), str(fixtures / f"{name}.predictions.jsonl")])
        score.main()
        for part in (expected, expected["unseen"]) if not measured else ():
            part.pop("bleu", None)
        assert json.loads(capsys.readouterr().out) == expected
    assert sorted(json.loads(line)["task"] for line in lines) == sorted(ALL)


@pytest.mark.parametrize("name", ALL)
def test_an_interval_is_around_the_metric_and_of_one_value_where_all_rows_agree(name: str) -> None:
    task = learned(name)
    some = [(r, r["target"], r["target"] if i % 3 else None) for i, r in enumerate(rows(name))]
    weights = np.array([task.weight(judged) for judged in some])
    assert weights[:, 0].sum() / weights[:, 1].sum() == pytest.approx(task.metrics(some)[task.main])
    low, high = evaluate.interval(weights)
    assert low < task.metrics(some)[task.main] < high
    assert evaluate.interval(np.array([[1.0, 1.0]] * 20 + [[0.0, 0.0]])) == (1.0, 1.0)


def test_a_dollar_sign_of_a_goal_is_no_reference_in_its_plan_text() -> None:
    plan = Plan()
    steps = [{"task": "tool_call", "input": "echo ${HOME}"}, {"task": "tool_call", "input": "pay $$5 and $1"}]
    said = plan.say(steps)
    assert said == "1. tool_call: echo $${HOME}\n2. tool_call: pay $$$$5 and $$1" and plan.read(said) == steps
    template = environment().from_string(plan.answer_template())
    spans = [{"label": step["task"], "text": step["input"]} for step in steps]
    assert template.render(spans=spans, input="") == said
    assert template.render(spans=[], input="pay $5") == "1. tool_call: pay $$5"
