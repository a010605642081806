"""GRPO on a GPU: samples from transformers, and from vLLM beside the training."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from rltasks import LAST, asked, named, speaker, tasks

from gristmill.dataops.dataset import Dataset
from gristmill.training.model import Shape
from gristmill.training.rl import RlSpec, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("rl")
    _, start = speaker(root, shape=Shape(depth=2, width=256, heads=4))  # vLLM's kernels want heads of 64
    return root, start, tasks(root, asked(200, 1)), tasks(root, asked(60, 2), name="held")


def trained(world, **more) -> Dataset:
    root, start, train, held = world
    return run(
        RlSpec(
            data=(named(train),), start=named(start), validation=(named(held),), root=str(root), steps=120, rows=8,
            group=8, max_tokens=3, rewards=(LAST,), optimiser={"learning_rate": 1e-3, "warmup": 0.05}, **more,
        )
    )  # fmt: skip


def rises(model: Dataset) -> None:
    ((_, measured),) = model.manifest["stats"]["validation"].items()
    assert measured["last"]["before"]["high"] < measured["last"]["after"]["low"]


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reward_rises_in_bfloat16(world, method):
    rises(trained(world, method=method, name=method))


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_the_reward_rises_with_vllm_beside_the_training(world, method):
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    model = trained(world, method=method, name=f"vllm-{method}", vllm="colocate", vllm_memory=0.2)
    rises(model)
    told = model.manifest["stats"]["rollouts"]
    found = Dataset.load(f"{model.root}/{told['name']}/{told['key'][:12]}")
    rows = [row for shard in found.shards() for row in shard.read().to_pylist()]
    assert all(row["engine"].startswith("vllm ") for row in rows)
    if method == "grpo":  # TRL drops vLLM's log-probabilities for RLOO
        apart = [abs(a - b) for row in rows for a, b in zip(row["logprobs"], row["engine_logprobs"], strict=True)]
        assert sum(apart) / len(apart) < 0.05, "the engine samples from the weights that are trained"
