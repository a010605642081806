"""How raters stand: how far they agree with each other, how often each is right, and what is odd about one.

Said of each kind of judgement by itself, and in numbers that a page or a terminal shows. The law: what cannot be known
is None with the reason: one rater agrees with nobody, and who judged without a name has no accuracy.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.preferences.raters import Agreement, Family, agreement, estimate, votes
from gristmill.dataops.preferences.trust import numbers

#: What is odd about a rater (`Estimate.raters`), in words.
FLAGS = {
    "few_votes": "few votes",
    "always_first": "always prefers the reply shown first",
    "always_second": "always prefers the reply shown second",
    "one_label": "nearly always says the same",
    "worse_than_chance": "worse than chance",
}
_RATERS = 3  # fewer, and nothing says who is right


def standing(judged: Dataset) -> dict[str, dict[str, Any]]:
    """By family of votes ("choice", "thumbs", "rating") that there is: `agreement`, as raters.Agreement, with `why_not`
    where its coefficients are None; `raters`, a list of {rater, votes, accuracy, first_share, top_share, flags};
    `caveats` about these. An accuracy is None with fewer than three raters. Build `latest` first."""
    told = numbers(judged)
    found = {}
    for family in get_args(Family):
        cast = votes(told, family)
        if not cast.height:
            continue
        agree = agreement(cast)
        raters: list[dict[str, Any]] = []
        caveats: tuple[str, ...] = ()
        if agree.raters:
            fitted = estimate(cast)
            raters, caveats = fitted.raters.to_dicts(), fitted.caveats
            if agree.raters < _RATERS:
                raters = [{**one, "accuracy": None} for one in raters]
        found[family] = {
            "agreement": asdict(agree) | {"why_not": _why_not(agree)},
            "raters": raters,
            "caveats": caveats,
        }
    return found


def _why_not(found: Agreement) -> str | None:
    """Why coefficients of agreement are missing; None where none is."""
    if not found.raters:
        return "no rater is named"
    if found.raters == 1:
        return "one rater"
    if not found.paired:
        return "no two raters judged the same"
    return "every vote is alike" if found.fleiss_kappa is None or found.krippendorff_alpha is None else None
