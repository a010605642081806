"""One tokenising pass over a batch of documents: tokens, lines and their hashes as arrays, no loop over documents.

All documents of a batch are laid end to end as code points, each followed by a newline, so that nothing runs from
one into the next. A token is a run of code points between two boundaries, and a boundary is a property of two
neighbours, so all of them are found at once. The law: what is said of a document depends on its text alone, not on
the batch it comes in, nor on its place there.

The rule, close to spaCy's English tokenizer, which the published quality thresholds were found with:

* Whitespace separates. Letters and digits run on; a mark or format character continues whatever it follows. Each
  letter of a script written without spaces (Han, Hiragana, Thai, Lao, Myanmar, Khmer) is a word.
* Symbols between two word characters join them ("o'clock", "AT&T", "3.14", "user@example.com", "std::vector"), except
  a period from lower to upper case ("end.Next" is three tokens), a comma between letters, one of `- – — ~ : < > = /`
  or two or three hyphens before a letter ("well-known" is three tokens, "COVID-19" one), one of `+ - * ^` between
  digits, and an ellipsis or a pictograph anywhere.
* `- / ~ @ | \\ ^ +` that touch a word on one side only belong to it ("@user", "--flag", "C++", "long- and"), but a plus
  sign not to a number before it nor to a letter after it.
* Any other symbol is a token of its own; a run of periods or of hyphens is one token.
* A contraction is cut before its ending: "it|'s", "we|'re", "do|n't". An initial keeps its period: "J.", "U.S.".

Spans are hashed by polynomials modulo 2**64 over prefix sums, then mixed. That tells texts apart that were not made
to collide; for text that was, compare the text.

Not covered: dictionaries (abbreviations such as "Mr." give two tokens), units stuck to numbers, whole URLs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from gristmill.dataops.identity import mix64, powers
from gristmill.dataops.text.characters import (
    ALPHA,
    BREAK,
    DIGIT,
    DROPPED,
    ICON,
    LOWER,
    MARK,
    RUN,
    SEPARATOR,
    SINGLE,
    SPACE,
    UPPER,
    WORD,
    characters,
)

BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(BASE, -1, 1 << 64)
#: UTF-8 bytes that are worked on at a time: the arrays over code points (about 30 bytes each) then stay in the cache.
BATCH_BYTES = 1 << 19

_SUMS, _PARTS, _DASHES, _EDGES = (np.array([*map(ord, s)]) for s in ("+-*^", ":<>=/–~", "-—", "-/~@|\\^+"))


@dataclass(frozen=True)
class Tokens:
    """A batch of d documents, n code points (one newline after each document), m tokens and l lines.

    Positions are into `codes`; document i has the code points doc_start[i] to doc_start[i + 1] - 2, the tokens
    doc_tokens[i] to doc_tokens[i + 1] - 1 and the lines doc_lines[i] to doc_lines[i + 1] - 1.
    """

    codes: np.ndarray  #: uint32[n]
    shadow: np.ndarray  #: uint8[n], see characters.py
    flags: np.ndarray  #: uint16[n], see characters.py
    doc_start: np.ndarray  #: int64[d + 1]
    start: np.ndarray  #: int64[m]
    end: np.ndarray  #: int64[m]
    kinds: np.ndarray  #: uint16[m], the flags of a token's characters, any of them
    doc_tokens: np.ndarray  #: int64[d + 1]
    line_start: np.ndarray  #: int64[l], lines of str.splitlines
    line_end: np.ndarray  #: int64[l], where the line break stands
    doc_lines: np.ndarray  #: int64[d + 1]
    prefix: np.ndarray  #: uint64[n + 1], prefix sums of (code point + 1) * BASE ** position

    @functools.cached_property
    def polynomial(self) -> np.ndarray:
        """The tokens' polynomials, uint64[m]."""
        return self.polynomials(self.start, self.end)

    @functools.cached_property
    def hash(self) -> np.ndarray:
        """The tokens' hashes, uint64[m]."""
        return mix64(self.polynomial)

    def polynomials(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """sum((code point + 1) * BASE ** (position - start)) of spans, uint64: 0 for an empty span."""
        return (self.prefix[end] - self.prefix[start]) * power_tables(len(self.codes))[1][start]

    def hashes(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Hashes of spans of code points, uint64; equal text, equal hash, in any batch."""
        return mix64(self.polynomials(start, end))


def tokenize(texts: pl.Series) -> Tokens:
    """Tokens and lines of a String series; nulls count as empty texts."""
    codes, doc_start = code_points(texts)
    table = characters()
    flags, shadow = table.flags[codes], table.shadow[codes]
    start, end = _runs((flags & SPACE) == 0, _joined(codes, flags, shadow))
    kinds = np.bitwise_or.reduceat(flags, start) if len(start) else np.empty(0, np.uint16)
    line_start, line_end = _lines(flags, shadow, doc_start)
    return Tokens(
        codes=codes,
        shadow=shadow,
        flags=flags,
        doc_start=doc_start,
        start=start,
        end=end,
        kinds=kinds,
        doc_tokens=np.searchsorted(start, doc_start),
        line_start=line_start,
        line_end=line_end,
        doc_lines=np.searchsorted(line_start, doc_start),
        prefix=_prefix_sums(codes),
    )


def fold_words(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The normalised words of a String series, as (doc_offsets int64[d + 1], hashes uint64[m]).

    The normalisation is that of datatrove's MinHash (`simplify_text`), one character at a time: lower case, every
    number "0", punctuation and symbols become spaces, diacritics vanish. It differs where one character would become
    several: Hangul syllables stay whole, and a number with many separators ("1,000,000", "192.168.0.1") is one "0"
    where datatrove pairs the groups. Format characters (soft hyphens, zero-width spaces) vanish too. Contractions and
    compounds fall apart at their punctuation ("don't" is "don", "t"), so a word needs none of the rules above.
    """
    counts, hashes = [np.zeros(1, np.int64)], [np.empty(0, np.uint64)]
    for batch in batches(texts):
        codes, doc_start = code_points(batch)
        table = characters()
        folded, flags = table.fold[codes], table.flags[codes]
        keep = folded != DROPPED
        number = _numbers(flags, table.shadow[codes])
        keep[1:] &= ~(number[1:] & number[:-1])
        folded[number] = ord("0")
        doc_start = doc_start - np.searchsorted(np.flatnonzero(~keep), doc_start)
        kept = np.flatnonzero(keep)  # indices are faster than the mask itself
        folded, flags = folded[kept], flags[kept]
        word = folded != SEPARATOR
        start, end = _runs(word, _continues(flags, word))
        prefix = _prefix_sums(folded)
        hashes.append(mix64((prefix[end] - prefix[start]) * power_tables(len(folded))[1][start]))
        counts.append(np.diff(np.searchsorted(start, doc_start)))
    return np.cumsum(np.concatenate(counts)), np.concatenate(hashes)


def batches(texts: pl.Series, limit: int = BATCH_BYTES) -> Iterator[pl.Series]:
    """Runs of documents of about `limit` UTF-8 bytes; a longer document is a batch of its own."""
    if not len(texts):
        return
    size = texts.str.len_bytes().fill_null(0).to_numpy().astype(np.int64)
    place = (np.cumsum(size) - size) // limit
    cuts = [0, *(np.flatnonzero(np.diff(place)) + 1).tolist(), len(texts)]
    for first, stop in zip(cuts[:-1], cuts[1:], strict=True):
        yield texts.slice(first, stop - first)


def code_points(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """All texts end to end, each followed by a newline: (uint32[n], where each document starts int64[d + 1])."""
    texts = texts.fill_null("")
    whole = (texts.str.join("\n").item() + "\n") if len(texts) else ""
    doc_start = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(texts.str.len_chars().to_numpy().astype(np.int64) + 1, out=doc_start[1:])
    return np.frombuffer(whole.encode("utf-32-le"), dtype="<u4"), doc_start


def hash_text(text: str) -> int:
    """The hash that a token or line of this text has."""
    codes, _ = code_points(pl.Series([text]))
    return int(mix64(_prefix_sums(codes)[-2:-1])[0])


def power_tables(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of BASE and of its inverse, at least n + 1 of each; one size serves all ordinary batches."""
    return _power_tables(max((2 * BATCH_BYTES).bit_length() - 1, n.bit_length()))


@functools.lru_cache(maxsize=1)
def _power_tables(bits: int) -> tuple[np.ndarray, np.ndarray]:
    return powers(BASE, (1 << bits) + 1), powers(_INVERSE, (1 << bits) + 1)


def _prefix_sums(codes: np.ndarray) -> np.ndarray:
    """uint64[n + 1]; one is added so that NUL counts."""
    prefix = np.zeros(len(codes) + 1, dtype=np.uint64)
    terms = np.add(codes, 1, dtype=np.uint64)
    terms *= power_tables(len(codes))[0][: len(codes)]
    np.cumsum(terms, out=prefix[1:])
    return prefix


def _runs(inside: np.ndarray, joined: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the runs in a mask; `joined[i]` says that i continues the run of i - 1."""
    first, last = inside & ~joined, inside.copy()
    last[:-1] &= ~joined[1:]
    return np.flatnonzero(first), np.flatnonzero(last) + 1


def _continues(flags: np.ndarray, word: np.ndarray) -> np.ndarray:
    """bool[n]: a word character after a word character, neither of them a word of its own."""
    joined = np.zeros(len(flags), dtype=bool)
    single, mark = (flags & SINGLE) != 0, (flags & MARK) != 0
    joined[1:] = word[1:] & word[:-1] & (mark[1:] | ~(single[1:] | single[:-1]))
    return joined


def _joined(codes: np.ndarray, flags: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """bool[n]: whether a code point belongs to the token of the one before it."""
    word = (flags & WORD) != 0
    links = _links(codes, flags, shadow, word)
    linked = word.copy()
    linked[links] = True
    joined = _continues(flags, linked)
    joined[1:] |= ((flags[1:] & MARK) != 0) & ((flags[:-1] & SPACE) == 0)
    joined[1:] |= (codes[1:] == codes[:-1]) & ((flags[1:] & RUN) != 0)
    joined[_initials(flags, shadow, word, linked)] = True
    joined[_contractions(codes, shadow, word, links)] = False
    return joined


def _links(codes: np.ndarray, flags: np.ndarray, shadow: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Positions of the symbols that belong to the word characters beside them, ascending."""
    # Position -1, before the first code point, is the newline after the last document: as good as any other.
    symbol = ~word & ((flags & SPACE) == 0)
    start, end = _runs(symbol, symbol & np.concatenate([[False], symbol[:-1]]))
    touching = np.flatnonzero(word[start - 1] | word[end])
    start, end = start[touching], end[touching]
    length, first = end - start, codes[start]
    before, after = flags[start - 1], flags[end]
    single = length == 1
    uniform = single | ((length <= 3) & (first == codes[end - 1]) & (first == codes[start + length // 2]))

    between = word[start - 1] & word[end]
    letter_before, letter_after = (before & ALPHA) != 0, (after & ALPHA) != 0
    digit_before, digit_after = (before & DIGIT) != 0, (after & DIGIT) != 0
    apart = single & (first == ord(".")) & ((before & LOWER) != 0) & ((after & UPPER) != 0)
    apart |= single & (first == ord(",")) & letter_before & letter_after
    apart |= single & np.isin(first, _SUMS) & digit_before & digit_after
    apart |= between & single & np.isin(first, _PARTS) & letter_after
    apart |= between & uniform & np.isin(first, _DASHES) & letter_after
    apart |= ~between & ~(uniform & np.isin(first, _EDGES))
    apart |= ~between & (first == ord("+")) & (digit_before | letter_after)

    run = np.repeat(np.arange(len(start)), length)
    at = np.arange(len(run)) + np.repeat(start - np.cumsum(length) + length, length)
    dots = (shadow[at] == ord(".")) & (shadow[at + 1] == ord("."))
    apart[run[dots | (codes[at] == ord("…")) | ((flags[at] & ICON) != 0)]] = True
    return at[~apart[run]]


def _initials(flags: np.ndarray, shadow: np.ndarray, word: np.ndarray, linked: np.ndarray) -> np.ndarray:
    """Positions of periods that belong to the lone letter before them: "J.", "U.S.", "e.g."."""
    at = np.flatnonzero(shadow == ord("."))
    at = at[~linked[at]]
    before = flags[at - 1]
    abbreviated = linked[at - 2] & (shadow[at - 2] == ord("."))
    lone = ~word[at - 2] & ((before & ALPHA) != 0) & (((before & UPPER) != 0) | abbreviated)
    return at[lone & (shadow[at + 1] != ord("."))]


def _contractions(codes: np.ndarray, shadow: np.ndarray, word: np.ndarray, links: np.ndarray) -> np.ndarray:
    """Positions where the ending of a contraction begins: 's 'm 'd 're 've 'll and n't."""
    at = links[(shadow[links] == ord("'")) | (codes[links] == ord("’"))]
    last = len(codes) - 1
    lower = [shadow[np.minimum(at + k, last)] | 0x20 for k in (-1, 1, 2)]
    one = ~word[np.minimum(at + 2, last)]
    two = ~one & ~word[np.minimum(at + 3, last)]
    pair = lower[1].astype(np.uint16) << 8 | lower[2]
    ending = one & np.isin(lower[1], np.frombuffer(b"smd", np.uint8))
    ending |= two & np.isin(pair, [ord(a) << 8 | ord(b) for a, b in ("re", "ve", "ll")])
    negated = one & (lower[1] == ord("t")) & (lower[0] == ord("n")) & word[at - 2]
    return np.concatenate([at[ending], at[negated] - 1])


def _numbers(flags: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """bool[n]: digits, and the decimal separators between two of them."""
    number = (flags & DIGIT) != 0
    at = np.flatnonzero((shadow == ord(".")) | (shadow == ord(",")))
    number[at[number[at - 1] & number[at + 1]]] = True
    return number


def _lines(flags: np.ndarray, shadow: np.ndarray, doc_start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines as str.splitlines gives them: no line after a final break, one break for "\\r\\n"."""
    end = np.flatnonzero((flags & BREAK) != 0)
    start = np.concatenate([np.zeros(1, np.int64), end + 1])[: len(end)]
    final = np.zeros(len(end), dtype=bool)
    final[np.searchsorted(end, doc_start[1:] - 1)] = True
    windows = (shadow[end] == ord("\n")) & (shadow[end - 1] == ord("\r"))
    real = (end > start) | ~(final | windows)
    return start[real], end[real]
