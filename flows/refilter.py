"""The weekly re-filter: the crawl of last time through the recipe as it stands now, with no new page.

What changed since then is what differs: what was taken down, blocklists and benchmarks, thresholds, a newer version of
an op. Signals are stored, so a page is read again only where what reads it has changed. Files that moved or changed
are named, since leaving them out would silently be another crawl.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import flow

from gristmill.dataops.crawl import located
from gristmill.dataops.dataset import InputError
from gristmill.dataops.store import Store
from gristmill.flows.checks import SEQ_LEN, VOCAB_SIZE
from gristmill.flows.pretrain import pretrain_data
from gristmill.flows.recipe import Rules


@flow(name="refilter", persist_result=False)
def refilter(
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
    holdout: tuple[Literal["host", "page"], float] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """The files of `crawl@latest` through pretrain-data, whose parameters these are; nothing where there was no crawl.

    Returns what pretrain-data does. Raises InputError where a file of the crawl is not where it was, and for bad input.
    """
    files = crawled(root)
    if not files:
        return {"root": str(root), "datasets": {}}
    return pretrain_data(
        files, root, tokenizer=tokenizer, vocab_size=vocab_size, seq_len=seq_len, languages=languages,
        extractor=extractor, rules=rules, classifier=classifier, redact=redact, blocklists=blocklists,
        benchmarks=benchmarks, holdout=holdout, workers=workers,
    )  # fmt: skip


def crawled(root: str | Path) -> list[str]:
    """Where the files of the newest crawl of a root lie; none without one. Raises InputError for a lost one."""
    if not (Path(root) / "crawl").is_dir():
        return []
    rows = Store(Path(root)).get("crawl").scan().select("file", "sha256").collect()
    places = located(root)
    lost = [file for file, digest in rows.iter_rows() if digest not in places]
    if lost:
        raise InputError(f"files of the crawl are not where they were: {', '.join(lost)}; run pretrain-data on them")
    return [places[digest] for digest in rows["sha256"]]
