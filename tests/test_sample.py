"""The whole sample crawl as a file: the same bytes wherever it is made, sound for two WARC libraries, counted right.

What its planted cases hold is up to test_sample_truth.py.
"""

from __future__ import annotations

import gzip
import html
import json
import os
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exchanges import Exchange, Truth, members, of_kind, read_exchanges, read_records
from fastwarc.warc import ArchiveIterator as FastIterator
from warcio.archiveiterator import ArchiveIterator

from gristmill.dataops.sample import write_sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    path = tmp_path_factory.mktemp("sample") / "sample.warc.gz"
    return path, write_sample(path)


@pytest.fixture(scope="module")
def truth(sample: tuple[Path, Truth]) -> Truth:
    return sample[1]


@pytest.fixture(scope="module")
def records(sample: tuple[Path, Truth]) -> dict[str, tuple[Any, bytes]]:
    return read_records(sample[0])


@pytest.fixture(scope="module")
def exchanges(records: dict[str, tuple[Any, bytes]]) -> dict[str, Exchange]:
    return read_exchanges(records)


def test_a_capped_sample_from_another_process_has_every_case_and_the_same_bytes(sample, tmp_path):
    """A capped sample is the whole one with documentation pages left out: every record has the same bytes."""
    path, truth = sample
    code = (
        "import json; from gristmill.dataops.sample import write_sample;"
        "json.dump(write_sample('again.warc.gz', pages=50), open('truth.json', 'w'))"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    surroundings = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo", "COLUMNS": "40"}
    done = subprocess.run([sys.executable, "-c", code], env=surroundings, cwd=tmp_path, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    small = json.loads((tmp_path / "truth.json").read_text())
    assert small["cases"] == json.loads(json.dumps(truth["cases"]))
    planted = sum(case["kind"] not in ("warcinfo", "request", "metadata", "revisit") for case in small["cases"])
    assert small["records"]["response"] == planted + 50
    written = members(tmp_path / "again.warc.gz")
    chosen = set(written)
    assert len(written) == len(chosen) == sum(small["records"].values())
    assert written == [member for member in members(path) if member in chosen]


def test_the_whole_sample_has_two_thousand_pages_and_the_counts_are_true(truth, records, exchanges):
    assert truth["pages"] >= 2000
    html_pages = [e for e in exchanges.values() if e.status == 200 and e.headers.get_content_type() == "text/html"]
    assert truth["pages"] == len(html_pages)
    assert truth["records"] == dict(Counter(headers["WARC-Type"] for headers, _ in records.values()))
    assert sum(truth["records"].values()) == len(records)  # no record id twice


def test_both_warc_libraries_find_every_digest_right(sample):
    path, truth = sample
    checked: Counter[str] = Counter()
    with path.open("rb") as file:
        for record in ArchiveIterator(file, check_digests="raise"):
            record.raw_stream.read()
            assert record.digest_checker.passed or record.rec_type == "revisit"  # warcio does not check revisits
            checked[record.rec_type] += 1
    assert checked == truth["records"]
    with path.open("rb") as file:
        assert all(record.verify_block_digest() for record in FastIterator(file, parse_http=False))
    with path.open("rb") as file:
        responses = (record for record in FastIterator(file) if record.headers["WARC-Type"] == "response")
        assert sum(record.verify_payload_digest() for record in responses) == truth["records"]["response"]


def test_every_record_is_a_gzip_member_without_a_time(sample, truth):
    records = members(sample[0])
    assert len(records) == sum(truth["records"].values())
    assert sum(map(len, records)) < 8_000_000
    for member in records:
        assert member[4:8] == bytes(4)  # RFC 1952: MTIME
        assert gzip.decompress(member).startswith(b"WARC/1.1\r\nWARC-Type: ")


def test_dates_lie_in_2024_and_2025_and_a_revisit_is_later_than_what_it_refers_to(truth, records):
    dates = {key: headers["WARC-Date"] for key, (headers, _) in records.items()}
    assert {date[:4] for date in dates.values()} == {"2024", "2025"}
    (revisit,) = of_kind(truth, "revisit")
    headers = records[revisit["record_id"]][0]
    first = records[revisit["original_record_id"]][0]
    assert headers["WARC-Refers-To"] == first["WARC-Record-ID"]
    assert headers["WARC-Refers-To-Date"] == first["WARC-Date"] < headers["WARC-Date"]
    assert headers["WARC-Payload-Digest"] == first["WARC-Payload-Digest"]
    for visit in of_kind(truth, "exact_duplicate"):
        if visit["way"] == "same_address":
            assert dates[visit["record_id"]] > dates[visit["original_record_id"]]


def test_no_page_tells_where_it_was_made(exchanges):
    """Addresses of objects and paths of the installation would make every machine's sample another one."""
    marks = re.compile(r" at 0x[0-9a-f]{6,}>|" + re.escape(sysconfig.get_path("stdlib")))
    pages = {key: html.unescape(exchange.body.decode("latin-1")) for key, exchange in exchanges.items()}
    assert not [key for key, page in pages.items() if marks.search(page)]
