"""The planted cases of the sample crawl are what its truth says: read back with libraries that are not ours.

A crawl with few documentation pages will do: test_sample.py holds that its cases have the bytes of those in the whole.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exchanges import Exchange, Truth, of_kind, read_exchanges, read_records
from resiliparse.extract.html2text import extract_plain_text

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


@pytest.fixture(scope="module")
def truth(sample: tuple[Path, Truth]) -> Truth:
    return sample[1]


@pytest.fixture(scope="module")
def records(sample: tuple[Path, Truth]) -> dict[str, tuple[Any, bytes]]:
    return read_records(sample[0])


@pytest.fixture(scope="module")
def exchanges(records: dict[str, tuple[Any, bytes]]) -> dict[str, Exchange]:
    return read_exchanges(records)


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
