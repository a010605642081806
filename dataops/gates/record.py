"""What was judged and promoted: published judgements and promotions, and the tags that follow from them.

    NAME-judgement   a version per judgement: a row per verdict; inputs are the checkpoint and the evaluations
    NAME-promotion   a version per promotion: one row; inputs are the checkpoint and the judgement that let it pass
    tags of NAME     candidate, passed, blocked, promoted: where the last of each is, made of the above

Both are numbered and only ever added to, so history stays, and what counts is the last judgement of these very
weights (key and digest). The laws: a checkpoint is never both passed and blocked; one that is blocked, or was never
judged, is not promoted; doing the same again adds nothing. A lock keeps runs on one machine apart; where two machines
gave one number, the judgement that blocks counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_rows
from gristmill.dataops.gates.conditions import Gate
from gristmill.dataops.gates.judge import Verdict, passes
from gristmill.dataops.identity import row_id, sha256_json
from gristmill.dataops.manifest import versions, when
from gristmill.dataops.store import Store

GATE, PROMOTE, VERSION = "gate", "promote", 1
TAGS = ("candidate", "passed", "blocked", "promoted")
_REASONS = 20  # of a blocked checkpoint, told in the stats of its judgement
_VERDICTS = pa.schema(
    [
        ("id", pa.binary(16)), ("gate", pa.string()), ("measure", pa.string()), ("condition", pa.string()),
        ("value", pa.float64()), ("low", pa.float64()), ("high", pa.float64()), ("n", pa.int64()),
        ("against", pa.string()), ("parent_value", pa.float64()), ("limit", pa.float64()), ("passed", pa.bool_()),
        ("judged", pa.bool_()), ("why", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class State:
    """Where a model stands: "passed", "blocked", "candidate" (put up, not judged) or "not judged"; `promoted` where it
    is the one that was promoted last. `reasons` are those it is blocked for."""

    model: Dataset
    state: str
    promoted: bool
    judgement: Dataset | None
    reasons: tuple[str, ...]

    def as_row(self) -> dict[str, Any]:
        """Plain data."""
        judged = self.judgement
        return {
            "name": self.model.name, "key": self.model.key, "digest": self.model.digest, "state": self.state,
            "promoted": self.promoted, "reasons": list(self.reasons),
            "judgement": None if judged is None else f"{judged.name}:{judged.key[:12]}",
            "judged_at": None if judged is None else judged.manifest["made"].get("at"),
        }  # fmt: skip


def is_model(dataset: Dataset) -> bool:
    """Whether a dataset is a checkpoint with a model's weights."""
    names = [entry["file"] for entry in dataset.manifest.get("files", [])]
    return "files/config.json" in names and any(name.endswith(".safetensors") for name in names)


def judgements(store: Store, model: Dataset) -> list[Dataset]:
    """All judgements of these very weights, first to last."""
    return _judgements_of(model, _published(store, f"{model.name}-judgement", GATE))


def promotions(store: Store, name: str) -> list[Dataset]:
    """All promotions of models of this name, first to last."""
    found = _published(store, f"{name}-promotion", PROMOTE)
    return sorted(found, key=lambda item: (_number(item), item.manifest["made"].get("at", ""), item.key))


def model_states(store: Store, name: str | None = None) -> list[State]:
    """Where every model under a root stands (of one name, where it is given), by name and time."""
    found = sorted((item for item in store.all() if name in (None, item.name) and is_model(item)), key=_age)
    records = {each: _records(store, each) for each in {item.name for item in found}}
    return [_state(item, *records[item.name]) for item in found]


def state_of(store: Store, model: Dataset) -> State:
    """Where one model stands."""
    return _state(model, *_records(store, model.name))


def _records(store: Store, name: str) -> tuple[list[Dataset], list[Dataset], str | None]:
    """Judgements and promotions of all versions of a name, and its candidate's key."""
    return _published(store, f"{name}-judgement", GATE), promotions(store, name), _tagged(store, name, "candidate")


def _state(model: Dataset, judged: Sequence[Dataset], promoted: Sequence[Dataset], candidate: str | None) -> State:
    of_it = _judgements_of(model, judged)
    last = of_it[-1] if of_it else None
    if last is not None:
        state = last.manifest["stats"]["verdict"]
    else:
        state = "candidate" if candidate == model.key else "not judged"
    reasons = () if last is None or state != "blocked" else tuple(last.manifest["stats"]["reasons"])
    return State(model, state, bool(promoted) and _of(promoted[-1], model), last, reasons)


