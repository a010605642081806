"""Weights by tensor: a number for all of a model, or numbers by patterns over names and by layer.

    0.5                                                    every tensor
    {"*.mlp.*": 0.7, "*": 0.3}                             the first pattern that a name matches decides
    {"*.layers.*": [0.0, 0.5, 1.0], "*": 0.5}              a gradient: spread evenly over the layers, straight between

Patterns are those of a shell (* ? [...]), over the whole name, capitals told apart. A tensor's layer is the first
number in its name (`model.layers.3.mlp.up_proj.weight`: 3).

The law kept here: every tensor gets a weight because the spec says so, and every pattern decides about some tensor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from gristmill.dataops.dataset import InputError

Weight = float | Mapping[str, float | Sequence[float]]
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to by its name; None for embeddings, the last norm and the head."""
    found = _LAYER.search(name)
    return None if found is None else int(found[1])


def weights_by_tensor(weight: Weight, names: Collection[str], where: str) -> dict[str, float]:
    """The weight of every tensor in `names`; `where` says whose it is in what an InputError says: a tensor that no
    pattern matches, a pattern that decides about none, a gradient for a tensor without a layer."""
    if not isinstance(weight, Mapping):
        return dict.fromkeys(names, float(weight))
    last = max((layer for name in names if (layer := layer_of(name)) is not None), default=0)
    used: set[str] = set()
    found = {}
    for name in names:
        pattern = next((pattern for pattern in weight if fnmatchcase(name, pattern)), None)
        if pattern is None:
            raise InputError(f'{where}: no pattern matches {name}; add "*" as the last one')
        used.add(pattern)
        value, layer = weight[pattern], layer_of(name)
        if isinstance(value, (int, float)):
            found[name] = float(value)
        elif layer is None:
            raise InputError(
                f"{where}: {pattern!r} has a gradient over layers and {name} is in none; "
                "put a pattern with one number for it before"
            )
        else:
            found[name] = gradient(value, layer, last)
    if idle := [pattern for pattern in weight if pattern not in used]:
        raise InputError(
            f"{where}: the pattern {idle[0]!r} decides about no tensor (a name is {min(names)}); "
            "the first pattern that matches decides, so put the narrow ones first"
        )
    return found


def gradient(values: Sequence[float], layer: int, last: int) -> float:
    """The value at a layer of numbers spread evenly from layer 0 to the last, on the straight line between two."""
    place = layer / last * (len(values) - 1) if last else 0.0
    left = min(int(place), len(values) - 2)
    share = place - left
    return values[left] * (1 - share) + values[left + 1] * share
