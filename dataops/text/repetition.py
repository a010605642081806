"""How much of a text repeats (Gopher, Rae et al. 2021, table A1): lines, paragraphs and word n-grams, in characters.

Sorting does the work: equal pieces of a document stand side by side in the sorted hashes. A repeated n+1-gram starts
where a repeated n-gram does, so each length looks only where the length before it found something.

The counts are datatrove's: a duplicate is every occurrence after the first; the top n-gram is the most frequent one,
the earliest among equals, and counts its characters with single spaces as often as it occurs; duplicate n-grams are
found from left to right, one that repeats is skipped as a whole and what was skipped is not remembered; two of them
are equal where their characters are, wherever the spaces stand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.dataops.identity import mix64
from gristmill.dataops.text.words import BASE, Tokens, power_tables

TOP_N = (2, 3, 4)
DUP_N = (5, 6, 7, 8, 9, 10)


def repeated_lines(tokens: Tokens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the pieces between runs of newlines: how many, how many repeat, their characters; int64[d] each.

    A newline at the beginning or the end of a text leaves an empty piece there, as re.split does.
    """
    n_docs = len(tokens.doc_start) - 1
    end = np.flatnonzero(tokens.shadow == ord("\n"))
    start = np.concatenate([np.zeros(1, np.int64), end + 1])[: len(end)]
    filled = end > start
    start, end = start[filled], end[filled]
    doc = np.searchsorted(tokens.doc_start, start, side="right") - 1
    repeats, chars = duplicate_spans(tokens, start, end, doc)
    first, last = tokens.doc_start[:-1], tokens.doc_start[1:] - 2
    empty = last < first
    leading = (tokens.shadow[first] == ord("\n")) & ~empty
    trailing = (tokens.shadow[last] == ord("\n")) & ~empty
    pieces = np.bincount(doc, minlength=n_docs) + leading + trailing
    return pieces, repeats + (leading & trailing), chars


def repeated_paragraphs(tokens: Tokens) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the pieces of a stripped text between two or more newlines: how many, repeats, their characters; int64[d]."""
    n_docs = len(tokens.doc_start) - 1
    filled = np.flatnonzero(np.diff(tokens.doc_tokens))
    first, last = tokens.start[tokens.doc_tokens[filled]], tokens.end[tokens.doc_tokens[filled + 1] - 1]
    newline = np.flatnonzero((tokens.shadow[1:] == ord("\n")) & (tokens.shadow[:-1] == ord("\n")))
    gap_start, gap_end = newline[_run_starts(newline)], newline[_run_ends(newline)] + 2
    home = np.searchsorted(first, gap_start, side="right") - 1
    inside = (home >= 0) & (gap_end <= last[home]) if len(first) else np.zeros(len(home), dtype=bool)
    start = np.sort(np.concatenate([first, gap_end[inside]]))
    end = np.sort(np.concatenate([gap_start[inside], last]))
    doc = np.searchsorted(tokens.doc_start, start, side="right") - 1
    repeats, chars = duplicate_spans(tokens, start, end, doc)
    return np.maximum(np.bincount(doc, minlength=n_docs), 1), repeats, chars


def duplicate_spans(
    tokens: Tokens, start: np.ndarray, end: np.ndarray, doc: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Spans that occurred before in their document: how many and their characters, int64[d] each."""
    n_docs = len(tokens.doc_start) - 1
    keys = tokens.hashes(start, end) ^ _salts(n_docs)[doc]
    order = np.argsort(keys)
    keys = keys[order]
    again = order[1:][keys[1:] == keys[:-1]]
    count = np.bincount(doc[again], minlength=n_docs)
    return count, _sum_by(doc[again], (end - start)[again], n_docs)


def repeated_ngrams(tokens: Tokens) -> dict[int, np.ndarray]:
    """Characters in the top n-gram (n of TOP_N) and in duplicate n-grams (n of DUP_N), int64[d] by n."""
    n_docs, m = len(tokens.doc_start) - 1, len(tokens.start)
    doc = np.repeat(np.arange(n_docs), np.diff(tokens.doc_tokens))
    length = np.zeros(m + 1, dtype=np.int64)
    np.cumsum(tokens.end - tokens.start, out=length[1:])
    salts = _salts(n_docs)[doc]
    found: dict[int, np.ndarray] = {}

    # Word by word, with a salt in every word: an n-gram that runs into the next document equals no other.
    words = tokens.hash ^ salts
    key, places = words, np.arange(m)
    for n in range(2, TOP_N[-1] + 1):
        key = key[:-1] * np.uint64(BASE) + words[n - 1 :]
        groups = _Groups.of(key, places)
        found[n] = _top(groups, n, tokens.doc_tokens, doc, length)
        places = groups.ascending(m)

    # By characters alone: the polynomial of the tokens' joined text, times an odd salt per document.
    power, inverse = power_tables(len(tokens.codes))
    joined = np.zeros(m + 1, dtype=np.uint64)
    np.cumsum(tokens.polynomial * (salts | np.uint64(1)) * power[length[:-1]], out=joined[1:])
    unshift = inverse[length[:-1]]
    for n in DUP_N:
        key = (joined[n:] - joined[:-n]) * unshift[: max(0, m - n + 1)]
        ordered = np.sort(key)
        repeats = int(np.count_nonzero(ordered[1:] == ordered[:-1]))
        groups = _Groups.of(key, places)
        if groups.repeats != repeats:  # equal characters in unequal words: there are more than the shortcut found
            groups = _Groups.of(key, np.arange(len(key)))
        places = groups.ascending(m)
        hits = _skipping_hits(places, groups.numbers(m)[places], n)
        found[n] = _sum_by(doc[hits], length[hits + n] - length[hits], n_docs)
    return found


