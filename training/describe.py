"""Description: what a model finds of conversations, as a dataset of numbers by which they can be chosen.

    python -m gristmill.training.describe --spec spec.json [--dry-run]

A row of `data` is a conversation encoded for the model (`chat.encode`: `tokens`, `targets`); its answer is what the
loss counts. It makes a row with the same id:

    perplexity                 of the answer alone: each of its turns by itself, after what begins a document
    perplexity_given_prompt    of the same tokens where they stand, after the instruction and all else before them
    n_tokens, answer_tokens    of the conversation, and of the answer
    embedding                  where asked for: the mean of the last hidden states over the conversation, of length 1

Perplexities are the exponential of the mean loss (nats) over all tokens of the answer. The second by the first is the
instruction-following difficulty (Li et al. 2024, "From Quantity to Quality"). What begins a document is the tokenizer's
BOS, else what ends one. Numbers are float32's on a CPU, with bfloat16 autocast on a GPU.

The laws: what is said of a row does not depend on the rows beside it, to rounding; a conversation that is longer than
the model's window is null and counted, never cut. What was read is kept a chunk at a time under root/.describing, so
that a step which was stopped goes on with the same spec. Not covered: models without a chat template, whose rows have
to be encoded with one that is given.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.training.step import Stopped, main  # isort: skip  # before torch: it sets how torch waits

import numpy as np
import pyarrow as pa
import torch

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_rows, recipe_key
from gristmill.training.chat import Chat, chat_of, check_data
from gristmill.training.checkpoint import building, load_model, versions
from gristmill.training.engines import chunks
from gristmill.training.evaluation.likelihood import Reader, autocast, marked, sums
from gristmill.training.preferences.logprobs import batches
from gristmill.training.preferences.rows import lists
from gristmill.training.shards import IGNORED
from gristmill.training.spec import Input, check_fields, check_name, open_input

OP, VERSION = "describe", 1
CHUNK = 512  # conversations that a stop can lose
READ = ["id", "tokens", "targets"]
Row = tuple[np.ndarray, np.ndarray]  # tokens, and which are to predict


@dataclass(frozen=True)
class DescribeSpec:
    """Encoded conversations, and the checkpoint that describes them; `tokenizer` is the chat tokenizer that they were
    encoded with, where the checkpoint has none of its own. `tokens` padded ones are computed at a time."""

    data: Input
    model: Input
    root: str
    tokenizer: Input | None = None
    embedding: bool = False
    tokens: int = 8192
    name: str = "described"

    def __post_init__(self) -> None:
        check_fields(self)
        check_name(self.name)
        if self.tokens < 1:
            raise InputError(f"spec: tokens is {self.tokens}; it must be above 0")

    @property
    def identity(self) -> dict[str, Any]:
        """The op of the manifest."""
        return {"name": OP, "version": VERSION, "params": {"embedding": self.embedding, "tokens": self.tokens}}


def run(spec: DescribeSpec) -> Dataset:
    """Describe and publish, or take what stands. Raises InputError where model and conversations do not fit."""
    data, model, chat, inputs = _open(spec)
    key = recipe_key([spec.identity], [item.digest for item in inputs])
    final = Path(spec.root) / spec.name / key[:12]
    if (final / MANIFEST).exists():
        print(f"{final} stands already: not described again", file=sys.stderr)
        return Dataset.load(final)
    data.base.check_files()
    network = load_model(model).float()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    kept = Path(spec.root) / ".describing" / f"{spec.name}-{key[:12]}"
    kept.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    print(f"{data.rows:,} conversations on {device}", file=sys.stderr)
    try:
        files = _chunks(spec, data, Reader(network), chat, kept)
    except Stopped:
        told = f"stopped; {chunks.prompts(kept):,} of {data.rows:,} conversations are kept"
        raise Stopped(f"{told}; the same spec goes on from there") from None
    made = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - began, 3),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    stats = {
        "model": {"name": model.name, "key": model.key, "digest": model.digest},
        "tokenizer": chat.vocabulary,
        "template": chat.template,
        **_stats(map(chunks.read, files)),
    }
    with building(spec.root, spec.name) as folder:
        out = publish_rows(
            spec.root, spec.name, folder, map(chunks.read, files),
            ops=[spec.identity], inputs=inputs, made=made, stats=stats, reproducible=device.type == "cpu",
        )  # fmt: skip
    shutil.rmtree(kept)
    return out


def dry(spec: DescribeSpec) -> dict[str, Any]:
    """How much there is to read: each answer twice, once alone. The model is not opened."""
    from transformers import AutoConfig

    data, model, _, _ = _open(spec)
    window = _window(AutoConfig.from_pretrained(model.file(""), local_files_only=True))
    sizes = [np.array([(len(row), mark.sum()) for row, mark in _rows(part)]) for part in _parts(data)]
    lengths, answers = np.concatenate(sizes).T
    fits = lengths <= (window or np.inf)
    return {
        "rows": data.rows,
        "too_long": int((~fits).sum()),
        "tokens": int((lengths + answers)[fits].sum()),
        "longest": int(lengths[fits].max(initial=0)),
    }


def _open(spec: DescribeSpec) -> tuple[Dataset, Dataset, Chat, list[Dataset]]:
    """The conversations, the model, how it speaks, and all inputs. Raises InputError where they do not fit."""
    model = open_input(spec.model.path, spec.model.digest)
    given = None if spec.tokenizer is None else open_input(spec.tokenizer.path, spec.tokenizer.digest)
    data = open_input(spec.data.path, spec.data.digest)
    if data.base.kind != "rows" or not data.rows or not {*READ} <= {*data.schema().names}:
        raise InputError(
            f"{data.name} at {data.path} holds no encoded conversations (id, tokens, targets): encode chats for "
            f"{model.name} first"
        )
    chat = chat_of(model, given)
    check_data(chat, data)
    return data, model, chat, [data, model, *([] if given is None else [given])]


def _parts(data: Dataset) -> Iterator[pa.RecordBatch]:
    """The rows a chunk at a time; where chunks end depends on the dataset alone."""
    return (part for part in data.batches(CHUNK, READ) if part.num_rows)


def _rows(part: pa.RecordBatch) -> list[Row]:
    """Tokens and targets of each row."""
    marks = part.column("targets").cast(pa.large_list(pa.uint8()))
    tokens, targets = lists(pa.chunked_array([part.column("tokens")])), lists(pa.chunked_array([marks]))
    return [(row.astype(np.int64), mark.astype(bool)) for row, mark in zip(tokens, targets, strict=True)]


def _window(config: Any) -> int | None:
    return getattr(config, "max_position_embeddings", None)


def _start(chat: Chat) -> int:
    """The token that begins a document: the tokenizer's BOS; else what ends one."""
    found = (chat.tokenizer.bos_token_id, chat.stats.get("eod"), chat.tokenizer.eos_token_id)
    return next(int(token) for token in found if token is not None)


