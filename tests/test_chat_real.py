"""Real conversations by a real model's tokenizer and template: the ids are transformers', the masks say the replies."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
import smollm2
from chatting import END, frame, user
from realdata import real

from gristmill.dataops.chat import recipe
from gristmill.dataops.chat.encode import encode_chats, encode_pairs, encode_thumbs
from gristmill.dataops.chat.read import read_files
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.given import import_tokenizer

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> tuple[Store, Dataset, Dataset]:
    """(store, SmolLM2 with its own template, SmolLM2 with ours)."""
    folder = smollm2.folder()
    store = Store(tmp_path_factory.mktemp("smollm2"))
    path = folder / "tokenizer.json"
    bring = import_tokenizer(end_of_document="<|endoftext|>", path_context=str(path))
    plain = store.build("tokenizer", bring, [], external=[file_sha256(path)])
    own = recipe.chat(store, plain, str(folder), name="own")
    return store, own, recipe.chat(store, plain, "chatml", name="chatml")


def talks() -> list[list[dict[str, str]]]:
    """Conversations of four projects' demonstration data."""
    found = []
    for item in json.loads(real("sft/fastchat-dummy_conversation.json").read_text()):
        found.append([{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in item["conversations"]])
    for item in json.loads(real("sft/lf-alpaca_en_demo.json").read_text()):
        asked = "\n".join(filter(None, (item["instruction"], item["input"])))
        found.append([user(asked), {"role": "assistant", "content": item["output"]}])
    for line in real("sft/lf-v1_sft_demo.jsonl").read_text().splitlines():
        turns = json.loads(line)["messages"]
        found.append([{"role": t["role"], "content": "".join(p["value"] for p in t["content"])} for t in turns])
    for item in json.loads(real("pref/lf-kto_en_demo.json").read_text()):
        found.append([{"role": turn["role"], "content": turn["content"]} for turn in item["messages"]])
    return found


def usable(messages: list[dict[str, str]]) -> bool:
    return messages[0]["role"] != "assistant" and all(turn["content"].strip() for turn in messages)


def test_ids_are_those_of_transformers_and_masks_say_the_replies(model):
    from transformers import AutoTokenizer

    _, *chats = model
    every = talks()
    rows = frame(messages=every)
    for chat in chats:
        loaded = AutoTokenizer.from_pretrained(chat.file(""))
        split = encode_chats(chat, max_tokens=8192)(rows)
        assert split.kept.height + split.drops.height == len(every) > 2000
        assert split.kept.height == sum(map(usable, every))
        blocks = "endgeneration" in loaded.chat_template
        kept = dict(zip(split.kept["id"], split.kept.select("tokens", "targets").rows(), strict=True))
        same = 0
        for id, messages in zip(rows["id"], every, strict=True):
            if id not in kept:
                continue
            tokens, targets = kept[id]
            assert loaded.decode(tokens) == loaded.apply_chat_template(messages, tokenize=False)
            learned = loaded.decode([token for token, flag in zip(tokens, targets, strict=True) if flag])
            assert learned == "".join(turn["content"] + END for turn in messages if turn["role"] == "assistant")
            theirs = loaded.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=blocks)
            if not any(turn["content"][:1].isspace() for turn in messages if turn["role"] == "assistant"):
                assert tokens == theirs["input_ids"]
                assert not blocks or [int(flag) for flag in targets] == theirs["assistant_masks"]
                same += 1
        assert same > 0.99 * len(kept)  # the others begin a reply with white space, which a token may not straddle


