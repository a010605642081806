"""The arithmetic of merging, over float32 blocks: 1-dimensional runs of a tensor's elements, so that memory is that of
a few blocks whatever the tensor's size. b is the base, x_i the models, d_i = x_i - b the task vectors (Ilharco et al.
2023), w_i the weights.

    linear           sum w_i x_i / sum w_i                            model soup, Wortsman et al. 2022
    slerp            along the great circle from x_1 to x_2           Shoemake 1985, over the flattened tensor
    task_arithmetic  b + sum w_i d_i                                  Ilharco et al. 2023
    ties             b + scale * mean of the d_i that agree           Yadav et al. 2023: trim, elect sign, disjoint mean
    dare             b + sum w_i drop(d_i) / density                  Yu et al. 2024: each kept with chance `density`
    dare_ties        b + scale * mean of the drop(d_i) / density that agree

Where the papers leave room: TIES trims tensor by tensor (a stream knows no more), elements of equal magnitude stand or
fall together, and models with unequal weights have their say in the election and the mean by these; equal weights are
the paper's. DARE takes the place of the trimming in dare_ties.

The law kept here: the result is a function of the values, the weights, the seed and the tensor's name alone. Not of
threads or blocks: every element is computed by single IEEE operations (no fused ones), sums over elements are exact
counts or float64 sums over fixed blocks added in order, and random numbers come from a counter.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch

METHODS = ("linear", "slerp", "task_arithmetic", "ties", "dare", "dare_ties")
PARALLEL = 0.9995  # above this |cosine| slerp is lerp: the sine of the angle between is lost to rounding

T = TypeVar("T")
#: Elements [start, stop) of one model's flattened tensor, float32; the caller may write into what it gets.
Read = Callable[[int, int], torch.Tensor]
#: Calls a function of (start, stop) for every block of a tensor; the results in the order of the blocks.
Each = Callable[[Callable[[int, int], T]], Iterable[T]]


def linear(models: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted mean, as a running one: equal models give that model exactly. Weights are above 0."""
    mean, total = models[0], weights[0]
    for model, weight in zip(models[1:], weights[1:], strict=True):
        total += weight
        mean = mean + (model - mean).mul_(weight / total)
    return mean


