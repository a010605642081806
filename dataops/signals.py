"""Every number that the quality rules need, in one tokenising pass: op "text.signals".

The pass counts on the text as it comes (for Gopher's rules), edits the lines as C4 does, and counts on what is left
(for FineWeb's rules; columns that end in `_clean`). It drops no row: whether a number is bad is for the rules in
`gristmill.dataops.quality` to say, so a threshold can change without touching the text again. The laws: the signals
of a page depend on that page alone; and n_chars less the `lost` of its ledger rows is n_chars_clean.

Counts are what datatrove 0.10.1's Gopher, C4 and FineWeb filters compute, except for word boundaries, which follow
`gristmill.dataops.text.words` instead of spaCy, and so for what is counted in words. Characters are code points.
Not covered: language, classifiers, toxicity; they are ops of their own.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.text.characters import ALPHA, CONTENT, TERMINAL, UNPUNCT
from gristmill.dataops.text.lines import LINE_REASONS, REASONS, Edit, edit_lines
from gristmill.dataops.text.repetition import (
    DUP_N,
    TOP_N,
    duplicate_spans,
    repeated_lines,
    repeated_ngrams,
    repeated_paragraphs,
)
from gristmill.dataops.text.words import Tokens, batches, hash_text, tokenize

#: Gopher's English stop words (Rae et al. 2021, A.1.1), compared as they are written.
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

#: The columns that the op adds.
SIGNALS: dict[str, pl.DataType] = {
    "n_chars": pl.UInt32(),
    "n_tokens": pl.UInt32(),  # words and punctuation
    "n_words": pl.UInt32(),  # tokens that are not all punctuation
    "n_word_chars": pl.UInt32(),
    "mean_word_length": pl.Float32(),  # null without words
    "n_alpha_words": pl.UInt32(),  # tokens with a letter
    "n_stop_words": pl.UInt32(),  # distinct ones
    "n_hashes": pl.UInt32(),
    "n_ellipses": pl.UInt32(),
    "n_lines": pl.UInt32(),  # str.splitlines
    "n_bullet_lines": pl.UInt32(),
    "n_ellipsis_lines": pl.UInt32(),
    "n_line_pieces": pl.UInt32(),  # between runs of newlines: what dup_lines is a part of
    "dup_lines": pl.UInt32(),
    "dup_line_chars": pl.UInt32(),
    "n_paragraphs": pl.UInt32(),  # between blank lines
    "dup_paragraphs": pl.UInt32(),
    "dup_paragraph_chars": pl.UInt32(),
    **{f"top_{n}_gram_chars": pl.UInt32() for n in TOP_N},
    **{f"dup_{n}_gram_chars": pl.UInt32() for n in DUP_N},
    "has_lorem_ipsum": pl.Boolean(),
    "has_curly_bracket": pl.Boolean(),
    "n_sentences": pl.UInt32(),  # in the lines that the edit keeps
    "n_chars_clean": pl.UInt32(),
    "n_tokens_clean": pl.UInt32(),
    "n_words_clean": pl.UInt32(),
    "n_newlines_clean": pl.UInt32(),
    "n_lines_clean": pl.UInt32(),  # not blank
    "punct_lines_clean": pl.UInt32(),  # end in terminal punctuation
    "short_lines_clean": pl.UInt32(),
    "dup_line_chars_clean": pl.UInt32(),
}


@op("text.signals", version=1)
def signals(
    rows: pl.DataFrame,
    *,
    remove_citations: bool = True,
    require_terminal_punctuation: bool = False,
    min_words_per_line: int | None = 3,
    max_word_length: int | None = 1000,
    drop_javascript: bool = True,
    drop_policy: bool = True,
    short_line_length: int = 30,
    stop_words: tuple[str, ...] = STOP_WORDS,
) -> Split:
    """Rows with a `text` column, with that text edited by C4's line rules and the columns of SIGNALS added.

    The defaults are FineWeb's: C4's rules without the one that lines must end in . ? ! " or '. A line is dropped when
    one of its space-separated words is longer than `max_word_length` characters, when it has fewer than
    `min_words_per_line` of them, when it says "javascript" or names a policy; None disables a number. Lines of at
    most `short_line_length` characters count as short. A sentence ends at a token of one terminal punctuation mark
    that a word follows on the same line, and with the line. A null text counts as an empty one.

    The ledger has a row per page and reason with the characters lost (unit "chars") and how many lines or citations
    they were. A page that loses all its lines stays, with an empty text.
    """
    stop_hashes = [hash_text(word) for word in stop_words]
    texts, columns, lost, cuts = [], [], [], []
    for batch in batches(rows["text"]):
        tokens = tokenize(batch)
        edited = edit_lines(
            tokens,
            remove_citations=remove_citations,
            require_terminal_punctuation=require_terminal_punctuation,
            min_words_per_line=min_words_per_line,
            max_word_length=max_word_length,
            drop_javascript=drop_javascript,
            drop_policy=drop_policy,
        )
        counts = _counts(tokens, edited, stop_hashes) | _counts_clean(tokens, edited, short_line_length)
        texts.append(edited.text)
        columns.append(counts)
        lost.append(edited.lost)
        cuts.append(edited.cuts)
    if not columns:
        return Split(rows.with_columns(pl.lit(None, kind).alias(name) for name, kind in SIGNALS.items()), ledger())
    table = pl.DataFrame({name: np.concatenate([part[name] for part in columns]) for name in SIGNALS})
    table = table.cast(pl.Schema(SIGNALS)).with_columns(pl.col("mean_word_length").fill_nan(None))
    kept = rows.with_columns(pl.concat(texts).alias("text"), *table)
    return Split(kept, _losses(rows, np.concatenate(lost), np.concatenate(cuts)))


def _losses(rows: pl.DataFrame, lost: np.ndarray, cuts: np.ndarray) -> pl.DataFrame:
    """A ledger row for every page and reason that took characters."""
    page, reason = np.nonzero(lost)
    names = rows.select(name for name in ("id", "row") if name in rows.columns)
    what = np.array([*["lines"] * len(LINE_REASONS), "citations", ""])
    facts = pl.DataFrame(
        {
            "reason": np.array(REASONS)[reason],
            "lost": lost[page, reason],
            "what": what[reason],
            "cuts": cuts[page, reason],
        }
    )
    evidence = pl.when(pl.col("what") != "").then(
        pl.concat_str(pl.lit('{"'), "what", pl.lit('": '), "cuts", pl.lit("}"))
    )
    return ledger(pl.concat([names[page], facts], how="horizontal"), unit="chars", evidence=evidence)


def _counts(tokens: Tokens, edit: Edit, stop_hashes: list[int]) -> dict[str, np.ndarray]:
    """The signals of the texts as they come."""
    n_chars = np.diff(tokens.doc_start) - 1
    length = tokens.end - tokens.start
    word = (tokens.kinds & CONTENT) != 0
    n_words = _count(word, tokens.doc_tokens)
    n_word_chars = _total(np.where(word, length, 0), tokens.doc_tokens)
    with np.errstate(invalid="ignore"):
        mean = n_word_chars / n_words
    stops = [_count(tokens.hash == np.uint64(value), tokens.doc_tokens) > 0 for value in stop_hashes]
    filled = edit.stop_token > edit.first_token
    first, last = edit.start[filled], edit.end[filled] - 1
    doc, n_docs = edit.doc[filled], len(n_chars)
    bullet = (tokens.shadow[first] == ord("-")) | (tokens.codes[first] == ord("•"))
    dots = (tokens.shadow[last] == ord(".")) & (tokens.shadow[last - 1] == ord("."))
    trailing = (dots & (tokens.shadow[last - 2] == ord("."))) | (tokens.codes[last] == ord("…"))
    pieces, dup_lines, dup_line_chars = repeated_lines(tokens)
    paragraphs, dup_paragraphs, dup_paragraph_chars = repeated_paragraphs(tokens)
    ngrams = repeated_ngrams(tokens)
    return {
        "n_chars": n_chars,
        "n_tokens": np.diff(tokens.doc_tokens),
        "n_words": n_words,
        "n_word_chars": n_word_chars,
        "mean_word_length": mean,
        "n_alpha_words": _count((tokens.kinds & ALPHA) != 0, tokens.doc_tokens),
        "n_stop_words": np.sum(stops, axis=0, dtype=np.int64) if stops else np.zeros(n_docs, np.int64),
        "n_hashes": _count(tokens.shadow == ord("#"), tokens.doc_start),
        "n_ellipses": _ellipses(tokens),
        "n_lines": np.diff(tokens.doc_lines),
        "n_bullet_lines": np.bincount(doc[bullet], minlength=n_docs),
        "n_ellipsis_lines": np.bincount(doc[trailing], minlength=n_docs),
        "n_line_pieces": pieces,
        "dup_lines": dup_lines,
        "dup_line_chars": dup_line_chars,
        "n_paragraphs": paragraphs,
        "dup_paragraphs": dup_paragraphs,
        "dup_paragraph_chars": dup_paragraph_chars,
        **{f"top_{n}_gram_chars": ngrams[n] for n in TOP_N},
        **{f"dup_{n}_gram_chars": ngrams[n] for n in DUP_N},
        "has_lorem_ipsum": edit.lorem_ipsum,
        "has_curly_bracket": edit.curly_bracket,
    }


def _counts_clean(tokens: Tokens, edit: Edit, short_line_length: int) -> dict[str, np.ndarray]:
    """The signals of the edited texts.

    Lines that are kept as they were keep their tokens. Where a citation was cut out of a line, words may have grown
    together, and those texts are tokenised again; so are those with blank lines, which the final strip may take.
    """
    n_docs = len(edit.regular)
    use = edit.kept & edit.regular[edit.doc]
    spans = edit.start[use], edit.end[use], edit.first_token[use], edit.stop_token[use], edit.doc[use]
    counts = _line_counts(tokens, *spans, n_docs, short_line_length)
    if not edit.regular.all():
        again = np.flatnonzero(~edit.regular)
        retold = tokenize(edit.text[again])
        end = np.flatnonzero(retold.shadow == ord("\n"))
        start = np.concatenate([np.zeros(1, np.int64), end + 1])[:-1]
        first, stop = np.searchsorted(retold.start, start), np.searchsorted(retold.start, end)
        filled = stop > first
        doc = np.searchsorted(retold.doc_start, start[filled], side="right") - 1
        spans = start[filled], end[filled], first[filled], stop[filled], doc
        for name, values in _line_counts(retold, *spans, len(again), short_line_length).items():
            counts[name][again] = values
    counts["n_sentences"] += np.bincount(edit.doc[edit.kept], minlength=n_docs)
    counts["n_chars_clean"] = edit.text.str.len_chars().to_numpy()
    counts["n_newlines_clean"] = edit.text.str.count_matches("\n", literal=True).to_numpy()
    return counts


def _line_counts(
    tokens: Tokens,
    start: np.ndarray,
    end: np.ndarray,
    first: np.ndarray,
    stop: np.ndarray,
    doc: np.ndarray,
    n_docs: int,
    short_line_length: int,
) -> dict[str, np.ndarray]:
    """FineWeb's counts over lines that are not blank, given as spans of code points and of tokens, ascending.

    n_sentences counts only the sentences that begin inside a line; each line begins one more.
    """
    words = np.concatenate([np.zeros(1, np.int64), np.cumsum((tokens.kinds & CONTENT) != 0)])

    def by_doc(values: np.ndarray) -> np.ndarray:
        return np.bincount(doc, weights=values, minlength=n_docs).astype(np.int64)

    _, dup_chars = duplicate_spans(tokens, start, end, doc)
    return {
        "n_sentences": np.bincount(doc[_later_sentences(tokens, first, stop)], minlength=n_docs),
        "n_tokens_clean": by_doc(stop - first),
        "n_words_clean": by_doc(words[stop] - words[first]),
        "n_lines_clean": np.bincount(doc, minlength=n_docs),
        "punct_lines_clean": by_doc((tokens.flags[end - 1] & TERMINAL) != 0),
        "short_lines_clean": by_doc(end - start <= short_line_length),
        "dup_line_chars_clean": dup_chars[:n_docs],
    }


def _later_sentences(tokens: Tokens, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """For each sentence that begins inside a line, the line: a word token after a mark, quotes and brackets between."""
    mark = (tokens.end - tokens.start == 1) & ((tokens.kinds & TERMINAL) != 0)
    telling = np.flatnonzero(mark | ((tokens.kinds & UNPUNCT) != 0))
    turn = np.flatnonzero(mark[telling[:-1]] & ~mark[telling[1:]])
    at, next_word = telling[turn], telling[turn + 1]
    line = np.searchsorted(first, at, side="right") - 1
    return line[(line >= 0) & (next_word < stop[line])] if len(stop) else line[:0]


def _ellipses(tokens: Tokens) -> np.ndarray:
    """str.count("...") and str.count("…"), int64[d]."""
    dots = np.flatnonzero(tokens.shadow == ord("."))
    heads = np.flatnonzero(np.diff(dots, prepend=-2) != 1)
    runs = np.diff(np.append(heads, len(dots)))
    doc = np.searchsorted(tokens.doc_start, dots[heads], side="right") - 1
    n_docs = len(tokens.doc_start) - 1
    three = np.bincount(doc, weights=runs // 3, minlength=n_docs).astype(np.int64)
    return three + _count(tokens.codes == ord("…"), tokens.doc_start)


def _count(mask: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """True values between consecutive bounds, int64[len(bounds) - 1]."""
    return np.diff(np.searchsorted(np.flatnonzero(mask), bounds))


def _total(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Sums of integers between consecutive bounds."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
    return sums[bounds[1:]] - sums[bounds[:-1]]
