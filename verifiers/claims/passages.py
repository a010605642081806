"""Claims against the sentences of passages.

A claim is supported where a passage's sentence says it: its words, in its order, are the beginning of the sentence (up
to a clause's end or a preposition), or the sentence's leading name followed by one of its later clauses ("Ada, born in
London, wrote notes" says "Ada wrote notes"), with the same polarity. It is contradicted where a whole sentence says the
same but for a negation, one number, or one name where only one can be right: "the R is N", "N is the R", or after a
functional relation.

The law kept here: rather nothing than wrong. A subset of words is not enough (words of "330 m tall and 120 m wide" also
make "330 m wide"), and a qualifier or a negation outside what matched tells nothing. So most paraphrases are unknown:
not covered are synonyms, active and passive, pronouns, what follows only from two sentences, and a phrase at the end of
the sentence that limits it ("Ada died in the novel" says "Ada died").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from gristmill.verifiers.claims.text import PRONOUNS, QUALIFIERS, Statement, Token, sentences, statement, words
from gristmill.verifiers.claims.triples import Finding, Key

#: Statements by their first and by their last word: one of the two is the claim's, or nothing can be told.
Passages = Mapping[tuple[Literal["first", "last"], str], Sequence[Statement]]

_COPULAS = words("is was are were")
_MAY_FOLLOW = words(
    "in on at by for with from during after before since near and but when where who which because while"
)
_BREAKS_SUBJECT = words("who whose whom which that where when because although after before while to as than like")
_CONJUNCTIONS = words("and but")


def index(passages: Iterable[str]) -> Passages:
    """The statements of passages, without questions, double negations and those about an "it" or "she"."""
    made: dict[tuple[Literal["first", "last"], str], list[Statement]] = {}
    for sentence in (sentence for passage in passages for sentence in sentences(passage, lines=False)):
        item = statement(sentence)
        if not _unclear(item):
            made.setdefault(("first", item.tokens[0].form), []).append(item)
            made.setdefault(("last", item.tokens[-1].form), []).append(item)
    return made


def judge_sentence(claim: Statement, known: Passages, functional: Sequence[Key]) -> Finding:
    """Supported or contradicted by one of the sentences; unknown where none says so, or some say each."""
    if _unclear(claim):
        return "unknown"
    near = (*known.get(("first", claim.tokens[0].form), ()), *known.get(("last", claim.tokens[-1].form), ()))
    findings = {_judge(claim, item, functional) for item in near} - {"unknown"}
    return findings.pop() if len(findings) == 1 else "unknown"


def _unclear(item: Statement) -> bool:
    return item.question or len(item.negations) > 1 or len(item.tokens) < 2 or item.tokens[0].form in PRONOUNS


def _judge(claim: Statement, said: Statement, functional: Sequence[Key]) -> Finding:
    mine, theirs = claim.forms, said.forms
    if (QUALIFIERS & set(mine)) != (QUALIFIERS & set(theirs)):
        return "unknown"
    for start, head in _windows(claim, said):
        end = start + len(mine) - head
        inside = [at for at in said.negations if start < at < end or 0 < at < head]
        if len(inside) != len(said.negations):
            continue  # a negation elsewhere in the sentence: of what, is not known
        if bool(inside) == bool(claim.negations):
            if end == len(theirs) or said.tokens[end].clause or theirs[end] in _MAY_FOLLOW:
                return "supported"
        elif end == len(theirs):
            return "contradicted"
    if len(said.negations) == len(claim.negations) and _one_differs(claim.tokens, said.tokens, functional):
        return "contradicted"
    return "unknown"


def _windows(claim: Statement, said: Statement) -> Iterable[tuple[int, int]]:
    """(start, head): where the claim's words from `head` on stand in the sentence, its first `head` being the name."""
    mine, theirs = claim.forms, said.forms
    if theirs[: len(mine)] == mine:
        yield 0, 0
    head = next((n for n, token in enumerate(said.tokens) if token.kind != "name"), 0)
    if not head or mine[:head] != theirs[:head] or len(mine) == head:
        return
    for at in range(head + 1, len(theirs)):
        if theirs[at] in _BREAKS_SUBJECT:
            return
        starts = said.tokens[at].clause or theirs[at - 1] in _CONJUNCTIONS
        if starts and said.tokens[at].kind == "word" and theirs[at : at + len(mine) - head] == mine[head:]:
            yield at, head


def _one_differs(mine: Sequence[Token], theirs: Sequence[Token], functional: Sequence[Key]) -> bool:
    """Whether two token rows are the same but for one number, or one name that only one can be."""
    left = 0
    while left < min(len(mine), len(theirs)) and mine[left].form == theirs[left].form:
        left += 1
    right = 0
    while right < min(len(mine), len(theirs)) - left and mine[-1 - right].form == theirs[-1 - right].form:
        right += 1
    one, two = mine[left : len(mine) - right], theirs[left : len(theirs) - right]
    if not one or not two or left + right < 2:
        return False
    kinds = {token.kind for token in (*one, *two)}
    if kinds == {"number"}:
        return len(one) == len(two) == 1
    if kinds != {"name"}:
        return False
    if not right:
        before = tuple(token.form for token in mine[:left])
        ends = any(relation and before[-len(relation) :] == relation for relation in functional)
        return ends or (theirs[left - 1].form in _COPULAS and mine[0].definite and theirs[0].definite)
    if not left:
        link, described = theirs[len(two)], theirs[len(two) + 1 : len(two) + 2]
        mine_after = mine[len(one) + 1 : len(one) + 2]
        return link.form in _COPULAS and all(t.definite for t in (*described, *mine_after)) and bool(described)
    return False
