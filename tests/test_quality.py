"""The quality rules: datatrove's own filters, given our words, name the same reasons; limits mean what they say."""

from __future__ import annotations

import json
import lzma
import warnings
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from datatrove.data import Document
from datatrove.pipeline.filters import c4_filters, fineweb_quality_filter, gopher_quality_filter
from datatrove.pipeline.filters import gopher_repetition_filter as repetition_filter
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real
from test_signals import split_sentences, split_words

from gristmill.dataops.op import Op
from gristmill.dataops.quality import c4, fineweb, gopher, gopher_repetition, language_is
from gristmill.dataops.signals import signals

#: datatrove's reasons, by ours.
REASONS = {
    "quality.gopher_repetition": {
        "empty": "empty",
        "dup_paragraphs": "dup_para_frac",
        "dup_paragraph_chars": "dup_para_char_frac",
        "dup_lines": "dup_line_frac",
        "dup_line_chars": "dup_line_char_frac",
        **{f"top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
        **{f"dup_{n}_gram": f"duplicated_{n}_n_grams" for n in range(5, 11)},
    },
    "quality.gopher": {
        "too_short": "gopher_short_doc",
        "too_long": "gopher_long_doc",
        "short_words": "gopher_below_avg_threshold",
        "long_words": "gopher_above_avg_threshold",
        "too_many_hashes": "gopher_too_many_hashes",
        "too_many_ellipses": "gopher_too_many_ellipsis",
        "too_many_bullet_lines": "gopher_too_many_bullets",
        "too_many_ellipsis_lines": "gopher_too_many_end_ellipsis",
        "too_few_alpha_words": "gopher_below_alpha_threshold",
        "too_few_stop_words": "gopher_enough_stop_words",
    },
    "quality.c4": {name: name for name in ("lorem_ipsum", "curly_bracket", "too_few_sentences")},
    "quality.fineweb": {
        "empty": "empty",
        "too_few_punct_lines": "line_punct_ratio",
        "too_many_short_lines": "short_line_ratio",
        "dup_line_chars": "char_dup_ratio",
        "too_many_newlines": "list_ratio",
    },
}
RULES = (gopher_repetition, gopher, c4, fineweb)

MILL = (
    "The mill stands by the river that runs to the town, and its stones have to be fed with wheat of the last harvest. "
    "Those who live there have known this for all their days and would not be without the sound. "
)


@pytest.fixture(autouse=True, scope="module")
def our_words():
    """datatrove's filters split by our rules: its own need spaCy."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (repetition_filter, gopher_quality_filter, fineweb_quality_filter):
            patch.setattr(module, "split_into_words", split_words)
        patch.setattr(c4_filters, "split_into_sentences", split_sentences)
        yield


def reasons(op: Op, texts: list[str], **edit) -> list[str | None]:
    """The reason of each text, or None where it is kept."""
    ids = [b"%d" % i for i in range(len(texts))]
    rows = signals(**edit)(pl.DataFrame({"id": ids, "text": pl.Series(texts, dtype=pl.String)})).kept
    split = op(rows)
    found = dict(split.drops.select("id", "reason").rows())
    assert found.keys() == set(ids) - set(split.kept["id"])
    return [found.get(i) for i in ids]


def theirs(filter_, text: str) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mean of no words
        result = filter_.filter(Document(text=text, id=""))
    return None if result is True else result[1]


def renamed(op: Op, found: list[str | None]) -> list[str | None]:
    return [None if reason is None else REASONS[op.name][reason] for reason in found]


PIECES = [
    *(["the ", "of ", "and ", "word ", "another ", "thing "] * 3),
    *[
        "I am Frank, ",
        "#",
        "# ",
        "...",
        "… ",
        "• ",
        "- ",
        "{",
        "lorem ipsum ",
        "javascript ",
        "[1]",
        "!?",
        "a",
        "x" * 12,
    ],
    *["\n", "\n", "\n\n", ". ", ".\n", "A line that is there again.\n", "And a long one, which ends without a mark\n"],
]
texts = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
shares = st.sampled_from([None, 0.01, 0.1, 0.3, 0.5, 0.67, 0.8])


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=4), shares)
def test_gopher_repetition_is_datatroves(batch, share):
    ours = gopher_repetition(max_dup_lines=share, max_dup_paragraphs=share)
    filter_ = repetition_filter.GopherRepetitionFilter(dup_line_frac=share, dup_para_frac=share)
    assert renamed(ours, reasons(ours, batch)) == [theirs(filter_, text) for text in batch]


@settings(deadline=None)
@given(
    st.lists(texts.filter(str.strip), min_size=1, max_size=4),
    st.sampled_from([None, 1, 10]),
    st.sampled_from([None, 3, 5]),
    shares,
    shares,
)
def test_gopher_quality_is_datatroves(batch, least, length, high, low):
    ours = gopher(
        min_words=least,
        max_words=40,
        min_mean_word_length=length,
        max_hashes=high,
        max_ellipses=high,
        max_bullet_lines=high,
        max_ellipsis_lines=high,
        min_alpha_words=low,
        min_stop_words=least and 2,
    )
    filter_ = gopher_quality_filter.GopherQualityFilter(
        min_doc_words=least,
        max_doc_words=40,
        min_avg_word_length=length,
        max_symbol_word_ratio=high,
        max_bullet_lines_ratio=high,
        max_ellipsis_lines_ratio=high,
        max_non_alpha_words_ratio=low,
        min_stop_words=least and 2,
    )
    assert renamed(ours, reasons(ours, batch)) == [theirs(filter_, text) for text in batch]


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=4), st.booleans(), st.sampled_from([None, 1, 5]), st.booleans())
def test_c4_is_datatroves(batch, signs, least, terminal):
    ours = c4(drop_lorem_ipsum=signs, drop_curly_bracket=signs, min_sentences=least)
    filter_ = c4_filters.C4QualityFilter(
        filter_no_terminal_punct=terminal,
        filter_lorem_ipsum=signs,
        filter_curly_bracket=signs,
        min_num_sentences=-1 if least is None else least,
    )
    found = reasons(ours, batch, require_terminal_punctuation=terminal)
    for text, reason, other in zip(batch, found, (theirs(filter_, text) for text in batch), strict=True):
        both = "lorem ipsum" in text and "{" in text  # datatrove names the one that comes first
        assert reason == other or (both and {reason, other} == {"lorem_ipsum", "curly_bracket"})


@settings(deadline=None)
@given(st.lists(texts, min_size=1, max_size=4), st.sampled_from([0, 10, 30]), st.sampled_from([0.0, 0.01, 0.2]))
def test_fineweb_is_datatroves(batch, short, limit):
    ours = fineweb(max_dup_line_chars=limit, max_newlines=limit, min_punct_lines=limit)
    edit = c4_filters.C4QualityFilter(
        filter_no_terminal_punct=False, min_num_sentences=-1, filter_lorem_ipsum=False, filter_curly_bracket=False
    )
    filter_ = fineweb_quality_filter.FineWebQualityFilter(
        short_line_length=short, char_duplicates_ratio=limit, new_line_ratio=limit, line_punct_thr=limit
    )
    expected = []
    for text in batch:
        document = Document(text=text, id="")
        edit.filter(document)
        expected.append(theirs(filter_, document.text))
    assert renamed(ours, reasons(ours, batch, short_line_length=short)) == expected


def test_real_pages_go_for_datatroves_reasons():
    with lzma.open(real("html-gold/wcxb-dev-gold.jsonl.xz"), "rt", encoding="utf-8") as lines:
        gold = [json.loads(line)["ground_truth"].get("main_content") or "" for line in lines][::30]
    filters = (
        repetition_filter.GopherRepetitionFilter(),
        gopher_quality_filter.GopherQualityFilter(),
        c4_filters.C4QualityFilter(filter_no_terminal_punct=False),
    )
    for rule, filter_ in zip((gopher_repetition(), gopher(), c4()), filters, strict=True):
        found = renamed(rule, reasons(rule, gold))
        assert found == [theirs(filter_, text) for text in gold]
        assert 0 < sum(reason is not None for reason in found) < len(gold)
    edited = []
    for text in gold:
        document = Document(text=text, id="")
        if filters[2].filter(document) is True:
            edited.append((text, document.text))
    found = renamed(fineweb(), reasons(fineweb(), [text for text, _ in edited]))
    assert found == [theirs(fineweb_quality_filter.FineWebQualityFilter(), text) for _, text in edited]


GROOT = "I am groot.\n"
WIZARD = "You are a wizard.\n"
FATHER = "I am your father.\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (FATHER * 4, "dup_lines"),
        ((FATHER + "\n") * 4, "dup_paragraphs"),
        (f"{GROOT}\n{WIZARD}\n{FATHER}\n" + f"{'x' * 30}.\n\n" * 2, "dup_paragraph_chars"),
        (GROOT + WIZARD + FATHER + f"{'x' * 40}.\n" * 2, "dup_line_chars"),
        ("I am Frank, I am Frank, I am Frank", "top_2_gram"),
        ("I am Frank, you are Jhon. I am Frank. I am Frank you are Jhon", "top_3_gram"),
        ("I am a solo traveller " * 4 + MILL, "dup_5_gram"),
        (MILL, None),
    ],
)
def test_repetition_by_example(text, reason):
    assert reasons(gopher_repetition(), [text]) == [reason]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I am too small...", "too_short"),
        ("word " * 1001, "too_long"),
        ("I am " * 20, "short_words"),
        ("interconnection " * 20, "long_words"),
        ("# comment " * 20, "too_many_hashes"),
        ("... comment " * 20, "too_many_ellipses"),
        ("- the list of things to have\n" * 10, "too_many_bullet_lines"),
        ("and the list of things to have goes on and on and on...\n" * 10, "too_many_ellipsis_lines"),
        ("the ./!*?<><> apple <?////> orange  ++ interconnection !<>??? have" * 20, "too_few_alpha_words"),
        ("word " * 20, "too_few_stop_words"),
        (MILL, None),
    ],
)
def test_gopher_by_example(text, reason):
    assert reasons(gopher(min_words=10, max_words=1000), [text]) == [reason]


FIVE = [f"Sentence number {n} is long enough to stay." for n in ("one", "two", "three", "four", "five")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join(FIVE), None),
        (" ".join(FIVE), None),
        ("\n".join(FIVE[:4]), "too_few_sentences"),
        ("", "too_few_sentences"),
        ("\n".join([*FIVE, "Here is some Lorem Ipsum dolor sit."]), "lorem_ipsum"),
        ("\n".join([*FIVE, "Some code has a { bracket in it."]), "curly_bracket"),
        ("\n".join([*FIVE, "javascript: a { in a dropped line."]), None),
        ("\n".join([*FIVE, "lorem ipsum"]), None),
    ],
)
def test_c4_by_example(text, reason):
    assert reasons(c4(), [text]) == [reason]


@pytest.mark.parametrize(
    ("op", "text", "reason"),
    [
        (fineweb(), "", "empty"),
        (
            fineweb(min_punct_lines=0.5),
            "No punctuation is here\nAnother line has none\nStill no marks",
            "too_few_punct_lines",
        ),
        (fineweb(max_short_lines=0.5), "This is short.\nSo is this.\nAnd this is.", "too_many_short_lines"),
        (fineweb(), "\n".join([*FIVE, FIVE[0]]), "dup_line_chars"),
        (fineweb(max_newlines=0.05), "\n".join(FIVE), "too_many_newlines"),
        (fineweb(), "\n".join(FIVE), None),
    ],
)
def test_fineweb_by_example(op, text, reason):
    assert reasons(op, [text]) == [reason]


def test_language_by_code_and_score():
    rows = pl.DataFrame(
        {
            "id": [b"0", b"1", b"2", b"3"],
            "language": ["en", "fr", "en", None],
            "language_score": [0.9, 0.99, 0.5, None],
        },
        schema_overrides={"language_score": pl.Float32},
    )
    split = language_is()(rows)
    assert split.kept["id"].to_list() == [b"0", b"3"]
    found = split.drops.select("id", "reason", "threshold").rows()
    assert found == [(b"1", "other_language", 0.0), (b"2", "low_language_score", 0.65)]
    assert language_is(codes=("fr", "en"), min_score=None)(rows).kept.height == 4


@pytest.mark.parametrize("factory", RULES)
def test_none_disables_a_limit_and_nothing_else(factory):
    limits = [name for name, value in factory().params.items() if not isinstance(value, bool)]
    everything = factory().rules
    for name in limits:
        left = factory(**{name: None}).rules
        assert len(everything) - len(left) == 1
        assert list(left) == [reason for reason in everything if reason in left]


def test_a_limit_of_zero_means_zero():
    ellipsis = MILL + "..."
    assert reasons(gopher(min_words=1, max_ellipses=0), [ellipsis, MILL]) == ["too_many_ellipses", None]
    assert reasons(gopher_repetition(max_dup_lines=0), [GROOT + WIZARD + FATHER * 2 + MILL]) == ["dup_lines"]
    assert reasons(gopher(min_words=1, max_words=0), [MILL]) == ["too_long"]


@pytest.mark.parametrize("factory", RULES)
def test_an_empty_page_divides_nothing(factory):
    every = factory(**{name: None for name in factory().params if name.startswith("min_")})
    found = reasons(every, ["", " \n ", "#", "...", "\x00"])
    assert set(found) <= {None, *every.rules}


def test_the_ledger_says_what_was_measured():
    rows = signals()(pl.DataFrame({"id": [b"0"], "text": ["# comment " * 60]})).kept
    drop = gopher()(rows).drops.row(0, named=True)
    assert (drop["op"], drop["reason"], drop["value"], drop["threshold"]) == (
        "quality.gopher",
        "too_many_hashes",
        0.5,
        0.1,
    )


@pytest.mark.parametrize("factory", RULES)
def test_multiplying_decides_ties_as_dividing_does(factory):
    """At every default share, for counts up to 100,000 that make exactly that share."""
    for reason, rule in factory().rules.items():
        if rule.per is None:
            continue
        share = Fraction(str(rule.threshold))
        per = np.arange(share.denominator, 100_000, share.denominator)
        value = per * share.numerator // share.denominator
        fails = value < rule.threshold * per if rule.side == "below" else value > rule.threshold * per
        assert not fails.any(), reason
