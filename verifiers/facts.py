"""Facts: what a response claims, against a small knowledge base.

    facts()("Where is it?", "The Eiffel Tower is in Paris.", facts=["The Eiffel Tower is in Paris, France."])

The knowledge is the row's `facts`: rows of {subject, relation, object} (see claims/triples.py for aliases, functional
relations and negation), passages (strings), or both; and besides a file, `knowledge_context`: JSON lines of the same,
or a .txt of passages parted by blank lines, whose digest every verdict names. The claims are the row's `claims`
(strings or rows of {subject, relation, object, negated}), which the caller has taken out of the response, else the
response's sentences. Each is supported, contradicted or unknown; the same claim said twice counts once.

The law kept here: the score is supported / (supported + contradicted), and None where no claim can be told. It is
deterministic and rather silent than wrong: no model, no synonyms, no inference over two facts (claims/passages.py says
what is read). Not covered: whether the response says enough or answers the question, and claims it cannot tell: one
that has one supported claim and ten unknown ones scores 1, so gate on the share of `unknown` where that matters.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.claims import passages, triples
from gristmill.verifiers.claims.text import sentences, statement
from gristmill.verifiers.instructions.texts import says_something
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, verifier

#: Longest response that is read, in characters, and the longest sentence that is a claim, in words.
MAX_CHARS, MAX_WORDS = 100_000, 200
_SHOWN = 8  # claims in the evidence


@dataclass(frozen=True)
class Knowledge:
    """An indexed knowledge base; `digest` is the file's, None for a row's own facts."""

    triples: triples.Triples
    passages: passages.Passages
    digest: str | None = None


def _reference(row: Row) -> str | None:
    """The first of the row's facts that can be told, said plainly; None where the row brings its own claims."""
    if row.get("claims") is not None or row.get("facts") is None:
        return None
    try:
        rows = _rows(row["facts"])
    except ValueError:
        return None
    known = [_indexed(rows, (), None)]
    return next((text for item in rows for text in _said(item) if _judged(text, known, ())[2] == "supported"), None)


def _said(item: str | Mapping[str, Any]) -> list[str]:
    if isinstance(item, str):
        return sentences(item, lines=False)
    return [f"{item['subject']} {' '.join(triples.relation_key(item['relation']))} {item['object']}."]


@verifier("facts", version=1, reference=_reference)
def facts(
    prompt: str,
    response: str,
    facts: Any = None,
    claims: Any = None,
    *,
    functional: Sequence[str] = (),
    knowledge_context: str | Path | None = None,
) -> Verdict:
    """The share of supported claims among those that the knowledge can tell.

    `functional`: relations of which a subject has one object ("capital", "born in"), besides those whose rows say so.
    Raises InputError for a knowledge file that cannot be read.
    """
    relations = (functional,) if isinstance(functional, str) else tuple(functional)
    try:
        bases = [] if facts is None else [_indexed(_rows(facts), relations, None)]
        told = None if claims is None else _claims(claims)
    except ValueError as error:
        return Verdict(None, "bad_facts", {"problem": _cut(str(error))})
    if knowledge_context is not None:
        file = Path(knowledge_context)
        try:
            state = file.stat()
        except OSError as error:
            raise InputError(f"{file}: {error.strerror}; knowledge_context is a file of facts") from None
        bases.append(_from_file(str(file), state.st_mtime_ns, state.st_size, relations))
    if not bases:
        return Verdict(None, "no_knowledge")
    if not says_something(response):
        return Verdict(0.0, "empty_response")
    if len(response) > MAX_CHARS:
        return Verdict(0.0, "too_long", {"characters": len(response)})
    if told is None:
        told = sentences(response, lines=True)
    keys = tuple(triples.relation_key(relation) for relation in relations)
    found: dict[Any, tuple[str, str]] = {}
    for claim in told:
        key, text, finding = _judged(claim, bases, keys)
        found.setdefault(key, (text, finding))
    return _verdict(list(found.values()), next((base.digest for base in bases if base.digest), None))


