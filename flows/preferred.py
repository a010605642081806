"""Where preferences come from: of a pair or a thumb the judgements, the raters, the responses and the policies behind
it.

The law: what is told is what stands in the rows and in the manifests; nothing is judged again. What is not there, as a
version that was removed, is named under `missing`, and the rest is told. Rows that are no preferences and do not go
back to pages are told with where they first stood. Not covered: judgements that made no pair (the ledger has them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.lineage import find, row_at, values
from gristmill.dataops.preferences.judgements import NUMBERS
from gristmill.flows.commands.common import plain, table
from gristmill.flows.models import is_model

_TEXTS = ({"prompt", "chosen", "rejected"}, {"prompt", "response", "label"})
_ENCODED = ({"prompt_ids", "chosen_ids", "rejected_ids"}, {"prompt_ids", "completion_ids", "label"})
#: Columns that say where a conversation was read, by what they are called of judgements.
_PLACE = {"source_file": "source", "source_line": "line"}
_BATCH = "feedback.batch"


def is_preferred(dataset: Dataset) -> bool:
    """Whether rows are preference pairs or thumbs, as texts or as token ids."""
    return _has(dataset, *_TEXTS, *_ENCODED)


def from_pages(dataset: Dataset) -> bool:
    """Whether a dataset, or one that it was made from, has pages of a crawl."""
    return any(_has(item, {"warc"}) for item in [dataset, *behind(dataset)[0]])


def behind(dataset: Dataset) -> tuple[list[Dataset], list[str]]:
    """What a dataset was made from, nearest first, as far as the models whose responses it holds; and the versions that
    are gone, as NAME:KEY."""
    found: dict[str, Dataset] = {}
    gone: list[str] = []
    edge = [dataset]
    while edge:
        here, lost = inputs(edge.pop(0))
        gone += [name for name in lost if name not in gone]
        for item in here:
            if item is not None and item.path not in found and not is_model(item):
                found[item.path] = item
                edge.append(item)
    return list(found.values()), gone


def row(dataset: Dataset, number: int) -> dict[str, Any]:
    """The story of one row of preferences, or of another row that does not go back to pages. Raises InputError where
    there is no such row."""
    shard, at = row_at(dataset, number)
    said = values(shard, at)
    others, gone = behind(dataset)
    story: dict[str, Any] = {**named(dataset), "row": number, "id": said["id"].hex()}
    missing = [f"{name} is not under this root any more" for name in gone]
    if not is_preferred(dataset):
        ids = [part["id"] for part in said["segments"]] if "segments" in said else [said["id"]]
        homes = [(id, origin([dataset, *others], id)) for id in dict.fromkeys(ids)]
        story["documents"] = [_document(*home, id) for id, home in homes if home is not None]
        story |= {name: _bare(said[name]) for name in ("prompt", "response") if name in said}
        sources = [(id, origin(others, id)) for id in said.get("sources") or []]
        story["sources"] = [_home(*home, id) for id, home in sources if home is not None]
        missing += [f"{id.hex()} is in no dataset behind {dataset.name}" for id, home in homes + sources if not home]
        return story | {"made_from": [version(item) for item in others], "missing": missing}
    if not _has(dataset, *_TEXTS):
        home = origin([item for item in others if _has(item, *_TEXTS)], said["id"])
        if home is None:
            missing.append(
                f"the texts of row {number}: {dataset.name} has token ids, and no dataset of texts behind it"
            )
        else:
            story["texts"] = _home(*home, said["id"])
            said = values(*row_at(*home))
    sides = [side for side in ("chosen", "rejected", "response") if side in said]
    story |= {name: _bare(said[name]) for name in ("prompt", *sides) if name in said}
    story |= {name: said[name] for name in ("label", "margin", "kind", "votes", "agree") if said.get(name) is not None}
    story |= {"judgements": [], "sources": []}
    if not said.get("sources") and sides:
        missing.append("its judgements: the row names no sources")
    replies: dict[str, str] = {side: _text(said[side]) for side in sides}
    for id in said.get("sources") or []:
        home = origin(others, id)
        if home is None:
            missing.append(f"source {id.hex()} is in no dataset that is left behind {dataset.name}")
        elif _has(home[0], set(NUMBERS)):
            story["judgements"].append(_judgement(*home, replies))
        else:
            story["sources"].append(_home(*home, id))
    return story | {"made_from": [version(item) for item in others], "missing": missing}


def origin(datasets: Iterable[Dataset], id: bytes) -> tuple[Dataset, int] | None:
    """Where a row first stood: of the datasets, nearest first, the last that holds it, and its number there."""
    for dataset in reversed([item for item in datasets if _has(item, {"id"})]):
        for shard, at in find(dataset, id):
            shards, mask = dataset.shards(), shard.mask()
            before = sum(other.kept for other in shards[: [other.path for other in shards].index(shard.path)])
            return dataset, before + (at if mask is None else mask[:at].true_count)
    return None


def _document(dataset: Dataset, number: int, id: bytes) -> dict[str, Any]:
    """Where a row stands, and the file and the place in it where it says so."""
    said = values(*row_at(dataset, number), [name for name in _PLACE if _has(dataset, {name})] or ["id"])
    place = {_PLACE[name]: said[name] for name in _PLACE if said.get(name) is not None}
    return {**_home(dataset, number, id), **place}


def _judgement(dataset: Dataset, number: int, replies: Mapping[str, str]) -> dict[str, Any]:
    """A judgement: who said what, when and where, and of each reply whose it is."""
    said = values(*row_at(dataset, number))
    op = dataset.manifest["ops"][-1]
    told = {**_home(dataset, number, said["id"]), "op": op["name"]}
    for name in ("rater", "kind", "aspect", "value", "at", "comment", "superseded", "source", "line", "queue", "seq"):
        if said.get(name) is not None:
            told[name] = said[name].isoformat() if isinstance(said[name], datetime) else said[name]
    if op["name"] == _BATCH:
        told |= {"batch": dataset.manifest["stats"]["batch"], "number": op["params"]["number"]}
    shown = [_text([reply]) for reply in said.get("responses") or []]
    places = {side: shown.index(text) for side, text in replies.items() if text in shown}
    told["says"] = _says(said, places)
    told["replies"] = {side: _reply(dataset, said, place, replies[side]) for side, place in places.items()}
    return told


def _says(said: Mapping[str, Any], places: Mapping[str, int]) -> str:
    """What a judgement says of the pair or of the reply, in a word."""
    found = [said["value"] and said["value"][places[side]] for side in places]
    if not found or None in found or ("response" not in places and len(found) < 2):
        return "not judged"
    if "response" in places:
        return "liked" if found[0] else "disliked"
    chosen, rejected = (said["value"][places[side]] for side in ("chosen", "rejected"))
    if chosen == rejected:
        return "tie"
    return "chosen" if (chosen > rejected) != (said["kind"] == "ranking") else "rejected"


def _reply(dataset: Dataset, said: Mapping[str, Any], place: int, text: str) -> dict[str, Any]:
    """Who gave a reply, the row of responses that it is, and its task, as far as there are such."""
    told: dict[str, Any] = {}
    if said.get("policies") and said["policies"][place] is not None:
        told["policy"] = said["policies"][place]
    for id in said.get("sources") or []:
        home = origin([item for item in behind(dataset)[0] if _has(item, {"id", "response"})], id)
        if home is None:
            continue
        responses, number = home
        of_task = values(*row_at(responses, number)).get("sources") or []
        same = pl.col("id") == id
        if of_task:  # an item names one response of its task: the others stand beside it
            same |= pl.col("sources").list.first() == of_task[0]
        found = responses.scan().filter(same & (pl.col("response").str.strip_chars() == text)).select("id").collect()
        if not found.height:
            continue
        at = origin([responses], found["id"][0])
        assert at is not None
        told["response"] = _home(*at, found["id"][0])
        models = [item for item in inputs(responses)[0] if item is not None and is_model(item)]
        if models:
            told["model"] = named(models[0])
        task = origin(behind(responses)[0], of_task[0]) if of_task else None
        if task is not None:
            told["task"] = _home(*task, of_task[0])
        return told
    return told


def inputs(dataset: Dataset) -> tuple[list[Dataset | None], list[str]]:
    """The inputs of a dataset in their order, None for one that is gone; and those, as NAME:KEY."""
    found: list[Dataset | None] = []
    gone = []
    for number, entry in enumerate(dataset.manifest["inputs"]):
        try:
            found.append(dataset.input(number))
        except InputError:
            found.append(None)
            gone.append(f"{entry['name']}:{entry['key'][:12]}")
    return found, gone


def _has(dataset: Dataset, *columns: set[str]) -> bool:
    """Whether rows have all of one of these sets of columns."""
    if dataset.base.kind != "rows" or not dataset.base.shards():
        return False
    names = set(dataset.schema().names)
    return any(one <= names for one in columns)


def named(dataset: Dataset) -> dict[str, Any]:
    return {"dataset": dataset.name, "key": dataset.key}


def _home(dataset: Dataset, number: int, id: bytes) -> dict[str, Any]:
    return {**named(dataset), "row": number, "id": id.hex()}


def version(item: Dataset) -> dict[str, Any]:
    op = item.manifest["ops"][-1]["name"] if item.manifest["ops"] else None
    return {
        "name": item.name,
        "key": item.key,
        "digest": item.digest,
        "op": op,
        "rows": None if item.kind == "checkpoint" else item.rows,
    }


def _bare(said: Any) -> Any:
    """A text as it is; messages without the fields that have no value."""
    if said is None or isinstance(said, str):
        return said
    return [{name: value for name, value in turn.items() if value is not None} for turn in said]


def _text(said: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a reply, or of the last of messages."""
    return (said if isinstance(said, str) else (said[-1].get("content") or "") if said else "").strip()


