"""The tokenising kernel: against a slow reader of the same rules, one document at a time."""

from __future__ import annotations

import itertools
import unicodedata

import numpy as np
import polars as pl
import pytest
from datatrove.utils.text import simplify_text
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dataops.text.characters import ALPHA, BREAK, DIGIT, SPACE, characters, space_characters
from gristmill.dataops.text.words import BATCH_BYTES, batches, fold_words, hash_text, tokenize

PIECES = list("aZq9٣é_'’.,:/-‑–~@|\\^+*=<>&()\"!?#$%…•©° \n\r\t\x00\x1c\u2028\u00a0\u200b\u0301日あไทย한") + [
    "don't",
    "it’s",
    "we're",
    "U.S.",
    "e.g.",
    "end.Next",
    "3.14",
    "...",
    "--",
    "\r\n",
    "😀",
    "e\u0301",
]
texts = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


def tokens_of(text: str) -> list[str]:
    found = tokenize(pl.Series([text]))
    return [text[a:b] for a, b in zip(found.start.tolist(), found.end.tolist(), strict=True)]


def is_mark(c: str) -> bool:
    return unicodedata.category(c) in ("Mn", "Mc", "Me", "Cf")


def is_word(c: str) -> bool:
    return unicodedata.category(c)[0] in "LN" or is_mark(c)


def is_single(c: str) -> bool:
    names = ("CJK UNIFIED", "CJK COMPAT", "HIRAGANA", "THAI CHARACTER", "LAO ", "MYANMAR LETTER", "KHMER LETTER")
    return c.isalpha() and unicodedata.name(c, "").startswith(names)


def read_chunk(chunk: str) -> list[str]:
    """The rules of words.py, read character by character over text without whitespace."""
    belongs = [is_word(c) for c in chunk]
    joining, closing = set(), set()
    for symbol, group in itertools.groupby(range(len(chunk)), key=lambda i: not is_word(chunk[i])):
        at = list(group)
        if not symbol or len(at) == len(chunk):
            continue
        run = "".join(chunk[i] for i in at)
        left = chunk[at[0] - 1] if at[0] else ""
        right = chunk[at[-1] + 1] if at[-1] + 1 < len(chunk) else ""
        if ".." in run or "…" in run or any(unicodedata.category(c) == "So" for c in run):
            continue
        uniform = len(run) == 1 or (len(run) <= 3 and len(set(run)) == 1)
        if left and right:
            lower_upper = unicodedata.category(left) == "Ll" and unicodedata.category(right) in ("Lu", "Lt")
            if run == "." and lower_upper:
                continue
            if run == "," and left.isalpha() and right.isalpha():
                continue
            if run in set("+-*^") and left.isdecimal() and right.isdecimal():
                continue
            if (run in set(":<>=/–~") or (uniform and run[0] in "-—")) and right.isalpha():
                continue
        else:
            if not (uniform and run[0] in "-/~@|\\^+"):
                continue
            if run[0] == "+" and (left.isdecimal() or right.isalpha()):
                continue
        joining.update(at)
        for i in at:
            belongs[i] = True
    for i, c in enumerate(chunk):
        if c != "." or i in joining or i == 0 or chunk[i + 1 : i + 2] == ".":
            continue
        alone = i < 2 or not is_word(chunk[i - 2])
        abbreviated = i >= 2 and chunk[i - 2] == "." and i - 2 in joining
        if alone and chunk[i - 1].isalpha() and (unicodedata.category(chunk[i - 1]) in ("Lu", "Lt") or abbreviated):
            belongs[i] = True
            closing.add(i)  # joins the letter before it and nothing after it
    out = [chunk[0]]
    for i in range(1, len(chunk)):
        before, c = chunk[i - 1], chunk[i]
        joined = belongs[i] and belongs[i - 1] and i - 1 not in closing
        joined &= is_mark(c) or not (is_single(c) or is_single(before))
        joined |= is_mark(c) or (c == before and c in ".-")
        joined |= i in closing
        if cuts_a_contraction(chunk, i, joining):
            joined = False
        if joined:
            out[-1] += c
        else:
            out.append(c)
    return out


def cuts_a_contraction(chunk: str, i: int, joining: set[int]) -> bool:
    def ending(at: int) -> str:
        letters = "".join(itertools.takewhile(is_word, chunk[at + 1 :]))
        return letters.lower() if at in joining and chunk[at] in "'’" else ""

    if ending(i) in ("s", "m", "d", "re", "ve", "ll"):
        return True
    not_ending = chunk[i] in "nN" and i + 1 < len(chunk) and ending(i + 1) == "t"
    return not_ending and is_word(chunk[i - 1])


@settings(deadline=None)
@given(texts)
def test_tokens_are_those_of_a_slow_reader(text):
    assert tokens_of(text) == [token for chunk in text.split() for token in read_chunk(chunk)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't can’t we're John's o'clock", "do|n't|ca|n’t|we|'re|John|'s|o'clock"),
        ("well-known COVID-19 2020-01", "well|-|known|COVID-19|2020|-|01"),
        ("3.14 1,000 12:30 1/2 and/or", "3.14|1,000|12:30|1/2|and|/|or"),
        ("end.Next a.b U.S. e.g. J. Wu said.", "end|.|Next|a.b|U.S.|e.g.|J.|Wu|said|."),
        ("me@example.com std::vector AT&T C++ @me --flag", "me@example.com|std::vector|AT&T|C++|@me|--flag"),
        ("wait... no!! (a) ---- 20°C", "wait|...|no|!|!|(|a|)|----|20|°|C"),
        ("日本語 あ한국 ไทย", "日|本|語|あ|한국|ไ|ท|ย"),
        ("cafe\u0301 ❤\ufe0f x", "cafe\u0301|❤\ufe0f|x"),
    ],
)
def test_the_rules_by_example(text, expected):
    assert tokens_of(text) == expected.split("|")


