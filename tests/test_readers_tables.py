"""Pages of JSON lines, CSV and Parquet: rows, bad rows, damage, and spans."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from datetime import UTC, date, datetime

import lz4.frame
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from archives import bodies, read_all, reasons, write
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real

from gristmill.dataops.dataset import InputError
from gristmill.dataops.readers.files import Limits, find_files, index, read


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_the_columns_of_a_row(tmp_path):
    rows = [
        {"text": "a", "id": 7, "url": "http://e/1", "date": "2024-05-06T07:08:09Z", "other": [1]},
        {"text": "b", "id": "x", "source_url": "http://e/2", "timestamp": 1_700_000_000},
        {"content": "c", "uri": "http://e/3", "date": "2024-05-06"},
        {"raw_content": "d", "timestamp": 1_700_000_000_000},
        {"html": "<p>e"},
        {"text": "", "html": "<p>not this", "url": None, "date": "yesterday"},
    ]
    kept, drops = read_all(write(tmp_path, jsonl(*rows), "a.jsonl"))
    assert drops.height == 0 and bodies(kept) == [b"a", b"b", b"c", b"d", b"<p>e", b""]
    assert kept["uri"].to_list() == ["http://e/1", "http://e/2", "http://e/3", None, None, None]
    assert kept["mime"].to_list() == ["text/plain"] * 4 + ["text/html", "text/plain"]
    then = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    day = datetime(2024, 5, 6, tzinfo=UTC)
    assert kept["date"].to_list() == [day.replace(hour=7, minute=8, second=9), then, day, then, None, None]
    assert kept["record_id"].null_count() == kept["status"].null_count() == 6
    assert kept["offset"][1] == kept["length"][0] == len(jsonl(rows[0]))


def test_equal_rows_stay_two_rows_unless_an_id_says_otherwise(tmp_path):
    row = {"text": "same", "url": "http://e"}
    kept, _ = read_all(write(tmp_path, jsonl(row, row, row | {"id": 1}, row | {"id": 1}), "a.jsonl"))
    assert kept["id"].n_unique() == 3


def test_bad_lines_cost_themselves_alone(tmp_path):
    lines = [
        b"\xef\xbb\xbf" + jsonl({"text": "first"}),
        b"\n  \r\n",
        b'{"text": "torn\n',
        b'{"text": "\xff"}\n',
        b"[" * 100_000 + b"\n",
        jsonl([1], {"text": None}, {"text": 5, "label": 2}),
        b'{"text": "lone \\ud800 and pair \\ud83d\\ude00, zero \\u0000", "url": "u\\udfff"}\r\n',
        b'{"text": "last, without a line break"}',
    ]
    kept, drops = read_all(write(tmp_path, b"".join(lines), "a.jsonl"))
    assert bodies(kept)[0] == b"first" and bodies(kept)[-1] == b"last, without a line break"
    assert bodies(kept)[1].decode() == "lone \ufffd and pair 😀, zero \0" and kept["uri"][1] == "u\ufffd"
    assert reasons(drops) == ["bad_json"] * 3 + ["no_text"] * 3
    assert drops["evidence"][0].startswith("JSONDecodeError: ") and drops["evidence"][1].startswith("UnicodeDecodeE")
    assert drops["evidence"].to_list()[3:] == ["a JSON list, no object"] + [
        "columns with a value: none",
        "columns with a value: text, label",
    ]
    assert drops["offset"][0] == sum(map(len, lines[:2]))


PACK = {
    "a.jsonl": bytes,
    "a.jsonl.gz": gzip.compress,
    "a.jsonl.zst": zstandard.compress,
    "a.jsonl.lz4": lz4.frame.compress,
}


@pytest.mark.parametrize("name", PACK)
def test_lines_that_are_too_long_are_counted_and_not_held(tmp_path, name):
    data = jsonl({"text": "a"}, {"text": "x" * (12 << 20)}, {"text": "b"}, {"text": "y" * (1 << 20)})
    source = write(tmp_path, PACK[name](data[:999]) + PACK[name](data[999:]) if "." in name[2:] else data, name)
    del data
    tracemalloc.start()
    kept, drops = read_all(source, limits=Limits(max_payload_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bodies(kept) == [b"a", b"b"] and reasons(drops) == ["payload_too_large"] * 2
    assert drops["value"][0] == (12 << 20) + 13 and peak < (8 << 20)


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(st.text(max_size=40), min_size=1, max_size=30),
    blanks=st.lists(st.integers(0, 30), max_size=5),
    data=st.data(),
)
def test_any_cut_of_plain_lines_gives_the_same_rows(tmp_path_factory, texts, blanks, data):
    lines = [jsonl({"text": text}) for text in texts]
    for at in blanks:
        lines.insert(at, b" \n")
    source = write(tmp_path_factory.mktemp("j"), b"".join(lines), "a.jsonl")
    found = index(source, seek_bytes=data.draw(st.integers(1, 100)))
    whole = read_all(source, found)
    cuts = data.draw(st.lists(st.sampled_from([offset for offset, _ in found.seeks])))
    assert [body.decode() for body in bodies(whole[0])] == [text.encode().decode() for text in texts]
    assert read_all(source, found, cuts)[0].equals(whole[0])
    for offset, before in found.seeks[1:]:
        assert sum(split.kept.height for split in read(source, 0, offset)) == before


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.csv.gz"])
@pytest.mark.parametrize("harm", ["cut", "flip"])
def test_a_damaged_file_gives_its_rows_up_to_the_damage(tmp_path, name, harm):
    texts = [f"row {n} {hash((n, 7)) % 10**9}" * 60 for n in range(2000)]
    csv_data = "".join(["text\n", *(text + "\n" for text in texts)]).encode()
    data = csv_data if "csv" in name else jsonl(*({"text": text} for text in texts))
    packed = zstandard.compress(data) if name.endswith("zst") else gzip.compress(data)
    at = len(packed) * 2 // 3
    source = write(tmp_path, packed[:at] + (b"" if harm == "cut" else b"\xff\xff\xff" + packed[at + 3 :]), name)
    found = index(source)
    kept, drops = read_all(source, found)
    assert 0 < kept.height < 2000 and [body.decode() for body in bodies(kept)] == texts[: kept.height]
    assert reasons(drops) == ["corrupt_member"] and found.problems == [(drops["offset"][0], "corrupt_member")]


def test_csv_rows(tmp_path):
    lines = [
        "\ufeffurl,text,date\r\n",
        'http://e/1,"two\nlines, ""quoted""",2024-01-01\r\n',
        "\r\n",
        "http://e/2,too,many,fields\n",
        "few\n",
        "http://e/3,,\n",
        "http://e/4,lone",
    ]
    data = "".join(lines).encode() + b" caf\xe9,\n" + b'http://e/5,"never closed,\n'
    kept, drops = read_all(write(tmp_path, data, "a.csv"))
    assert bodies(kept) == [b'two\nlines, "quoted"', b"", "lone café".encode()]
    assert kept["uri"].to_list() == ["http://e/1", "http://e/3", "http://e/4"]
    assert kept["offset"].to_list() == [0, 3, 4] and kept["date"][0] == datetime(2024, 1, 1, tzinfo=UTC)
    assert reasons(drops) == ["bad_row"] * 3
    assert drops["evidence"][0] == "line 5: 4 fields under 3 names" and drops["value"][0] == 4


