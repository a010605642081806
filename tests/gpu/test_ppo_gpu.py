"""PPO on a GPU: bfloat16 passes agree with float32 ones, the reference begins as the policy, and a run learns."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ppo_toys import scorer, toy

from gristmill.training.model import Shape, build, configuration
from gristmill.training.ppo import run
from gristmill.training.proximal.models import frozen, trained
from gristmill.training.proximal.pieces import Sequences, log_probs, pieces
from gristmill.training.proximal.rollout import sample
from gristmill.training.proximal.settings import PPOSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available()")


def test_the_reference_begins_as_the_policy_and_both_as_on_a_cpu():
    model = build(configuration(Shape(depth=4), 4_096, seq_len=512), 0)
    plain = copy.deepcopy(model).eval()
    cuda = torch.device("cuda", 0)
    reference, policy = frozen(copy.deepcopy(model), cuda), trained(model, cuda, False).eval()
    prompts = [[n + 1] * (5 + n) for n in range(16)]
    responses = sample(
        policy, prompts, range(16), seed=0, max_new_tokens=64, temperature=1.0, end=0, most=1 << 14,
        between=lambda: None,
    )  # fmt: skip
    sequences, rows = Sequences(prompts, responses), np.arange(16)
    cut = zip(*(pieces(sequences, rows, 512, device) for device in (cuda, torch.device("cpu"))), strict=True)
    for far, near in cut:
        with torch.no_grad():
            said = log_probs(policy, far, 1.0, grads=False)[0]
            assert torch.equal(said, log_probs(reference, far, 1.0, grads=False)[0])
            gap = said.cpu() - log_probs(plain, near, 1.0, grads=False)[0]
        assert gap.abs().max() < 0.1 and gap.mean().abs() < 0.01


def test_a_run_on_a_gpu_learns_and_says_that_it_cannot_be_repeated(tmp_path):
    spec = toy(tmp_path) | {"scorers": [scorer("share")], "iterations": 15, "rollouts": 64, "epochs": 4}
    checkpoint = run(PPOSpec(**spec | {"kl": {"coefficient": 0.01}, "minibatches": 4, "checkpointing": True}))
    assert checkpoint.manifest["reproducible"] is False
    lines = [json.loads(line) for line in Path(checkpoint.file("metrics.jsonl")).read_text().splitlines()]
    assert lines[0]["kl"] == 0.0 and lines[0]["reward"] < 0.2 and lines[-1]["reward"] > 0.7
