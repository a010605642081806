"""What could not be judged: no gradient from the sample, and no part in its group, whatever the loss."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from preferred import one_thread
from rltasks import asked, named, scorer, speaker, tasks
from trl import GRPOTrainer, RLOOTrainer

from gristmill.dataops.dataset import InputError
from gristmill.training.online import trainer as traced
from gristmill.training.online.rewards import Outage, judge, measures, open_scorers
from gristmill.training.post.harness import open_job
from gristmill.training.rl import OP, VERSION, RlSpec, _tasks, _trainer, run
from gristmill.training.scoring import Score, Scorer

#: Losses that are a mean over tokens, and those that are a mean over samples, divided by all that were drawn.
TOKENS, SAMPLES = ("dapo", "bnpo", "cispo"), ("grpo", "dr_grpo", "rloo")
GROUP = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("unjudged")
    with one_thread():
        _, start = speaker(root)
        yield root, start, tasks(root, asked(60, 1))


def drawn(world, *, unread: str = "w1", seed: int = 0, **more):
    """A trainer, and a batch of eight groups that it drew, in which the response `unread` was not judged."""
    root, start, data = world
    spec = RlSpec(
        data=(named(data),), start=named(start), root=str(root), steps=1, rows=8, group=GROUP, max_tokens=3, seed=seed,
        rewards=(scorer("last", settings={"unread": unread}),), **more,
    )  # fmt: skip
    job = open_job(spec, OP, VERSION)
    learned, _ = _tasks(job)
    trainer = _trainer(job, learned)
    scorings = open_scorers(spec.rewards)
    folder = Path(root) / "drawn"
    trainer.trace(traced.Setting(learned, spec.rewards, scorings, folder, "test", spec.mask_truncated))
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    rows = [trainer.train_dataset[n // GROUP] for n in range(8 * GROUP)]
    torch.manual_seed(1)
    return trainer, trainer._generate_and_score_completions(rows)


def gradient(trainer, inputs, base=None) -> torch.Tensor:
    """Of the loss, by all parameters; `base` is the trainer class whose loss is taken."""
    trainer.model.zero_grad()
    trainer.drawn = None
    loss = trainer._compute_loss if base is None else lambda *given: base._compute_loss(trainer, *given)
    loss(trainer.model, inputs).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def without(inputs, kept) -> dict:
    """The batch as if only these samples had been drawn, with nothing that says so."""
    cut = {k: v[kept] if torch.is_tensor(v) and v.ndim else v for k, v in inputs.items() if k != "tool_mask"}
    if "num_items_in_batch" in cut:
        cut["num_items_in_batch"] = cut["completion_mask"].sum()
    return cut


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("loss", [*TOKENS, *SAMPLES])
def test_the_gradient_is_that_of_the_batch_without_the_sample(world, loss, beta):
    kind = {"method": "rloo"} if loss == "rloo" else {"loss_type": loss}
    trainer, inputs = drawn(world, beta=beta, **kind)
    kept = torch.tensor(trainer.judged.counts)
    assert 3 < (~kept).sum() < len(kept) - 8, "some were judged, and some were not"
    base = RLOOTrainer if loss == "rloo" else GRPOTrainer
    found, wanted = gradient(trainer, inputs), gradient(trainer, without(inputs, kept), base)
    share = 1.0 if loss in TOKENS else kept.float().mean().item()
    assert wanted.norm() > 1e-3
    torch.testing.assert_close(found, wanted * share, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("loss", ["dapo", "grpo"])
def test_trl_alone_would_pull_unjudged_samples_to_the_reference(world, loss):
    """Why the mask is there: with it gone, what is left is TRL's own treatment of None."""
    trainer, inputs = drawn(world, beta=0.3, loss_type=loss, iterations=2)
    with torch.no_grad():  # off the reference, where the divergence has a gradient
        for p in trainer.model.parameters():
            p.add_(torch.randn_like(p) * 0.02)
    mask = inputs.pop("tool_mask")
    assert 0 < mask.sum() < inputs["completion_mask"].sum()
    theirs = gradient(trainer, inputs)
    ours = gradient(trainer, inputs | {"tool_mask": mask})
    assert (theirs - ours).norm() > 0.01 * ours.norm()


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_advantages_are_those_of_the_judged(world, method):
    trainer, inputs = drawn(world, method=method)
    totals, counts = trainer.judged.totals, trainer.judged.counts
    for start in range(0, len(totals), GROUP):
        told = [value for value in totals[start : start + GROUP] if value is not None]
        for n in range(start, start + GROUP):
            got = inputs["advantages"][n].item()
            if not counts[n]:
                assert got == 0
            elif method == "grpo":
                assert got == pytest.approx((totals[n] - np.mean(told)) / (np.std(told, ddof=1) + 1e-4), abs=1e-5)
            else:
                others = (sum(told) - totals[n]) / (len(told) - 1)
                assert got == pytest.approx(totals[n] - others, abs=1e-5)


