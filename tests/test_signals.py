"""Signals and the line edit: against plain Python over the same tokens, and against datatrove's filters themselves."""

from __future__ import annotations

import json
import lzma
import re
import unicodedata
from collections import Counter
from functools import cache, partial

import numpy as np
import polars as pl
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import gopher_repetition_filter as repetition
from datatrove.pipeline.filters.c4_filters import C4QualityFilter
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real

from gristmill.dataops.signals import SIGNALS, STOP_WORDS, signals
from gristmill.dataops.text.repetition import DUP_N, TOP_N
from gristmill.dataops.text.words import tokenize

PIECES = [
    *"ab.,-#•…{}[]\"'!?$\n\n\r\t\x00\x1c\u2028\u00a0。😀日١",
    *(["the", "of", "and", "that", " ", " ", " ", " ", "\n"] * 2),
    "...",
    "\n\n",
    "\r\n",
    "[1]",
    "[]",
    "[edit]",
    "[citation needed]",
    "lorem ipsum",
    "JavaScript",
    "java[1]script",
    "uses Coo\u212aies",
    "Privacy policy",
    "aaaaaaaaaaaa",
    "It's a fact. Or not? ",
]
texts = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
edits = st.fixed_dictionaries(
    {
        "remove_citations": st.booleans(),
        "require_terminal_punctuation": st.booleans(),
        "min_words_per_line": st.sampled_from([None, 0, 1, 3]),
        "max_word_length": st.sampled_from([None, 10, 1000]),
        "drop_javascript": st.booleans(),
        "drop_policy": st.booleans(),
    }
)


def pages(batch: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": pl.Series([b"%d" % i for i in range(len(batch))], dtype=pl.Binary),
            "text": pl.Series(batch, dtype=pl.String),
        }
    )


@cache
def split_words(text: str, language: str = "en") -> list[str]:
    found = tokenize(pl.Series([text]))
    return [text[a:b] for a, b in zip(found.start.tolist(), found.end.tolist(), strict=True)]


def split_sentences(text: str, language: str = "en") -> list[str]:
    """As many strings as there are sentences: spaCy's sentencizer over our tokens."""
    count, ended = 1, False
    for token in split_words(text):
        if token in TERMINAL_PUNCTUATION:
            ended = True
        elif not all(unicodedata.category(c)[0] == "P" for c in token):
            count, ended = count + ended, False
    return [""] * count


def count_before(text: str) -> dict[str, object]:
    """The signals of a text as it comes, one at a time."""
    words = split_words(text)
    content = [w for w in words if any(c not in PUNCTUATION_SET for c in w)]
    lines = text.splitlines()
    pieces, paragraphs = re.split("\n+", text) if text else [], re.split("\n{2,}", text.strip())
    out: dict[str, object] = {
        "n_chars": len(text),
        "n_tokens": len(words),
        "n_words": len(content),
        "n_word_chars": sum(map(len, content)),
        "mean_word_length": pytest.approx(np.mean([len(w) for w in content])) if content else None,
        "n_alpha_words": sum(any(c.isalpha() for c in w) for w in words),
        "n_stop_words": len(set(STOP_WORDS) & set(words)),
        "n_hashes": text.count("#"),
        "n_ellipses": text.count("...") + text.count("…"),
        "n_lines": len(lines),
        "n_bullet_lines": sum(s.lstrip().startswith(("•", "-")) for s in lines),
        "n_ellipsis_lines": sum(s.rstrip().endswith(("...", "…")) for s in lines),
        "n_line_pieces": len(pieces),
        "n_paragraphs": len(paragraphs),
    }
    for name, parts in (("line", pieces), ("paragraph", paragraphs)):
        repeats = [part for i, part in enumerate(parts) if part in parts[:i]]
        out |= {f"dup_{name}s": len(repeats), f"dup_{name}_chars": sum(map(len, repeats))}
    for n in TOP_N:
        grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        top, times = Counter(grams).most_common(1)[0] if grams else ("", 0)
        out[f"top_{n}_gram_chars"] = len(top) * times
    for n in DUP_N:
        out[f"dup_{n}_gram_chars"] = repetition.find_all_duplicate(words, n)
    return out