def _verdict(found: Sequence[tuple[str, str]], digest: str | None) -> Verdict:
    counts = Counter(finding for _, finding in found)
    supported, contradicted = counts["supported"], counts["contradicted"]
    first = sorted(found, key=lambda item: ("contradicted", "supported", "unknown").index(item[1]))[:_SHOWN]
    evidence: dict[str, Any] = {
        "supported": supported,
        "contradicted": contradicted,
        "unknown": counts["unknown"],
        "claims": [{"claim": _cut(text), "finding": finding} for text, finding in first],
    }
    if digest is not None:
        evidence["knowledge"] = digest
    if not supported + contradicted:
        return Verdict(None, "unknown", evidence)
    reason = "supported" if not contradicted else "partly_supported" if supported else "contradicted"
    return Verdict(supported / (supported + contradicted), reason, evidence)


def _judged(claim: Any, bases: Sequence[Knowledge], functional: Sequence[triples.Key]) -> tuple[Any, str, str]:
    """(what makes it the same claim, its text, the finding)."""
    if isinstance(claim, str):
        said = statement(claim)
        read = bases if len(said.tokens) <= MAX_WORDS else ()
        findings = {triples.judge_sentence(said, base.triples) for base in read}
        findings |= {passages.judge_sentence(said, base.passages, functional) for base in read}
        key: Any = (said.forms, len(said.negations) % 2)
        text = claim
    else:
        findings = {triples.judge_row(claim, base.triples) for base in bases}
        text = f"{claim['subject']} | {claim['relation']} | {claim['object']}"
        key = (
            triples.name_key(claim["subject"]),
            triples.relation_key(claim["relation"]),
            triples.name_key(claim["object"]),
            bool(claim.get("negated")),
        )
    findings.discard("unknown")  # where knowledge speaks against itself, nothing is told
    return key, text, findings.pop() if len(findings) == 1 else "unknown"


def _rows(value: Any) -> list[str | Mapping[str, Any]]:
    """Facts as triples and passages. Raises ValueError for what is neither."""
    if isinstance(value, str) and value.lstrip()[:1] not in ("[", "{"):
        value = [value]
    items = _listed(value, "facts")
    made: list[str | Mapping[str, Any]] = []
    for n, item in enumerate(items):
        if isinstance(item, Mapping) and isinstance(item.get("text"), str):
            item = item["text"]
        if isinstance(item, str) and not sentences(item, lines=False):
            raise ValueError(f"fact {n} is an empty passage")
        if not isinstance(item, str):
            _check_triple(item, f"fact {n}")
        made.append(item)
    if not made:
        raise ValueError("there are no facts")
    return made


def _claims(value: Any) -> list[Any]:
    items = _listed(value, "claims")
    for n, item in enumerate(items):
        if not isinstance(item, str):
            _check_triple(item, f"claim {n}")
    return items


def _listed(value: Any, what: str) -> list[Any]:
    """The items of a list, one row, or the JSON text of them. Raises ValueError for anything else."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except RecursionError:
        raise ValueError(f"{what} are nested too deeply") from None
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(f"{what} are no list")
    return list(value)


def _check_triple(item: Any, what: str) -> None:
    parts = [item.get(part) for part in ("subject", "relation", "object")] if isinstance(item, Mapping) else [None]
    if not all(isinstance(part, str | int | float) and triples.name_key(part) for part in parts):
        raise ValueError(f"{what} is neither a string nor a row of subject, relation and object")


def _indexed(rows: Iterable[str | Mapping[str, Any]], functional: Sequence[str], digest: str | None) -> Knowledge:
    rows = list(rows)
    known = triples.index([row for row in rows if not isinstance(row, str)], functional)
    return Knowledge(known, passages.index(row for row in rows if isinstance(row, str)), digest)


@functools.lru_cache(maxsize=4)
def _from_file(path: str, changed_ns: int, size: int, functional: tuple[str, ...]) -> Knowledge:
    """The file's knowledge; its time and size are part of the key, so that a changed file is read again."""
    data = Path(path).read_bytes()
    try:
        text = data.decode("utf-8")
        if path.endswith(".txt"):
            rows = _rows([part for part in text.split("\n\n") if part.strip()])
        else:
            rows = _rows([json.loads(line) for line in text.splitlines() if line.strip()])
    except ValueError as error:
        raise InputError(f"{path}: {error}; give JSON lines of subject, relation, object or text") from None
    return _indexed(rows, functional, hashlib.sha256(data).hexdigest()[:12])


def _cut(text: str) -> str:
    return text[:200].encode("utf-8", "replace").decode()
