"""Trees of messages: OpenAssistant's, and ChatGPT's export. A conversation is a path from the root.

The best path follows the reply that people ranked first, or that the user saw last; the messages beside it are counted
as lost. All paths are those to each reply that no other follows: their common beginnings are then learned several
times, unless the loss is that of the last turn (`completion`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from gristmill.dataops.chat.formats.canonical import Lost, Made, talk, turn
from gristmill.dataops.chat.formats.rows import Found
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.shapes import Row

_SPEAKERS = {"prompter": "user", "assistant": "assistant"}
#: What ChatGPT's export keeps among the messages although nobody said it to the other.
_UNSAID = ("thoughts", "reasoning_recap", "user_editable_context", "model_editable_context")
_DEEPEST = 500  # messages of a path

Path = list[Mapping[str, Any]]


def oasst(row: Row) -> Made:
    """OpenAssistant's tree (prompt with replies): the path of the replies of the first rank."""
    path = _best(_root(row))
    total, unheard = _size(_root(row))
    if not path:
        raise Fault("no_targets", f"no reply to the first of {total} messages")
    made: list[Any] = [_spoken(path, row)]
    lost = total - unheard - len(made[0]["messages"])
    return made + [Lost("other_branch", f"of {total} messages", lost)] * (lost > 0) + _deleted(unheard)


def oasst_all(row: Row) -> Made:
    """OpenAssistant's tree: every path that ends with a reply of the assistant."""
    total, unheard = _size(_root(row))
    made: list[Any] = []
    used: set[int] = set()
    for path in _paths(_root(row)):
        used |= {id(message) for message in path}
        try:
            made.append(_spoken(path, row))
        except Fault as fault:
            made.append(Fault(fault.reason, f"path {len(made) + 1}: {fault}"))
    if not made:
        raise Fault("no_targets", f"no reply among {total} messages")
    lost = total - unheard - len(used)
    return made + [Lost("unanswered", f"of {total} messages", lost)] * (lost > 0) + _deleted(unheard)


def _deleted(unheard: int) -> list[Any]:
    return [Lost("deleted", "deleted messages and what follows them", unheard)] if unheard else []


def _root(row: Row) -> Mapping[str, Any]:
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise Fault("missing_column", f"no prompt with replies; there is {', '.join(map(str, row)) or 'nothing'}")
    return root


