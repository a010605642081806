"""A PPO run: what it publishes, what a missing judgement changes (nothing), what it refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ppo_toys import publish_reward, publish_tasks, scorer, told, toy
from tinychat import chat_tokenizer

from gristmill.dataops.dataset import Dataset
from gristmill.training.checkpoint import load_model
from gristmill.training.ppo import dry, main, run
from gristmill.training.proximal.job import open_job, open_models, tasks_of
from gristmill.training.proximal.judging import open_judges
from gristmill.training.proximal.measures import averages, curve, measured
from gristmill.training.proximal.models import optimizer_of
from gristmill.training.proximal.pieces import Sequences
from gristmill.training.proximal.record import Rollouts
from gristmill.training.proximal.respond import asked, respond
from gristmill.training.proximal.settings import PPOSpec
from gristmill.training.proximal.update import Kept, targets, update
from gristmill.training.scoring import Score

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where it has to wait for its core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict:
    return toy(tmp_path_factory.mktemp("toy"))


def command(root: Path, spec: dict, *more: str) -> int:
    root.mkdir(exist_ok=True)
    (root / "spec.json").write_text(json.dumps(spec | {"root": str(root / "root")}))
    return main(PPOSpec, run, dry, ["--spec", str(root / "spec.json"), *more])


def test_a_run_is_published_with_every_response(tmp_path, given, capsys):
    spec = given | {"scorers": [scorer("picky"), scorer("share", "again", weight=0.5)], "kl": {"coefficient": 0.05}}
    assert command(tmp_path, spec) == 0
    result = json.loads(capsys.readouterr().out)
    checkpoint = Dataset.load(result["path"])
    stats, manifest = checkpoint.manifest["stats"], checkpoint.manifest
    chat = Dataset.load(given["tokenizer"]["path"])
    assert (stats["tokenizer"], stats["template"]) == ("plain-tokenizer", chat.manifest["stats"]["template"])
    assert [item["digest"] for item in manifest["inputs"]] == [
        given[name]["digest"] for name in ("tasks", "start", "tokenizer")
    ]
    assert not {"tasks", "start", "root", "name", "save_seconds"} & set(manifest["ops"][0]["params"])
    assert (stats["iterations"], stats["steps"], stats["epochs"]) == (3, 3 * 2 * 2, 3 * 16 / 10)
    assert {entry["file"] for entry in manifest["files"]} >= {
        f"files/{name}" for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja", "metrics.jsonl")
    }
    lines = [json.loads(line) for line in Path(checkpoint.file("metrics.jsonl")).read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert lines[-1]["tokens"] == stats["tokens"] and lines[0]["kl"] == 0.0 and lines[1]["kl"] != 0.0
    assert json.loads(Path(checkpoint.file("loss_curve.json")).read_text())["step"] == [4, 8, 12]
    assert load_model(checkpoint).generation_config.eos_token_id == 2

    rollouts = Dataset.load(str(tmp_path / "root" / "ppo-rollouts" / stats["rollouts"]["key"][:12]))
    assert rollouts.digest == stats["rollouts"]["digest"] and rollouts.rows == 3 * 16
    assert rollouts.manifest["stats"]["versions"]["transformers"]
    rows = rollouts.shards()[0].read().to_pylist()
    assert [row["number"] for row in rows] == list(range(48)) and {row["step"] for row in rows} == {1, 2, 3}
    assert len({row["id"] for row in rows}) == 48
    tasks = {row["id"]: row for row in Dataset.load(given["tasks"]["path"]).shards()[0].read().to_pylist()}
    start = load_model(Dataset.load(given["start"]["path"]))
    for row in rows:
        assert tasks[row["sources"][0]]["prompt"] == row["prompt"]
        lengths = {len(row[name]) for name in ("response_ids", "logprobs", "reference_logprobs", "values")}
        assert len(lengths) == 1 and row["ended"] == (row["response_ids"][-1] == 2)
        assert [said["name"] for said in row["scores"]] == ["toy", "again"]
        first, again = row["scores"]
        judged = first["score"] is not None
        assert again["score"] is not None and (row["score"] is None) == (row["advantages"] is None) == (not judged)
        if judged:
            assert row["score"] == pytest.approx(first["score"] + 0.5 * again["score"])
        gaps = np.array(row["logprobs"]) - np.array(row["reference_logprobs"])
        assert row["kl"] == pytest.approx(gaps.sum(), abs=1e-5)
    with torch.no_grad():
        row = rows[40]
        logits = start(input_ids=torch.tensor([row["prompt_ids"] + row["response_ids"]])).logits[0]
        table = torch.log_softmax(logits[len(row["prompt_ids"]) - 1 : -1], -1)
    alone = table.gather(1, torch.tensor(row["response_ids"])[:, None])[:, 0]
    assert row["reference_logprobs"] == pytest.approx(alone.tolist(), abs=1e-4)
    unjudged = sum(row["score"] is None for row in rows)
    assert 0 < unjudged < 48 and stats["unjudged"] == pytest.approx(unjudged / 48)
    assert not list((tmp_path / "root" / ".training").iterdir())

    assert command(tmp_path, spec) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == result and "not trained again" in printed.err
    spec_on = {name: value for name, value in spec.items() if name != "tokenizer"} | {"start": told(checkpoint)}
    assert command(tmp_path / "on", spec_on | {"iterations": 1}) == 0  # it brings its own tokenizer
    assert json.loads(capsys.readouterr().out)["template"] == stats["template"]
    assert command(tmp_path / "elsewhere", spec | {"name": "other", "save_seconds": 7}) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == checkpoint.digest


def prepared(given: dict, **changes):
    """Everything that an update starts from: spec, models and the first iteration's rollouts."""
    spec = PPOSpec(**given | {"scorers": [scorer("picky")]} | changes)
    job = open_job(spec)
    ready = open_models(job, CPU)
    return spec, ready, respond(job, ready, tasks_of(job), open_judges(spec), 0, lambda: None)


