"""The published quality rules over the columns of "text.signals": Gopher, C4 and FineWeb, and the language rule.

Each rule op names the first of its reasons that applies, in the order of datatrove 0.10.1's filters, so that the
reasons agree. A limit of None disables its rule, and a limit of 0 means 0. Shares are compared by multiplication, so
an empty page divides nothing. Thresholds: Rae et al. 2021 (arXiv 2112.11446, A.1.1 and table A1), Raffel et al. 2020
(JMLR 21/140, 2.2), Penedo et al. 2024 (FineWeb, arXiv 2406.17557), with datatrove's defaults where the papers are
silent.

Where datatrove divides by zero (a page without words while its `min_words` is off) these rules keep the page unless
another rule speaks; a page with both lorem ipsum and a curly bracket is named for the former.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from gristmill.dataops.op import Rule, above, below, first_reason, keep


@keep("quality.language", version=1)
def language_is(*, codes: tuple[str, ...] = ("en",), min_score: float | None = 0.65) -> dict[str, Rule]:
    """Keep pages whose `language` is one of `codes` with a `language_score` of at least `min_score` (FineWeb: 0.65).

    Pages without a language (null) are kept: they were not judged.
    """
    other = (~pl.col("language").is_in(list(codes))).cast(pl.Int8)
    return _enabled(
        other_language=above(other, 0),
        low_language_score=_below("language_score", min_score),
    )


@keep("quality.gopher_repetition", version=1)
def gopher_repetition(
    *,
    max_dup_paragraphs: float | None = 0.3,
    max_dup_paragraph_chars: float | None = 0.2,
    max_dup_lines: float | None = 0.3,
    max_dup_line_chars: float | None = 0.2,
    max_top_2_gram: float | None = 0.2,
    max_top_3_gram: float | None = 0.18,
    max_top_4_gram: float | None = 0.16,
    max_dup_5_gram: float | None = 0.15,
    max_dup_6_gram: float | None = 0.14,
    max_dup_7_gram: float | None = 0.13,
    max_dup_8_gram: float | None = 0.12,
    max_dup_9_gram: float | None = 0.11,
    max_dup_10_gram: float | None = 0.1,
) -> dict[str, Rule]:
    """Gopher's repetition rules: shares of lines and paragraphs, else of the page's characters. No page is empty."""
    return _enabled(
        empty=below(pl.col("n_chars"), 1),
        dup_paragraphs=_above("dup_paragraphs", max_dup_paragraphs, "n_paragraphs"),
        dup_paragraph_chars=_above("dup_paragraph_chars", max_dup_paragraph_chars, "n_chars"),
        dup_lines=_above("dup_lines", max_dup_lines, "n_line_pieces"),
        dup_line_chars=_above("dup_line_chars", max_dup_line_chars, "n_chars"),
        top_2_gram=_above("top_2_gram_chars", max_top_2_gram, "n_chars"),
        top_3_gram=_above("top_3_gram_chars", max_top_3_gram, "n_chars"),
        top_4_gram=_above("top_4_gram_chars", max_top_4_gram, "n_chars"),
        dup_5_gram=_above("dup_5_gram_chars", max_dup_5_gram, "n_chars"),
        dup_6_gram=_above("dup_6_gram_chars", max_dup_6_gram, "n_chars"),
        dup_7_gram=_above("dup_7_gram_chars", max_dup_7_gram, "n_chars"),
        dup_8_gram=_above("dup_8_gram_chars", max_dup_8_gram, "n_chars"),
        dup_9_gram=_above("dup_9_gram_chars", max_dup_9_gram, "n_chars"),
        dup_10_gram=_above("dup_10_gram_chars", max_dup_10_gram, "n_chars"),
    )


@keep("quality.gopher", version=1)
def gopher(
    *,
    min_words: int | None = 50,
    max_words: int | None = 100_000,
    min_mean_word_length: float | None = 3,
    max_mean_word_length: float | None = 10,
    max_hashes: float | None = 0.1,
    max_ellipses: float | None = 0.1,
    max_bullet_lines: float | None = 0.9,
    max_ellipsis_lines: float | None = 0.3,
    min_alpha_words: float | None = 0.8,
    min_stop_words: int | None = 2,
) -> dict[str, Rule]:
    """Gopher's quality rules. Hashes, ellipses and words with letters are shares of all tokens, as in datatrove."""
    return _enabled(
        too_short=_below("n_words", min_words),
        too_long=_above("n_words", max_words),
        short_words=_below("n_word_chars", min_mean_word_length, "n_words"),
        long_words=_above("n_word_chars", max_mean_word_length, "n_words"),
        too_many_hashes=_above("n_hashes", max_hashes, "n_tokens"),
        too_many_ellipses=_above("n_ellipses", max_ellipses, "n_tokens"),
        too_many_bullet_lines=_above("n_bullet_lines", max_bullet_lines, "n_lines"),
        too_many_ellipsis_lines=_above("n_ellipsis_lines", max_ellipsis_lines, "n_lines"),
        too_few_alpha_words=_below("n_alpha_words", min_alpha_words, "n_tokens"),
        too_few_stop_words=_below("n_stop_words", min_stop_words),
    )


@keep("quality.c4", version=1)
def c4(
    *, drop_lorem_ipsum: bool = True, drop_curly_bracket: bool = True, min_sentences: int | None = 5
) -> dict[str, Rule]:
    """C4's page rules; its line rules are the edit in "text.signals". Sentences are counted in the lines it keeps."""
    return _enabled(
        lorem_ipsum=_above("has_lorem_ipsum", 0) if drop_lorem_ipsum else None,
        curly_bracket=_above("has_curly_bracket", 0) if drop_curly_bracket else None,
        too_few_sentences=_below("n_sentences", min_sentences),
    )


@keep("quality.fineweb", version=1)
def fineweb(
    *,
    min_punct_lines: float | None = 0.12,
    max_short_lines: float | None = 0.67,
    max_dup_line_chars: float | None = 0.01,
    max_newlines: float | None = 0.3,
) -> dict[str, Rule]:
    """FineWeb's own rules, on the edited text: lines that end in punctuation, short lines, repeats, newlines a word."""
    chars = pl.col("n_chars_clean").cast(pl.Int64) - pl.col("n_newlines_clean")
    repeats = pl.col("dup_line_chars_clean")
    return _enabled(
        empty=below(pl.col("n_lines_clean"), 1),
        too_few_punct_lines=_below("punct_lines_clean", min_punct_lines, "n_lines_clean"),
        too_many_short_lines=_above("short_lines_clean", max_short_lines, "n_lines_clean"),
        dup_line_chars=None if max_dup_line_chars is None else above(repeats, max_dup_line_chars, per=chars),
        too_many_newlines=_above("n_newlines_clean", max_newlines, "n_tokens_clean"),
    )


def _below(column: str, limit: float | None, per: str | None = None) -> Rule | None:
    """The rule that a column is at least a limit; None where the limit is None."""
    return None if limit is None else below(_number(column), limit, per=None if per is None else pl.col(per))


def _above(column: str, limit: float | None, per: str | None = None) -> Rule | None:
    return None if limit is None else above(_number(column), limit, per=None if per is None else pl.col(per))


def _number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Int8) if column.startswith("has_") else pl.col(column)


def _enabled(**rules: Rule | None) -> dict[str, Rule]:
    """`first_reason` of the rules that are on."""
    on: Mapping[str, Rule] = {name: rule for name, rule in rules.items() if rule is not None}
    return first_reason(**on)