@settings(deadline=None)
@given(st.lists(texts, max_size=6))
def test_a_document_has_the_same_tokens_lines_and_hashes_in_any_batch(batch):
    found = tokenize(pl.Series(batch, dtype=pl.String))
    for i, text in enumerate(batch):
        alone = tokenize(pl.Series([text]))
        mine = slice(found.doc_tokens[i], found.doc_tokens[i + 1])
        offset = found.doc_start[i]
        assert (found.start[mine] - offset).tolist() == alone.start.tolist()
        assert (found.end[mine] - offset).tolist() == alone.end.tolist()
        assert found.hash[mine].tolist() == alone.hash.tolist()
        assert found.kinds[mine].tolist() == alone.kinds.tolist()
        lines = slice(found.doc_lines[i], found.doc_lines[i + 1])
        bounds = zip(found.line_start[lines] - offset, found.line_end[lines] - offset, strict=True)
        assert [text[a:b] for a, b in bounds] == text.splitlines()


@settings(deadline=None)
@given(texts)
def test_hashes_are_equal_exactly_where_tokens_are(text):
    words, found = tokens_of(text), tokenize(pl.Series([text])).hash.tolist()
    assert len(set(words)) == len(set(found))
    assert found == [hash_text(word) for word in words]


def test_hashes_do_not_change():
    golden = [0, 17508005127702757215, 17357140401427252685, 10279668070462162018]
    assert [hash_text(word) for word in ("", "a", "the", "日")] == golden


def test_character_tables_agree_with_python():
    every = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    flags = characters().flags[every]
    assert (flags & SPACE).astype(bool).tolist() == [chr(c).isspace() for c in every]
    assert (flags & BREAK).astype(bool).tolist() == [len(f"{chr(c)}a".splitlines()) > 1 for c in every]
    assert set(space_characters()) == {chr(c) for c in every if chr(c).isspace()}
    read = np.array(every)[: 0x20000 - 0x800]
    assert (flags[: len(read)] & ALPHA).astype(bool).tolist() == [chr(c).isalpha() for c in read]
    assert (flags[: len(read)] & DIGIT).astype(bool).tolist() == [chr(c).isdecimal() for c in read]


def folded(text: str) -> list[int]:
    return fold_words(pl.Series([text]))[1].tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't STOP—Café naïve", "don t stop cafe naive"),
        ("3.14 and 2020, 7pm covid19", "0 and 0 0pm covid0"),
        ("Ünïcödé Å İstanbul ΣΑΣ", "unicode a istanbul σασ"),
        ("co\u00adop zero\u200bwidth", "coop zerowidth"),
        ("日本 한국어 ١٢٣", "日 本 한국어 0"),
        ("1,000,000 192.168.0.1", "0 0"),
        ("e\u0301te\u0301 • € ++", "ete"),
        ("", ""),
    ],
)
def test_folded_words_by_example(text, words):
    assert folded(text) == [hash_text(word) for word in words.split()]


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"aBéÅ9 .,;'-\n", "12", "x3"]), max_size=20).map("".join))
def test_folding_is_datatroves_where_no_character_becomes_several(text):
    plain = simplify_text(text)
    if not any(a.isdigit() and b in ".," and c.isdigit() for a, b, c in zip(text, text[1:], text[2:], strict=False)):
        assert folded(text) == [hash_text(word) for word in plain.split()]


@settings(deadline=None)
@given(st.lists(texts, max_size=5))
def test_folded_words_do_not_depend_on_the_batch(batch):
    offsets, hashes = fold_words(pl.Series(batch, dtype=pl.String))
    assert len(offsets) == len(batch) + 1 and offsets[-1] == len(hashes)
    for text, first, stop in zip(batch, offsets[:-1], offsets[1:], strict=True):
        assert hashes[first:stop].tolist() == folded(text)


def test_batches_hold_every_document_once_and_in_order():
    column = pl.Series(["x" * size for size in (0, 10, BATCH_BYTES, 3, BATCH_BYTES // 2, BATCH_BYTES, 0)] + [None])
    parts = list(batches(column))
    assert pl.concat(parts).equals(column)
    assert len(parts) > 2
    assert max(part.str.len_bytes().sum() for part in parts) <= 2 * BATCH_BYTES


@pytest.mark.parametrize(
    "text", ["", " \n ", "a" * 5_000_000, "\n" * 1_000_000, "!?" * 300_000, "\x00" * 1000, "😀" * 1000, "\u0301" * 1000]
)
def test_hostile_text_is_covered_by_its_tokens(text):
    found = tokenize(pl.Series([text, None]))
    assert (found.end - found.start).sum() == sum(not c.isspace() for c in text)
    assert found.doc_tokens[1] == found.doc_tokens[2]
    assert len(found.line_start) == len(text.splitlines())
