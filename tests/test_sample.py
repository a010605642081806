"""The sample crawl holds what its truth says: read back with WARC libraries and an HTTP parser that are not ours."""

from __future__ import annotations

import gzip
import html
import io
import itertools
import json
import os
import re
import subprocess
import sys
import sysconfig
import unicodedata
from collections import Counter
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import brotli
import pytest
from fastwarc.warc import ArchiveIterator as FastIterator
from resiliparse.extract.html2text import extract_plain_text
from warcio.archiveiterator import ArchiveIterator

from gristmill.dataops.sample import write_sample

Truth = dict[str, Any]
KINDS = {
    "near_duplicate": 20,
    "near_duplicate_chain": 2,
    "exact_duplicate": 4,
    "spam": 6,
    "navigation_only": 3,
    "very_short": 4,
    "lorem_ipsum": 2,
    "curly_brackets": 2,
    "javascript_required": 2,
    "hashes": 2,
    "ellipses": 2,
    "link_list": 2,
    "language": 6,
    "charset": 13,
    "benchmark_leak": 2,
    "opt_out": 7,
    "opt_in": 3,
    "personal_data": 2,
    "content_encoding": 4,
    "no_charset": 1,
    "nul_bytes": 1,
    "script": 1,
    "not_found": 1,
    "redirect": 1,
    "pdf": 1,
    "image": 1,
    "request": 1,
    "metadata": 1,
    "warcinfo": 1,
    "revisit": 1,
}


class Exchange:
    """A response record parsed by http.client: status, headers, the body as stored and with every coding undone."""

    def __init__(self, block: bytes) -> None:
        class Socket:
            def makefile(self, mode: str) -> io.BytesIO:
                return io.BytesIO(block)

        response = HTTPResponse(Socket())  # type: ignore[arg-type]
        response.begin()
        self.status, self.headers = response.status, response.headers
        self.stored = block.partition(b"\r\n\r\n")[2]
        undo: dict[str | None, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "br": brotli.decompress}
        self.body = undo.get(self.headers["Content-Encoding"], bytes)(response.read())


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    path = tmp_path_factory.mktemp("sample") / "sample.warc.gz"
    return path, write_sample(path)


@pytest.fixture(scope="module")
def truth(sample: tuple[Path, Truth]) -> Truth:
    return sample[1]


@pytest.fixture(scope="module")
def records(sample: tuple[Path, Truth]) -> dict[str, tuple[Any, bytes]]:
    """WARC headers and block by record id; FastWARC without HTTP parsing leaves the block alone."""
    with sample[0].open("rb") as file:
        found = [(record.headers.asdict(), record.reader.read()) for record in FastIterator(file, parse_http=False)]
    return {headers["WARC-Record-ID"]: (headers, block) for headers, block in found}


@pytest.fixture(scope="module")
def exchanges(records: dict[str, tuple[Any, bytes]]) -> dict[str, Exchange]:
    return {key: Exchange(block) for key, (head, block) in records.items() if head["WARC-Type"] == "response"}


def of_kind(truth: Truth, *kinds: str) -> list[Any]:
    found = [case for case in truth["cases"] if case["kind"] in kinds]
    assert found, kinds
    return found


