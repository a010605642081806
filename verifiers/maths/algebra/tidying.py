"""Trees before they are compared: plus-minus written out, lists in lists joined, `log` read.

The law: what comes out says what went in. All plus-minus signs of one element go together, upper with upper and lower
with lower, so `1 \\pm \\sqrt 5` is two values and `(\\pm 1, \\mp 2)` two pairs.
"""

from __future__ import annotations

from collections.abc import Callable

from gristmill.verifiers.maths.algebra.grammar import Node, parts


def has(node: Node, name: str) -> bool:
    """Whether a function is named in a tree."""
    return node[:2] == ("fn", name) or any(has(part, name) for part in parts(node))


def _mapped(node: Node, change: Callable[[Node], Node]) -> Node:
    """The node with its inner nodes changed."""
    if node[0] == "rel":
        return ("rel", node[1], tuple(change(part) for part in node[2]))
    if node[0] == "matrix":
        return ("matrix", *(tuple(change(part) for part in row) for row in node[1:]))
    return (node[0], *(change(part) if isinstance(part, tuple) else part for part in node[1:]))


def natural(node: Node) -> Node:
    """The tree with `log` read as the natural logarithm where no base is given."""
    if node[:2] == ("fn", "log") and len(node) == 3:
        return ("fn", "ln", natural(node[2]))
    return _mapped(node, natural)


def tidied(node: Node) -> Node:
    """Plus-minus written out, lists inside lists and sets made one."""
    if node[0] in ("list", "set"):
        head: tuple[str, ...] = node[:2] if node[0] == "list" else node[:1]
        items: list[Node] = []
        for part in node[len(head) :]:
            inner = tidied(part)
            items += inner[2:] if inner[0] == "list" else [inner]
        return items[0] if len(items) == 1 and node[0] == "list" else (*head, *items)
    if _signs(node):
        both = tuple(tidied(_signed(node, sign)) for sign in (1, -1))
        return ("list", "or", *both)
    if node[0] in ("group", "rel", "cup", "cap", "minus"):
        return _mapped(node, tidied)
    return node


def _signs(node: Node) -> bool:
    return node[0] == "pm" or any(_signs(part) for part in parts(node))


def _signed(node: Node, sign: int) -> Node:
    """All plus-minus signs of a node read together: the upper ones, or the lower ones."""
    if node[0] == "pm":
        inner = _signed(node[2], sign)
        return inner if (node[1] == "+") == (sign > 0) else ("neg", inner)
    return _mapped(node, lambda part: _signed(part, sign))
