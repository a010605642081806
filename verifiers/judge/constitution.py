"""Constitutions: the principles that a judge goes by, with weights, read from a YAML file.

    principles:
      - {name: correct, text: What it states is true., weight: 3}

The law: the digest is of what is said, in its order, and not of the file: comments, quotes and line breaks do not
count, a word or a weight does. A file that says anything unknown is refused, so that a slip is not a principle less.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.dataops.identity import sha256_json

#: The constitution that is used where none is given.
SHIPPED = Path(__file__).parent / "constitution.yaml"


@dataclass(frozen=True)
class Principle:
    """One thing to go by; its weight is above 0 and relative to the others'."""

    name: str
    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Constitution:
    """Principles in the order in which a judge reads them."""

    principles: tuple[Principle, ...]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of names, texts and weights in order."""
        return sha256_json([[item.name, item.text, item.weight] for item in self.principles])

    @functools.cached_property
    def told(self) -> str:
        """The principles as a judge reads them, with each one's share of the weight in per cent."""
        total = math.fsum(item.weight for item in self.principles)
        return "\n".join(f"- {item.name} ({100 * item.weight / total:.0f} %): {item.text}" for item in self.principles)


def read(path: str | Path = SHIPPED) -> Constitution:
    """The constitution in a YAML file. Raises InputError naming the file, the entry and what is wrong with it."""
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or content.keys() != {"principles"}:
        raise InputError(f"{path}: a constitution has the one key `principles`, a list of {{name, text, weight}}")
    return Constitution(principles(content["principles"], str(path)))


@functools.cache
def shipped() -> Constitution:
    """The shipped constitution."""
    return read()


def principles(items: Any, where: str) -> tuple[Principle, ...]:
    """Principles from plain data, a list of {name, text, weight} or of texts. Raises InputError naming the entry."""
    if not isinstance(items, Sequence) or isinstance(items, str | bytes) or not items:
        raise InputError(f"{where}: principles are a list with at least one entry; there is {str(items)[:80]!r}")
    found = [_principle(item, f"{where}: principle {n}", n) for n, item in enumerate(items, 1)]
    names = [item.name for item in found]
    for n, name in enumerate(names, 1):
        if name in names[: n - 1]:
            raise InputError(f"{where}: principle {n} is called {name!r}, as another one is; give it a name of its own")
    return tuple(found)


def _principle(item: Any, where: str, n: int) -> Principle:
    if isinstance(item, str):
        item = {"name": f"criterion_{n}", "text": item}
    if not isinstance(item, dict):
        raise InputError(f"{where} is {str(item)[:80]!r}; it is written as {{name, text, weight}}")
    unknown = sorted(map(str, item.keys() - {"name", "text", "weight"}))
    if unknown:
        raise InputError(f"{where} has {', '.join(unknown)}; a principle has name, text and weight")
    for key in ("name", "text"):
        if not isinstance(item.get(key), str) or not item[key].strip():
            raise InputError(f"{where} has no {key}: a text is wanted, there is {item.get(key)!r}")
    weight = item.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not (0 < weight < math.inf):
        raise InputError(f"{where} ({item['name']}) has the weight {weight!r}; a number above 0 is wanted")
    return Principle(" ".join(item["name"].split()), " ".join(item["text"].split()), float(weight))
