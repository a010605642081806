"""Sets for reinforcement learning: prompts with the verifier that judges their answers, each probed as it is built.

    made = task_set(store, ["tasks.jsonl"], find("maths")(), name="tasks")
    made["tasks"]        # rows with prompt, gold or tests, source, verifier (JSON: name, version, params), gold_passes

Steps: <name>-read (files, see dataops/tasks/read.py), <name>-decontaminated where benchmarks are named, <name>-probed,
<name> without prompts that stand twice. The laws are those of dataops/tasks/probe.py; the parts of a composed verifier
are probed one by one, since a gold answer need not have the form that a gate asks for.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.decontam.benchmarks import MIN_TOKENS, benchmarks
from gristmill.dataops.decontam.index import NGRAM, index
from gristmill.dataops.decontam.policies import drop
from gristmill.dataops.executor import InProcess
from gristmill.dataops.store import Store
from gristmill.dataops.tasks.probe import Probed, probe, unique
from gristmill.dataops.tasks.read import check_columns, read_tasks
from gristmill.flows.sets.outage import reached
from gristmill.verifiers.probes import empty_must_fail, gold_must_pass
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, Verifier

#: Columns that say what is right, beside those that the verifier needs.
_GOLDS = ("gold", "tests")


def task_set(
    store: Store,
    files: Sequence[str],
    verifier: Verifier,
    *,
    name: str = "tasks",
    columns: Mapping[str, str] | None = None,
    against: Sequence[str] = (),
) -> dict[str, Dataset]:
    """Tasks out of files, by step: "read", with `against` (benchmark files, see dataops/decontam/reading.py) also
    "decontaminated", "probed" and "tasks". `columns` says which column of the files is which of a task's.

    Raises InputError for files, for tasks without a column that the verifier needs, and where no task is left.
    """
    made = {"read": read_tasks(store, f"{name}-read", files, columns)}
    last = made["read"]
    if last.rows:
        check_columns(last, verifier.needs, verifier.name)
    if last.rows and against:
        found = index(store, benchmarks(store, against, min_tokens=MIN_TOKENS), ngram=NGRAM)
        last = made["decontaminated"] = store.build(f"{name}-decontaminated", drop(found), [last, found])
    if last.rows:
        # One that judges many rows at once has workers of its own.
        own = Store(store.root, InProcess() if verifier.many else store.executor, store.progress)
        probing = probe(verifier.identity, functools.partial(probed, verifier))
        last = made["probed"] = own.build(f"{name}-probed", probing, [last])
        right = sorted({*_GOLDS, *verifier.needs, *(verifier.takes or ())} & {*last.schema().names})
        last = made["tasks"] = store.build(name, unique(golds=right), [last])
    if not last.rows:
        raise InputError(f"{name}: no task is left of {_in(made['read']):,} rows: {_why(made)}")
    return made


def probed(verifier: Verifier, rows: Sequence[Row]) -> list[Probed]:
    """What the probes of dataops/tasks/probe.py find, in order. Rows have their prompt as a text."""
    found: list[Probed] = [Probed("no_gold", f"no {name}") if (name := _lacks(verifier, row)) else Probed(None)
                           for row in rows]  # fmt: skip
    for leaf in _leaves(verifier):
        left = [i for i, one in enumerate(found) if one.reason is None]
        told = [rows[i] for i in left]
        golds = gold_must_pass(leaf, told)
        empties = empty_must_fail(leaf, told) if leaf.empty_fails else [None] * len(told)
        for verdicts in (golds, empties):
            reached(leaf.name, [(one.score, one.reason, one.evidence) for one in verdicts if one is not None])
        for i, gold, empty in zip(left, golds, empties, strict=True):
            found[i] = _found(leaf, gold, empty, found[i].gold)
    return found


def _found(leaf: Verifier, gold: Verdict | None, empty: Verdict | None, before: bool | None) -> Probed:
    if gold is not None and gold.score != 1.0:
        return Probed("gold_unjudged" if gold.score is None else "gold_fails", _evidence(leaf, gold), False)
    if empty is not None and empty.score != 0.0:
        return Probed("empty_unjudged" if empty.score is None else "empty_passes", _evidence(leaf, empty))
    return Probed(None, gold=before if gold is None else True)


def _evidence(leaf: Verifier, said: Verdict) -> str:
    told = {"verifier": leaf.name, "score": said.score, "reason": said.reason, "evidence": said.evidence}
    return json.dumps(told, ensure_ascii=False, default=str)


def _lacks(verifier: Verifier, row: Row) -> str | None:
    return next((name for name in verifier.needs if row.get(name) is None), None)


def _leaves(verifier: Verifier) -> Iterator[Verifier]:
    if not verifier.parts:
        yield verifier
    for part in verifier.parts:
        yield from _leaves(part)


def reasons(made: Mapping[str, Dataset]) -> dict[str, int]:
    """Of all steps, how many rows went for which reason, the commonest first."""
    found: dict[str, int] = {}
    for step in made.values():
        for tally in step.manifest["counts"].values():
            for reason, rows in tally["reasons"].items():
                found[reason] = found.get(reason, 0) + rows
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _in(read: Dataset) -> int:
    return sum(tally["in"] for tally in read.manifest["counts"].values())


def _why(made: Mapping[str, Dataset]) -> str:
    told = ", ".join(f"{reason} {rows:,}" for reason, rows in reasons(made).items()) or "the files are empty"
    shown = [row for step in made.values() for row in step.ledger().select("evidence").head(1).collect()["evidence"]]
    return told + (f"; the last: {shown[-1]}" if shown and shown[-1] else "")
