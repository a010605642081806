"""Models of elsewhere: adopted whole or refused by name, and trained on what was encoded for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from chatting import END, PLAIN, assistant, chat, tokenizer, user

from gristmill.dataops.chat import recipe
from gristmill.dataops.dataset import InputError
from gristmill.dataops.fsck import fsck
from gristmill.dataops.store import Store
from gristmill.flows.adopt import adopt
from gristmill.flows.cli import main
from gristmill.training.chat import chat_of, check_data, open_chat
from gristmill.training.checkpoint import load_model
from gristmill.training.model import Shape, build, configuration

TALKS = [{"messages": [user(f"{n} sacks of the mill"), assistant(f"{n * 7} of grain.")]} for n in range(24)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model as transformers saves it. It states what ends its turns, as chat models do."""
    root = tmp_path_factory.mktemp("elsewhere")
    plain, place = tokenizer(str(root), "byte-bpe"), root / "model"
    size = plain.manifest["stats"]["vocab_size"]
    build(configuration(Shape(depth=2, width=64, heads=4), size, seq_len=128, eod=0), 0).save_pretrained(place)
    shutil.copy(plain.file("tokenizer.json"), place)
    (place / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "model_max_length": 128}))
    (place / "chat_template.jinja").write_text(PLAIN)
    (place / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, "temperature": 0.5}))  # no do_sample
    return place


