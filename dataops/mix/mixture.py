"""Mixtures of packed sources, shuffled over all of them: one mixture, or a curriculum of several in a row.

Each source is an endless sequence: epoch after epoch, each a permutation of its rows. A stage takes its share of each
sequence where the stage before it stopped, and shuffles all it took by one permutation. Both are pure functions
(`order.permuted`), so any run of output rows is made from positions alone, with nothing held in memory but itself. The
laws: within an epoch no row comes twice; the same seed gives the same rows in the same order, however sources are cut
into shards and whoever does the work; a document that is held out is in no mixture.
Chats may be mixed with plain text, a replay against forgetting: `targets` say what the loss counts of chats, and of
plain text all.

Rows that were not drawn would fill the ledger with most of a corpus; they are one entry per source (unit "rows").
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.dataops.dataset import Dataset, InputError, Shard
from gristmill.dataops.identity import row_id
from gristmill.dataops.mix.order import permuted
from gristmill.dataops.mix.weights import MAX_EPOCHS, Draw, Source, drawn
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.store import Store, Task
from gristmill.dataops.tokens import seq_len_of, token_facts

_COLUMNS = ["id", "tokens", "positions", "segments", "length"]
_SHARD_TOKENS = 1 << 24


@dataclass(frozen=True)
class Slots:
    """Output rows `first` to `last` of a stage, with what they are drawn from."""

    stage: int
    draws: list[Draw]
    first: int
    last: int
    shards: list[list[Shard]]
    marked: list[bool]  # which sources say what the loss counts
    unused: list[tuple[str, int, int]] | None  # source, rows and tokens that no stage takes: for one unit to say


def mix(
    store: Store,
    name: str,
    sources: Mapping[str, Dataset],
    stages: Sequence[Mapping[str, Any]],
    *,
    never: Sequence[Dataset] = (),
    seed: int = 1,
    max_epochs: float = MAX_EPOCHS,
) -> Dataset:
    """Build a mixture of packed datasets. `stages` are {"tokens": int or None, "weights": {source: share}}.

    `never` are datasets of held-out documents: one of them in a source is an InputError. The stats name, per source,
    rows, tokens, share and epochs. Raises InputError for weights that cannot be and sources that do not fit together.
    """
    if not sources:
        raise InputError("a mixture of no sources: name at least one packed dataset")
    first = next(iter(sources.values()))
    drawn([facts(source, dataset) for source, dataset in sources.items()], stages, max_epochs)  # refuses what cannot be
    made = sample(
        sources=tuple(sources),
        stages=tuple({"tokens": stage.get("tokens"), "weights": dict(stage["weights"])} for stage in stages),
        seed=seed,
        max_epochs=max_epochs,
        seq_len=seq_len_of(first),
        template=_template(sources),
        **asdict(token_facts(first)),
    )
    return store.build(name, made, [*sources.values(), *never])


def facts(name: str, dataset: Dataset) -> Source:
    """Rows and tokens of a packed source."""
    seq_len_of(dataset)
    lengths = [pc.sum(shard.read(["length"])["length"]).as_py() or 0 for shard in dataset.shards()]
    return Source(name, dataset.rows, int(sum(lengths)))


def _template(sources: Mapping[str, Dataset]) -> str | None:
    """The SHA-256 of the chat template that sources were rendered with, None for plain text alone."""
    known = {name: dataset.base.manifest["ops"][-1]["params"].get("template") for name, dataset in sources.items()}
    chats = {name: template for name, template in known.items() if template is not None}
    if len(set(chats.values())) > 1:
        told = ", ".join(f"{name} {template[:12]}" for name, template in chats.items())
        raise InputError(f"chats of one mixture have one template, not {told}: encode them with the same")
    return next(iter(chats.values()), None)


def epochs(mixture: Dataset) -> list[dict[str, Any]]:
    """What a mixture used of each source: name, rows, tokens, share of the tokens, epochs."""
    op_params = mixture.manifest["ops"][0]["params"]
    stats = mixture.manifest["stats"]
    total = sum(stats[f"tokens.{name}"] for name in op_params["sources"])
    return [
        {
            "source": name,
            "rows": stats[f"rows.{name}"],
            "tokens": stats[f"tokens.{name}"],
            "share": stats[f"tokens.{name}"] / total,
            "epochs": stats[f"rows.{name}"] / rows if (rows := mixture.input(number).rows) else 0.0,
        }
        for number, name in enumerate(op_params["sources"])
    ]


def _plan(
    inputs: Sequence[Dataset], _: Path, __: int, *, sources: Sequence[str], stages: Sequence[Any], seed: int,
    max_epochs: float, **fit: Any,
) -> list[Task]:  # fmt: skip
    mixed, never = inputs[: len(sources)], inputs[len(sources) :]
    first = mixed[0]
    for name, dataset in zip(sources, mixed, strict=True):
        if seq_len_of(dataset) != seq_len_of(first):
            raise InputError(
                f"{name} has rows of {seq_len_of(dataset)} tokens, {sources[0]} of {seq_len_of(first)}: pack them alike"
            )
        if token_facts(dataset) != token_facts(first):
            raise InputError(f"{name} and {sources[0]} are not of one tokenizer: encode them with the same")
    known = [facts(name, dataset) for name, dataset in zip(sources, mixed, strict=True)]
    plan = drawn(known, stages, max_epochs)
    _refuse_held_out(dict(zip(sources, mixed, strict=True)), never)
    shards = [dataset.shards() for dataset in mixed]
    marked = ["targets" in dataset.schema().names for dataset in mixed]
    tasks = []
    per_unit = max(1, _SHARD_TOKENS // seq_len_of(first))
    taken = [sum(draw.rows for draws in plan for draw in draws if draw.source == at) for at in range(len(known))]
    unused: list[tuple[str, int, int]] | None = [
        (source.name, source.rows - rows, round(source.tokens * (1 - rows / source.rows)))
        for source, rows in zip(known, taken, strict=True)
        if rows < source.rows
    ]
    for stage, draws in enumerate(plan):
        rows = sum(draw.rows for draw in draws)
        for start in range(0, rows, per_unit):
            tasks.append(Task(Slots(stage, draws, start, min(start + per_unit, rows), shards, marked, unused)))
            unused = None
    return tasks


def _refuse_held_out(sources: Mapping[str, Dataset], never: Sequence[Dataset]) -> None:
    """Held-out ids are held in memory (16 bytes each); the sources are read shard by shard."""
    for dataset in never:
        held = dataset.scan().select("id").collect()["id"]
        for name, source in sources.items():
            for shard in source.shards():
                segments = shard.read(["segments"])["segments"].combine_chunks()
                ids = pl.Series("id", segments.flatten().field("id").cast(pa.binary())).unique()
                found = ids.filter(ids.is_in(held.implode()))
                if len(found):
                    raise InputError(
                        f"{name} holds {len(found)} documents of {dataset.name}, which is held out "
                        f"(the first: {found[0].hex()}): build the source from what the hold-out left"
                    )


@op("mix.sample", version=3, kind="source", plan=_plan, makes="tokens")
def sample(
    task: Slots, *, sources: tuple[str, ...], stages: tuple[Any, ...], seed: int,
    seq_len: int, tokenizer: str, eod: int, vocab_size: int, template: str | None = None,
    max_epochs: float = MAX_EPOCHS,
) -> Iterator[Split]:  # fmt: skip
    """Packed rows drawn from several sources: the columns of `pack.best_fit`, with `source`, `stage` and `epoch`; and
    `targets` where one of them has some, 1 for every token of the others that has one before it.

    `source` counts in the order of `sources`, and the first `len(sources)` inputs are those; the others are held out.
    The last parameters say for training how the sources were packed.
    """
    slots = np.arange(task.first, task.last)
    total = sum(draw.rows for draw in task.draws)
    drawn_at = permuted(slots, total, seed, task.stage, 1 << 32)
    bounds = np.cumsum([0, *(draw.rows for draw in task.draws)])
    which = np.searchsorted(bounds, drawn_at, side="right") - 1
    tables, places, consumed = [], [], 0
    stats: dict[str, int] = {}
    counted = any(task.marked)
    for number, draw in enumerate(task.draws):
        mine = np.flatnonzero(which == number)
        shards = task.shards[draw.source]
        rows = sum(shard.kept for shard in shards)
        position = draw.start + drawn_at[mine] - bounds[number]
        epoch, within = np.divmod(position, rows)
        row = np.empty(len(mine), dtype=np.int64)
        for turn in np.unique(epoch):
            here = epoch == turn
            row[here] = permuted(within[here], rows, seed, draw.source, int(turn))
        order = np.argsort(row, kind="stable")
        table = _gathered(shards, row[order], task.marked[draw.source])
        if counted and not task.marked[draw.source]:
            table = table.append_column("targets", _all_counted(table, seq_len))
        name = sources[draw.source]
        ids = [
            row_id("mix.sample", id, str(turn))
            for id, turn in zip(table["id"].to_pylist(), epoch[order].tolist(), strict=True)
        ]
        table = table.set_column(0, "id", pa.array(ids, pa.binary(16)))
        table = table.append_column("source", pa.array(np.full(len(mine), draw.source), pa.uint8()))
        tables.append(table.append_column("epoch", pa.array(epoch[order], pa.uint16())))
        places.append(mine[order])
        consumed += int((epoch == 0).sum())
        stats |= {f"rows.{name}": len(mine), f"tokens.{name}": pc.sum(table["length"]).as_py() or 0}
        if counted:
            stats[f"targets.{name}"] = pc.sum(table["targets"].combine_chunks().flatten()).as_py() or 0
    back = np.argsort(np.concatenate(places), kind="stable")
    mixed = pa.concat_tables(tables).combine_chunks().take(pa.array(back))
    mixed = mixed.append_column("stage", pa.array(np.full(len(back), task.stage), pa.uint8()))
    told = ("rows", "tokens", *(["targets"] if counted else []))
    zeros = {f"{what}.{name}": 0 for what in told for name in sources}
    yield Split(mixed, _not_drawn(task.unused), consumed, zeros | stats)


def _gathered(shards: Sequence[Shard], rows: np.ndarray, marked: bool) -> pa.Table:
    """Rows of a source by number, ascending; repeats are allowed."""
    names = [*_COLUMNS, "targets"] if marked else _COLUMNS
    starts = np.cumsum([0, *(shard.kept for shard in shards)])
    parts = []
    for k in np.unique(np.searchsorted(starts, rows, side="right") - 1):
        mine = rows[(rows >= starts[k]) & (rows < starts[k + 1])] - starts[k]
        shard = shards[k]
        if shard.left_out is not None:  # positions among all the shard's rows, so that the file stays mapped
            mine = np.delete(np.arange(shard.rows), shard.left_out.to_numpy())[mine]
        parts.append(Shard(shard.path, shard.rows).read(names).take(pa.array(mine)))
    return pa.concat_tables(parts) if parts else Shard(shards[0].path, shards[0].rows).read(names).slice(0, 0)


def _all_counted(table: pa.Table, seq_len: int) -> pa.Array:
    """Targets of rows in which the loss counts every token: each but the first of a segment, and the padding."""
    positions = table["positions"].combine_chunks().flatten().to_numpy().reshape(-1, seq_len)
    real = np.arange(seq_len) < table["length"].to_numpy()[:, None]
    return pa.FixedSizeListArray.from_arrays(pa.array((real & (positions > 0)).astype(np.uint8).reshape(-1)), seq_len)


def _not_drawn(unused: Sequence[tuple[str, int, int]] | None) -> pl.DataFrame:
    """A ledger row per source: how many of its rows and tokens no stage takes."""
    if not unused:
        return ledger()
    rows = pl.DataFrame(
        {
            "id": [row_id("mix.sample", name, "not_drawn") for name, _, _ in unused],
            "lost": [rows for _, rows, _ in unused],
            "evidence": [json.dumps({"source": name, "tokens": tokens}) for name, _, tokens in unused],
        }
    )
    return ledger(rows, reason="not_drawn", unit="rows")
