"""TRL's GRPO and RLOO trainers with three things on top: who judges, what an unjudged sample is, and what is kept.

TRL 1.16 leaves a sample that nobody judged out of its group's mean and deviation and gives it no advantage; but its
tokens stay in GRPO's loss, where they count in the average over tokens and are pulled towards the reference (`beta`).
Here its tokens are masked out of the loss as well, and so is a group of which fewer than two were judged. A loss that
is a mean over tokens ("dapo", "bnpo", "cispo") is then exactly the loss of the batch without the sample; one that is a
mean over samples ("grpo", "dr_grpo", RLOO) still divides by all that were drawn, as it does for groups without spread.

Log-probabilities are taken from the first forward pass of training, when the weights are those that sampled: a pass of
their own would cost a fifth of a step. A state between the uses of one batch (`iterations` above 1) holds the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer, RLOOTrainer

from gristmill.training.online import rollouts
from gristmill.training.online.rewards import Judged, Outage, judge, measures, why_not
from gristmill.training.online.tasks import Tasks
from gristmill.training.post.keep import whole_states
from gristmill.training.scoring import Scorer, Scoring

OUTAGES = 3  # batches in a row of which nothing could be judged, before training stops
BUFFER = "batch.pt"


@dataclass(frozen=True)
class Setting:
    """What a traced trainer knows beside TRL's arguments. `folder` takes the rollouts, `engine` is who samples."""

    tasks: Sequence[Tasks]
    scorers: Sequence[Scorer]
    scorings: Sequence[Scoring]
    folder: Path
    engine: str
    mask_truncated: bool


@dataclass
class Drawn:
    """A batch on its way to disk: its rows, and those whose log-probabilities are still to come."""

    step: int
    rows: list[dict[str, Any]]
    missing: set[int] = field(default_factory=set)


if TYPE_CHECKING:
    Base = GRPOTrainer
else:
    Base = object


