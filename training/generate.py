"""Generation: a dataset of prompts in, a dataset of responses out, by any engine.

    python -m gristmill.training.generate --spec spec.json [--dry-run]

A row of `data` has `id` and `prompt` (messages, or a text that a user says). Each makes `samples` rows: id, sources,
prompt, response, sample, tokens, finish, logprob, engine and engine_version, and the other columns of the prompt's row
(a gold answer, tests), which a scorer needs. engines/ says what engines there are.

The laws: a prompt that does not fit the model's window has null for a response and `too_long` for its finish, and is
counted in the manifest; an outage ends the step, and never makes a row. What was generated is kept a chunk at a time
under root/.generating, so that a step which was stopped, or whose server went away, goes on with the same spec.
Not covered: exact repetition, since engines sum in other orders in other batches (the manifest says so), and tools.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.training.step import Stopped, main  # isort: skip  # sets the environment before torch loads

import pyarrow as pa

from gristmill.dataops.dataset import (
    MANIFEST,
    Dataset,
    InputError,
    is_remote,
    publish_rows,
    recipe_key,
    row_id,
)
from gristmill.training.checkpoint import building, versions
from gristmill.training.engines import chunks
from gristmill.training.engines.prompts import Conversation, Reply, Replying, as_messages, number
from gristmill.training.engines.settings import EngineSettings, needs, open_engine
from gristmill.training.spec import Input, check_fields, check_name, open_input

OP, VERSION = "generate", 1
TOO_LONG = "too_long"
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
OURS = pa.schema(
    [
        ("id", pa.binary(16)),
        ("sources", pa.list_(pa.binary(16))),
        ("prompt", MESSAGES),
        ("response", pa.string()),
        ("sample", pa.int32()),
        ("tokens", pa.int32()),
        ("finish", pa.string()),
        ("logprob", pa.float64()),
        ("engine", pa.string()),
        ("engine_version", pa.string()),
    ]
)


@dataclass(frozen=True)
class GenerateSpec:
    """What to generate; published as root/name/key.

    `model` is the checkpoint that answers, with its tokenizer and chat template; for a server, what it is held to. It
    may be left out where the engine names a folder or is a server. `samples` responses to each prompt, of at most
    `max_tokens` tokens. With a JSON `schema`, to which vLLM and servers can hold a reply, each is whole JSON, or null
    and counted as `unheld`. `chunk` prompts are asked at once, and are what a stop can lose: no part of the identity.
    """

    data: Input
    root: str
    engine: EngineSettings = EngineSettings()
    model: Input | None = None
    samples: int = 1
    max_tokens: int = 512
    temperature: float = 1.0
    schema: dict[str, Any] | None = None
    seed: int = 0
    chunk: int = 256
    name: str = "responses"

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for values that nothing can be generated with."""
        check_fields(self)
        check_name(self.name)
        for field in ("samples", "max_tokens", "chunk"):
            if getattr(self, field) < 1:
                raise InputError(f"spec: {field} is {getattr(self, field)}; it must be at least 1")
        if self.temperature < 0:
            raise InputError(f"spec: temperature is {self.temperature}; it must be at least 0")
        if self.samples > 1 and self.temperature == 0:
            raise InputError("spec: at temperature 0 all samples of a prompt are one; give a temperature, or samples 1")
        if self.schema is not None and self.engine.kind == "transformers":
            raise InputError("spec: transformers can hold no reply to a `schema`; let `engine` be vllm or a server")
        if self.model is not None and self.engine.folder is not None:
            raise InputError("spec: `model` and `engine.folder` both say which model; give one of them")

    def identity(self, engine: Replying) -> dict[str, Any]:
        """The op of the manifest. Which engine answers, by its own word, is part of it; where and how fast is not."""
        params = {field: getattr(self, field) for field in ("samples", "max_tokens", "temperature", "schema", "seed")}
        params["engine"] = {"name": engine.name, "version": engine.version}
        return {"name": OP, "version": VERSION, "params": params}


def run(spec: GenerateSpec) -> Dataset:
    """Generate and publish, or take the dataset that stands. Raises InputError for prompts or an engine that will not
    do, and OSError where the engine goes away: what was generated until then is kept."""
    data, model = _open(spec)
    with contextlib.closing(open_engine(spec.engine, None if model is None else model.file(""))) as engine:
        op, inputs = spec.identity(engine), [data] if model is None else [data, model]
        key = recipe_key([op], [item.digest for item in inputs])
        final = Path(spec.root) / spec.name / key[:12]
        if (final / MANIFEST).exists():
            print(f"{final} stands already: not generated again", file=sys.stderr)
            return Dataset.load(final)
        kept = Path(spec.root) / ".generating" / f"{spec.name}-{key[:12]}"
        kept.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            files = _chunks(spec, data, engine, kept)
        except Stopped:
            raise Stopped(f"stopped; {_told(data, kept)}; the same spec goes on from there") from None
        except OSError as error:
            raise OSError(
                f"{error}. {_told(data, kept)}: put that right, then run the same spec again to go on"
            ) from error
    made = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - started, 3),
        "engine": spec.engine.kind,
        "versions": versions(),
    }
    with building(spec.root, spec.name) as folder:
        out = publish_rows(
            spec.root, spec.name, folder, map(chunks.read, files),
            ops=[op], inputs=inputs, made=made, stats=_stats(map(chunks.read, files)), reproducible=False,
        )  # fmt: skip
    shutil.rmtree(kept)
    return out


