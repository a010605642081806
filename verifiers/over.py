"""Verifiers over datasets: the op "verify", which adds a verdict to every row.

The law: every row stays, in order, with its verdict; one that could not be judged has a null score and its reason, and
nothing downstream may take it for a 0. The verifier's name, version and parameters are the op's identity, so another
version of a verifier makes another dataset. Verifiers that ask an engine are not reproducible, and are run by whoever
holds the engine.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from gristmill.dataops.dataset import InputError
from gristmill.dataops.op import Op, op
from gristmill.verifiers.probes import probed
from gristmill.verifiers.verifier import Verifier

#: The column that is added: evidence is JSON.
VERDICT = pl.Struct({"score": pl.Float64, "reason": pl.String, "evidence": pl.String})


def verify(verifier: Verifier, *, column: str = "verdict", response: str = "response") -> Op:
    """The op that adds `column`, a struct as in VERDICT, to rows with `prompt`, `response` and what is needed.

    `response` names the column that is judged.
    """
    return verify_rows(verifier=verifier.identity, column=column, response=response, verifier_context=verifier)


@op("verify", version=1)
def verify_rows(
    frame: pl.DataFrame, *, verifier: dict[str, Any], column: str, response: str, verifier_context: Verifier
) -> pl.DataFrame:
    """Judge the rows of a frame. Raises InputError for columns that are missing, or there already."""
    lacking = [name for name in ("prompt", response, *verifier_context.needs) if name not in frame.columns]
    if lacking:
        raise InputError(f"{verifier['name']} needs the columns {', '.join(lacking)}; there are: {frame.columns}")
    if column in frame.columns:
        raise InputError(f"there is a column {column!r} already: give the verdicts another name")
    rows = frame.to_dicts()
    if response != "response":
        rows = [{**row, "response": row[response]} for row in rows]
    verdicts = [
        {"score": said.score, "reason": said.reason, "evidence": json.dumps(said.evidence)}
        for said in probed(verifier_context, rows)
    ]
    return frame.with_columns(pl.Series(column, verdicts, dtype=VERDICT))
