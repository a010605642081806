"""What a model will pick up from a set of answers besides their content: openers, closers, lists, length, hedges.

A few thousand answers of one style teach the style: a model that always begins with "Certainly!" learned it here. Each
number is told by source, for a set is as uniform as its largest source, and what is near uniform is said in a warning.

    opener     the first three words of an answer          closer    the last four
    phrase     four words in a row, by the share of answers that hold them
    overlap    of two sources' words: the sum of the smaller of both shares of each word (1: the same words as often)
    own words  what a source says more than the others do, by log odds with a prior (Monroe et al. 2008), as z scores

The law: the order of rows and the cut into shards do not show. Shares of forms are over all answers; words, phrases and
overlap over those of the SAMPLED conversations of each source (and of all together) with the lowest ids, a fair choice
since ids are hashes. Sets are read twice, batch by batch: held are some 200 bytes an answer, and the sampled texts.

Not covered: meaning; and hedges, which are English words. Overlap falls as sources get smaller: mind the answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import mix64
from gristmill.dataops.report.bins import histogram, quantiles, tidy
from gristmill.dataops.report.chain import read_batches
from gristmill.dataops.sft.turns import answers

OPENER, CLOSER, PHRASE = 3, 4, 4  # words
SAMPLED = 5_000  # conversations of a source
SHOWN = 10  # openers, phrases, own words of a source
PRIOR = 100  # words
_ROWS = 512  # looked at together
SOURCES = 24  # told apart; the smallest ones beyond go together
_COLUMNS = ("source", "source_file")
_WORD = r"[\p{L}\p{N}_]+(?:['’][\p{L}\p{N}_]+)*"
#: What is looked for in an answer, by name.
FORMS = {
    "list": r"(?m)^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S",
    "numbered": r"(?m)^[ \t]*\d{1,3}[.)][ \t]+\S",
    "heading": r"(?m)^#{1,6}[ \t]+\S",
    "bold": r"\*\*\S",
    "code": r"(?m)^[ \t]*```|`[^`\n]+`",
    "table": r"(?m)^[ \t]*\|.*\|[ \t]*$",
    "emoji": r"[\x{1F300}-\x{1FAFF}\x{2600}-\x{27BF}]",
    "exclamation": r"!",
    "asks back": r"\?\s*\z",
    "first person": r"(?i)\b(?:i|i'm|i've|i'd|i'll|my|me)\b",
}
MARKDOWN = ("list", "heading", "bold", "code", "table")
HEDGES = (
    r"(?i)\b(?:perhaps|maybe|might|may|could be|possibly|probably|likely|presumably|seems?|appears? to|suggests?|"
    r"generally|typically|usually|often|sometimes|in general|in most cases|it depends|depending on|tends? to|"
    r"it (?:is|'s) (?:important|worth) (?:to note|noting|to remember)|keep in mind|to some extent|arguably|roughly)\b"
)
#: From these shares of at least FEWEST answers on there is a warning. Ours: a habit that one answer in five has is one
#: that a reader notices, and in tests/test_style_report.py people's own answers stay below all of them.
LIMITS = {"opener": 0.1, "closer": 0.1, "phrase": 0.2, "list": 0.8, "markdown": 0.9, "exclamation": 0.6, "emoji": 0.3}
HEDGED, SPREAD, DOMINANT, FEWEST = 15.0, 0.35, 0.8, 50


def measure(datasets: Sequence[Dataset], column: str | None = None) -> dict[str, Any]:
    """The numbers of the style report. A source is a value of `column`; by default what `source` says, else
    `source_file`, else the dataset's name. Raises InputError for datasets without messages, or without any answer."""
    parts, chats = [], 0
    for rows, said in _answers(datasets, column):
        chats += rows
        parts.append(_measured(said))
    found = pl.concat(parts) if parts else pl.DataFrame()
    if not found.height:
        raise InputError(f"{', '.join(item.name for item in datasets)}: no answer, so no style to tell of")
    names = _names(found)
    found = found.with_columns(pl.col("source").replace(names)).sort("source", "id", "at")
    order = _by_size(found)
    sampled = _sampled(datasets, column, names, found)
    sources, counted = [], []
    for name in order:
        words = _words(sampled[name])
        sources.append(_source(found, words, name))
        counted.append(_counts(words))
    whole = _source(found.with_columns(source=pl.lit("all")), _words(sampled[None]), "all")
    told = order if len(order) > 1 else []
    counts = pl.concat(counted)
    numbers = {
        "gristmill": 1,
        "datasets": [{"name": item.name, "key": item.key, "digest": item.digest} for item in datasets],
        "by": column,
        "conversations": chats,
        "all": whole,
        "sources": sources,
        "overlap": _overlap(counts, told),
        "own_words": _own_words(counts, told),
    }
    return numbers | {"warnings": warnings(numbers)}


