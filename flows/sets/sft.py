"""The flow `build-sft`: chat files to a packed SFT set, with what a model will pick up from it. Policy only: the recipe
is dataops/sft/build.py.

The law: what is told of a set, tokens, shares, where rows went, follows from the manifests; a run that fails has moved
no tag. Not covered: which model to train on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from gristmill.dataops.chat.read import ChatSet
from gristmill.dataops.chat.recipe import speaker
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.executor import InProcess, LocalPool
from gristmill.dataops.mix.mixture import epochs
from gristmill.dataops.report.chats import write_style
from gristmill.dataops.sft.build import REPLAY, Choice, Loss, Numbers, SftSet, directly, funnel_of, sft_set
from gristmill.dataops.store import Store
from gristmill.dataops.tokens import seq_len_of
from gristmill.flows.progress import draw
from gristmill.flows.sets.describing import by_model, by_scores
from gristmill.flows.sets.scored import by_json

SEQ_LEN = 4096


def summary(made: SftSet, chat: Dataset, page: Path, warnings: Sequence[str]) -> dict[str, Any]:
    """What was made, as data: tokens, those that the loss counts, shares of sets, and where rows went."""
    data, mixed = made.data, made.data.manifest["ops"][0]["name"] == "mix.sample"
    seq_len, stats = seq_len_of(data), data.manifest["stats"]
    if mixed:
        used = [item | {"loss_tokens": stats[f"targets.{item['source']}"]} for item in epochs(data)]
        tokens, loss = (sum(item[column] for item in used) for column in ("tokens", "loss_tokens"))
        text = [at for at, item in enumerate(used) if item["source"] == REPLAY]
        rows = data.scan().filter(~pl.col("source").is_in(text)).select(pl.col("segments").explode())
        talks = rows.select(pl.col("segments").struct.field("id").n_unique()).collect().item()
    else:
        used, tokens, loss, talks = [], stats["tokens"], stats["targets"], stats["documents"]
    return {
        "name": data.name,
        "key": data.key,
        "digest": data.digest,
        "rows": data.rows,
        "seq_len": seq_len,
        "conversations": talks,
        "tokens": tokens,
        "loss_tokens": loss,
        "loss_share": loss / tokens,
        "padding_share": 1 - tokens / (data.rows * seq_len),
        "sources": used,
        "chat": {"name": chat.name, "key": chat.key, "template": chat.manifest["stats"]["template"]},
        "datasets": [{"name": item.name, "key": item.key, "rows": item.rows} for item in made.steps],
        "counts": funnel_of(made),
        "style": str(page),
        "warnings": list(warnings),
    }


def style(store: Store, made: SftSet) -> tuple[Path, list[str]]:
    """The style report of what is trained on, and its warnings."""
    folder = store.root / "reports" / f"{made.data.name}-{made.data.key[:12]}"
    page, numbers = folder / "style.html", folder / "style.json"
    if not (page.exists() and numbers.exists()):
        page, numbers = write_style([item for item in made.chosen if item.rows], folder)
    return page, json.loads(numbers.read_text())["warnings"]


def asked(
    store: Store, chat: Dataset, choice: Choice | None, model: str | None, scorer: str | None, name: str
) -> Numbers | None:
    """Who is asked for what the choice goes by: a model, or a scorer (JSON, or a file of it). Raises InputError."""
    if model is None and scorer is None:
        return None
    if choice is None:
        raise InputError("a model or a scorer is asked for a choice: say how many rows to keep, and by what")
    if model is None:
        return by_scores(store, by_json(store, str(scorer)), name=name)
    if scorer is not None:
        raise InputError("a model and a scorer are both asked for a choice: name one of them")
    return by_model(store, model, chat, choice, name=name)


def _talks(store: Store, reference: str) -> Dataset:
    """A dataset of chats by its reference. Raises InputError for one that holds none."""
    found = store.get(reference)
    if found.kind not in ("rows", "view"):
        raise InputError(f"{reference} is of kind {found.kind} and holds no chats")
    names = found.schema().names if found.rows else ["messages"]
    if "messages" not in names:
        raise InputError(f"{reference} holds no chats: it has no column `messages`, but {', '.join(names)}")
    return found


def built(
    store: Store,
    chats: Sequence[ChatSet] | str,
    tokenizer: str,
    *,
    template: str | None = None,
    seq_len: int | None = None,
    toxicity: tuple[str, float] | None = None,
    after: Sequence[str] = (),
    replay: tuple[str, float] | None = None,
    name: str = "chats",
    choice: Choice | None = None,
    model: str | None = None,
    scorer: str | None = None,
    step: Callable[[str, Callable[[], Any]], Any] = directly,
    **rest: Any,
) -> dict[str, Any]:
    """`sft_set` with datasets by reference, its style report and its summary. Without `seq_len`, rows are as long as
    those of the replay; `model` or `scorer` is asked for what the choice goes by. Where it fails, no tag has moved."""
    with store.tags_kept():
        chat = speaker(store, tokenizer, template)
        again = None if replay is None else (store.get(replay[0]), replay[1])
        if again is not None and again[0].base.kind != "tokens":
            raise InputError(f"{again[0].name} is of kind {again[0].kind}: a replay is packed text, of kind tokens")
        if seq_len is None:
            seq_len = SEQ_LEN if again is None else seq_len_of(again[0])
        made = sft_set(
            store,
            _talks(store, chats) if isinstance(chats, str) else chats,
            chat,
            name=name,
            seq_len=seq_len,
            choice=choice,
            numbers=asked(store, chat, choice, model, scorer, name),
            toxicity=None if toxicity is None else (store.get(toxicity[0]), toxicity[1]),
            after=[store.get(reference) for reference in after],
            replay=again,
            step=step,
            **rest,
        )
        page, warnings = step("style", lambda: style(store, made))
    return summary(made, chat, page, warnings)


@flow(name="build-sft", persist_result=False)
def build_sft(
    chats: list[ChatSet],
    tokenizer: str,
    root: str = ".gristmill",
    *,
    name: str = "chats",
    template: str | None = None,
    seq_len: int | None = None,
    loss: Loss = "assistant",
    languages: list[str] | None = None,
    toxicity: tuple[str, float] | None = None,
    after: list[str] | None = None,
    benchmarks: list[str] | None = None,
    choice: Choice | None = None,
    model: str | None = None,
    scorer: str | None = None,
    tokens: int | None = None,
    replay: tuple[str, float] | None = None,
    seed: int = 1,
    workers: int | None = None,
) -> dict[str, Any]:
    """From chat files to a packed SFT set with its style report; see `sft_set`. `tokenizer` is a chat tokenizer, a
    model or a tokenizer; datasets are NAME, NAME@TAG or NAME:KEY. Returns the summary. Raises InputError."""

    def step(stage: str, work: Callable[[], Any]) -> Any:
        return task(name=stage, cache_policy=NO_CACHE, persist_result=False)(work)()

    with LocalPool(workers) as pool:
        store = Store(Path(root), InProcess() if pool.workers == 1 else pool, draw)
        told = built(
            store, chats, tokenizer, name=name, template=template, seq_len=seq_len, loss=loss, languages=languages,
            toxicity=toxicity, after=after or (), benchmarks=benchmarks or (), choice=choice, model=model,
            scorer=scorer, tokens=tokens, replay=replay, seed=seed, step=step,
        )  # fmt: skip
    create_link_artifact(key="style-report", link=Path(told["style"]).resolve().as_uri(), link_text="Style report")
    rows = [{"op": op, **{k: tally[k] for k in ("in", "kept", "dropped")}} for op, tally in told["counts"].items()]
    create_table_artifact(key="sft-row-counts", table=rows, description="Rows in, kept and dropped by each op")
    return told
