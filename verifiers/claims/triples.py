"""Claims against rows of subject, relation, object.

A claim is a row itself, or a sentence in one of a few fixed forms around a known subject and one of its relations: "S R
O", "S is R O", "S's R is O", "R of S is O", "O is R of S", "O is S's R". Whatever stands where the object would is the
claimed object, so that a swapped subject and object is another claim and not the same bag of words.

The law kept here: another object contradicts only where the relation is functional (a subject has one object), and only
where the two can be told apart: a name against a name, or numbers that differ in the same words. One that contains the
other ("1879" and 1879-03-14, "Obama" and "Barack Obama") tells nothing. Not covered: inverse and chained relations, and
names that are the same without an alias that says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gristmill.verifiers.claims.text import QUALIFIERS, Statement, Token, statement, words

Finding = Literal["supported", "contradicted", "unknown"]
Key = tuple[str, ...]

_AUXILIARIES = words("is was are were has had have")
_PREPOSITIONS = words("of in by at for to from on with as")


@dataclass(frozen=True)
class Fact:
    """A row: normalised names, with the kinds of the object's tokens."""

    subject: Key
    relation: Key
    object: tuple[Token, ...]
    functional: bool
    negated: bool


@dataclass(frozen=True)
class Triples:
    """Rows by subject, and the names that stand for the same thing."""

    rows: Mapping[Key, Sequence[Fact]]
    names: Mapping[Key, frozenset[Key]]  # any name or alias -> the names it may stand for
    longest: int  # tokens of the longest name


def name_key(text: Any) -> Key:
    """A name without case, articles and punctuation."""
    return statement(str(text)).forms


