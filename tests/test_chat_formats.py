"""Formats of elsewhere into conversations: a row each, or a reason; trees in paths; and every real file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import FOLDER, real

from gristmill.dataops.chat.detect import FORMATS, read_row
from gristmill.dataops.chat.formats.canonical import Lost
from gristmill.dataops.chat.formats.turns import ROLES
from gristmill.dataops.chat.messages import Fault, check, read
from gristmill.dataops.chat.read import read_files
from gristmill.dataops.fsck import fsck
from gristmill.dataops.store import Store


def made(format: str, row: dict) -> list:
    """Per conversation its [role, content]; losses and faults as they are."""
    return [
        [[turn["role"], turn["content"]] for turn in item["messages"]] if isinstance(item, dict) else item
        for item in read_row(row, format)
    ]


QA = [["user", "q"], ["assistant", "a"]]
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def node(id: str, role: str, text: str, *replies: dict, **fields) -> dict:
    return {"message_id": id, "role": role, "text": text, "replies": list(replies), **fields}


#: q -> (worse -> (thanks), better -> (and? -> yes)), the worse reply first.
TREE = {
    "message_tree_id": "t",
    "prompt": node(
        "q", "prompter", "q",
        node("w", "assistant", "worse", node("h", "prompter", "thanks"), rank=1),
        node("b", "assistant", "better", node("n", "prompter", "and?", node("y", "assistant", "yes")), rank=0),
    ),
}  # fmt: skip


def exported(*messages: tuple, current: str) -> dict:
    """A ChatGPT export of (id, parent, role, text or content)."""
    mapping = {"root": {"id": "root", "message": None, "parent": None}}
    for id, parent, role, content in messages:
        text = {"content_type": "text", "parts": [content]} if isinstance(content, str) else content
        mapping[id] = {"message": {"id": id, "author": {"role": role}, "content": text}, "parent": parent}
    return {"title": "A talk", "conversation_id": "c", "mapping": mapping, "current_node": current}


@pytest.mark.parametrize(
    ("format", "row", "wanted"),
    [
        ("alpaca", {"instruction": "q", "input": "", "output": "a"}, [QA]),
        ("alpaca", {"instruction": "q", "output": " a\n"}, [[QA[0], ["assistant", " a\n"]]]),
        ("alpaca", {"instruction": "q", "input": "i", "output": "a"}, [[["user", "q\ni"], QA[1]]]),
        (
            "alpaca",
            {"instruction": "q", "output": "a", "system": "s", "history": [["1", "2"]]},
            [[["system", "s"], ["user", "1"], ["assistant", "2"], *QA]],
        ),
        ("dolly", {"instruction": "q", "context": "c", "response": "a", "category": "x"}, [[["user", "q\nc"], QA[1]]]),
        ("flan", {"inputs": "q", "targets": "a", "task_name": "t"}, [QA]),
        ("flan", {"inputs": [1], "targets": [2], "inputs_pretokenized": "q", "targets_pretokenized": "a"}, [QA]),
        ("completion", {"prompt": "q", "completion": "a"}, [QA]),
        (
            "completion",
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            [QA],
        ),
        (
            "self-instruct",
            {"instruction": "q", "instances": [{"input": "", "output": "a"}, {"input": "i", "output": "a"}]},
            [QA, [["user", "q\ni"], QA[1]]],
        ),
        ("lima", {"conversations": ["q", "a", "q", "a"], "source": "s"}, [QA + QA]),
        ("lima", {"data": ["q", "a"]}, [QA]),
        ("sharegpt", {"conversations": TURNS, "system": "s"}, [[["system", "s"], *QA]]),
        ("sharegpt", {"conversation": [{"role": "User", "content": "q"}, {"role": "bing", "content": "a"}]}, [QA]),
        ("hh", {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}, [QA]),
        ("hh", {"text": "Human: one\n\ntwo\n\nAssistant: a "}, [[["user", "one\n\ntwo"], QA[1]]]),
        ("mt-bench", {"question_id": 1, "turns": ["q", "q"], "reference": ["a", "a"]}, [QA + QA]),
        ("messages", {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, [QA]),
    ],
)
def test_formats(format, row, wanted):
    assert made(format, row) == wanted


def test_what_a_row_says_of_itself_is_kept():
    (row,) = read_row({"id": 7, "source": "here", "license": "MIT", "instruction": "q", "output": "a"}, "alpaca")
    assert (row["ids"], row["source"], row["licence"]) == (["7"], "here", "MIT")
    (row,) = read_row({"inputs": "q", "targets": "a", "task_name": "t"}, "flan")
    assert (row["ids"], row["source"], row["licence"]) == ([], "t", None)


def test_tools_of_sharegpt_become_openai_s():
    turns = [
        TURNS[0],
        {"from": "function_call", "value": '{"name": "f", "arguments": {"é": 1}}'},
        {"from": "observation", "value": "3"},
        TURNS[1],
    ]
    (row,) = read_row({"conversations": turns, "tools": '[{"name": "f", "parameters": {}}]'}, "sharegpt")
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(row["messages"][1]["tool_calls"]) == [
        {"type": "function", "function": {"name": "f", "arguments": {"é": 1}}}
    ]
    assert json.loads(row["tools"]) == [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    check(read(row["messages"]))


def test_arguments_of_openai_s_calls_are_the_objects_that_they_spell():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    (row,) = read_row({"messages": [{"role": "user", "content": "q"}, said]}, "messages")
    assert json.loads(row["messages"][1]["tool_calls"])[0]["function"]["arguments"] == {"x": 1}
    call["function"]["arguments"] = "x = 1"
    with pytest.raises(Fault, match="no JSON"):
        read_row({"messages": [{"role": "user", "content": "q"}, said]}, "messages")


def test_the_best_path_of_a_tree_and_all_of_them():
    best = [["user", "q"], ["assistant", "better"], ["user", "and?"], ["assistant", "yes"]]
    assert made("oasst", TREE) == [best, Lost("other_branch", "of 6 messages", 2)]
    assert made("oasst-all", TREE) == [
        best,
        [["user", "q"], ["assistant", "worse"]],
        Lost("unanswered", "of 6 messages", 1),
    ]
    assert read_row(TREE, "oasst")[0]["ids"] == ["t", "q", "b", "n", "y"]
    tree = json.loads(json.dumps(TREE))
    tree["prompt"]["replies"][1]["deleted"] = True
    assert made("oasst", tree)[0] == [["user", "q"], ["assistant", "worse"]]
    assert sum(item.lost for item in made("oasst", tree)[1:]) == 4
    with pytest.raises(Fault, match="no reply to the first of 1"):
        read_row({"prompt": node("q", "prompter", "q")}, "oasst")


@st.composite
def trees(draw, role: str = "prompter", depth: int = 0) -> dict:
    other = {"prompter": "assistant", "assistant": "prompter"}[role]
    replies = draw(st.lists(trees(other, depth + 1), max_size=3)) if depth < 4 else []
    fields = {"deleted": draw(st.booleans()) and depth > 0 and draw(st.booleans())}
    return node(f"{depth}", role, "text", *replies, rank=draw(st.none() | st.integers(0, 3)), **fields)


@given(tree=trees())
@settings(deadline=None, max_examples=150)
def test_every_message_of_a_tree_is_in_a_path_or_counted(tree):
    names: list[str] = []

    def name(message: dict) -> dict:
        names.append(f"m{len(names)}")
        return {**message, "message_id": names[-1], "replies": [name(reply) for reply in message["replies"]]}

    tree = name(tree)
    for format in ("oasst", "oasst-all"):
        try:
            items = read_row({"prompt": tree}, format)
        except Fault as fault:
            assert fault.reason == "no_targets"
            continue
        talks = [item for item in items if isinstance(item, dict)]
        used = {id for item in talks for id in item["ids"]}
        assert len(used) + sum(item.lost for item in items if isinstance(item, Lost)) == len(names)
        assert all(item["messages"][-1]["role"] == "assistant" for item in talks)
        assert len({tuple(item["ids"]) for item in talks}) == len(talks)


def test_messages_one_a_row_are_the_tree_that_they_are_of(tmp_path):
    def rows(message: dict, parent: str | None, tree: str) -> list[dict]:
        own = {name: value for name, value in message.items() if name != "replies"}
        own |= {"message_id": tree + own["message_id"], "parent_id": parent, "message_tree_id": tree + "q"}
        return [own, *(row for reply in message["replies"] for row in rows(reply, own["message_id"], tree))]

    first, second, cut = (rows(TREE["prompt"], None, tree) for tree in "abc")
    lines = [*first, *second, {"text": "no message"}, *cut[1:]]
    (tmp_path / "flat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    store = Store(tmp_path / "root")
    flat = read_files(store, "flat", [str(tmp_path / "flat.jsonl")], "messages")
    found = flat.scan().collect()
    assert found["ids"].to_list() == [["aq", "ab", "an", "ay"], ["bq", "bb", "bn", "by"]]
    assert found["source_line"].to_list() == [1, 7]
    counts = flat.manifest["counts"]["chat.read"]
    assert (counts["in"], counts["kept"]) == (len(lines), 2)
    assert counts["reasons"] == {"missing_column": 1, "wrong_tree": 1}
    assert counts["losses"] == {"other_branch": {"rows": 2, "lost": 4, "unit": "message"}}
    whole = read_files(store, "all", [str(tmp_path / "flat.jsonl")], "messages", format="oasst-all")
    assert whole.rows == 4 and fsck(store)[1] == []


def test_chatgpt_s_export():
    hidden = {"content_type": "user_editable_context", "user_profile": "p"}
    talk = exported(
        ("s", "root", "system", ""), ("u", "s", "user", hidden), ("1", "u", "user", "q"),
        ("2", "1", "assistant", "first"), ("3", "1", "assistant", "a"), current="3",
    )  # fmt: skip
    assert made("chatgpt", talk) == [
        QA,
        Lost("other_branch", "of 5 messages", 1),
        Lost("not_said", "of 5 messages", 2),
    ]
    assert read_row(talk, "chatgpt")[0]["ids"] == ["c", "1", "3"]
    code = exported(("1", "root", "user", "q"), ("2", "1", "assistant", {"content_type": "code"}), current="2")
    with pytest.raises(Fault, match="of type 'code'; only text is covered"):
        read_row(code, "chatgpt")
    talk["mapping"]["1"]["parent"] = "3"
    with pytest.raises(Fault, match="its own ancestor"):
        read_row(talk, "chatgpt")


# ---- what is no conversation


def sharegpt(*turns: tuple[str, str]) -> dict:
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("sharegpt", sharegpt(("human", "q"), ("robot", "a")), "bad_roles"),
        ("sharegpt", sharegpt(("gpt", "a"), ("human", "q")), "bad_roles"),
        ("sharegpt", sharegpt(("human", "q"), ("human", "q"), ("gpt", "a")), "bad_roles"),
        ("sharegpt", sharegpt(("human", "q"), ("gpt", "a"), ("gpt", "a")), "bad_roles"),
        ("sharegpt", sharegpt(("human", "q"), ("observation", "3"), ("gpt", "a")), "bad_roles"),
        ("sharegpt", sharegpt(("human", "q"), ("function_call", '{"name": "f"}'), ("gpt", "a")), "bad_roles"),
        ("sharegpt", sharegpt(("human", "q"), ("gpt", "a"), ("system", "s")), "bad_roles"),
        ("sharegpt", sharegpt(("human", "q"), ("gpt", " \n")), "empty"),
        ("sharegpt", sharegpt(("human", "q")), "no_targets"),
        ("sharegpt", {"conversations": []}, "empty"),
        ("sharegpt", {"conversations": "text"}, "missing_column"),
        ("sharegpt", sharegpt(("human", "q"), ("function_call", "f(1)")), "wrong_type"),
        ("sharegpt", sharegpt(("human", "q"), ("function_call", '{"name": 1}')), "wrong_type"),
        ("sharegpt", {"conversations": [TURNS[0], {**TURNS[1], "weight": 0}]}, "weighted"),
        ("sharegpt", {"conversations": TURNS, "tools": "{"}, "wrong_type"),
        ("alpaca", {"instruction": "q", "output": ""}, "empty"),
        ("alpaca", {"instruction": " ", "input": "", "output": "a"}, "empty"),
        ("alpaca", {"instruction": "q", "output": ["a"]}, "wrong_type"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["1"]]}, "wrong_type"),
        ("alpaca", {"instruction": "q", "response": "a"}, "other_format"),
        ("alpaca", sharegpt(("human", "q"), ("gpt", "a")), "other_format"),
        ("alpaca", {"text": "t"}, "missing_column"),
        ("messages", {"instruction": "q", "output": "a"}, "other_format"),
        ("messages", {"messages": [], "functions": [{"name": "f"}]}, "wrong_type"),
        ("messages", {"messages": [{"role": "assistant", "content": "", "function_call": {}}]}, "wrong_type"),
        ("lima", {"conversations": ["q"]}, "no_targets"),
        ("lima", {"conversations": ["q", None]}, "wrong_type"),
        ("hh", {"text": "A talk.\n\nHuman: q\n\nAssistant: a"}, "bad_roles"),
        ("hh", {"text": "\n\nHuman: q\n\nAssistant: a\n\nAssistant: a"}, "bad_roles"),
        ("hh", {"text": "\n\nHuman: q\n\nAssistant:"}, "empty"),
        ("mt-bench", {"question_id": 1, "turns": ["q"]}, "no_targets"),
        ("mt-bench", {"question_id": 1, "choices": [{"turns": ["a"]}]}, "no_prompt"),
        ("self-instruct", {"instruction": "q", "instances": []}, "missing_column"),
        ("oasst", {"prompt": node("q", "prompter", "q", node("a", "robot", "a"))}, "no_targets"),
        ("oasst-all", {"prompt": node("q", "robot", "q", node("a", "assistant", "a"))}, "bad_roles"),
        ("chatgpt", {"mapping": {}, "current_node": "x"}, "wrong_type"),
    ],
)
def test_what_is_no_conversation_has_a_reason(format, row, reason):
    try:
        (found,) = read_row(row, format)
    except Fault as fault:
        found = fault
    assert isinstance(found, Fault) and found.reason == reason


def test_of_several_conversations_the_bad_ones_are_counted(tmp_path):
    rows = [
        {"instruction": "q", "instances": [{"input": "", "output": "a"}, {"output": ""}, {"output": "b"}]},
        {"instruction": "q", "instances": [{"output": ""}, {"output": 3}]},
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = Store(tmp_path / "root")
    read = read_files(store, "rows", [str(tmp_path / "tasks.jsonl")], "messages")
    assert read.rows == 2 and read.scan().collect()["id"].n_unique() == 2
    lost = read.ledger().collect()
    assert lost.select("reason", "unit", "lost").rows() == [("empty", "conversation", 1), ("empty", "row", 1)]
    assert lost["evidence"].to_list() == [
        "line 1: instance 2: message 2, of 'assistant', has no text",
        "line 2: instance 1: message 2, of 'assistant', has no text",
    ]
    assert fsck(store)[1] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "q", "human", "gpt", "assistant", "{}"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["from", "value", "role", "content", "text", "replies", "message", "parent", "name", "input",
                         "output", "message_id", "author", "content_type", "parts", "tool_calls", "function"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
COLUMNS = ["messages", "conversations", "instruction", "instances", "output", "inputs", "targets", "prompt", "tools"]
COLUMNS += ["completion", "text", "chosen", "turns", "reference", "mapping", "current_node", "history", "system", "id"]


@given(row=st.dictionaries(st.sampled_from(COLUMNS), JSON, max_size=5))
@settings(deadline=None, max_examples=300)
def test_whatever_a_row_holds_it_is_conversations_or_a_fault(row):
    for format in FORMATS:
        try:
            items = read_row(row, format)
        except Fault as fault:
            assert fault.reason and str(fault)
            continue
        assert items
        for item in items:
            if isinstance(item, dict) and format not in ("messages",):
                check(read(item["messages"]))
                assert {turn["role"] for turn in item["messages"]} <= {*ROLES.values(), "developer"}


# ---- real files

#: (format, conversations, rows without one) of each file; rows are those that MANIFEST.md counts.
REAL = {
    "fastchat-dummy_conversation.json": ("sharegpt", 500, 0),
    "lf-alpaca_en_demo.json": ("alpaca", 999, 0),
    "lf-glaive_toolcall_en_demo.json": ("sharegpt", 300, 0),
    "lf-identity.json": ("alpaca", 91, 0),
    "lf-v1_sft_demo.jsonl": ("messages", 500, 0),
    "mt_bench_question.jsonl": ("mt-bench", 31, 49),
    "mt_bench_reference_gpt4.jsonl": ("mt-bench", 0, 30),
    "self-instruct-seed_tasks.jsonl": ("self-instruct", 175, 0),
}


def manifest_rows(name: str) -> int:
    line = next(line for line in real("MANIFEST.md").read_text().splitlines() if line.startswith(f"| {name} |"))
    return int(line.split("|")[3].split()[0])


@pytest.mark.parametrize("name", REAL)
def test_every_sft_file_reads_and_its_rows_are_those_of_the_manifest(name, tmp_path):
    store, (format, talks, without) = Store(tmp_path / "root"), REAL[name]
    made = read_files(store, "rows", [str(real(f"sft/{name}"))], "messages")
    assert made.rows == talks and made.ledger().collect().height == without
    assert talks + without == manifest_rows(name) and made.manifest["stats"] == {f"rows_{format}": talks + without}
    for messages in made.scan().collect()["messages"].to_list():
        check(read(messages))


def test_no_sft_file_is_left_out():
    real("sft")
    assert {path.name for path in (Path(FOLDER) / "sft").iterdir()} == {*REAL}


def test_the_transcripts_of_anthropic(tmp_path):
    name = "hh-rlhf-harmless-base-test.jsonl.gz"
    read = read_files(Store(tmp_path / "root"), "hh", [str(real(f"pref/{name}"))], "messages")
    assert read.manifest["counts"]["chat.read"]["in"] == manifest_rows(name) == 2312
    assert read.manifest["counts"]["chat.read"]["reasons"] == {"bad_roles": 8, "empty": 4}
