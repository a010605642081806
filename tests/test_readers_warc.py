"""Pages of WARC, WET and ARC files: what is kept, what is not and why, where it stands, and spans."""

from __future__ import annotations

import contextlib
import gzip
import io
from datetime import UTC, datetime

import lz4.frame
import polars as pl
import pytest
import warcio
import zstandard
from archives import bodies, http, member, pages, read_all, reasons, record, write
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import FOLDER, real
from warcio.exceptions import ArchiveLoadFailed

from gristmill.dataops.readers.files import Limits, find_files, index, read

REAL = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.glob("warc/**/*") if path.is_file()) or ["warc"]


SHARED = ("badexample.arc.gz", "non-chunked.warc.gz", ".bad")  # several records in one member
NOT_WARCIO = (".lz4", "bad.arc")  # a record of one line break is no HTTP response


def warcio_records(data: bytes) -> list[tuple]:
    """(type, id, URI, payload) of each record, as another library reads them; raises ArchiveLoadFailed."""
    found = []
    for item in warcio.ArchiveIterator(io.BytesIO(data)):
        names = ("WARC-Record-ID", "WARC-Target-URI", "uri")
        record_id, warc_uri, arc_uri = (item.rec_headers.get_header(name) for name in names)
        found.append((item.rec_type, record_id, warc_uri or arc_uri, item.content_stream().read()))
    return found


@pytest.mark.parametrize("name", REAL)
def test_every_record_of_a_real_file_is_kept_or_in_the_ledger(name):
    source = find_files([str(real(name))])[0]
    found = index(source)
    kept, drops = read_all(source, found)  # asserts that the sum is found.records
    assert found.records > 0
    assert set(kept["id"].bin.size()) | set(drops["id"].bin.size()) == {16}
    assert pl.concat([kept["id"], drops["id"]]).is_unique().all()
    with contextlib.suppress(ArchiveLoadFailed):  # LZ4, several records in one member, damage
        assert found.records == len(warcio_records(real(name).read_bytes()))


@pytest.mark.parametrize("name", REAL)
def test_a_traced_place_gives_the_same_record_to_another_library(name):
    source = find_files([str(real(name))])[0]
    found = index(source)
    kept, _ = read_all(source, found)
    data = real(name).read_bytes()
    own = kept.filter(~pl.col("offset").is_in(list(found.revisits)))
    alone = own.filter(pl.col("length") > 0)
    assert alone.height == own.height or name.endswith(SHARED)
    for row in alone.iter_rows(named=True) if not name.endswith(NOT_WARCIO) else ():
        ((_, record_id, uri, payload),) = warcio_records(data[row["offset"] :][: row["length"]])
        assert (row["record_id"] is None or f"<{row['record_id']}>" == record_id) and row["payload"] == payload
        assert row["uri"].replace(" ", "%20") == uri.replace(" ", "%20").strip("<>")


