"""Verifiers of form: JSON under a schema, a regular expression, tags, think-and-answer, length, citations.

They say nothing of what stands in the form: put them in front of a verifier that does (`gated`).

The laws: an empty response fails, and one of invisible characters alone; a broken schema, pattern or list of tags is
the data set's fault and leaves the row unjudged, as does a time-out; any response of a million characters is answered,
in time linear in its length but for `format.regex`, which is stopped. What a row may carry (`schema`, `pattern`,
`tags`) may be given for all rows as a parameter of that name instead; the row's own goes first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import regex

from gristmill.verifiers.instructions import citations, schemas, strictjson, texts
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier

__all__ = ["citations", "json_schema", "length", "pattern", "think", "xml"]

Row = Mapping[str, Any]

_NAME = re.compile(r"[A-Za-z_][\w.:-]*")
_ANSWER = ("think", "answer")


def _each(rows: Sequence[Row], column: str, common: Any, judge: Callable[[str, Any], Verdict]) -> list[Verdict]:
    """Judge every response by its row's own column, or by what is common to all."""
    verdicts = []
    for row in rows:
        own = row.get(column)
        asked = common if own is None else own
        if asked is None:
            verdicts.append(Verdict(None, f"no_{column}"))
        elif texts.blank(row["response"]):
            verdicts.append(Verdict(0.0, "empty"))
        else:
            try:
                verdicts.append(judge(row["response"], asked))
            except Exception as error:  # one row's schema must not take the others' verdicts
                verdicts.append(Verdict(None, "verifier_failed", {"error": f"{type(error).__name__}: {error}"[:500]}))
    return verdicts


@verifier("format.json", version=1)
def json_schema(
    rows: Sequence[Row],
    *,
    schema: Mapping[str, Any] | bool | str | None = None,
    fenced: bool = True,
    seconds_context: float = 1.0,
) -> list[Verdict]:
    """The response is one JSON text (RFC 8259) that a JSON Schema holds for; `schema=True` asks for JSON alone.

    The draft is the schema's own (`$schema`), else 2020-12; a reference to another document is never fetched; `format`
    is a remark and not checked, as the standard has it. With `fenced`, a Markdown fence around it is taken off. A
    schema may be JSON text. Fails: not_json (comments, single quotes, text around it), not_finite (NaN, 1e999),
    duplicate_key, number_too_long, too_deep, too_large, schema_violated with the first three places. Unjudged:
    no_schema, bad_schema, timed_out (patterns in the schema get `seconds_context` together).
    """

    def judge(response: str, asked: Any) -> Verdict:
        try:
            check = schemas.compiled(asked)
        except schemas.BadSchema as error:
            return Verdict(None, "bad_schema", {"error": str(error)[:200]})
        found = strictjson.read(strictjson.unfenced(response) if fenced else response)
        if found.problem is not None:
            evidence = {"attack": found.attack, "where": found.where}
            return Verdict(0.0, found.problem, {key: value for key, value in evidence.items() if value is not None})
        return schemas.verdict(check, found.value, seconds_context)

    return _each(rows, "schema", schema, judge)


@verifier("format.regex", version=1)
def pattern(rows: Sequence[Row], *, pattern: str | None = None, seconds_context: float = 1.0) -> list[Verdict]:
    """The whole response, white space around it included, matches a regular expression in Python's syntax.

    Flags stand in the pattern: `(?s)`, `(?i)`. Unjudged: no_pattern, bad_pattern, and timed_out where a match takes
    more than `seconds_context`, as patterns like `(a|aa)+b` let a response do: write them without nesting.
    """

    def judge(response: str, asked: Any) -> Verdict:
        try:
            matched = regex.fullmatch(asked, response, timeout=seconds_context) is not None
        except TimeoutError:
            return Verdict(None, "timed_out", {"seconds": seconds_context, "pattern": asked[:200]})
        except (regex.error, TypeError) as error:
            return Verdict(None, "bad_pattern", {"error": str(error)[:200]})
        return Verdict(float(matched), "matched" if matched else "not_matched")

    return _each(rows, "pattern", pattern, judge)


@dataclass(frozen=True)
class _Parts:
    """What stands inside the tags by name, and around them; or a problem with the tag that has it."""

    inside: Mapping[str, str]
    outside: str = ""
    problem: str | None = None
    tag: str | None = None