def updated(spec: PPOSpec, ready, rollouts: Rollouts, before: dict) -> tuple[dict[str, torch.Tensor], Kept]:
    """The weights after an update from `before`."""
    ready.both.load_state_dict(before)
    kept = Kept.read(None, spec)
    wanted = targets(rollouts, spec, kept.coefficient)
    update(ready.both, optimizer_of(ready.both, spec.optimiser, spec.value_optimiser), wanted, spec, kept, lambda: None)
    return {name: value.clone() for name, value in ready.both.state_dict().items()}, kept


def snapshot(ready) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in ready.both.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], part: str = "") -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items() if name.startswith(part))


def only(rollouts: Rollouts, rows: np.ndarray) -> Rollouts:
    """A rollout in which other rows were never sampled."""

    def of(values: list) -> list:
        return [values[i] for i in rows]

    lists = {name: of(getattr(rollouts, name)) for name in ("tasks", "numbers", "texts", "ended", "kinds")}
    arrays = {name: getattr(rollouts, name)[rows] for name in ("logprobs", "reference", "values", "scores")}
    sequences = Sequences(of(rollouts.sequences.prompts), of(rollouts.sequences.responses))
    return dataclasses.replace(rollouts, sequences=sequences, **lists, **arrays)


def test_a_response_that_was_not_judged_changes_nothing(given):
    """To the bit: the update with it is the update without it; whatever its tokens and values are."""
    spec, ready, rollouts = prepared(given)
    before = snapshot(ready)
    assert 0 < len(rollouts.judged) < 16
    whole, _ = updated(spec, ready, rollouts, before)
    without, _ = updated(spec, ready, only(rollouts, rollouts.judged), before)
    assert same(whole, without) and not same(whole, before)
    gone = np.flatnonzero(np.isnan(rollouts.scores))
    rollouts.values[gone] = 1e6
    rollouts.logprobs[gone] = -50.0
    assert same(updated(spec, ready, rollouts, before)[0], whole)
    rollouts.scores[gone[0]] = 0.0  # a zero would have counted
    assert not same(updated(spec, ready, rollouts, before)[0], whole)