def _replies(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What follows a message and is not deleted, the best first: by rank from 0, those without behind, else as they
    stand."""
    replies = message.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise Fault("wrong_type", "replies is no list of messages")
    heard = [reply for reply in replies if not reply.get("deleted")]
    return sorted(heard, key=lambda reply: rank if isinstance(rank := reply.get("rank"), (int, float)) else 1 << 30)


def _walk(root: Mapping[str, Any]) -> Iterator[Path]:
    """The path to each message that is not deleted, depth first."""
    waiting: list[Path] = [[root]]
    while waiting:
        path = waiting.pop()
        yield path
        if len(path) >= _DEEPEST:
            raise Fault("too_large", f"a path of more than {_DEEPEST} messages")
        waiting += [[*path, reply] for reply in reversed(_replies(path[-1]))]


def _size(root: Mapping[str, Any]) -> tuple[int, int]:
    """(messages of a tree, those that are deleted or behind one that is)."""
    total = _count(root)
    return total, total - sum(1 for _ in _walk(root))


def _count(root: Mapping[str, Any]) -> int:
    waiting, total = [root], 0
    while waiting:
        replies = waiting.pop().get("replies")
        total += 1
        waiting += [reply for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []
    return total


def _best(root: Mapping[str, Any]) -> Path:
    path = [root]
    while replies := _replies(path[-1]):
        path.append(replies[0])
    return path if path[-1].get("role") == "assistant" else path[:-1]


def _paths(root: Mapping[str, Any]) -> Iterator[Path]:
    """Paths to replies of the assistant behind which there is none."""
    for path in _walk(root):
        last = path[-1]
        if last.get("role") == "assistant" and not any(_replies(reply) for reply in _replies(last)):
            yield path


def _spoken(path: Path, row: Row) -> dict[str, Any]:
    turns = []
    for message in path:
        role, text = message.get("role"), message.get("text")
        if not isinstance(role, str) or role not in _SPEAKERS:
            raise Fault("bad_roles", f"a message is of {role!r}; known are {', '.join(_SPEAKERS)}")
        if not isinstance(text, str):
            raise Fault("wrong_type", "a message has no text")
        turns.append(turn(_SPEAKERS[role], text))
    return talk(turns, row, *[message.get("message_id") for message in path])


def flat(row: Row) -> bool:
    """Whether a row is a message of a tree, and not a tree."""
    parent = row.get("parent_id")
    named = all(isinstance(row.get(name), str) for name in ("message_id", "message_tree_id", "role"))
    return named and "prompt" not in row and (parent is None or isinstance(parent, str))


def gathered(found: Iterable[Found]) -> Iterator[tuple[int, int, dict[str, Any] | Fault, int]]:
    """(line or row of its first message, byte, tree, rows that it is made of); what is no message stays as it is."""
    for _, group in groupby(found, key=_tree_of):
        rows = list(group)
        number, offset, first = rows[0]
        if isinstance(first, Fault) or not flat(first):
            yield from ((*row, 1) for row in rows)
        else:
            yield number, offset, _grown([row for _, _, row in rows if isinstance(row, dict)]), len(rows)


def _tree_of(found: Found) -> Any:
    row = found[2]
    return ("tree", row["message_tree_id"]) if isinstance(row, dict) and flat(row) else ("row", found[0])


def _grown(messages: list[dict[str, Any]]) -> dict[str, Any] | Fault:
    """The tree of its messages: each among the replies of the one that its parent_id names."""
    known = {message["message_id"]: {**message, "replies": []} for message in messages}
    roots = [node for node in known.values() if node.get("parent_id") is None]
    orphans = [node for node in known.values() if node.get("parent_id") is not None and node["parent_id"] not in known]
    for node in known.values():
        if node.get("parent_id") in known:
            known[node["parent_id"]]["replies"].append(node)
    if len(roots) != 1 or orphans or _count(roots[0]) != len(messages):
        wrong = f"{len(roots)} first ones, {len(orphans)} whose parent is not there"
        return Fault("wrong_tree", f"{len(messages)} messages behind each other are no tree: {wrong}")
    return {"message_tree_id": roots[0]["message_tree_id"], "prompt": roots[0]}


def chatgpt(row: Row) -> Made:
    """A conversation of ChatGPT's export (conversations.json): the path to current_node. Its other branches, and what
    was not said (see _UNSAID, and a system message without a text), are counted; tools, images and canvases are not
    covered."""
    mapping, at = row.get("mapping"), row.get("current_node")
    if not isinstance(mapping, dict) or not isinstance(at, str):
        raise Fault(
            "missing_column", f"no mapping with a current_node; there is {', '.join(map(str, row)) or 'nothing'}"
        )
    path: list[Mapping[str, Any]] = []
    seen: set[str] = set()
    while isinstance(at, str):
        node = mapping.get(at)
        if at in seen or not isinstance(node, dict):
            raise Fault("wrong_type", f"node {at} is {'its own ancestor' if at in seen else 'not in the mapping'}")
        seen.add(at)
        path.append(message if isinstance(message := node.get("message"), dict) else {})
        at = node.get("parent")
    messages = [message for message in reversed(path) if message]
    turns = [(message, said) for message in messages if (said := _said(message)) is not None]
    total = sum(1 for node in mapping.values() if isinstance(node, dict) and node.get("message"))
    made: list[Any] = [talk([said for _, said in turns], row, *[message.get("id") for message, _ in turns])]
    if beside := total - len(messages):
        made.append(Lost("other_branch", f"of {total} messages", beside))
    if unsaid := len(messages) - len(turns):
        made.append(Lost("not_said", f"of {total} messages", unsaid))
    return made


def _said(message: Mapping[str, Any]) -> dict[str, Any] | None:
    """The turn of a message of the export; None where nobody said it."""
    author, content = message.get("author"), message.get("content")
    role = author.get("role") if isinstance(author, dict) else None
    kind = content.get("content_type") if isinstance(content, dict) else None
    if kind in _UNSAID:
        return None
    parts = content.get("parts") if isinstance(content, dict) and kind == "text" else None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise Fault("wrong_type", f"a message of {role} is of type {kind!r}; only text is covered")
    text = "".join(parts)
    if role == "system" and not text.strip():
        return None
    if role not in ("system", "user", "assistant") or message.get("recipient", "all") not in ("all", None):
        raise Fault("wrong_type", f"a message of {role} for {message.get('recipient')}: tools are not covered")
    return turn(role, text)
