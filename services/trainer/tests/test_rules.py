"""The planner that needs no model: cuts where requests begin, and fills what was said or what an earlier call returned."""
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
        found[name] = task.metrics(rules.planned(task, rows(name)[:half], rows(name)[half:]))
    assert found["plan"]["splits"] > 0.7 and found["episode"]["nodes_f1"] > 0.8 and found["episode"]["score"] < 0.2


def test_a_parameter_is_what_was_said_last_or_what_an_earlier_call_returned() -> None:
    def row(city: str) -> dict:
        calls = [{"id": 1, "service": "S", "method": "FindPlace", "parameters": {"city": city}}, {"id": 2, "service": "S", "method": "BookPlace", "parameters": {"name": "${1.place}"}}]
        return {"input": {"turns": [city], "methods": {"S": {"BookPlace": ["name"], "FindPlace": ["city"]}}}, "target": calls}

    plan = rules.EpisodeRules([row(city) for city in ("Oslo", "Rome") for _ in range(3)], learned("episode"))
    said = plan({"turns": ["In Oslo. No, in Rome!"], "methods": row("x")["input"]["methods"]})
    assert said == row("Rome")["target"] and score.refs(said)
