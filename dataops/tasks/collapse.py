"""The alarm for collapse: a policy that says less and less different things from round to round.

    entropy      mean negative log-probability of a token, in nats, where the engine told log-probabilities
    distinct_1   different words by all words, over the samples of a prompt, mean over the prompts (Li et al. 2016)
    distinct_2   the same of two words after each other

Both rounds are held to the prompts that they share (to all where they share none, which is said) and to as many samples
of each as both have; with one sample the words are those of all prompts together. A measure alarms where it fell by
more than `limit` of what it was. The law: what was not measured in both rounds raises no alarm, and is null.

Not covered: the same thing said in other words, and rounds at different temperatures, whose entropies differ for no
other reason.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import canonical_json
from gristmill.dataops.op import op

#: A share of the previous round's value: a choice of ours. Compare runs of your own before you trust it.
LIMIT = 0.2
MEASURES = ("entropy", "distinct_1", "distinct_2")
#: (texts, n) to the share of different n-grams, None without any.
Distinct = Callable[[Sequence[str], int], float | None]
Rounds = Mapping[str, list[dict[str, Any]]]


@op("scores.collapse", version=1, kind="artifact")
def collapse(inputs: Sequence[Dataset], folder: Path, *, limit: float, distinct_context: Distinct) -> dict[str, Any]:
    """The measures of the first input's responses and, where there is a second, the previous round, what fell."""
    rounds = [_responses(item) for item in inputs]
    told = compare(rounds[0], rounds[1] if len(rounds) > 1 else None, limit, distinct_context)
    (folder / "collapse.json").write_text(json.dumps(told, indent=1, sort_keys=True))
    return told


def compare(now: Rounds, before: Rounds | None, limit: float, distinct: Distinct) -> dict[str, Any]:
    """`now` and `before` (measures, prompts, samples of each), `fell` (shares), `alarms` (names), `shared` (prompts).
    Raises InputError for a limit that is no share."""
    if not 0 < limit < 1:
        raise InputError(f"the limit of collapse is {limit}; it is a share, between 0 and 1")
    both = set(now) if before is None else set(now) & set(before)
    rounds = [now] if before is None else [now, before]
    held = [{name: rows for name, rows in item.items() if not both or name in both} for item in rounds]
    samples = min((max((len(rows) for rows in item.values()), default=0) for item in held), default=0)
    found = [_measured(item, samples, distinct) for item in held]
    if before is None:
        return {"now": found[0], "before": None, "fell": {}, "alarms": [], "limit": limit, "shared": None}
    fell: dict[str, float | None] = {}
    for name in MEASURES:
        new, old = found[0][name], found[1][name]
        fell[name] = None if new is None or old is None or old <= 0 else (old - new) / old
    alarms = [name for name, share in fell.items() if share is not None and share > limit]
    return {"now": found[0], "before": found[1], "fell": fell, "alarms": alarms, "limit": limit, "shared": len(both)}


def _measured(held: Rounds, samples: int, distinct: Distinct) -> dict[str, Any]:
    """Of prompts with as many samples, the first ones."""
    whole = [rows[:samples] for rows in held.values() if len(rows) >= samples]
    told = [row for rows in whole for row in rows if row.get("logprob") is not None and row.get("tokens")]
    tokens = sum(row["tokens"] for row in told)
    groups = [[row["response"] for row in rows] for rows in whole]
    if samples == 1:
        groups = [[text for texts in groups for text in texts]]
    found: dict[str, Any] = {"entropy": -math.fsum(row["logprob"] for row in told) / tokens if tokens else None}
    for n in (1, 2):
        shares = [share for texts in groups if (share := distinct(texts, n)) is not None]
        found[f"distinct_{n}"] = math.fsum(shares) / len(shares) if shares else None
    return {**found, "prompts": len(whole), "samples": samples}


def _responses(dataset: Dataset) -> Rounds:
    """The responses that were given, by prompt, in the order of the dataset."""
    names = dataset.schema().names
    if missing := [name for name in ("prompt", "response") if name not in names]:
        raise InputError(f"{dataset.name} has no column {missing[0]!r}: it holds no responses")
    found: dict[str, list[dict[str, Any]]] = {}
    for batch in dataset.batches(8192, [name for name in ("prompt", "response", "tokens", "logprob") if name in names]):
        for row in batch.to_pylist():
            if row["response"] is not None:
                found.setdefault(canonical_json(row.pop("prompt")), []).append(row)
    return found
