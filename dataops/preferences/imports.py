"""Files of human preferences into judgements, whatever form they came in.

    found = read_judgements(store, "judged", ["export.json"], "argilla")        # one row per judgement
    once = store.build("judged-once", latest(), [found])                        # corrections supersede (see raters)
    pairs = store.build("pairs-read", make_pairs(policy="best_worst"), [once])  # see pairs
    store.build("pairs", encode_pairs(chat, max_tokens=2048), [pairs])

The law: each record of a file makes judgements, or is a ledger row that names its file and number and why; what is lost
inside a record that stays is in the ledger in units of "judgements". The row's id is of its file's name and content and
its place there. Reasons: those of reading (`chat.formats.rows`), "missing_column", "wrong_type", "bad_roles",
"no_replies", "different_prompts", "unknown_item", "unjudged", "not_submitted", "not_a_judgement", "doubtful_score".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import polars as pl

from gristmill.dataops.chat.formats.find import find
from gristmill.dataops.chat.formats.rows import rows
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.crawl import hash_files
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import row_id, sha256_json
from gristmill.dataops.op import LEDGER, Split, ledger, op
from gristmill.dataops.preferences.annotations import argilla, label_studio
from gristmill.dataops.preferences.judgements import frame
from gristmill.dataops.preferences.logs import judged, thumbs
from gristmill.dataops.preferences.sets import hh_rlhf, pairs, pandalm, ratings
from gristmill.dataops.preferences.turns import Given
from gristmill.dataops.readers.files import SourceFile
from gristmill.dataops.readers.page import EVIDENCE
from gristmill.dataops.store import Store, Task

Format = Literal["hh-rlhf", "pairs", "ratings", "pandalm", "thumbs", "argilla", "label-studio", "judgements"]
Reader = Callable[[Mapping[str, Any], Given], Iterable[dict[str, Any] | Fault]]
_BATCH = 4096  # judgements of one


def read_judgements(
    store: Store,
    name: str,
    paths: Sequence[str],
    format: Format,
    *,
    rater: str | None = None,
    fields: Sequence[str] = (),
) -> Dataset:
    """Files, globs, folders or URLs as a dataset of judgements.

    `rater` says who judged where the files do not. `fields` are the columns of the prompt and of the replies in exports
    of Argilla and Label Studio that do not tell by their names. Raises InputError for a format or a file there is not.
    """
    if format not in get_args(Format):
        raise InputError(f"no format {format!r}; there are: {', '.join(get_args(Format))}")
    if fields and (format not in ("argilla", "label-studio") or len(fields) < 2):
        raise InputError(
            f"fields are of argilla and label-studio, the prompt's and one per reply; here {len(fields)} for {format}"
        )
    files = find(list(paths))
    digests = hash_files(store, files)
    content = sha256_json([[file.name, file.format, digests[file.url]] for file in files])
    reading = judgements_read(
        format=format, rater=rater, fields=list(fields), files_context=files, digests_context=digests
    )
    return store.build(name, reading, [], external=[content])


def _plan(
    _: Any,
    __: Any,
    ___: int,
    *,
    format: str,
    rater: str | None,
    fields: Sequence[str],
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
) -> list[Task]:
    """A task is a file. Files of PandaLM's judges name items of the test set, which is read once before."""
    items: dict[Any, Any] = {}
    if format == "pandalm":
        read = (row for file in files_context for _, _, row in rows(file))
        held = [row for row in read if not isinstance(row, Fault) and "response1" in row]
        items = {row["idx"]: row for row in held if isinstance(row.get("idx"), int | str)}
    return [Task((file, digests_context[file.url], items)) for file in files_context]


@op("judgements.read", version=2, kind="source", plan=_plan)
def judgements_read(
    task: tuple[SourceFile, str, Mapping[Any, Any]],
    *,
    format: str,
    rater: str | None,
    fields: Sequence[str],
    files_context: Sequence[SourceFile],
    digests_context: Mapping[str, str],
) -> Iterator[Split]:
    """Rows of `JUDGEMENT`; records that make none go to the ledger."""
    file, digest, items = task
    given, read = Given(rater, tuple(fields), items), _reader(format)
    kept: list[dict[str, Any]] = []
    drops: list[tuple[Any, ...]] = []
    taken = 0
    for number, _, record in rows(file):
        taken += 1
        made, faults = _made(record, read, given)
        for place, row in enumerate(made):
            id = row_id("judgements.read", file.name, digest, str(number), str(place))
            kept.append({**row, "id": id, "source": file.name, "line": number})
        for place, fault in enumerate(faults):
            id = kept[-1]["id"] if made else row_id("judgements.read", file.name, digest, str(number))
            whole = not made and place == 0
            unit = "row" if whole else "judgements"
            drops.append((id, fault.reason, f"record {number}: {fault}"[:EVIDENCE], unit, file.name))
        if len(kept) >= _BATCH:
            yield _split(kept, drops, taken)
            kept, drops, taken = [], [], 0
    yield _split(kept, drops, taken)


def _reader(format: str) -> Reader:
    readers: dict[str, Reader] = {
        "hh-rlhf": hh_rlhf, "pairs": pairs, "ratings": ratings, "pandalm": pandalm, "thumbs": thumbs,
        "argilla": argilla, "label-studio": label_studio, "judgements": judged,
    }  # fmt: skip
    return readers[format]


def _made(record: Mapping[str, Any] | Fault, read: Reader, given: Given) -> tuple[list[dict[str, Any]], list[Fault]]:
    """The judgements of a record, and what could not be read of it."""
    if isinstance(record, Fault):
        return [], [record]
    found: list[dict[str, Any]] = []
    faults: list[Fault] = []
    try:
        for one in read(record, given):
            if isinstance(one, Fault):
                faults.append(one)
            else:
                found.append(one)
    except Fault as fault:
        faults.append(fault)
    return found, faults or ([] if found else [Fault("unjudged", "the record holds no judgement")])


def _split(kept: list[dict[str, Any]], drops: list[tuple[Any, ...]], taken: int) -> Split:
    names = ("id", "reason", "evidence", "unit", "warc")
    lost = pl.DataFrame(drops, schema={name: LEDGER[name] for name in names}, orient="row")
    return Split(frame(kept), ledger(lost) if drops else ledger(), taken, {"judgements": len(kept)})
