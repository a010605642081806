"""Judgements out of published preference sets: HH-RLHF, pairs of any column names, ratings as UltraFeedback has them,
and PandaLM's.

Each function takes a record and yields judgements, and a Fault for each one that cannot be read; what makes the whole
record useless it raises. The law: a verdict that is none ("garbage", an empty rating) becomes a judgement without a
value, and no number is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.preferences.judgements import judgement
from gristmill.dataops.preferences.turns import (
    Given,
    Row,
    asked,
    first,
    number,
    objects,
    replied,
    reply,
    shared,
    transcript,
)

Found = Iterator[dict[str, Any] | Fault]
_ANNOTATOR = re.compile(r"annotator_?\d+")
#: PandaLM: 1 and 2 name the better response, 0 a tie; GPT-3.5's verdicts are texts.
_VERDICTS = {"1": [1.0, 0.0], "2": [0.0, 1.0], "0": [0.0, 0.0], "tie": [0.0, 0.0]}


def hh_rlhf(row: Row, given: Given) -> Found:
    """`chosen` and `rejected`, transcripts that differ in their last reply (Bai et al. 2022)."""
    turns = [transcript(row.get(name), name) for name in ("chosen", "rejected")]
    halves = [replied(found, name) for found, name in zip(turns, ("chosen", "rejected"), strict=True)]
    yield judgement(shared([prompt for prompt, _ in halves]), [said for _, said in halves], "pairwise", [1, 0],
                    rater=given.rater)  # fmt: skip


def pairs(row: Row, given: Given) -> Found:
    """A prompt, `chosen` and `rejected`: texts, messages, or conversations that hold the prompt; as strength `margin`,
    or the difference of two scores."""
    halves = [replied(row.get(name), name) for name in ("chosen", "rejected")]
    before = [prompt for prompt, _ in halves]
    own = [
        name for name in ("prompt", "conversations", "messages", "instruction", "question", "query") if row.get(name)
    ]
    prompt = shared(before) if any(before) or not own else asked(row)
    if not prompt:
        raise Fault("missing_column", f"no prompt; there is {', '.join(map(str, row))}")
    scores = [
        first(row, f"score_{name}", f"{name}_score", f"{name}-rating", f"{name}_rating")
        for name in ("chosen", "rejected")
    ]
    strength = row.get("margin")
    if strength is None and None not in scores:
        strength = number(scores[0], "score") - number(scores[1], "score")
    strength = 1.0 if strength is None else number(strength, "margin")
    value = [strength, 0.0] if strength >= 0 else [0.0, -strength]
    yield judgement(prompt, [said for _, said in halves], "pairwise", value, rater=_rater(row, given))


def ratings(row: Row, given: Given) -> Found:
    """Scores of several replies. UltraFeedback's `completions`, each with `annotations` by aspect and `overall_score`;
    or `generations` (or `responses`) beside `ratings`, as distilabel writes them.

    An overall score of 10 whose aspects have a mean of 4 or less is "doubtful_score": 2,628 of UltraFeedback's first
    version were a 1 once (its README, "Update"); the aspects stay.
    """
    prompt = asked(row, ("instruction", "prompt", "question", "messages"))
    told = row.get("completions")
    if told is None:
        replies, scores = first(row, "generations", "responses"), row.get("ratings")
        if not isinstance(replies, list) or not isinstance(scores, list):
            raise Fault(
                "missing_column", f"neither completions nor generations with ratings; there is {', '.join(row)}"
            )
        said = [reply(text, f"response {n}") for n, text in enumerate(replies, 1)]
        yield judgement(prompt, said, "rating", [_score(value) for value in scores], rater=_rater(row, given))
        return
    told = objects(told, "completions")
    said = [reply(item.get("response"), f"response of completion {n}") for n, item in enumerate(told, 1)]
    by_aspect: dict[str, list[float | None]] = {}
    for at, item in enumerate(told):
        notes = item.get("annotations") or {}
        if not isinstance(notes, Mapping):
            raise Fault("wrong_type", f"annotations of completion {at + 1} is no object")
        for aspect, note in notes.items():
            score = _score(note.get("Rating", note.get("rating")) if isinstance(note, Mapping) else note)
            by_aspect.setdefault(aspect, [None] * len(told))[at] = score
    common = {"rater": _rater(row, given)}
    for aspect, scores in by_aspect.items():
        yield from _caught(prompt, said, scores, aspect=aspect, **common)
    overall = [_score(item.get("overall_score")) for item in told]
    for at, score in enumerate(overall):
        parts = [scores[at] for scores in by_aspect.values() if scores[at] is not None]
        if score == 10 and parts and sum(part for part in parts if part is not None) <= 4 * len(parts):
            yield Fault("doubtful_score", f"completion {at + 1} has 10 overall, and aspects {parts}")
            overall[at] = None
    if any(score is not None for score in overall) or not by_aspect:
        yield from _caught(prompt, said, overall, **common)


def pandalm(row: Row, given: Given) -> Found:
    """PandaLM's test set: `instruction`, `input`, `response1`, `response2` and a verdict by each annotator. A judge's
    file has verdicts alone (`<judge>_result`) and names its items by `idx`: read it together with the test set. Six
    replies of the test set are the JSON value true: they are read as the text "True"."""
    told = {name: row[name] for name in row if _ANNOTATOR.fullmatch(str(name)) or str(name).endswith("_result")}
    if not told:
        raise Fault("missing_column", f"no annotator1 and no verdict; there is {', '.join(map(str, row))}")
    idx = row.get("idx")
    item = row if "response1" in row else given.items.get(idx) if isinstance(idx, int | str) else None
    if item is None:
        raise Fault("unknown_item", f"idx {idx!r} is in none of the files: read the test set with them")
    said = [reply("True" if item.get(name) is True else item.get(name), name) for name in ("response1", "response2")]
    prompt = asked(item, ("instruction",))
    for name, verdict in told.items():
        value = _VERDICTS.get(str(verdict).strip().lower())
        rater = name.removesuffix("_result")
        yield judgement(prompt, said, "pairwise", value, rater=rater, given=f"pandalm {item.get('idx')}")


def _caught(prompt: Any, said: Any, scores: Any, **more: Any) -> Found:
    try:
        yield judgement(prompt, said, "rating", scores, **more)
    except Fault as fault:
        yield fault


def _rater(row: Row, given: Given) -> str | None:
    named = first(row, "rater", "annotator", "annotator_id", "user_id", "worker_id")
    return given.rater if named is None else str(named)


def _score(value: Any) -> float | None:
    """A rating; "N/A" and the like are none. Raises Fault for what is no rating at all."""
    if value is None or isinstance(value, str) and value.strip().lower() in ("", "n/a", "na", "none", "null"):
        return None
    return number(value, "a rating")
