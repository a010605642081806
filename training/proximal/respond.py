"""One iteration's responses: drawn, scored, and held against policy, reference and value model.

The log-probabilities that the update starts from are computed here by the same pass that trains, not taken from the
sampler, whose rounding differs: at the first step the ratio of new to old is then 1.

The law kept here: a number that is not finite never gets into a rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from gristmill.dataops.dataset import InputError
from gristmill.training import order
from gristmill.training.online.tasks import Tasks
from gristmill.training.proximal.job import Job, Models
from gristmill.training.proximal.judging import Judge, combined, judge, rewarded, weights_of
from gristmill.training.proximal.pieces import Sequences, log_probs, pieces, values
from gristmill.training.proximal.record import Rollouts
from gristmill.training.proximal.rollout import sample
from gristmill.training.proximal.settings import REWARD, PPOSpec


def respond(
    job: Job, given: Models, tasks: Tasks, judges: Sequence[Judge], iteration: int, between: Callable[[], None]
) -> Rollouts:
    """The responses of an iteration, counted from 0; `between` is called between tokens and pieces (it may raise).
    Raises InputError where what a model says is not finite."""
    spec = job.spec
    which, numbers = asked(tasks, spec, iteration)
    prompts, end = [tasks.prompts[i] for i in which], job.chat.tokenizer.eos_token_id
    given.both.eval()  # in training mode checkpointed layers would not use the cache
    drawn = sample(
        given.both["policy"], prompts, numbers, seed=spec.seed, max_new_tokens=spec.max_new_tokens,
        temperature=spec.temperature, end=end, most=spec.rollout_tokens, between=between,
    )  # fmt: skip
    sequences = Sequences(prompts, drawn)
    said = _said(given, sequences, spec, between)
    given.both.train()
    for name, numbers_said in said.items():
        if not torch.isfinite(numbers_said).all():
            raise InputError(
                f"what the {name} says in iteration {iteration + 1} is not finite: its checkpoint is broken, or it was "
                "trained with too high a learning_rate"
            )
    rows = [tasks.row(int(i)) for i in which]
    texts = job.chat.tokenizer.batch_decode(drawn, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    kinds = judge(judges, rows, texts)
    if given.reward is not None:
        scored = rewarded(given.reward, sequences, spec.batch_tokens, given.device)
        kinds = [kind | {REWARD: score} for kind, score in zip(kinds, scored, strict=True)]
    sums = [combined(kind, weights_of(spec)) for kind in kinds]
    return Rollouts(
        tasks=rows,
        numbers=numbers,
        texts=texts,
        sequences=sequences,
        ended=[response[-1] == end for response in drawn],
        logprobs=said["policy"],
        reference=said["reference"],
        values=said["value model"],
        kinds=kinds,
        scores=np.array([np.nan if total is None else total for total in sums]),
    )


def asked(tasks: Tasks, spec: PPOSpec, iteration: int) -> tuple[np.ndarray, list[int]]:
    """Which tasks an iteration responds to (each once per epoch, in an order of the epoch's own), and the numbers of
    its responses in the run."""
    numbers = np.arange(iteration * spec.rollouts, (iteration + 1) * spec.rollouts)
    return order.rows(len(tasks.prompts), spec.seed, 0, numbers), numbers.tolist()


@torch.no_grad()
def _said(given: Models, sequences: Sequences, spec: PPOSpec, between: Callable[[], None]) -> dict[str, torch.Tensor]:
    """Log-probabilities and values of every response token, by model; float32 [responses, longest] on the CPU."""
    mask = sequences.mask()
    said = {name: torch.zeros(mask.shape) for name in ("policy", "reference", "value model")}
    for piece in pieces(sequences, np.arange(len(mask)), spec.batch_tokens, given.device):
        found = (
            log_probs(given.both["policy"], piece, spec.temperature, grads=False)[0],
            log_probs(given.reference, piece, spec.temperature, grads=False)[0],
            values(given.both["value"], piece, piece.at),
        )
        lengths = mask[piece.rows].sum(1).tolist()
        for padded, flat in zip(said.values(), found, strict=True):
            for row, part in zip(piece.rows.tolist(), flat.cpu().split(lengths), strict=True):
                padded[row, : len(part)] = part
        between()
    return said
