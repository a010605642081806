"""Ratings: a table of items by raters with missing cells, as small integers.

The idea: labels become codes once, and everything else counts codes. The law kept here: a label's spelling, the order
of the raters and what is missing never change what is counted. Not covered: several labels per cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.dataops.dataset import InputError

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """How often a value was given to an item: only items rated twice or more, only values given, sorted by item."""

    item: Codes  # position in `paired`
    value: Codes
    count: Floats


@dataclass(frozen=True)
class Ratings:
    """`codes` (items, raters), -1 for missing, index into `values`: the categories in their order.

    `ordered` says whether that order means something: all are numbers, or the caller gave it.
    """

    codes: Codes
    values: tuple[Any, ...]
    ordered: bool

    @cached_property
    def paired(self) -> Codes:
        """Items with at least two ratings: the only ones in which there is something to agree on."""
        return np.flatnonzero((self.codes >= 0).sum(axis=1) >= 2)

    @cached_property
    def per_item(self) -> Floats:
        """Ratings of each paired item."""
        return (self.codes[self.paired] >= 0).sum(axis=1).astype(np.float64)

    @cached_property
    def cells(self) -> Cells:
        """Counts by paired item and value; as long as the ratings, however many values there are."""
        codes = self.codes[self.paired]
        item, rater = np.nonzero(codes >= 0)
        width = max(len(self.values), 1)
        keys, counts = np.unique(item * width + codes[item, rater], return_counts=True)
        return Cells(keys // width, keys % width, counts.astype(np.float64))

    @cached_property
    def numbers(self) -> Floats:
        """The values as numbers. Raises InputError where they are none."""
        if not all(isinstance(value, int | float) for value in self.values):
            raise InputError(f"an interval scale needs numbers as ratings; found {self.values[:5]!r}")
        return np.asarray(self.values, dtype=np.float64)


def ratings(table: Any, order: Sequence[Any] | None = None) -> Ratings:
    """Ratings of rows (items) of labels, one per rater, None or NaN where one is missing; or of a NumPy array.

    `order` names all categories from low to high, for ordinal scales of labels that are no numbers.
    Raises InputError for rows of different lengths, labels that cannot be compared, and labels not in `order`.
    """
    if isinstance(table, Ratings):
        return table
    if isinstance(table, np.ndarray) and table.ndim == 2 and table.dtype.kind in "iuf" and order is None:
        return _of_numbers(table)
    rows = table.tolist() if isinstance(table, np.ndarray) else [list(row) for row in table]
    raters = len(rows[0]) if rows else 0
    for n, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != raters:
            raise InputError(f"item {n} has not {raters} cells like item 0; put None where a rating is missing")
    flat = [None if isinstance(cell, float) and math.isnan(cell) else cell for row in rows for cell in row]
    try:
        seen = {cell for cell in flat if cell is not None}
    except TypeError as error:
        raise InputError(f"a rating is one label or number per cell: {error}") from None
    values, ordered = _categories(seen, order)
    code = {value: n for n, value in enumerate(values)}
    codes = np.fromiter((-1 if cell is None else code[cell] for cell in flat), dtype=np.int64, count=len(flat))
    return Ratings(codes.reshape(len(rows), raters), values, ordered)


def _of_numbers(table: npt.NDArray[Any]) -> Ratings:
    given = ~np.isnan(table)
    values, found = np.unique(table[given], return_inverse=True)
    codes = np.full(table.shape, -1, dtype=np.int64)
    codes[given] = found
    return Ratings(codes, tuple(values.tolist()), ordered=True)


def _categories(seen: set[Any], order: Sequence[Any] | None) -> tuple[tuple[Any, ...], bool]:
    if order is not None:
        strange = seen - set(order)
        if strange:
            raise InputError(f"rating {min(strange, key=str)!r} is not in the order {list(order)!r}")
        return tuple(dict.fromkeys(order)), True
    if all(isinstance(value, int | float) for value in seen):
        return tuple(sorted(seen)), True
    return tuple(sorted(seen, key=lambda value: (str(type(value)), str(value)))), False
