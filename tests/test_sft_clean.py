"""Cleaning chats: what goes and why, what is redacted where, what is the same as what; on made-up and on real chats."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real
from sftchats import canonical, dataset, demonstration_rows, demonstrations, place, rows, said

from gristmill.dataops.chat import messages as chat_messages
from gristmill.dataops.dataset import InputError
from gristmill.dataops.dedup.small import small
from gristmill.dataops.language import language
from gristmill.dataops.op import Op
from gristmill.dataops.passes import check_accounting
from gristmill.dataops.pii.find import find
from gristmill.dataops.quality import language_is
from gristmill.dataops.sft.boilerplate import boilerplate
from gristmill.dataops.sft.exact import exact
from gristmill.dataops.sft.order import order
from gristmill.dataops.sft.personal import redact
from gristmill.dataops.sft.recipe import cleaning
from gristmill.dataops.sft.turns import texts
from gristmill.dataops.store import Store


def clean(*arguments, **settings):
    """The last of the steps."""
    return cleaning(*arguments, **settings)[-1]


def gone(op: Op, frame: pl.DataFrame) -> dict[int, tuple[str, str | None]]:
    """Dropped rows: reason and evidence."""
    split = op(frame)
    check_accounting(op, frame, split)
    drops = split.drops.filter(pl.col("unit") == "row")
    return {place(id): (reason, seen) for id, reason, seen in drops.select("id", "reason", "evidence").iter_rows()}


# ---- texts


def test_texts_say_who_said_what():
    call = {"role": "assistant", "content": None, "tool_calls": '[{"name": "mill"}]', "reasoning_content": "So."}
    back = {"role": "tool", "content": "flour"}
    chats = [said("A?", "B.", "C?", "D.", system="Be."), [*said("Grind"), call, back, *said("x", "Done")[1:]], []]
    made = texts()(rows(chats)).kept
    assert made["prompt"].to_list() == ["A?\n\nC?", "Grind", ""]
    assert made["response"].to_list() == ["B.\n\nD.", "Done", ""]
    assert made["text"].to_list() == [
        "Be.\n\nA?\n\nB.\n\nC?\n\nD.",
        'Grind\n\nSo.\n[{"name": "mill"}]\n\nflour\n\nDone',
        "",
    ]
    assert made["turns"].to_list() == [2, 2, 0]
    assert made["messages"].equals(rows(chats)["messages"])
    had = made.with_columns(text=pl.lit("as it was"), response=pl.lit(None, pl.String), score=pl.lit(0.5))
    again = texts()(had).kept
    assert again.select(made.columns).equals(made) and again["score"].to_list() == [0.5] * 3
    with pytest.raises(InputError, match="no column `messages`"):
        texts()(made.select("id"))


# ---- order


def test_each_fault_has_its_reason_and_place():
    user, assistant = said("Q", "A")
    tool = {"role": "tool", "content": ""}
    call = {"role": "assistant", "content": "", "tool_calls": "[]"}
    chats = [
        [],
        [user, {"role": "assistant", "content": " \n"}],
        [{"role": "bot", "content": "Hi"}, assistant],
        [user, {"role": "system", "content": "Be."}, assistant],
        [assistant, user],
        [user, user, assistant],
        [user, assistant, assistant],
        [user, tool, assistant],
        [{"role": "system", "content": ""}],
        [user],
        [user, None, assistant],
        [{"role": "system", "content": ""}, user, call, tool, tool, assistant],
    ]
    assert gone(order(), rows(chats)) == {
        0: ("empty", "no messages"),
        1: ("empty", "message 2, of 'assistant', has no text"),
        2: ("bad_roles", "message 1 is of 'bot'"),
        3: ("bad_roles", "message 2 is of 'system', behind others"),
        4: ("bad_roles", "message 1, the first to speak, is of 'assistant'"),
        5: ("bad_order", "message 2, of 'user', follows 'user'"),
        6: ("bad_order", "message 3, of 'assistant', follows 'assistant'"),
        7: ("bad_order", "message 2, of 'tool', follows 'user'"),
        8: ("no_answer", None),
        9: ("no_answer", None),
        10: ("empty", "message 2 is null"),
    }


def test_what_nobody_answers_is_cut_and_counted():
    frame = rows([said("Q", "A", "And?"), said("Q", "A")])
    split = order()(frame)
    assert split.kept["messages"].equals(canonical([said("Q", "A"), said("Q", "A")]))
    assert split.drops.select("id", "reason", "unit", "lost").rows() == [
        (frame["id"][0], "unanswered", "messages", 1),
    ]


TURN = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "assistant", "user", "tool", "bot"]),
        "content": st.sampled_from(["word", "word", "", "\x1c", "\u2003", None]),
        "tool_calls": st.sampled_from([None, None, "[1]"]),
    }
)


@given(st.lists(st.lists(TURN, max_size=5), max_size=6))
@settings(deadline=None, max_examples=150)
def test_what_stays_is_what_the_templates_guard_lets_pass(chats):
    frame = rows(chats)
    found = gone(order(), frame)
    for at, chat in enumerate(frame["messages"].to_list()):
        try:
            chat_messages.check(chat_messages.read(chat))
        except chat_messages.Fault as fault:
            assert found[at][0] == fault.reason
        else:
            assert found.get(at, ("bad_order",))[0] in ("bad_order", "no_answer")


# ---- boilerplate


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        ("As an AI language model, I do not eat.", "as_an_ai", "As an AI language model, I"),
        ("Well, as a large language model I can’t know.", "as_an_ai", "as a large language model I"),
        ("I’m just a chatbot.", "as_an_ai", "I'm just a chatbot"),
        ("I am an AI and cannot taste.", "as_an_ai", "I am an AI and cannot"),
        ("As of my last update in 2021, no.", "knowledge_cutoff", "As of my last update"),
        ("My training data only goes up to 2021.", "knowledge_cutoff", None),
        ("I am {{name}}, made by {{ author }}.", "unfilled", "{{name}}"),
        ("Run:\n```python\nprint(1)\n", "open_code", "```"),
        ("The mill grinds wheat, rye and the", "breaks_off", None),
        ("It needs four things to run well,", "breaks_off", None),
        ("One. Two.\n\nThe wheel is driven by the water that runs down", "breaks_off", None),
    ],
)
def test_an_answer_that_should_not_be_learned_goes(answer, reason, words):
    found = gone(boilerplate(), rows([said("Q", "Fine.", "Q", answer)]))
    assert found[0][0] == reason and (words is None or found[0][1] == words)


@pytest.mark.parametrize(
    "answer",
    [
        "As an AI researcher, she writes papers.",
        "I am Vicuna, a language model trained by researchers.",
        "I'm an AI assistant. How can I help?",
        'The robot said: "As an AI, I cannot feel."',
        "```\nprompt = 'As an AI language model, I'\n```",
        "Use `${{ secrets.TOKEN }}` in the workflow.",
        "```jinja\n{{ name }}\n```",
        "Wheat, rye, oats",
        "1. Wheat\n2. Rye",
        "One. Two.\n\n3. The wheel is driven by the water that runs down",
        "One. Two.\n\n| the wheel | is driven by the water that runs | down",
        "One. Two. Thus says the miller of the mill by the river, Menocchio",
        "The wheel is driven by the water that runs down",  # who writes no full stops
        "I look forward to it. See you at the mill by the river.\n\nWith kind regards,",
        "What is it made of? Of this and that.",
        "Yes",
    ],
)
def test_an_answer_about_such_things_stays(answer):
    assert gone(boilerplate(), rows([said("As an AI language model, I {{x}}", answer)])) == {}


def test_an_answer_may_break_off_where_another_follows():
    broken = "It needs four things to run well, and the"
    assert gone(boilerplate(), rows([said("Q", broken, "Go on", "Water, wind, grain and stones.")])) == {}


# ---- personal data


def test_redacting_is_cutting_the_places_in_the_ledger():
    mail, secret = "Ask jo.mill@example.com or ann@example.org now.", "bob@example.net"
    thought = {"role": "assistant", "content": "Done.", "reasoning_content": f"He is {secret}"}
    frame = rows([said(mail, "Sure: jo.mill@example.com"), said("Nothing", "here"), [*said("Q"), thought]])
    split = redact()(frame)
    before, after = frame["messages"].to_list(), split.kept["messages"].to_list()
    assert after[0][0]["content"] == "Ask <email> or <email> now." and after[1] == before[1]
    assert after[2][1]["reasoning_content"] == "He is <email>"
    places = [(place(id), json.loads(seen), kind, lost) for id, seen, kind, lost in
              split.drops.select("id", "evidence", "reason", "lost").iter_rows()]  # fmt: skip
    for row, seen, kind, lost in sorted(places, key=lambda item: (item[0], -item[1]["start"])):
        message = before[row][seen["message"] - 1]
        value = message[seen["field"]]
        assert lost == seen["end"] - seen["start"]
        message[seen["field"]] = f"{value[: seen['start']]}<{kind}>{value[seen['end'] :]}"
    assert before == after and len(places) == 4
    assert not redact()(split.kept).drops.height


def test_a_call_with_personal_data_goes_whole():
    call = {"role": "assistant", "content": "ann@example.org", "tool_calls": '[{"to": "ann@example.org"}]'}
    frame = rows([[*said("Write"), call], said("Q", "A")])
    found = gone(redact(), frame)
    assert found == {0: ("in_tool_call", '{"message":2,"type":"email"}')}
    assert redact()(frame).drops.height == 1
    assert gone(redact(types=("phone",)), frame) == {}


# ---- duplicates


def build(tmp_path, op: Op, frame: pl.DataFrame, *earlier: pl.DataFrame, parts: int = 1):
    sets = [dataset(tmp_path, each, name=f"earlier-{n}") for n, each in enumerate(earlier)]
    return Store(tmp_path).build("unique", op, [dataset(tmp_path, frame, parts), *sets])


def test_exact_duplicates_go_within_and_across_sets(tmp_path):
    chats = [said("A", "1"), said("B", "2"), said("a ", "1"), said("C", "3"), said("B", "2"), [], []]
    frame = texts()(rows(chats)).kept
    other = texts()(rows([said("c", " 3"), said("C", "3")])).kept.with_columns(id=pl.lit(b"earlier earlier!"))
    digests = set()
    for parts in (1, 3):
        made = build(tmp_path, exact(), frame, other, parts=parts)
        digests.add(made.digest)
        drops = made.ledger().collect()
        told = {place(id): bytes.fromhex(seen) for id, seen in drops.select("id", "evidence").iter_rows()}
        assert told == {2: frame["id"][0], 4: frame["id"][1], 3: b"earlier earlier!"}
        assert made.rows == 4
    assert len(digests) == 1
    with pytest.raises(InputError, match="no text column 'words'"):
        build(tmp_path, exact(column="words"), frame)


def test_duplicates_across_real_sets(tmp_path):
    found = demonstrations()
    first, second = (texts()(rows(found[name])).kept for name in ("alpaca_en_demo", "v1"))
    seen, again = set(first["text"]), 0
    for text in second["text"]:
        again += text in seen
        seen.add(text)
    same = build(tmp_path, exact(), second, first)
    assert second.height - same.rows == again == 256  # v1 is cut from Alpaca and identity
    near = build(tmp_path, small(column="prompt"), second, first)
    assert near.rows == 219 < build(tmp_path, exact(column="prompt"), second, first).rows == 243


# ---- all of it, on real chats


def test_cleaning_real_chats(tmp_path):
    frame = demonstration_rows()
    chain = [order(), redact(), texts(), boilerplate(), language(), language_is(codes=("en", "zh"), min_score=None)]
    clean = Store(tmp_path).build("clean", chain, [dataset(tmp_path, frame, parts=3)])
    drops = clean.ledger().collect()
    counted = dict(drops.filter(pl.col("unit") == "row").group_by("reason").len().iter_rows())
    assert clean.rows + sum(counted.values()) == frame.height == 2565
    assert {name: counted[name] for name in ("as_an_ai", "unfilled", "open_code", "breaks_off")} == {
        "as_an_ai": 68, "unfilled": 133, "open_code": 3, "breaks_off": 4,
    }  # fmt: skip
    assert not find(clean.scan().collect()["text"]).height
    own = set(clean.ledger().filter(pl.col("reason") == "as_an_ai").collect()["id"])
    people = set(frame.filter(pl.col("source") == "people")["id"])
    assert own and not own & people  # people do not say it


def test_the_recipe_keeps_each_row_or_says_why(tmp_path):
    """GSM8K's questions in one of the sets are found; a later set is held against an earlier one."""
    lines = real("verify/gsm8k-test.jsonl").read_text().splitlines()[:20]
    leaked = [said(item["question"], item["answer"]) for item in map(json.loads, lines)]
    found = demonstrations()
    frame = rows([*found["alpaca_en_demo"], *leaked])
    store, file = Store(tmp_path), str(real("verify/gsm8k-test.jsonl"))
    first = clean(store, dataset(tmp_path, frame), name="first", benchmarks=[f"gsm8k={file}:question,answer"])
    steps = [store.get(name) for name in ("first-clean", "first-once", "first-unique", "first-decontaminated")]
    lost = [step.ledger().filter(pl.col("unit") == "row").collect() for step in steps]
    assert first.rows + sum(each.height for each in lost) == frame.height == 1019
    assert {place(id) for id in lost[3]["id"]} >= {*range(999, 1019)} and lost[3].height < 25
    second = clean(store, dataset(tmp_path, rows(found["v1"]), name="v1"), name="second", earlier=[first])
    assert second.rows < 180
    prompts = second.scan().collect()["prompt"]
    assert not set(prompts) & set(first.scan().collect()["prompt"])
    english = clean(store, dataset(tmp_path, rows(found["identity"]), name="names"), name="third", languages=["en"])
    assert not english.scan().filter(pl.col("language") != "en").collect().height