def shown(body: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", body))


def five_grams(text: str) -> set[str]:
    """Written apart from the code under test: lower case, no accents, digits alike, words of letters and digits."""
    folded = unicodedata.normalize("NFKD", text.lower())
    kept = "".join("0" if c.isdecimal() else c if c.isalnum() else " " for c in folded if not unicodedata.combining(c))
    words = kept.split()
    return {" ".join(words[i : i + 5]) for i in range(len(words) - 4)}


def similarity(a: str, b: str) -> float:
    left, right = five_grams(a), five_grams(b)
    return len(left & right) / len(left | right)


def members(path: Path) -> list[bytes]:
    """The gzip members of a WARC, one per record."""
    data = path.read_bytes()
    starts = [record.stream_pos for record in FastIterator(io.BytesIO(data), parse_http=False)]
    return [data[start:end] for start, end in itertools.pairwise([*starts, len(data)])]


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


def test_every_kind_is_planted_and_its_records_are_there(truth, records):
    assert Counter(case["kind"] for case in truth["cases"]) == KINDS
    for case in truth["cases"]:
        headers, _ = records[case["record_id"]]
        assert headers.get("WARC-Target-URI") == case["uri"]


def test_the_text_of_every_case_is_in_its_page_and_no_text_is_on_two(truth, exchanges):
    cases = [case for case in truth["cases"] if "text" in case]
    assert len(cases) > 80
    for case in cases:
        body = shown(exchanges[case["record_id"]].body.decode(case.get("encoding", "utf-8")))
        missing = [line for line in case["text"].split("\n") if line not in body]
        assert not missing, (case["uri"], missing[:3])
    own = Counter(case["text"] for case in cases if case["kind"] != "charset")
    assert own.most_common(1)[0][1] == 1


def test_near_duplicates_have_the_similarity_that_is_stated(truth):
    copies = of_kind(truth, "near_duplicate")
    assert Counter(case["target"] for case in copies) == dict.fromkeys((0.5, 0.6, 0.75, 0.85, 0.95), 4)
    for case in copies:
        assert similarity(case["text"], case["original_text"]) == pytest.approx(case["jaccard"], abs=1e-12)
        assert case["target"] - 0.04 < case["jaccard"] <= case["target"]
    b, c = sorted(of_kind(truth, "near_duplicate_chain"), key=lambda case: case["link"])
    assert c["original"] == b["uri"]
    assert c["original_text"] == b["text"]
    assert similarity(c["text"], b["text"]) == pytest.approx(c["jaccard"], abs=1e-12)
    assert similarity(c["text"], b["original_text"]) == pytest.approx(c["jaccard_to_first"], abs=1e-12)
    assert b["jaccard"] > 0.7 < c["jaccard"]
    assert c["jaccard_to_first"] < 0.65


def test_the_similarity_survives_extraction(truth, exchanges):
    """Both layouts, through an extractor that knows nothing of either."""
    for case in of_kind(truth, "near_duplicate", "exact_duplicate"):
        bodies = [exchanges[case[key]].body.decode() for key in ("record_id", "original_record_id")]
        copy, original = (extract_plain_text(body, main_content=True) for body in bodies)
        assert similarity(copy, original) == pytest.approx(case.get("jaccard", 1.0), abs=0.02)


def test_exact_duplicates_are_exact_in_the_way_that_is_stated(truth, records):
    for case in of_kind(truth, "exact_duplicate"):
        copy, original = (records[case[key]][0] for key in ("record_id", "original_record_id"))
        assert case["text"] == case["original_text"]
        assert copy["WARC-Record-ID"] != original["WARC-Record-ID"]
        assert (case["uri"] == case["original"]) == (case["way"] == "same_address")
        same_payload = copy["WARC-Payload-Digest"] == original["WARC-Payload-Digest"]
        assert same_payload == (case["way"] != "other_layout")


def test_charsets_are_declared_as_stated_and_decode_to_the_same_text(truth, exchanges):
    languages = {case["uri"]: case["text"] for case in of_kind(truth, "language")}
    for case in of_kind(truth, "charset"):
        exchange = exchanges[case["record_id"]]
        body = exchange.body.decode(case["encoding"])
        assert exchange.headers.get_content_charset() == case["in_header"]
        assert ('<meta charset="' in body) == (case["in_meta"] is not None)
        assert case["in_meta"] is None or f'<meta charset="{case["in_meta"]}">' in body
        assert case["text"] == languages[case["same_text_as"]]
        declared = case["in_header"] or case["in_meta"]
        if case["way"] == "wrong":
            assert case["text"].split("\n")[1] not in shown(exchange.body.decode(declared, "replace"))
        elif case["way"] in ("right", "header_over_meta"):
            assert case["text"].split("\n")[1] in shown(exchange.body.decode(declared))
    (page,) = of_kind(truth, "no_charset")
    exchange = exchanges[page["record_id"]]
    assert exchange.headers.get_content_charset() is None
    assert b"charset" not in exchange.body
    assert not exchange.body.isascii()


def test_language_pages_are_long_enough_to_tell(truth):
    pages = of_kind(truth, "language")
    assert {page["lang"] for page in pages} == {"de", "fr", "es", "ru", "zh", "ja"}
    for page in pages:
        if page["lang"] in ("zh", "ja"):
            assert sum(map(str.isalpha, page["text"])) >= 250
        else:
            assert len(page["text"].split()) >= 150


def test_signals_are_where_they_are_said_to_be(truth, exchanges):
    for case in of_kind(truth, "opt_out", "opt_in"):
        exchange = exchanges[case["record_id"]]
        meta = f'<meta name="{case["signal"]}" content="{case["value"]}">'.encode()
        assert (exchange.headers[case["signal"]] == case["value"]) == (case["place"] == "header")
        assert (meta in exchange.body) == (case["place"] == "meta")


def test_contents_are_coded_as_stated(truth, exchanges):
    seen = set()
    for case in of_kind(truth, "content_encoding"):
        exchange = exchanges[case["record_id"]]
        codings = [exchange.headers["Content-Encoding"], exchange.headers["Transfer-Encoding"]]
        assert [coding for coding in codings if coding] == case["transfer"]
        assert exchange.stored != exchange.body
        seen.add(tuple(case["transfer"]))
    assert seen == {("gzip",), ("br",), ("chunked",), ("gzip", "chunked")}


def iban_is_valid(iban: str) -> bool:
    """ISO 7064 MOD 97-10, as ISO 13616 applies it."""
    bare = iban.replace(" ", "")
    return int("".join(str(int(char, 36)) for char in bare[4:] + bare[:4])) % 97 == 1


def luhn_is_valid(number: str) -> bool:
    digits = [int(char) for char in reversed(number.replace(" ", ""))]
    return sum(digits[::2] + [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]) % 10 == 0


def test_personal_data_has_right_check_digits_and_decoys_wrong_ones(truth):
    for case in of_kind(truth, "personal_data"):
        found = {item["type"]: item["value"] for item in case["found"]}
        assert found.keys() == {"email", "phone", "iban", "card", "ip"}
        assert all(value in case["text"] for value in [*found.values(), *case["decoys"]])
        assert iban_is_valid(found["iban"])
        assert luhn_is_valid(found["card"])
        iban, card, *_ = case["decoys"]
        assert not iban_is_valid(iban)
        assert not luhn_is_valid(card)


def test_the_leaked_problem_is_there_and_has_its_answer(truth):
    verbatim, respelled = sorted(of_kind(truth, "benchmark_leak"), key=lambda case: case["form"], reverse=True)
    assert verbatim["prompt"] in verbatim["text"]
    assert respelled["prompt"] not in respelled["text"]
    assert five_grams(respelled["prompt"]) <= five_grams(respelled["text"])
    assert int(verbatim["answer"]) == (6 * 14 - 4 * 9) // 8


def test_poor_pages_show_what_their_facts_count(truth):
    facts = {
        "curly_brackets": lambda case: case["text"].count("{") == case["brackets"] > 0,
        "lorem_ipsum": lambda case: case["text"].count("Lorem ipsum") == case["times"],
        "javascript_required": lambda case: case["line"] in case["text"],
        "hashes": lambda case: case["text"].count("#") == case["hashes"] >= 0.5 * len(case["text"].split()),
        "ellipses": lambda case: len(re.findall(r"\.\.\.$", case["text"], re.MULTILINE)) == case["lines"],
        "link_list": lambda case: len(case["text"].split("\n")) == case["links"] + 1,
        "navigation_only": lambda case: len(case["text"].split()) <= 2,
        "very_short": lambda case: len(case["text"].split()) < 10,
        "spam": lambda case: (
            case["text"].count(case.get("line") or case.get("phrase") or case["keyword"])
            == case["times"] + (case["way"] == "keyword_stuffing")  # the title has the keyword once more
        ),
    }
    for kind, holds in facts.items():
        for case in of_kind(truth, kind):
            assert holds(case), case["uri"]


def test_odd_bodies_are_odd(truth, exchanges):
    (nul,), (script,) = of_kind(truth, "nul_bytes"), of_kind(truth, "script")
    assert exchanges[nul["record_id"]].body.count(b"\0") == nul["nuls"] == 2
    body = exchanges[script["record_id"]].body.decode()
    assert body.count(script["script"]) == 2  # alive in head and body
    assert f"<title>{html.escape(script['script'])}" in body
    assert script["text"].startswith(script["script"])
    (gone,), (moved,) = of_kind(truth, "not_found"), of_kind(truth, "redirect")
    assert exchanges[gone["record_id"]].status == gone["status"] == 404
    assert exchanges[moved["record_id"]].status == moved["status"] == 301
    assert exchanges[moved["record_id"]].headers["Location"] == moved["location"]
    (pdf,), (image,) = of_kind(truth, "pdf"), of_kind(truth, "image")
    assert exchanges[pdf["record_id"]].body.startswith(b"%PDF-1.4")
    assert exchanges[image["record_id"]].body.startswith(b"\x89PNG")


def test_no_page_tells_where_it_was_made(exchanges):
    """Addresses of objects and paths of the installation would make every machine's sample another one."""
    marks = re.compile(r" at 0x[0-9a-f]{6,}>|" + re.escape(sysconfig.get_path("stdlib")))
    pages = {key: html.unescape(exchange.body.decode("latin-1")) for key, exchange in exchanges.items()}
    assert not [key for key, page in pages.items() if marks.search(page)]
