"""The pure parts of a retraining: quarantine, split, gate."""
import itertools
import random
from pathlib import Path

import pytest
from conftest import learned, rows

from shoal_trainer import data, gate, near, quarantine, tasks
from shoal_trainer.split import apart, split


def call(name: str, said: str, source: str = "ann", **arguments: str) -> dict:
    return {"id": name, "task": "tool_call", "input": said, "target": {"tool": "PlayMusic", "arguments": arguments}, "source": source}


def reasons(found: quarantine.Sorted) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in found.quarantined}


def test_what_people_really_wrote_passes_whole() -> None:
    for name in tasks.KNOWN:
        found = quarantine.sort(rows(name), learned(name), most=1000)
        assert not {"schema", "unsayable", "flood"} & found.reasons.keys(), (name, found.quarantined[0])
        assert len(found.clean) + len(found.quarantined) == len(rows(name)) and len(found.clean) > 0.8 * len(rows(name))


@pytest.mark.parametrize(
    ("task", "given", "target", "reason"),
    [
        ("tool_call", "play jazz", {"tool": "PlayMusic"}, "schema"),
        ("tool_call", "play jazz", {"tool": "PlayMusic", "arguments": {"genre": 7}}, "schema"),
        ("tool_call", {"play": "jazz"}, {"tool": "PlayMusic", "arguments": {}}, "schema"),
        ("tool_call", "play jazz", {"tool": "PlayMusic", "arguments": {"genre": "rock"}}, "unsayable"),
        ("tool_call", "play jazz", {"tool": "PlayMusic", "arguments": {"genre": "jaz"}}, "unsayable"),
        ("tool_call", "play jazz", {"tool": "WipeDisk", "arguments": {}}, "unsayable"),
        ("tool_call", "play jazz", {"tool": "PlayMusic", "arguments": {"party_size_number": "jazz"}}, "unsayable"),
        ("plan", "play jazz and go", [{"task": "tool_call", "input": "play rock"}], "unsayable"),
        ("plan", "play jazz and go", [{"task": "shell", "input": "go"}], "unsayable"),
        ("plan", "play jazz and go", [], "schema"),
        ("extract", {"service": "S", "slots": ["a"], "system": "", "user": "to Oslo"}, {"b": "Oslo"}, "unsayable"),
        ("summarize", {"methods": {"S": {"F": ["a"]}}, "dialogue": [{"speaker": "user", "text": "x"}]}, [{"service": "S", "method": "G", "parameters": {}}], "unsayable"),
        ("route", "play jazz", "no_such_label", "unsayable"),
    ],
)
def test_a_target_that_is_none_or_that_the_form_could_not_say_is_set_aside(task: str, given: object, target: object, reason: str) -> None:
    found = quarantine.sort([{"id": "a", "task": task, "input": given, "target": target}], learned(task))
    assert reasons(found) == {"a": reason} and found.quarantined[0]["why"] and not found.clean


def test_plan_text_is_read_as_the_steps_that_it_says() -> None:
    row = {"id": "a", "task": "plan", "input": "play jazz and go home", "target": "1. tool_call: play jazz\n2. tool_call: go home"}
    clean = quarantine.sort([row], learned("plan")).clean
    assert clean[0]["target"] == [{"task": "tool_call", "input": "play jazz"}, {"task": "tool_call", "input": "go home"}]


def test_of_contradicting_corrections_none_is_believed() -> None:
    task = learned("tool_call")
    several = [call("a", "play jazz", genre="jazz"), call("b", "Play  jazz!", "bob", artist="jazz"), call("c", "play some rock", genre="rock")]
    found = quarantine.sort(several, task)
    assert reasons(found) == {"a": "contradiction", "b": "contradiction"} and [row["id"] for row in found.clean] == ["c"]
    agreeing = quarantine.sort([several[0], call("b", "Play jazz!", "bob", genre="Jazz".lower())], task)
    assert reasons(agreeing) == {"b": "duplicate"}, "the same twice is no contradiction"