def told(story: dict[str, Any]) -> str:
    """As lines for a terminal."""
    return table(lines(story))


def lines(story: dict[str, Any]) -> list[list[str]]:
    """The story of a row, as what it is about and what there is to say."""
    found = [["row", f"{_at(story)}  id {story['id']}"]]
    for item in story.get("documents", []):
        if _at(item) != _at(story):
            found.append(["first stood", _at(item) + (f", {_where(item)}" if "source" in item else "")])
    if "texts" in story:
        found.append(["as text", _at(story["texts"])])
    if "prompt" in story:
        found.append(["asked", _line(story["prompt"])])
    found += [[side, _line(story[side])] for side in ("chosen", "rejected", "response") if side in story]
    if "label" in story:
        found.append(["label", "liked" if story["label"] else "disliked"])
    if "votes" in story:
        margin = f"margin {story['margin']:g}, " if "margin" in story else ""
        found.append(["by", f"{margin}votes {story['votes']:,}, of which {story['agree']:.0%} say so"])
    of_reply: dict[tuple[str, str], None] = {}
    for item in story.get("judgements", []):
        about = f" of {item['aspect']}" if "aspect" in item else ""
        said = f"{item.get('rater', 'somebody')}: {item['says']}{about} ({item['kind']})"
        said += f", {item['at']}" if "at" in item else ""
        found.append(["judgement", said + (f": {_line(item['comment'])}" if item.get("comment") else "")])
        found.append(["", f"{_where(item)}; {_at(item)}  id {item['id']}"])
        for side, reply in item["replies"].items():
            policy = [reply["policy"]] if "policy" in reply else []
            policy += [f"{reply['model']['dataset']}:{reply['model']['key'][:12]}"] if "model" in reply else []
            parts = [f"by {' = '.join(dict.fromkeys(policy))}"] if policy else []
            parts += [f"response {_at(reply['response'])}"] if "response" in reply else []
            parts += [f"task {_at(reply['task'])}"] if "task" in reply else []
            if parts:
                of_reply[(f"{side} comes", ", ".join(parts))] = None
    found += [list(pair) for pair in of_reply]
    found += [["source", f"{_at(item)}  id {item['id']}"] for item in story.get("sources", [])]
    found += [["made from", version_line(item)] for item in story.get("made_from", [])]
    return found + [["missing", item] for item in story["missing"]]


def version_line(item: Mapping[str, Any]) -> str:
    """A version of `version` in a line."""
    rows = "" if item["rows"] is None else f", {item['rows']:,} rows"
    return f"{item['name']}:{item['key'][:12]} by {item['op']}{rows}, digest {item['digest'][:12]}"


def _where(item: Mapping[str, Any]) -> str:
    """Where a judgement was given."""
    if "queue" in item:
        return f"queue {item['queue']}, batch {item['batch']}, its judgement {item['seq']}"
    place = f" record {item['line']}" if "line" in item else ""
    return f"{item['source']}{place}" if "source" in item else f"by {item['op']}"


def _at(item: Mapping[str, Any]) -> str:
    return f"{item['dataset']}:{item['key'][:12]} row {item['row']}"


def _line(said: Any) -> str:
    return str(plain(" ".join(_text(said).split())))
