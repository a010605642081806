"""A tiny random chat model as a checkpoint's folder, and datasets of it and of prompts, for the engines' tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from gristmill.dataops.dataset import Dataset, publish_files, publish_rows, row_id
from gristmill.training.checkpoint import building

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


def save(folder, *, seed=0, window=8192, template=TEMPLATE):
    """A random Llama of two layers with a byte-level vocabulary of 300, as a checkpoint."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(["which answer is better, the first or the second one? yes or no"] * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=window, bos_token_id=0, eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def talk(*texts: str) -> list[list[dict[str, str]]]:
    """Conversations with equal instructions, long enough to be shared, and questions of many lengths."""
    system = {"role": "system", "content": "Go by what you are asked and by nothing else. " * 3}
    return [[system, {"role": "user", "content": text}] for text in texts]


MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def prompts(root: Path, conversations: list, **columns: list) -> Dataset:
    """Conversations (or texts) as a dataset of prompts."""
    kind = pa.string() if conversations and isinstance(conversations[0], str) else MESSAGES
    ids = [row_id("prompts", str(n)) for n in range(len(conversations))]
    table = pa.table({"id": pa.array(ids, pa.binary(16)), "prompt": pa.array(conversations, kind), **columns})
    op = {"name": "prompts", "version": 1, "params": {"conversations": conversations, "columns": columns}}
    with building(root, "prompts") as folder:
        return publish_rows(root, "prompts", folder, [table], ops=[op], inputs=[], made={})


def checkpoint(root: Path, **options) -> Dataset:
    """The model of `save` as a dataset."""
    with building(root, "tiny") as folder:
        made = save(folder / "made", **options)
        for path in made.iterdir():
            shutil.move(path, folder / "files" / path.name)
        op = {"name": "tiny", "version": 1, "params": {name: str(value) for name, value in options.items()}}
        return publish_files(root, "tiny", folder, ops=[op], inputs=[], made={})