def test_a_contradiction_in_another_order_of_keys_or_slots_is_one() -> None:
    given = {"service": "Hotels_4", "slots": ["location", "place_name"], "system": "Where to?", "user": "Paris Hilton is what I want"}
    other = {**{k: given[k] for k in reversed(given)}, "slots": given["slots"][::-1]}
    both = [{"id": "a", "task": "extract", "input": given, "target": {"location": "Paris"}}, {"id": "b", "task": "extract", "input": other, "target": {"place_name": "Paris Hilton"}}]
    assert reasons(quarantine.sort(both, tasks.KNOWN["extract"]())) == {"a": "contradiction", "b": "contradiction"}


@pytest.mark.parametrize("name", [n for n in tasks.KNOWN if tasks.KNOWN[n].input_type is dict])
def test_the_order_of_keys_and_of_what_is_offered_makes_no_other_request(name: str, rng: random.Random) -> None:
    def shuffled(value: object, offered: bool = False) -> object:
        if isinstance(value, dict):
            return {k: shuffled(value[k], offered or k in near.OFFERED) for k in rng.sample(list(value), len(value))}
        if isinstance(value, list):
            return [shuffled(v, offered) for v in (rng.sample(value, len(value)) if offered else value)]
        return value

    keys = {near.key(row["input"]) for row in rows(name)}
    assert {near.key(shuffled(row["input"])) for row in rows(name)} == keys and len(keys) > 0.8 * len(rows(name))


@pytest.mark.parametrize("name", tasks.KNOWN)
def test_no_variant_that_is_held_out_has_the_words_and_the_target_of_the_row_that_is_learned(name: str) -> None:
    task, found = learned(name), 0
    for row in rows(name)[:30]:
        try:
            held_out = split([row], task).held_out
        except data.DataError:
            continue  # It has no variants, and no one is told that they were learned.
        found += 1
        assert not [v for v in held_out if near.words(v["input"]) == near.words(row["input"]) and v["target"] == row["target"]], row["id"]
    assert found > 5 or not task.varies or name == "route"


def test_of_a_thousand_copies_of_one_source_none_is_learned_and_who_else_says_it_is() -> None:
    task = learned("tool_call")
    copies = [call(f"c{i}", "play jazz" + "!" * (i % 7), "bot", genre="jazz") for i in range(1000)]
    honest = [call("h", "put on some Coltrane", "ann", artist="Coltrane")]
    found = quarantine.sort(copies + honest, task)
    assert [row["id"] for row in found.clean] == ["h"] and found.reasons == {"flood": 1000} and found.sources == {"bot": 1000}
    assert all("said 1000 times, nearly in these words, by source `bot`" in row["why"] for row in found.quarantined)
    for at in (0, 500, 1000):
        witness = call("w", "Play jazz", "ann", genre="jazz")
        beside = quarantine.sort([*copies[:at], witness, *copies[at:], *honest], task)
        assert [row["id"] for row in beside.clean] == ["w", "h"] and beside.reasons == {"flood": 1000}, at
    # A bound of its own for each source, and for all who give no name together.
    two = quarantine.sort([{**row, "source": f"bot{i % 2}"} for i, row in enumerate(copies)], task)
    assert not two.clean and two.sources == {"bot0": 500, "bot1": 500}
    unnamed = quarantine.sort([{k: v for k, v in row.items() if k != "source"} for row in copies], task)
    assert not unnamed.clean and unnamed.sources == {"": 1000} and "by those who gave no source" in unnamed.quarantined[0]["why"]


