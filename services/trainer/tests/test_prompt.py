"""Prompts, as training and serving render them."""
from shoal_trainer.prompt import Prompt, template_text


def test_the_template_renders_every_shape_of_input() -> None:
    prompt = Prompt.learn(["play jazz"], 300)
    assert prompt.render("tool_call", "play jazz") == "<|task|>tool_call<|input|>play jazz<|input|>play jazz<|output|>"
    methods = {"S_1": {"Find": ["a", "b"], "List": []}}
    assert prompt.render("episode", {"methods": methods, "turns": ["hello", "now"]}) == "<|task|>episode<|input|>S_1.Find(a, b)\nS_1.List()\n> hello\n> now\n<|output|>"
    dialogue = [{"speaker": "user", "text": "hi"}, {"speaker": "system", "text": "yes?"}]
    assert prompt.render("summarize", {"methods": methods, "dialogue": dialogue}).endswith("> hi\n< yes?\n<|output|>")
    acts = [{"act": "OFFER", "slot": "city", "values": ["Oslo", "Rome"]}, {"act": "REQ_MORE"}]
    assert prompt.render("compose", {"service": "S_1", "acts": acts}) == "<|task|>compose<|input|>S_1\nOFFER city: Oslo | Rome\nREQ_MORE\n<|output|>"
    turn = {"service": "S_1", "slots": ["city", "date"], "system": "Where?", "user": "Oslo"}
    assert prompt.render("extract", turn) == "<|task|>extract<|input|>S_1(city, date)\n< Where?\n> Oslo<|input|>Oslo<|output|>"
    assert prompt.render("other", {"x": [1, "é"]}) == '<|task|>other<|input|>{"x": [1, "é"]}<|output|>'
    assert "<|task|>" in template_text()


def test_a_word_is_the_same_tokens_in_a_sentence_and_in_quotes_and_digits_stand_alone() -> None:
    prompt = Prompt.learn(["see Newark at 10:30 pm", '{"city":"Newark"}'] * 50, 400)
    pieces = lambda text: [prompt.tokenizer.decode([i]) for i in prompt.answer(text)[:-1]]  # noqa: E731
    assert "Newark" in pieces("see Newark") and "Newark" in pieces('"Newark"')
    assert pieces("10") == ["1", "0"] and prompt.text(prompt.answer("see  Newark, é 10:30\n")) == "see  Newark, é 10:30\n"