def _parts(text: str, names: Sequence[str]) -> _Parts:
    """Read tags that stand once each, in this order, closed, none in another, with something inside."""
    marks = list(re.finditer("<(/?)(" + "|".join(map(re.escape, names)) + ")>", text))
    told = [(mark[1] == "/", mark[2]) for mark in marks]
    if told == [(closing, name) for name in names for closing in (False, True)]:
        edges = [0, *itertools.chain.from_iterable(mark.span() for mark in marks), len(text)]
        spans = [text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2)]
        inside = {name: text[marks[2 * i].end() : marks[2 * i + 1].start()] for i, name in enumerate(names)}
        blank = next((name for name in names if texts.blank(inside[name])), None)
        # Every second span lies between a closing and an opening tag, the first and the last included.
        outside = "".join(spans[::2])
        return _Parts(inside, outside) if blank is None else _Parts(inside, outside, "empty_tag", blank)
    for name in names:
        opened, closed = told.count((False, name)), told.count((True, name))
        if opened == 0:
            return _Parts({}, problem="missing_tag", tag=name)
        if opened > 1 or closed > 1:
            return _Parts({}, problem="repeated_tag", tag=name)
        if closed == 0:
            return _Parts({}, problem="unclosed_tag", tag=name)
    return _Parts({}, problem="tag_order")


def _tagged(parts: _Parts, outside_allowed: bool) -> Verdict:
    if parts.problem is not None:
        evidence = {"tag": parts.tag} if parts.tag is not None else {}
        attack = {"attack": "repeated_tag"} if parts.problem == "repeated_tag" else {}
        return Verdict(0.0, parts.problem, {**evidence, **attack})
    if not outside_allowed and parts.outside.strip():
        return Verdict(0.0, "text_outside", {"text": parts.outside.strip()[:80]})
    return Verdict(1.0, "tags_hold", {"chars": {name: len(text) for name, text in parts.inside.items()}})


@verifier("format.xml", version=1)
def xml(rows: Sequence[Row], *, tags: Sequence[str] | None = None) -> list[Verdict]:
    """All `tags` stand once, in order, closed, one after the other, with something inside; text may stand around them.

    Tags bear no attributes and are told apart by case; other tags are text, and nothing is parsed or expanded as XML.
    Fails: missing_tag, repeated_tag, unclosed_tag, tag_order, empty_tag. Unjudged: no_tags, bad_tags.
    """

    def judge(response: str, asked: Any) -> Verdict:
        named = isinstance(asked, list | tuple) and asked and all(isinstance(name, str) for name in asked)
        if not named or len(set(asked)) < len(asked) or not all(map(_NAME.fullmatch, asked)):
            return Verdict(None, "bad_tags", {"tags": str(asked)[:200]})
        return _tagged(_parts(response, asked), outside_allowed=True)

    return _each(rows, "tags", tags, judge)


@verifier("format.think", version=1)
def think(prompt: str, response: str) -> Verdict:
    """<think>...</think><answer>...</answer>: each once, in order, with something inside and only white space outside.

    Where the prompt itself ends in "<think>", as chat templates of reasoning models do, the response begins inside it.
    Fails as `format.xml` does, and with text_outside.
    """
    if texts.blank(response):
        return Verdict(0.0, "empty")
    begun = prompt.rstrip().endswith("<think>") and not response.lstrip().startswith("<think>")
    return _tagged(_parts("<think>" + response if begun else response, _ANSWER), outside_allowed=False)


@verifier("format.length", version=1)
def length(
    prompt: str,
    response: str,
    *,
    unit: Literal["words", "chars", "tokens"] = "words",
    minimum: int | None = None,
    maximum: int | None = None,
) -> Verdict:
    r"""The length lies between `minimum` and `maximum`, both included; either may be None.

    Words are runs of `\w` as in IFEval; tokens stand between white space; chars are code points, white space around the
    text left out and any run inside counted as one, characters without width not at all. Fails: empty, too_short,
    too_long. Unjudged: bad_limits.
    """
    if unit not in _UNITS or (minimum is None and maximum is None):
        return Verdict(None, "bad_limits", {"unit": str(unit)[:80], "minimum": minimum, "maximum": maximum})
    if texts.blank(response):
        return Verdict(0.0, "empty")
    count = _UNITS[unit](texts.UNSEEN.sub("", response))
    evidence = {"unit": unit, "count": count}
    if minimum is not None and count < minimum:
        return Verdict(0.0, "too_short", evidence)
    if maximum is not None and count > maximum:
        return Verdict(0.0, "too_long", evidence)
    return Verdict(1.0, "in_limits", evidence)


_UNITS: Mapping[str, Callable[[str], int]] = {
    "words": texts.words,
    "chars": lambda text: len(" ".join(text.split())),
    "tokens": lambda text: len(text.split()),
}
