"""How much of the pairs a model could have said itself: log-probabilities of both replies, where they were computed.

`gristmill.training.logprobs` publishes them, a row per encoded pair; they are found by the ids of the pairs. A reply
counts as on-policy where it costs the model at most ON_POLICY nats a token on average: what a model samples at
temperature 1 costs it its own entropy, mostly below 1 nat, and what others wrote mostly 2 and more. That line is a
convention, and so it is drawn on the chart of what it cuts. The law: a pair without log-probabilities is in no share,
and how many have them is said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.noise.biases import share
from gristmill.dataops.report.bins import histogram, tidy
from gristmill.dataops.store import Store

ON_POLICY = 1.5  # nats per token
_OP = "logprobs"
_SUMS = ("ref_chosen_logps", "ref_rejected_logps")


def on_policy(dataset: Dataset, frame: pl.DataFrame) -> dict[str, Any] | None:
    """Nats per token of both replies, the shares below ON_POLICY, and how often the model finds the chosen reply the
    likelier; None where no log-probabilities of these pairs stand under the root. `frame` has `id` and `p`."""
    found = _newest(dataset, frame)
    if found is None:
        return None
    source, rows = found
    cost = {side: -(rows[f"ref_{side}_logps"] / rows[f"{side}_n"]).to_numpy() for side in ("chosen", "rejected")}
    prompts = rows["p"].to_numpy()
    sums = [rows[name].to_numpy() for name in _SUMS]
    both = np.concatenate(list(cost.values()))
    model = source.manifest["stats"].get("model") or {}
    return {
        "model": model.get("name"),
        "dataset": {"name": source.name, "key": source.key},
        "threshold": ON_POLICY,
        "pairs": rows.height,
        **{side: share(values <= ON_POLICY, prompts) for side, values in cost.items()},
        "both": share((cost["chosen"] <= ON_POLICY) & (cost["rejected"] <= ON_POLICY), prompts),
        "likelier": share(sums[0] > sums[1], prompts),
        "likelier_per_token": share(cost["chosen"] < cost["rejected"], prompts),
        "median": {side: tidy(float(np.median(values))) for side, values in cost.items()},
        "bins": histogram(both, np.arange(len(both)) < len(prompts), (ON_POLICY,)),
    }


def _newest(dataset: Dataset, frame: pl.DataFrame) -> tuple[Dataset, pl.DataFrame] | None:
    """The newest log-probabilities of any of these pairs, and how many tokens both replies have."""
    if "://" in dataset.root:
        return None  # a catalogue of a remote root is not walked for this
    made = [item for item in Store(Path(dataset.root)).all() if item.kind == "rows" and _is_logprobs(item)]
    for item in sorted(made, key=lambda item: (str(item.manifest["made"].get("at", "")), item.key), reverse=True):
        try:
            encoded = item.input(0)
        except InputError:
            continue  # without the encoded pairs there is no number of tokens
        rows = item.scan().select("pair", *_SUMS).join(frame.lazy().select("id", "p"), left_on="pair", right_on="id")
        sizes = [pl.col(f"{side}_ids").list.len().alias(f"{side}_n") for side in ("chosen", "rejected")]
        rows = rows.join(encoded.scan().select("id", *sizes), left_on="pair", right_on="id").sort("pair")
        taken = rows.filter((pl.col("chosen_n") > 0) & (pl.col("rejected_n") > 0)).collect()
        if taken.height:
            return item, taken
    return None


def _is_logprobs(item: Dataset) -> bool:
    return any(op["name"] == _OP for op in item.manifest["ops"])