def test_a_batch_of_which_nothing_was_judged_has_no_gradient(world):
    for kind in ({"beta": 0.3}, {"method": "rloo", "beta": 0.3}):
        trainer, _ = drawn(world, **kind)
        trainer.setting.scorings[0] = lambda rows, said: [Score(None, "gone")] * len(said)
        rows = [trainer.train_dataset[n // GROUP] for n in range(8 * GROUP)]
        for _ in range(2):
            inputs = trainer._generate_and_score_completions(rows)
            assert gradient(trainer, inputs).abs().max() == 0
        with pytest.raises(Outage, match="last: gone"):
            trainer._generate_and_score_completions(rows)


def test_a_truncated_response_gives_no_gradient_where_it_is_masked(world):
    for kind, base in (({}, GRPOTrainer), ({"method": "rloo"}, RLOOTrainer)):
        trainer, inputs = drawn(world, unread="", mask_truncated=True, temperature=3.0, **kind)
        ends = trainer.eos_token_ids
        last = inputs["completion_ids"].gather(1, inputs["completion_mask"].sum(1, keepdim=True) - 1)[:, 0]
        kept = torch.tensor([token.item() in ends for token in last])
        assert 0 < kept.sum() < len(kept)
        found, wanted = gradient(trainer, inputs), gradient(trainer, without(inputs, kept), base)
        share = kept.float().mean().item() if kind else 1.0
        torch.testing.assert_close(found, wanted * share, atol=1e-6, rtol=1e-4)


SCORES = st.lists(st.one_of(st.none(), st.floats(-2, 2)), min_size=1, max_size=6).map(
    lambda x: (x * GROUP)[: GROUP * 2]
)


@settings(max_examples=60, deadline=None)
@given(first=SCORES, second=SCORES, weight=st.sampled_from([0.0, 0.5, -1.0]))
def test_none_is_never_a_number(first, second, weight):
    size = min(len(first), len(second)) // GROUP * GROUP
    first, second = first[:size], second[:size]
    if not size:
        return
    scorers = [Scorer("a", "m:f"), Scorer("b", "m:f", weight=weight)]
    scorings = [lambda rows, said, column=column: [Score(v, "") for v in column] for column in (first, second)]
    judged = judge(scorers, scorings, [{}] * size, [""] * size, GROUP)
    for n, (a, b, got) in enumerate(zip(first, second, judged.totals, strict=True)):
        unknown = a is None or (b is None and weight != 0)
        assert (got is None) == unknown
        assert unknown or got == pytest.approx(a + (weight * b if weight else 0))
        group = judged.totals[n // GROUP * GROUP :][:GROUP]
        assert judged.counts[n] == (got is not None and sum(v is not None for v in group) >= 2)
    told = measures(scorers, judged, GROUP)
    assert all(math.isfinite(value) for value in told.values())
    known = [v for v in first if v is not None]
    assert told["rewards/a/unjudged"] == first.count(None) / size
    assert ("rewards/a" in told) == bool(known)
    assert not known or told["rewards/a"] == pytest.approx(np.mean(known))


class Server:
    """Stands for a vLLM server: it answers `calls` times with w1, then it is gone."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def sync_weights(self) -> None:
        pass

    def generate(self, prompts, **_):
        self.calls -= 1
        if self.calls < 0:
            raise ConnectionError("connection refused")
        return None, [[7, 2] for _ in prompts], [[[-1.5], [-0.25]] for _ in prompts], None


def test_a_server_that_goes_away_leaves_a_whole_state(world):
    trainer, _ = drawn(world, seed=3)
    root, start, data = world
    spec = RlSpec(
        data=(named(data),), start=named(start), root=str(root), steps=5, rows=4, group=GROUP, max_tokens=3,
        rewards=(scorer("last"),), name="server",
    )  # fmt: skip
    job = open_job(spec, OP, VERSION)
    learned, _ = _tasks(job)
    trainer = _trainer(job, learned)
    folder = job.folder / "rollouts"
    trainer.trace(traced.Setting(learned, spec.rewards, open_scorers(spec.rewards), folder, "vllm", False))
    trainer.use_vllm, trainer.vllm_mode, trainer._last_loaded_step = True, "server", -1
    trainer.vllm_generation = Server(2)
    trainer.go_on(None)
    with pytest.raises(Outage, match="stopped answering at step 2 .ConnectionError: connection refused"):
        job.fit(trainer)
    trainer.keep()
    (state,) = job.folder.glob("checkpoint-*")
    assert state.name == "checkpoint-2" and (state / "whole").exists()
    rows = [row for table in traced.rollouts.tables(folder) for row in table.to_pylist()]
    assert [row["step"] for row in rows] == [0] * 16 + [1] * 16
    assert all(row["engine_logprobs"] == [-1.5, -0.25] and row["response"] == "w1" for row in rows)
    assert all(row["logprobs"] != row["engine_logprobs"] for row in rows)


def test_a_newer_vllm_than_trl_knows_is_refused(world, monkeypatch):
    from trl import import_utils

    root, start, data = world
    monkeypatch.setattr(import_utils, "_is_package_available", lambda name, return_version: (True, "0.99.0"))
    spec = RlSpec(
        data=(named(data),), start=named(start), root=str(root), steps=1, rewards=(scorer("last"),), vllm="colocate"
    )
    with pytest.raises(InputError, match="0.22.0 to 0.31.0"):
        run(spec)
