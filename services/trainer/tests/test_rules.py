"""Answers that need no model: plans that are cut where requests begin and filled from what was said, values that are known, and replies that are looked up."""
import re
import tomllib
from pathlib import Path

import pytest
from conftest import learned, rows

from shoal_trainer import rules, score, tasks
from shoal_trainer.rules import spans, values


def test_a_goal_is_cut_where_a_request_begins_and_nowhere_else() -> None:
    cut = rules.PlanRules(rows("plan"))
    parts = [step["input"] for step in cut("Play rock and roll, and then book a table for two and after that rate this book 4")]
    assert parts == ["Play rock and roll", "book a table for two", "rate this book 4"]
    assert [step["input"] for step in cut("salt and pepper")] == ["salt and pepper"]


# Of half of a sample, by what the other half taught: some of it, and nowhere near what a model has.
HALVES = {
    "tool_call": ("tool", 0.7, "score", 0.6),
    "plan": ("splits", 0.7, "splits", 1.0),
    "episode": ("nodes_f1", 0.8, "score", 0.2),
    "extract": ("score", 0.15, "score", 0.8),
    "compose": ("score", 0.7, "bleu", 60),
    "summarize": ("score", 0.3, "exact", 0.2),
}


@pytest.mark.parametrize("name", rules.RULES)
def test_of_the_sample_the_rules_have_some_and_nothing_difficult(name: str) -> None:
    task, half = learned(name), len(rows(name)) // 2
    found = task.metrics(rules.answered(task, rows(name)[:half], rows(name)[half:]))
    some, least, difficult, most = HALVES[name]
    assert found[some] >= least and found.get(difficult, 0) <= most, found


def test_every_task_has_rules_beside_it_or_what_others_have_published() -> None:
    assert set(tasks.KNOWN) - set(rules.RULES) == {"route"} and "SVM" in tasks.KNOWN["route"].beside
    for folder in (Path(__file__).parents[3] / "models").glob("*/[0-9]*"):
        scores = tomllib.loads((folder / "card.toml").read_text())["scores"]
        for name in set(scores) & set(rules.RULES):
            barred = tasks.KNOWN[name].bars
            beside = re.findall(r"\w+", tasks.KNOWN[name].beside.split("(`rules`):")[1])
            for metric in (m for m in scores[name] if m.removeprefix("unseen_") in barred):
                assert metric in beside, (name, metric, "is measured of the model, and not said of the rules")


def test_a_parameter_is_what_was_said_last_or_what_an_earlier_call_returned() -> None:
    def row(city: str) -> dict:
        calls = [{"id": 1, "service": "S", "method": "FindPlace", "parameters": {"city": city}}, {"id": 2, "service": "S", "method": "BookPlace", "parameters": {"name": "${1.place}"}}]
        return {"input": {"turns": [city], "methods": {"S": {"BookPlace": ["name"], "FindPlace": ["city"]}}}, "target": calls}

    plan = rules.EpisodeRules([row(city) for city in ("Oslo", "Rome") for _ in range(3)], learned("episode"))
    said = plan({"turns": ["In Oslo. No, in Rome!"], "methods": row("x")["input"]["methods"]})
    assert said == row("Rome")["target"] and score.refs(said)


def test_days_and_hours_in_words_are_said_as_calls_have_them() -> None:
    text = "from march 9th or the 13th of april, 2 may, not on the 14th, the 40th or the 5 of us, nor sat 3"
    assert list(values.days(text)) == ["2019-03-09", "2019-04-13", "2019-05-02", "2019-03-14"]
    assert list(values.hours("at 3 pm, 12 am, 12:15 pm, 9:30, 11 in the morning, 8 o'clock, 25:10 or for 4")) == ["15:00", "00:00", "12:15", "09:30", "11:00", "08:00"]