def count_after(text: str, short: int) -> dict[str, int]:
    """FineWeb's counts of an edited text."""
    lines = [line for line in text.split("\n") if line.strip()]
    words = split_words(text)
    return {
        "n_chars_clean": len(text),
        "n_tokens_clean": len(words),
        "n_words_clean": sum(any(c not in PUNCTUATION_SET for c in w) for w in words),
        "n_newlines_clean": text.count("\n"),
        "n_lines_clean": len(lines),
        "punct_lines_clean": sum(line.endswith(tuple(TERMINAL_PUNCTUATION)) for line in lines),
        "short_lines_clean": sum(len(line) <= short for line in lines),
        "dup_line_chars_clean": sum(len(line) for i, line in enumerate(lines) if line in lines[:i]),
    }


def edit_slowly(text: str, params: dict) -> tuple[str, dict, Counter]:
    """The line edit, line by line: the edited text, the page-level signs, and characters lost by reason."""
    kept, lost, signs = [], Counter(), {"has_lorem_ipsum": False, "has_curly_bracket": False, "n_sentences": 0}
    longest, fewest = params["max_word_length"], params["min_words_per_line"]
    phrases = ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"]
    for whole in map(str.strip, text.splitlines()):
        words = whole.split()
        line = re.sub(r"\[\d*]|\[edit]|\[citation needed]", "", whole) if params["remove_citations"] else whole
        reason = None
        if longest is not None and any(len(word) > longest for word in words):
            reason = "long_word"
        elif params["require_terminal_punctuation"] and (
            not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")
        ):
            reason = "no_terminal_punctuation"
        elif fewest is not None and len(words) < fewest:
            reason = "few_words"
        else:
            signs["has_lorem_ipsum"] |= "lorem ipsum" in line.lower()
            if params["drop_javascript"] and "javascript" in line.lower():
                reason = "javascript"
            else:
                signs["has_curly_bracket"] |= "{" in line
                if params["drop_policy"] and any(phrase in line.lower() for phrase in phrases):
                    reason = "policy"
        if reason is None:
            kept.append(line)
            lost["citation"] += len(whole) - len(line)
            signs["n_sentences"] += len(split_sentences(line))
        else:
            lost[reason] += len(whole)
    edited = "\n".join(kept).strip()
    lost["whitespace"] = len(text) - len(edited) - sum(lost.values())
    return edited, signs, +lost


@settings(deadline=None, max_examples=300)
@given(st.lists(texts, min_size=1, max_size=4), edits, st.sampled_from([0, 10, 30]))
def test_every_signal_is_what_plain_python_counts(batch, params, short):
    split = signals(**params, short_line_length=short)(pages(batch))
    losses = split.drops.select("id", "reason", "lost").rows()
    for i, (text, row) in enumerate(zip(batch, split.kept.iter_rows(named=True), strict=True)):
        edited, signs, lost = edit_slowly(text, params)
        assert row.pop("text") == edited
        assert row == {"id": b"%d" % i} | count_before(text) | signs | count_after(edited, short)
        assert {reason: n for page, reason, n in losses if page == b"%d" % i} == dict(lost)


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=4), edits)
def test_the_edit_is_datatroves(batch, params):
    theirs = {
        "remove_citations": params["remove_citations"],
        "filter_no_terminal_punct": params["require_terminal_punctuation"],
        "min_words_per_line": params["min_words_per_line"],
        "max_word_length": params["max_word_length"],
        "filter_javascript": params["drop_javascript"],
        "filter_policy": params["drop_policy"],
    }
    theirs = {name: -1 if value is None else value for name, value in theirs.items()}
    c4 = C4QualityFilter(**theirs, min_num_sentences=-1, filter_lorem_ipsum=False, filter_curly_bracket=False)
    for text, edited in zip(batch, signals(**params)(pages(batch)).kept["text"], strict=True):
        document = Document(text=text, id="")
        assert c4.filter(document) is True
        assert document.text == edited


@settings(deadline=None)
@given(st.lists(texts, max_size=5), edits)
def test_characters_before_less_the_lost_are_the_characters_after(batch, params):
    split = signals(**params)(pages(batch))
    lost = split.drops.group_by("id").agg(pl.col("lost").sum())
    rows = split.kept.join(lost, on="id", how="left").with_columns(pl.col("lost").fill_null(0))
    assert (rows["n_chars"] - rows["lost"] == rows["n_chars_clean"]).all()
    assert (rows["text"].str.len_chars() == rows["n_chars_clean"]).all()
    assert (split.drops["lost"] > 0).all()
    assert set(split.drops["unit"]) <= {"chars"}


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_page_has_the_same_signals_in_any_batch(batch, random):
    op = signals()
    order = list(range(len(batch)))
    random.shuffle(order)
    together = op(pages(batch)).kept
    shuffled = op(pages(batch)[order]).kept
    alone = pl.concat([op(pages(batch)[i : i + 1]).kept for i in range(len(batch))])
    assert together.equals(alone)
    assert together[order].equals(shuffled)


