"""The funnel: what each op of the chain took, kept and dropped, in rows, characters, bytes and tokens.

Rows come from the manifests' tallies. Amounts of text are sums over the rows themselves, so they are known from where a
text is stored: before that, and for tokens before there is a tokenizer, they are null and never estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.report.chain import Stack
from gristmill.dataops.report.survey import Part

AMOUNTS = ("chars", "bytes", "tokens")
Stage = dict[str, Any]


def stages(
    order: Sequence[Dataset], surveyed: Mapping[str, tuple[Stack, Part]], packed_tokens: Mapping[str, int]
) -> list[Stage]:
    """One entry per op: rows (in, kept, dropped), the amounts likewise, reasons, losses, and whether rows add up.

    `surveyed` is by the key of the base; `packed_tokens` are the tokens in sequences, by the key of the dataset. Stages
    of one `run` hand rows on one to one; a new run begins where rows become others (files, records, sequences).
    """
    found: list[Stage] = []
    tops: dict[str, dict[str, int | None]] = {}  # amounts of each dataset's rows, by key
    run = 0
    for dataset in order:
        own = [_stage(dataset, op, tally) for op, tally in dataset.manifest["counts"].items()]
        inputs = [tops[item["key"]] for item in dataset.manifest["inputs"] if item["key"] in tops]
        before = inputs[0] if len(inputs) == 1 else dict.fromkeys(AMOUNTS)
        for stage in own:
            previous = found[-1] if found else None
            joined = previous is not None and previous["kept"] == stage["in"] and not stage["reshapes"]
            run += not joined and previous is not None
            stage["run"] = run
            found.append(stage)
        if dataset.parent is not None:
            fates = surveyed[dataset.base.key] if dataset.base.key in surveyed else None
            tops[dataset.key] = _through_view(own, before, dataset.name, fates)
        else:
            tops[dataset.key] = _through_rows(own, before, _totals(dataset, surveyed, packed_tokens))
    return found


def _stage(dataset: Dataset, op: str, tally: Mapping[str, Any]) -> Stage:
    files = any(name == "records" for name, _ in dataset.manifest.get("schema", []))
    ranked = sorted(tally["reasons"].items(), key=lambda item: (-item[1], item[0]))
    reshapes = dataset.kind == "tokens"
    adds_up = sum(tally["reasons"].values()) == tally["dropped"]
    return {
        "dataset": dataset.name,
        "op": op,
        "unit": "files" if files else "sequences" if reshapes else "rows",
        "reshapes": reshapes,
        "in": tally["in"],
        "kept": tally["kept"],
        "dropped": tally["dropped"],
        "adds_up": adds_up and (reshapes or tally["kept"] + tally["dropped"] == tally["in"]),
        "reasons": [{"reason": reason, "rows": rows, **dict.fromkeys(AMOUNTS)} for reason, rows in ranked],
        "losses": [{"reason": reason, **loss} for reason, loss in sorted(tally["losses"].items())],
        **{amount: {"in": None, "kept": None, "dropped": None} for amount in AMOUNTS},
        "seconds": dataset.manifest["made"].get("seconds_by_op", {}).get(op),
    }


def _totals(
    dataset: Dataset, surveyed: Mapping[str, tuple[Stack, Part]], packed_tokens: Mapping[str, int]
) -> dict[str, int | None]:
    """Amounts of all rows of a base."""
    if dataset.key in packed_tokens:
        return {"chars": None, "bytes": None, "tokens": packed_tokens[dataset.key]}
    if dataset.key not in surveyed or "fates" not in surveyed[dataset.key][1]:
        return dict.fromkeys(AMOUNTS)
    fates = surveyed[dataset.key][1]["fates"]
    return {amount: fates[amount].sum() if fates[amount].count() else None for amount in AMOUNTS}


def _through_rows(own: list[Stage], before: dict[str, int | None], totals: dict[str, int | None]) -> dict[str, int | None]:
    """Amounts at the ops that wrote the rows: known at the end, and backwards as far as no row was dropped."""
    unit = {"chars": "chars", "tokens": "tokens"}
    for amount in AMOUNTS:
        known = totals[amount]
        for stage in reversed(own):
            stage[amount]["kept"] = known
            lost = sum(loss["lost"] for loss in stage["losses"] if loss["unit"] == unit.get(amount))
            cut = any(loss["unit"] != unit.get(amount) for loss in stage["losses"])  # by an unknown number of these
            if known is None or stage["dropped"] or cut or stage["reshapes"]:
                break
            known += lost
            stage[amount] |= {"in": known, "dropped": 0}
        if own and own[0]["in"] and before[amount] is not None and own[0][amount]["in"] is None:
            own[0][amount]["in"] = before[amount]
    return totals


def _through_view(
    own: list[Stage], before: dict[str, int | None], name: str, surveyed: tuple[Stack, Part] | None
) -> dict[str, int | None]:
    """Amounts at the ops of a view: what goes is summed by fate."""
    running = dict(before)
    if surveyed is None or "fates" not in surveyed[1]:
        return dict.fromkeys(AMOUNTS)
    codes = {fate: code for code, fate in enumerate(surveyed[0].fates)}
    by_code = {row["_fate"]: row for row in surveyed[1]["fates"].iter_rows(named=True)}
    for stage in own:
        for entry in stage["reasons"]:
            sums = by_code.get(codes.get((name, stage["op"], entry["reason"]), -1), {})
            entry |= {amount: sums.get(amount) for amount in AMOUNTS}
        for amount in AMOUNTS:
            into = running[amount]
            gone = [entry[amount] for entry in stage["reasons"]]
            dropped = None if into is None or None in gone else sum(gone)
            running[amount] = None if into is None or dropped is None else into - dropped
            stage[amount] = {"in": into, "kept": running[amount], "dropped": dropped}
    return running


def check(order: Sequence[Dataset], found: Sequence[Stage], ledger_rows: pl.DataFrame) -> dict[str, Any]:
    """Whether the tallies agree with themselves, with each other and with the rows of the ledgers.

    `ledger_rows`: dataset (its key), op, reason, rows, as counted in the ledgers.
    """
    problems = [f"{stage['dataset']}, {stage['op']}: rows do not add up" for stage in found if not stage["adds_up"]]
    counted = {(row[0], row[1], row[2]): row[3] for row in ledger_rows.iter_rows()}
    tallied = {
        (dataset.key, op, reason): rows
        for dataset in order
        for op, tally in dataset.manifest["counts"].items()
        for reason, rows in tally["reasons"].items()
        if rows
    }
    names = {dataset.key: dataset.name for dataset in order}
    for key in sorted(set(counted) | set(tallied)):
        if counted.get(key, 0) != tallied.get(key, 0):
            told = f"{tallied.get(key, 0)} by tally, {counted.get(key, 0)} in the ledger"
            problems.append(f"{names[key[0]]}, {key[1]}, {key[2]}: {told}")
    for dataset in order:
        tallies = list(dataset.manifest["counts"].values())
        if tallies and tallies[-1]["kept"] != dataset.rows:
            problems.append(f"{dataset.name}: {tallies[-1]['kept']} rows by tally, {dataset.rows} in the manifest")
    return {"ops": len(found), "ledger_rows": sum(counted.values()), "problems": problems[:50]}
