"""A plan adds up, knows the store's tokens and refuses what cannot be; the command says it on a screen."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys

import polars as pl
import pytest

from gristmill.dataops.dataset import InputError
from gristmill.dataops.identity import row_id
from gristmill.dataops.mix.holdout import holdout
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.pack import best_fit
from gristmill.dataops.store import Store, Task
from gristmill.flows.commands import plan as command
from gristmill.training.plan import flops, laws
from gristmill.training.plan.chips import ALIASES, CHIPS, chip
from gristmill.training.plan.plan import packed_tokens, plan
from gristmill.training.plan.shape import PUBLISHED, shape_of


def test_chips_are_found_by_any_spelling_and_have_a_source():
    assert chip("H100 SXM") is chip("h100") is chip("NVIDIA_H100-sxm") is CHIPS["h100-sxm"]
    assert chip("rtx 4090") is chip("4090") and chip("A100-40GB").memory == 40e9
    assert all(CHIPS[known].source for known in ALIASES.values()) and all(item.source for item in CHIPS.values())
    assert (chip("h100").peak, chip("a100").peak, chip("h200").memory) == (989.4e12, 312e12, 141e9)
    with pytest.raises(InputError, match="h100-pcie"):
        chip("h900")


def test_a_plan_adds_up():
    found = plan(shape_of("1.3B"), chip("h100"), gpus=8, days=7, price=2.5)
    run = found["run"]
    assert found["tokens"] == 20 * found["model"]["parameters"]
    assert run["hours"] * 3600 * 8 * 989.4e12 * 0.40 == pytest.approx(run["flops"])
    assert run["cost"] == pytest.approx(2.5 * 8 * run["hours"]) and run["fits"] is True
    assert found["in_days"]["tokens"] / found["tokens"] == pytest.approx(7 * 24 / run["hours"])
    for split in found["in_days"]["best"].values():
        spent = flops.six_nd(found["model"]["parameters"], found["in_days"]["tokens"])
        assert flops.six_nd(split["parameters"], split["tokens"]) == pytest.approx(spent)
    assert plan(shape_of("1.3B"), chip("h100"), gpus=8, days=0.5)["run"]["fits"] is False
    assert json.loads(json.dumps(found)) == found


def test_checkpointing_that_is_needed_slows_the_run_by_a_third():
    roomy, tight = (plan(PUBLISHED["llama-3.1-8b"], chip("h100"), gpus=8, seq_len=n) for n in (4096, 8192))
    assert roomy["memory"]["pretrain"]["setting"] == {"sharding": "fsdp", "checkpointing": False, "rows": 1}
    assert tight["memory"]["pretrain"]["setting"]["checkpointing"] is True
    for found, slower in ((roomy, 1), (tight, 4 / 3)):
        achieved = found["tokens_per_second"] * found["flops_per_token"]["stage"]
        assert achieved == pytest.approx(8 * 989.4e12 * 0.40 / slower)


def test_a_plan_needs_no_torch_and_no_polars():
    code = """
import sys
for name in ("torch", "transformers", "polars", "prefect", "trl"):
    sys.modules[name] = None  # importing it fails
from gristmill.training.plan.plan import plan
from gristmill.training.plan.shape import shape_of
from gristmill.training.plan.chips import chip
assert plan(shape_of("1B"), chip("h200"))["run"]["hours"] > 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "wrong",
    [{"days": 0}, {"days": math.nan}, {"price": -1}, {"mfu": 40}, {"mfu": 0}, {"seq_len": 1}, {"tokens": 0},
     {"gpus": 0}, {"stage": "dream"}, {"precision": "int4"}],
    ids=str,
)  # fmt: skip
def test_a_run_that_cannot_be_is_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        plan(PUBLISHED["llama-2-7b"], chip("h100"), **wrong)


def _plan(inputs, building, workers, *, documents):
    return [Task((0, documents), documents)]


@op("toy.planned", version=1, kind="source", plan=_plan)
def documents_of_ten(task, *, documents: int):
    """Documents of ten tokens."""
    rows = [{"id": row_id(str(n)), "tokens": [1] * 9 + [0], "n_tokens": 10} for n in range(*task)]
    schema = {"id": pl.Binary, "tokens": pl.List(pl.UInt16), "n_tokens": pl.UInt32}
    yield Split(pl.DataFrame(rows, schema=schema), ledger())


def ask(*words: str, **settings) -> tuple[dict, str]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root")
    command.arguments(parser)
    options = parser.parse_args(words)
    return command.run(options, {"root": options.root or "no such root", **settings})


def test_the_store_says_how_many_epochs_its_tokens_are(tmp_path):
    store = Store(tmp_path)
    encoded = store.build("encoded", documents_of_ten(documents=50), [])
    packed = store.build("packed", best_fit(seq_len=25, eod=0, vocab_size=100, tokenizer="t"), [encoded])
    assert packed_tokens(packed) == 500
    with pytest.raises(InputError, match="encoded"):
        packed_tokens(encoded)
    train, heldout = holdout(store, packed, by="page", fraction=0.3)
    assert train.rows + heldout.rows == packed.rows and packed_tokens(heldout) == 500 * heldout.rows / packed.rows
    found, text = ask("--params", "10M", "--gpu", "a100", "--tokens", "2000", "--root", str(tmp_path))
    assert [data["name"] for data in found["data"]] == ["heldout", "packed", "train"]  # only what is packed
    data = found["data"][1]
    assert (data["name"], data["tokens"], data["epochs"]) == ("packed", 500, 4.0)
    assert data["worth_tokens"] == laws.effective_tokens(500, 2000)
    assert "packed:" in text and "4.00" in text


def test_the_command_says_it_all_in_a_screenful():
    words = ["--params", "1.3B", "--gpus", "8", "--gpu", "h100", "--days", "7", "--price", "2.5"]
    found, text = ask(*words)
    for part in ("optimum", "loss", "compute", "time", "it fits in the days", "cost", "fewest GPUs", "Estimates"):
        assert part in text
    assert text.count("\n") < 40 and "> pretrain" in text
    assert found["seq_len"] == 4096 and ask(*words, seq_len=512, vocab_size=1000)[0]["model"]["vocab_size"] == 1000
    for stage in flops.STAGES:
        found, text = ask("--params", "llama-3.1-8b", "--gpu", "h100", "--gpus", "8", "--stage", stage)
        assert f"> {stage}" in text and (found["generation"] is not None) == (stage in ("ppo", "grpo"))
    assert "does NOT fit" in ask("--params", "llama-3.1-70b", "--gpu", "4090")[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--params", "lama", "--gpu", "h100"], "config.json"),
        (["--params", "1k", "--gpu", "h100"], "vocabulary"),
        (["--params", "1B", "--gpu", "h900"], "h100"),
        (["--params", "1B", "--gpu", "h100", "--tokens", "many"], "--tokens"),
        (["--params", "1B", "--gpu", "h100", "--root", "no such root"], "no root"),
    ],
)
def test_a_command_line_that_means_nothing_is_refused(words, said):
    with pytest.raises(InputError, match=said):
        ask(*words)
