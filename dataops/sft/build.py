"""SFT sets: from everybody's chat files to packed rows that training reads, cleaned, chosen, mixed, and told about.

Each step is a dataset that stands by itself; those in brackets only where they are asked for:

    <name>-messages      all sets of files as conversations, each row with its set, its source and its licence
    <name>-clean, -once, -unique, [-decontaminated]          see recipe.py
    [<name>-numbered]    with what a model finds of each, or a scorer says of it
    [<name>-<set>]       one set of files, where sets have weights
    [-encodable, -chosen]                                    N rows, of those that fit into a row of tokens
    -encoded, -packed    tokens with what the loss counts, a row of one set
    <name>               the packed rows; or a mixture of them by tokens, with a share of pretraining text against
                         forgetting ("replay"), every token of which counts

The laws: a conversation of the files is in a packed row or in a ledger with its reason; weights are shares of the
tokens, in whole rows, or where N rows are chosen shares of those; without weights everything that stays comes once.
Where nothing stays, no tag moves. Not covered: who says how good a row is; a column of the files does, a dataset
that has been judged, or whoever `numbers` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from gristmill.dataops.chat.encode import encode_chats
from gristmill.dataops.chat.read import ChatSet, read_sets
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.mix.mixture import facts, mix
from gristmill.dataops.op import Op
from gristmill.dataops.pack import best_fit, check_seq_len
from gristmill.dataops.passes import add_counts, new_count
from gristmill.dataops.sft.diverse import coverage, k_center
from gristmill.dataops.sft.recipe import cleaning
from gristmill.dataops.sft.scores import top
from gristmill.dataops.sft.sets import encodable, of_set, quotas
from gristmill.dataops.store import Store

By = Literal["coverage", "top", "bottom", "k_center", "ifd", "perplexity", "embedding", "score"]
Loss = Literal["assistant", "completion"]
T = TypeVar("T")
REPLAY = "replay"
#: What "ifd" and the like are short for: a choice, and the column it goes by, which somebody has to be asked for.
ASKED: dict[str, tuple[Literal["top", "bottom", "k_center"], str]] = {
    "ifd": ("top", "ifd"),
    "perplexity": ("bottom", "perplexity_given_prompt"),
    "embedding": ("k_center", "embedding"),
    "score": ("top", "score"),
}


@dataclass(frozen=True)
class Choice:
    """`rows` rows: those whose prompts cover most n-grams ("coverage", each gain times `column` where one is named),
    with the highest ("top") or lowest ("bottom") number in `column`, or spread out by the vectors in it ("k_center").

    By what a model or a scorer says (ASKED): those whose instruction is of least help, of those where it is of some
    ("ifd"), with the likeliest answers ("perplexity"), spread out ("embedding"), with the best "score".
    """

    rows: int
    by: By = "coverage"
    column: str | None = None

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InputError(f"{self.rows} rows are no choice: choose 1 or more")
        if self.by in ASKED and self.column is not None:
            raise InputError(f"{self.by} goes by {ASKED[self.by][1]}, not by {self.column}: leave the column out")
        if self.column is None and self.by not in ("coverage", *ASKED):
            raise InputError(f"{self.by} goes by a column: name it")

    @property
    def goes(self) -> tuple[Literal["coverage", "top", "bottom", "k_center"], str | None]:
        """How, and by which column."""
        return ASKED.get(self.by, (self.by, self.column))  # type: ignore[arg-type]

    @property
    def beside(self) -> dict[str, Literal["number", "vector"]]:
        """The column that it goes by."""
        by, column = self.goes
        return {} if column is None else {column: "vector" if by == "k_center" else "number"}

    def op(self, rows: int) -> Op:
        """The op that keeps so many rows."""
        by, column = self.goes
        if by == "coverage":
            return coverage(rows=rows, score=column)
        if by == "k_center":
            return k_center(rows=rows, column=str(column))
        return top(rows=rows, column=str(column), highest=by == "top")


@dataclass(frozen=True)
class Numbers:
    """Who is asked about clean conversations: `columns` that there are then, and `add`, which adds them."""

    columns: tuple[str, ...]
    add: Callable[[Dataset], Dataset]


@dataclass(frozen=True)
class SftSet:
    """What was made: `data` is what training reads; `packed` its parts by set, and `chosen` their conversations.

    `steps` are all datasets on the way, in order. They are not what the manifests of `data` lead back to where the same
    tokens were made before from other rows: what stands is not built again.
    """

    data: Dataset
    steps: tuple[Dataset, ...]
    chosen: tuple[Dataset, ...]
    packed: tuple[Dataset, ...]


def directly(_: str, work: Callable[[], T]) -> T:
    return work()


def sft_set(
    store: Store,
    chats: Sequence[ChatSet] | Dataset,
    chat: Dataset,
    *,
    name: str = "chats",
    seq_len: int,
    loss: Loss = "assistant",
    languages: Sequence[str] | None = None,
    toxicity: tuple[Dataset, float] | None = None,
    after: Sequence[Dataset] = (),
    benchmarks: Sequence[str] = (),
    choice: Choice | None = None,
    tokens: int | None = None,
    replay: tuple[Dataset, float] | None = None,
    numbers: Numbers | None = None,
    seed: int = 1,
    step: Callable[[str, Callable[[], Any]], Any] = directly,
) -> SftSet:
    """Build an SFT set for a chat tokenizer; what stands already is not built again.

    `chats` are sets of files, or a dataset with `messages`. `languages`, `toxicity`, `benchmarks` and `after` (as
    `earlier`) as in recipe.py. `tokens` are those of the whole set, None for as many as need no conversation twice.
    `replay` is packed pretraining text of the same tokenizer, and its share of all tokens. `numbers` asks for columns
    that the choice goes by. `step` runs each stage.
    Raises InputError, also where no row is left.
    """
    check_seq_len(seq_len)
    weights = _weights(chats)
    rows = {} if choice is None else quotas(choice.rows, weights or {"chats": 1})
    none = [of for of, share in rows.items() if not share]
    if none:
        raise InputError(f"{sum(rows.values())} rows by these weights leave none of {', '.join(none)}: choose more")
    if replay is not None and not 0 < replay[1] < 1:
        raise InputError(f"a replay share of {replay[1]:g} is outside 0 to 1")
    if REPLAY in weights:
        raise InputError(f"a set of files is called {REPLAY!r}, as the text that is mixed in: give it another name")
    asked = _asked(choice, numbers)
    if isinstance(chats, Dataset):
        messages = chats
    else:
        beside = choice.beside if choice is not None and not asked else {}
        wanted = [one for one in chats if one.weight != 0]
        messages = step("read", partial(read_sets, store, f"{name}-messages", wanted, beside))
    cleaned = step(
        "clean",
        partial(
            cleaning, store, messages, name=name, languages=languages, toxicity=toxicity, earlier=after,
            benchmarks=benchmarks,
        ),
    )  # fmt: skip
    steps = [messages, *cleaned]
    if asked and numbers is not None:
        steps.append(step("numbers", partial(numbers.add, cleaned[-1])))
    good = steps[-1]
    parts = {of: step(of, partial(store.build, f"{name}-{of}", of_set(name=of), [good])) for of in weights}
    parts = parts or {"chats": good}
    encoding = encode_chats(chat, max_tokens=seq_len, loss=loss)
    if choice is not None:
        fits = {of: step("fit", partial(_fitting, store, part, encoding)) for of, part in parts.items()}
        parts = {
            of: step("choose", partial(store.build, f"{parts[of].name}-chosen", choice.op(rows[of]), [part]))
            for of, part in fits.items()
        }
        steps += [*fits.values(), *parts.values()]
    stats = chat.manifest["stats"]
    fit = best_fit(seq_len=seq_len, **{key: stats[key] for key in ("tokenizer", "template", "vocab_size", "eod")})
    mixed = len(parts) > 1 or replay is not None or tokens is not None

    base = {of: f"{name}-{of}" if len(parts) > 1 else name for of in parts}
    encoded = {
        of: step("encode", partial(store.build, f"{base[of]}-encoded", encoding, [part])) for of, part in parts.items()
    }
    packed = {
        of: step("pack", partial(store.build, f"{base[of]}-packed" if mixed else name, fit, [part]))
        for of, part in encoded.items()
    }
    steps += encoded.values()
    made = SftSet(next(iter(packed.values())), tuple(steps), tuple(parts.values()), tuple(packed.values()))
    if not any(item.rows for item in packed.values()):
        told = ", ".join(
            f"{reason} {n:,}" for tally in funnel_of(made).values() for reason, n in tally["reasons"].items()
        )
        raise InputError(f"{name}: no row is left to train on ({told or 'there is none'})")
    if not mixed:
        return made
    shares = weights if choice is None else {}
    whole = step("mix", lambda: _mixed(store, name, packed, shares, tokens, replay, seed))
    return SftSet(whole, made.steps, made.chosen, made.packed)


def _weights(chats: Sequence[ChatSet] | Dataset) -> dict[str, float]:
    """Weights by set, none where none is said. Raises InputError where some are, or where they are none."""
    if isinstance(chats, Dataset):
        return {}
    if not chats:
        raise InputError("no files to build from: name some")
    given = {one.name: one.weight for one in chats if one.weight is not None}
    if given and len(given) < len(chats):
        without = ", ".join(one.name for one in chats if one.weight is None)
        raise InputError(f"{without}: no weight, and other sets have one; say 0 to leave a set out")
    if given and (min(given.values()) < 0 or not 0 < sum(given.values()) < float("inf")):
        raise InputError(f"weights are {given}: they are numbers from 0 on, one at least above it")
    weighed = {of: weight for of, weight in given.items() if weight > 0}
    return weighed if len(weighed) > 1 else {}


def _asked(choice: Choice | None, numbers: Numbers | None) -> bool:
    """Whether the choice goes by what somebody is asked for. Raises InputError where nobody is, or for nothing."""
    by, column = ("nothing", None) if choice is None else choice.goes
    if numbers is not None and column not in numbers.columns:
        raise InputError(
            f"the choice goes by {column or by}, and who is asked tells {', '.join(numbers.columns)}: choose by one of "
            "these, or ask nobody"
        )
    if numbers is None and choice is not None and choice.by in ASKED:
        who = "a scorer" if choice.by == "score" else "a model"
        raise InputError(f"a choice by {choice.by} needs {who} that is asked for it: name one")
    return numbers is not None


def _fitting(store: Store, part: Dataset, encoding: Op) -> Dataset:
    """The rows that can be encoded."""
    trial = store.build(f"{part.name}-trial", encoding, [part])
    return store.build(f"{part.name}-encodable", encodable(), [part, trial])


def _mixed(
    store: Store,
    name: str,
    packed: Mapping[str, Dataset],
    weights: Mapping[str, float],
    tokens: int | None,
    replay: tuple[Dataset, float] | None,
    seed: int,
) -> Dataset:
    """Packed sets by weight (none: all of each), and the replay beside them."""
    sizes = {of: facts(of, item).tokens for of, item in packed.items()}
    given = weights or sizes
    total = sum(given.values())
    shares = {of: given[of] / total for of in packed if given[of] > 0}
    bare = [of for of in shares if not sizes[of]]
    if bare:
        raise InputError(f"{', '.join(bare)}: a weight, and no row is left: look into the ledgers, or weigh it 0")
    room = 1.0
    sources = {of: packed[of] for of in shares}
    if replay is not None:
        room = 1 - replay[1]
        sources[REPLAY] = replay[0]
    budget = min(sizes[of] / share for of, share in shares.items()) / room if tokens is None else tokens
    of_all = {of: share * room for of, share in shares.items()} | ({REPLAY: 1 - room} if replay is not None else {})
    for of, share in of_all.items():
        known = facts(of, sources[of])
        if known.tokens and share * budget * known.rows < known.tokens / 2:
            raise InputError(
                f"{of}: {share:.1%} of {round(budget):,} tokens are less than half a row: raise its share, or shorten "
                "the rows"
            )
    return mix(store, name, sources, [{"tokens": round(budget), "weights": of_all}], seed=seed)


def funnel_of(made: SftSet) -> dict[str, dict[str, Any]]:
    """By op, in order: rows in, kept and dropped, with reasons; sets are added up."""
    counts: dict[str, dict[str, Any]] = {}
    for one in made.steps:
        for op, tally in one.manifest["counts"].items():
            add_counts(counts.setdefault(op, new_count()), tally)
    return counts