def _answers(datasets: Sequence[Dataset], column: str | None) -> Iterator[tuple[int, pl.DataFrame]]:
    """Batch by batch how many conversations there are, and their answers: id, source, at, answer."""
    for dataset in datasets:
        have = [name for name, _ in dataset.base.manifest["schema"]]
        if "messages" not in have or (column is not None and column not in have):
            raise InputError(
                f"{dataset.name} has no column {'messages' if 'messages' not in have else column!r}; "
                f"it has: {', '.join(have)}"
            )
        by = [column] if column is not None else [name for name in _COLUMNS if name in have]
        nameless = pl.lit("(none)" if column is not None else dataset.name)
        for shard in dataset.shards():
            mask = shard.mask()
            for first, batch in read_batches(shard.path, ["id", "messages", *by]):
                rows = pl.DataFrame(batch)
                if mask is not None:
                    stays = mask.slice(first, batch.num_rows).to_numpy(zero_copy_only=False)
                    rows = rows.filter(pl.Series(stays))
                named = pl.coalesce(*(pl.col(name).cast(pl.String) for name in by), nameless)
                for some in rows.iter_slices(_ROWS):
                    said = answers(some).rename({"content": "answer"})
                    whose = some.select("id", source=named)[said["row"]]
                    yield some.height, whose.hstack(said.select("at", "answer"))


def _sampled(
    datasets: Sequence[Dataset], column: str | None, names: dict[str, str], found: pl.DataFrame
) -> dict[str | None, pl.DataFrame]:
    """The answers of the conversations that are looked at closely: by source, and under None of all together."""
    seen = found.select("source", "id").unique()
    ranks = seen.select("id", "source", own=pl.col("id").rank("dense").over("source"), all=pl.col("id").rank("dense"))
    closely = ranks.filter((pl.col("own") <= SAMPLED) | (pl.col("all") <= SAMPLED))
    kept = []
    for _, said in _answers(datasets, column):
        chosen = said.with_columns(pl.col("source").replace(names)).join(closely, on=["id", "source"], how="inner")
        kept.append(chosen.with_columns(pl.col("answer").str.to_lowercase().str.replace_all("’", "'")))
    every = pl.concat(kept).sort("source", "id", "at").with_row_index("number")
    own = every.filter(pl.col("own") <= SAMPLED).partition_by("source", as_dict=True)
    return {str(name): rows for (name,), rows in own.items()} | {None: every.filter(pl.col("all") <= SAMPLED)}


def _words(said: pl.DataFrame) -> pl.DataFrame:
    """source, answer (its number) and word, in order."""
    found = said.select("source", "number", word=pl.col("answer").str.extract_all(_WORD))
    return found.explode("word").drop_nulls("word")


def _measured(said: pl.DataFrame) -> pl.DataFrame:
    """An answer's numbers beside it."""
    answer = pl.col("answer")
    lower = answer.str.to_lowercase().str.replace_all("’", "'")
    words = lower.str.extract_all(_WORD)
    measured = said.with_columns(
        words=words.list.len(),
        opener=words.list.head(OPENER).list.join(" "),
        closer=words.list.tail(CLOSER).list.join(" "),
        hedges=answer.str.count_matches(HEDGES),
        **{name: answer.str.contains(pattern) for name, pattern in FORMS.items()},
    )
    return measured.with_columns(markdown=pl.any_horizontal(MARKDOWN)).drop("answer")