def test_pieces_of_a_minibatch_add_up_to_it(given):
    spec, ready, rollouts = prepared(given, optimiser={"learning_rate": 1e-4, "weight_decay": 0.0})
    before = snapshot(ready)
    whole, kept = updated(spec, ready, rollouts, before)
    cut, parts = updated(dataclasses.replace(spec, batch_tokens=20), ready, rollouts, before)
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-3, atol=2e-5)
    for one, other in zip(kept.parts, parts.parts, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert kept.parts[0]["approx_kl"] == pytest.approx(0.0, abs=1e-6)  # the ratio begins at 1


def test_options_do_what_they_say(given):
    spec, ready, rollouts = prepared(given)
    before = snapshot(ready)
    plain, kept = updated(spec, ready, rollouts, before)

    def other(**changes) -> tuple[dict, Kept]:
        return updated(dataclasses.replace(spec, **changes), ready, rollouts, before)

    stopped = other(stop_kl=1e-9)[1]
    assert len(kept.parts) == kept.steps == 4 and len(stopped.parts) == stopped.steps == 1 and stopped.done == 4
    assert not same(other(entropy=0.5)[0], plain, "policy")
    assert not same(other(whiten=False)[0], plain, "policy")
    assert not same(other(clip=1e-4)[0], plain, "policy")
    free = other(value_clip=None)[0]
    assert same(free, plain, "policy") and same(other(value_clip=1e6)[0], free)
    assert not same(other(value_clip=1e-5)[0], free, "value")
    cut = ~np.array(rollouts.ended)
    paid = targets(rollouts, dataclasses.replace(spec, missing_end=0.5, whiten=False), 0.0)
    unpaid = targets(rollouts, dataclasses.replace(spec, whiten=False), 0.0)
    gap = (unpaid.returns - paid.returns)[torch.arange(len(paid.mask)), paid.mask.sum(1) - 1]
    assert gap.tolist() == pytest.approx((0.5 * cut[rollouts.judged]).tolist()) and gap.max() > 0
    entropies = [sum(part["entropy"] for part in other(entropy=weight)[1].parts) for weight in (0.0, 5.0)]
    assert entropies[1] > entropies[0]
    again = open_models(open_job(dataclasses.replace(spec, checkpointing=True)), CPU)
    weights = updated(dataclasses.replace(spec, checkpointing=True), again, rollouts, before)[0]
    for name, value in plain.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-4)


def test_a_step_that_is_not_finite_touches_nothing(given):
    spec, ready, rollouts = prepared(given)
    before = snapshot(ready)
    rollouts.scores[rollouts.judged[0]] = np.inf  # a scorer's inf never gets here; an overflow might
    after, kept = updated(spec, ready, rollouts, before)
    assert same(after, before, "policy") and kept.policy_watch.skipped == 4  # whitening spreads it
    assert not same(after, before, "value") and kept.value_watch.skipped == 2  # the minibatch that holds it, twice
    assert all(value.isfinite().all() for value in after.values())
    with pytest.raises(RuntimeError, match="10 steps in a row"):
        updated(dataclasses.replace(spec, epochs=6), ready, rollouts, before)


def test_metrics_are_json_whatever_a_step_gave(given):
    spec, ready, rollouts = prepared(given)
    kept = updated(spec, ready, rollouts, snapshot(ready))[1]
    norm = kept.parts[1]["policy_norm"]
    kept.parts = [kept.parts[0] | {"policy_norm": float("nan"), "value_loss": float("inf")}, kept.parts[1]]
    told_of = measured(rollouts, targets(rollouts, spec, kept.coefficient), spec, kept)
    assert told_of["policy_norm"] == norm and told_of["left_out"] == 2
    rollouts.scores[:] = np.nan
    kept.parts = []
    nothing = measured(rollouts, None, spec, kept)
    assert nothing["reward"] is nothing["kl"] is nothing["entropy"] is None and nothing["unjudged"] == 1.0
    lines = [told_of, nothing]
    json.dumps([lines, averages(lines), curve(lines)], allow_nan=False)


def test_a_scorer_that_is_down_ends_the_run_and_keeps_its_state(tmp_path, given, capsys, monkeypatch):
    spec = given | {"scorers": [scorer("failing")], "iterations": 5}
    assert command(tmp_path, spec) == 2
    err = capsys.readouterr().err
    assert "3 iterations in a row" in err and "ConnectionError: the judge is out" in err and "100% not judged" in err
    monkeypatch.setattr("ppo_toys.failing", lambda: lambda rows, said: [Score(1.0, "back")] * len(said))
    assert command(tmp_path, spec) == 0
    printed = capsys.readouterr()
    assert "going on at iteration 4" in printed.err
    stats = json.loads(printed.out)
    assert stats["unjudged"] == pytest.approx(3 / 5) and stats["first_reward"] == 1.0 and stats["steps"] == 2 * 4


def test_prompts_that_do_not_fit_are_counted_and_special_tokens_in_them_are_text(tmp_path, given, capsys):
    prompts = ["w1", " ".join(["w2"] * 70), "w3 <|im_end|> w4", [{"role": "system", "content": "w5"}]]
    tasks = publish_tasks(tmp_path, prompts)
    spec = given | {"tasks": told(tasks), "scorers": [scorer("share")], "iterations": 1}
    assert command(tmp_path, spec) == 0
    printed = capsys.readouterr()
    assert "1 of 4 tasks are left out" in printed.err and json.loads(printed.out)["too_long"] == 1
    job = open_job(PPOSpec(**spec))
    found = tasks_of(job)
    plain = [ids for ids in found.prompts if 9 in ids and 10 in ids]  # w3 and w4
    assert len(plain) == 1 and plain[0].count(2) == 1  # the turn ends once
    three = dataclasses.replace(job.spec, rollouts=3, minibatches=1)
    orders = [asked(found, three, n)[0].tolist() for n in range(6)]
    assert all(sorted(one) == [0, 1, 2] for one in orders) and len(set(map(tuple, orders))) > 1  # epochs


