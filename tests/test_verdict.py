"""Verdicts: unjudged is None, and never drags a mean down."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.verifiers.verdict import Verdict, summarise


@pytest.mark.parametrize("score", [-0.1, 1.1, math.nan, math.inf])
def test_a_score_lies_between_wrong_and_right(score):
    with pytest.raises(ValueError, match="lies in"):
        Verdict(score, "x")


def test_a_verdict_has_a_reason_and_evidence_that_can_be_stored():
    with pytest.raises(ValueError, match="reason"):
        Verdict(None, "")
    with pytest.raises(ValueError, match="not JSON"):
        Verdict(1.0, "equal", {"got": object()})
    assert Verdict(1.0, "equal", {"got": [1, 2]}).judged and not Verdict(None, "time_out").judged


@given(st.lists(st.none() | st.floats(0, 1)))
def test_what_was_not_judged_does_not_count(scores):
    summary = summarise(Verdict(score, "unjudged" if score is None else "judged") for score in scores)
    judged = [score for score in scores if score is not None]
    assert (summary.rows, summary.unjudged) == (len(scores), len(scores) - len(judged))
    assert summary.mean == pytest.approx(sum(judged) / len(judged)) if judged else math.isnan(summary.mean)
    assert summary.reasons["unjudged"] == summary.unjudged
