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
Amounts = dict[str, int | None]
Surveyed = Mapping[str, tuple[Stack, Part]]


def stages(order: Sequence[Dataset], surveyed: Surveyed, packed_tokens: Mapping[str, int]) -> list[Stage]:
    """One entry per op: rows (in, kept, dropped), the amounts likewise, reasons, losses, and whether rows add up.

    `surveyed` is by the key of the base; `packed_tokens` are the tokens in sequences, by the key of the dataset. Stages
    of one `run` hand rows on one to one; a new run begins where rows become others (files, records, sequences).
    """
    found: list[Stage] = []
    tops: dict[str, Amounts] = {}  # amounts of each dataset's rows, by key
    run = 0
    for dataset in order:
        own = [_stage(dataset, op, tally) for op, tally in dataset.manifest["counts"].items()]
        inputs = [tops[item["key"]] for item in dataset.manifest["inputs"] if item["key"] in tops]
        before = inputs[0] if len(inputs) == 1 else dict.fromkeys(AMOUNTS)
        if dataset.parent is not None:
            before = tops[dataset.parent.key]
        for stage in own:
            previous = found[-1] if found else None
            if previous is not None and (previous["kept"], previous["unit"]) != (stage["in"], stage["unit"]):
                run += 1
            stage["run"] = run
            found.append(stage)
        if dataset.parent is not None:
            fates = surveyed.get(dataset.base.key)
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
        "seconds": dataset.manifest["made"].get("cpu_seconds_by_op", {}).get(op),
    }


def _totals(dataset: Dataset, surveyed: Surveyed, packed_tokens: Mapping[str, int]) -> Amounts:
    """Amounts of all rows of a base; null where its columns do not tell."""
    if dataset.key in packed_tokens:
        return {"chars": None, "bytes": None, "tokens": packed_tokens[dataset.key]}
    if dataset.key not in surveyed:
        return dict.fromkeys(AMOUNTS)
    stack, part = surveyed[dataset.key]
    known = ("chars", "bytes") if "text" in stack.schema.names else ("tokens",)
    sums = {amount: int(part["fates"][amount].sum()) if part else 0 for amount in known}
    return {amount: sums.get(amount) for amount in AMOUNTS}


def _through_rows(own: list[Stage], before: Amounts, totals: Amounts) -> Amounts:
    """Amounts at the ops that wrote the rows: what the first took and the last kept.

    What the last took is known too where it tells what it cut from rows that stay, and dropped none.
    """
    for amount in AMOUNTS if own else ():
        first, last = own[0][amount], own[-1][amount]
        first["in"], last["kept"] = before[amount], totals[amount]
        if totals[amount] is None or own[-1]["dropped"] or own[-1]["reshapes"]:
            continue
        last["dropped"] = 0
        cuts = [loss["lost"] for loss in own[-1]["losses"] if loss["unit"] == amount]
        if cuts:
            last["in"] = totals[amount] + sum(cuts)
    return totals


def _through_view(own: list[Stage], before: Amounts, name: str, surveyed: tuple[Stack, Part] | None) -> Amounts:
    """Amounts at the ops of a view: what goes is summed by fate."""
    if surveyed is None:
        return dict.fromkeys(AMOUNTS)
    stack, part = surveyed
    codes = {fate: code for code, fate in enumerate(stack.fates)}
    by_code = {row["_fate"]: row for row in part["fates"].iter_rows(named=True)} if part else {}
    running = dict(before)
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


def main_run(funnel: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The stages that hand on the same rows and took most of them: what is drawn as the funnel."""
    runs: dict[int, list[Any]] = {}
    for stage in funnel:
        if stage["unit"] == "rows":
            runs.setdefault(stage["run"], []).append(stage)
    return max(runs.values(), key=lambda run: (run[0]["in"], len(run)), default=[])


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