def _chunks(spec: DescribeSpec, data: Dataset, model: Reader, chat: Chat, kept: Path) -> list[Path]:
    """The files of all chunks, in order; those that are there are not read again."""
    files: list[Path] = []
    at, new, began = 0, 0, time.monotonic()
    whole = chunks.kept(kept, 1)
    for part in _parts(data):
        file = kept / f"{at:010d}-{at + part.num_rows:010d}.arrow"
        if whole.get(at) != file:
            chunks.write(file, _described(spec, data, part, model, chat))
            new += part.num_rows
            rate = new / (time.monotonic() - began)
            done = at + part.num_rows
            print(f"{done:,} of {data.rows:,} conversations, {rate:.1f}/s", file=sys.stderr, flush=True)
        files.append(file)
        at += part.num_rows
    return files


def _described(spec: DescribeSpec, data: Dataset, part: pa.RecordBatch, model: Reader, chat: Chat) -> pa.Table:
    """The published rows of a chunk."""
    rows, start = _rows(part), _start(chat)
    window, size = _window(model.model.config), model.model.config.vocab_size
    answers = np.array([mark.sum() for _, mark in rows])
    fits = np.array([len(row) <= (window or np.inf) for row, _ in rows])
    asked: list[Row] = []
    owner, alone = [], []
    for n, (row, mark) in enumerate(rows):
        if len(row) and row.max() >= size:
            name = part.column("id")[n].as_py().hex()
            raise InputError(f"{data.path}: row {name} has token {row.max()}, the model knows {size}")
        if fits[n] and len(row):
            turns = _turns(row, mark, start)
            asked += [_begun(row, mark, start) if len(mark) and mark[0] else (row, mark), *turns]
            owner += [n] * (1 + len(turns))
            alone += [False] + [True] * len(turns)
    losses, vectors = _asked(model, asked, spec.tokens, int(chat.tokenizer.pad_token_id), spec.embedding)
    whose, by_itself = np.array(owner, dtype=np.int64), np.array(alone, dtype=bool)
    columns: dict[str, pa.Array] = {"id": part.column("id").cast(pa.binary(16))}
    for name, mine in (("perplexity", by_itself), ("perplexity_given_prompt", ~by_itself)):
        total = np.bincount(whose[mine], weights=losses[mine], minlength=len(rows))
        perplexity = np.exp(total / np.maximum(answers, 1))
        columns[name] = pa.array(perplexity, mask=~fits | (answers == 0))
    columns["n_tokens"] = pa.array([len(row) for row, _ in rows], pa.uint32())
    columns["answer_tokens"] = pa.array(answers.astype(np.uint32))
    if vectors is not None:
        means: list[np.ndarray | None] = [None] * len(rows)
        for place in np.flatnonzero(~by_itself):
            means[whose[place]] = vectors[place]
        columns["embedding"] = pa.array(means, pa.list_(pa.float32(), vectors.shape[1]))
    return pa.table(columns)


