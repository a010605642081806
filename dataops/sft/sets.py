"""Views that a recipe for chats needs: the rows of one set of files, and those that a model's rows have room for.

A set is known by `source_file`, which begins with its name (see `chat.read.read_sets`), so it is told apart after
cleaning as before. What is chosen by number ("1,000 good ones") is chosen among rows that can be encoded: otherwise
some of the chosen ones would be too long, and there were fewer than asked for.

The law: the views of all sets are all rows, each once; a row that cannot be encoded goes for the reason for which its
encoding was refused. Not covered: rows of `read_files`, which belong to no set.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from gristmill.dataops.op import ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus

_TOLD = ("reason", "value", "threshold", "evidence")


@op("sft.of_set", version=1, kind="corpus")
def of_set(corpus: Corpus, *, name: str) -> list[pl.DataFrame]:
    """Keep the rows of one set of files; the others are in another set's view: `other_set`."""
    frames = [positioned(shard, ["id", "source_file"]) for shard in corpus.dataset.shards()]
    here = pl.col("source_file").str.starts_with(f"{name}/").fill_null(False)
    return [ledger(frame.filter(~here), reason="other_set") for frame in frames]


@op("sft.encodable", version=1, kind="corpus")
def encodable(corpus: Corpus) -> list[pl.DataFrame]:
    """Keep the rows that the second input, the encoding of the first, holds; the others go for the reasons there."""
    (encoded,) = corpus.others
    gone = encoded.ledger().filter(pl.col("unit") == "row").select("id", *_TOLD).collect()
    frames = [positioned(shard, ["id"]) for shard in corpus.dataset.shards()]
    return [ledger(frame.join(gone, on="id", how="inner", maintain_order="left")) for frame in frames]


def quotas(rows: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`rows` shared out by weight, in whole rows that add up (largest remainder; of equal ones the first named)."""
    total = sum(weights.values())
    exact = {name: rows * weight / total for name, weight in weights.items()}
    shares = {name: int(share) for name, share in exact.items()}
    left = rows - sum(shares.values())
    for name in sorted(exact, key=lambda name: shares[name] - exact[name])[:left]:
        shares[name] += 1
    return shares