def _judgements_of(model: Dataset, judged: Sequence[Dataset]) -> list[Dataset]:
    found = [item for item in judged if _of(item, model)]
    return sorted(found, key=lambda item: (_number(item), item.manifest["stats"]["verdict"] == "blocked"))


def put_up(store: Store, model: Dataset) -> None:
    """Tag a model as the candidate of its name. Raises InputError for what is no model."""
    if not is_model(model):
        raise InputError(f"{model.name}:{model.key[:12]} is no model's checkpoint, so there is nothing to gate")
    with _locked(store, model.name):
        _tag(store, model.name, "candidate", model.key)


def record(
    store: Store,
    model: Dataset,
    gates: Sequence[Gate],
    verdicts: Sequence[Verdict],
    held: Sequence[tuple[str, Dataset]],
) -> Dataset:
    """Publish a judgement, and let the tags follow. `held` are what it was judged by besides the model, with the part
    that each plays. The last judgement is taken where it says the same of the same."""
    started = time.perf_counter()
    inputs = [model, *(item for _, item in held)]
    params = {
        "gates": [gate.identity for gate in gates],
        "roles": ["model", *(role for role, _ in held)],
        # Measures stand in the stats of an evaluation, which its digest does not cover.
        "keys": [item.key for item in inputs],
        "verdicts": sha256_json([repr(verdict) for verdict in verdicts]),
    }
    with _locked(store, model.name):
        before = judgements(store, model)
        if before and _same(before[-1], params, inputs):
            published = before[-1]
        else:
            number = _number(before[-1]) + 1 if before else 1
            published = _publish(store, f"{model.name}-judgement", GATE, {**params, "number": number}, inputs,
                                 _table(model, verdicts), _told(model, verdicts, held), started)  # fmt: skip
        _retag(store, model, str(published.manifest["stats"]["verdict"]))
    return published


def promote(store: Store, model: Dataset) -> tuple[Dataset, bool]:
    """Record that a model is the promoted one of its name and move the tag; returns the record and whether it is new.

    Raises InputError for one that is blocked or was never judged, with the reasons and what to do.
    """
    started = time.perf_counter()
    reference = f"{model.name}:{model.key[:12]}"
    if not is_model(model):
        raise InputError(f"{reference} is no model's checkpoint, so there is nothing to promote")
    with _locked(store, model.name):
        known = state_of(store, model)
        if known.judgement is None:
            raise InputError(
                f"{reference} was never judged: run `gristmill gate {reference} --evaluation EVALUATION`, then promote"
            )
        if known.state != "passed":
            reasons = "".join(f"\n  - {reason}" for reason in known.reasons)
            raise InputError(
                f"{reference} is blocked by {known.judgement.name}:{known.judgement.key[:12]}:{reasons}\n"
                f"train or evaluate it anew and run `gristmill gate {reference}`; what is promoted stays as it was"
            )
        before = promotions(store, model.name)
        new = not known.promoted
        if new:
            row = {"id": [row_id(PROMOTE, model.key, known.judgement.key)], "name": [model.name], "key": [model.key],
                   "digest": [model.digest], "judgement": [known.judgement.key]}  # fmt: skip
            table = pa.table({**row, "id": pa.array(row["id"], pa.binary(16))})
            number = _number(before[-1]) + 1 if before else 1
            stats = {"model": _named(model), "judgement": _named(known.judgement)}
            published = _publish(store, f"{model.name}-promotion", PROMOTE, {"number": number},
                                 [model, known.judgement], table, stats, started)  # fmt: skip
        else:
            published = before[-1]
        _tag(store, model.name, "promoted", model.key)
    return published, new


