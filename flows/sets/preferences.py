"""Preference sets: from judgements of people, AI judges and verifiers to pairs or thumbs that training reads.

Each step is a dataset that stands by itself, in this order and only where it is asked for:

    <name>-read        files as judgements               <name>-judgements   several inputs as one
    <name>-latest      the last word of each rater; gold checks and superseded words dropped
    <name>-settled     without what an adjudicator decided otherwise
    <name>-trusted     without raters who are right too seldom
    <name>-agreed      without what is probably wrong
    <name>-pairs       (or -thumbs) who is preferred to whom
    <name>-decontaminated                                without what a benchmark holds
    <name>-train, <name>-heldout                         two sides that share no prompt
    <name>-clean       without the pairs that are probably the wrong way round
    <name>, <name>-heldout-encoded                       as token ids of a chat tokenizer

The law: every judgement and every pair is in what comes out, or in a ledger with a reason. What was held out is not
cleaned, for whoever measures by it wants it as people said it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from gristmill.dataops.chat.encode import encode_pairs, encode_thumbs
from gristmill.dataops.chat.recipe import speaker
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.decontam.benchmarks import benchmarks as benchmarks_of
from gristmill.dataops.decontam.bill import clean_bill
from gristmill.dataops.decontam.index import index
from gristmill.dataops.decontam.policies import drop
from gristmill.dataops.executor import InProcess, LocalPool
from gristmill.dataops.mix.holdout import holdout as hold_out
from gristmill.dataops.noise.confident import drop_noisy
from gristmill.dataops.preferences.gather import examples, gather
from gristmill.dataops.preferences.imports import Format, read_judgements
from gristmill.dataops.preferences.liked import make_thumbs
from gristmill.dataops.preferences.pairs import Policy, make_pairs
from gristmill.dataops.preferences.standing import standing
from gristmill.dataops.preferences.trust import agreed, latest, settled, trusted
from gristmill.dataops.report.page import write_report
from gristmill.dataops.report.preferences import write_preferences
from gristmill.dataops.store import Store
from gristmill.flows.progress import draw
from gristmill.flows.train import named, train

Kind = Literal["pairs", "thumbs"]
T = TypeVar("T")


def preference_set(
    store: Store,
    judged: Sequence[Dataset],
    *,
    name: str = "preferences",
    kind: Kind = "pairs",
    policy: Policy = "best_worst",
    min_margin: float = 0.0,
    aspects: Sequence[str] = (),
    min_accuracy: float | None = None,
    noisy: float | None = None,
    holdout: float = 0.0,
    chat: Dataset | None = None,
    max_tokens: int = 2048,
    adjudicators: Sequence[str] = (),
    min_probability: float | None = None,
    benchmarks: Sequence[str] = (),
) -> dict[str, Dataset]:
    """The datasets of a preference set by what they are; what stands already is not built again.

    `policy`, `min_margin` and `aspects` are of `make_pairs`. Raters whose estimated accuracy is below `min_accuracy`
    are dropped; `adjudicators` are raters whose word is the last; labels that are less probable than `min_probability`
    go. `noisy` is the most that may be dropped as noise, as a share of the pairs. `holdout` is the share of the prompts
    that is kept out of training, by the hash of the prompt. `benchmarks` are files whose items no row may hold.

    Returns "latest", "settled", "trusted" and "agreed" where asked for, `kind` (the side to train on), "clean" with
    `noisy`, "heldout-<kind>" with `holdout` unless no prompt falls to it, and with `chat` "encoded" and
    "heldout-encoded". Raises InputError where no row is left, saying what became of the judgements.
    """
    _check(kind, policy, min_margin, aspects, noisy, holdout)
    base = gather(store, f"{name}-judgements", judged)
    built = {"latest": store.build(f"{name}-latest", latest(), [base])}
    counting = built["latest"]
    final = tuple(adjudicators)
    steps = {
        "settled": settled(adjudicators=final) if final else None,
        "trusted": None if min_accuracy is None else trusted(min_accuracy=min_accuracy, adjudicators=final),
        "agreed": None if min_probability is None else agreed(min_probability=min_probability, adjudicators=final),
    }
    for step, op in steps.items():
        if op is not None:
            counting = built[step] = store.build(f"{name}-{step}", op, [counting])
    make = make_pairs(policy=policy, min_margin=min_margin, aspects=aspects) if kind == "pairs" else make_thumbs()
    rows = built[kind] = store.build(f"{name}-{kind}", make, [counting])
    _some(rows, "judgements", kind)
    if benchmarks:
        rows = built[kind] = _decontaminated(store, rows, benchmarks, f"{name}-decontaminated")
        _some(rows, kind, f"{kind} without a benchmark's item")
    if holdout > 0:
        names = (f"{name}-train", f"{name}-heldout")
        rows, out = hold_out(store, rows, fraction=holdout, by="prompt", names=names)
        if not rows.rows:
            raise InputError(
                f"{name}: a holdout of {holdout:g} takes all {out.rows:,} {kind}: give a smaller share, or 0"
            )
        built |= {kind: rows} | ({f"heldout-{kind}": out} if out.rows else {})
    if noisy is not None:
        rows = built["clean"] = store.build(f"{name}-clean", drop_noisy(most=noisy), [rows])
    if chat is not None:
        encode = (encode_pairs if kind == "pairs" else encode_thumbs)(chat, max_tokens=max_tokens)
        built["encoded"] = store.build(name, encode, [rows])
        _some(built["encoded"], kind, "rows to train on")
        if f"heldout-{kind}" in built:
            out = store.build(f"{name}-heldout-encoded", encode, [built[f"heldout-{kind}"]])
            built |= {"heldout-encoded": out} if out.rows else {}
    return built


def _check(
    kind: str, policy: str, min_margin: float, aspects: Sequence[str], noisy: float | None, holdout: float
) -> None:
    """Raises InputError for what cannot be, before anything is read."""
    if kind not in get_args(Kind):
        raise InputError(f"no kind {kind!r}; there are: {', '.join(get_args(Kind))}")
    if not 0 <= holdout < 1:
        raise InputError(f"holdout is {holdout:g}: give a share of the prompts from 0 to below 1")
    of_pairs = {"policy": policy != "best_worst", "min_margin": min_margin != 0, "aspects": bool(aspects)}
    of_pairs["noisy"] = noisy is not None
    wrong = [name for name, told in of_pairs.items() if told]
    if kind == "thumbs" and wrong:
        raise InputError(f"{', '.join(wrong)} is of pairs: leave it out for thumbs")


def _some(made: Dataset, of: str, kind: str) -> None:
    """Raises InputError where no row is left, with what became of those that went in."""
    if made.rows:
        return
    taken = next(iter(made.manifest["counts"].values()))["in"]
    reasons = {why: number for tally in made.manifest["counts"].values() for why, number in tally["reasons"].items()}
    lost = ", ".join(f"{why} {number:,}" for why, number in sorted(reasons.items(), key=lambda item: -item[1]))
    hint = ""
    if set(reasons) == {"tie"}:
        hint = ": every judgement is a tie, or as many say one as the other, so nothing is preferred to anything"
    elif set(reasons) == {"other_kind"}:
        hint = (
            f": they are not of the kind that {kind} are made of; give kind {'pairs' if kind == 'thumbs' else 'thumbs'}"
        )
    elif set(reasons) == {"other_aspect"}:
        hint = ": they rate aspects alone; name those that count as `aspects`"
    elif found := examples([made]):
        hint = f"; in {found[0]['file']} {found[0]['why']}"
    raise InputError(f"{made.name}: none of {taken:,} {of} makes {kind} ({lost or 'there is none'}){hint}")


def _decontaminated(store: Store, rows: Dataset, files: Sequence[str], name: str) -> Dataset:
    """The rows without those that hold an item of a benchmark, with a clean bill about them."""
    items = benchmarks_of(store, files)
    found = index(store, items)
    clean = store.build(name, drop(found, store.progress), [rows, found])
    clean_bill(store, clean, items, found)
    return clean


def judgements_of(
    store: Store,
    given: Sequence[str],
    *,
    name: str,
    format: Format = "judgements",
    rater: str | None = None,
    fields: Sequence[str] = (),
) -> list[Dataset]:
    """Datasets of judgements for files (see `read_judgements`) and for references to datasets, files first.

    A file, a folder that no dataset is called like, a glob and a URL are files; all else is NAME, NAME@TAG or NAME:KEY.
    Raises InputError for what is neither.
    """
    known = set(store.names())

    def is_file(item: str) -> bool:
        path = Path(item)
        there = path.is_file() or (path.exists() and item not in known)
        return there or "://" in item or any(mark in item for mark in "/*?[")

    files = [item for item in given if is_file(item)]
    datasets = [store.get(item) for item in given if not is_file(item)]
    if not files:
        for option, value in {"format": format != "judgements", "rater": rater, "fields": tuple(fields)}.items():
            if value:
                raise InputError(f"{option} is of files, and only datasets are given: leave it out")
        return datasets
    read = read_judgements(store, f"{name}-read", files, format, rater=rater, fields=fields)
    _some(read, f"records of format {format}", "judgements")
    return [read, *datasets]


def build(
    store: Store,
    judgements: Sequence[str],
    *,
    name: str = "preferences",
    kind: Kind = "pairs",
    format: Format = "judgements",
    rater: str | None = None,
    fields: Sequence[str] = (),
    tokenizer: str | None = None,
    model: str | None = None,
    step: Callable[[str, Callable[[], Any]], Any] = lambda _, work: work(),
    **made_by: Any,
) -> dict[str, Any]:
    """Read the judgements, make the set and its report; returns what was made as plain data.

    `tokenizer` is a chat tokenizer, or a model that has one, to encode for. `model` is one to ask how probable it finds
    the replies: it stands in the report, and encodes where no tokenizer is given. `made_by` goes to `preference_set`.
    Raises InputError as that does.
    """
    if model is not None and kind != "pairs":
        raise InputError("a model is asked about pairs: leave it out for thumbs")
    speaks = tokenizer or model
    chat = None if speaks is None else speaker(store, speaks)
    options: dict[str, Any] = {"name": name, "format": format, "rater": rater, "fields": fields}
    read = step("judgements", lambda: judgements_of(store, judgements, **options))
    built = step("preference-set", lambda: preference_set(store, read, name=name, kind=kind, chat=chat, **made_by))
    if model is not None:
        spec = {"data": named(built["encoded"]), "model": {"dataset": model}, "name": f"{name}-logprobs"}
        told = {"tokenizer": named(chat)} if tokenizer is not None and chat is not None else {}
        step("logprobs", lambda: train("logprobs", store, {**spec, **told}))
    rows = built.get("clean", built[kind])
    folder = store.root / "reports" / f"{rows.name}-{rows.key[:12]}"
    page, numbers = step("report", lambda: (write_preferences if kind == "pairs" else write_report)(rows, folder))
    return {
        "name": name,
        "kind": kind,
        "rows": built.get("encoded", rows).rows,
        "datasets": {part: _row(item) for part, item in built.items()},
        "examples": examples(read),
        "counts": _counts(read, built.get("encoded", rows)),
        "raters": step("raters", lambda: standing(built["latest"])),
        "report": str(page),
        **(_of_report(Path(numbers)) if kind == "pairs" else {}),
    }


def _row(item: Dataset) -> dict[str, Any]:
    return {"name": item.name, "key": item.key, "digest": item.digest, "rows": item.rows}


def _counts(read: Sequence[Dataset], end: Dataset) -> dict[str, Any]:
    """Rows in, kept and dropped by each op from what was read to what is trained on, in order."""
    chain, sources = [end], {item.path for item in read}
    while chain[0].path not in sources:
        chain.insert(0, chain[0].input(0))
    chain = [*(item for item in read if item.path != chain[0].path), *chain]
    counts: dict[str, Any] = {}
    for made in chain:
        for op, tally in made.manifest["counts"].items():
            counts[f"{op} ({made.name})" if op in counts else op] = tally
    return counts


def _of_report(numbers: Path) -> dict[str, Any]:
    """What the page says of noise, and of how much the model could have said itself."""
    told = json.loads(numbers.read_text())
    return {"noise": told["noise"], "policy": told["policy"]}


@flow(name="build-preferences", persist_result=False)
def build_preferences(
    judgements: Sequence[str],
    root: str = ".gristmill",
    *,
    name: str = "preferences",
    kind: Kind = "pairs",
    format: Format = "judgements",
    rater: str | None = None,
    fields: Sequence[str] = (),
    policy: Policy = "best_worst",
    min_margin: float = 0.0,
    aspects: Sequence[str] = (),
    adjudicators: Sequence[str] = (),
    min_accuracy: float | None = None,
    min_probability: float | None = None,
    benchmarks: Sequence[str] = (),
    holdout: float = 0.0,
    noisy: float | None = None,
    tokenizer: str | None = None,
    model: str | None = None,
    max_tokens: int = 2048,
    workers: int | None = None,
) -> dict[str, Any]:
    """Judgements, as files or as datasets under the root, to a preference set and its report; what stands already is
    not built again. See `build` and `preference_set` for the parameters. Raises InputError for bad input."""

    def step(name: str, work: Callable[[], T]) -> T:
        return task(name=name, cache_policy=NO_CACHE, persist_result=False)(work)()

    with LocalPool(workers) as pool:
        store = Store(Path(root), InProcess() if pool.workers == 1 else pool, draw)
        result = build(
            store, judgements, name=name, kind=kind, format=format, rater=rater, fields=fields, policy=policy,
            min_margin=min_margin, aspects=aspects, adjudicators=adjudicators, min_accuracy=min_accuracy,
            min_probability=min_probability, benchmarks=benchmarks, holdout=holdout, noisy=noisy, tokenizer=tokenizer,
            model=model, max_tokens=max_tokens, step=step,
        )  # fmt: skip
    create_link_artifact(
        key="preference-report", link=Path(result["report"]).resolve().as_uri(), link_text="Preference report"
    )
    rows = [{"op": op, **{k: tally[k] for k in ("in", "kept", "dropped")}} for op, tally in result["counts"].items()]
    create_table_artifact(key="preference-counts", table=rows, description="Rows in, kept and dropped by each op")
    return result
