"""Training: what is mapped and not copied, which rows a step sees, what a model may look at, and what is published."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from packed import chain, pack
from transformers import LlamaConfig

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.fileio import file_sha256
from gristmill.training.checkpoint import load_model
from gristmill.training.model import Objective, Shape, build, configuration, logits, losses
from gristmill.training.plan.shape import Shape as PlanShape
from gristmill.training.pretrain import dry, run
from gristmill.training.pretraining.loop import Budget, Kept, optimizer_of, speed, train
from gristmill.training.pretraining.parallel import Peers
from gristmill.training.pretraining.spec import PretrainSpec
from gristmill.training.schedule import Optimiser, Watch
from gristmill.training.shards import IGNORED, Shards
from gristmill.training.step import main as step
from gristmill.training.stream import Stream, World

ALONE = Peers(World(), torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where it has to wait for its core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    """96 rows of 64 tokens from a vocabulary of 32."""
    return pack(tmp_path_factory.mktemp("data"), chain(96, 64, 32), seq_len=64, vocab_size=32)


def main(arguments: list[str]) -> int:
    """The command."""
    return step(PretrainSpec, run, dry, arguments)


def tiny() -> LlamaConfig:
    """One layer over the vocabulary of `data`."""
    return configuration(Shape(depth=1), 32, seq_len=64)


def write_spec(path: Path, dataset: Dataset, **changes) -> Path:
    values = {
        "data": [{"path": dataset.path, "digest": dataset.digest}],
        "root": str(path / "root"),
        "model": {"depth": 1},
        "rows": 8,
        **changes,
    }
    (path / "spec.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    return path / "spec.json"


def test_a_packed_document_reads_as_it_does_alone(tmp_path):
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 50, length).tolist() for length in (11, 1, 14)]
    batch = Shards(pack(tmp_path, [documents], seq_len=32, vocab_size=50)).gather(np.array([0]))
    model = build(configuration(Shape(depth=2), 50), seed=0).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)  # far from uniform attention, so that a leak would show
    with torch.no_grad():
        packed = logits(model, batch.tokens, batch.positions)[0]
        leaking = model(input_ids=batch.tokens).logits[0]
        start = 0
        for document in documents:
            alone = model(input_ids=torch.tensor([document])).logits[0]
            stop = start + len(document)
            torch.testing.assert_close(packed[start:stop], alone, rtol=1e-4, atol=1e-4)
            assert start == 0 or (leaking[start:stop] - alone).abs().max() > 0.1
            start = stop


def test_model_sizes_follow_depth():
    config = configuration(Shape(depth=4), 8192, seq_len=512, eod=3)
    assert (config.hidden_size, config.num_attention_heads, config.head_dim) == (256, 4, 64)
    assert (config.intermediate_size, config.max_position_embeddings, config.eos_token_id) == (704, 512, 3)
    assert configuration(Shape(depth=1), 100).head_dim == 32
    model = build(config, seed=0)
    assert sum(p.numel() for p in model.parameters()) == 8192 * 256 + 4 * (4 * 256**2 + 3 * 256 * 704 + 2 * 256) + 256
    assert torch.equal(build(tiny(), 5).lm_head.weight, build(tiny(), 5).lm_head.weight)
    assert not torch.equal(build(tiny(), 5).lm_head.weight, build(tiny(), 6).lm_head.weight)


def test_qwen_shapes_share_keys_among_queries(tmp_path, data, capsys):
    shape = Shape("qwen3", depth=2, width=64, heads=4, kv_heads=2, hidden=96, tied=False)
    model = build(configuration(shape, 32, seq_len=64), 0)
    assert model.config.model_type == "qwen3" and model.model.layers[0].self_attn.k_proj.weight.shape == (32, 64)
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    batch = Shards(data).gather(np.arange(2))
    assert logits(model, batch.tokens, batch.positions).shape == (2, 64, 32)
    given = {"family": "qwen3", "depth": 2, "width": 64, "heads": 4, "kv_heads": 2}
    assert main(["--spec", str(write_spec(tmp_path, data, model=given, steps=2))]) == 0
    made = load_model(Dataset.load(json.loads(capsys.readouterr().out)["path"]))
    assert made.config.num_key_value_heads == 2
    for changes in ({"heads": 5}, {"kv_heads": 3}, {"depth": 0}):
        with pytest.raises(InputError, match="model: "):
            Shape(**{"family": "qwen3", "depth": 2, "width": 64, "heads": 4, **changes})


def test_losses_are_sums_over_what_is_not_masked():
    scores = torch.zeros(1, 3, 4)
    scores[0, 0, 2] = 100.0
    loss, squares = losses(scores, torch.tensor([[2, 1, IGNORED]]))
    assert loss.item() == pytest.approx(np.log(4))
    assert squares.item() == pytest.approx(100.0**2 + np.log(4) ** 2)
    assert [item.item() for item in losses(scores, torch.full((1, 3), IGNORED))] == [0.0, 0.0]


def test_schedules_rise_and_fall():
    def rates(*done: float, **settings) -> list[float]:
        return [Optimiser(learning_rate=1.0, **settings).rate(part) for part in done]

    assert rates(0.0, 0.1, 0.2, 0.6, 1.0, 1.5, warmup=0.2) == pytest.approx([0.1, 0.55, 1, 0.55, 0.1, 0.1])
    assert rates(0.0, warmup=0.0) == [1.0]
    wsd = rates(0.0, 0.1, 0.5, 0.8, 0.9, 1.0, 1.5, schedule="wsd", warmup=0.1, decay=0.2)
    assert wsd == pytest.approx([0.1, 1, 1, 1, 0.55, 0.1, 0.1])


def test_wild_steps_are_left_out_and_too_many_end_the_run():
    watch = Watch(skip_above=5.0)
    assert all(watch.takes(1.0, 1.0 + i % 3) for i in range(40))
    assert not watch.takes(1.0, 11.0) and watch.takes(1.0, 9.0)
    assert not watch.takes(float("nan"), 1.0) and not watch.takes(1.0, float("inf")) and watch.skipped == 3
    assert Watch(None).takes(1.0, 1e9)
    with pytest.raises(RuntimeError, match="10 steps in a row"):
        for _ in range(20):
            watch.takes(float("inf"), 1.0)


def test_pieces_of_a_step_add_up_to_it(tmp_path, data):
    """Also where pieces have different numbers of targets: the mean is over those of the step."""
    uneven = pack(tmp_path, [[[1, 2, 3]], [[4] * 60]] * 4, seq_len=64, vocab_size=32)
    for shards in (Shards(data), Shards(uneven)):
        found = []
        for accumulate in (1, 2, 4):
            model = build(tiny(), 0)
            settings = Optimiser(warmup=0.0, z_loss=1e-3)
            stream = Stream([shards], rows=4, seed=0)
            kept = Kept.read(None, 32)
            steps = list(
                train(
                    Objective(model),
                    optimizer_of(model, settings),
                    stream,
                    settings,
                    Budget(3, None),
                    kept,
                    ALONE,
                    accumulate,
                )
            )
            found.append(([m.loss for m in steps], model.lm_head.weight.detach()))
        for losses_, weight in found[1:]:
            assert losses_ == pytest.approx(found[0][0], rel=1e-5)
            torch.testing.assert_close(weight, found[0][1], rtol=1e-3, atol=1e-5)


def test_a_checkpoint_is_published_with_what_made_it(tmp_path, data, capsys):
    spec = write_spec(tmp_path, data, steps=120, seed=1)
    assert main(["--spec", str(spec)]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    checkpoint = Dataset.load(told["path"])
    manifest, stats = checkpoint.manifest, checkpoint.manifest["stats"]
    # 32 tokens, about equally frequent: 3.47 nats. Who knows the token before needs about 0.65.
    assert 3.3 < stats["unigram_entropy"] <= np.log(32)
    assert stats["first_loss"] > 3.1
    assert stats["last_loss"] < 1.0
    assert (told["first_loss"], told["last_loss"]) == (stats["first_loss"], stats["last_loss"])
    assert (stats["steps"], stats["cursor"]["step"], stats["seed"]) == (120, 120, 1)
    assert stats["tokens"] == 120 * 8 * 63
    made = manifest["made"]
    assert made["tokens_per_second"] == pytest.approx(stats["tokens"] / made["seconds"], rel=1e-2)
    assert made["flops_per_second"] > 6 * stats["parameters"] * made["tokens_per_second"] > 0
    assert (stats["data"], stats["device"]) == (data.digest, manifest["made"]["device"])
    assert {"torch", "transformers"} <= set(stats["versions"])
    assert manifest["inputs"] == [{"name": "packed", "key": data.key, "digest": data.digest}]
    assert manifest["ops"][0]["params"]["steps"] == 120
    assert not {"data", "digest", "root", "name"} & set(manifest["ops"][0]["params"])
    assert manifest["reproducible"] is (not torch.cuda.is_available())
    for entry in manifest["files"]:
        assert file_sha256(f"{checkpoint.path}/{entry['file']}") == entry["sha256"]
    assert stat.S_IMODE(Path(checkpoint.file("model.safetensors")).stat().st_mode) == stat.S_IMODE(
        Path(checkpoint.file("config.json")).stat().st_mode
    )
    steps = [json.loads(line) for line in Path(checkpoint.file("metrics.jsonl")).read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, 121))
    assert stats["last_loss"] == pytest.approx(np.mean([step["loss"] for step in steps[-10:]]))
    assert json.loads(Path(checkpoint.file("loss_curve.json")).read_text())["tokens"][-1] == stats["tokens"]
    assert "loss_curve" not in stats  # once is enough
    assert "step 1/120  loss 3." in printed.err

    # What was published is the model that was trained: it does on the data what the last steps did.
    batch = Shards(data).gather(np.arange(32))
    with torch.no_grad():
        total, _ = losses(logits(load_model(checkpoint), batch.tokens, batch.positions), batch.labels)
    assert total.item() / (batch.labels != IGNORED).sum().item() == pytest.approx(stats["last_loss"], abs=0.15)

    # The same spec again: taken, not trained.
    assert main(["--spec", str(spec)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == told
    assert "not trained again" in printed.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="training on a GPU is not reproducible to the byte")
def test_the_same_steps_give_the_same_bytes_wherever_they_are_put(tmp_path, data, capsys):
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert main(["--spec", str(write_spec(tmp_path / name, data, steps=5, name=name))]) == 0
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    assert digests[0] == digests[1]


def test_the_share_of_the_peak_that_is_used():
    """GPT-3's shape at 1,000 tokens a second on an H200: 989 TFLOP/s dense bf16 by its data sheet."""
    made = PlanShape(96, 12288, 96, 96, 128, 49152, 50257, tied=True, gated=False)
    told = speed(made, 2048, 100.0, "NVIDIA H200")
    assert told["mfu"] == pytest.approx(told["flops_per_second"] / 989e12, rel=0.01) and 0.1 < told["mfu"] < 0.2
    assert speed(made, 2048, 100.0, "cpu")["mfu"] is None


