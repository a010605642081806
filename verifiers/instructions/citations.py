"""The verifier "format.citations": what a response cites is there, and what it quotes stands there.

A citation is a number or a known id in square brackets, [1], [2, 3], [4-6], [doc7], or a quoted span, "..." or “...”
or „...“ or «...», of at least three words. `context` is what was given: one text (its ids are the [1] in it), a list of
texts (1, 2, ...), a mapping of ids to texts, or a list of {"id", "text"}.

The laws: every cited id exists, and its passage says something; every quoted span, short ones too, stands in the
context letter by letter after white space and quotation marks are made alike; a quote with a citation right behind it
stands in one of the passages cited. Punctuation at a quote's ends is left out, and "..." inside divides it into parts
that stand in this order. No citation at all fails. Not covered: whether the passage supports the claim (see `facts`),
and quotes in single marks. A bracketed year, or an index in code, reads as a citation; an inch mark as half a quote.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gristmill.verifiers.instructions import texts
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier

MAX_QUOTES = 1_000
MAX_RANGE = 1_000
#: A quote of fewer words must stand in the context, and is no citation by itself.
LEAST_WORDS = 3

_BRACKET = re.compile(r"\[([^\[\]\n]{1,80})\]")
_NUMBERED = re.compile(r"\^?[A-Za-z_.:-]{0,20}\d{1,9}[\w.:-]{0,20}")
_RANGE = re.compile(r"(\d{1,9})\s*[-\u2013]\s*(\d{1,9})")
_QUOTE = re.compile(
    '"([^"]*)"|\u201c([^\u201c\u201d]*)\u201d|\u201e([^\u201c\u201d\u201e]*)[\u201c\u201d]|\u00ab([^\u00ab\u00bb]*)\u00bb'
)
_MARKS = re.compile('["\u201c\u201d\u201e\u00ab\u00bb]')
_BEHIND = re.compile(r"[.,;:]?\s{0,2}((?:\[[^\[\]\n]{1,80}\]\s?){1,5})")
_CUT = re.compile(r"\[?(?:\.\.\.|\u2026)\]?")
_ENDS = " .,;:!?-\u2013\u2014"
_ALIKE = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u00ab": '"', "\u00bb": '"'}
)


@verifier("format.citations", version=1)
def citations(prompt: str, response: str, context: Any) -> Verdict:
    """1.0 ("cited") where all that is cited and quoted stands in the context; see the module.

    Fails: empty, no_citation, no_claim (nothing but citations), unknown_id, quote_not_found, quote_not_in_cited,
    unbalanced_quotes (a mark without its other half could hide a span), too_many_quotes. Unjudged: bad_context.
    """
    passages = _passages(context)
    if passages is None:
        return Verdict(None, "bad_context", {"found": type(context).__name__})
    if not texts.says_something(response):
        return Verdict(0.0, "empty")
    known, everything = passages
    cited = {name for inner in dict.fromkeys(_BRACKET.findall(response)) for name in _ids(inner, known)}
    unknown = sorted(cited - known.keys())
    if unknown:
        return Verdict(0.0, "unknown_id", {"ids": [name[:40] for name in unknown[:5]], "attack": "invented_citation"})
    quotes = list(_QUOTE.finditer(response))
    if len(quotes) > MAX_QUOTES:
        return Verdict(0.0, "too_many_quotes", {"quotes": len(quotes), "attack": "flood"})
    if _MARKS.search(_QUOTE.sub("", response)):
        return Verdict(0.0, "unbalanced_quotes")
    long = 0
    for match in quotes:
        parts = _CUT.split(next(part for part in match.groups() if part is not None))
        behind = _BEHIND.match(response, match.end())
        named = [name for inner in _BRACKET.findall(behind[1]) for name in _ids(inner, known)] if behind else []
        if not any(_stand(parts, passage) for passage in ([known[name] for name in named] or everything)):
            reason = "quote_not_in_cited" if named else "quote_not_found"
            return Verdict(0.0, reason, {"quote": match[0][:200], "attack": "invented_quote"})
        long += max(texts.words(part) for part in parts) >= LEAST_WORDS
    if not texts.says_something(_BRACKET.sub("", response)):
        return Verdict(0.0, "no_claim", {"attack": "citations_alone"})
    if not cited and not long:
        return Verdict(0.0, "no_citation", {"short_quotes": len(quotes)})
    return Verdict(1.0, "cited", {"ids": [name[:40] for name in sorted(cited)[:20]], "quotes": len(quotes)})


def _passages(context: Any) -> tuple[dict[str, str], list[str]] | None:
    """Passages by id and all of them, spelt alike; None where the context is none of the forms, or says nothing."""
    if isinstance(context, str):
        found = [name for inner in _BRACKET.findall(context) for name in _ids(inner, {})]
        passage = _alike(context)
        return (dict.fromkeys(found, passage), [passage]) if texts.says_something(passage) else None
    if isinstance(context, Mapping):
        pairs = [(str(name), text) for name, text in context.items()]
    elif isinstance(context, Sequence):
        pairs = [
            (str(item.get("id")), item.get("text")) if isinstance(item, Mapping) else (str(place), item)
            for place, item in enumerate(context, start=1)
        ]
    else:
        return None
    if not all(isinstance(text, str) for _, text in pairs) or len(dict(pairs)) < len(pairs):
        return None
    known = {name: _alike(text) for name, text in pairs if texts.says_something(text)}
    return (known, list(known.values())) if known else None


def _ids(inner: str, known: Mapping[str, str]) -> Iterator[str]:
    """The ids in one pair of brackets; none where it is no citation, as in [sic] or [the author]."""
    if inner.strip() in known:
        yield inner.strip()
        return
    parts = [part.strip() for part in re.split(r"[,;]", inner)]
    if not all(part in known or _NUMBERED.fullmatch(part) or _RANGE.fullmatch(part) for part in parts):
        return
    for part in parts:
        span = _RANGE.fullmatch(part)
        low, high = (int(span[1]), int(span[2])) if span is not None else (0, 0)
        if part in known or span is None:
            yield part if part in known else part.removeprefix("^")
        elif low <= high < low + (len(known) or MAX_RANGE):
            yield from map(str, range(low, high + 1))
        else:  # more than there are, or backwards: as a whole it is no known id
            yield part


def _alike(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).translate(_ALIKE).split())


def _stand(parts: Sequence[str], passage: str) -> bool:
    """Whether all parts of a quote stand in a passage, one behind the other."""
    place = 0
    for part in parts:
        wanted = _alike(part).strip(_ENDS)
        place = passage.find(wanted, place)
        if place < 0:
            return False
        place += len(wanted)
    return True
