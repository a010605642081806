"""Which format a file is in, and the same rows whatever packs them."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path

import datasets
import polars as pl
import pyarrow as pa
import pytest
import zstandard
from chatting import PLAIN, chat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gristmill.dataops.chat.detect import FORMATS, Detected, detect
from gristmill.dataops.chat.formats import arrays
from gristmill.dataops.chat.formats.find import find
from gristmill.dataops.chat.formats.rows import rows
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.read import read_files
from gristmill.dataops.dataset import InputError
from gristmill.dataops.fsck import fsck
from gristmill.dataops.readers.page import SourceFile
from gristmill.dataops.store import Store
from gristmill.flows.cli import main

ALPACA = {"instruction": "q", "input": "", "output": "a"}
SHAREGPT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def written(path: Path, found: list) -> str:
    """JSON lines, or what the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    suffixes = [suffix for suffix in path.suffixes if suffix in (".json", ".jsonl", ".gz", ".zst")]
    if path.suffix == ".parquet":
        pl.DataFrame(found).write_parquet(path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(found)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    elif not suffixes:
        datasets.Dataset.from_list(found).save_to_disk(path)
    else:
        lines = suffixes[0] == ".jsonl"
        text = "".join(json.dumps(row) + "\n" for row in found) if lines else json.dumps(found, indent=1)
        packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(suffixes[-1], bytes)
        path.write_bytes(packed(text.encode()))
    return str(path)


def told(*paths: str, given: str | None = None) -> list[tuple[str, str]]:
    return [(item.format, item.why) for item in detect(find(list(paths)), given)]


@pytest.mark.parametrize(
    ("row", "format", "why"),
    [
        ({"messages": TALK}, "messages", "column messages"),
        (SHAREGPT, "sharegpt", "column conversations, a list of turns"),
        ({"conversations": ["q", "a"]}, "lima", "column conversations, a list of texts"),
        (ALPACA, "alpaca", "columns instruction and output"),
        ({"instruction": "q", "context": "", "response": "a"}, "dolly", "columns instruction and response"),
        ({"instruction": "q", "instances": [{}]}, "self-instruct", "columns instruction and instances"),
        ({"inputs": "q", "targets": "a"}, "flan", "columns inputs and targets"),
        ({"prompt": "q", "completion": "a"}, "completion", "columns prompt and completion"),
        ({"text": "\n\nHuman: q\n\nAssistant: a"}, "hh", "column text, which begins with Human:"),
        ({"chosen": "\n\nHuman: q", "rejected": "\n\nHuman: q"}, "hh",
         "column chosen, which begins with Human: (the chosen side)"),
        ({"prompt": {"text": "q", "replies": []}}, "oasst", "column prompt with replies"),
        ({"message_id": "a", "message_tree_id": "a", "role": "prompter"}, "oasst",
         "columns message_id and message_tree_id, a message a row"),
        ({"mapping": {"a": {}}, "current_node": "a"}, "chatgpt", "columns mapping and current_node"),
        ({"question_id": 1, "turns": ["q"]}, "mt-bench", "columns question_id and turns"),
    ],
)  # fmt: skip
def test_the_columns_say_the_format_and_it_is_told_which(row, format, why, tmp_path):
    assert told(written(tmp_path / "rows.jsonl", [row] * 3)) == [(format, why)]


def test_a_format_that_is_given_is_taken(tmp_path):
    path = written(tmp_path / "rows.jsonl", [ALPACA])
    assert told(path, given="sharegpt") == [("sharegpt", "given")]
    with pytest.raises(InputError, match="no format 'sharegtp'; there are: chatgpt, oasst, "):
        told(path, given="sharegtp")
    with pytest.raises(InputError, match="leave alpaca out for pairs"):
        read_files(Store(tmp_path / "root"), "a", [path], "pairs", format="alpaca")


def test_each_file_has_its_own_and_given_or_detected_is_the_same_dataset(tmp_path):
    paths = [written(tmp_path / "a.jsonl", [ALPACA] * 2), written(tmp_path / "b.json", [SHAREGPT])]
    assert [item.format for item in detect(find(paths))] == ["alpaca", "sharegpt"]
    store = Store(tmp_path / "root")
    made = read_files(store, "both", paths, "messages")
    assert made.manifest["stats"] == {"rows_alpaca": 2, "rows_sharegpt": 1}
    assert made.scan().collect()["source"].to_list() == ["a.jsonl", "a.jsonl", "b.json"]
    first = read_files(store, "one", paths[:1], "messages")
    assert read_files(store, "one", paths[:1], "messages", format="alpaca").key == first.key
    assert read_files(store, "one", paths[:1], "messages", format="dolly").key != first.key


def test_mixed_formats_in_one_file(tmp_path):
    path = written(tmp_path / "rows.jsonl", [SHAREGPT, ALPACA, {"text": "t"}, ALPACA, ALPACA])
    assert told(path) == [("alpaca", "columns instruction and output in 3 of the first 5 rows")]
    store = Store(tmp_path / "root")
    made = read_files(store, "rows", [path], "messages")
    lost = made.ledger().collect()
    assert made.scan().collect()["source_line"].to_list() == [2, 4, 5]
    assert lost.select("reason", "evidence", "warc").rows() == [
        ("other_format", "line 1: column conversations, a list of turns: it is sharegpt, and the file alpaca",
         "rows.jsonl"),
        ("missing_column", "line 3: no instruction; there is text", "rows.jsonl"),
    ]  # fmt: skip
    assert fsck(store)[1] == []


def test_columns_of_no_format_are_refused(tmp_path):
    path = written(tmp_path / "rows.jsonl", [{"title": "t", "body": "b"}])
    with pytest.raises(InputError, match=r"rows.jsonl has the columns title, body, .* name one \(--format\)"):
        told(path)
    pairs = [{**SHAREGPT, "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}]
    with pytest.raises(InputError, match="pairs are read by --kind pairs"):
        told(written(tmp_path / "pairs.jsonl", pairs))
    (tmp_path / "none.jsonl").write_text("no JSON\n")
    assert told(str(tmp_path / "none.jsonl")) == [("messages", "no row can be read")]


# ---- whatever packs them

PACKINGS = ["rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.json.gz", "rows.json.zst", "rows.parquet", "rows.arrow"]


@pytest.mark.parametrize("name", [*PACKINGS, "saved"])
def test_the_packing_does_not_show(name, tmp_path):
    many = [{**ALPACA, "instruction": f"q{n} é", "id": n} for n in range(30)]
    made = read_files(Store(tmp_path / "root"), "rows", [written(tmp_path / name, many)], "messages")
    found = made.scan().collect()
    assert [messages[0]["content"] for messages in found["messages"].to_list()] == [f"q{n} é" for n in range(30)]
    assert found["source_line"].to_list() == [*range(1, 31)] and found["ids"].to_list() == [[str(n)] for n in range(30)]
    assert made.ledger().collect().height == 0 and made.manifest["stats"] == {"rows_alpaca": 30}


@pytest.mark.parametrize("shape", ["pairs", "tasks"])
def test_arrays_hold_pairs_and_tasks_too(shape, tmp_path):
    path = written(tmp_path / "rows.json", [{"prompt": "p", "chosen": "c", "rejected": "r"}] * 2)
    assert read_files(Store(tmp_path / "root"), "rows", [path], shape).rows == 2


def test_folders_globs_and_splits(tmp_path):
    for name in ("all/a.json", "all/deep/b.jsonl", "all/saved", "all/.hidden/c.json"):
        written(tmp_path / name, [ALPACA])
    (tmp_path / "all" / "_SUCCESS").write_text("")
    names = ["a.json", "deep/b.jsonl", "saved/data-00000-of-00001.arrow"]
    assert [file.name for file in find([str(tmp_path / "all")])] == names
    assert [file.name for file in find([str(tmp_path / "all" / "*" / "*.jsonl")])] == ["deep/b.jsonl"]
    assert [file.name for file in find([str(tmp_path / "all/a.json"), str(tmp_path / "all/deep")])] == names[:2]
    assert len(find([str(tmp_path / "all/a.json"), str(tmp_path / "all/deep/../a.json"), str(tmp_path / "all")])) == 3
    one = datasets.Dataset.from_list([ALPACA])
    datasets.DatasetDict({"train": one}).save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "two")
    assert len(find([str(tmp_path / "one")])) == 1
    with pytest.raises(InputError, match="two holds the splits train, test: name one, as in .*two/train"):
        find([str(tmp_path / "two")])
    with pytest.raises(InputError, match=r"no such file: .*gone.json"):
        find([str(tmp_path / "gone.json")])
    (tmp_path / "bad.arrow").write_bytes(b"no arrow")
    with pytest.raises(InputError, match="bad.arrow cannot be read as Arrow"):
        told(str(tmp_path / "bad.arrow"))


def test_an_arrow_file_that_is_cut_keeps_what_stands_before(tmp_path):
    path = Path(written(tmp_path / "rows.arrow", [ALPACA] * 30))
    path.write_bytes(path.read_bytes()[:-600])
    made = read_files(Store(tmp_path / "root"), "rows", [str(path)], "messages")
    lost = made.ledger().collect()
    assert 7 <= made.rows < 30 and lost["reason"].to_list() == ["corrupt_member"]
    assert lost["evidence"][0].startswith(f"line {made.rows + 1}: ")


# ---- arrays, element by element


def elements(path: Path, longest: int = 1 << 20) -> list[tuple]:
    source = find([str(path)])[0]
    return [
        (number, offset, value.reason if isinstance(value, Fault) else value)
        for number, offset, value in arrays.elements(source, longest)
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    values=st.lists(VALUES, max_size=6), ascii=st.booleans(), first=st.integers(1, 40), indent=st.none() | st.just(1)
)
@example(values=[12345, 67, "\\", '"]', [], {}], ascii=True, first=1, indent=None)
@settings(deadline=None, max_examples=150)
def test_elements_are_those_of_the_whole_whatever_the_buffer(values, ascii, first, indent, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "array.json"
    data = json.dumps(values, ensure_ascii=ascii, indent=indent).encode()
    path.write_bytes(data)
    before, arrays._FIRST = arrays._FIRST, first
    try:
        found = elements(path)
    finally:
        arrays._FIRST = before
    assert [value for _, _, value in found] == values
    assert [number for number, _, _ in found] == [*range(1, len(values) + 1)]
    for (_, offset, value), (_, end, _) in pairwise([*found, (0, len(data), None)]):
        assert json.loads(data[offset:end].decode().rstrip(" \n")[:-1]) == value  # but for the comma, or the bracket


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"[1, 2", [1, 2, "bad_json"]),
        (b'[{"a": 1}, {"a": ', [{"a": 1}, "bad_json"]),
        (b'[{"a": 1} {"a": 2}]', [{"a": 1}, "bad_json"]),
        (b'[{"a": 1},]', [{"a": 1}, "bad_json"]),
        (b'[{"a": 1}]\n', [{"a": 1}]),
        (b'[{"a": 1}] x', [{"a": 1}, "bad_json"]),
        (b'\xef\xbb\xbf [{"a": 1}]', [{"a": 1}]),
        (b'[{"a": "\xff"}, {"a": 2}]', ["bad_json", {"a": 2}]),
        (b'[{"a": "\\ud800"}, {"a": 2}]', ["bad_json", {"a": 2}]),
        (b'[{"a": NaN}, {"a": 2}]', ["bad_json"]),
        (b'[{"a": 1}, {"a": "' + b"x" * 400 + b'"}, {"a": 2}]', [{"a": 1}, "too_large", {"a": 2}]),
        (b'[{"a": "' + b"x" * 999_999 + b'"}, {"a": 2}]', ["too_large"]),
        (b'[{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}]", ["bad_json"]),
        (b"[]", []),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_no_array(text, found, tmp_path, monkeypatch):
    (tmp_path / "array.json").write_bytes(text)
    monkeypatch.setattr(arrays, "_FIRST", 50)
    assert [value for _, _, value in elements(tmp_path / "array.json", 200)] == found


def test_a_cut_archive_of_an_array(tmp_path):
    data = gzip.compress(json.dumps([{**ALPACA, "output": str(n) * 50} for n in range(400)]).encode())
    (tmp_path / "rows.json.gz").write_bytes(data[:-40])
    made = read_files(Store(tmp_path / "root"), "rows", [str(tmp_path / "rows.json.gz")], "messages")
    assert 0 < made.rows <= 400 and made.ledger().collect()["reason"].to_list() == ["corrupt_member"]


def test_an_array_is_never_held_whole(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{**ALPACA, "output": f"{n} " * 100} for n in range(20_000)], indent=1))
    source = SourceFile("rows.json", str(path), "json", path.stat().st_size)
    assert source.bytes > 9 << 20
    tracemalloc.start()
    try:
        assert sum(1 for _ in rows(source)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# ---- the command


def test_the_command_says_what_the_files_are(tmp_path, capsys):
    root = chat(tmp_path, PLAIN).root
    many = [{**ALPACA, "instruction": f"q{n}"} for n in range(9)]
    paths = [written(tmp_path / "a.json", many), written(tmp_path / "b.jsonl", [SHAREGPT, "text"])]
    call = ["encode-chats", *paths, "--tokenizer", "chat", "--name", "made", "--root", str(root), "--workers", "1"]
    assert main([*call, "--seq-len", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Detected(**item) for item in found["formats"]] == [
        Detected("a.json", "alpaca", "columns instruction and output"),
        Detected("b.jsonl", "sharegpt", "column conversations, a list of turns"),
    ]
    assert found["conversations"] == 10
    assert [(one["reason"], one["file"], one["line"]) for one in found["examples"]] == [("wrong_type", "b.jsonl", 2)]
    assert main([*call, "--seq-len", "64"]) == 0
    assert "alpaca    1 file  columns instruction and output" in capsys.readouterr().out
    assert main([*call, "--format", "sharegpt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["conversations"] == 1
    assert main([*call, "--format", "alpaka", "--json"]) == 2
    assert "no format 'alpaka'" in json.loads(capsys.readouterr().out)["error"]
    assert main([*call, "--format", "alpaca", "--kind", "pairs", "--json"]) == 2
    assert "--format alpaca is of chats" in json.loads(capsys.readouterr().out)["error"]


def test_the_help_names_every_format(capsys):
    with pytest.raises(SystemExit):
        main(["encode-chats", "--help"])
    text = capsys.readouterr().out
    assert [name for name in FORMATS if name not in text] == []
