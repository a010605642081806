"""The recipe of pretraining data: which ops, in which order, with which parameters. Policy only; it knows no Prefect.

Every decision is a literal or a parameter. What stands already is not built again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gristmill.dataops import quality
from gristmill.dataops.consent.blocklist import blocklist, compile_lists
from gristmill.dataops.consent.optout import opt_out
from gristmill.dataops.consent.tombstones import obey, tombstones
from gristmill.dataops.crawl import SEEK_BYTES, read_op
from gristmill.dataops.crawl import crawl as index_crawl
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.decontam.steps import decontaminate
from gristmill.dataops.dedup.exact import exact
from gristmill.dataops.dedup.near import minhash
from gristmill.dataops.dedup.signatures import sign
from gristmill.dataops.extract import extract
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.language import language as detect_language
from gristmill.dataops.learned.score import at_least, score
from gristmill.dataops.mix.holdout import By
from gristmill.dataops.mix.holdout import holdout as hold_out
from gristmill.dataops.op import Op
from gristmill.dataops.pack import best_fit
from gristmill.dataops.pii.find import TYPES
from gristmill.dataops.pii.redact import redact as redact_personal
from gristmill.dataops.signals import signals
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.encode import encode
from gristmill.dataops.tokenizer.given import import_tokenizer
from gristmill.dataops.tokenizer.train import train_bpe
from gristmill.dataops.web.line_rules import line_rules
from gristmill.dataops.web.rules import content, dclm, multilingual, refinedweb
from gristmill.dataops.web.signals import signals as web_signals
from gristmill.flows.checks import SEQ_LEN, VOCAB_SIZE, check_pretrain_data

Rules = Literal["fineweb", "multilingual", "refinedweb"]


@dataclass(frozen=True)
class RuleSet:
    """Which signals are measured, and which rules are held against them for the languages to keep (none: all)."""

    signals: Callable[[], list[Op]]
    rules: Callable[[tuple[str, ...]], list[Op]]


def _fineweb(languages: tuple[str, ...]) -> list[Op]:
    """FineWeb's filters in its order (Penedo et al. 2024)."""
    spoken = [quality.language_is(codes=languages, min_score=0.65)] if languages else []
    return [*spoken, quality.gopher_repetition(), quality.gopher(), quality.c4(), quality.fineweb()]


RULES = {
    "fineweb": RuleSet(lambda: [signals()], _fineweb),
    # Without C4's least of three words to a line, which in scripts without spaces leaves nothing.
    "multilingual": RuleSet(lambda: [signals(min_words_per_line=None), web_signals()], multilingual),
    "refinedweb": RuleSet(
        lambda: [signals(), line_rules(), web_signals()],
        lambda languages: [*_fineweb(languages), refinedweb(), dclm(), content()],
    ),
}

Step = Callable[[str, Callable[[], Any]], Any]


def _directly(_: str, work: Callable[[], Any]) -> Any:
    return work()


def recipe(
    store: Store,
    crawl: Sequence[str],
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
    holdout: tuple[By, float] | None = None,
    seek_bytes: int = SEEK_BYTES,
    step: Step = _directly,
) -> dict[str, Dataset]:
    """One pass of reading, extraction and signals, then views, then tokens; datasets by name.

    `step` runs each stage: directly here, as a Prefect task in the flow.
    """
    end_of_document = check_pretrain_data(
        crawl, store.root, tokenizer=tokenizer, vocab_size=vocab_size, seq_len=seq_len
    )
    earlier = None if after is None else store.get(after)
    if earlier is not None and [op["name"] for op in earlier.manifest["ops"]] != ["dedup.minhash"]:
        raise InputError(f"{after} is no batch that new pages can be held against: name a version of `unique`")
    built: dict[str, Dataset] = {}

    def make(name: str, work: Callable[[], Dataset]) -> Dataset:
        built[name] = step(name, work)
        return built[name]

    index = make("crawl", lambda: index_crawl(store, crawl, seek_bytes=seek_bytes))
    # What was taken down, and what a list names, is dropped before anything is done with it.
    gone = tombstones(store)
    lists = compile_lists(store, blocklists) if blocklists else None
    refused = [*([obey(gone)] if gone else []), *([blocklist(lists)] if lists else [])]
    chosen = RULES[rules]
    redaction = [] if redact is None else [redact_personal(types=tuple(redact) or TYPES)]
    found = [extract(extractor=extractor), detect_language(), *redaction]
    model = None if classifier is None else store.get(classifier[0])
    scored = [] if model is None else [score(model, model.name)]
    ops = [read_op(store.root), *refused, *found, *chosen.signals(), *scored]
    sources = [index, *(item for item in (gone, lists, model) if item is not None)]
    pages = make("pages", lambda: store.build("pages", ops, sources))
    rule_ops = [opt_out(), *chosen.rules(tuple(languages))]
    if classifier is not None and model is not None:
        rule_ops.append(at_least(column=model.name, min_score=classifier[1]))
    clean = make("clean", lambda: store.build("clean", rule_ops, [pages]))
    signed = make("signatures", lambda: store.build("signatures", sign(), [clean]))
    first = _batches(earlier and earlier.input(0))
    once = make("exact", lambda: store.build("exact", exact(), [clean, signed, *first]))
    unique = make("unique", lambda: store.build("unique", minhash(), [once, signed, *_batches(earlier)]))
    if not unique.rows:
        raise InputError(
            f"nothing is left of {', '.join(crawl)} after cleaning: `gristmill show` of pages, clean, exact and unique "
            "says why"
        )
    text = unique
    if benchmarks:
        text = make("decontaminated", lambda: decontaminate(store, unique, benchmarks)["decontaminated"])
    held = None
    if holdout is not None:
        by, fraction = holdout
        whole = text
        text = make("train", lambda: hold_out(store, whole, fraction=fraction, by=by)[0])
        held = make("heldout", lambda: hold_out(store, whole, fraction=fraction, by=by)[1])
        for side in (text, held):
            if not side.rows:
                raise InputError(
                    f"holding out {fraction} of the pages by {by} leaves nothing in {side.name}: give another fraction"
                    + (", or hold out by page (the crawl may be of few hosts)" if by == "host" else "")
                )
    if end_of_document is not None:
        path, token = end_of_document
        bring = import_tokenizer(end_of_document=token, path_context=str(path))
        words = make("tokenizer", lambda: store.build("tokenizer", bring, [], external=[file_sha256(path)]))
    else:
        words = make("tokenizer", lambda: store.build("tokenizer", train_bpe(vocab_size=vocab_size), [text]))
    encoded = make("encoded", lambda: store.build("encoded", encode(words), [text, words]))
    stats = words.manifest["stats"]
    fit = best_fit(seq_len=seq_len, eod=stats["eod"], vocab_size=stats["vocab_size"], tokenizer=words.digest)
    make("packed", lambda: store.build("packed", fit, [encoded]))
    if held is not None:
        make("heldout-encoded", lambda: store.build("heldout-encoded", encode(words), [held, words]))
        make("heldout-packed", lambda: store.build("heldout-packed", fit, [built["heldout-encoded"]]))
    return built


def _batches(view: Dataset | None) -> list[Dataset]:
    """What a batch is held against: the deduplicated views and signatures of those before `view`, then its own."""
    if view is None:
        return []
    _, signed, *before = view.inputs
    return [*before, view, signed]