def test_what_a_page_loses_is_in_the_ledger_with_counts():
    lines = ["one two three[1] four.", "short line", "", "  uses cookies right here ", "we use JavaScript here"]
    text = "\n".join([*lines, "last line it is [edit]"])
    split = signals()(pages([text, "a b c"]).with_columns(row=pl.Series([7, 8]), uri=pl.lit("http://x")))
    assert split.kept["text"].to_list() == ["one two three four.\nlast line it is", "a b c"]
    rows = split.drops.select("id", "row", "op", "reason", "lost", "unit", "evidence", "uri").rows()
    assert rows == [
        (b"0", 7, "text.signals", "few_words", 10, "chars", '{"lines": 1}', None),
        (b"0", 7, "text.signals", "javascript", 22, "chars", '{"lines": 1}', None),
        (b"0", 7, "text.signals", "policy", 23, "chars", '{"lines": 1}', None),
        (b"0", 7, "text.signals", "citation", 9, "chars", '{"citations": 2}', None),
        (b"0", 7, "text.signals", "whitespace", 8, "chars", None, None),
    ]


def test_an_emptied_page_stays_and_a_null_text_counts_as_empty():
    split = signals()(pages(["too short", "", None]))
    assert split.kept["text"].to_list() == ["", "", ""]
    assert split.kept["n_sentences"].to_list() == [0, 0, 0]
    assert split.kept["mean_word_length"].to_list() == [4.0, None, None]


def test_no_rows_give_no_rows_with_all_columns():
    split = signals()(pages([]))
    assert split.kept.is_empty() and split.drops.is_empty()
    assert split.kept.schema == pl.Schema({"id": pl.Binary(), "text": pl.String()} | SIGNALS)


def test_stop_words_can_be_of_another_language():
    row = signals(stop_words=("le", "et", "d'"))(pages(["le chat et le chien"])).kept
    assert row["n_stop_words"].to_list() == [2]


@pytest.mark.parametrize(
    "text",
    [
        "a" * 5_000_000,
        "\n" * 1_000_000,
        "!?" * 200_000,
        "a " * 500_000,
        "a b c d e f g\n" * 50_000,
        "[1]" * 100_000,
        "javascript {lorem ipsum " * 20_000,
        "\x00 " * 50_000,
        "😀 " * 50_000,
        "e\u0301 " * 50_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_hostile_text_is_counted_to_the_end(text):
    row = signals()(pages(["before.", text, "after."])).kept.row(1, named=True)
    assert row["n_chars"] == len(text)
    assert row["n_tokens"] == len(split_words(text))
    assert row["n_lines"] == len(text.splitlines())
    assert row["n_chars_clean"] == len(row["text"])
    assert row["dup_5_gram_chars"] <= len(text)


def test_real_pages_repeat_as_datatrove_counts():
    with lzma.open(real("html-gold/wcxb-dev-gold.jsonl.xz"), "rt", encoding="utf-8") as lines:
        gold = [json.loads(line)["ground_truth"].get("main_content") or "" for line in lines][::10]
    frame = signals()(pages(gold)).kept
    c4 = C4QualityFilter(
        filter_no_terminal_punct=False, min_num_sentences=-1, filter_lorem_ipsum=False, filter_curly_bracket=False
    )
    for text, row in zip(gold, frame.iter_rows(named=True), strict=True):
        words = split_words(text)
        assert row["n_tokens"] == len(words)
        for n in TOP_N:
            grams = repetition.get_n_grams(words, n)
            assert row[f"top_{n}_gram_chars"] == (repetition.find_top_duplicate(grams) if grams else 0)
        for n, count in zip(DUP_N, map(partial(repetition.find_all_duplicate, words), DUP_N), strict=True):
            assert row[f"dup_{n}_gram_chars"] == count
        document = Document(text=text, id="")
        assert c4.filter(document) is True
        assert document.text == row["text"]
