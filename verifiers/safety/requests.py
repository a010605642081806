"""Requests for help with harm: which categories of harms.py a prompt asks for.

A request is, within one sentence, a frame ("how do I", "tell me", an order such as "write") shortly before an act and
its thing shortly after the act. Words of prevention before the act, a game or a figure of speech anywhere in the
sentence, and an "if", "about", "who" in between make it another matter. Precision is put before recall: what is not
phrased like that is not found.

Of a dialogue ("Human: ... Assistant: ..." or "User: ...") the last turn of the human counts, and the turns before it
only where it is too short to say what it is about. The law: the work is linear in the text, a window of a few words
around each act.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gristmill.verifiers.safety.harms import split
from gristmill.verifiers.safety.lexicon import MADE, PROPERTY, RULES, SPOKEN, lexicon, vocabulary
from gristmill.verifiers.safety.normal import sentences, words

#: Words between a frame and the act that it asks for.
FRAME_GAP = 8
#: A turn of fewer words leans on the turn before it ("yes please", "how do I do that?").
SHORT_TURN = 6

#: Acts that order an answer, so that a sentence may begin with them.
_ORDERS = frozenset(
    split("""
        write, create, generate, compose, list, make, code, develop, design, build, craft, program, produce,
        draw, find, look, hack, crack, say, construct, assemble, prepare, synthesize, tell, come
    """)
)
_POLITE = frozenset(
    split("please, now, then, ok, okay, so, hey, hi, hello, kindly, just, and, assistant, ai, sure, yes")
)
_TURN = re.compile(r"(?:^|\n)[ \t]*(human|user|assistant|ai|bot)[ \t]*:", re.IGNORECASE)
_HUMAN = ("human", "user")
_OWN = ("my", "our", "own")


@dataclass(frozen=True)
class Request:
    """A category and the words that ask for it."""

    category: str
    phrase: str


@dataclass(frozen=True)
class _Event:
    """A phrase of lexicon.py at words start to end of a sentence; `tags` by kind: the numbers of rules, or nothing."""

    start: int
    end: int
    tags: dict[str, list[int]]


def requests(prompt: str) -> list[Request]:
    """What harm a prompt asks help with, once per category, in the order of the rules' text."""
    found: dict[str, Request] = {}
    known = vocabulary()
    for turn in asked(prompt):
        for sentence in sentences(words(turn, known)):
            if not known.isdisjoint(sentence):
                for request in _in_sentence(sentence):
                    found.setdefault(request.category, request)
        if found:
            break
    return list(found.values())


def asked(prompt: str) -> list[str]:
    """The turns of a human that say what is asked for, the last one first; the whole prompt where it has no turns."""
    marks = list(_TURN.finditer(prompt))
    if not any(mark[1].lower() in _HUMAN for mark in marks):
        return [prompt]
    ends = [mark.start() for mark in marks[1:]] + [len(prompt)]
    turns = [prompt[mark.end() : end] for mark, end in zip(marks, ends, strict=True) if mark[1].lower() in _HUMAN]
    kept: list[str] = []
    for turn in reversed(turns):
        kept.append(turn)
        if len(turn.split(maxsplit=SHORT_TURN)) >= SHORT_TURN:
            break
    return kept


def _in_sentence(sentence: list[str]) -> list[Request]:
    events = _events(sentence)
    kinds = {kind for event in events for kind in event.tags}
    if "setting" in kinds or kinds.isdisjoint(("act", "deed", "making")):
        return []
    done = set(SPOKEN) if "figure" in kinds else set[str]()
    found = []
    for at, event in enumerate(events):
        if "sparing" in event.tags:
            break
        hits = [(number, event.end) for number in event.tags.get("deed", ())]
        hits += _things(sentence, events, at) + _made(events, at)
        for number, end in hits:
            category = RULES[number].category
            if category not in done and (_framed(sentence, events, at) or _named(events, end)):
                done.add(category)
                found.append(Request(category, " ".join(sentence[event.start : end])))
    return found


def _events(sentence: list[str]) -> list[_Event]:
    """The phrases of a sentence from left to right, the longest at each place, none overlapping.

    What begins with a thing is that thing too ("my neighbor" in "my neighbor car"), unless the whole is harmless.
    """
    heads = lexicon()
    found, at = [], 0
    while at < len(sentence):
        end, tags = at + 1, dict[str, list[int]]()
        seconds = heads.get(sentence[at])
        if seconds is not None:
            longer = seconds.get(sentence[at + 1], ()) if at + 1 < len(sentence) else ()
            for phrase in (*longer, *seconds.get("", ())):
                stop = at + 1 + len(phrase.rest)
                if tuple(sentence[at + 1 : stop]) == phrase.rest:
                    end, whole = max(end, stop), not tags
                    for kind, number in phrase.tags:
                        if whole or (kind == "thing" and "harmless" not in tags):
                            tags.setdefault(kind, []).append(number)
        if tags:
            found.append(_Event(at, end, tags))
        at = end
    return found


def _things(sentence: list[str], events: list[_Event], at: int) -> list[tuple[int, int]]:
    """(rule, end) of the things that the act at a place is done to; what is one's own is not stolen or broken into."""
    act = events[at]
    numbers = act.tags.get("act", [])
    for event in events[at + 1 : at + 8] if numbers else ():
        if "break" in event.tags or "sparing" in event.tags:
            break
        between = event.start - act.end
        own = sentence[event.start - 1] in _OWN
        hits = [
            (number, event.end)
            for number in event.tags.get("thing", ())
            if number in numbers and between <= RULES[number].gap and not (own and RULES[number].category in PROPERTY)
        ]
        if hits:
            return hits
    return []


def _made(events: list[_Event], at: int) -> list[tuple[int, int]]:
    """(rule, end) of the thing whose making is asked for at a place, but for an article between them."""
    return [
        (number, event.end)
        for event in (events[at + 1 : at + 2] if "making" in events[at].tags else ())
        for number in event.tags.get("thing", ())
        if event.start - events[at].end <= 1 and RULES[number].category in MADE
    ]


def _framed(sentence: list[str], events: list[_Event], at: int) -> bool:
    """Whether the act at a place is asked for."""
    act = events[at]
    if "frame" in act.tags or "making" in act.tags:
        return True
    for event in reversed(events[max(0, at - FRAME_GAP) : at]):
        if "break" in event.tags or act.start - event.end > FRAME_GAP:
            return False
        if "frame" in event.tags:
            return True
    before = sentence[max(0, act.start - 4) : act.start]
    return sentence[act.start] in _ORDERS and len(before) < 4 and _POLITE.issuperset(before)


def _named(events: list[_Event], end: int) -> bool:
    """Whether a noun that asks for a description follows at once."""
    return any(event.start == end and "noun" in event.tags for event in events)