def task_arithmetic(base: torch.Tensor, deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The base plus the weighted sum of the task vectors."""
    total = deltas[0] * weights[0]
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        total += delta * weight
    return total.add_(base)


def slerp_factors(dot: float, first: float, second: float, t: float) -> tuple[float, float]:
    """What to multiply two vectors by for the point at t (0 the first, 1 the second) on the arc between them, from
    their dot product and their Euclidean norms; those of the straight line where they are parallel or one is zero."""
    cosine = dot / (first * second) if first > 0 and second > 0 else 1.0
    if abs(cosine) > PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def disjoint_mean(deltas: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """TIES after the trimming: per element the sign with the greater weighted mass is elected, and the weighted mean
    taken over the models whose value has that sign (0 is of no sign). 0 where the masses are equal. Weights above 0."""
    mass = deltas[0] * weights[0]
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        mass += delta * weight
    sign = mass.sign_()
    total, voters, flag = torch.zeros_like(sign), torch.zeros_like(sign), torch.empty_like(sign)
    for delta, weight in zip(deltas, weights, strict=True):
        agreeing = (delta * sign).clamp_(min=0)  # the magnitude where the signs agree
        torch.gt(agreeing, 0, out=flag)
        total += agreeing.mul_(weight)
        voters += flag.mul_(weight)
    torch.eq(voters, 0, out=flag)
    return total.div_(voters.add_(flag)).mul_(sign)


def trim(delta: torch.Tensor, threshold: float) -> torch.Tensor:
    """The elements of at least that magnitude, 0 for the others. `threshold` is a float32 value from `magnitude`."""
    if threshold <= 0:
        return delta
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    return torch.nn.functional.hardshrink(delta, below)  # keeps what is strictly above


def magnitude(each: Each[np.ndarray], delta: Read, rank: int) -> float:
    """The `rank`-th largest magnitude (from 1) of a tensor read in blocks, exactly and in little memory.

    The bits of a float32 that is not negative order as its value does: a histogram of their upper half, then one of
    the lower half within the bin that holds the rank.
    """

    def bits(start: int, stop: int) -> np.ndarray:
        return delta(start, stop).abs_().numpy().view(np.uint32)

    def upper(start: int, stop: int) -> np.ndarray:
        return np.bincount(bits(start, stop) >> 16, minlength=1 << 15)

    high, left = _bin_of(each(upper), rank)

    def lower(start: int, stop: int) -> np.ndarray:
        found = bits(start, stop)
        return np.bincount(found[found >> 16 == high] & 0xFFFF, minlength=1 << 16)

    low, _ = _bin_of(each(lower), left)
    return float(np.uint32(high << 16 | low).view(np.float32))


def _bin_of(histograms: Iterable[np.ndarray], rank: int) -> tuple[int, int]:
    """The bin that holds the `rank`-th largest, and its rank within that bin."""
    parts = iter(histograms)
    counts = next(parts).copy()
    for part in parts:
        counts += part
    at_least = counts[::-1].cumsum()[::-1]
    found = int(np.flatnonzero(at_least >= rank)[-1])
    return found, rank - int(at_least[found] - counts[found])


def dare_key(seed: int, tensor: str, model: str) -> int:
    """The 128-bit key of one tensor's random numbers: another for every seed, tensor and `model`
    (what names its values)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{model}:{tensor}".encode()).digest()[:16], "big")


def dare(delta: torch.Tensor, density: float, key: int, start: int) -> torch.Tensor:
    """Each element kept with chance `density` and divided by it, in place. `start` is the block's place in its tensor,
    a multiple of 8: one step of the counter of Philox-4x64 (Salmon et al. 2011) gives eight 32-bit numbers."""
    size = len(delta)
    drawn = np.random.Philox(key=key, counter=start // 8).random_raw(-(-size // 2)).view(np.uint32)[:size]
    values = delta.numpy()
    np.multiply(values, drawn < round(density * 2**32), out=values)
    return delta.mul_(1 / density)


def merged(
    method: str,
    tensor: str,
    size: int,
    base: Read | None,
    models: Sequence[Read],
    weights: Sequence[float],
    each: Each,
    *,
    density: float = 1.0,
    scale: float = 1.0,
    seed: int = 0,
    keys: Sequence[str] = (),
) -> Read:
    """Read a merged tensor of `size` elements block by block. `base` is None for linear and slerp; a model of weight 0
    is not read. `keys` name the models' values to dare.
    Passes that a method makes over the whole tensor happen here."""
    chosen = [(read, weight, n) for n, (read, weight) in enumerate(zip(models, weights, strict=True)) if weight != 0]
    reads = [read for read, _, _ in chosen]
    weights = [weight for _, weight, _ in chosen]
    if base is None:
        if len(reads) == 1:
            return reads[0]
        if method == "slerp":
            return _slerp(reads[0], reads[1], weights[1] / (weights[0] + weights[1]), each)
        return lambda start, stop: linear([read(start, stop) for read in reads], weights)
    if not reads or scale == 0:
        return base

    if method.endswith("ties") and len(set(weights)) == 1:
        weights = [1.0] * len(weights)  # only their ratios count, and 1 costs no rounding
    #: What becomes of each task vector before they are added: called with a block and its place in the tensor.
    steps: list[Callable[[torch.Tensor, int], torch.Tensor]] = [lambda delta, _: delta] * len(reads)
    if method == "ties" and density < 1:
        rank = max(1, round(density * size))
        steps = [_trimming(magnitude(each, _delta(base, read), rank)) for read in reads]
    if method.startswith("dare") and density < 1:
        steps = [_dropping(density, dare_key(seed, tensor, keys[n])) for _, _, n in chosen]

    def block(start: int, stop: int) -> torch.Tensor:
        here = base(start, stop)
        deltas = [step(read(start, stop).sub_(here), start) for read, step in zip(reads, steps, strict=True)]
        if method.endswith("ties"):
            return disjoint_mean(deltas, weights).mul_(scale).add_(here)
        return task_arithmetic(here, deltas, weights)

    return block


def _slerp(first: Read, second: Read, t: float, each: Each) -> Read:
    def products(start: int, stop: int) -> tuple[float, float, float]:
        a, b = (read(start, stop).numpy().astype(np.float64) for read in (first, second))
        return float((a * b).sum()), float((a * a).sum()), float((b * b).sum())

    dot, a, b = (math.fsum(parts) for parts in zip(*each(products), strict=True))
    left, right = slerp_factors(dot, math.sqrt(a), math.sqrt(b), t)
    return lambda start, stop: first(start, stop).mul_(left).add_(second(start, stop).mul_(right))


def _delta(base: Read, read: Read) -> Read:
    return lambda start, stop: read(start, stop).sub_(base(start, stop))


def _trimming(threshold: float) -> Callable[[torch.Tensor, int], torch.Tensor]:
    return lambda delta, _: trim(delta, threshold)


def _dropping(density: float, key: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    return lambda delta, start: dare(delta, density, key, start)