def table(rows: int) -> pa.Table:
    return pa.table(
        {
            "text": [f"row {n}" if n % 5 else None for n in range(rows)],
            "url": pa.array([f"http://e/{n}" for n in range(rows)]).dictionary_encode(),
            "date": pa.array([datetime(2024, 1, 1, n % 24) for n in range(rows)], pa.timestamp("ns")),
            "score": [0.5] * rows,
        }
    )


def test_parquet_rows_and_row_groups(tmp_path):
    pq.write_table(table(100), tmp_path / "a.parquet", row_group_size=30)
    source = find_files([str(tmp_path / "a.parquet")])[0]
    found = index(source)
    assert found.seeks == [(0, 0), (1, 30), (2, 60), (3, 90)] and found.records == 100
    whole = read_all(source, found)
    parts = read_all(source, found, [1, 2, 3])
    assert parts[0].equals(whole[0]) and parts[1].equals(whole[1])
    kept, drops = whole
    assert kept["offset"].to_list() == [n for n in range(100) if n % 5] and bodies(kept)[0] == b"row 1"
    assert kept["uri"][0] == "http://e/1" and kept["date"][0] == datetime(2024, 1, 1, 1, tzinfo=UTC)
    assert drops["offset"].to_list() == list(range(0, 100, 5)) and set(reasons(drops)) == {"no_text"}


