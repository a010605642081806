"""Answers that are toxic, by a classifier that `gristmill train-toxicity` made.

Only what the assistant says is judged, each turn by itself: a set that teaches how to answer insults has to hold them,
in the user's turns. The law: a row goes for its worst turn, with the score and which turn it is; a score depends on the
turn's text alone (see learned/score.py), so neither shards nor neighbours show. Not covered: harm in polite words.
"""

from __future__ import annotations

import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.learned.score import score_text, scores
from gristmill.dataops.op import Op, Split, ledger, op
from gristmill.dataops.sft.turns import answers

_COLUMN = "toxicity"


def harmful(model: Dataset, max_score: float) -> Op:
    """The op that drops conversations with an answer above `max_score`. Raises InputError for what is no classifier of
    texts alone, and for a score outside 0 to 1."""
    if not 0 <= max_score <= 1:
        raise InputError(f"toxicity {max_score} is outside 0 to 1: it is the highest chance of being toxic that stays")
    known = scores({_COLUMN: model})
    if model.manifest["ops"][-1]["params"].get("signals"):
        raise InputError(f"{model.name} was trained with signals of whole pages: train it without --signals for chats")
    folder = known.context["folders_context"][_COLUMN]
    return harmful_answers(model=model.digest, max_score=float(max_score), folder_context=folder)


@op("sft.harmful", version=1)
def harmful_answers(frame: pl.DataFrame, *, model: str, max_score: float, folder_context: str) -> Split:
    """Drop conversations as `toxic`: `value` is the chance of the worst turn, the evidence its number from 1."""
    said = answers(frame)
    judge = score_text(models={_COLUMN: model}, folders_context={_COLUMN: folder_context})
    judged = judge(said.rename({"content": "text"})).kept
    assert isinstance(judged, pl.DataFrame)
    above = judged.filter(pl.col(_COLUMN) > max_score).sort("row", _COLUMN, "at", descending=[False, True, False])
    worst = above.unique("row", keep="first", maintain_order=True)
    gone = frame.select("id")[worst["row"]].hstack(worst.select("at", _COLUMN))
    drops = ledger(
        gone,
        reason="toxic",
        value=pl.col(_COLUMN),
        threshold=max_score,
        evidence=pl.format("message {}", pl.col("at") + 1),
    )
    return Split(frame.filter(~pl.int_range(pl.len()).is_in(worst["row"].implode())), drops)
