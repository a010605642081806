"""From conversations to clean ones, in named steps: each a dataset that stands by itself, with its own ledger.

    <name>-clean           order, personal data, texts, boilerplate, language, toxicity: shard by shard
    <name>-once            without conversations that are there already
    <name>-unique          without prompts that are nearly there already
    <name>-decontaminated  without what benchmarks hold, where some are named

The law: each row of the input is a row of the result or in the ledger of one of these. What needs a verdict or a score
comes after (see `scores` and `diverse`), for it is dear and is best asked about rows that stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.decontam.steps import decontaminate
from gristmill.dataops.dedup.small import small
from gristmill.dataops.language import language
from gristmill.dataops.op import Op
from gristmill.dataops.quality import language_is
from gristmill.dataops.sft.boilerplate import boilerplate
from gristmill.dataops.sft.exact import exact
from gristmill.dataops.sft.harmful import harmful
from gristmill.dataops.sft.order import order
from gristmill.dataops.sft.personal import redact
from gristmill.dataops.sft.turns import texts
from gristmill.dataops.store import Store

#: Permutations for near-duplicates: 100,000 prompts in 0.6 GB; at a threshold of 0.8 they miss 1 pair in 100 at most.
PERMUTATIONS = 64


def cleaning(
    store: Store,
    chats: Dataset,
    *,
    name: str = "sft",
    languages: Sequence[str] | None = None,
    toxicity: tuple[Dataset, float] | None = None,
    earlier: Sequence[Dataset] = (),
    benchmarks: Sequence[str] = (),
    threshold: float = 0.8,
) -> list[Dataset]:
    """The steps from conversations to clean ones, in order.

    `languages` are codes to keep (None: all; a score is not asked for, since short chats have low ones). `toxicity` is
    a classifier, with the highest score that an answer may have. `earlier` are results of this function that stay as
    they are: what they hold is dropped here. `benchmarks` are files as in decontam/reading.py. Near-duplicates are of
    prompts, from a Jaccard similarity of `threshold` on. Raises InputError.
    """
    for item in earlier:
        if item.kind == "checkpoint" or "prompt" not in item.schema().names:
            raise InputError(f"{item.name} at {item.path} is no cleaned set of chats: name a NAME-unique")
    ops: list[Op] = [order(), redact(), texts(), boilerplate()]
    if languages is not None:
        ops += [language(), language_is(codes=tuple(languages), min_score=None)]
    if toxicity is not None:
        ops.append(harmful(*toxicity))
    cleaned = store.build(f"{name}-clean", ops, [chats])
    once = store.build(f"{name}-once", exact(), [cleaned, *earlier])
    near = small(column="prompt", threshold=threshold, num_perm=PERMUTATIONS)
    unique = store.build(f"{name}-unique", near, [once, *earlier])
    if not benchmarks:
        return [cleaned, once, unique]
    last = f"{name}-decontaminated"
    return [cleaned, once, unique, decontaminate(store, unique, benchmarks, name=last)[last]]
