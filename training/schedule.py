"""Learning rates over a budget, and when a step is too wild to take.

The laws: the factor depends on the part of the budget that is used and on nothing else; a step that is not finite never
touches the weights.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gristmill.dataops.dataset import InputError
from gristmill.training.spec import check_fields

FLOOR = 0.1  # of the peak, at both ends
WINDOW = 100  # steps whose norms say what is usual
PATIENCE = 10  # steps in a row that may be left out before training is given up


@dataclass(frozen=True)
class Optimiser:
    """AdamW and its schedule. The rate rises from a tenth of `learning_rate` over the fraction `warmup` of the budget.

    "cosine" falls to a tenth at the end (Hoffmann et al. 2022); "wsd" stays and falls linearly over the last fraction
    `decay` (warm-up, stable, decay: Hu et al. 2024). `grad_clip` is the largest norm of a step's gradients.
    `z_loss` weighs the square of the logits' log-sum (Chowdhery et al. 2022 use 1e-4). A step whose loss or norm is not
    finite is left out, and with `skip_above` one whose norm is more than that many times the median of the last steps;
    after PATIENCE such steps in a row training fails.
    """

    learning_rate: float = 2e-3
    schedule: Literal["cosine", "wsd"] = "cosine"
    warmup: float = 0.1
    decay: float = 0.1
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    grad_clip: float = 1.0
    z_loss: float = 0.0
    skip_above: float | None = None

    def __post_init__(self) -> None:
        """Raises InputError naming the field."""
        check_fields(self, "optimiser")
        if not (self.learning_rate > 0 and self.grad_clip > 0 and self.weight_decay >= 0 and self.z_loss >= 0):
            raise InputError("optimiser: learning_rate and grad_clip above 0, weight_decay and z_loss from 0 on")
        if not (0 <= self.warmup < 1 and 0 < self.decay <= 1 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise InputError("optimiser: 0 <= warmup < 1, 0 < decay <= 1, betas in [0, 1)")
        if self.skip_above is not None and self.skip_above <= 1:
            raise InputError("optimiser: skip_above is a multiple of the usual norm, above 1")

    def rate(self, done: float) -> float:
        """The learning rate when the fraction `done` of the budget is used (0 to 1)."""
        if done < self.warmup:
            return self.learning_rate * (FLOOR + (1 - FLOOR) * done / self.warmup)
        if self.schedule == "wsd":
            fallen = max(0.0, done - (1 - self.decay)) / self.decay
            return self.learning_rate * (1 - (1 - FLOOR) * min(fallen, 1.0))
        rest = min((done - self.warmup) / (1 - self.warmup), 1.0)
        return self.learning_rate * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * rest)) / 2)


class Watch:
    """Says which steps are left out. `norms` are those of the last steps that were taken."""

    def __init__(self, skip_above: float | None, norms: Iterable[float] = (), skipped: int = 0, row: int = 0) -> None:
        self.skip_above = skip_above
        self.norms = deque(norms, maxlen=WINDOW)
        self.skipped, self.row = skipped, row

    def takes(self, loss: float, norm: float) -> bool:
        """Whether the step may be taken. Raises RuntimeError where too many in a row may not."""
        wild = not (math.isfinite(loss) and math.isfinite(norm))
        if self.skip_above is not None and len(self.norms) >= WINDOW // 4:
            wild = wild or norm > self.skip_above * statistics.median(self.norms)
        if not wild:
            self.norms.append(norm)
            self.row = 0
            return True
        self.skipped += 1
        self.row += 1
        if self.row >= PATIENCE:
            raise RuntimeError(
                f"{self.row} steps in a row could not be taken (the last: loss {loss:.4g}, norm {norm:.4g}): "
                "lower learning_rate, lengthen warmup, or look at the data at this cursor"
            )
        return False