class Traced(Base):
    """Goes before one of TRL's two trainers among the bases; `trace` comes after construction."""

    args: Any
    model: Any
    processing_class: Any
    num_generations: Any

    def trace(self, setting: Setting) -> None:
        """What to judge by and where to write."""
        self.setting = setting
        self.outages = 0
        self.drawn: Drawn | None = None
        self.judged: Judged | None = None
        self.answers: list[str] = []

    def go_on(self, state: Path | None) -> None:
        """Before training: take up the batch that a state stands in, and forget what was drawn after it."""
        step = 0 if state is None else int(state.name.rpartition("-")[2])
        rollouts.rewind(self.setting.folder, step)
        self._step = step * self.args.gradient_accumulation_steps
        if state is not None and (state / BUFFER).exists():
            self._buffered_inputs = torch.load(state / BUFFER, map_location=self.accelerator.device, weights_only=True)

    def keep(self) -> None:
        """Keep the state after the last whole step, as if the batch that failed had not been drawn."""
        step = self.state.global_step
        if step and not any(path.name == f"checkpoint-{step}" for path in whole_states(Path(self.args.output_dir))):
            _set_random(self.random)
            self._save_checkpoint(self.model, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def sample(self, prompts: list[list[int]]) -> list[list[int]]:
        """One response each, as token ids, from the engine that training samples from."""
        self.model.eval()
        found: Any = self._generate_single_turn(prompts, None, {}, 1)
        return found[0] if isinstance(found, tuple) else found

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.state.global_step % self.num_iterations:
            place = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / BUFFER
            torch.save(self._buffered_inputs, place)

    def _generate_single_turn(self, *args: Any, **more: Any) -> Any:
        if isinstance(self, RLOOTrainer):
            args = args[:3]  # it has no number of samples per prompt here
        if not (self.use_vllm and self.vllm_mode == "server"):
            return super()._generate_single_turn(*args, **more)
        try:
            return super()._generate_single_turn(*args, **more)
        except Exception as error:  # the named boundary: TRL's client raises many kinds
            raise Outage(
                f"the vLLM server stopped answering at step {self.state.global_step} ({type(error).__name__}: {error});"
                " the state is kept: start the server again, and the same spec goes on"
            ) from error

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: list[list[int]]
    ) -> torch.Tensor:
        setting = self.setting
        known = {(item["source"], item["row"]) for item in inputs}
        rows = {(source, row): setting.tasks[source].row(row) for source, row in known}
        asked = [rows[item["source"], item["row"]] for item in inputs]
        self.answers = self.processing_class.batch_decode(completion_ids_list, skip_special_tokens=True)
        judged = judge(setting.scorers, setting.scorings, asked, self.answers, self.num_generations)
        self.outages = self.outages + 1 if all(value is None for value in judged.totals) else 0
        if self.outages >= OUTAGES:
            raise Outage(
                f"nothing could be judged in {OUTAGES} batches in a row ({why_not(setting.scorers, judged)}); the "
                "state is kept: put the scorer right, and the same spec goes on"
            )
        for name, value in measures(setting.scorers, judged, self.num_generations).items():
            self._metrics["train"][name].append(value)
        self.judged = judged
        counted = [value if used else None for value, used in zip(judged.totals, judged.counts, strict=True)]
        told = [math.nan if value is None else value for value in counted]
        return torch.tensor(told, dtype=torch.float32, device=self.accelerator.device)[:, None]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self.random = _random()
        output = super()._generate_and_score_completions(inputs)
        assert self.judged is not None
        device = output["advantages"].device
        lengths = output["completion_mask"].sum(1)
        last = output["completion_ids"].gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
        stopped = torch.isin(last, torch.tensor(self.eos_token_ids, device=device))
        counts = torch.tensor(self.judged.counts, device=device)
        if self.setting.mask_truncated:
            counts &= stopped
        if not bool(counts.all()):
            output["advantages"] = output["advantages"].masked_fill(~counts, 0.0)
            if not isinstance(self, RLOOTrainer):  # whose loss is advantages alone
                output["tool_mask"] = output["completion_mask"] * counts[:, None]
                output["num_items_in_batch"] = output["tool_mask"].sum()
        output["number"] = torch.arange(len(inputs), device=device)
        self.drawn = self._draw(inputs, output, counts.tolist(), stopped.tolist())
        return output

    def _draw(self, inputs: Any, output: dict[str, Any], counts: list[bool], stopped: list[bool]) -> Drawn:
        """The rows of a batch, but for the log-probabilities."""
        assert self.judged is not None
        step, size = self.state.global_step, self.num_generations
        advantages = output["advantages"].tolist()
        prompts = _lists(output["prompt_ids"], output["prompt_mask"])
        tokens = _lists(output["completion_ids"], output["completion_mask"])
        said = output.get("sampling_per_token_logps")
        engine = [None] * len(inputs) if said is None else _lists(said, output["completion_mask"])
        rows = []
        for n, item in enumerate(inputs):
            task = self.setting.tasks[item["source"]].table["id"][item["row"]].as_py()
            rows.append(
                {
                    "id": rollouts.rollout_id(task, step, n // size, n % size),
                    "sources": [task],
                    "step": step,
                    "group": n // size,
                    "sample": n % size,
                    "prompt": item["prompt"],
                    "response": self.answers[n],
                    "prompt_tokens": prompts[n],
                    "tokens": tokens[n],
                    "engine_logprobs": engine[n],
                    "scores": [
                        {"scorer": scorer.name, "score": scored[n].score, "reason": scored[n].reason,
                         "weight": scorer.weight}
                        for scorer, scored in zip(self.setting.scorers, self.judged.scores, strict=True)
                    ],
                    "total": self.judged.totals[n],
                    "advantage": advantages[n] if counts[n] else None,
                    "finish": "stop" if stopped[n] else "length",
                    "engine": self.setting.engine,
                    "temperature": self.temperature,
                }
            )  # fmt: skip
        return Drawn(step, rows, set(range(len(rows))))

    def _get_per_token_logps_and_entropies(self, *args: Any, **more: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **more)
        if torch.is_grad_enabled():
            self.logps = found[0].detach()
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        if self.drawn is not None:
            numbers = inputs["number"].tolist()
            for n, logps in zip(numbers, _lists(self.logps.float(), inputs["completion_mask"]), strict=True):
                self.drawn.rows[n]["logprobs"] = logps
            self.drawn.missing -= set(numbers)
            if not self.drawn.missing:
                rollouts.write(self.setting.folder, self.drawn.step, self.drawn.rows)
                self.drawn = None
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL does, without names for what nothing is known of."""
        for mode in self._metrics.values():
            for name in [name for name, values in mode.items() if all(math.isnan(value) for value in values)]:
                del mode[name]
        super().log(logs, start_time)


class TracedGRPO(Traced, GRPOTrainer):
    """GRPO (Shao et al. 2024)."""


class TracedRLOO(Traced, RLOOTrainer):
    """RLOO (Ahmadian et al. 2024)."""


class LastState(TrainerCallback):
    """Keeps the state after the last step too: samples cannot be drawn again, and a run that is killed while it
    publishes must publish the same ones."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ask for it."""
        control.should_save = state.global_step >= self.steps
        return control


def unused(*_: Any, **__: Any) -> list[float | None]:
    """Stands where TRL wants a reward function; totals come from `Traced._calculate_rewards`."""
    raise NotImplementedError


unused.__name__ = "total"  # what TRL calls the column in its logs


def _lists(values: torch.Tensor, mask: torch.Tensor) -> list[list[Any]]:
    """The entries of every row where the mask is 1."""
    table, there = values.cpu().numpy(), mask.cpu().numpy().astype(bool)
    return [row[kept].tolist() for row, kept in zip(table, np.asarray(there), strict=True)]


def _random() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random(states: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])
