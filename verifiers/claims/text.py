"""Sentences and tokens of plain English text, with what decides a claim kept apart: numbers, names, negations.

The law kept here: two texts have the same tokens only where they say the same words: case, articles, punctuation,
contractions of "not" and the spelling of numbers and dates do not count, everything else does (no stemming, no
synonyms). Not covered: other languages than English, spelled-out numbers, pronouns and what they stand for.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal


def words(text: str) -> frozenset[str]:
    """The words of a list written as one string."""
    return frozenset(text.split())


_ABBREVIATIONS = words("mr mrs ms dr prof st vs e.g i.e jr sr inc ltd co no vol fig approx u.s u.k etc cf")
_ARTICLES = words("a an the")
#: Words that turn a statement round; others that touch its truth are among the QUALIFIERS.
_NEGATIONS = words("not never no")
#: Words that weaken, condition or ascribe a statement: where only one side has one, nothing is told.
QUALIFIERS = words(
    "if unless may might could would should perhaps possibly probably likely allegedly reportedly supposedly "
    "apparently claim claims claimed believe believes believed say says said think thinks thought deny denies denied "
    "false untrue myth wrong wrongly incorrect incorrectly almost nearly hardly barely some sometimes former formerly "
    "once fictional hypothetical rumor rumored rumoured according neither nor without nobody none nothing except only "
    "until"
)
#: Words that stand for something named elsewhere: a statement that opens with one says nothing by itself.
PRONOUNS = words(
    "it this that these those he she they we you i there here what who which one everyone everything someone "
    "something its his her their our my"
)
#: Other words that a sentence opens with in capitals without naming anything.
_OPENERS = words("in on at by when while after before since all many most each every")
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_MONTH = "|".join(_MONTHS)
_DATE = re.compile(
    rf"\b(?:(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<m>{_MONTH})|(?P<m2>{_MONTH})\s+(?P<d2>\d{{1,2}})(?:st|nd|rd|th)?)"
    r",?\s+(?P<y>\d{3,4})\b",
    re.IGNORECASE,
)
#: Numbers with their sign, an owner's 's, words, and signs that mean something ("C++" is not "C").
_TOKEN = re.compile(r"(?:(?<![^\s(])-)?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)|'s\b|\w+|[^\s\w.!?…'\"“”‘«»\[\]{}~-]")
_CLAUSE = frozenset(",;:()–—")
_END = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|(?<=[。！？])")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)]|#+|>)\s+")


@dataclass(frozen=True)
class Token:
    """`form` is normalised; `definite`: after "the"; `clause`: the first after a comma or the like."""

    form: str
    kind: Literal["word", "name", "number"]
    definite: bool
    clause: bool


@dataclass(frozen=True)
class Statement:
    """A sentence without its negations: `negations` is their number, `question` whether it asks."""

    text: str
    tokens: tuple[Token, ...]
    negations: tuple[int, ...]  # positions in `tokens` before which they stood
    question: bool

    @property
    def forms(self) -> tuple[str, ...]:
        return tuple(token.form for token in self.tokens)


def sentences(text: str, *, lines: bool) -> list[str]:
    """Sentences of plain text or Markdown; `lines`: every line break ends one, else only blank lines and bullets."""
    blocks: list[str] = []
    fresh = True
    for line in text.splitlines():
        bullet = _BULLET.match(line)
        bare = line[bullet.end() :] if bullet else line
        if not bare.strip():
            fresh = True
            continue
        if fresh or bullet or lines:
            blocks.append(bare.strip())
        else:
            blocks[-1] += " " + bare.strip()
        fresh = False
    return [sentence for block in blocks for sentence in _split(block)]


def _split(block: str) -> list[str]:
    made, start = [], 0
    for found in _END.finditer(block):
        last = (block[max(start, found.start() - 20) : found.start()].split() or [""])[-1]
        word = last.rstrip(".").casefold().lstrip("(\"'")
        initial = len(word) == 1 and word.isalpha() and word != "i"
        if last.endswith(".") and (word in _ABBREVIATIONS or initial):
            continue
        if block[found.end() : found.end() + 1].islower():
            continue
        made.append(block[start : found.end()].strip())
        start = found.end()
    return [part for part in (*made, block[start:].strip()) if any(c.isalnum() for c in part)]


def statement(sentence: str) -> Statement:
    """The tokens of a sentence and its polarity."""
    text = unicodedata.normalize("NFKC", sentence).replace("’", "'").replace("−", "-")
    text = text.replace("*", "").replace("`", "")
    text = re.sub(r"\bcan't\b|\bcannot\b", "can not", text, flags=re.IGNORECASE)
    text = re.sub(r"\bwon't\b", "will not", text, flags=re.IGNORECASE)
    text = _DATE.sub(_iso, re.sub(r"n't\b", " not", text, flags=re.IGNORECASE))
    tokens: list[Token] = []
    negations: list[int] = []
    definite = clause = False
    for found in _TOKEN.finditer(text):
        word, form = found[0], found[0].casefold()
        if word in _CLAUSE:
            clause = True
        elif form in _ARTICLES and not (word == "A" and tokens):  # "vitamin A" is no article
            definite = form == "the"
        elif form in _NEGATIONS:
            negations.append(len(tokens))
        else:
            tokens.append(_token(word, form, definite, clause and bool(tokens)))
            definite = clause = False
    return Statement(sentence, tuple(tokens), tuple(negations), text.rstrip().endswith("?"))


def _token(word: str, form: str, definite: bool, clause: bool) -> Token:
    if word.lstrip("-")[0].isdigit():
        plain = form.replace(",", "")
        if re.fullmatch(r"-?\d+(\.\d+)?", plain):
            whole, _, part = plain.lstrip("-").partition(".")
            digits = ".".join(filter(None, (whole.lstrip("0") or "0", part.rstrip("0"))))
            form = f"-{digits}" if plain[0] == "-" and digits != "0" else digits
        return Token(form, "number", definite, clause)
    named = word[0].isupper() and form not in PRONOUNS | _OPENERS
    return Token(form, "name" if named else "word", definite, clause)


def _iso(found: re.Match[str]) -> str:
    month = _MONTHS.index((found["m"] or found["m2"]).lower()) + 1
    return f"{int(found['y']):04d}-{month:02d}-{int(found['d'] or found['d2']):02d}"