@pytest.mark.parametrize(
    "name", [name for name in REAL if "blackbook" in name or "resiliparse" in name or "edge" in name]
)
def test_any_cut_into_spans_gives_the_same_rows(name):
    source = find_files([str(real(name))])[0]
    found = index(source, seek_bytes=1)
    whole = read_all(source, found)
    places = [offset for offset, _ in found.seeks]
    for cuts in (places[:: max(1, len(places) // 20)], places[1::2], places[len(places) // 2 :][:1]):
        parts = read_all(source, found, cuts)
        assert parts[0].equals(whole[0]) and parts[1].equals(whole[1])


@pytest.mark.parametrize("name", ["warc/aut-IAH-2008-blackbook.warc.gz", "warc/aut-issue-493.warc"])
def test_seeks_say_how_many_records_are_before_them(name):
    source = find_files([str(real(name))])[0]
    found = index(source, seek_bytes=1)
    assert len(found.seeks) == found.records
    for offset, before in found.seeks[:: max(1, len(found.seeks) // 8)]:
        splits = list(read(source, 0, offset, revisits=found.revisits)) if offset else []
        assert sum(split.kept.height + split.drops.height for split in splits) == before


ZST = zstandard.ZstdCompressor(write_checksum=True)
PACKINGS = {
    "crawl.warc": lambda records: b"".join(records),
    "crawl.warc.gz": lambda records: b"".join(map(member, records)),
    "crawl.warc.zst": lambda records: b"".join(map(ZST.compress, records)),
    "crawl.warc.lz4": lambda records: b"".join(lz4.frame.compress(item, content_checksum=True) for item in records),
}


@pytest.mark.parametrize("name", PACKINGS)
def test_all_compressions_give_the_same_pages(tmp_path, name):
    records = pages(7, size=3000) + [record(b"x" * 200_000, 7, type="conversion")]
    source = write(tmp_path, PACKINGS[name](records), name)
    assert source.format == name.removeprefix("crawl.")
    found = index(source, seek_bytes=1)
    kept, drops = read_all(source, found, [offset for offset, _ in found.seeks])
    assert len(found.seeks) == 8 and drops.height == 0
    assert bodies(kept) == [item.split(b"\r\n\r\n", 2)[2][:-4] for item in records[:7]] + [b"x" * 200_000]
    data = (tmp_path / name).read_bytes()
    assert kept["length"].sum() == len(data) and kept["offset"][0] == 0
    assert kept["offset"][1:].to_list() == (kept["offset"] + kept["length"])[:-1].to_list()


def test_a_file_in_one_member_is_read_whole(tmp_path):
    for packed in (member(b"".join(pages(5))), ZST.compress(b"".join(pages(5)))):
        source = write(tmp_path, packed, "crawl.warc.gz")
        found = index(source, seek_bytes=1)
        kept, _ = read_all(source, found)
        assert found.seeks == [(0, 0)] and kept.height == 5
        assert set(kept["offset"]) == {0} and set(kept["length"]) == {0}


@pytest.mark.parametrize("packed_dictionary", [False, True])
def test_a_zstd_dictionary_at_the_start_of_the_file(tmp_path, packed_dictionary):
    records = pages(40)
    dictionary = zstandard.train_dictionary(4096, records)
    held = zstandard.ZstdCompressor().compress(dictionary.as_bytes()) if packed_dictionary else dictionary.as_bytes()
    compressor = zstandard.ZstdCompressor(dict_data=dictionary)
    head = b"\x5d\x2a\x4d\x18" + len(held).to_bytes(4, "little") + held
    source = write(tmp_path, head + b"".join(map(compressor.compress, records)), "crawl.warc.zst")
    found = index(source, seek_bytes=1)
    kept, _ = read_all(source, found, [offset for offset, _ in found.seeks])
    assert kept.height == 40 and len(found.seeks) == 40


DECISIONS = [
    (record(http(b"<p>x")), None, None),
    (record(http(b"x", Content_Type="text/plain; charset=x")), None, None),
    (record(http(b"<?xml?><html>", Content_Type="application/xhtml+xml")), None, None),
    (record(http(b" <!DOCTYPE html>", Content_Type="")), None, None),
    (record(http(b"<HTML>", Content_Type="application/octet-stream")), None, None),
    (record(http(b"<?xml version='1.0'?><html xmlns='x'>", Content_Type="text/xml")), None, None),
    (record(http(b"x"), WARC_Type="resource", Content_Type="text/html"), None, None),
    (record(http(b"x", Content_Type="image/png")), "media_type", "image/png"),
    (record(http(b"%PDF-1.4")), "media_type", "application/pdf, declared as text/html"),
    (record(http(b"<rss>", Content_Type="text/xml")), "media_type", "text/xml"),
    (record(http(b"\0\1\2", Content_Type="")), "media_type", "unknown"),
    (record(http(b"x", "404 Not Found")), "http_status", None),
    (record(http(b"", "301 Moved", Content_Type="image/png")), "http_status", None),
    (record(b"<html>no head"), "bad_http", "no status line but b'<html>no head'"),
    (record(b"x", type="metadata"), "not_a_page", "metadata"),
    (record(b"x", type="request"), "not_a_page", "request"),
    (record(b"x", type="resource", WARC_Target_URI="metadata://gnu.org/x"), "not_a_page", None),
    (record(b"x", type="continuation"), "not_a_page", "continuation"),
    (record(http(b"x"), WARC_Segment_Number="1"), "truncated_record", None),
]


@pytest.mark.parametrize(("data", "reason", "evidence"), DECISIONS)
def test_what_is_a_page(tmp_path, data, reason, evidence):
    kept, drops = read_all(write(tmp_path, member(data)))
    assert reasons(drops) == ([] if reason is None else [reason])
    if evidence is not None:
        assert drops["evidence"][0] == evidence
    if reason == "http_status":
        assert drops["value"][0] in (404.0, 301.0)
    assert drops["warc"].to_list() == ["crawl.warc.gz"] * drops.height and drops["uri"].null_count() == 0


def test_the_columns_of_a_page(tmp_path):
    page = http(b"x", Content_Type='Text/HTML; Charset="UTF-8"', X_Robots_Tag="noai", TDM_Reservation="1")
    page = page.replace(b"TDM", b"X-Robots-Tag: noindex\r\nContent-Usage: train-ai=n\r\ntdm-policy: https://p\r\nTDM")
    kept, _ = read_all(write(tmp_path, member(record(page, 5))))
    row = kept.row(0, named=True)
    assert row["record_id"] == "urn:uuid:00000000-0000-0000-0000-000000000005" and row["uri"] == "http://example.com/5"
    assert row["date"] == datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC) and row["status"] == 200
    assert (row["mime"], row["charset"], row["payload"]) == ("text/html", "utf-8", b"x")
    signals = ("robots_header", "tdm_reservation", "tdm_policy", "content_usage")
    assert [row[name] for name in signals] == ["noai, noindex", "1", "https://p", "train-ai=n"]


def test_header_fields_that_writers_get_wrong(tmp_path):
    plain = record(http(b"x"), 1, WARC_Target_URI="<http://e/a b>", WARC_Date="2020-01-02T03:04:05.123456789Z")
    folded = record(http(b"y"), 2, WARC_Target_URI="http://e/\r\n folded", WARC_Date="never")
    bare = record(b"z", 3, type="conversion").replace(b"\r\n", b"\n")
    latin = record(b"z", 4, type="conversion").replace(b"example", b"exampl\xe9")
    kept, drops = read_all(write(tmp_path, b"".join(map(member, (plain, folded, bare, latin)))))
    assert kept["uri"].to_list()[:2] == ["http://e/a b", "http://e/ folded"] and kept["uri"][3][7:13] == "examplé"[:6]
    assert kept["date"].to_list()[:2] == [datetime(2020, 1, 2, 3, 4, 5, 123456, tzinfo=UTC), None]
    assert drops.height == 0


def test_revisits_become_pages_with_the_payload_of_their_originals(tmp_path):
    digest, profile = "sha1:ABC", "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest"
    original = record(http(b"<p>kept", X_Robots_Tag="a"), 1, WARC_Payload_Digest=digest)
    missing = record(http(b"gone", "404 Not Found"), 2)
    first, second = (f"<urn:uuid:00000000-0000-0000-0000-{n:012}>" for n in (1, 2))
    again = {"type": "revisit", "WARC_Profile": profile, "Content_Type": "application/http;msgtype=response"}
    by_id = record(http(b"", X_Robots_Tag="b"), 3, WARC_Refers_To=first, **again)
    target = "http://example.com/1"
    by_digest = record(b"", 4, WARC_Payload_Digest=digest, WARC_Refers_To_Target_URI=target, **again)
    of_missing = record(b"", 5, WARC_Refers_To=second, **again)
    unknown = record(b"", 6, WARC_Refers_To="<urn:uuid:nowhere>", **again)
    records = [by_id, original, missing, by_digest, of_missing, unknown]  # the first stands before what it repeats
    for name, pack in PACKINGS.items():
        source = write(tmp_path, pack(records), name)
        found = index(source, seek_bytes=1)
        kept, drops = read_all(source, found, [offset for offset, _ in found.seeks])
        assert bodies(kept) == [b"<p>kept"] * 3
        assert kept["uri"].to_list() == [f"http://example.com/{n}" for n in (3, 1, 4)]
        assert kept["robots_header"].to_list() == ["b", "a", "a"] and kept["id"].is_unique().all()
        assert reasons(drops) == ["http_status", "http_status", "revisit_unresolved"]
        assert drops["evidence"][2] == "<urn:uuid:nowhere>"
    kept, drops = read_all(write(tmp_path, member(b"".join(records))))  # no place to go back to
    assert kept.height == 1 and reasons(drops).count("revisit_unresolved") == 4


ARC = [
    (b"filedesc://x.arc 0.0.0.0 20080430204825 text/plain", b"1 0 Org\nURL IP-address Archive-date ...\n"),
    (b"http://e/with a space 1.2.3.4 20080430204825 text/html", b"HTTP/1.1 200 OK\r\nX-A: b\r\n\r\n<p>Hi"),
    (b"dns:e 1.2.3.4 20080430204825 text/dns", b"12345"),
    (b"http://e/0.9 1.2.3.4 19960430204825 text/html", b"<p>from before HTTP had heads\n"),
    (b"http://e/v2 1.2.3.4 20080430204825 text/html 404 sum loc 17 file.arc", b"gone"),
    (b"http://e/v2 1.2.3.4 20080430204825 text/html 200 - - 17 file.arc", b"found"),
]


@pytest.mark.parametrize("name", ["crawl.arc", "crawl.arc.gz"])
def test_arc_files(tmp_path, name):
    records = [head + b" %d\n" % len(content) + content + b"\n" for head, content in ARC]
    source = write(tmp_path, b"".join(records if name == "crawl.arc" else map(member, records)), name)
    assert source.format == name.removeprefix("crawl.")
    found = index(source, seek_bytes=1)
    kept, drops = read_all(source, found, [offset for offset, _ in found.seeks])
    assert kept["uri"].to_list() == ["http://e/with a space", "http://e/0.9", "http://e/v2"]
    assert bodies(kept) == [b"<p>Hi", b"<p>from before HTTP had heads\n", b"found"]
    assert kept["status"].to_list() == [200, None, 200] and len(found.seeks) == 6
    assert kept["date"][1] == datetime(1996, 4, 30, 20, 48, 25, tzinfo=UTC)
    assert reasons(drops) == ["not_a_page", "media_type", "http_status"]
    assert kept["id"].is_unique().all()


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 6000), min_size=1, max_size=12), limit=st.integers(1, 9000))
def test_batches_keep_to_their_limit(tmp_path_factory, sizes, limit):
    records = [record(b"x" * size, number, type="conversion") for number, size in enumerate(sizes)]
    source = write(tmp_path_factory.mktemp("w"), b"".join(map(gzip.compress, records)))
    splits = list(read(source, limits=Limits(max_batch_bytes=limit)))
    assert [len(body) for split in splits for body in bodies(split.kept)] == sizes
    assert all(sum(map(len, bodies(split.kept))) <= limit for split in splits if split.kept.height > 1)