def _names(found: pl.DataFrame) -> dict[str, str]:
    """What sources beyond the largest ones are called: together."""
    rest = _by_size(found)[SOURCES - 1 :]
    return {name: f"({len(rest)} others)" for name in rest} if len(rest) > 1 else {}


def _by_size(found: pl.DataFrame) -> list[str]:
    counted = found.group_by("source").len().sort(["len", "source"], descending=[True, False])
    return counted["source"].to_list()


def _source(found: pl.DataFrame, said: pl.DataFrame, name: str) -> dict[str, Any]:
    mine = found.filter(pl.col("source") == name)
    spoken = mine.filter(pl.col("words") > 0)
    words = mine["words"].to_numpy().astype(np.float64)
    return {
        "source": name,
        "conversations": mine["id"].n_unique(),
        "answers": mine.height,
        "words": int(words.sum()),
        "length": {"mean": tidy(float(words.mean())), **quantiles(words)},
        "lengths": histogram(words, np.ones(len(words), dtype=bool)),
        "forms": {form: tidy(float(mine[form].mean() or 0)) for form in ("markdown", *FORMS)},  # type: ignore[arg-type]
        "hedges_per_1000": tidy(1000 * float(mine["hedges"].sum()) / max(1.0, float(words.sum()))),
        "openers": _commonest(spoken["opener"], mine.height),
        "closers": _commonest(spoken.filter(pl.col("words") >= CLOSER + OPENER)["closer"], mine.height),
        "different_openers": tidy(spoken["opener"].n_unique() / max(1, spoken.height)),
        "phrases": _phrases(said),
    }


def _commonest(values: pl.Series, of: int) -> list[dict[str, Any]]:
    counted = values.to_frame("text").group_by("text").len().filter(pl.col("len") > 1)
    first = counted.sort(["len", "text"], descending=[True, False]).head(SHOWN)
    return [{"text": text, "answers": n, "share": tidy(n / of)} for text, n in first.iter_rows()]


def _phrases(words: pl.DataFrame) -> list[dict[str, Any]]:
    """Runs of words that the most answers hold; of those that overlap by all words but one, the commonest."""
    of = words["number"].n_unique()
    spelled = words["word"].unique().sort()
    codes = words["word"].replace_strict(spelled, range(len(spelled)), return_dtype=pl.UInt64).to_numpy()
    number, count = words["number"].to_numpy(), max(0, words.height - PHRASE + 1)
    # A run is known by a hash of its words' numbers: as texts, the runs are most of what this report would hold.
    keys = np.zeros(count, dtype=np.uint64)
    for k in range(PHRASE):
        keys = mix64(keys + codes[k : k + count])
    at = np.flatnonzero(number[:count] == number[PHRASE - 1 : PHRASE - 1 + count])
    at = at[np.argsort(keys[at], kind="stable")]
    begins = np.append(True, keys[at][1:] != keys[at][:-1])[: len(at)]
    again = np.append(True, number[at][1:] != number[at][:-1])[: len(at)] | begins
    starts = np.flatnonzero(begins)
    held = np.add.reduceat(again, starts, dtype=np.int64) if len(starts) else starts
    least = np.sort(held)[-8 * SHOWN :].min(initial=len(number))
    often = np.flatnonzero((held > 1) & (held >= least))
    texts = [" ".join(words["word"][int(at[starts[one]]) + k] for k in range(PHRASE)) for one in often]
    first = sorted(zip((-held[often]).tolist(), texts, strict=True))[: 8 * SHOWN]
    told: list[dict[str, Any]] = []
    for less, text in first:
        n, mine = -less, text.split(" ")
        near = (set(zip(*(item["text"].split(" ")[k:] for k in range(2)), strict=False)) for item in told)
        if len(told) < SHOWN and not any({*zip(mine, mine[1:], strict=False)} & pairs for pairs in near):
            told.append({"text": text, "answers": n, "share": tidy(n / of)})
    return told


