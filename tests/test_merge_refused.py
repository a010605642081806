"""What a merge refuses: specs, models that do not go together, damaged files; by name, with what to do."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from gristmill.dataops.dataset import DamagedError, Dataset, InputError, publish_files
from gristmill.training.merge import MergeSpec, dry, run
from gristmill.training.merging.tensors import read_header, read_weights
from gristmill.training.spec import read_spec
from gristmill.training.step import main as step

CONFIG = {"model_type": "toy", "architectures": ["Toy"], "vocab_size": 4, "rope": {"theta": 1e4}}
TENSORS = {"embed.weight": torch.ones(4, 2), "layers.0.w": torch.ones(3, 3)}
TOKENIZER = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}, "added_tokens": []}


def publish(root: Path, name: str, files: dict[str, object], tensors: dict[str, torch.Tensor] | bytes) -> Dataset:
    """A checkpoint of JSON files and tensors (or a whole safetensors file, as bytes)."""
    building = root / ".building" / name
    (building / "files").mkdir(parents=True)
    if isinstance(tensors, bytes):
        (building / "files" / "model.safetensors").write_bytes(tensors)
    else:
        save_file(tensors, building / "files" / "model.safetensors")
    for file, content in files.items():
        (building / "files" / file).write_text(json.dumps(content))
    return publish_files(root, name, building, ops=[{"name": name, "version": 1, "params": {}}], inputs=[], made={})


def refused(root: Path, other: Dataset, *, first: dict | None = None, tensors: dict | None = None, **spec) -> str:
    """What is said when a sound model and another one are merged; nothing may be left behind."""
    one = publish(root, "one", first or {"config.json": CONFIG}, tensors or TENSORS)
    models = [{"path": m.path, "digest": m.digest} for m in (one, other)]
    with pytest.raises(InputError) as error:
        run(MergeSpec(**{"method": "linear", "models": models, "root": str(root / "out"), **spec}))
    assert not [path for path in (root / "out").rglob("*") if path.is_file()]
    return str(error.value)


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({"model_type": "tay"}, {}, "model_type is toy in"),
        ({"rope": {"theta": 5e5}}, {}, "rope.theta is 10000.0 in"),
        ({"vocab_size": 5}, {"embed.weight": torch.ones(5, 2)}, "vocab_size is 4 in"),
        ({}, {"embed.weight": torch.ones(5, 2)}, "embed.weight has the shape [4, 2] in"),
        ({}, {"layers.0.w": torch.ones(3, 4)}, "layers.0.w has the shape [3, 3] in"),
        ({}, {"layers.1.w": torch.ones(1)}, "layers.1.w is in"),
        ({}, {"layers.0.w": torch.ones(3, 3, dtype=torch.int8)}, "layers.0.w is F32 in"),
        ({}, {"layers.0.w": torch.ones(3, 3, dtype=torch.float8_e4m3fn)}, "layers.0.w is F32 in"),
        ({}, {"layers.0.w": torch.full((3, 3), torch.nan)}, "layers.0.w is nan at [0, 0]"),
        ({}, {"layers.0.w": torch.tensor([[1.0] * 3, [1, 1, -torch.inf], [1] * 3])}, "layers.0.w is -inf at [1, 2]"),
        ({"quantization_config": {"bits": 4}}, {}, "dequantise it first"),
    ],
)
def test_models_that_do_not_go_together(tmp_path, config, tensors, says):
    other = publish(tmp_path, "other", {"config.json": CONFIG | config}, TENSORS | tensors)
    message = refused(tmp_path, other)
    assert says in message
    if "embed" in says or "vocab" in says:
        assert "resize_token_embeddings" in message


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        ({"added_tokens": [{"id": 3, "content": "<|im_start|>"}]}, "'<|im_start|>' is not in"),
        ({"model": TOKENIZER["model"] | {"vocab": {"b": 0, "a": 1, "ab": 2}}}, "the token 'a' is 0 in"),
        ({"model": TOKENIZER["model"] | {"merges": []}}, "the merges of"),
        ({"normalizer": {"type": "NFC"}}, "the normalizer of"),
        ({"model": {}}, "holds no vocabulary"),
    ],
)
def test_other_tokenizers(tmp_path, tokenizer, says):
    other = publish(tmp_path, "other", {"config.json": CONFIG, "tokenizer.json": TOKENIZER | tokenizer}, TENSORS)
    assert says in refused(tmp_path, other, first={"config.json": CONFIG, "tokenizer.json": TOKENIZER})


def test_what_may_differ_comes_from_the_model_that_is_named(tmp_path, capsys):
    merges = {"model": TOKENIZER["model"] | {"merges": [["a", "b"]]}}  # another spelling of the same
    sets = []
    for n, extra in enumerate(({}, merges)):
        config = CONFIG | {"eos_token_id": n, "max_position_embeddings": 100 * (n + 1), "hidden_dropout": n}
        files = {"config.json": config, "tokenizer.json": TOKENIZER | extra, "generation_config.json": {"eos": n}}
        sets.append(publish(tmp_path, f"m{n}", files | {"metrics.json": {}}, TENSORS))
    models = [{"path": m.path, "digest": m.digest} for m in sets]
    out = run(MergeSpec(method="linear", models=models, root=str(tmp_path), like=1))
    for file in ("config.json", "tokenizer.json", "generation_config.json"):
        assert Path(out.file(file)).read_bytes() == Path(sets[1].file(file)).read_bytes()
    assert not Path(out.file("metrics.json")).exists()
    assert "no tokenizer" not in capsys.readouterr().err


def test_a_head_tied_to_the_embeddings_may_be_stored_or_not(tmp_path):
    config = {"config.json": CONFIG | {"tie_word_embeddings": True}}
    other = publish(tmp_path, "other", config, TENSORS | {"lm_head.weight": torch.ones(4, 2)})
    one = publish(tmp_path, "bare", config, TENSORS)
    for like in (0, 1):
        models = [{"path": m.path, "digest": m.digest} for m in (one, other)]
        out = run(MergeSpec(method="linear", models=models, root=str(tmp_path), like=like))
        assert set(read_weights(Path(out.file("")))) == set(TENSORS)
    lie = publish(tmp_path, "lie", config, TENSORS | {"lm_head.weight": torch.zeros(4, 2)})
    assert "lm_head.weight is not equal to the embeddings" in refused(tmp_path, lie, first=config)


def test_whole_numbers_are_taken_over_where_they_are_equal(tmp_path):
    steps = {"steps": torch.tensor([1, 2, 3])}
    same, other = (
        publish(tmp_path, n, {"config.json": CONFIG}, TENSORS | s)
        for n, s in (("s", steps), ("o", {"steps": torch.ones(3).long()}))
    )
    message = refused(tmp_path, other, tensors=TENSORS | steps)
    assert "steps is I64, which cannot be mixed" in message
    models = [{"path": same.path, "digest": same.digest}] * 2
    run(MergeSpec(method="linear", models=models, root=str(tmp_path)))


def test_a_result_too_large_for_its_dtype(tmp_path):
    base, model = (
        publish(tmp_path, n, {"config.json": CONFIG}, {"w": torch.tensor([v], dtype=torch.float16)})
        for n, v in (("base", 0), ("model", 60_000))
    )
    spec = {
        "method": "task_arithmetic",
        "base": {"path": base.path, "digest": base.digest},
        "root": str(tmp_path / "out"),
    }
    with pytest.raises(InputError, match="w: the merged values do not fit into F16"):
        run(MergeSpec(**spec, models=[{"path": model.path, "digest": model.digest, "weight": 2}]))


SOUND = save(TENSORS)
LENGTH = struct.unpack("<Q", SOUND[:8])[0]
HEADER, DATA = json.loads(SOUND[8 : 8 + LENGTH]), SOUND[8 + LENGTH :]


def file_with(data: bytes = DATA, **changes) -> bytes:
    header = json.dumps({name: entry | changes.get(name.replace(".", "_"), {}) for name, entry in HEADER.items()})
    return struct.pack("<Q", len(header)) + header.encode() + data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "0 bytes"),
        (SOUND[:5], "5 bytes"),
        (SOUND[:60], "header said to be"),
        (struct.pack("<Q", 1 << 60) + SOUND[8:], "header said to be"),
        (SOUND[:-1], "layers.0.w ends at byte"),
        (SOUND + b"x", "1 bytes stand behind"),
        (SOUND[:8] + b"[" + SOUND[9:], "no JSON"),
        (file_with(layers_0_w={"shape": [3, 4]}), "gives layers.0.w 36 bytes"),
        (file_with(layers_0_w={"shape": [-3, -3]}), "entry for layers.0.w"),
        (file_with(layers_0_w={"data_offsets": [32]}), "entry for layers.0.w"),
        (file_with(layers_0_w={"data_offsets": [0, 36]}), "one before it ends at"),
        (file_with(layers_0_w={"dtype": "Q4"}), "layers.0.w has the dtype 'Q4'"),
        (file_with(layers_0_w={"dtype": ["F32"]}), "entry for layers.0.w"),
    ],
)
def test_damaged_files(tmp_path, content, says):
    message = refused(tmp_path, publish(tmp_path, "other", {"config.json": CONFIG}, content))
    assert says in message
    assert "model.safetensors" in message


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SOUND) - 1), st.integers(0, 255), st.booleans())
def test_a_file_with_any_byte_changed_is_read_or_refused(tmp_path_factory, place, byte, cut):
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    path.write_bytes(SOUND[:place] if cut else SOUND[:place] + bytes([byte]) + SOUND[place + 1 :])
    try:
        entries = read_header(path)
    except InputError as error:
        assert str(path) in str(error)
        return
    assert sum(entry.bytes for entry in entries.values()) == len(DATA)


def test_one_flipped_bit_after_publishing(tmp_path, capsys):
    one = publish(tmp_path, "one", {"config.json": CONFIG}, TENSORS)
    path = Path(one.file("model.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    spec = {"method": "linear", "models": [{"path": one.path, "digest": one.digest}] * 2, "root": str(tmp_path)}
    with pytest.raises(DamagedError, match=r"model.safetensors is damaged"):
        run(MergeSpec(**spec))
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert step(MergeSpec, run, dry, ["--spec", str(tmp_path / "spec.json")]) == 1
    assert capsys.readouterr().err.count("error: ") == 1


def test_an_index_that_is_not_true(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    for places, says in (
        ({"embed.weight": "a.safetensors"}, "places in no file"),
        ({**dict.fromkeys(TENSORS, "a.safetensors"), "w": "a.safetensors"}, "does not hold it"),
        ({"w": "b.safetensors"}, "which is not there"),
        ({"w": "../a.safetensors"}, "does not name files of the folder"),
    ):
        index.write_text(json.dumps({"weight_map": places}))
        with pytest.raises(InputError, match=says):
            read_weights(tmp_path)
    save_file(TENSORS, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds both"):
        read_weights(tmp_path)


ITEM = {"path": "p", "digest": "d"}
GOOD = {"method": "ties", "models": [ITEM, ITEM], "base": ITEM, "density": 0.5, "root": "r"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "tie"}, "method is 'tie'; it is one of linear, slerp,"),
        ({"base": None}, "ties needs base"),
        ({"method": "linear"}, "linear takes no base"),
        ({"seed": 1}, "ties takes no seed"),
        ({"method": "dare"}, "dare needs seed"),
        ({"density": 0}, "density is 0.0"),
        ({"density": "half"}, "density is 'half', not of type float | None"),
        ({"method": "task_arithmetic", "density": None, "scale": 1}, "takes no scale"),
        ({"models": []}, "models has 0"),
        ({"method": "slerp", "base": None, "density": None, "models": [ITEM] * 3}, "slerp takes two models"),
        ({"models": [ITEM | {"weight": -1}]}, "no weights below 0"),
        ({"models": [ITEM | {"weight": True}]}, "models[0]: model: weight is True"),
        ({"models": [ITEM | {"weight": {"*": [1]}}]}, "at least two numbers"),
        ({"models": [{"path": "p"}]}, "models[0]: fields missing: digest"),
        ({"like": 2}, "like is 2"),
        ({"shard_bytes": 1e9}, "shard_bytes is 1000000000.0, not of type int"),
        ({"scale": float("nan")}, "scale is nan; it must be a finite number"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"lambda": 1}, "unknown: lambda"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(tmp_path, capsys, changes, says):
    (tmp_path / "spec.json").write_text(json.dumps({**GOOD, **changes}))
    assert step(MergeSpec, run, dry, ["--spec", str(tmp_path / "spec.json")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_name_given_twice_and_what_is_no_object(tmp_path):
    for text, says in (('{"root": "a", "root": "b"}', "'root' is given twice"), ("[]", "a list"), ("{", "no spec can")):
        (tmp_path / "spec.json").write_text(text)
        with pytest.raises(InputError, match=says):
            read_spec(tmp_path / "spec.json", MergeSpec)


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        ({"layers.*": 1}, "models[0].weight: no pattern matches embed.weight"),
        ({"*": 1, "layers.*": 0}, "'layers.*' decides about no tensor"),
        ({"*": [0, 1]}, "embed.weight is in none"),
    ],
)
def test_weights_that_leave_a_doubt(tmp_path, weight, says):
    one, other = (publish(tmp_path, n, {"config.json": CONFIG}, TENSORS) for n in ("x", "y"))
    models = [{"path": m.path, "digest": m.digest} for m in (one, other)]
    models[0]["weight"] = weight
    with pytest.raises(InputError) as error:
        run(MergeSpec(method="linear", models=models, root=str(tmp_path)))
    assert says in str(error.value)


def test_a_tensor_without_weight_and_a_spec_for_other_content(tmp_path):
    other = publish(tmp_path, "other", {"config.json": CONFIG}, TENSORS)
    nothing = [{"path": other.path, "digest": other.digest, "weight": {"*.w": 0, "*": 1}}] * 2
    assert "layers.0.w has the weight 0 in every model" in refused(tmp_path, other, models=nothing)
    with pytest.raises(InputError, match="put the new digest into the spec"):
        run(MergeSpec(method="linear", models=[ITEM | {"path": other.path}] * 2, root=str(tmp_path)))