@pytest.mark.parametrize("source", ["ann", ""])
def test_what_is_said_again_now_and_then_counts_once_and_one_time_too_many_is_a_flood(source: str) -> None:
    task = learned("tool_call")
    again = [call(f"c{i}", "play jazz", source, genre="jazz") for i in range(quarantine.COPIES + 1)]
    found = quarantine.sort(again[:-1], task)
    assert [row["id"] for row in found.clean] == ["c0"] and found.reasons == {"duplicate": quarantine.COPIES - 1}
    assert quarantine.sort(again, task).reasons == {"flood": quarantine.COPIES + 1}


def test_a_flood_is_a_word_against_another_all_the_same() -> None:
    task = learned("tool_call")
    flood = [call(f"c{i}", "play jazz", "bot", genre="jazz") for i in range(30)]
    assert quarantine.sort([*flood, call("a", "play jazz", artist="jazz")], task).reasons == {"contradiction": 31}


def test_a_flood_of_different_rows_is_bounded() -> None:
    task = learned("tool_call")
    names = ["".join(pair) for pair in itertools.product("bcdfgklmnprst", "aeiou")]
    flood = [call(f"f{i}", f"spin {a} {b}", "bot", artist=f"{a} {b}") for i, (a, b) in enumerate(itertools.islice(itertools.product(names, names), 300))]
    copies = [call(f"c{i}", "play jazz", "bot", genre="jazz") for i in range(30)]
    honest = [call("h", "put on some Coltrane", "ann", artist="Coltrane")]
    found = quarantine.sort(flood + copies + honest, task)
    assert found.reasons == {"flood": 230} and {row["source"] for row in found.quarantined} == {"bot"}
    assert [row["id"] for row in found.clean] == [*(f"f{i}" for i in range(200, 300)), "h"], "the newest, or nothing new would ever be learned; copies take no place"
    again = quarantine.sort([*flood, {**flood[7], "id": "again"}], task)
    assert [row["id"] for row in again.clean] == ["f7", *(f"f{i}" for i in range(201, 300))], "what is said again is new"
    unnamed = quarantine.sort([{k: v for k, v in row.items() if k != "source"} for row in flood], task)
    assert unnamed.reasons == {"flood": 200}, "those who give no name are one source"


def test_what_a_flood_took_away_is_learned_from_whoever_said_it_too() -> None:
    task = learned("tool_call")

    def sort(*rows: dict, most: int = 1) -> tuple[list[str], dict[str, str]]:
        found = quarantine.sort(list(rows), task, most)
        return [row["id"] for row in found.clean], reasons(found)

    old, new = call("a1", "play some old jazz", "bulk", genre="jazz"), call("a2", "put on blues", "bulk", genre="blues")
    ann, bob = call("b1", "Play some old jazz!", "ann", genre="jazz"), call("c1", "play some old jazz.", "bob", genre="jazz")
    assert sort(old, ann, new) == (["b1", "a2"], {"a1": "flood"})
    assert sort(old, ann, bob, new) == (["c1", "a2"], {"a1": "flood", "b1": "duplicate"}), "the newest of them"
    # One that has its own number of newer rows has no room for it.
    own = call("b2", "queue up some soul", "ann", genre="soul")
    assert sort(old, ann, own, new) == (["b2", "a2"], {"a1": "flood", "b1": "duplicate"})
    assert sort(old, ann, own, new, most=2)[0] == ["a1", "b2", "a2"]