@dataclass(frozen=True)
class _Groups:
    """Places that share a key with others: group by group, ascending within each; head and size per group."""

    places: np.ndarray
    head: np.ndarray
    size: np.ndarray

    @staticmethod
    def of(key: np.ndarray, places: np.ndarray) -> _Groups:
        """Groups among ascending places; those beyond the last key have none."""
        places = places[: np.searchsorted(places, len(key))]
        order, ordered = _stable_sort(key[places])
        same = np.zeros(len(order) + 1, dtype=bool)
        same[1:-1] = ordered[1:] == ordered[:-1]
        shared = np.flatnonzero(same[:-1] | same[1:])
        head = np.flatnonzero(~same[shared])
        return _Groups(places[order[shared]], head, np.diff(head, append=len(shared)))

    @property
    def repeats(self) -> int:
        """Places whose key occurred before."""
        return len(self.places) - len(self.size)

    def ascending(self, m: int) -> np.ndarray:
        """All places in order, of m possible ones."""
        mask = np.zeros(m, dtype=bool)
        mask[self.places] = True
        return np.flatnonzero(mask)

    def numbers(self, m: int) -> np.ndarray:
        """The group of each place, int64[m]; only grouped places hold one."""
        number = np.empty(m, dtype=np.int64)
        number[self.places] = np.repeat(np.arange(len(self.size)), self.size)
        return number


def _stable_sort(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order, key[order]) of a stable sort, several times as fast: places ride in the low bits of what is sorted."""
    bits = np.uint64(len(key).bit_length())
    packed = (key >> bits << bits) | np.arange(len(key), dtype=np.uint64)
    packed.sort()
    order = (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    ordered = key[order]
    alike = (packed[1:] ^ packed[:-1]) >> bits == 0
    if np.any(alike & (ordered[1:] != ordered[:-1])):  # two keys differ in their low bits alone: rare, and no guess
        order = np.argsort(key, kind="stable")
        ordered = key[order]
    return order, ordered


def _top(groups: _Groups, n: int, doc_tokens: np.ndarray, doc: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Characters of each document's most frequent n-gram, spaces and occurrences included."""
    first = groups.places[groups.head]
    home = doc[first]
    best = np.zeros(len(doc_tokens) - 1, dtype=np.int64)
    np.maximum.at(best, home, groups.size)
    # A document without a repeat has its first n-gram on top, once.
    where = np.where(best == 0, doc_tokens[:-1], len(doc))
    top = groups.size == best[home]
    np.minimum.at(where, home[top], first[top])
    enough = np.diff(doc_tokens) >= n
    where = np.where(enough, where, 0)
    chars = length[np.minimum(where + n, len(doc))] - length[where] + n - 1
    return np.where(enough, np.maximum(best, 1) * chars, 0)


def _skipping_hits(places: np.ndarray, group: np.ndarray, n: int) -> np.ndarray:
    """Places that repeat an earlier place, read from left to right, where a repeat skips the n tokens it covers.

    What was skipped decides what comes after it, so this is a loop; over the repeated places alone.
    """
    seen = bytearray(int(group.max(initial=-1)) + 1)
    hits: list[int] = []
    free = 0
    for place, number in zip(places.tolist(), group.tolist(), strict=True):
        if place < free:
            continue
        if seen[number]:
            hits.append(place)
            free = place + n
        else:
            seen[number] = 1
    return np.array(hits, dtype=np.int64)


def _salts(n_docs: int) -> np.ndarray:
    return mix64(np.arange(1, n_docs + 1, dtype=np.uint64))


def _sum_by(doc: np.ndarray, amount: np.ndarray, n_docs: int) -> np.ndarray:
    """Sums per document; exact, as bincount's doubles hold integers to 2**53."""
    return np.bincount(doc, weights=amount, minlength=n_docs).astype(np.int64)


def _run_starts(at: np.ndarray) -> np.ndarray:
    """Which of the ascending positions begin a run of neighbours, bool."""
    return np.diff(at, prepend=-2) != 1


def _run_ends(at: np.ndarray) -> np.ndarray:
    return np.diff(at, append=at[-1] + 2 if len(at) else 0) != 1
