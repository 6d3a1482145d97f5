"""Two conversations as one."""
import random
from typing import Any

import pytest
from conftest import learned, rows

from shoal_trainer.tasks.joined import Partners, domains, join
from shoal_trainer.tasks.summarize import unclosed

FIELD = {"episode": "turns", "summarize": "dialogue"}


def talk(service: str, turns: list[str], *calls: dict[str, Any]) -> dict[str, Any]:
    return {"id": service, "input": {"methods": {service: {"Find": ["city"], "Book": ["city", "name"]}}, "turns": turns}, "target": list(calls)}


HOMES = talk("Homes_1", ["A home in Oslo."], {"id": 1, "service": "Homes_1", "method": "Find", "parameters": {"city": "Oslo"}})
CARS = talk("RentalCars_1", ["A car.", "Yes."], {"id": 1, "service": "RentalCars_1", "method": "Find", "parameters": {}}, {"id": 2, "service": "RentalCars_1", "method": "Book", "parameters": {"city": "${1.city}", "name": "costs ${1.x}"}})


@pytest.mark.parametrize("name", list(FIELD))
def test_a_joined_conversation_asks_for_what_both_do_and_keeps_to_its_form(name: str) -> None:
    task, given = learned(name), rows(name)
    rng, joined = random.Random(1), 0
    for row in given:
        new = task.vary(row, rng)
        assert task.fault(new["target"]) is None and task.input_fault(new["input"]) is None
        assert set(row["input"]["methods"]) <= set(new["input"]["methods"])
        assert (task.unsaid(new) is None) >= (task.unsaid(row) is None)
        if len(new["target"]) <= len(row["target"]):
            continue
        joined += 1
        assert len(new["input"][FIELD[name]]) > len(row["input"][FIELD[name]]) - 2, "a good-bye at most is left out"
        assert task.right(new, task.read(task.say(new["target"])))
    assert joined > len(given) / 10


def test_references_of_the_second_are_to_its_own_calls() -> None:
    from shoal_trainer.tasks.episode import _moved

    new = join(HOMES, CARS, "turns", _moved)
    assert [c["id"] for c in new["target"]] == [1, 2, 3]
    assert new["target"][2]["parameters"] == {"city": "${2.city}", "name": "costs ${1.x}"}, "a text that holds a reference is none"
    assert new["input"]["turns"] == ["A home in Oslo.", "A car.", "Yes."] and list(new["input"]["methods"]) == ["Homes_1", "RentalCars_1"]
    assert CARS["target"][0]["id"] == 1 and HOMES["input"]["turns"] == ["A home in Oslo."], "the rows themselves stay"


def test_a_partner_shares_no_service_and_leaves_room() -> None:
    partners = Partners("turns", longest=2, most=3)
    partners.learn([HOMES, CARS, talk("Homes_2", ["A home."]), talk("Buses_1", ["1", "2", "3"])])
    rng = random.Random(1)
    assert {partners.other(HOMES, rng)["id"] for _ in range(20)} == {"RentalCars_1"}, "not of its own kind, and none that is too long"
    assert partners.other(talk("Events_1", ["1", "2", "3"]), rng) is None, "no room"
    assert partners.offered(HOMES, rng) == CARS["input"]["methods"]
    assert Partners("turns", 2, 3).offered(HOMES, rng) == {}
    assert domains(HOMES) == {"Homes"}


def test_combinations_come_alike_however_often_they_stand_in_the_data() -> None:
    partners = Partners("turns", longest=2, most=9)
    partners.learn([CARS, *[talk("Events_1", ["An event."])] * 50])
    rng = random.Random(1)
    found = [partners.other(HOMES, rng)["id"] for _ in range(200)]
    assert 60 < found.count("RentalCars_1") < 140


def test_a_good_bye_ends_no_conversation_that_goes_on() -> None:
    def said(*texts: str) -> list[dict[str, str]]:
        return [{"speaker": ("user", "system")[i % 2], "text": text} for i, text in enumerate(texts)]

    assert unclosed(said("Book it.", "Done. Anything else?", "No, that's all.", "Good-bye.")) == said("Book it.", "Done. Anything else?")
    assert unclosed(said("Book it.", "Done.")) == said("Book it.")
    assert unclosed(said("Book it.", "Done. Anything else?", "Thanks, a car.", "Which one?")) == said("Book it.", "Done. Anything else?", "Thanks, a car.", "Which one?")
    assert unclosed(said("No")) == said("No")