def test_of_a_flood_those_are_kept_that_were_corrected_last_wherever_they_stand() -> None:
    task = learned("tool_call")
    names = ["".join(pair) for pair in itertools.product("bcdfgklmnprst", "aeiou")]
    rows = [call(f"r{i}", f"spin {a} {b}", artist=f"{a} {b}") for i, (a, b) in enumerate(itertools.islice(itertools.product(names, names), 130))]
    # An export has the oldest outcomes first: these 20 were corrected today, the 110 behind them the day before.
    today = [{**row, "corrected_at": f"2026-11-24T08:00:{i:02}.000001Z"} for i, row in enumerate(rows[:20])]
    before = [{**row, "corrected_at": f"2026-11-23T08:{i // 60:02}:{i % 60:02}Z"} for i, row in enumerate(rows[20:])]
    found = quarantine.sort(today + before, task)
    assert found.reasons == {"flood": 30} and {row["id"] for row in found.quarantined} == {f"r{i}" for i in range(20, 50)}
    # Without a time that can be read a row counts as old; of one time, rows stay in their order.
    unknown = [{**row, "corrected_at": at} for row, at in zip(today, itertools.cycle(["", "yesterday", None, 7, []]))]
    found = quarantine.sort(before + unknown, task)
    assert {row["id"] for row in found.quarantined} == {f"r{i}" for i in (*range(20), *range(20, 30))}
    same = [{**row, "corrected_at": "2026-11-24T09:00:00+01:00"} for row in rows]
    assert [row["id"] for row in quarantine.sort(same, task).clean] == [f"r{i}" for i in range(30, 130)]


@pytest.mark.parametrize("seed", range(20))
def test_near_groups_are_those_that_comparing_every_pair_finds(seed: int) -> None:
    rng = random.Random(seed)
    bags = [frozenset(rng.choices("abcdefghij", k=rng.randint(1, 9))) for _ in range(60)]
    group_of = {i: n for n, group in enumerate(near.groups(bags)) for i in group}
    assert sorted(group_of) == list(range(60))
    reached = {i: {i} for i in range(60)}
    for _ in range(60):
        for i, j in itertools.combinations(range(60), 2):
            if near.similar(bags[i], bags[j]):
                reached[i] |= reached[j]
                reached[j] |= reached[i]
    assert all((group_of[i] == group_of[j]) == (j in reached[i]) for i in range(60) for j in range(60))


