"""What is told of a run: a line of metrics per iteration, the curve to draw, the summary in the manifest.

The law: a mean is over what was judged, and says None where nothing was; what was not judged is told as a share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gristmill.training.proximal.advantage import explained_variance
from gristmill.training.proximal.record import Rollouts
from gristmill.training.proximal.settings import PPOSpec
from gristmill.training.proximal.update import TERMS, Kept, Targets

ENDS = 10  # iterations at either end whose means are told
CURVE = 200  # points of the curve at most
NORMS = ("policy_norm", "value_norm")


def measured(rollouts: Rollouts, wanted: Targets | None, spec: PPOSpec, kept: Kept) -> dict[str, Any]:
    """Of the iteration that ends. `reward` is the mean score, `rewards` by scorer; `kl` nats per response to the
    reference, estimated on the responses; `coefficient` what was paid for it; `approx_kl` nats per token by which the
    policy moved, and `left_out` the steps not taken for it; losses, entropy and norms are means over the steps
    that were; `explained_variance` is the value model's before them."""
    judged, lengths = rollouts.judged, rollouts.sequences.mask().sum(1).numpy()
    means = {  # a step that was too wild to take may have numbers that are none
        name: _mean([part[name] for part in kept.parts if math.isfinite(part[name])]) for name in (*TERMS, *NORMS)
    }
    rewards = {
        name: _mean([s.score for s in (kind[name] for kind in rollouts.kinds) if s.score is not None])
        for name in rollouts.kinds[0]
    }
    kl = explained = None
    steps = 0
    if wanted is not None:
        reference = rollouts.reference[judged][:, : wanted.mask.shape[1]]
        kl = float((wanted.logprobs - reference)[wanted.mask].double().sum()) / len(judged)
        explained = explained_variance(wanted.values[wanted.mask], wanted.returns[wanted.mask])
        steps = spec.epochs * min(spec.minibatches, len(judged))
    return {
        "iteration": kept.iteration + 1,
        "step": kept.steps,
        "tokens": kept.tokens + int(lengths.sum()),
        "reward": _mean(rollouts.scores[judged].tolist()),
        "rewards": rewards,
        "unjudged": 1 - len(judged) / len(rollouts.scores),
        "kl": kl,
        "coefficient": kept.coefficient,
        "response_length": float(lengths.mean()),
        "ended": float(np.mean(rollouts.ended)),
        "explained_variance": explained,
        **means,
        "left_out": steps - len(kept.parts),
        "learning_rate": spec.optimiser.rate(kept.iteration / spec.iterations),
    }


def line(spec: PPOSpec, told: Mapping[str, Any], seconds: float) -> str:
    """An iteration as a line of progress; `seconds` since the process went to work."""
    shown = [f"iteration {told['iteration']}/{spec.iterations}"]
    for name in ("reward", "kl", "coefficient", "entropy", "clip_fraction", "response_length"):
        if told[name] is not None:
            shown.append(f"{name.replace('_', ' ')} {told[name]:.4g}")
    if told["unjudged"]:
        shown.append(f"{told['unjudged']:.0%} not judged")
    return "  ".join([*shown, f"{seconds:.0f} s"])


def averages(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first and the last ENDS iterations, and totals."""
    ends = {
        f"{end}_{name}": _mean([item[name] for item in part if item[name] is not None])
        for end, part in (("first", metrics[:ENDS]), ("last", metrics[-ENDS:]))
        for name in ("reward", "kl", "entropy", "response_length")
    }
    unjudged = float(np.mean([item["unjudged"] for item in metrics]))
    return {**ends, "unjudged": unjudged, "iterations": len(metrics), "tokens": metrics[-1]["tokens"]}


def curve(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """At most CURVE points to draw: means over runs of iterations, and where each run ends. `loss` is the value
    model's: the policy's is near 0 by its making."""
    runs = np.array_split(np.arange(len(metrics)), min(len(metrics), CURVE))
    means = {
        name: [_mean([metrics[i][told] for i in run if metrics[i][told] is not None]) for run in runs]
        for name, told in (("loss", "value_loss"), ("reward", "reward"), ("kl", "kl"), ("entropy", "entropy"))
    }
    ends: dict[str, list[Any]] = {name: [metrics[run[-1]][name] for run in runs] for name in ("step", "tokens")}
    return ends | means


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