def dry(spec: GenerateSpec) -> dict[str, Any]:
    """How much there is to do, and the memory that it takes on this machine. The engine is not opened."""
    data, model = _open(spec)
    return {
        "prompts": data.rows,
        "responses": data.rows * spec.samples,
        "most_tokens": data.rows * spec.samples * spec.max_tokens,
        "chunks": -(-data.rows // spec.chunk),
        "engine": spec.engine.kind,
        "model": None if model is None else model.name,
        "memory": needs(spec.engine, None if model is None else model.file("")),
    }


def _open(spec: GenerateSpec) -> tuple[Dataset, Dataset | None]:
    """The inputs, held to what generation needs of them."""
    data = open_input(spec.data.path, spec.data.digest)
    if data.base.kind != "rows":
        raise InputError(f"{data.path} is a dataset of {data.base.kind}; rows with a prompt are wanted")
    if not data.rows:
        raise InputError(f"{data.path} has no rows")
    names = data.schema().names
    if missing := [name for name in ("id", "prompt") if name not in names]:
        raise InputError(f"{data.path} has no column {missing[0]!r}; it has {', '.join(names)}")
    replaced = {"id", "prompt", "sources"}
    if taken := [name for name in names if name in OURS.names and name not in replaced]:
        raise InputError(f"{data.path} has a column {taken[0]!r}, which generation makes: rename it")
    for batch in data.batches(4_096, ["id", "prompt"]):  # before hours have gone into the rows that are good
        for row in batch.to_pylist():
            as_messages(row["prompt"], f"{data.path}, row {row['id'].hex()}")
    if spec.model is None:
        return data, None
    model = open_input(spec.model.path, spec.model.digest)
    if model.kind != "checkpoint" or is_remote(model.path):
        what = "copy it to a local folder first" if is_remote(model.path) else f"it is a dataset of {model.kind}"
        raise InputError(f"{model.path} cannot answer: {what}")
    model.check_files()
    return data, model


def _chunks(spec: GenerateSpec, data: Dataset, engine: Replying, kept: Path) -> list[Path]:
    """The files of all chunks, in order; those that are there are not generated again."""
    files: list[Path] = []
    started, new = time.monotonic(), 0
    at, table = 0, pa.Table.from_batches(list(data.batches(4_096)), data.schema())
    whole = chunks.kept(kept, spec.samples)
    while at < table.num_rows:
        if at in whole:
            files.append(whole[at])
            at = chunks.span(whole[at])[1]
            continue
        until = min([at + spec.chunk, table.num_rows, *(start for start in whole if start > at)])
        part = table.slice(at, until - at)
        file = kept / f"{at:010d}-{until:010d}.arrow"
        chunks.write(file, _generated(spec, data, part, engine))
        files.append(file)
        new, at = new + until - at, until
        rate = new * spec.samples / (time.monotonic() - started)
        print(f"{at:,} of {table.num_rows:,} prompts, {rate:.2f} responses/s", file=sys.stderr, flush=True)
    return files


def _generated(spec: GenerateSpec, data: Dataset, part: pa.Table, engine: Replying) -> pa.Table:
    """The responses to some prompts, prompt by prompt."""
    ids = part["id"].to_pylist()
    said = zip(ids, part["prompt"].to_pylist(), strict=True)
    prompts = [as_messages(prompt, f"{data.path}, row {name.hex()}") for name, prompt in said]
    replies = [
        engine.replies(
            prompts,
            max_tokens=spec.max_tokens,
            temperature=spec.temperature,
            seed=number(f"{spec.seed}:{sample}", 31),
            schema=spec.schema,
        )
        for sample in range(spec.samples)
    ]
    rows = [
        _row(name, prompt, sample, replies[sample][at], engine)
        for at, (name, prompt) in enumerate(zip(ids, prompts, strict=True))
        for sample in range(spec.samples)
    ]
    table = pa.Table.from_pylist(rows, schema=OURS)
    times = pa.array([at for at in range(part.num_rows) for _ in range(spec.samples)])
    for name in part.column_names:
        if name not in OURS.names:
            table = table.append_column(part.schema.field(name), part[name].take(times))
    return table


def _row(name: bytes, prompt: Conversation, sample: int, reply: Reply | None, engine: Replying) -> dict[str, Any]:
    return {
        "id": row_id(OP, name, str(sample)),
        "sources": [name],
        "prompt": prompt,
        "response": None if reply is None else reply.text,
        "sample": sample,
        "tokens": None if reply is None else reply.tokens,
        "finish": TOO_LONG if reply is None else reply.finish,
        "logprob": None if reply is None else reply.logprob,
        "engine": engine.name,
        "engine_version": engine.version,
    }


def _told(data: Dataset, folder: Path) -> str:
    return f"the responses to {chunks.prompts(folder):,} of {data.rows:,} prompts are kept"


def _stats(tables: Iterator[pa.Table]) -> dict[str, Any]:
    """What is told of the responses; `too_long` are those that were not given, `unheld` those that are null besides."""
    parts = [table.select(["response", "finish", "tokens"]) for table in tables]
    whole = pa.concat_tables(parts)
    told = {str(item["values"]): item["counts"] for item in whole["finish"].value_counts().to_pylist()}
    known = whole["tokens"].drop_null()
    too_long = told.pop(TOO_LONG, 0)
    return {
        "responses": whole.num_rows,
        TOO_LONG: too_long,
        "unheld": whole["response"].null_count - too_long,
        "finish": told,
        "tokens": sum(known.to_pylist()) if len(known) else None,
    }


if __name__ == "__main__":
    sys.exit(main(GenerateSpec, run, dry))
