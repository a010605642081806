"""SFT: what is learned and what is not, exact resumes, and what is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from packed import pack
from tinychat import PLAIN, base, chat_tokenizer, chats, words

from gristmill.dataops.dataset import DamagedError, Dataset, InputError
from gristmill.training.chat import open_chat
from gristmill.training.checkpoint import load_model
from gristmill.training.sft import SftSpec, _collate, dry, run
from gristmill.training.shards import IGNORED, Shards

ECHO = 6  # the words that are asked about: few, so that a tiny model learns them in seconds


def questions(number: int, seed: int) -> list[tuple[str, str]]:
    """The answer is the first word of the question."""
    rng = random.Random(seed)
    asked = [" ".join(rng.choices(words(ECHO), k=3)) for _ in range(number)]
    return [(question, question.split()[0]) for question in asked]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("sft")
    chat = chat_tokenizer(root, count=16)
    return (
        root,
        chat,
        base(root, chat),
        chats(root, chat, questions(400, 0)),
        chats(root, chat, questions(60, 1), name="held"),
    )


def spec_of(world, **more) -> dict:
    root, chat, start, data, held = world
    named = {"path": data.path, "digest": data.digest}
    return {
        "data": [named], "start": {"path": start.path, "digest": start.digest}, "root": str(root), "steps": 4,
        "tokenizer": {"path": chat.path, "digest": chat.digest}, "optimiser": {"learning_rate": 3e-3},
        "validation": [{"path": held.path, "digest": held.digest}], **more,
    }  # fmt: skip


def made(world, **more) -> Dataset:
    return run(SftSpec(**spec_of(world, **more)))


def replies(model: Dataset, asked: list[str]) -> list[str]:
    """Greedy replies up to and with the end of the turn, special tokens shown."""
    tokenizer, net = open_chat(model).tokenizer, load_model(model)
    out = []
    for question in asked:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = net.generate(**prompt, max_new_tokens=4, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        out.append(tokenizer.decode(ids))
    return out


def test_sft_teaches_turns_and_answers(world):
    held = questions(50, 1)
    well_formed = [f"{word}<|im_end|>" for word in words(16)]
    before = Dataset.load(world[2].path)
    assert not any(reply.replace(" ", "") in well_formed for reply in _bare(world, before, held))
    model = made(world, steps=120, rows=16)
    told = [reply.replace(" ", "") for reply in replies(model, [question for question, _ in held])]
    assert np.mean([reply in well_formed for reply in told]) >= 0.9
    assert np.mean([reply == f"{a}<|im_end|>" for reply, (_, a) in zip(told, held, strict=True)]) >= 0.9
    (losses,) = model.manifest["stats"]["validation"].values()
    assert losses["after"] < losses["before"] / 5
    spoken = world[1].manifest["stats"]
    assert spoken.items() <= model.manifest["stats"].items() and spoken["eod"] is not None


def _bare(world, start, held):
    tokenizer, net = open_chat(world[1]).tokenizer, load_model(start)
    for question, _ in held:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = net.generate(**prompt, max_new_tokens=4, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        yield tokenizer.decode(ids)


def test_labels_are_the_answers_and_nothing_else(world):
    shards = Shards(world[3])
    rows = [{"source": 0, "row": n} for n in range(shards.rows)]
    batch = _collate([shards], rows)
    tokenizer = open_chat(world[1]).tokenizer
    learned = batch["input_ids"][batch["labels"] != IGNORED]
    assert torch.equal(learned, batch["labels"][batch["labels"] != IGNORED])
    said = tokenizer.decode(learned).replace(" ", "").removesuffix("<|im_end|>").split("<|im_end|>")
    assert said == [answer for _, answer in questions(400, 0)]


def test_a_row_of_several_chats_gives_the_loss_of_each_alone(world, tmp_path):
    """Documents do not see each other in TRL's forward pass either."""
    model = load_model(world[2])
    batch = _collate([Shards(world[3])], [{"source": 0, "row": 3}])
    packed = model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).logits[0]
    starts = [*torch.nonzero(batch["position_ids"][0] == 0).flatten().tolist(), batch["input_ids"].shape[1]]
    assert len(starts) > 3
    for begin, end in zip(starts, starts[1:], strict=False):
        alone = model(input_ids=batch["input_ids"][:, begin:end], use_cache=False).logits[0]
        torch.testing.assert_close(packed[begin:end], alone, atol=1e-4, rtol=1e-4)


def test_pieces_and_order_do_not_change_what_is_learned(world):
    whole = made(world, name="whole", steps=3)
    pieces = made(world, name="pieces", steps=3, accumulate=4)
    one, other = load_model(whole).state_dict(), load_model(pieces).state_dict()
    assert all(torch.allclose(one[name], other[name], atol=2e-5) for name in one)


def test_a_stopped_run_ends_in_the_same_bytes(world, tmp_path):
    whole = made(world, steps=150, seed=3)
    spec = spec_of(world, steps=150, seed=3, root=str(tmp_path), save_seconds=0.05)
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    for stop in (signal.SIGTERM, signal.SIGKILL):
        process = start(tmp_path / "spec.json")
        wait_for_state(tmp_path, process)
        process.send_signal(stop)
        assert process.wait(60) == (143 if stop == signal.SIGTERM else -signal.SIGKILL), process.stderr.read()
    told = json.loads(start(tmp_path / "spec.json").communicate(timeout=120)[0])
    resumed = Dataset.load(told["path"])
    assert resumed.key == whole.key
    assert _weights(resumed) == _weights(whole)
    lines = [json.loads(line) for line in Path(resumed.file("metrics.jsonl")).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 151))
    assert not list((tmp_path / ".training").iterdir()), "the states are removed"