def relation_key(text: Any) -> Key:
    """A relation's words: `birthPlace` and `birth_place` are "birth place"; a leading is/was/has does not count."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(text).replace("_", " "))
    key = statement(spaced).forms
    return key[1:] if len(key) > 1 and key[0] in _AUXILIARIES else key


def index(rows: Iterable[Mapping[str, Any]], functional: Iterable[str]) -> Triples:
    """Rows of `subject`, `relation`, `object`; `aliases` (the subject's), `object_aliases`, `functional`, `negated`.

    All but the first three may be missing. A relation is functional where one of its rows or `functional` says so.
    """
    rows = list(rows)
    declared = {relation_key(relation) for relation in functional}
    declared |= {relation_key(row["relation"]) for row in rows if row.get("functional")}
    by_subject: dict[Key, list[Fact]] = {}
    names: dict[Key, set[Key]] = {}
    for row in rows:
        relation = relation_key(row["relation"])
        fact = Fact(
            name_key(row["subject"]),
            relation,
            statement(str(row["object"])).tokens,
            relation in declared,
            bool(row.get("negated")),
        )
        by_subject.setdefault(fact.subject, []).append(fact)
        for name, aliases in ((fact.subject, row.get("aliases")), (_forms(fact.object), row.get("object_aliases"))):
            for alias in (name, *map(name_key, aliases or ())):
                names.setdefault(alias, set()).add(name)
    frozen = {name: frozenset(stands) for name, stands in names.items()}
    return Triples(by_subject, frozen, max(map(len, names), default=0))


def judge_row(claim: Mapping[str, Any], known: Triples) -> Finding:
    """A claim of `subject`, `relation`, `object` and optionally `negated`."""
    told = statement(str(claim["object"]))
    found = _found(name_key(claim["subject"]), relation_key(claim["relation"]), told.tokens, known, strict=False)
    return _turned(found, bool(claim.get("negated")))


def judge_sentence(claim: Statement, known: Triples) -> Finding:
    """A claim in words; unknown where it has none of the forms, asks, is qualified, or negates twice."""
    forms, findings = claim.forms, set()
    if claim.question or len(claim.negations) > 1 or QUALIFIERS & set(forms):
        return "unknown"
    for start in range(len(forms)):
        for end in range(start + 1, min(len(forms), start + known.longest) + 1):
            for name in known.names.get(forms[start:end], ()):
                for relation in {fact.relation for fact in known.rows.get(name, ())}:
                    place = _object(forms, start, end, relation)
                    if place is not None:
                        said = claim.tokens[place[0] : place[1]]
                        findings.add(_found(name, relation, said, known, strict=True))
    findings.discard("unknown")
    return _turned(findings.pop(), bool(claim.negations)) if len(findings) == 1 else "unknown"


def _object(forms: Key, start: int, end: int, relation: Key) -> tuple[int, int] | None:
    """Where the object stands, with the subject at start:end; None where the sentence has none of the forms."""
    before, after, size, n = forms[:start], forms[end:], len(relation), len(forms)
    takes_of = relation[-1] not in _PREPOSITIONS
    if not before:  # S [is] R [is] O; S's R is O
        owner = after[:1] == ("'s",)
        skip = 1 if owner or after[:1] and after[0] in _AUXILIARIES and after[:size] != relation else 0
        if after[skip : skip + size] != relation:
            return None
        at = end + skip + size
        linked = at < n and forms[at] in _AUXILIARIES
        if (owner and not linked) or (takes_of and forms[at : at + 1] == ("of",)):
            return None
        return (at + linked, n) if at + linked < n else None
    whole = (*relation, "of") if takes_of else relation
    if takes_of and before == whole and after[:1] and after[0] in _AUXILIARIES:  # R of S is O
        return (end + 1, n) if end + 1 < n else None
    if not after:
        link = len(before) - len(whole) - 1
        if takes_of and link > 0 and before[link + 1 :] == whole and before[link] in _AUXILIARIES:
            return 0, link  # O is R of S
        if not takes_of and before[:size] == relation and before[-1] in _AUXILIARIES and len(before) > size + 1:
            return size, len(before) - 1  # R O is S
    if after == ("'s", *relation) and len(before) > 1 and before[-1] in _AUXILIARIES:
        return 0, len(before) - 1  # O is S's R
    return None


def _found(subject: Key, relation: Key, said: tuple[Token, ...], known: Triples, strict: bool) -> Finding:
    """What the rows say of an object; `strict`: words of a sentence, of which only names and numbers contradict."""
    subjects = known.names.get(subject, frozenset((subject,)))
    rows = [fact for name in subjects for fact in known.rows.get(name, ()) if fact.relation == relation]
    same = {fact.negated for fact in rows if _same(_forms(said), _forms(fact.object), known)}
    if same:
        return "unknown" if len(same) > 1 else _turned("supported", same.pop())
    others = [fact for fact in rows if fact.functional and not fact.negated]
    if others and all(_differ(said, fact.object, strict) for fact in others):
        return "contradicted"
    return "unknown"


def _same(one: Key, two: Key, known: Triples) -> bool:
    return bool(known.names.get(one, frozenset((one,))) & known.names.get(two, frozenset((two,))))


def _differ(said: tuple[Token, ...], known: tuple[Token, ...], strict: bool) -> bool:
    """Whether two objects cannot be one thing."""
    one, two = set(_forms(said)), set(_forms(known))
    if not one or one <= two or two <= one:
        return False
    numbers = [[t.form for t in tokens if t.kind == "number"] for tokens in (said, known)]
    if any(numbers):
        others = [[t.form for t in tokens if t.kind != "number"] for tokens in (said, known)]
        return numbers[0] != numbers[1] and others[0] == others[1]
    return not strict or all(token.kind == "name" for token in said)


def _forms(tokens: Sequence[Token]) -> Key:
    return tuple(token.form for token in tokens)


def _turned(found: Finding, negated: bool) -> Finding:
    turned: dict[Finding, Finding] = {"supported": "contradicted", "contradicted": "supported", "unknown": "unknown"}
    return turned[found] if negated else found