def test_calls_have_what_either_speaker_said_and_what_is_usual_where_nobody_did() -> None:
    def row(*said: str, **parameters: str) -> dict:
        dialogue = [{"speaker": "system" if i % 2 else "user", "text": text} for i, text in enumerate(said)]
        return {"input": {"methods": {"Cars_1": {"Rent": ["city", "date", "insured"]}}, "dialogue": dialogue}, "target": [{"service": "Cars_1", "method": "Rent", "parameters": parameters}]}

    taught = [row("x", city=city, date="2019-03-02", insured=insured) for city, insured in (("Oslo", "True"), ("Rome", "True"), ("Bonn", "False"))]
    rule = rules.SummarizeRules(taught, learned("summarize"))
    said = rule(row("A car in Oslo, or rather in Bonn.", "For Rome, on March 5th?", "On the 6th.")["input"])
    assert said == row(city="Rome", date="2019-03-06", insured="True")["target"], "what was said last, by whomever"
    # A service that was never seen has the values that its parameters' names have elsewhere, and nothing that is usual.
    other = {"methods": {"Vans_7": {"Get": ["city", "insured", "size"]}}, "dialogue": [{"speaker": "user", "text": "in Oslo"}]}
    assert rule(other) == [{"service": "Vans_7", "method": "Get", "parameters": {"city": "Oslo"}}]


def test_a_known_value_is_what_it_mostly_meant_and_the_longest_of_several() -> None:
    def row(text: str, **said: str) -> tuple[str, list[str], list[tuple[str, str]]]:
        return text, ["city", "team", "size"], list(said.items())

    known = spans.Gazetteer([row("in New York", city="New York"), row("York won", team="York"), row("in York", city="York"), row("in York!", city="York"), row("2 of us", size="2"), *[row(f"{i} or 2") for i in range(3, 7)]])
    assert known("york, or new  york?", ["city", "team"]) == [("city", "york"), ("city", "new  york")]
    assert known("York", ["team"]) == [("team", "York")], "of what may be meant this time"
    assert known("2 tickets", ["size"]) == [], "mostly it meant something else"


def test_an_utterance_is_a_call_of_the_tool_of_its_words_with_what_that_was_given() -> None:
    def row(tool: str, text: str, **arguments: object) -> dict:
        return {"input": text, "target": {"tool": tool, "arguments": arguments}}

    rule = rules.ToolCallRules([row("Play", "play jazz", genre="jazz"), row("Play", "play funk", genre="funk"), row("Rate", "rate jazz 4", book="jazz", stars="4")])
    assert rule("play Jazz, then funk") == {"tool": "Play", "arguments": {"genre": ["Jazz", "funk"]}}
    assert rule("rate 4 jazz") == {"tool": "Rate", "arguments": {"stars": "4", "book": "jazz"}}


def test_a_reply_is_the_one_that_was_given_most_often_to_the_same_acts_with_its_own_values() -> None:
    def row(service: str, reply: str, *acts: tuple[str, str, str]) -> dict:
        return {"input": {"service": service, "acts": [{"act": a, "slot": s, "values": [v] if v else []} for a, s, v in acts]}, "target": reply}

    offer = lambda name, city: (("OFFER", "name", name), ("INFORM", "city", city))  # noqa: E731
    said = rules.ComposeRules(
        [row("Hotels_1", f"Stay at {name} in {city}.", *offer(name, city)) for name, city in (("Ritz", "Rome"), ("The 5", "5 Towns"))]
        + [row("Hotels_1", "How about the Hilton of Oslo?", *offer("Hilton", "Oslo")), row("Banks_1", "It is 7.", ("INFORM", "city", "7"))]
        + [row("Hotels_1", "Nobody says a name.", ("OFFER", "name", "Plaza")), row("Hotels_1", "Anything else?", ("REQ_MORE", "", ""))]
    )
    # In whichever order the acts come, and of a service that was never seen.
    assert said(row("Hotels_1", "", *offer("Astoria", "Bonn"))["input"]) == "Stay at Astoria in Bonn."
    assert said(row("Villas_9", "", *reversed(offer("5", "5 Towns")))["input"]) == "Stay at 5 in 5 Towns."
    # Acts that were never together: each by itself, and a value that no reply said is said.
    assert said(row("Hotels_1", "", ("REQ_MORE", "", ""), ("OFFER", "name", "Plaza"))["input"]) == "Plaza Anything else?"
    assert said(row("Hotels_1", "", ("INFORM", "city", "x\\1"))["input"]) == "It is x\\1."
