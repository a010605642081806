"""A tiny chat model for tests: a vocabulary of words, ChatML, a model from scratch, and chats packed for SFT."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from packed import pack

from gristmill.dataops.dataset import Dataset, publish_files
from gristmill.training.checkpoint import building, save_model
from gristmill.training.model import Shape, build, configuration

EOD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant")
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|im_start|>assistant {% generation %}{{ message.content }}<|im_end|>"
    "{% endgeneration %}{% else %}<|im_start|>{{ message.role }} {{ message.content }}<|im_end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
PLAIN = "plain-tokenizer"  # the digest of a plain tokenizer that never was


def words(count: int) -> list[str]:
    """w0, w1, ..."""
    return [f"w{n}" for n in range(count)]


def chat_tokenizer(root: Path, *, count: int = 32, template: str = TEMPLATE) -> Dataset:
    """A published chat tokenizer: EOD is token 0, START 1, END 2, then the roles, then the words."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    entries = [EOD, START, END, *ROLES, *words(count)]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(entries)}, unk_token=EOD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (EOD, START, END)])
    with building(root, "chat") as folder:
        files = folder / "files"
        tokenizer.save(str(files / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": EOD}
        (files / "tokenizer_config.json").write_text(json.dumps(config))
        (files / "chat_template.jinja").write_text(template)
        digest = hashlib.sha256(template.encode()).hexdigest()
        stats = {"tokenizer": PLAIN, "template": digest, "vocab_size": len(entries), "eod": 0, "eos": 2, "pad": 0}
        op = {"name": "chat.tokenizer", "version": 1, "params": {"count": count, "template": digest}}
        return publish_files(root, "chat", folder, ops=[op], inputs=[], made={}, stats=stats)


def base(root: Path, chat: Dataset, *, shape: Shape | None = None, seq_len: int = 256, seed: int = 0) -> Dataset:
    """A published checkpoint with fresh weights that fits the chat tokenizer's vocabulary."""
    shape = Shape(depth=2, width=64, heads=4) if shape is None else shape
    size = chat.manifest["stats"]["vocab_size"]
    model = build(configuration(shape, size, seq_len=seq_len, eod=0), seed)
    with building(root, "base") as folder:
        save_model(model, folder / "files")
        op = {"name": "fresh", "version": 1, "params": {"seed": seed, "size": size, "shape": str(shape)}}
        stats = {"tokenizer": PLAIN, "template": None}
        return publish_files(root, "base", folder, ops=[op], inputs=[], made={}, stats=stats)


def chats(root: Path, chat: Dataset, pairs: list[tuple[str, str]], *, seq_len: int = 32, name: str = "sft") -> Dataset:
    """(question, answer) pairs of words as packed chat rows, as many to a row as fit; the answers are the targets."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat.file(""))
    rows: list[list[list[int]]] = [[]]
    marks: list[list[list[int]]] = [[]]
    for question, answer in pairs:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        found = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
        )
        if sum(map(len, rows[-1])) + len(found["input_ids"]) > seq_len:
            rows.append([])
            marks.append([])
        rows[-1].append(list(found["input_ids"]))
        marks[-1].append(list(found["assistant_masks"]))
    stats = chat.manifest["stats"]
    return pack(
        root, rows, seq_len=seq_len, vocab_size=stats["vocab_size"], tokenizer=PLAIN, targets=marks, name=name,
        params={"template": stats["template"], "name": name, "pairs": pairs},
    )  # fmt: skip