@pytest.fixture
def copied(folder, tmp_path) -> Path:
    """The same folder, to be changed."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture
def talks(tmp_path) -> str:
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(talk) + "\n" for talk in TALKS))
    return str(path)


def test_an_adopted_model_is_the_model_with_its_tokenizer_and_template(folder, tmp_path):
    store = Store(tmp_path / "root")
    made = adopt(store, folder, "smol")
    stats, plain = made.manifest["stats"], store.get("smol-tokenizer")
    chatting = open_chat(made)
    assert (made.kind, stats["tokenizer"], stats["template"]) == ("checkpoint", plain.digest, chatting.template)
    assert {name: stats[name] for name in ("vocab_size", "eod", "eos", "pad")} == {
        name: store.get("smol-chat").manifest["stats"][name] for name in ("vocab_size", "eod", "eos", "pad")
    }
    assert plain.manifest["stats"]["eod_token"] == "<|endoftext|>" and chatting.tokenizer.eos_token == END
    stops = json.loads(Path(made.file("generation_config.json")).read_text())
    assert stops["eos_token_id"] == sorted({7, stats["eos"], stats["eod"]}) and (
        stops["temperature"],
        stops["do_sample"],
    ) == (0.5, True)
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        assert Path(made.file(name)).read_bytes() == (folder / name).read_bytes()
    assert stats["parameters"] == sum(item.numel() for item in load_model(made).parameters())
    assert fsck(store)[1] == []


def test_adopting_again_takes_what_stands_and_other_weights_are_another_version(copied, tmp_path):
    store = Store(tmp_path / "root")
    first = adopt(store, copied, "smol")
    moved = copied.rename(tmp_path / "moved")
    assert adopt(store, moved, "smol").manifest["made"] == first.manifest["made"]
    model = load_model(first)
    torch.nn.init.ones_(model.get_input_embeddings().weight)
    model.save_pretrained(moved)
    second = adopt(store, moved, "smol")
    assert (second.key, second.digest) != (first.key, first.digest) and store.get("smol").key == second.key


def test_a_model_in_several_files(copied, tmp_path):
    store = Store(tmp_path / "root")
    whole = adopt(store, copied, "whole")
    model = load_model(whole)
    (copied / "model.safetensors").unlink()
    model.save_pretrained(copied, max_shard_size="100KB")
    shards = sorted(path.name for path in copied.glob("*.safetensors"))
    made = adopt(store, copied, "cut")
    again = load_model(made).state_dict()
    assert len(shards) > 2 and all(Path(made.file(name)).is_file() for name in shards)
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    (copied / shards[0]).unlink()
    with pytest.raises(InputError, match=f"names {shards[0]}, which is not there"):
        adopt(store, copied, "lacking")


def test_chats_for_an_adopted_model_train_it(folder, talks, tmp_path, capsys):
    root = str(tmp_path / "root")
    assert main(["adopt", str(folder), "--name", "smol", "--root", root]) == 0
    assert "--tokenizer smol@latest" in capsys.readouterr().out
    encode = ["encode-chats", talks, "--seq-len", "128", "--workers", "1", "--root", root, "--json"]
    assert main([*encode, "--tokenizer", "smol@latest", "--name", "chats"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["train"] == "gristmill train sft --data chats@latest --start smol@latest"
    train = [*told["train"].split()[1:], "--name", "tuned", "--root", root, "--json"]
    assert main([*train, "--set", "steps=2", "--set", "rows=2"]) == 0
    tuned = Store(Path(root)).get("tuned").manifest["stats"]
    smol = Store(Path(root)).get("smol").manifest["stats"]
    assert (tuned["tokenizer"], tuned["template"]) == (smol["tokenizer"], smol["template"])
    capsys.readouterr()
    for reference in ("smol-chat", "tuned"):  # the same rows for whatever has this vocabulary and this template
        assert main([*encode, "--tokenizer", reference, "--name", "again"]) == 0
        assert json.loads(capsys.readouterr().out)["digest"] == told["digest"]


def test_a_model_without_a_template_is_given_one_now_or_with_the_first_chats(copied, talks, tmp_path):
    (copied / "chat_template.jinja").unlink()
    store = Store(tmp_path / "root")
    base = adopt(store, copied, "base")
    assert base.manifest["stats"]["template"] is None and store.names() == ["base", "base-tokenizer"]
    stops = json.loads(Path(base.file("generation_config.json")).read_text())
    assert stops == {"eos_token_id": 7, "temperature": 0.5, "do_sample": True}
    given = recipe.speaker(store, "base", "chatml")
    assert given.name == "base-tokenizer-chat"
    rows = recipe.sft(store, [talks], given, seq_len=128)
    check_data(chat_of(base, given), rows)
    spoken = adopt(store, copied, "spoken", "chatml")
    assert spoken.manifest["stats"]["template"] == given.manifest["stats"]["template"]
    check_data(chat_of(spoken, None), rows)


def test_a_model_of_another_vocabulary_does_not_take_the_chats(folder, talks, tmp_path):
    store = Store(tmp_path / "root")
    other = chat(tmp_path, "chatml", "unigram")
    rows = recipe.sft(store, [talks], other, seq_len=128)
    with pytest.raises(InputError, match="was encoded with tokenizer"):
        check_data(chat_of(adopt(store, folder, "smol"), None), rows)


def _config(**changes):
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without(name: str):
    return lambda folder: (folder / name).unlink()


def _written(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def _larger(folder: Path) -> None:
    """A tokenizer with an entry that the model does not embed."""
    path = folder / "tokenizer.json"
    spec = json.loads(path.read_text())
    last = max(spec["model"]["vocab"].values())
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": last + 9, "content": "<|one more|>"})
    spec["model"]["vocab"] |= {f"<|filler {n}|>": last + n for n in range(1, 9)}
    path.write_text(json.dumps(spec))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shutil.rmtree, "no folder"),
        (_without("config.json"), "has no config.json: it is no model"),
        (_written("config.json", "{"), "config.json: no JSON where it should be"),
        (_config(model_type="none"), "model_type 'none' is none that the installed transformers knows"),
        (_config(quantization_config={}), "is quantised"),
        (_config(num_hidden_layers=3), r"model.layers.2.*is not in the weights \(and 8 more\)"),
        (_config(intermediate_size=72), r"has the shape .* in the weights, and should have .*72"),
        (_config(hidden_act="none"), "no causal language model of type llama can be made of it"),
        (_without("model.safetensors"), "holds neither model.safetensors nor model.safetensors.index.json"),
        (_cut, "the file has .*: fetch it again, it is cut"),
        (_pickled, "pytorch_model.bin is a pickle"),
        (_without("tokenizer.json"), "has no tokenizer.json"),
        (_written("tokenizer.json", "{}"), "tokenizer.json is not a tokenizer"),
        (_larger, r"the model embeds (\d+) tokens, tokenizer.json has (?!\1)\d+"),
        (_written("generation_config.json", '{"early_stopping": true}'), "could not be saved: .*early_stopping"),
        (_written("chat_template.jinja", "{% if %}"), "line 1 cannot be used.*--template takes another"),
        (_written("chat_template.jinja", "{{ messages[0].content }}"), "does not write what the assistant says"),
    ],
)
def test_what_is_no_whole_model_is_refused(copied, tmp_path, change, said):
    store = Store(tmp_path / "root")
    change(copied)
    with pytest.raises(InputError, match=said):
        adopt(store, copied, "smol")
    assert "smol" not in store.names() and not list(store.root.rglob("*.safetensors"))
