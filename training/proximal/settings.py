"""What a PPO run is made of: the spec, held to what can be trained with.

The defaults are those of Ziegler et al. (2019) and Ouyang et al. (2022) where they agree with what a small run needs:
lambda 0.95, no discount, clipping at 0.2, four epochs over each batch of rollouts. Not covered: LoRA, several devices,
a reference other than the checkpoint that training starts from.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.training.schedule import Optimiser
from gristmill.training.scoring import Scorer
from gristmill.training.spec import Input, check_fields, check_name

OP, ROLLOUTS, VERSION = "ppo", "ppo.rollouts", 1
PLACES = ("tasks", "start", "tokenizer", "root", "name", "save_seconds")  # not identity: digests enter as inputs
ERROR = 0.2  # the relative error of the KL is held to it (Ziegler et al. 2019)
REWARD = "reward_model"  # the name that a reward model's scores go by


@dataclass(frozen=True)
class KL:
    """The penalty for each token's log-probability ratio to the reference, as a `coefficient` times nats.

    With a `target` (nats per response) the coefficient is adapted after every iteration so that the measured KL comes
    near it (Ziegler et al. 2019, section 2.2): over `horizon` responses it changes by a factor of exp(0.2) at most.
    Without one it stays.
    """

    coefficient: float = 0.1
    target: float | None = None
    horizon: float = 10_000.0

    def __post_init__(self) -> None:
        check_fields(self, "kl")
        if self.coefficient < 0 or self.horizon <= 0 or (self.target is not None and self.target <= 0):
            raise InputError("kl: coefficient from 0 on, target and horizon above 0")
        if self.target is not None and self.coefficient == 0:
            raise InputError("kl: a coefficient of 0 stays 0 whatever the target; start above 0")


@dataclass(frozen=True)
class RewardModel(Input):
    """A reward model's checkpoint (one score per response), and the weight of its scores."""

    weight: float = 1.0


@dataclass(frozen=True)
class PPOSpec:
    """What to train; the checkpoint is published as root/name/key, its rollouts as root/name-rollouts.

    `tasks` is a dataset of rows with `prompt` (messages) and whatever columns the scorers read. The policy begins as
    the checkpoint `start`, which also stays as the reference. `tokenizer` is a chat tokenizer, where `start` has none.
    The reward of a response is the weighted sum of what `scorers` and the `reward` model say of it; a response that one
    of them could not judge is left out of everything that trains.

    Each of `iterations` samples `rollouts` responses of at most `max_new_tokens`, at `temperature`, and goes over them
    `epochs` times in `minibatches` optimiser steps. `gamma` and `lam` are GAE's; `whiten` gives the advantages of an
    iteration mean 0 and variance 1. `clip` bounds the policy's ratio, `value_clip` how far values move (null: freely).
    `entropy` is the weight of the entropy in the objective. `missing_end` is taken off the score of a response that
    does not end by itself. Once the policy has moved `stop_kl` nats per token from the one that sampled, the rest of
    the iteration's steps is left out.

    `batch_tokens` bounds, padding counted, what goes through a model at once (memory; a step of several pieces is still
    one step); `rollout_tokens` does so while sampling. The state is kept every `save_seconds`.
    """

    tasks: Input
    start: Input
    root: str
    name: str = "ppo"
    tokenizer: Input | None = None
    scorers: tuple[Scorer, ...] = ()
    reward: RewardModel | None = None
    iterations: int = 100
    rollouts: int = 64
    epochs: int = 4
    minibatches: int = 4
    max_new_tokens: int = 128
    temperature: float = 1.0
    kl: KL = field(default_factory=KL)
    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True
    clip: float = 0.2
    value_clip: float | None = 0.2
    entropy: float = 0.0
    missing_end: float = 0.0
    stop_kl: float | None = None
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=1e-6, weight_decay=0.0))
    value_optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=5e-6, weight_decay=0.0))
    batch_tokens: int = 8_192
    rollout_tokens: int = 65_536
    checkpointing: bool = False
    seed: int = 0
    save_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for values that cannot be trained with."""
        check_fields(self)
        check_name(self.name)
        above = "iterations rollouts epochs minibatches max_new_tokens temperature clip batch_tokens rollout_tokens"
        for name in (*above.split(), "value_clip", "stop_kl", "save_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"spec: {name} is {value!r}; it must be above 0")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"spec: {name} is {getattr(self, name)!r}; it lies from 0 to 1")
        for name in ("entropy", "missing_end"):
            if getattr(self, name) < 0:
                raise InputError(f"spec: {name} is {getattr(self, name)!r}; it must be 0 or above")
        if self.minibatches > self.rollouts:
            raise InputError(f"spec: {self.rollouts} rollouts do not fill {self.minibatches} minibatches")
        if self.kl.target is not None and self.kl.horizon <= ERROR * self.rollouts:
            raise InputError(
                f"spec: kl's horizon of {self.kl.horizon:g} responses is within a fifth of {self.rollouts} rollouts, "
                "where the coefficient can fall to 0 at once; make it longer"
            )
        names = [scorer.name for scorer in self.scorers] + [REWARD] * (self.reward is not None)
        if not names:
            raise InputError("spec: nothing gives a reward; name scorers, or a reward model in reward")
        if len(set(names)) < len(names):
            raise InputError(f"spec: scorers are {', '.join(names)}; each needs a name of its own")
        if self.optimiser.z_loss or self.value_optimiser.z_loss:
            raise InputError("spec: z_loss belongs to pretraining; leave it out of optimiser and value_optimiser")
        if not 0 <= self.seed < 1 << 63:
            raise InputError("spec: 0 <= seed < 2**63 must hold")

    @property
    def steps(self) -> int:
        """Optimiser steps at most."""
        return self.iterations * self.epochs * self.minibatches

    @property
    def params(self) -> dict[str, Any]:
        """The identity, without the datasets, whose digests enter as inputs."""
        params = {k: v for k, v in dataclasses.asdict(self).items() if k not in PLACES and k != "reward"}
        return params | {"reward": None if self.reward is None else {"weight": self.reward.weight}}

    def op(self, name: str) -> dict[str, Any]:
        """The op of the checkpoint's manifest (OP), or that of its rollouts' (ROLLOUTS)."""
        given = {"tokenizer": self.tokenizer is not None}
        return {"name": name, "version": VERSION, "params": self.params | {"given": given}}