def _turns(row: np.ndarray, mark: np.ndarray, start: int) -> list[Row]:
    """Each unbroken run of marked tokens by itself, after what begins a document."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mark, [False]]).astype(np.int8))).reshape(-1, 2)
    return [_begun(row[a:b], mark[a:b], start) for a, b in edges]


def _begun(row: np.ndarray, mark: np.ndarray, start: int) -> Row:
    return np.concatenate([[start], row]), np.concatenate([[False], mark])


def _asked(
    model: Reader, asked: list[Row], tokens: int, pad: int, embedding: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Of each row the sum of its losses, float64 [rows]; and its mean state, float32 [rows, width], of length 1."""
    losses, vectors = np.zeros(len(asked)), None
    for some in batches(np.array([len(row) for row, _ in asked], dtype=np.int64), tokens):
        given = marked([asked[n][0] for n in some], [asked[n][1] for n in some], pad)
        row_tokens, positions, labels = (item.to(model.device) for item in given)
        with autocast(model):
            if embedding:
                states, hidden = model.states(row_tokens, positions)
            else:
                states, hidden = None, model.hidden(row_tokens, positions)
        losses[some] = sums(model, hidden[labels != IGNORED], labels).columns["loss"]
        if states is not None:
            found = _means(states, [len(asked[n][0]) for n in some])
            vectors = np.zeros((len(asked), found.shape[1]), np.float32) if vectors is None else vectors
            vectors[some] = found
    if embedding and vectors is None:
        vectors = np.zeros((0, int(model.model.config.hidden_size)), np.float32)
    return losses, vectors


@torch.inference_mode()
def _means(states: torch.Tensor, lengths: list[int]) -> np.ndarray:
    """The mean over each row's own tokens, of length 1."""
    ends = torch.tensor(lengths, device=states.device)[:, None]
    real = torch.arange(states.shape[1], device=states.device)[None] < ends
    mean = (states.float() * real[..., None]).sum(1) / ends
    return torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()


def _stats(tables: Iterator[pa.Table]) -> dict[str, Any]:
    """What is told of all rows: `too_long` ones, those without an answer, tokens."""
    told = dict.fromkeys(("rows", "too_long", "no_answer", "tokens", "answer_tokens"), 0)
    for table in tables:
        silent = int((table["answer_tokens"].to_numpy() == 0).sum())
        told["rows"] += table.num_rows
        told["no_answer"] += silent
        told["too_long"] += table["perplexity"].null_count - silent
        told["tokens"] += int(table["n_tokens"].to_numpy().sum())
        told["answer_tokens"] += int(table["answer_tokens"].to_numpy().sum())
    return told


if __name__ == "__main__":
    sys.exit(main(DescribeSpec, run, dry))
