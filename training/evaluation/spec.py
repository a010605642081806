"""What an evaluation asks: held-out text and pairs, tasks with scorers, comparisons, tasks of the evaluation harness.

The law kept here: what decides a figure is identity (data by digest, scorers, sampling, limits, seed); paths and names
of folders are not. Not covered: what a scorer's settings mean, which its factory checks.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.training.engines.settings import EngineSettings
from gristmill.training.scoring import Scorer
from gristmill.training.spec import Input, check_fields, check_name

OP, VERSION = "evaluate", 1
HARNESS = "lm_eval"  # the prefix of its measures


@dataclass(frozen=True)
class Slice:
    """A packed dataset whose perplexity is told under a name. At most `limit` of its rows are read."""

    name: str
    path: str
    digest: str
    limit: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "slice")
        _check(self.name, self.limit, "slice")


@dataclass(frozen=True)
class Pairs:
    """Encoded preference pairs, of which it is told how many the model tells apart. At most `limit` are read."""

    name: str
    path: str
    digest: str
    limit: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "pairs")
        _check(self.name, self.limit, "pairs")


@dataclass(frozen=True)
class Task:
    """Rows with a `prompt`, answered `samples` times each at `temperature` in at most `max_tokens` tokens.

    `scorer` says what a response is worth; without one only the texts are measured. `right` is the score from which a
    response counts as right in pass@k and maj@k; None where scores have no such line (a reward model's). In a
    `harmless` task every refusal is one too many. At most `limit` rows are asked.
    """

    name: str
    path: str
    digest: str
    scorer: Scorer | None = None
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int = 256
    right: float | None = 1.0
    harmless: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "task")
        _check(self.name, self.limit, "task")
        if self.samples < 1 or self.max_tokens < 1 or self.temperature < 0:
            raise InputError(f"task {self.name}: samples and max_tokens from 1 on, temperature from 0 on")
        if self.samples > 1 and self.temperature == 0:
            raise InputError(f"task {self.name}: {self.samples} samples at temperature 0 are all the same; raise it")

    @property
    def ks(self) -> list[int]:
        """The k of pass@k: 1, 2, 4, ... and the number of samples."""
        powers = [1 << n for n in range(self.samples.bit_length()) if 1 << n < self.samples]
        return [*powers, self.samples]


@dataclass(frozen=True)
class Comparison:
    """A task whose responses are held against the reference model's. The judge is a scorer whose rows have `against`,
    the other response: its score is the preference for the first seat, 1, 0 or 0.5, or any share between."""

    task: str
    judge: Scorer

    def __post_init__(self) -> None:
        check_fields(self, "comparison")


@dataclass(frozen=True)
class EvaluateSpec:
    """Evaluate a checkpoint; the evaluation is published as root/name/key.

    `reference` is the model it is held against: KL, change of loss, comparisons. `parent` is an earlier evaluation, of
    which changes are told prompt by prompt. `tokenizer` is a chat tokenizer, for a model that has none of its own.
    `engine` generates the responses of the model, and of the reference where they are compared.
    `lm_eval` names tasks of the language model evaluation harness, or YAML files of them, of which at most
    `lm_eval_limit` items are asked.
    """

    model: Input
    root: str
    name: str = "evaluation"
    reference: Input | None = None
    tokenizer: Input | None = None
    parent: Input | None = None
    slices: tuple[Slice, ...] = ()
    pairs: tuple[Pairs, ...] = ()
    tasks: tuple[Task, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    engine: EngineSettings = field(default_factory=EngineSettings)
    lm_eval: tuple[str, ...] = ()
    lm_eval_limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for what cannot be evaluated."""
        check_fields(self)
        check_name(self.name)
        if not (self.asked or self.lm_eval):
            raise InputError("spec: nothing to evaluate; name slices, pairs, tasks or lm_eval")
        names = [item.name for item in self.asked]
        for name, times in Counter(names).items():
            if times > 1 or name == HARNESS:
                raise InputError(f"spec: {name!r} names several slices, pairs or tasks; measures go by these names")
        for compared, times in Counter(item.task for item in self.comparisons).items():
            if compared not in {task.name for task in self.tasks}:
                raise InputError(f"spec: comparisons name the task {compared!r}; tasks has no such one")
            if times > 1:
                raise InputError(f"spec: the task {compared!r} is compared twice; name it twice with two names")
        if self.comparisons and self.reference is None:
            raise InputError("spec: comparisons need a reference, the model whose responses these are held against")
        if self.comparisons and self.engine.kind == "server":
            raise InputError("spec: a server serves one model, comparisons need two; choose another engine")
        if self.engine.kind != "server" and self.engine.folder is not None:
            raise InputError("spec: engine has a folder; what is evaluated is the checkpoint `model`")
        if self.lm_eval_limit is not None and (self.lm_eval_limit < 1 or not self.lm_eval):
            raise InputError("spec: lm_eval_limit is from 1 on, and goes with lm_eval")
        if not 0 <= self.seed < 1 << 31:
            raise InputError("spec: 0 <= seed < 2**31 must hold")

    @property
    def asked(self) -> list[Slice | Pairs | Task]:
        """Slices, then pairs, then tasks."""
        return [*self.slices, *self.pairs, *self.tasks]

    @property
    def inputs(self) -> list[Input]:
        """All that is read, in one order."""
        given = [self.model, self.reference, self.tokenizer, self.parent]
        return [item for item in given if item is not None] + [Input(item.path, item.digest) for item in self.asked]

    @property
    def identity(self) -> dict[str, Any]:
        """The op of the evaluation's manifest."""
        params = {
            "given": [name for name in ("reference", "tokenizer", "parent") if getattr(self, name) is not None],
            "slices": [asked(item) for item in self.slices],
            "tasks": [asked(item) for item in self.tasks],
            "comparisons": [dataclasses.asdict(item) for item in self.comparisons],
            "engine": {name: getattr(self.engine, name) for name in ("kind", "dtype", "model")},
            **{name: getattr(self, name) for name in ("lm_eval", "lm_eval_limit", "seed")},
        }
        if self.pairs:
            params["pairs"] = [asked(item) for item in self.pairs]
        return {"name": OP, "version": VERSION, "params": params}


def asked(item: Slice | Pairs | Task) -> dict[str, Any]:
    """What a slice, pairs or a task ask, wherever its data lies; equal in two evaluations, figures can be compared."""
    return {name: value for name, value in dataclasses.asdict(item).items() if name != "path"}


def _check(name: str, limit: int | None, what: str) -> None:
    if not name or "/" in name:
        raise InputError(f"{what}: name is {name!r}; measures are called NAME/MEASURE, so give one without a slash")
    if limit is not None and limit < 1:
        raise InputError(f"{what} {name}: limit is {limit}; it must be above 0")
