"""Endless batches from one packed dataset or several by weight, the same wherever and whenever they are read.

The laws: which rows a batch holds is a pure function of (the datasets' content, weights, seed, step, rows per batch);
the processes of a world take equal runs of each batch, so that together they read exactly what one process would; and a
`Cursor` goes on only with the stream that it came from, or says what is different.

Weights are shares of rows, and all rows have one length, so they are shares of tokens. A weight for pretraining data
beside new data is a replay against forgetting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.training.order import draws, rows, shares
from gristmill.training.shards import Batch, Shards, gather


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1


@dataclass(frozen=True)
class Cursor:
    """After `step` batches of a stream; the rest says which stream: the digests of its datasets, their shares in whole
    parts, rows in a batch of all processes together, seed, and the number of processes."""

    step: int
    digests: tuple[str, ...]
    parts: tuple[int, ...]
    rows: int
    seed: int
    world: int

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Cursor:
        """A cursor out of JSON."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**fields)


class Stream:
    """Batches of `rows` rows, of which this process gets its share.

    Raises InputError where the datasets do not fit together (row length, vocabulary, end of document, tokenizer), or
    `rows` cannot be shared out evenly.
    """

    def __init__(
        self,
        sources: Sequence[Shards],
        *,
        rows: int,
        seed: int,
        weights: Sequence[float] | None = None,
        world: World | None = None,
    ) -> None:
        self.sources, self.rows, self.seed = list(sources), rows, seed
        self.world = World() if world is None else world
        given = [1.0] * len(self.sources) if weights is None else list(weights)
        if len(given) != len(self.sources):
            raise InputError(f"{len(self.sources)} datasets need as many weights, not {len(given)}")
        self.parts = shares(given)
        first = self.sources[0]
        for other in self.sources[1:]:
            for what in ("tokenizer", "seq_len", "vocab_size", "eod"):
                if getattr(other, what) != getattr(first, what):
                    raise InputError(
                        f"{first.name} has {what} {getattr(first, what)}, {other.name} {getattr(other, what)}: "
                        "encode and pack both in one way before they are mixed"
                    )
        if rows % self.world.size:
            raise InputError(f"{rows} rows a batch do not divide among {self.world.size} processes")

    def cursor(self, step: int) -> Cursor:
        """The cursor after `step` batches."""
        digests = tuple(source.digest for source in self.sources)
        return Cursor(step, digests, self.parts, self.rows, self.seed, self.world.size)

    def read(self, start: Cursor | None = None) -> Iterator[tuple[Batch, Cursor]]:
        """This process's part of every batch, each with the cursor that gives the batch after it.

        Raises InputError for a cursor of another stream, naming what is different.
        """
        step = 0 if start is None else start.step
        if start is not None and replace(start, step=0) != self.cursor(0):
            here = asdict(self.cursor(0))
            other = [
                f"{k} {v!r} there, {here[k]!r} here" for k, v in asdict(start).items() if k != "step" and v != here[k]
            ]
            raise InputError(
                f"cannot go on at step {step} of another stream ({'; '.join(other)}): "
                "give the data and settings it came from, or start anew"
            )
        own = self.rows // self.world.size
        while True:
            first = step * self.rows + self.world.rank * own
            source, number = draws(self.parts, self.seed, first, first + own)
            row = number.copy()
            for k, shards in enumerate(self.sources):
                row[source == k] = rows(shards.rows, self.seed, k, number[source == k])
            step += 1
            yield gather(self.sources, source, row), self.cursor(step)

    def epochs(self, step: int) -> dict[str, float]:
        """How often each dataset's rows have come after `step` batches, by name and digest."""
        samples = step * self.rows
        return {
            f"{shards.name}:{shards.digest[:12]}": samples * part / sum(self.parts) / shards.rows
            for shards, part in zip(self.sources, self.parts, strict=True)
        }
