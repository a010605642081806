"""What responses look like as texts: diversity, openers, lists and Markdown. Collapse shows here before in scores.

    distinct-n    different n-grams of words among all of them (Li et al. 2016)
    self-BLEU     how much of each response is in another one (Zhu et al. 2018)
    opener        the share of responses that begin with the commonest three words

The laws: the order of responses does not matter; an empty response has no words and no opener. Not covered: meaning
(paraphrases count as different), and corpora of unlike size: distinct-n falls as text grows, so compare equal tasks.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

OPENER = 3  # words
ORDERS = 4  # n-grams of self-BLEU, as in BLEU-4 (Papineni et al. 2002)
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_LIST = re.compile(r"(?m)^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S")
_MARKDOWN = re.compile(
    r"(?m)^#{1,6}[ \t]+\S|\*\*\S|^[ \t]*(?:```|~~~)|^[ \t]*>[ \t]|^[ \t]*\|.*\|[ \t]*$|\]\(\S+\)|`\S"
)


def words(text: str) -> list[str]:
    """Words and single signs, lower case."""
    return _WORD.findall(text.lower())


def distinct(texts: Sequence[list[str]], n: int) -> float | None:
    """Different n-grams by all n-grams; None where no text has n words."""
    grams = Counter(gram for text in texts for gram in _grams(text, n))
    total = grams.total()
    return len(grams) / total if total else None


def self_bleu(texts: Sequence[list[str]]) -> list[float | None]:
    """Of each text, BLEU-4 against all others, without a brevity penalty: the geometric mean over n of the share of its
    n-grams that are in another text, each counted at most as often as in the one other text that has it most. Texts of
    fewer than four words go by the orders that they have; None for an empty text, and for a single one.
    """
    logs: list[list[float]] = [[] for _ in texts]
    for n in range(1, ORDERS + 1):
        counted = [Counter(_grams(text, n)) for text in texts]
        most: dict[tuple[str, ...], tuple[int, int]] = {}  # the two highest counts in a text
        for counts in counted:
            for gram, count in counts.items():
                one, two = most.get(gram, (0, 0))
                most[gram] = (count, one) if count > one else (one, max(two, count))
        for place, counts in enumerate(counted):
            if counts:
                pairs = ((count, most[gram]) for gram, count in counts.items())
                found = sum(min(count, two if count == one else one) for count, (one, two) in pairs)
                logs[place].append(math.log(found / counts.total()) if found else -math.inf)
    if len(texts) < 2:
        return [None] * len(texts)
    return [math.exp(math.fsum(rates) / len(rates)) if rates else None for rates in logs]


def opener(texts: Sequence[list[str]]) -> tuple[str, np.ndarray]:
    """The commonest first three words (of equally common ones the first by spelling), and for each text that has words
    whether it begins so, bool."""
    heads = [" ".join(text[:OPENER]) for text in texts if text]
    if not heads:
        return "", np.zeros(0, dtype=bool)
    counted = Counter(heads)
    commonest = min(counted, key=lambda head: (-counted[head], head))
    return commonest, np.array([head == commonest for head in heads])


def has_list(text: str) -> bool:
    """Whether a line is an item of a list."""
    return _LIST.search(text) is not None


def has_markdown(text: str) -> bool:
    """Whether there is a list, a heading, bold text, code, a quotation, a table or a link in Markdown."""
    return has_list(text) or _MARKDOWN.search(text) is not None


def _grams(text: list[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(text[i:] for i in range(n)), strict=False))
