"""Judgements out of the exports of annotation tools: Argilla's records and Label Studio's tasks.

What a question asked is read from its answers: the name of a reply or a side is a choice (pairwise; of more than two,
that one before the others), a list of replies a ranking, a number a rating whose aspect is the question's name, a text
under a name like "correction" an edit. Which columns are the prompt and the replies follows from their names, or is
given as `fields`: the prompt's, then the replies' in the order in which they were shown.

The law: every answer is a judgement or a Fault: drafts, discarded and cancelled ones are "not_submitted", comments and
answers of other kinds "not_a_judgement". Suggestions and predictions are of models and are left out.

Sources: Record.to_dict of argilla 2 (nested, and flat as `to_datasets` writes it); labelstud.io/guide/task_format and
its tags Pairwise, Rating, Choices, Ranker, TextArea. Not covered: Label Studio's JSON-MIN and CSV.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.preferences.judgements import judgement
from gristmill.dataops.preferences.turns import Given, Row, conversation, number, objects, reply

Found = Iterator[dict[str, Any] | Fault]
_PROMPTS = ("prompt", "instruction", "question", "query", "input", "messages", "conversation", "context")
_REPLY = re.compile(
    r"(?i)(response|reply|answer|completion|generation|output|text|summary|candidate)s?[-_ .]?([a-z]|\d+)?"
)
_EDIT = re.compile(r"(?i).*(correct|edit|rewrit|improv|revis)")
_TIES = ("tie", "tied", "equal", "same", "both", "neither", "draw", "none", "similar")
_NOT_YET = ("draft", "discarded", "pending")


def argilla(row: Row, given: Given) -> Found:
    """A record: `fields` and `responses` by question, each a list of {value, user_id}; or flat, with `<question>
    .responses`, `.responses.users` and `.responses.status`."""
    nested = isinstance(row.get("fields"), Mapping)
    texts = row["fields"] if nested else {name: value for name, value in row.items() if not _is_answer(name)}
    item = _Item(texts, given, f"argilla {row.get('id')}")
    answers = list(_nested(row.get("responses")) if nested else _flat(row))
    if not answers:
        raise Fault("unjudged", "the record has no response")
    for question, value, user, status in answers:
        if status in _NOT_YET or value is None:
            yield Fault("not_submitted", f"{question} of {user} is {status or 'empty'}")
            continue
        yield from item.answered(question, question, value, user, None)


def label_studio(row: Row, given: Given) -> Found:
    """A task of a JSON export: `data`, and `annotations` with `result` and `completed_by`."""
    texts, annotations = row.get("data"), row.get("annotations")
    if not isinstance(texts, Mapping) or annotations is None:
        raise Fault("missing_column", f"no data with annotations; there is {', '.join(map(str, row)) or 'nothing'}")
    item = _Item(_listed(texts), given, f"task {row.get('id')}")
    if not annotations:
        raise Fault("unjudged", "the task has no annotation")
    for note in objects(annotations, "annotations"):
        who = note.get("completed_by")
        who = (who.get("email") or who.get("id")) if isinstance(who, Mapping) else who
        rater = given.rater if who is None else str(who)
        if note.get("was_cancelled") or not note.get("result"):
            yield Fault(
                "not_submitted", f"annotation {note.get('id')} is {'cancelled' if note.get('result') else 'empty'}"
            )
            continue
        for part in objects(note["result"], "result"):
            kind, told = str(part.get("type")), part.get("value")
            column = {"pairwise": "selected", "textarea": "text"}.get(kind, kind)
            value = told.get(column) if isinstance(told, Mapping) else None
            if kind == "ranker" and isinstance(value, Mapping):
                value = next((names for names in value.values() if isinstance(names, list)), None)
            elif kind in ("choices", "textarea") and isinstance(value, list):
                value = value[0] if len(value) == 1 else None
            if kind not in ("pairwise", "rating", "choices", "ranker", "textarea") or value is None:
                yield Fault("not_a_judgement", f"{part.get('from_name')} is of type {kind!r}")
                continue
            question, on = str(part.get("from_name")), str(part.get("to_name"))
            yield from item.answered(question, on, value, rater, note.get("updated_at") or note.get("created_at"))


class _Item:
    """What a record shows: the prompt and the replies, found once for all its answers."""

    def __init__(self, texts: Mapping[str, Any], given: Given, name: str) -> None:
        self.rater, self.name = given.rater, name
        there = ", ".join(map(str, texts)) or "nothing"
        if given.fields:
            missing = [field for field in given.fields if texts.get(field) is None]
            if missing:
                raise Fault("missing_column", f"no {', '.join(missing)}; there is {there}")
            prompt, *self.names = given.fields
        else:
            prompt = next((name for name in _PROMPTS if texts.get(name) is not None), "")
            self.names = [
                name for name, value in texts.items() if name != prompt and value is not None and _REPLY.fullmatch(name)
            ]
        if not prompt or not self.names:
            raise Fault("missing_column", f"no prompt and replies by their names; name the fields: there is {there}")
        self.prompt = conversation(texts[prompt], prompt)
        self.replies = [reply(texts[name], name) for name in self.names]

    def answered(self, question: str, on: str, value: Any, user: str | None, at: Any) -> Found:
        """The judgement of one answer to `question`, about the field `on` where it says so."""
        rater = self.rater if user is None else user
        common: dict[str, Any] = {"rater": rater, "at": at, "given": self.name}
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                scores: list[float | None] = [None] * len(self.names)
                scores[self._about(question, on)] = number(value, question)
                yield judgement(self.prompt, self.replies, "rating", scores, aspect=_aspect(question), **common)
            elif isinstance(value, list):
                yield judgement(self.prompt, self.replies, "ranking", self._ranks(value), **common)
            elif isinstance(value, str) and len(self.names) > 1 and (side := self._side(value)) is not None:
                if len(self.names) == 2:
                    yield judgement(self.prompt, self.replies, "pairwise", [float(n == side) for n in (0, 1)], **common)
                else:
                    ranks = [1.0 if side in (-1, n) else 2.0 for n in range(len(self.names))]
                    yield judgement(self.prompt, self.replies, "ranking", ranks, **common)
            elif isinstance(value, str) and _EDIT.match(question):
                original = self.replies[self._about(question, on)]
                yield judgement(self.prompt, [original, reply(value, question)], "edit", [0, 1], **common)
            else:
                yield Fault("not_a_judgement", f"{question} is {str(value)[:60]!r}")
        except Fault as fault:
            yield fault

    def _about(self, question: str, on: str) -> int:
        """Which reply: the only one, the one that is named, or the one with the same number. Raises Fault."""
        if len(self.names) == 1:
            return 0
        for text in (on, question):
            inside = [n for n, name in enumerate(self.names) if name == text or _alike(text, name)]
            if len(inside) == 1:
                return inside[0]
        raise Fault("not_a_judgement", f"{question} does not say which of {', '.join(self.names)} it is about")

    def _ranks(self, value: Sequence[Any]) -> list[float | None]:
        """Ranks of the replies, from their names in order or from {value, rank}. Raises Fault."""
        ranks: list[float | None] = [None] * len(self.names)
        for place, item in enumerate(value, 1):
            named, rank = (item.get("value"), item.get("rank")) if isinstance(item, Mapping) else (item, place)
            if named not in self.names:
                raise Fault("not_a_judgement", f"a ranking names {named!r}; the replies are {', '.join(self.names)}")
            ranks[self.names.index(named)] = None if rank is None else number(rank, "a rank")
        return ranks

    def _side(self, value: str) -> int | None:
        """Which reply a choice names, -1 for a tie; None for no choice."""
        said = value.strip().lower()
        if value in self.names:
            return self.names.index(value)
        if said in _TIES:
            return -1
        tail = re.fullmatch(r"(?:response|reply|answer|completion|model|option|text)?[-_ ]?(left|right|[a-h]|\d)", said)
        if tail is None:
            return None
        place = {"left": 0, "right": 1}.get(tail[1])
        if place is None:
            place = int(tail[1]) - 1 if tail[1].isdigit() else ord(tail[1]) - ord("a")
        return place if 0 <= place < len(self.names) else None


def _aspect(question: str) -> str:
    """The name of a rating question, without the reply that it is about."""
    return re.sub(r"(?i)[-_ .]*(?:(?:response|reply|answer|completion)s?[-_ .]?)?\d*$", "", question) or question


def _alike(text: str, name: str) -> bool:
    """Whether both end in the same number."""
    ends = [re.search(r"\d+$", one) for one in (text, name)]
    return all(ends) and len({end[0] for end in ends if end is not None}) == 1


def _listed(texts: Mapping[str, Any]) -> dict[str, Any]:
    """A task's data, the replies of a Ranker's list under their own ids."""
    found: dict[str, Any] = {}
    for name, value in texts.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) and "body" in one for one in value):
            found |= {str(one.get("id")): one["body"] for one in value}
        else:
            found[name] = value
    return found


def _nested(responses: Any) -> Iterator[tuple[str, Any, str | None, Any]]:
    if not isinstance(responses, Mapping):
        return
    for question, answers in responses.items():
        for one in objects(answers, f"responses to {question}"):
            user = one.get("user_id")
            yield question, one.get("value"), None if user is None else str(user), one.get("status")


def _is_answer(name: str) -> bool:
    return ".response" in name or ".suggestion" in name or name in ("id", "status", "_server_id", "metadata")


def _flat(row: Row) -> Iterator[tuple[str, Any, str | None, Any]]:
    for name, values in row.items():
        if not name.endswith(".responses") or not values:
            continue
        columns = [values, *(row.get(f"{name}.{what}") for what in ("users", "status"))]
        size = len(values) if isinstance(values, list) else -1
        if any(column is not None and (not isinstance(column, list) or len(column) != size) for column in columns):
            raise Fault("wrong_type", f"{name} and its users and status are no lists of one length")
        users, status = (column or [None] * size for column in columns[1:])
        for value, user, state in zip(values, users, status, strict=True):
            yield name.removesuffix(".responses"), value, None if user is None else str(user), state
