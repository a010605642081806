"""What KTO makes of a run's thumbs, known before it starts: the planned order is a pure function of the spec."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from gristmill.training.post.data import plan
from gristmill.training.preferences.rows import Rows
from gristmill.training.preferences.spec import PreferenceSpec


def tally(spec: PreferenceSpec, sources: Sequence[Rows], window: int | None) -> dict[str, int]:
    """How many replies of the run are liked and disliked, and how many of the mismatched ones that KTO takes its KL
    from are cut to the window. Warns where the two kinds weigh too differently (Ethayarajh et al. 2024, equation 8)."""
    weights = [source.weight for source in spec.data]
    counts = [rows.table.num_rows for rows in sources]
    source, row = plan(counts, weights, spec.seed, spec.steps * spec.rows)
    whole = np.cumsum([0, *counts])[source] + row

    def drawn(name: str) -> np.ndarray:
        columns = [rows.table[name] for rows in sources]
        values = [column if name == "label" else pc.list_value_length(column) for column in columns]
        return np.concatenate([value.to_numpy() for value in values])[whole]

    liked = drawn("label").astype(bool)
    prompts, replies = (
        drawn(name).reshape(-1, spec.rows // spec.accumulate) for name in ("prompt_ids", "completion_ids")
    )
    cut = 0 if window is None else int((prompts + np.roll(replies, 1, axis=1) > window).sum())
    desired, undesired = spec.desirable_weight * liked.sum(), spec.undesirable_weight * (~liked).sum()
    if 3 * max(desired, undesired) > 4 * min(desired, undesired):
        print(
            f"warning: liked replies weigh {desired:g}, disliked ones {undesired:g}: KTO wants them within a factor of "
            "4/3; set desirable_weight or undesirable_weight",
            file=sys.stderr,
        )
    return {"liked": int(liked.sum()), "disliked": int((~liked).sum()), "kl_replies_cut": cut}
