"""Merging: golden tensors worked by hand, the laws between the methods, and what may not change the bytes."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from gristmill.dataops.dataset import Dataset, publish_files
from gristmill.training.checkpoint import load_model, save_model
from gristmill.training.merge import MergeSpec, dry, run
from gristmill.training.merging import methods, stream
from gristmill.training.merging.weights import weights_by_tensor
from gristmill.training.step import main as step

CONFIG = {"model_type": "toy", "architectures": ["Toy"], "vocab_size": 8}


def publish(root: Path, name: str, tensors: dict[str, torch.Tensor], files: dict[str, object] | None = None) -> Dataset:
    """A checkpoint dataset of some tensors, with the JSON files given."""
    building = root / ".building" / name
    (building / "files").mkdir(parents=True)
    save_file(tensors, building / "files" / "model.safetensors")
    for file, content in {"config.json": CONFIG, **(files or {})}.items():
        (building / "files" / file).write_text(json.dumps(content))
    return publish_files(root, name, building, ops=[{"name": name, "version": 1, "params": {}}], inputs=[], made={})


def merge(root: Path, method: str, models: list[Dataset], weights: list | None = None, base=None, **fields) -> Dataset:
    listed = [
        {"path": m.path, "digest": m.digest, "weight": w}
        for m, w in zip(models, weights or [1] * len(models), strict=True)
    ]
    if base is not None:
        fields["base"] = {"path": base.path, "digest": base.digest}
    return run(MergeSpec(method=method, models=listed, root=str(root), **fields))


def values(dataset: Dataset, name: str = "w") -> torch.Tensor:
    return load_file(dataset.file("model.safetensors"))[name]


def vector(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32)


BASE = vector(1, 2, 3, 4, 5, 6)
A = BASE + vector(4, -1, 0.5, 2, -3, 0)
B = BASE + vector(2, 3, -0.25, -4, -1, 0.5)


@pytest.fixture
def three(tmp_path) -> tuple[Dataset, Dataset, Dataset]:
    return tuple(publish(tmp_path, n, {"w": t.clone()}) for n, t in (("base", BASE), ("a", A), ("b", B)))


def test_golden_linear(tmp_path, three):
    _, a, b = three
    # (3 a + 1 b) / 4
    assert torch.equal(
        values(merge(tmp_path, "linear", [a, b], [3, 1])), BASE + vector(3.5, 0, 0.3125, 0.5, -2.5, 0.125)
    )


def test_golden_task_arithmetic(tmp_path, three):
    base, a, b = three
    out = merge(tmp_path, "task_arithmetic", [a, b], [0.5, -1], base)
    assert torch.equal(values(out), BASE + vector(0, -3.5, 0.5, 5, -0.5, -0.5))


def test_golden_ties(tmp_path, three):
    base, a, b = three
    # Half of six are kept: of a 4, 2, -3; of b 2, 3, -4. Signs by mass: + + 0 - -; the mean of those that agree.
    out = merge(tmp_path, "ties", [a, b], None, base, density=0.5)
    assert torch.equal(values(out), BASE + vector(3, 3, 0, -4, -3, 0))
    # With weights 3 and 1: masses 14, 3, 0, 2, -9, 0; twice the weighted means (12 + 2) / 4, 3, 0, 2, -3.
    out = merge(tmp_path, "ties", [a, b], [3, 1], base, density=0.5, scale=2)
    assert torch.equal(values(out), BASE + vector(7, 6, 0, 4, -6, 0))


def test_elements_of_equal_magnitude_stand_or_fall_together():
    delta = vector(1, -1, 2, 0.5)
    assert torch.equal(methods.trim(delta, 1.0), vector(1, -1, 2, 0))


def test_golden_slerp(tmp_path):
    # Norms 1 and 2 at a right angle: a third of the way is 30 degrees: cos 30 a + sin 30 b.
    a = publish(tmp_path, "a", {"w": torch.tensor([[1.0, 0.0], [0.0, 0.0]])})
    b = publish(tmp_path, "b", {"w": torch.tensor([[0.0, 0.0], [0.0, 2.0]])})
    out = merge(tmp_path, "slerp", [a, b], [2, 1])
    assert torch.allclose(values(out), torch.tensor([[0.75**0.5, 0.0], [0.0, 1.0]]), atol=1e-7)


@pytest.mark.parametrize("other", [vector(2, 0.01), vector(-2, 0.01), vector(0, 0)])
def test_slerp_is_lerp_where_the_angle_says_nothing(tmp_path, other):
    a, b = publish(tmp_path, "a", {"w": vector(1, 0)}), publish(tmp_path, "b", {"w": other.clone()})
    assert torch.equal(values(merge(tmp_path, "slerp", [a, b], [0.75, 0.25])), 0.75 * vector(1, 0) + 0.25 * other)


def philox(key: int, counter: int) -> list[int]:
    """One step of Philox-4x64-10 (Salmon et al. 2011): four 64-bit words."""
    words, keys, low = [counter, 0, 0, 0], [key % 2**64, key >> 64], 2**64 - 1
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [(b >> 64) ^ words[1] ^ keys[0], b & low, (a >> 64) ^ words[3] ^ keys[1], a & low]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & low, (keys[1] + 0xBB67AE8584CAA73B) & low]
    return words


def test_golden_dare():
    key = int.from_bytes(hashlib.sha256(b"7:d:w").digest()[:16], "big")
    assert methods.dare_key(7, "w", "d") == key
    # The counter is raised before its first use; each word gives two numbers, the lower half first.
    numbers = [half for step in (1, 2) for word in philox(key, step) for half in (word % 2**32, word >> 32)]
    wanted = [4.0 if number < 0.25 * 2**32 else 0.0 for number in numbers]
    assert methods.dare(torch.ones(16), 0.25, key, 0).tolist() == wanted
    assert methods.dare(torch.ones(5), 0.25, key, 8).tolist() == wanted[8:13]
    assert sum(wanted) > 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 0.9]))
def test_dare_keeps_the_expectation(seed, density):
    delta = torch.linspace(-1, 3, 40_000)
    out = methods.dare(delta.clone(), density, methods.dare_key(seed, "w", "d"), 0)
    assert torch.allclose(out[out != 0], delta[out != 0] / density)
    spread = (delta.square().mean() * (1 - density) / density / len(delta)).sqrt()
    assert abs(out.mean() - delta.mean()) < 6 * spread
    kept = (out != 0).float().mean()
    assert abs(kept - density) < 6 * (density * (1 - density) / len(delta)) ** 0.5


FLOATS = st.floats(-100, 100, width=32)


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40), st.data())
def test_magnitude_is_the_one_that_sorting_gives(numbers, data):
    rank = data.draw(st.integers(1, len(numbers)))
    tensor = vector(*numbers)

    def each(call):
        return [call(start, min(start + 8, len(tensor))) for start in range(0, len(tensor), 8)]

    found = methods.magnitude(each, lambda start, stop: tensor[start:stop].clone(), rank)
    assert found == sorted(map(abs, tensor.tolist()), reverse=True)[rank - 1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=1, max_size=20), st.permutations(range(3)))
def test_the_order_of_models_does_not_matter_to_the_mean_and_to_ties(rows, order):
    models = [vector(*column) for column in zip(*rows, strict=True)]
    weights = [1.0, 2.0, 0.5]
    shuffled, moved = [models[n] for n in order], [weights[n] for n in order]
    assert torch.allclose(methods.linear(models, weights), methods.linear(shuffled, moved), atol=1e-4)
    mass = sum(m * w for m, w in zip(models, weights, strict=True))
    settled = mass.abs() > 1e-3  # where masses cancel, rounding elects
    one, other = methods.disjoint_mean(models, weights), methods.disjoint_mean(shuffled, moved)
    assert torch.allclose(one[settled], other[settled], atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=20), st.floats(0.1, 10), st.integers(1, 4))
def test_a_model_merged_with_itself_is_itself(numbers, weight, times):
    tensor = vector(*numbers)
    assert torch.equal(methods.linear([tensor] * times, [weight] * times), tensor)
    assert torch.allclose(methods.disjoint_mean([tensor] * times, [weight] * times), tensor, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_whole_weight_on_one_model_gives_its_bytes(tmp_path, dtype):
    one, other = ({"w": torch.randn(7, 9).to(dtype), "x": torch.full((3,), -0.0, dtype=dtype)} for _ in range(2))
    a, b = publish(tmp_path, "a", one), publish(tmp_path, "b", other)
    for out in (
        merge(tmp_path, "linear", [a, b], [1, 0]),
        merge(tmp_path, "slerp", [a, b], [1, 0]),
        merge(tmp_path, "task_arithmetic", [b], [0], a),
        merge(tmp_path, "ties", [b], [1], a, density=0.5, scale=0),
    ):
        for name, tensor in one.items():
            assert torch.equal(values(out, name).view(torch.uint8), tensor.view(torch.uint8))
            assert values(out, name).dtype == dtype


def test_ties_that_keeps_all_of_one_model_is_task_arithmetic(tmp_path):
    base, model = (publish(tmp_path, n, {"w": torch.randn(50, 50)}) for n in ("base", "model"))
    ties = merge(tmp_path, "ties", [model], [5], base, density=1, scale=0.3)
    assert ties.digest == merge(tmp_path, "task_arithmetic", [model], [0.3], base).digest
    assert ties.digest == merge(tmp_path, "dare_ties", [model], [1], base, density=1, seed=0, scale=0.3).digest


def test_what_is_written_has_the_dtype_of_the_base_and_is_computed_in_float32(tmp_path):
    base = publish(tmp_path, "base", {"w": torch.ones(2, dtype=torch.bfloat16)})
    models = [publish(tmp_path, n, {"w": vector(1 + 2**-9, 1)}) for n in ("a",)] * 4
    # Each task vector is lost when added to 1 in bfloat16 (steps of 2**-7); their sum in float32 is not.
    out = values(merge(tmp_path, "task_arithmetic", models, None, base))
    assert out.dtype == torch.bfloat16
    assert out.tolist() == [1 + 2**-7, 1]


METHODS = {
    "linear": {}, "slerp": {}, "task_arithmetic": {}, "ties": {"density": 0.3, "scale": 0.7},
    "dare": {"density": 0.4, "seed": 3}, "dare_ties": {"density": 0.4, "seed": 3},
}  # fmt: skip


def sharded(root: Path, name: str, tensors: dict[str, torch.Tensor]) -> Dataset:
    """A checkpoint with every tensor in a file of its own."""
    building = root / ".building" / name
    (building / "files").mkdir(parents=True)
    (building / "files" / "config.json").write_text(json.dumps(CONFIG))
    places = {tensor: f"model-{n:05d}-of-{len(tensors):05d}.safetensors" for n, tensor in enumerate(tensors, 1)}
    for tensor, file in places.items():
        save_file({tensor: tensors[tensor]}, building / "files" / file)
    index = {"metadata": {}, "weight_map": places}
    (building / "files" / "model.safetensors.index.json").write_text(json.dumps(index))
    return publish_files(root, name, building, ops=[{"name": name, "version": 1, "params": {}}], inputs=[], made={})


@pytest.mark.parametrize("method", METHODS)
def test_order_shards_and_threads_are_no_part_of_the_result(tmp_path, method, monkeypatch):
    fields, generator = METHODS[method], torch.Generator().manual_seed(0)
    # More than two blocks, and an odd rest.
    shapes = {"layers.0.w": (2 * stream.BLOCK + 13,), "layers.1.w": (40, 3), "norm": (5,), "none": (0, 4)}
    sets = [{n: torch.randn(s, generator=generator).bfloat16() for n, s in shapes.items()} for _ in range(4)]
    base = publish(tmp_path, "base", sets[0]) if method not in ("linear", "slerp") else None
    count = 2 if method == "slerp" else 3
    whole = [publish(tmp_path, f"m{n}", tensors) for n, tensors in enumerate(sets[1 : count + 1])]
    cut = [sharded(tmp_path, f"s{n}", tensors) for n, tensors in enumerate(sets[1 : count + 1])]
    weights = [1, 2, 0.5][:count]
    monkeypatch.setattr(stream, "WORKERS", 1)
    first = merge(tmp_path, method, whole, weights, base, **fields)
    monkeypatch.setattr(stream, "WORKERS", 3)
    monkeypatch.setattr(stream.os, "sched_getaffinity", lambda _: {0, 1, 2})
    turned = merge(tmp_path, method, whole[::-1], weights[::-1], base, like=None if base else count - 1, **fields)
    assert (turned.key, turned.path) == (first.key, first.path)
    again = merge(
        tmp_path / "again", method, whole[::-1], weights[::-1], base, like=None if base else count - 1, **fields
    )
    assert again.digest == first.digest
    assert merge(tmp_path, method, cut, weights, base, **fields).digest == first.digest
    assert values(first, "none").shape == (0, 4)
    assert not torch.equal(values(first, "layers.0.w"), sets[1]["layers.0.w"])


def test_dare_draws_anew_for_every_tensor_model_and_seed(tmp_path):
    base = publish(tmp_path, "base", {"v": torch.zeros(999), "w": torch.zeros(999)})
    a, b = (
        publish(tmp_path, n, {"v": torch.full((999,), k), "w": torch.full((999,), k)})
        for n, k in (("a", 1.0), ("b", 2.0))
    )
    outs = [merge(tmp_path, "dare", [m], None, base, density=0.5, seed=s) for m, s in ((a, 0), (a, 1), (b, 0))]
    masks = [values(out, name) != 0 for out in outs for name in ("v", "w")]
    for n, mask in enumerate(masks):
        assert all(0.35 < (mask == other).float().mean() < 0.65 for other in masks[:n])


def test_the_output_is_cut_into_files_of_the_size_asked_for(tmp_path):
    tensors = {f"layers.{n}.w": torch.randn(10, 10) for n in range(5)} | {"head": torch.randn(300)}
    a, b = publish(tmp_path, "a", tensors), publish(tmp_path, "b", {n: t + 1 for n, t in tensors.items()})
    out = merge(tmp_path, "linear", [a, b], shard_bytes=800)
    index = json.loads(Path(out.file("model.safetensors.index.json")).read_text())
    assert index["metadata"]["total_size"] == 5 * 400 + 1200
    files = sorted(set(index["weight_map"].values()))
    assert files == [f"model-{n:05d}-of-00004.safetensors" for n in range(1, 5)]  # head; 0 1; 2 3; 4
    for file in files:
        for name, tensor in load_file(out.file(file)).items():
            assert index["weight_map"][name] == file
            assert torch.allclose(tensor, tensors[name] + 0.5, atol=1e-6)
    # What was cut is read again as one model.
    assert torch.equal(values(merge(tmp_path, "linear", [out, out]), "head"), load_file(out.file(files[0]))["head"])


def test_weights_by_pattern_and_layer():
    names = [f"model.layers.{n}.{part}.w" for n in range(5) for part in ("attn", "mlp")] + ["embed"]
    found = weights_by_tensor({"*.mlp.*": (0.0, 1.0, 0.0), "*.layers.*": 0.25, "*": 2.0}, names, "spec")
    assert [found[f"model.layers.{n}.mlp.w"] for n in range(5)] == [0, 0.5, 1, 0.5, 0]
    assert {found[f"model.layers.{n}.attn.w"] for n in range(5)} == {0.25}
    assert found["embed"] == 2


def tiny(root: Path, name: str, seed: int) -> Dataset:
    """A Llama of a few thousand weights with tied embeddings, published."""
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    building = root / ".building" / name
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_model(LlamaForCausalLM(config), building / "files")
    return publish_files(
        root, name, building, ops=[{"name": name, "version": 1, "params": {}}], inputs=[], made={},
        stats={"tokenizer": "t", "template": None, "parameters": 0},
    )  # fmt: skip


def test_a_merged_llama_runs_and_says_what_it_was_made_of(tmp_path, capsys):
    base, a, b = (tiny(tmp_path, name, seed) for seed, name in enumerate(("base", "a", "b")))
    spec = {
        "method": "ties", "density": 0.5, "root": str(tmp_path), "base": {"path": base.path, "digest": base.digest},
        "models": [
            {"path": a.path, "digest": a.digest, "weight": {"*.layers.*": [1, 0.2], "*": 1}},
            {"path": b.path, "digest": b.digest},
        ],
    }  # fmt: skip
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert step(MergeSpec, run, dry, ["--spec", str(tmp_path / "spec.json")]) == 0
    printed = capsys.readouterr()
    out = Dataset.load(json.loads(printed.out)["path"])
    assert "MB/s" in printed.err
    assert out.kind == "checkpoint"
    assert {entry["digest"] for entry in out.manifest["inputs"]} == {base.digest, a.digest, b.digest}
    assert out.manifest["reproducible"]
    stats = out.manifest["stats"]
    assert (stats["tokenizer"], stats["template"]) == ("t", None) and stats["parameters"] > 0
    model = load_model(out)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    logits = model(torch.arange(10)[None]).logits
    assert logits.shape == (1, 10, 96)
    assert logits.isfinite().all()
    assert not torch.equal(model.lm_head.weight, load_model(base).lm_head.weight)
    # The same spec again: taken, not merged.
    assert step(MergeSpec, run, dry, ["--spec", str(tmp_path / "spec.json")]) == 0
    assert "stands already" in capsys.readouterr().err
    # The plain mean is that of the models' parameters.
    mean = load_model(merge(tmp_path, "linear", [a, b])).state_dict()
    for name, tensor in load_model(a).state_dict().items():
        assert torch.allclose(mean[name], (tensor + load_model(b).state_dict()[name]) / 2, atol=1e-6)


MEMORY = """
import json, resource, sys
from gristmill.training.merge import MergeSpec, run
import transformers.models.auto.configuration_auto
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
run(MergeSpec(**json.loads(sys.argv[1])))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_model(tmp_path):
    tensors = {f"layers.{n}.w": torch.full((25_000, 1_000), n, dtype=torch.bfloat16) for n in range(8)}  # 400 MB
    base, a = publish(tmp_path, "base", tensors), publish(tmp_path, "a", {n: t + 1 for n, t in tensors.items()})
    item = {"path": a.path, "digest": a.digest}
    spec = {"method": "ties", "density": 0.5, "models": [item], "base": {"path": base.path, "digest": base.digest}}
    command = [sys.executable, "-c", MEMORY, json.dumps({**spec, "root": str(tmp_path)})]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 64 << 20  # one tensor alone is 50 MB, in float32 100 MB


