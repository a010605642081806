"""Decontamination as a recipe uses it: benchmark files in, a dataset without them and a bill about it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.decontam.benchmarks import MIN_TOKENS, benchmarks
from gristmill.dataops.decontam.bill import clean_bill
from gristmill.dataops.decontam.index import NGRAM, index
from gristmill.dataops.decontam.policies import cut, drop, text_columns
from gristmill.dataops.store import Store

Policy = Literal["drop", "cut"]
NAME = "decontaminated"


def decontaminate(
    store: Store,
    dataset: Dataset,
    files: Sequence[str],
    ngram: int = NGRAM,
    policy: Policy = "drop",
    *,
    name: str = NAME,
) -> dict[str, Dataset]:
    """Take benchmarks out of a dataset; what stands already is not built again.

    `files` as in reading.py: [NAME=]PATH[:PROMPT[,ANSWER]...]. `policy` "drop" leaves documents out, "cut" takes out
    what matched. Returns `benchmarks`, `benchmark-index`, what is left (as `name`) and `clean-bill`. Raises InputError.
    """
    if policy not in ("drop", "cut"):
        raise ValueError(f"policy is 'drop' or 'cut', not {policy!r}")
    text_columns(dataset)  # before the benchmarks are read
    items = benchmarks(store, files, min_tokens=min(MIN_TOKENS, ngram))
    found = index(store, items, ngram=ngram)
    chosen = drop(found, store.progress) if policy == "drop" else cut(found)
    clean = store.build(name, chosen, [dataset, found])
    bill = clean_bill(store, clean, items, found)
    return {items.name: items, found.name: found, clean.name: clean, bill.name: bill}