def test_a_dry_run_says_what_there_is_to_do(tmp_path, given, capsys):
    spec = given | {"scorers": [scorer("share")]}
    assert command(tmp_path, spec, "--dry-run") == 0
    said = json.loads(capsys.readouterr().out)
    n = said["parameters"]
    assert (said["steps"], said["responses"], said["prompts"], said["standing"]) == (12, 48, 10, False)
    assert [said["memory"][name] for name in ("weights", "gradients", "optimizer")] == [8 * n, 8 * n, 16 * n]
    assert said["memory"]["total"] == sum(v for k, v in said["memory"].items() if k != "total")
    assert not (tmp_path / "root").exists()
    reward = publish_reward(tmp_path, Dataset.load(given["start"]["path"]))
    assert command(tmp_path, spec | {"reward": told(reward)}, "--dry-run") == 0
    assert json.loads(capsys.readouterr().out)["memory"]["frozen"] == 2 * said["memory"]["frozen"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scorers": []}, "nothing gives a reward"),
        ({"scorers": [scorer("share"), scorer("echo")]}, "each needs a name of its own"),
        ({"scorers": [{"name": "a", "call": "nowhere:at_all"}]}, "cannot be found"),
        ({"minibatches": 17}, "do not fill 17 minibatches"),
        ({"gamma": 1.5}, "gamma is 1.5"),
        ({"temperature": 0}, "temperature is 0"),
        ({"clip": None}, "clip is None"),
        ({"kl": {"target": 1.0, "horizon": 3.0}}, "within a fifth of 16 rollouts"),
        ({"kl": {"coefficient": 0, "target": 1.0}}, "stays 0"),
        ({"optimiser": {"z_loss": 1e-4}}, "z_loss belongs to pretraining"),
        ({"max_new_tokens": 64}, "none of 10 prompts"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"tasks": {"path": "nowhere", "digest": "0"}}, "no dataset at nowhere"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(tmp_path, given, capsys, changes, says):
    assert command(tmp_path, given | {"scorers": [scorer("share")]} | changes) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert says in printed.err and not (tmp_path / "root").exists()


def test_data_that_does_not_fit_is_refused(tmp_path, given, capsys):
    def refused(says: str, status: int = 2, **changes) -> None:
        assert command(tmp_path, given | {"scorers": [scorer("share")]} | changes) == status
        assert says in capsys.readouterr().err

    refused("has no tasks", tasks=told(publish_tasks(tmp_path, [], "none")))
    refused("has no prompt, or a message without", tasks=told(publish_tasks(tmp_path, ["w1", []], "hollow")))
    refused("is of kind 'checkpoint'; tasks are 'rows'", tasks=given["start"])
    refused("is no reward model", reward=given["start"])
    start = Dataset.load(given["start"]["path"])
    refused("is no reward model", reward=told(publish_reward(tmp_path, start, labels=2)))
    refused("a vocabulary of 16, its tokenizer one of 26", tokenizer=told(chat_tokenizer(tmp_path / "more", count=20)))
    refused("has no tokenizer.json", tokenizer=None)
    broken = toy(tmp_path / "broken")
    weights = Path(broken["start"]["path"]) / "files" / "model.safetensors"
    bytes_ = bytearray(weights.read_bytes())
    bytes_[-5] ^= 1
    weights.write_bytes(bytes_)
    refused("is damaged", status=1, start=broken["start"])


def test_weights_that_are_not_finite_are_refused(tmp_path, capsys):
    spec = toy(tmp_path, sharp=float("nan")) | {"scorers": [scorer("share")]}
    assert command(tmp_path, spec) == 2
    assert "what the policy says in iteration 1 is not finite" in capsys.readouterr().err


def test_ppo_needs_neither_polars_nor_a_trainer():
    code = """
import sys
for name in ("polars", "prefect", "sqlalchemy", "fsspec", "datasets", "trl", "peft", "accelerate"):
    sys.modules[name] = None  # importing it fails
import gristmill.training.ppo
"""
    subprocess.run([sys.executable, "-c", code], check=True)