def test_a_budget_in_seconds_ends_by_the_clock(tmp_path, data, capsys):
    settings = Optimiser(warmup=0.2, learning_rate=1e-3)
    ticks = iter(np.arange(0, 100, 3.0))  # the clock is read at the start and after every step
    model, stream = build(tiny(), 0), Stream([Shards(data)], rows=4, seed=0)
    budget, kept = Budget(None, 10.0), Kept.read(None, 32)
    optimizer, clock = optimizer_of(model, settings), lambda: next(ticks)
    steps = list(train(Objective(model), optimizer, stream, settings, budget, kept, ALONE, clock=clock))
    assert [m.step for m in steps] == [1, 2, 3, 4]
    assert steps[-1].cursor.step == 4
    assert [m.learning_rate for m in steps] == pytest.approx([settings.rate(s / 10) for s in (0, 3, 6, 9)])

    assert main(["--spec", str(write_spec(tmp_path, data, seconds=0.2))]) == 0
    manifest = Dataset.load(json.loads(capsys.readouterr().out)["path"]).manifest
    assert manifest["reproducible"] is False
    assert manifest["stats"]["cursor"]["step"] == manifest["stats"]["steps"] >= 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": [{"path": "nowhere", "digest": "0" * 64}]}, "no dataset at nowhere"),
        ({"data": []}, "names no dataset"),
        ({"data": [{"path": "nowhere"}]}, "missing: digest"),
        ({"accumulate": 3}, "do not divide into 3 pieces"),
        ({"start": {"path": "x", "digest": "y"}}, "leave it out where start names a checkpoint"),
        ({"optimiser": {"schedule": "linear"}}, "one of cosine, wsd"),
        ({"steps": None}, "one of the two"),
        ({"seconds": 5}, "one of the two"),
        ({"steps": 0}, "steps is 0"),
        ({"rows": 2.5}, "rows is 2.5"),
        ({"seed": True}, "seed is True"),
        ({"name": "../up"}, "name is '../up'"),
        ({"deepth": 4}, "unknown: deepth"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(tmp_path, data, capsys, changes, says):
    assert main(["--spec", str(write_spec(tmp_path, data, **{"steps": 2, **changes}))]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert not (tmp_path / "root").exists()


def test_sigterm_publishes_nothing_and_keeps_the_state(tmp_path, data):
    spec = write_spec(tmp_path, data, steps=10**7)
    command = [sys.executable, "-m", "gristmill.training.pretrain", "--spec", str(spec)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(process.stderr.readline, "")
        assert any(line.startswith("step 1/") for line in lines)  # it is training
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert out == ""
    assert "Traceback" not in err
    assert "the same spec goes on from there" in err
    assert [path.parent.name for path in (tmp_path / "root").rglob("*") if path.is_file()] == [".training"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="training on a GPU is not reproducible to the byte")
def test_a_run_that_was_stopped_ends_in_the_same_bytes(tmp_path, data, capsys, monkeypatch):
    """Also where it was killed after a state was written: it goes on from there."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    changes = {"steps": 12, "accumulate": 2, "optimiser": {"schedule": "wsd", "skip_above": 3.0}}
    assert main(["--spec", str(write_spec(tmp_path / "whole", data, **changes))]) == 0
    whole = json.loads(capsys.readouterr().out)
    spec = write_spec(tmp_path / "parts", data, save_seconds=1e-9, **changes)
    dying = [4, 9]

    def dies(*arguments, **settings):
        for metrics in train(*arguments, **settings):
            if metrics.step in dying:
                dying.remove(metrics.step)
                raise KeyboardInterrupt  # before the state of this step is written
            yield metrics

    monkeypatch.setattr("gristmill.training.pretrain.train", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            main(["--spec", str(spec)])
    assert main(["--spec", str(spec)]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert parts["digest"] == whole["digest"]
    assert not list((tmp_path / "parts" / "root" / ".training").iterdir())


def test_training_goes_on_from_a_checkpoint_with_replay_and_tells_the_loss_per_source(tmp_path, data, capsys):
    def trained(**changes) -> Dataset:
        assert main(["--spec", str(write_spec(tmp_path, data, **changes))]) == 0
        return Dataset.load(json.loads(capsys.readouterr().out)["path"])

    base = trained(steps=60)
    other = pack(tmp_path / "other", chain(40, 64, 32, seed=7), seq_len=64, vocab_size=32)
    sources = [
        {"path": other.path, "digest": other.digest, "weight": 0.75},
        {"path": data.path, "digest": data.digest, "weight": 0.25},
    ]
    held = [{"path": item.path, "digest": item.digest} for item in (other, data)]
    start = {"path": base.path, "digest": base.digest}
    tuned = trained(model=..., start=start, data=sources, validation=held, steps=40, name="tuned")
    stats = tuned.manifest["stats"]
    digests = [other.digest, data.digest, base.digest, other.digest, data.digest]
    assert [entry["digest"] for entry in tuned.manifest["inputs"]] == digests
    assert list(stats["epochs"].values()) == pytest.approx([40 * 8 * 0.75 / 40, 40 * 8 * 0.25 / 96], rel=1e-4)
    new, old = stats["validation"].values()
    alone = trained(model=..., start=start, data=sources[:1], validation=held, steps=40, name="alone")
    forgot = list(alone.manifest["stats"]["validation"].values())[1]
    assert new < 2.5 and old < forgot  # replay forgets less

    small = pack(tmp_path / "small", chain(8, 64, 16), seq_len=64, vocab_size=16)
    wrong = [{"path": small.path, "digest": small.digest}]
    assert main(["--spec", str(write_spec(tmp_path, data, model=..., start=start, data=wrong, steps=1))]) == 2
    assert "vocabulary of 32, the data one of 16" in capsys.readouterr().err


def test_a_damaged_state_is_refused_in_one_line(tmp_path, data, capsys, monkeypatch):
    spec = write_spec(tmp_path, data, steps=6, save_seconds=1e-9)

    def dies(*arguments, **settings):
        for metrics in train(*arguments, **settings):
            if metrics.step == 3:
                raise KeyboardInterrupt
            yield metrics

    monkeypatch.setattr("gristmill.training.pretrain.train", dies)
    with pytest.raises(KeyboardInterrupt):
        main(["--spec", str(spec)])
    (state,) = (tmp_path / "root" / ".training").iterdir()
    state.write_bytes(state.read_bytes()[:-100])
    capsys.readouterr()
    assert main(["--spec", str(spec)]) == 2
    assert "remove it to start anew" in capsys.readouterr().err.splitlines()[-1]
