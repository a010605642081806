"""Reference log-probabilities as a dataset: the numbers of training itself, joined by row, and only where they fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from preferred import one_thread, pairs, replies
from tinychat import base, chat_tokenizer

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.checkpoint import load_model
from gristmill.training.logprobs import LogprobsSpec, dry, run
from gristmill.training.preference import run as train
from gristmill.training.preferences.logprobs import batches, score
from gristmill.training.preferences.spec import PreferenceSpec

ALONE = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("reference")
    chat = chat_tokenizer(root)
    with one_thread():
        yield {"root": root, "chat": chat, "start": base(root, chat), "data": pairs(root, chat, replies(40))}


def named(dataset: Dataset) -> dict[str, str]:
    return {"path": dataset.path, "digest": dataset.digest}


def logprobs_spec(world, **more) -> dict:
    given = {name: named(world[key]) for name, key in (("data", "data"), ("model", "start"), ("tokenizer", "chat"))}
    return given | {"root": str(world["root"])} | more


def logprobs(world, **more) -> Dataset:
    return run(LogprobsSpec(**logprobs_spec(world, **more)))


def trained(world, **more) -> Dataset:
    given = {
        "data": [named(world["data"])], "start": named(world["start"]), "tokenizer": named(world["chat"]),
        "root": str(world["root"]), "steps": 12, "optimiser": {"learning_rate": 3e-3},
    }  # fmt: skip
    return train(PreferenceSpec(**given | more))


def table(dataset: Dataset) -> pa.Table:
    return pa.concat_tables([shard.read() for shard in dataset.shards()])


def test_a_row_is_a_pair_with_its_source_and_what_the_model_says(world):
    reference = logprobs(world)
    rows, source = table(reference), table(world["data"])
    assert reference.kind == "rows" and rows["pair"].to_pylist() == source["id"].to_pylist()
    assert rows["sources"].to_pylist() == [[pair] for pair in source["id"].to_pylist()]
    assert len(set(rows["id"].to_pylist())) == 40
    model = load_model(world["start"])
    for k, side in enumerate(("chosen", "rejected"), start=1):
        alone = [score(model, [(row[0], row[k])], 0)[0] for row in replies(40)]
        assert rows[f"ref_{side}_logps"].to_pylist() == pytest.approx(alone, rel=1e-5)
    stats = reference.manifest["stats"]
    assert stats["model"]["digest"] == world["start"].digest and stats["rows"] == 40 and stats["too_long"] == 0


def test_published_once_and_the_same_each_time(world, tmp_path):
    first = logprobs(world)
    assert logprobs(world).path == first.path
    again = logprobs(world, root=str(tmp_path))
    assert (again.key, again.digest) == (first.key, first.digest)
    cut = logprobs(world, tokens=64, root=str(tmp_path))
    assert cut.key != first.key, "other batches round otherwise, so they are another recipe"
    assert np.allclose(
        table(cut)["ref_chosen_logps"].to_numpy(), table(first)["ref_chosen_logps"].to_numpy(), rtol=1e-5
    )


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "apo_zero"])
def test_training_with_it_is_training_with_the_model_itself(world, loss):
    """To rounding; the held-out numbers too, whose reference is the start in both."""
    held = [named(world["data"])]
    given, own = (
        trained(world, loss=loss, name=name, validation=held, **more)
        for name, more in (("given", {"reference": named(logprobs(world))}), ("own", {}))
    )
    assert given.key != own.key and len(given.manifest["inputs"]) == len(own.manifest["inputs"]) + 1
    one, other = load_model(given).state_dict(), load_model(own).state_dict()
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)
    a, b = (next(iter(model.manifest["stats"]["validation"].values())) for model in (given, own))
    for when in ("before", "after"):
        assert a[when]["loss"] == pytest.approx(b[when]["loss"], rel=1e-3)
        assert a[when]["margin"] == pytest.approx(b[when]["margin"], rel=1e-3, abs=1e-4)


def test_lora_takes_it_too(world):
    given = trained(world, name="given", lora={"rank": 4}, reference=named(logprobs(world)))
    own = trained(world, name="own", lora={"rank": 4})
    one, other = load_model(given).state_dict(), load_model(own).state_dict()
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_another_models_or_rows_are_refused(world, tmp_path):
    chat = world["chat"]
    stranger = base(tmp_path, chat, seed=5)
    with pytest.raises(InputError, match="is of model"):
        trained(world, reference=named(logprobs(world, model=named(stranger))))
    more = pairs(tmp_path, chat, replies(44))
    with pytest.raises(InputError, match="lacks 4 rows of pairs"):
        trained(world, data=[named(more)], reference=named(logprobs(world)))
    other = pairs(tmp_path / "cut", chat, [(p, c[-2:], r[-2:]) for p, c, r in replies(40)])
    with pytest.raises(InputError, match="had another length"):
        trained(world, data=[named(other)], reference=named(logprobs(world)))
    with pytest.raises(InputError, match="holds no reference log-probabilities"):
        trained(world, reference=named(world["data"]))
    with pytest.raises(InputError, match="is of tokenizer"):
        trained(world, reference=named(_with(tmp_path, logprobs(world), "tokenizer")))
    with pytest.raises(InputError, match="is of template"):
        trained(world, reference=named(_with(tmp_path, logprobs(world), "template")))


def _with(root, reference: Dataset, what: str) -> Dataset:
    """A copy whose manifest says it was made with another tokenizer or template."""
    import shutil
    from pathlib import Path

    copy = Path(shutil.copytree(reference.path, root / what))
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["stats"][what] = "another"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return Dataset.load(copy)


def test_rows_too_long_for_the_model_are_counted(world, tmp_path):
    data = pairs(tmp_path, world["chat"], [*replies(3), *((p, c * 100, r) for p, c, r in replies(2, start=9))])
    found = logprobs(world, data=named(data))
    assert found.manifest["stats"]["too_long"] == 2 and found.rows == 3
    assert dry(LogprobsSpec(**logprobs_spec(world, data=named(data)))) == {"replies": 6, "longest": 14, "too_long": 2}


def test_the_command_publishes_and_refuses(world, tmp_path):
    spec = tmp_path / "spec.json"
    for content, status in ((logprobs_spec(world, root=str(tmp_path)), 0), (logprobs_spec(world, tokens=0), 2)):
        spec.write_text(json.dumps(content))
        command = [sys.executable, "-m", "gristmill.training.logprobs", "--spec", str(spec)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=ALONE)
        assert done.returncode == status, done.stderr
        if status == 0:
            told = json.loads(done.stdout)
            assert Dataset.load(told["path"]).digest == told["digest"] == logprobs(world).digest
    assert "tokens is 0" in done.stderr


def test_batches_hold_every_row_once_and_no_more_tokens_than_told():
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    found = list(batches(lengths, 100))
    assert sorted(np.concatenate(found).tolist()) == list(range(200))
    assert all(len(rows) * lengths[rows].max() <= 100 for rows in found)
    assert [len(rows) for rows in batches(np.array([500, 3]), 100)] == [1, 1], "a long row comes alone"