def _told(model: Dataset, verdicts: Sequence[Verdict], held: Sequence[tuple[str, Dataset]]) -> dict[str, Any]:
    """The stats of a judgement."""
    against = [verdict for verdict in verdicts if verdict.passed is False]
    reasons = [f"{verdict.gate}: {verdict.why}" for verdict in against[:_REASONS]]
    if len(against) > _REASONS:
        reasons.append(f"and {len(against) - _REASONS} more: see the rows of the judgement")
    if not any(verdict.passed is not None for verdict in verdicts):
        op = model.manifest["ops"][-1]["name"] if model.manifest["ops"] else "nothing known"
        reasons.append(f"no gate applies to this checkpoint, made by {op}: nothing was judged")
    return {
        "verdict": "passed" if passes(verdicts) else "blocked",
        "passed": sum(verdict.passed is True for verdict in verdicts),
        "failed": sum(verdict.judged for verdict in against),
        "unjudged": sum(not verdict.judged for verdict in against),
        "not_applicable": sum(verdict.passed is None for verdict in verdicts),
        "reasons": reasons,
        "model": _named(model),
        "held": [{"role": role, **_named(item)} for role, item in held],
    }


def _table(model: Dataset, verdicts: Sequence[Verdict]) -> pa.Table:
    rows = [
        {"id": row_id(GATE, model.digest, verdict.gate, verdict.measure), **verdict.as_row()} for verdict in verdicts
    ]
    return pa.Table.from_pylist(rows, schema=_VERDICTS)


def _publish(
    store: Store,
    name: str,
    op: str,
    params: Mapping[str, Any],
    inputs: Sequence[Dataset],
    table: pa.Table,
    stats: Mapping[str, Any],
    started: float,
) -> Dataset:
    building = store.root / ".building" / f"{name}-{uuid.uuid4().hex[:12]}"
    ops = [{"name": op, "version": VERSION, "params": dict(params)}]
    made = {**when(started), "versions": versions()}
    published = publish_rows(store.root, name, building, [table], ops=ops, inputs=inputs, made=made, stats=stats)
    _tag(store, name, "latest", published.key)
    return published


def _retag(store: Store, model: Dataset, verdict: str) -> None:
    """`verdict` (passed or blocked) points here; what pointed here and does not hold goes to the newest that it does
    hold for, or away."""
    _tag(store, model.name, verdict, model.key)
    for tag in ("candidate", "passed", "blocked"):
        if tag != verdict and _tagged(store, model.name, tag) == model.key:
            others = [known.model.key for known in model_states(store, model.name) if known.state == tag != "candidate"]
            _tag(store, model.name, tag, others[-1] if others else None)


def _published(store: Store, name: str, op: str) -> list[Dataset]:
    found = [Dataset.load(path.parent) for path in (store.root / name).glob(f"*/{MANIFEST}")]
    return [item for item in found if [made["name"] for made in item.manifest["ops"]] == [op]]


def _of(record: Dataset, model: Dataset) -> bool:
    """Whether a judgement or promotion is of these very weights; a key alone may have been trained again."""
    entry = record.manifest["inputs"][0]
    return (entry["key"], entry["digest"]) == (model.key, model.digest)


def _same(record: Dataset, params: Mapping[str, Any], inputs: Sequence[Dataset]) -> bool:
    op = record.manifest["ops"][0]
    known = {name: value for name, value in op["params"].items() if name != "number"}
    digests = [entry["digest"] for entry in record.manifest["inputs"]]
    return op["version"] == VERSION and known == params and digests == [item.digest for item in inputs]


def _number(record: Dataset) -> int:
    return int(record.manifest["ops"][0]["params"]["number"])


def _named(dataset: Dataset) -> dict[str, str]:
    return {"name": dataset.name, "key": dataset.key, "digest": dataset.digest}


def _age(dataset: Dataset) -> tuple[str, str, str]:
    return dataset.name, str(dataset.manifest["made"].get("at", "")), dataset.key


def _tagged(store: Store, name: str, tag: str) -> str | None:
    path = store.root / name / "tags" / tag
    return path.read_text().strip() if path.exists() else None


def _tag(store: Store, name: str, tag: str, key: str | None) -> None:
    """Point a tag that moves at a version, by one rename, or take it away."""
    path: Path = store.root / name / "tags" / tag
    if key is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{tag}.{os.getpid()}")
    scratch.write_text(key)
    scratch.replace(path)


@contextlib.contextmanager
def _locked(store: Store, name: str) -> Iterator[None]:
    """The records of one name, held by this process alone; the system frees the lock of a killed run."""
    folder = store.root / ".building"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}-gates.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
