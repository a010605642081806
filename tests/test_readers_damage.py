"""Files that are cut, damaged or built to do harm: reading never raises, loses nothing in silence, and stays small."""

from __future__ import annotations

import gzip
import io
import os
import tracemalloc
import zlib

import lz4.frame
import polars as pl
import pytest
import zstandard
from archives import bodies, http, member, pages, read_all, reasons, record, write
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dataops.readers import members
from gristmill.dataops.readers.files import Limits, index
from gristmill.dataops.readers.streams import Raw, member_stream

RECORDS = pages(5)
MEMBERS = [member(item) for item in RECORDS]
STARTS = [sum(map(len, MEMBERS[:n])) for n in range(6)]
PLAIN_STARTS = [sum(map(len, RECORDS[:n])) for n in range(6)]
FORMATS = {
    "crawl.warc": b"".join(RECORDS),
    "crawl.warc.gz": b"".join(MEMBERS),
    "crawl.warc.zst": b"".join(zstandard.ZstdCompressor(write_checksum=True).compress(item) for item in RECORDS),
    "crawl.warc.lz4": b"".join(lz4.frame.compress(item, content_checksum=True) for item in RECORDS),
    "crawl.arc": b"".join(
        b"http://e/%d 1.2.3.4 20080430204825 text/html 9\n<p>page %d!\n\n" % (n, n) for n in range(5)
    ),
    "whole.warc.gz": member(b"".join(RECORDS)),
}


def numbers(kept: pl.DataFrame) -> list[int]:
    """Which of the pages were kept."""
    return [int(uri.rpartition("/")[2]) for uri in kept["uri"]]


@pytest.mark.parametrize("cut", range(1, len(MEMBERS[2]), 7))
def test_a_gzip_file_torn_inside_a_member(tmp_path, cut):
    kept, drops = read_all(write(tmp_path, FORMATS["crawl.warc.gz"][: STARTS[2] + cut]))
    assert numbers(kept) == [0, 1]
    assert reasons(drops) == ["truncated_record" if cut > 2 else "corrupt_member"]
    assert drops["offset"].to_list() == [STARTS[2]]


@pytest.mark.parametrize("cut", range(1, len(RECORDS[2]), 31))
def test_a_plain_file_torn_inside_a_record(tmp_path, cut):
    kept, drops = read_all(write(tmp_path, FORMATS["crawl.warc"][: PLAIN_STARTS[2] + cut], "crawl.warc"))
    if cut < len(RECORDS[2]) - 4:
        assert numbers(kept) == [0, 1] and reasons(drops)[0] in ("truncated_record", "bad_record")
    else:  # only the empty line behind the record is gone
        assert numbers(kept) == [0, 1, 2]


@pytest.mark.parametrize("name", ["crawl.warc.gz", "crawl.warc.zst", "crawl.warc.lz4"])
def test_a_changed_byte_costs_its_own_record_alone(tmp_path, name):
    data = FORMATS[name]
    offsets, _ = zip(*index(write(tmp_path, data, name), seek_bytes=1).seeks, strict=True)
    for at in range(offsets[2], offsets[3], 3):
        damaged = data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]
        source = write(tmp_path, damaged, name)
        found = index(source, seek_bytes=1)
        kept, drops = read_all(source, found)
        # A changed time stamp in a gzip head does no harm; any other change shows.
        assert numbers(kept) == [0, 1, 3, 4] if drops.height else bodies(kept)[2] in RECORDS[2]
        assert set(reasons(drops)) <= {"corrupt_member", "bad_record"} and drops.height <= 1
        assert found.problems == list(zip(drops["offset"], drops["reason"], strict=True))


def test_bytes_between_members_are_one_ledger_row(tmp_path):
    data = MEMBERS[0] + b"not a member" + MEMBERS[1] + member(b"hello world") + MEMBERS[2] + member(b"") + bytes(600)
    kept, drops = read_all(write(tmp_path, data))
    assert numbers(kept) == [0, 1, 2]
    assert reasons(drops) == ["corrupt_member", "bad_record"] and drops["value"][0] == 12


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(FORMATS)))
def test_any_damage_is_accounted_for_and_spans_agree(tmp_path_factory, data, name):
    content = bytearray(FORMATS[name])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content)))
        size = data.draw(st.integers(0, 300))
        new = data.draw(st.one_of(st.binary(max_size=20), st.just(bytes(content[:size])), st.just(bytes(size))))
        content[at : at + data.draw(st.integers(0, size))] = new
    source = write(tmp_path_factory.mktemp("d"), bytes(content), name)
    found = index(source, seek_bytes=1)
    whole = read_all(source, found)
    parts = read_all(source, found, [offset for offset, _ in found.seeks])
    assert parts[0].equals(whole[0]) and parts[1].equals(whole[1])
    damage = whole[1].filter(pl.col("reason").is_in([reason for _, reason in found.problems]))
    assert found.problems == list(zip(damage["offset"], damage["reason"], strict=True)) or not content


LENGTHS = [  # (length said, over the true one of record 1) and what is left of pages 0, 1, 2
    (-30, [0, 2], ["bad_length"]),
    (+30, [0, 2], ["bad_length"]),
    (+10_000, [0, 2], ["bad_length"]),
    (+4, [0, 1, 2], []),  # the empty line counted as content
]


