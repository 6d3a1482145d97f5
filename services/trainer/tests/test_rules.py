"""Answers that need no model: plans that are cut where requests begin and filled from what was said, and replies that are looked up."""
from conftest import learned, rows

from shoal_trainer import rules, score


def test_a_goal_is_cut_where_a_request_begins_and_nowhere_else() -> None:
    cut = rules.PlanRules(rows("plan"))
    parts = [step["input"] for step in cut("Play rock and roll, and then book a table for two and after that rate this book 4")]
    assert parts == ["Play rock and roll", "book a table for two", "rate this book 4"]
    assert [step["input"] for step in cut("salt and pepper")] == ["salt and pepper"]


def test_of_the_sample_the_rules_split_most_and_plan_hardly_any_conversation_whole() -> None:
    found = {}
    for name in ("plan", "episode"):
        task, half = learned(name), len(rows(name)) // 2
        found[name] = task.metrics(rules.answered(task, rows(name)[:half], rows(name)[half:]))
    assert found["plan"]["splits"] > 0.7 and found["episode"]["nodes_f1"] > 0.8 and found["episode"]["score"] < 0.2


def test_a_parameter_is_what_was_said_last_or_what_an_earlier_call_returned() -> None:
    def row(city: str) -> dict:
        calls = [{"id": 1, "service": "S", "method": "FindPlace", "parameters": {"city": city}}, {"id": 2, "service": "S", "method": "BookPlace", "parameters": {"name": "${1.place}"}}]
        return {"input": {"turns": [city], "methods": {"S": {"BookPlace": ["name"], "FindPlace": ["city"]}}}, "target": calls}

    plan = rules.EpisodeRules([row(city) for city in ("Oslo", "Rome") for _ in range(3)], learned("episode"))
    said = plan({"turns": ["In Oslo. No, in Rome!"], "methods": row("x")["input"]["methods"]})
    assert said == row("Rome")["target"] and score.refs(said)


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
