"""The pretraining data flow: from a crawl to packed tokens. Policy only: every decision is a literal or a parameter.

One Prefect task per dataset; fan-out over shards happens inside, in the store's process pool, because a task per shard
would cost more than the shard. Tasks are not cached by Prefect: the store alone knows what is built.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.executor import LocalPool
from gristmill.dataops.report.page import write_report
from gristmill.dataops.store import Store
from gristmill.flows.checks import SEQ_LEN, VOCAB_SIZE
from gristmill.flows.progress import draw
from gristmill.flows.recipe import Rules, recipe

#: What the workers load while Prefect starts.
_WORKERS_LOAD = (
    "gristmill.dataops.text.characters",
    "gristmill.dataops.language",
    "gristmill.dataops.extract",
    "gristmill.dataops.signals",
    "gristmill.dataops.dedup.near",
    "gristmill.dataops.tokenizer.encode",
)


@flow(name="pretrain-data", persist_result=False)
def pretrain_data(
    crawl: Sequence[str],
    root: str = ".gristmill",
    *,
    tokenizer: str | None = None,
    vocab_size: int = VOCAB_SIZE,
    seq_len: int = SEQ_LEN,
    languages: Sequence[str] = ("en",),
    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse",
    rules: Rules = "fineweb",
    classifier: tuple[str, float] | None = None,
    redact: Sequence[str] | None = None,
    blocklists: Sequence[str] = (),
    benchmarks: Sequence[str] = (),
    after: str | None = None,
    holdout: tuple[Literal["host", "page"], float] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """From crawl files to packed token shards and a quality report; what stands already is not built again.

    `languages` are ISO 639 codes to keep, none for all. `tokenizer` is a tokenizer.json or its folder; without it a
    byte-level BPE of `vocab_size` entries is trained on the cleaned text. `rules` chooses the filters: FineWeb's, those
    with thresholds by language, or FineWeb's and RefinedWeb's. `classifier` is one that train-filter made, with the
    least score that a page must have. `redact` are types of personal data to replace, none of them for all.
    `blocklists` are files of hosts, domains, URLs and substrings; `benchmarks` are files whose items no page may hold.
    `after` names a version of `unique`: its pages and those of the batches before it stay, and only new pages are
    removed as their duplicates. `holdout` names what stays together and the share of the pages that is kept out of
    training, packed as `heldout-packed`. Returns datasets, counts by op and seconds by stage. Raises InputError for bad
    input.
    """
    started = time.perf_counter()
    with LocalPool(workers) as pool:
        pool.warm(_WORKERS_LOAD)
        store = Store(Path(root), pool, draw)
        orchestration = {"workers": round(time.perf_counter() - started, 3)}
        seconds: dict[str, float] = {}

        def step(name: str, work: Callable[[], Any]) -> Any:
            def timed() -> Any:
                clock = time.perf_counter()
                result = work()
                seconds[name] = round(time.perf_counter() - clock, 3)
                return result

            return task(name=name, cache_policy=NO_CACHE, persist_result=False)(timed)()

        built = recipe(
            store, crawl, tokenizer=tokenizer, vocab_size=vocab_size, seq_len=seq_len, languages=languages,
            extractor=extractor, rules=rules, classifier=classifier, redact=redact, blocklists=blocklists,
            benchmarks=benchmarks, after=after, holdout=holdout, step=step,
        )  # fmt: skip
        packed = built["packed"]
        folder = store.root / "reports" / f"packed-{packed.key[:12]}"
        page = folder / "report.html"
        if not page.exists():
            step("report", lambda: write_report(packed, folder))
    result = _summary(store.root, built, seconds, page)
    result["orchestration"] = orchestration
    _show(result, page)
    return result


def _summary(root: Path, built: dict[str, Dataset], seconds: dict[str, float], page: Path) -> dict[str, Any]:
    datasets, counts = {}, {}
    for name, dataset in built.items():
        manifest = dataset.manifest
        tokens = manifest["stats"].get("tokens")
        datasets[name] = {"key": dataset.key, "digest": dataset.digest, "rows": dataset.rows, "tokens": tokens}
        for op, tally in manifest["counts"].items():
            if op not in counts:  # a side that is held out comes after the one to train on
                counts[op] = {name: tally[name] for name in ("in", "kept", "dropped", "reasons")}
    datasets["encoded"]["tokens"] = datasets["packed"]["tokens"]  # packing loses none
    return {"root": str(root), "datasets": datasets, "counts": counts, "seconds": seconds, "report": str(page)}


def _show(result: dict[str, Any], page: Path) -> None:
    """Artifacts on the run's page in Prefect's UI."""
    create_link_artifact(key="quality-report", link=page.resolve().as_uri(), link_text="Quality report")
    rows = [{"op": op, **{k: tally[k] for k in ("in", "kept", "dropped")}} for op, tally in result["counts"].items()]
    create_table_artifact(key="row-counts", table=rows, description="Rows in, kept and dropped by each op")