def test_pairs_and_thumbs(model):
    from transformers import AutoTokenizer

    _, own, _ = model
    loaded = AutoTokenizer.from_pretrained(own.file(""))
    items = json.loads(real("pref/lf-dpo_en_demo.json").read_text())
    prompts = [[{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in x["conversations"]] for x in items]
    chosen, rejected = ([item[name]["value"] for item in items] for name in ("chosen", "rejected"))
    split = encode_pairs(own, max_tokens=8192)(frame(prompt=prompts, chosen=chosen, rejected=rejected))
    assert split.kept.height + split.drops.height == 300 and split.kept.height > 290
    ids = frame(prompt=prompts)["id"].to_list()
    for row in split.kept.iter_rows(named=True):
        at = ids.index(row["id"])
        asked = loaded.apply_chat_template(prompts[at], add_generation_prompt=True, return_dict=True)
        assert row["prompt_ids"] == asked["input_ids"]
        assert loaded.decode(row["chosen_ids"]) == chosen[at] + END
        assert loaded.decode(row["rejected_ids"]) == rejected[at] + END
    liked = json.loads(real("pref/lf-kto_en_demo.json").read_text())
    rows = frame(
        prompt=[item["messages"][:-1] for item in liked],
        response=[item["messages"][-1]["content"] for item in liked],
        label=[item["label"] for item in liked],
    )
    split = encode_thumbs(own, max_tokens=8192)(rows)
    assert split.kept.height + split.drops.height == 300 and split.kept.height > 290
    first = split.kept.row(0, named=True)
    assert loaded.decode(first["completion_ids"]) == rows["response"][0] + END


def test_what_the_vocabulary_cannot_spell_does_not_become_the_end_of_a_document(model):
    """SmolLM2 has no entry for some control characters, and its unknown token is the end of document."""
    _, own, _ = model
    talk = [user("a\x04b"), {"role": "assistant", "content": "c"}]
    split = encode_chats(own, max_tokens=999)(frame(messages=[talk, [user("ab"), talk[1]]]))
    assert split.kept.height == 1 and split.drops["reason"].to_list() == ["unspellable"]
    split = encode_pairs(own, max_tokens=999)(frame(prompt=["a"] * 2, chosen=["b\x04", "b"], rejected=["c"] * 2))
    assert split.kept.height == 1 and split.drops["reason"].to_list() == ["unspellable"]


def test_a_comparison_file_through_all_steps(model, tmp_path):
    """Anthropic's transcripts, cut into prompt and replies: files to encoded pairs, with every row accounted for."""
    store, own, _ = model
    path, rows = tmp_path / "hh.jsonl", []
    with gzip.open(real("pref/hh-rlhf-harmless-base-test.jsonl.gz"), "rt") as lines:
        for line in lines:
            item = json.loads(line)
            sides = {name: item[name].rpartition("\n\nAssistant:") for name in ("chosen", "rejected")}
            turns = sides["chosen"][0].split("\n\nHuman:")[1:]
            prompt = [
                {"role": role, "content": text.strip()}
                for turn in turns
                for role, text in zip(("user", "assistant"), turn.split("\n\nAssistant:"), strict=False)
            ]
            rows.append({"prompt": prompt, **{name: side[2].strip() for name, side in sides.items()}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_files(store, "hh-read", [str(path)], "pairs")
    made = recipe.pairs(store, [str(path)], own, max_tokens=1024, name="hh")
    assert read.rows == len(rows) == 2312
    counts = made.manifest["counts"]["pairs.encode"]
    assert counts["in"] == 2312 and counts["kept"] == made.rows > 2200
    assert set(counts["reasons"]) <= {"empty", "equal", "too_long", "bad_roles"}
    lengths = made.scan().select(n=pl.col("n_tokens")).collect()["n"]
    assert lengths.min() > 0 and lengths.max() <= 1024


def test_packed_rows_for_training(model, tmp_path):
    store, own, _ = model
    path: Path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in talks()))
    packed = recipe.sft(store, [str(path)], own, seq_len=1024)
    stats = packed.manifest["stats"]
    kept = store.get("sft-encoded").manifest["counts"]["chat.encode"]
    assert stats["documents"] == kept["kept"] and kept["in"] == len(talks())
    assert 0.3 < stats["targets"] / stats["tokens"] < 0.9
    assert stats["padding"] < 0.01 * 1024 * stats["rows"]
