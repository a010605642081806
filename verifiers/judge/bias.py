"""The bias report: what moves a pairwise judge besides which response is better.

    verdicts = pairwise(engine).rows(rows)
    print(table(report(rows, verdicts, slices=("topic",))))

Rows hold `prompt`, `response`, `against`; where there is a column `human` (1: `response` is better, 0: `against`,
0.5: a tie), each share stands beside people's own: that people prefer longer answers is no bias of the judge. With
`model` and `against_model` it says how a judge treats its own model's responses. Which seat was chosen is read from a
verdict's `orders`; a verdict of one order only (a judge from elsewhere) has `orders` with one entry.

The laws: rows that were not judged are counted and enter nothing else; equal seeds give equal reports. Not covered:
whether people are right.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.agreement.coefficients import cohen_kappa
from gristmill.verifiers.judge.constitution import Constitution, shipped
from gristmill.verifiers.judge.engine import Engine
from gristmill.verifiers.judge.pairs import compare
from gristmill.verifiers.judge.shares import Counted, Share, shares, slope
from gristmill.verifiers.verdict import Verdict

Row = Mapping[str, Any]

#: The shares of a report and of its slices, with what each says.
SHARES = {
    "agreement": "same verdict as people, ties counted as a verdict",
    "agreement_decided": "same verdict as people where both decide",
    "ties": "verdicts that are a tie",
    "human_ties": "  people's verdicts that are a tie",
    "first_seat": "answers that choose the first seat, of those that choose one (0.5: none favoured)",
    "flips": "pairs whose two orders contradict each other",
    "longer": "verdicts for the longer response, of those for one",
    "human_longer": "  people's, on the rows that people decide",
    "own": "verdicts for the judge's own model, of those for one",
    "human_own": "  people's, on the rows that people decide",
}


@dataclass(frozen=True)
class Bias:
    """`shares` by the names of SHARES; `kappa` with people (three verdicts; None without them); `padded` how often a
    copy with filler wins over its original; `slices` shares by column and value.

    `length_slope` is the log-odds of a preference per unit of tanh(difference in characters / root mean square), the
    form of AlpacaEval's length control (Dubois et al. 2024), with people's verdict held fixed where there is one.
    """

    rows: int
    judged: int
    reasons: Mapping[str, int]
    kappa: float | None
    shares: Mapping[str, Share]
    length_slope: Share
    padded: Share | None
    slices: Mapping[str, Mapping[str, Mapping[str, Share]]]

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def report(
    rows: Sequence[Row],
    verdicts: Sequence[Verdict],
    *,
    judge_model: str | None = None,
    slices: Sequence[str] = (),
    tie_within: float = 0.0,
    padded: Sequence[Verdict] | None = None,
    seed: int = 0,
    replicates: int = 1000,
) -> Bias:
    """Add up a pairwise judge's verdicts. A score within `tie_within` of 0.5 is a tie; `padded` are verdicts of the
    probe `padding`. Raises InputError for rows and verdicts of unequal number, a human verdict that is none of 0, 0.5
    and 1, or a column for slices that no row has."""
    if len(rows) != len(verdicts):
        raise InputError(
            f"{len(rows)} rows and {len(verdicts)} verdicts: the report wants one verdict per row, in order"
        )
    for name in slices:
        if not any(name in row for row in rows):
            raise InputError(f"no row has the column {name!r} that was asked for as a slice")
    table = _columns(rows, verdicts, judge_model, tie_within)
    counted = _counted(table)
    values = {name: sorted({str(row[name]) for row in rows if row.get(name) is not None}) for name in slices}
    within: dict[tuple[str, str, str], Counted] = {}
    for name, found in values.items():
        column = np.array([str(row.get(name)) for row in rows])
        for value in found:
            here = column == value
            within |= {(name, value, key): Counted(c.hits * here, c.tries * here) for key, c in counted.items()}
    flat = counted | {"\0".join(key): item for key, item in within.items()}
    told = shares(flat, seed=seed, replicates=replicates)
    return Bias(
        rows=len(rows),
        judged=int(table["judged"].sum()),
        reasons=dict(Counter(verdict.reason for verdict in verdicts).most_common()),
        kappa=_kappa(table),
        shares={key: told[key] for key in counted},
        length_slope=_length_slope(table, seed, replicates),
        padded=None if padded is None else _padded(padded, tie_within, seed, replicates),
        slices={
            name: {value: {key: told["\0".join((name, value, key))] for key in counted} for value in found}
            for name, found in values.items()
        },
    )


def padding(
    engine: Engine, rows: Sequence[Row], constitution: Constitution | None = None, by: str = "letters"
) -> list[Verdict]:
    """The probe for verbosity: the preference for a copy of each `response` with filler over the response itself."""
    matches = [(row["prompt"], with_filler(row["response"]), row["response"]) for row in rows]
    return compare(engine, constitution or shipped(), matches, by)


_BEFORE = "Thank you for this question. There is a lot to consider here, and it is worth taking a moment to do so."
_AFTER = (
    "I hope that this is of help. As said above, this is what can be stated on the matter at hand.",
    "Of course there are many ways to look at it, and each of them has its own merits.",
    "In conclusion, all things considered, the above sums it up.",
    "Please feel free to ask if anything else about this comes to mind.",
)


def with_filler(text: str) -> str:
    """The text among sentences that say nothing: longer by half or more."""
    after = list(_AFTER)
    while sum(map(len, after)) < len(text) / 2:
        after.extend(_AFTER)
    return f"{_BEFORE}\n\n{text}\n\n{' '.join(after)}"


def table(bias: Bias) -> str:
    """The report as plain text."""
    unjudged = bias.rows - bias.judged
    lines = [f"{bias.rows} pairs, {bias.judged} judged, {unjudged} not judged"]
    lines += [f"  {reason}: {n}" for reason, n in bias.reasons.items()]
    lines.append(f"kappa with people: {'-' if bias.kappa is None else format(bias.kappa, '.3f')}")
    lines.append(f"{'':<20} {'value':>6}  {'95 %':<15} {'n':>6}")
    lines += [_line(key, share, SHARES[key]) for key, share in bias.shares.items() if share.n]
    lines.append(_line("length_slope", bias.length_slope, "log-odds for the longer response (0: none)"))
    if bias.padded is not None:
        lines.append(_line("padded", bias.padded, "copies with filler that win over their original"))
    for name, values in bias.slices.items():
        for value, told in values.items():
            lines.append(f"{name} = {value}")
            lines += [_line(f"  {key}", share, "") for key, share in told.items() if share.n]
    return "\n".join(lines)


def _line(name: str, share: Share, says: str) -> str:
    value = "-" if share.value is None else f"{share.value:.3f}"
    ends = "" if share.low is None or share.high is None else f"{share.low:.3f} - {share.high:.3f}"
    return f"{name:<20} {value:>6}  {ends:<15} {share.n:>6}  {says}".rstrip()


def _columns(
    rows: Sequence[Row], verdicts: Sequence[Verdict], judge_model: str | None, tie_within: float
) -> dict[str, np.ndarray]:
    """Per row: judged; judge and human as 1, 0.5, 0 or NaN; the length difference; whose model; seats and flips."""
    scores = np.array([np.nan if v.score is None else v.score for v in verdicts], dtype=float)
    judge = np.where(np.isnan(scores), np.nan, np.where(np.abs(scores - 0.5) <= tie_within, 0.5, np.round(scores)))
    human = np.array([_human(row, n) for n, row in enumerate(rows)], dtype=float)
    own = np.zeros(len(rows))
    if judge_model is not None:
        own = np.array([(r.get("model") == judge_model) - float(r.get("against_model") == judge_model) for r in rows])
    seats = [_seats(verdict) for verdict in verdicts]
    return {
        "judged": ~np.isnan(scores),
        "score": scores,
        "judge": judge,
        "human": human,
        "length": np.array([_length(row, "response") - _length(row, "against") for row in rows], dtype=float),
        "own": own.astype(float),
        "first": np.array([sum(x > 0.5 for x in told) for told in seats], dtype=float),
        "second": np.array([sum(x < 0.5 for x in told) for told in seats], dtype=float),
        "both": np.array([len(told) == 2 for told in seats], dtype=bool),
        "flipped": np.array([len(told) == 2 and (told[0] - 0.5) * (told[1] - 0.5) > 0 for told in seats], dtype=bool),
    }


def _seats(verdict: Verdict) -> list[float]:
    """The preference for the first seat in each order that was asked."""
    orders = verdict.evidence.get("orders")
    if verdict.score is None or not orders:
        return []
    return [value if k == 0 else 1.0 - value for k, value in enumerate(orders)]


def _length(row: Row, column: str) -> int:
    """Characters; a row without a text there was not judged either."""
    found = row.get(column)
    return len(found) if isinstance(found, str) else 0


def _human(row: Row, n: int) -> float:
    found = row.get("human")
    if found is None:
        return np.nan
    if found not in (0, 0.5, 1):
        raise InputError(f"row {n}: human is {found!r}; 1 says that `response` is better, 0 `against`, 0.5 a tie")
    return float(found)


def _counted(t: Mapping[str, np.ndarray]) -> dict[str, Counted]:
    judge, human, judged = t["judge"], t["human"], t["judged"]
    both = judged & ~np.isnan(human)
    decided, human_decided = judged & (judge != 0.5), both & (human != 0.5)
    longer, own = np.sign(t["length"]), t["own"]
    sides = {
        "agreement": (judge == human, both),
        "agreement_decided": (judge == human, decided & human_decided),
        "ties": (judge == 0.5, judged),
        "human_ties": (human == 0.5, both),
        "longer": (np.sign(judge - 0.5) == longer, decided & (longer != 0)),
        "human_longer": (np.sign(human - 0.5) == longer, human_decided & (longer != 0)),
        "own": (np.sign(judge - 0.5) == own, decided & (own != 0)),
        "human_own": (np.sign(human - 0.5) == own, human_decided & (own != 0)),
        "flips": (t["flipped"], t["both"]),
    }
    found = {key: Counted(hits & tries, tries) for key, (hits, tries) in sides.items()}
    found["first_seat"] = Counted(t["first"], t["first"] + t["second"])
    return {key: found[key] for key in SHARES}


def _kappa(t: Mapping[str, np.ndarray]) -> float | None:
    both = t["judged"] & ~np.isnan(t["human"])
    if not both.any():
        return None
    found = cohen_kappa([[float(a), float(b)] for a, b in zip(t["judge"][both], t["human"][both], strict=True)])
    return None if np.isnan(found) else found


def _length_slope(t: Mapping[str, np.ndarray], seed: int, replicates: int) -> Share:
    human_known = ~np.isnan(t["human"])
    here = t["judged"] & human_known if human_known.any() else t["judged"]
    length = t["length"][here]
    scale = float(np.sqrt(np.mean(length**2))) if len(length) else 0.0
    if scale == 0.0:
        return Share(None, None, None, 0)
    features = [np.tanh(length / scale)]
    if human_known.any():
        features.append(2 * t["human"][here] - 1)
    return slope(np.column_stack(features), t["score"][here], seed=seed, replicates=replicates)


def _padded(verdicts: Sequence[Verdict], tie_within: float, seed: int, replicates: int) -> Share:
    scores = np.array([verdict.score for verdict in verdicts if verdict.score is not None], dtype=float)
    won = Counted(scores > 0.5 + tie_within, np.ones(len(scores)))
    return shares({"padded": won}, seed=seed, replicates=replicates)["padded"]