@pytest.mark.parametrize(("over", "left", "expected"), LENGTHS)
def test_a_wrong_length_in_a_plain_file_costs_its_own_record(tmp_path, over, left, expected):
    size = len(RECORDS[1].partition(b"\r\n\r\n")[2]) - 4
    liar = RECORDS[1].replace(b"Content-Length: %d" % size, b"Content-Length: %d" % (size + over))
    kept, drops = read_all(write(tmp_path, RECORDS[0] + liar + RECORDS[2], "crawl.warc"))
    assert numbers(kept) == left and reasons(drops) == expected


@pytest.mark.parametrize(
    ("over", "expected"), [(-30, "bad_length"), (+30, "truncated_record"), (+(1 << 50), "truncated_record")]
)
def test_a_wrong_length_in_a_member_costs_its_own_record(tmp_path, over, expected):
    content = http(b"<p>" + b"x" * 100)
    liar = member(record(content, 1, length=len(content) + over))
    kept, drops = read_all(write(tmp_path, MEMBERS[0] + liar + MEMBERS[2]))
    assert numbers(kept) == [0, 2] and reasons(drops) == [expected]


def test_a_record_that_declares_its_truncation_is_kept(tmp_path):
    body = gzip.compress(os.urandom(50) + b"<p>" * 9000)
    plain = record(http(b"<p>cut"), 1, length=5000, WARC_Truncated="length")
    coded = record(http(body[:-20], Content_Encoding="gzip"), 2, WARC_Truncated="time")
    silent = record(http(body[:-20], Content_Encoding="gzip"), 3)
    kept, drops = read_all(write(tmp_path, b"".join(map(member, (plain, coded, silent)))))
    assert bodies(kept)[0] == b"<p>cut\r\n\r\n" and 0 < len(bodies(kept)[1]) < 27_050
    assert numbers(kept) == [1, 2] and reasons(drops) == ["bad_encoding"]


def test_an_archive_inside_a_plain_archive_is_payload(tmp_path):
    inner = b"".join(pages(3))
    outer = record(http(b"<html>\n" + inner), 7) + record(http(b"x"), 8)
    kept, drops = read_all(write(tmp_path, outer, "crawl.warc"))
    assert numbers(kept) == [7, 8] and bodies(kept)[0] == b"<html>\n" + inner and drops.height == 0


def test_zero_bytes_survive_in_a_payload(tmp_path):
    kept, _ = read_all(write(tmp_path, member(record(http(b"<p>a\0b\0")))))
    assert bodies(kept) == [b"<p>a\0b\0"]


def test_files_that_are_no_archives(tmp_path):
    kept, drops = read_all(write(tmp_path, b"just\nsome text\n" * 50))
    assert kept.height == 0 and reasons(drops) == ["bad_record"]
    source = write(tmp_path, b"")
    assert index(source).records == 0
    _, drops = read_all(source)
    assert drops.select("reason", "unit", "lost").rows() == [("empty_file", "bytes", 0)]


def test_a_damaged_start_does_not_hide_the_members_behind_it(tmp_path):
    kept, drops = read_all(write(tmp_path, b"\0" + FORMATS["crawl.warc.gz"][1:]))
    assert numbers(kept) == [1, 2, 3, 4] and reasons(drops) == ["corrupt_member"]


@pytest.mark.parametrize("payload", [b"", b"x", b"ab" * 200_000, os.urandom(70_000), bytes(5 << 20)])
def test_inflating_at_once_and_step_by_step_agree(payload):
    data = member(payload) + MEMBERS[0]
    raw = Raw(io.BytesIO(data))
    at_once = members.open_member(members.codec("gz", raw), raw, 0)
    by_step = member_stream(lambda: members.gzip_chunks(raw, 0))
    assert at_once.take(1 << 30) == by_step.take(1 << 30) == payload
    assert at_once.drain() == by_step.drain() == len(data) - len(MEMBERS[0])


def test_a_member_cannot_be_ended_early_by_what_it_holds(tmp_path):
    # Stored uncompressed, this payload shows a length and a magic where a member's trailer and the next would stand.
    evil = member(record(http(b"<p>evil"), 9))
    before = record(http(b"<p>" + b"x" * 300 + b"size" + evil), 1).index(b"size") + 4
    data = record(http(b"<p>" + b"x" * 300 + before.to_bytes(4, "little") + evil), 1)
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)
    packed = stored.compress(data) + stored.flush()
    assert packed.count(before.to_bytes(4, "little") + members.GZIP) == 1
    kept, drops = read_all(write(tmp_path, packed + MEMBERS[2]))
    assert numbers(kept) == [1, 2] and bodies(kept)[0].endswith(evil) and drops.height == 0


def test_a_member_that_inflates_without_end_stays_small(tmp_path):
    page, image = http(bytes(40 << 20)), http(bytes(40 << 20), Content_Type="image/png")
    data = MEMBERS[0] + member(record(page, 1)) + member(record(image, 2)) + MEMBERS[3]
    source = write(tmp_path, data)
    del image
    tracemalloc.start()
    kept, drops = read_all(source, limits=Limits(max_payload_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numbers(kept) == [0, 3] and peak < 4 << 20
    assert drops.select("reason", "value", "threshold").rows() == [
        ("payload_too_large", len(page), 1 << 20),
        ("media_type", None, None),
    ]
