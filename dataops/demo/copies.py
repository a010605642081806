"""Planted duplicates: real pages copied exactly, or edited until their likeness to the original meets a target.

Likeness is the Jaccard similarity of word 5-grams. The law: what was met, not what was asked for, stands in the
facts, next to the text of the original, so that anyone can compute it again.

Not covered: copies of parts of a page, and copies whose words come in another order.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from gristmill.dataops.demo.captures import MIRROR, Capture, Page
from gristmill.dataops.demo.texts import SWAPS

LEVELS = (0.5, 0.6, 0.75, 0.85, 0.95)
PER_LEVEL = 4
ORIGINALS = len(LEVELS) * PER_LEVEL + 5


def word_ngrams(text: str, n: int = 5) -> set[tuple[str, ...]]:
    """Word n-grams, blind to case, diacritics, punctuation and which digit; a word is a run of letters and digits."""
    bare = "".join(char for char in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(char))
    words = re.findall(r"[^\W_]+", re.sub(r"\d", "0", bare))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a: str, b: str, n: int = 5) -> float:
    """Shared over all distinct word n-grams of two texts; 0 where neither has one."""
    left, right = word_ngrams(a, n), word_ngrams(b, n)
    return len(left & right) / max(1, len(left | right))


def _order(salt: str, n: int) -> list[int]:
    """A permutation of 0..n-1 that depends on the salt only."""
    return sorted(range(n), key=lambda i: hashlib.sha1(f"{salt}:{i}".encode()).digest())


def _swap_words(page: Page, count: int, salt: str) -> Page:
    """Another word in the place of `count` words of the paragraphs; punctuation after a word stays."""
    swaps = SWAPS.split()
    prose = [tag in ("p", "dd") for tag, _ in page.blocks]
    words = [text.split(" ") if is_prose else [text] for is_prose, (_, text) in zip(prose, page.blocks, strict=True)]
    places = [(block, i) for block, is_prose in enumerate(prose) if is_prose for i in range(len(words[block]))]
    for place in _order(salt, len(places))[:count]:
        block, i = places[place]
        bare = words[block][i].rstrip(".,:;!?)'\"")
        words[block][i] = swaps[place % len(swaps)] + words[block][i][len(bare) :]
    return replace(page, blocks=tuple((tag, " ".join(words[i])) for i, (tag, _) in enumerate(page.blocks)))


def _edit(page: Page, target: float, uri: str, *, cut: bool) -> Page:
    """The page at another address, with paragraphs cut (if asked for) and words swapped until Jaccard <= target."""
    edited = replace(page, uri=uri)
    while cut:
        last = max(i for i, (tag, _) in enumerate(edited.blocks) if tag in ("p", "dd"))
        shorter = replace(edited, blocks=edited.blocks[:last] + edited.blocks[last + 1 :])
        if jaccard(page.text, shorter.text) < (1 + target) / 2:
            break
        edited = shorter
    low, high = 0, len(page.text.split())
    while low < high:
        middle = (low + high) // 2
        if jaccard(page.text, _swap_words(edited, middle, uri).text) > target:
            low = middle + 1
        else:
            high = middle
    return _swap_words(edited, low, uri)


def near_duplicates(originals: Sequence[Page]) -> list[Capture]:
    """`PER_LEVEL` pages per level of `LEVELS`; every other one has paragraphs cut as well as words swapped."""
    captures = []
    for i, page in enumerate(originals):
        target = LEVELS[i % len(LEVELS)]
        edited = _edit(page, target, f"{MIRROR}/copies/{i:02d}.html", cut=i // len(LEVELS) % 2 == 1)
        met = {"target": target, "jaccard": jaccard(page.text, edited.text)}
        facts = {"original": page.uri, "original_text": page.text, **met}
        captures.append(Capture(edited, "near_duplicate", facts))
    return captures


def chain(page: Page) -> list[Capture]:
    """b is like the original and c is like b, but c is not like the original: a trap for connected components."""
    b = _edit(page, 0.75, f"{MIRROR}/chain/b.html", cut=False)
    c = _edit(b, 0.75, f"{MIRROR}/chain/c.html", cut=False)
    captures = []
    for name, copy, parent in (("b", b, page), ("c", c, b)):
        facts = {"link": name, "original": parent.uri, "original_text": parent.text, "first": page.uri}
        met = {"jaccard": jaccard(parent.text, copy.text), "jaccard_to_first": jaccard(page.text, copy.text)}
        captures.append(Capture(copy, "near_duplicate_chain", facts | met))
    return captures


def exact_duplicates(originals: Sequence[Page]) -> list[Capture]:
    """The same text in another layout, the same bytes at another address, and two later visits to one address."""
    captures = []
    for page, way in zip(originals, ("other_layout", "other_address", "same_address", "same_address"), strict=True):
        uri = {"other_layout": f"{MIRROR}/copies/same.html", "other_address": page.uri + "?utm_source=feed"}
        copy = replace(page, uri=uri.get(way, page.uri))
        facts = {"way": way, "original": page.uri, "original_text": page.text}
        captures.append(Capture(copy, "exact_duplicate", facts, days_late=20))
    return captures