@pytest.mark.parametrize("seed", range(20))
def test_near_rows_are_on_one_side_and_the_sides_hang_on_the_rows_alone(seed: int) -> None:
    task, rng = learned("tool_call"), random.Random(seed)
    some = rng.sample(rows("tool_call"), rng.randint(2, 60))
    some += [{**row, "id": row["id"] + "-again", "input": row["input"] + "!"} for row in rng.sample(some, len(some) // 2)]
    rng.shuffle(some)
    sides = split(some, task)
    assert sides.train and sides.held_out and not sides.varied and len(sides.train) + len(sides.held_out) == len(some)
    assert apart(sides.held_out, sides.train) == sides.held_out
    again = split(rng.sample(some, len(some)), task)
    assert {row["id"] for row in again.held_out} == {row["id"] for row in sides.held_out}


def test_a_row_that_was_judged_by_is_not_learned_from_when_more_have_come() -> None:
    task = learned("tool_call")
    early, late = split(rows("tool_call")[:60], task), split(rows("tool_call"), task)
    assert {row["id"] for row in early.held_out} <= {row["id"] for row in late.held_out}


def test_of_a_single_group_variants_are_held_out_and_what_has_none_is_refused() -> None:
    row = next(row for row in rows("tool_call") if len(row["target"]["arguments"]) > 2)
    sides = split([row], learned("tool_call"))
    assert sides.varied and sides.train == [row] and len(sides.held_out) > 5
    assert all(near.key(variant["input"]) != near.key(row["input"]) and learned("tool_call").unsaid(variant) is None for variant in sides.held_out)
    with pytest.raises(data.DataError, match="correct one more answer"):
        split(rows("route")[:1], learned("route"))


def test_of_what_is_not_answered_rightly_yet_something_is_on_each_side_whatever_was_learned_before() -> None:
    task, some = learned("tool_call"), rows("tool_call")[:40]
    for first in range(0, 38):
        # All but two were learned in turns before; wherever the two would fall by their texts, one is learned and one judged by.
        right = [i not in (first, first + 2) for i in range(40)]
        open_ = {some[first]["id"], some[first + 2]["id"]}
        sides = split(some, task, right)
        learns, judges = ({row["id"] for row in side} for side in (sides.train, sides.held_out))
        assert not sides.varied and len(open_ & learns) == 1 == len(open_ & judges), first
        assert learns | judges == {row["id"] for row in some}
    # A single one is learned, and variants of it are asked, beside what was judged by before.
    single = next(i for i, row in enumerate(some) if len(row["target"]["arguments"]) > 2)
    sides = split(some, task, [i != single for i in range(40)])
    assert sides.varied and some[single] in sides.train and len(sides.held_out) > len([row for row in sides.held_out if row in some]) > 5
    with pytest.raises(data.DataError, match="answered rightly already"):
        split(some, task, [True] * 40)


def test_a_correction_that_the_data_denies_waits_for_a_person_and_a_dev_row_that_denies_one_stays() -> None:
    task, known = learned("tool_call"), rows("tool_call")[:60]
    wrong = [{"id": f"m{i}", "task": "tool_call", "input": row["input"] + "!", "target": {"tool": "PlayMusic", "arguments": {}}, "source": "mallory"} for i, row in enumerate(known)]
    wrong = [row for row, of in zip(wrong, known) if of["target"]["tool"] != "PlayMusic"]
    found = quarantine.sort(wrong, task, data_rows=known)
    assert not found.clean and found.reasons == {"contradiction": len(wrong)}
    right = [{**row, "id": f"c-{row['id']}", "source": "ann"} for row in known]
    assert len(quarantine.sort(right, task, data_rows=known).clean) > 50
    assert apart(known, wrong, agreeing=True) == known and len(apart(known, wrong)) < len(known) / 2
    assert not apart(known, right, agreeing=True)


def test_what_a_tagger_can_read_off_no_text_is_unsayable() -> None:
    task = learned("tool_call")
    over = [call("a", "play jazz", genre="jazz", track="jazz"), call("b", "play my jazz mix", playlist="my jazz mix", genre="jazz")]
    assert reasons(quarantine.sort(over, task)) == {"a": "unsayable", "b": "unsayable"}
    goal = {"id": "p", "task": "plan", "input": "book a table after you play jazz", "target": [{"task": "tool_call", "input": said} for said in ("play jazz", "book a table")]}
    assert reasons(quarantine.sort([goal], learned("plan"))) == {"p": "unsayable"}, "in the order in which they are to be done"
    task.kind = "generate"
    assert not quarantine.sort(over, task).quarantined, "a decoder writes it"
    for name in ("tool_call", "plan"):
        assert all(learned(name).reading(row) is not None for row in rows(name))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("play caf\u00e9 music", "Play cafe\u0301 music.", True),
        ("play jazz", "PLAY  jazz!", True),
        ("wx Stra\u00dfe", "wx STRASSE", True),
        ("weather at 5 degrees", "weather at -5 degrees", False),
        ("transfer $50", "transfer \u20ac50", False),
        ("open C++", "open C#", False),
        ("\U0001f600", "\U0001f621", False),
        ("\u0915\u093f", "\u0915\u0940", False),
    ],
)
def test_a_key_is_one_for_what_is_spelled_alike_and_another_for_what_is_asked_otherwise(one: str, other: str, same: bool) -> None:
    assert (near.key(one) == near.key(other)) == same


def test_the_way_of_a_retraining_is_chosen_on_others_like_what_was_taught() -> None:
    from shoal_trainer import encode

    for name, varies in (("tool_call", True), ("plan", False), ("route", False)):
        old, taught = rows(name)[:40], [row for row in rows(name)[40:60] if name != "tool_call" or row["target"]["arguments"]]
        found = encode.beside(old, taught, learned(name), 1)
        assert found[::2] == old and len(found) == 80
        known = {near.key(row["input"]) for row in taught}
        fresh = [row for row in found[1::2] if near.key(row["input"]) not in known]
        assert (len(fresh) > 10) == varies, name
    assert encode.beside([], taught, learned("route"), 1) == []