def test_parquet_types_of_text_and_date(tmp_path):
    rows = pa.table(
        {
            "html": pa.array([b"<p>\xff", b"<p>2"], pa.binary()),
            "timestamp": pa.array([date(2024, 1, 2), None]),
            "id": pa.array([1, 2], pa.int64()),
        }
    )
    pq.write_table(rows, tmp_path / "a.pq")
    kept, _ = read_all(find_files([str(tmp_path / "a.pq")])[0])
    assert bodies(kept) == [b"<p>\xff", b"<p>2"] and kept["mime"].unique().to_list() == ["text/html"]
    assert kept["date"].to_list() == [datetime(2024, 1, 2, tzinfo=UTC), None]


def test_parquet_without_its_footer_is_one_ledger_row(tmp_path):
    pq.write_table(table(100), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    for cut in (4, 50, len(data) - 1):
        source = write(tmp_path, data[:cut], "torn.parquet")
        found = index(source)
        kept, drops = read_all(source, found)
        assert kept.height == 0 and reasons(drops) == ["unreadable_file"] and drops["evidence"][0]
        assert found.problems == [(0, "unreadable_file")]


def test_parquet_with_a_damaged_row_group_keeps_the_others(tmp_path):
    pq.write_table(table(90), tmp_path / "a.parquet", row_group_size=30, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    source = write(tmp_path, bytes(data), "b.parquet")
    kept, drops = read_all(source)
    lost = drops.filter(reason="corrupt_row_group")
    assert lost["offset"].to_list() == list(range(30, 60)) and lost["value"].unique().to_list() == [1.0]
    assert kept["offset"].to_list() == [n for n in (*range(30), *range(60, 90)) if n % 5]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_a_table_without_text_is_refused(tmp_path, name):
    if name == "a.csv":
        (tmp_path / name).write_text("question,answer\n1,2\n")
    else:
        pq.write_table(pa.table({"question": ["1"], "answer": ["2"]}), tmp_path / name)
    source = find_files([str(tmp_path / name)])[0]
    for attempt in (index, lambda source: list(read(source))):
        with pytest.raises(InputError, match=rf"{name} has no column with text: it has question, answer"):
            attempt(source)


@pytest.mark.parametrize(
    ("name", "rows", "kept_rows"),
    [
        ("text/lf-c4_demo.jsonl", 300, 300),
        ("text/dolma-cc_en_head-0091.jsonl", 10, 10),
        ("text/dj-arxiv.jsonl", 11, 11),
        ("verify/HumanEval.jsonl.gz", 164, 0),
        ("pref/hh-rlhf-harmless-base-test.jsonl.gz", 2312, 0),
    ],
)
def test_real_files(name, rows, kept_rows):
    source = find_files([str(real(name))])[0]
    found = index(source, seek_bytes=5000)
    kept, drops = read_all(source, found, [offset for offset, _ in found.seeks])
    assert (found.records, kept.height) == (rows, kept_rows)
    assert pl.concat([kept["id"], drops["id"]]).is_unique().all()
