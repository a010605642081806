"""Files into chat rows: every line kept or in the ledger with its number, the same rows whatever the packing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
import zstandard
from chatting import PLAIN, assistant, chat, user

from gristmill.dataops.chat import recipe
from gristmill.dataops.chat.messages import MESSAGES
from gristmill.dataops.chat.read import read_files
from gristmill.dataops.chat.shapes import PROMPT
from gristmill.dataops.dataset import InputError
from gristmill.dataops.fsck import fsck
from gristmill.dataops.store import Store

TALK = [user("a"), assistant("b")]


def written(path: Path, rows: list) -> str:
    """JSON lines, or Parquet by the name; texts are lines as they are."""
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
        return str(path)
    lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(packed(lines))
    return str(path)


def read(folder: Path, shape: str, rows: list, name: str = "rows.jsonl"):
    """(rows, ledger) of one file."""
    made = read_files(Store(folder / "root"), "rows", [written(folder / name, rows)], shape)
    return made.scan().collect(), made.ledger().collect()


def plain(messages: list[dict]) -> list[dict]:
    return [{name: value for name, value in message.items() if value is not None} for message in messages]


def test_conversations(tmp_path):
    call = [{"type": "function", "function": {"name": "f", "arguments": {"é": 1}}}]
    rows = [
        {"messages": TALK, "unused": 1},
        {"messages": [user("a"), {"role": "assistant", "content": None, "tool_calls": call}], "tools": [{"name": "f"}]},
        {"messages": [user("a"), {"role": "assistant", "content": [{"type": "text", "text": "b"}] * 2}], "tools": "[]"},
        {"messages": [user("a"), {"role": "assistant", "content": "b", "reasoning_content": "hm", "weight": 1}]},
        {
            "messages": [
                user("a"),
                {"role": "assistant", "content": [{"type": "text", "value": "b"}], "loss_weight": 1.0},
            ]
        },
    ]
    made, drops = read(tmp_path, "messages", rows)
    assert made.schema["messages"] == MESSAGES and drops.height == 0
    assert plain(made["messages"][0]) == TALK
    assert json.loads(made["messages"][1][1]["tool_calls"]) == call and "é" in made["messages"][1][1]["tool_calls"]
    assert made["tools"].to_list() == [None, '[{"name": "f"}]', None, None, None]
    assert plain(made["messages"][2])[1]["content"] == "bb"
    assert made["messages"][3][1]["reasoning_content"] == "hm"
    assert plain(made["messages"][4]) == TALK  # as LLaMA-Factory writes it
    assert made["source_line"].to_list() == [1, 2, 3, 4, 5] and set(made["source_file"]) == {"rows.jsonl"}


def test_pairs_thumbs_and_tasks(tmp_path):
    rows = [{"prompt": "p", "chosen": "c", "rejected": [assistant("r")], "margin": 2}]
    made, _ = read(tmp_path, "pairs", [*rows, {**rows[0], "margin": None}])
    assert [plain(made[name][0]) for name in ("prompt", "chosen", "rejected")] == [
        [user("p")], [assistant("c")], [assistant("r")]
    ]  # fmt: skip
    assert made["margin"].to_list() == [2.0, None]
    made, _ = read(tmp_path, "thumbs", [{"prompt": TALK[:1], "response": "c", "label": label} for label in (True, 0)])
    assert made["label"].to_list() == [True, False] and plain(made["response"][0]) == [assistant("c")]
    rows = [
        {"id": 7, "prompt": "p", "gold": "3", "tests": ["a"], "n": 1, "x": 1, "odd": 1, "flag": True},
        {"id": 8, "prompt": [user("q")], "gold": "é", "tests": [], "n": 2, "x": 1.5, "odd": "1", "flag": None},
    ]
    made, _ = read(tmp_path, "tasks", rows)
    assert made.schema["prompt"] == PROMPT and made["prompt"].to_list() == [[user("p")], [user("q")]]
    assert made.select("given_id", "gold", "n", "x", "flag").rows() == [(7, "3", 1, 1.0, True), (8, "é", 2, 1.5, None)]
    assert made["tests"].to_list() == ['["a"]', "[]"] and made["odd"].to_list() == ["1", '"1"']


BAD = {
    "bad_json": ["{", "nul", '{"messages": NaN}', '{"messages": "\\ud800"}', "[" * 100_000, '{"a": "\\'],
    "wrong_type": [
        "[]", "3", '"messages"', {"messages": "hi"}, {"messages": [3]}, {"messages": [{"role": 3, "content": "a"}]},
        {"messages": [{"role": "user", "content": 3}]}, {"messages": TALK, "tools": 3},
        {"messages": TALK, "tools": "{"}, {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": {"a": 1}}]},
    ],
    "missing_column": [{}, {"messages": None}, {"messages": [{"content": "a"}]}, {"messages": [{"role": "user"}]}],
    "weighted": [{"messages": [user("a"), {**assistant("b"), "weight": 0}]}],
}  # fmt: skip


def test_every_bad_line_is_in_the_ledger_with_its_number(tmp_path):
    bad = [(reason, row) for reason, rows in BAD.items() for row in rows]
    rows = [line for _, row in bad for line in ("", row, {"messages": TALK})]  # a blank line counts, and is no row
    made, drops = read(tmp_path, "messages", rows)
    assert made.height == len(bad) and drops["reason"].to_list() == [reason for reason, _ in bad]
    assert made["source_line"].to_list() == [3 * n + 3 for n in range(len(bad))]
    assert [int(text.split(":")[0].removeprefix("line ")) for text in drops["evidence"]] == [
        3 * n + 2 for n in range(len(bad))
    ]
    assert drops["warc"].unique().to_list() == ["rows.jsonl"] and drops["evidence"].str.len_chars().max() <= 300
    assert len({*made["id"], *drops["id"]}) == 2 * len(bad)
    data = (tmp_path / "rows.jsonl").read_bytes()
    assert all(data[at - 1 : at] == b"\n" for at in drops["offset"])


@pytest.mark.parametrize(
    ("shape", "row", "reason"),
    [
        ("pairs", {"prompt": "p", "chosen": "c"}, "missing_column"),
        ("pairs", {"prompt": "p", "chosen": "c", "rejected": "r", "margin": "much"}, "wrong_type"),
        ("pairs", {"prompt": 3, "chosen": "c", "rejected": "r"}, "wrong_type"),
        ("thumbs", {"prompt": "p", "response": "c", "label": "yes"}, "wrong_type"),
        ("thumbs", {"prompt": "p", "response": "c", "label": 2}, "wrong_type"),
        ("thumbs", {"prompt": "p", "response": "c"}, "missing_column"),
        ("tasks", {"gold": "p"}, "missing_column"),
        ("tasks", {"prompt": [{**assistant(""), "tool_calls": [1]}]}, "wrong_type"),
    ],
)
def test_what_a_shape_does_not_take(tmp_path, shape, row, reason):
    made, drops = read(tmp_path, shape, [row])
    assert made.height == 0 and drops["reason"].to_list() == [reason]


def test_the_packing_does_not_show(tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": "c", "rejected": "r"} for n in range(5000)]
    columns = ["prompt", "chosen", "rejected", "source_line"]
    first, *others = (
        read(tmp_path, "pairs", rows, name)[0]
        for name in ("rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet")
    )
    assert first.height == 5000
    for other in others:
        assert other.select(columns).equals(first.select(columns))


def test_a_file_that_moves_is_the_same_dataset(tmp_path):
    store = Store(tmp_path / "root")
    rows = [{"messages": TALK}, "{"]
    (tmp_path / "b").mkdir()
    first = read_files(store, "a", [written(tmp_path / "x.jsonl", rows)], "messages")
    second = read_files(store, "a", [written(tmp_path / "b" / "x.jsonl", rows)], "messages")
    assert first.key == second.key
    assert read_files(store, "a", [written(tmp_path / "x.jsonl", rows[:1])], "messages").key != first.key
    assert fsck(store)[1] == []


def test_equal_files_have_rows_of_their_own(tmp_path):
    paths = [written(tmp_path / name, [{"messages": TALK}]) for name in ("a.jsonl", "b.jsonl")]
    assert read_files(Store(tmp_path / "root"), "a", paths, "messages").scan().collect()["id"].n_unique() == 2


def test_what_cannot_be_read_at_all(tmp_path):
    store = Store(tmp_path / "root")
    with pytest.raises(InputError, match="no shape 'chats'; there are: messages, pairs, thumbs, tasks"):
        read_files(store, "a", [written(tmp_path / "x.jsonl", [{}])], "chats")
    (tmp_path / "x.csv").write_text("prompt,chosen\na,b\n")
    with pytest.raises(InputError, match="x.csv is csv: chat data is read from JSON lines and Parquet"):
        read_files(store, "a", [str(tmp_path / "x.csv")], "pairs")
    (tmp_path / "y.parquet").write_bytes(b"PAR1nothing")
    with pytest.raises(InputError, match="y.parquet cannot be read as Parquet"):
        read_files(store, "a", [str(tmp_path / "y.parquet")], "pairs")
    with pytest.raises(InputError, match="column source_line, a name that is kept"):
        read_files(store, "a", [written(tmp_path / "z.jsonl", [{"prompt": "a", "source_line": 1}])], "tasks")
    data = gzip.compress(b'{"messages": []}\n' * 9)
    (tmp_path / "torn.jsonl.gz").write_bytes(data[:-9])
    torn = read_files(store, "b", [str(tmp_path / "torn.jsonl.gz")], "messages")
    assert torn.ledger().collect()["reason"].to_list()[-1] == "corrupt_member"


def test_from_a_file_to_packed_rows(tmp_path):
    made = chat(tmp_path, PLAIN)
    store = Store(tmp_path / "root")
    rows = [{"messages": [user(f"question {n}"), assistant(f"answer {n}")]} for n in range(40)]
    rows += [{"messages": [user("x" * 4000), assistant("y")]}, {"messages": [user("x")]}]
    packed = recipe.sft(store, [written(tmp_path / "x.jsonl", rows)], made, seq_len=256)
    assert store.names() == ["sft", "sft-encoded", "sft-messages"]
    params = packed.manifest["ops"][-1]["params"]
    assert params["template"] == made.manifest["stats"]["template"] and params["seq_len"] == 256
    assert store.get("sft-encoded").ledger().collect()["reason"].to_list() == ["no_targets", "too_long"]
    stats = packed.manifest["stats"]
    encoded = store.get("sft-encoded").scan().collect()
    assert stats["documents"] == 40 and stats["split_documents"] == 0
    assert stats["targets"] == encoded["targets"].explode().sum() == packed.scan().collect()["targets"].explode().sum()
    pair = [{"prompt": "p", "chosen": "c", "rejected": "r"}]
    assert recipe.pairs(store, [written(tmp_path / "p.jsonl", pair)], made, max_tokens=99).rows == 1
    thumb = [{"prompt": "p", "response": "c", "label": True}]
    assert recipe.thumbs(store, [written(tmp_path / "t.jsonl", thumb)], made, max_tokens=99).rows == 1
    assert recipe.tasks(store, [written(tmp_path / "k.jsonl", [{"prompt": "p", "gold": 1}])]).rows == 1
    assert fsck(store)[1] == []