def test_the_rows_that_choose_the_way_are_of_the_whole_file() -> None:
    from shoal_trainer import generate

    grouped = [{"id": str(i), "target": f"label {i // 100}"} for i in range(3000)]
    choosers, rest = generate.parted(grouped)
    assert len(choosers) == generate.CHOOSERS
    assert sorted(row["id"] for row in choosers + rest) == sorted(row["id"] for row in grouped)
    for part in (choosers, rest):
        assert len({row["target"] for row in part}) > 25
    assert [len(part) for part in generate.parted(grouped[:20])] == [4, 16] and generate.parted(grouped[:3]) == ([], grouped[:3])


def test_the_steps_of_a_retraining_are_timed_when_the_device_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    from shoal_trainer import encode

    clock, runs = [0.0], iter([60.0, 2.0])

    def train(*_: object) -> None:
        clock[0] += next(runs)

    monkeypatch.setattr(encode.export, "load", lambda version: (None, None))
    monkeypatch.setattr(encode.loop, "train", train)
    monkeypatch.setattr(encode.time, "monotonic", lambda: clock[0])
    assert encode._seconds(Path("x"), learned("tool_call"), rows("tool_call")[:3], encode.loop.Recipe()) == 2.0 / encode.PROBE


def test_no_row_that_chooses_the_way_is_one_that_the_gate_judges_by() -> None:
    from shoal_trainer import encode

    task, taught = learned("tool_call"), [row for row in rows("tool_call")[:40] if row["target"]["arguments"]]
    for row in taught[:10]:
        sides = split([row], task)
        assert sides.varied
        held = {near.key(each["input"]) for each in sides.held_out}
        for seed in (1, 7):
            chosen = encode.beside(rows("tool_call")[40:140], sides.train, task, seed, sides.held_out)
            assert len(chosen) == 200 and not held & {near.key(each["input"]) for each in chosen[1::2]}


def pairs(both: int, gained: int, lost: int, neither: int) -> list[gate.Pair]:
    return [(True, True)] * both + [(False, True)] * gained + [(True, False)] * lost + [(False, False)] * neither


@pytest.mark.parametrize(
    ("held_out", "dev", "accepted", "why"),
    [
        (pairs(0, 5, 0, 5), pairs(150, 0, 1, 49), True, "got better"),
        (pairs(0, 5, 0, 5), pairs(150, 0, 2, 48), False, "lost more than 0.5%"),
        (pairs(0, 5, 0, 5), pairs(150, 3, 4, 43), True, "got better"),
        (pairs(5, 0, 0, 5), pairs(150, 20, 0, 30), False, "did not get better"),
        (pairs(5, 1, 1, 5), pairs(150, 20, 0, 30), False, "did not get better"),
        (pairs(5, 2, 3, 0), pairs(100, 0, 50, 0), False, "; "),
    ],
)
def test_a_candidate_must_be_better_at_what_was_taught_and_keep_what_was_known(held_out: list[gate.Pair], dev: list[gate.Pair], accepted: bool, why: str) -> None:
    verdict = gate.weigh(held_out, {"tool_call": dev})
    assert verdict.accepted is accepted and why in verdict.why


def test_a_loss_on_another_task_of_the_same_model_refuses_it_too() -> None:
    verdict = gate.weigh(pairs(0, 5, 0, 5), {"plan": pairs(50, 0, 0, 0), "episode": pairs(40, 0, 10, 0)})
    assert not verdict.accepted and verdict.why.startswith("episode")


def test_the_interval_holds_the_change_and_narrows_with_the_rows() -> None:
    few, many = gate.figures(pairs(10, 6, 2, 2)), gate.figures(pairs(1000, 600, 200, 200))
    for found in (few, many):
        assert found.low <= found.candidate - found.incumbent <= found.high and found.candidate - found.incumbent == pytest.approx(0.2)
    assert many.low > 0 > few.low and many.high - many.low < few.high - few.low
    assert gate.figures([]).rows == 0
