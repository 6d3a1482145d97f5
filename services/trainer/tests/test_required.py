"""What a reply must say: the rules of decoding, the template of `compose`, and the grammar beside it."""
from typing import Callable

import numpy as np
from conftest import learned, rows
from test_tasks import prompt_of

from shoal_trainer import tasks
from shoal_trainer.constrain import Constraint
from shoal_trainer.prompt import END, Prompt
from shoal_trainer.required import Required, holds


def required_of(acts: list[dict], task: tasks.Task | None = None) -> tuple[Required, Prompt]:
    task = task or learned("compose")
    prompt = prompt_of(task)
    return Required(prompt.tokenizer, task.files()["compose.required.jinja"], "compose", {"service": "S_1", "acts": acts}), prompt


def to_the_end(required: Required, prompt: Prompt, said: str, likeliest: str = " ", may: Callable[[str], bool] = lambda piece: True) -> str:
    """What is said after `said` by a model that would end there, and again after each sentence."""
    width = prompt.tokenizer.get_vocab_size()
    logits = np.array([float(prompt.tokenizer.decode([i]) == likeliest) for i in range(width)])
    allowed = np.array([may(prompt.tokenizer.decode([i])) for i in range(width)])
    ids: list[int] = []
    while (token := required.going_on(allowed)) is not None or (token := required.instead_of_end(said + prompt.text(ids), logits, allowed)) is not None:
        ids.append(token)
    return prompt.text(ids)


def test_a_reply_says_what_is_missing_of_its_values_in_a_sentence_of_its_slot() -> None:
    acts = [
        {"act": "OFFER", "slot": "hotel_name", "values": ["The  Grand."]},
        {"act": "OFFER", "slot": "star_rating", "values": ["4"]},
        {"act": "CONFIRM", "slot": "number_of_rooms", "values": ["2"]},
        {"act": "INFORM", "slot": "live", "values": ["True"]},
        {"act": "OFFER_INTENT", "slot": "intent", "values": ["Book"]},
    ]
    required, prompt = required_of(acts)
    assert to_the_end(required, prompt, "How about the grand? It costs $14.") == " It is a 4 star hotel. It is for 2 rooms."
    required, prompt = required_of(acts)
    assert to_the_end(required, prompt, "2 rooms at THE GRAND", likeliest=".") == ". It is a 4 star hotel."


def test_a_sentence_that_may_not_be_said_is_passed_over_or_broken_off() -> None:
    acts = [{"act": "INFORM", "slot": "city", "values": ["Oslo"]}, {"act": "REQUEST", "slot": "date", "values": ["today"]}]
    required, prompt = required_of(acts)
    assert to_the_end(required, prompt, "", may=lambda piece: piece not in (" ", ".")) == ""
    required, prompt = required_of(acts)
    assert to_the_end(required, prompt, "", may=lambda piece: piece != "is") == " The city  Perhaps today?"


def test_a_value_that_reads_like_the_end_is_text() -> None:
    required, prompt = required_of([{"act": "INFORM", "slot": "city", "values": [END]}])
    assert END in to_the_end(required, prompt, "")


def test_the_grammar_of_compose_lets_each_sentence_be_said() -> None:
    task = learned("compose")
    prompt = prompt_of(task)
    constraint = Constraint(prompt, prompt.tokenizer.get_vocab_size())
    for row in rows("compose")[:60]:
        grammar = constraint.begin(task.files()["compose.lark.jinja"], "compose", row["input"])
        said = to_the_end(required_of(row["input"]["acts"], task)[0], prompt, "sure.")
        ids = prompt.answer("sure." + said)
        assert grammar.validate_tokens(ids) == len(ids), said
        assert task.right(row, said) or "?" in said


def test_a_number_is_not_said_by_a_longer_one() -> None:
    for said, right in (("14", False), ("1 4", True), ("4.", True), ("$14, 4th", True), ("2042", False), ("a4b", True)):
        assert holds(said, "4") is right, said