def test_sigterm_leaves_nothing(tmp_path):
    tensors = {f"layers.{n}.w": torch.ones(1_000_000) for n in range(20)}
    base, a = publish(tmp_path, "base", tensors), publish(tmp_path, "a", {n: t + 1 for n, t in tensors.items()})
    spec = {"method": "dare", "density": 0.5, "seed": 0, "root": str(tmp_path / "out")}
    spec |= {"models": [{"path": a.path, "digest": a.digest}], "base": {"path": base.path, "digest": base.digest}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "gristmill.training.merge", "--spec", str(tmp_path / "spec.json")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("out/.building/*/files/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_dry_run_says_what_would_be_written(tmp_path):
    tensors = {"a.weight": torch.ones(30, 10), "b.weight": torch.ones(10)}
    one, other = publish(tmp_path, "one", tensors), publish(tmp_path, "other", tensors)
    spec = MergeSpec("linear", [{"path": m.path, "digest": m.digest} for m in (one, other)], str(tmp_path / "out"))
    told = dry(spec)
    assert (told["tensors"], told["parameters"], told["bytes"]) == (2, 310, 4 * 310)
    assert told["memory"]["total"] > 0 and not (tmp_path / "out").exists()
    assert run(spec).manifest["stats"]["parameters"] == 310