def _counts(said: pl.DataFrame) -> pl.DataFrame:
    return said.group_by("source", "word").agg(n=pl.len().cast(pl.Float64))


def _overlap(counts: pl.DataFrame, sources: Sequence[str]) -> list[dict[str, Any]]:
    """Of each pair of sources."""
    shares = counts.with_columns(p=pl.col("n") / pl.col("n").sum().over("source"))
    by = {name: shares.filter(pl.col("source") == name).select("word", "p") for name in sources}
    out = []
    for a, b in combinations(sources, 2):
        both = by[a].join(by[b], on="word").sort("word")
        common = float(both.select(pl.min_horizontal("p", "p_right").sum()).item())
        out.append({"a": a, "b": b, "overlap": tidy(common), "words": both.height})
    return out


def _own_words(counted: pl.DataFrame, sources: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Words that a source says more than the others, with z; the prior is all sources' counts, as of PRIOR words."""
    every = counted.group_by("word").agg(total=pl.col("n").sum())
    size = float(every["total"].sum())
    out = {}
    for name in sources:
        mine = counted.filter(pl.col("source") == name)
        own = float(mine["n"].sum())
        rows = mine.join(every, on="word").filter(pl.col("n") > 2, ~pl.col("word").str.contains(r"^\d+$"))
        prior, here, there = PRIOR * pl.col("total") / size, pl.col("n"), pl.col("total") - pl.col("n")
        odds = ((here + prior) / (own + PRIOR - here - prior)).log() - (
            (there + prior) / (size - own + PRIOR - there - prior)
        ).log()
        z = odds / (1 / (here + prior) + 1 / (there + prior)).sqrt()
        best = rows.select("word", "n", z=z).filter(pl.col("z") > 3).sort(["z", "word"], descending=[True, False])
        out[name] = [{"word": w, "count": int(n), "z": tidy(round(v, 2))} for w, n, v in best.head(SHOWN).iter_rows()]
    return out


def warnings(numbers: dict[str, Any]) -> list[str]:
    """What is near uniform, worst sources and all of them together, as sentences; see LIMITS."""
    sources = numbers["sources"]
    told = [numbers["all"], *sources] if len(sources) > 1 else sources
    out = []
    for item in told:
        if item["answers"] < FEWEST:
            continue
        where = "of all answers" if item is numbers["all"] else f"of the answers of {item['source']}"
        for kind, verb in (("opener", "begin with"), ("closer", "end with"), ("phrase", "hold")):
            first = next(iter(item[f"{kind}s"]), None)
            if first is not None and first["share"] >= LIMITS[kind]:
                out.append(f"{100 * first['share']:.0f}% {where} {verb} “{first['text']}”.")
        for form in ("list", "markdown", "exclamation", "emoji"):
            share = item["forms"][form]
            if share >= LIMITS[form]:
                named = {"list": "a list", "markdown": "Markdown", "exclamation": "an exclamation mark"}.get(form, form)
                out.append(f"{100 * share:.0f}% {where} have {named}.")
        if item["hedges_per_1000"] >= HEDGED:
            out.append(f"{item['hedges_per_1000']:.0f} of 1,000 words {where} are hedges (perhaps, generally, may).")
        low, middle, high = (item["length"][name] for name in ("p25", "p50", "p75"))
        if middle >= 10 and high - low < SPREAD * middle:
            out.append(f"Half {where} have {low:,.0f} to {high:,.0f} words: little spread in length.")
    if len(sources) > 1:
        largest = max(sources, key=lambda item: item["words"])
        share = largest["words"] / max(1, numbers["all"]["words"])
        if share >= DOMINANT:
            out.append(f"{100 * share:.0f}% of all words are of {largest['source']}: its style will be the model's.")
    return out