def start(spec: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "gristmill.training.sft", "--spec", str(spec)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)


def wait_for_state(root: Path, process: subprocess.Popen) -> None:
    """Until there is a whole state newer than those that stand."""
    before = set(root.glob(".training/*/checkpoint-*/whole"))
    until = time.monotonic() + 60
    while not set(root.glob(".training/*/checkpoint-*/whole")) - before:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)


def _weights(model: Dataset) -> str:
    return next(e["sha256"] for e in model.manifest["files"] if e["file"] == "files/model.safetensors")


def test_two_processes_learn_what_one_does(world, tmp_path):
    one = made(world, name="one", steps=3)
    (tmp_path / "spec.json").write_text(json.dumps(spec_of(world, name="one", steps=3, root=str(tmp_path))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["gristmill.training.sft", "--spec", str(tmp_path / "spec.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    two = Dataset.load(json.loads(done.stdout)["path"])
    assert two.key == one.key
    a, b = load_model(one).state_dict(), load_model(two).state_dict()
    assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)


def test_replay_mixes_packed_text_in_and_weights_are_kept(world, tmp_path):
    root, chat, *_ = world
    rng = np.random.default_rng(0)
    text = [[[int(t) for t in rng.integers(6, 22, 31)]] for _ in range(40)]
    plain = pack(tmp_path, text, seq_len=32, vocab_size=22, tokenizer=PLAIN)
    sources = [*spec_of(world)["data"], {"path": plain.path, "digest": plain.digest, "weight": 0.25}]
    model = made(world, name="replay", data=sources, steps=64)
    epochs = model.manifest["stats"]["epochs"]
    assert abs(epochs[f"packed:{plain.digest[:12]}"] * 40 / (64 * 8) - 0.2) < 0.02


def test_lora_publishes_an_ordinary_model(world):
    model = made(world, name="lora", steps=10, lora={"rank": 4}, optimiser={"learning_rate": 1e-2})
    before, after = load_model(world[2]).state_dict(), load_model(model).state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("proj" in name for name in moved), "only what has adapters moves"


@pytest.mark.parametrize("setting", [{"neftune": 5.0}, {"loss": "dft"}, {"checkpointing": True}, {"seed": 9}])
def test_every_option_does_something_or_nothing_as_it_says(world, setting):
    plain = made(world, name="plain", steps=3)
    other = made(world, name=f"option-{next(iter(setting))}", steps=3, **setting)
    one, two = load_model(plain).state_dict(), load_model(other).state_dict()
    same = all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    assert same == (setting == {"checkpointing": True}), "checkpointing changes memory alone"
    assert plain.key != other.key


def test_dry_run_says_what_it_needs(world):
    told = dry(SftSpec(**spec_of(world, steps=7)))
    assert (told["steps"], told["rows"], told["most_tokens"]) == (7, 56, 7 * 8 * 32)
    assert told["memory"]["total"] == sum(v for k, v in told["memory"].items() if k != "total")
    small = dry(SftSpec(**spec_of(world, steps=7, lora={"rank": 1})))
    assert small["trained"] < told["trained"] and small["memory"]["optimizer"] < told["memory"]["optimizer"]
    net = load_model(world[2])
    assert told["parameters"] == sum(p.numel() for p in net.parameters())


def test_what_does_not_fit_is_refused(world, tmp_path):
    root, chat, start, data, _ = world
    rows = [[[1, 4, 8, 2]]] * 3
    plain = pack(tmp_path / "a", rows, seq_len=32, vocab_size=22, tokenizer=PLAIN)
    foreign = pack(tmp_path / "b", rows, seq_len=32, vocab_size=22, tokenizer="another", targets=[[[0, 0, 1, 1]]] * 3)
    template = pack(
        tmp_path / "c", rows, seq_len=32, vocab_size=22, tokenizer=PLAIN, targets=[[[0, 0, 1, 1]]] * 3,
        params={"template": "another"},
    )  # fmt: skip
    long = pack(
        tmp_path / "d", [[[6] * 299]] * 3, seq_len=300, vocab_size=22, tokenizer=PLAIN, targets=[[[1] * 299]] * 3,
        params={"template": chat.manifest["stats"]["template"]},
    )  # fmt: skip
    for wrong, why in (
        (plain, "targets"),
        (foreign, "encoded with tokenizer"),
        (template, "template"),
        (long, "window"),
    ):
        with pytest.raises(InputError, match=why):
            made(world, data=[{"path": wrong.path, "digest": wrong.digest}])
    with pytest.raises(InputError, match="has no tokenizer.json"):
        made(world, tokenizer=None)
    with pytest.raises(InputError, match="kind 'checkpoint'"):
        made(world, data=[{"path": start.path, "digest": start.digest}])
    with pytest.raises(InputError, match="z_loss"):
        made(world, optimiser={"z_loss": 1e-4})
    changed = chat_tokenizer(tmp_path, count=16)
    (Path(changed.path) / "files" / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(InputError, match="was changed after"):
        made(world, tokenizer={"path": changed.path, "digest": changed.digest})
    larger = chat_tokenizer(tmp_path / "e", count=40)
    with pytest.raises(InputError, match="embeds 22 tokens, its tokenizer has 46"):
        made(world, tokenizer={"path": larger.path, "digest": larger.digest})


def test_a_start_damaged_by_one_byte_is_refused(world, tmp_path):
    start = base(tmp_path, world[1])
    file = Path(start.file("model.safetensors"))
    whole = bytearray(file.read_bytes())
    whole[-5] ^= 1
    file.write_bytes(whole)
    with pytest.raises(DamagedError, match=r"model\.safetensors is damaged"):
        made(world, start={"path": start.path, "digest": start.digest})
