"""What a worker does with one request: read, compare, and name the outcome.

The law: whatever the texts, the reply is one of the outcomes of symbolic.py; only running out of memory, stack or time
is left to workers.py. A side that has no value, or none within the bounds, is named, so that an answer nobody can
compute is told apart from a gold nobody can.
"""

from __future__ import annotations

import itertools

import sympy  # noqa: F401  (loaded before the fork, so that no call waits for it)

from gristmill.verifiers.maths.algebra.bounds import TooLarge, check_tree
from gristmill.verifiers.maths.algebra.exact import Undefined, exact
from gristmill.verifiers.maths.algebra.grammar import Node, parts
from gristmill.verifiers.maths.algebra.latex import Unreadable
from gristmill.verifiers.maths.algebra.numeric import NotNumeric, evaluate
from gristmill.verifiers.maths.algebra.phrases import parse
from gristmill.verifiers.maths.algebra.regions import NotRegion
from gristmill.verifiers.maths.algebra.statements import equal
from gristmill.verifiers.maths.algebra.tidying import tidied
from gristmill.verifiers.maths.algebra.values import FIRST, Undecided, points, symbols, whole_points

_EXPRESSIONS = ("num", "sym", "const", "neg", "add", "mul", "div", "pow", "fn", "app", "based", "sum", "prod")
_WEIGHED = 8  # points of each kind at which an expression may show a value


def handle(request: list[str]) -> str:
    """The outcome of one text (can it be read, and has it a value?) or of two (are they equal?)."""
    trees: list[Node] = []
    for side, text in zip(("gold", "answer"), request, strict=False):
        try:
            trees.append(parse(text))
            check_tree(trees[-1])
        except Unreadable:
            return f"{side}_unreadable"
        except TooLarge:
            return f"{side}_too_large"
    if len(trees) == 1:
        return _fault("gold", tidied(trees[0])) or "readable"
    try:
        return "equal" if equal(*trees) else "different"
    except NotRegion:
        return "different"  # held against a set, and none itself
    except (TooLarge, Undecided, Undefined, NotNumeric):
        return _fault("gold", tidied(trees[0])) or _fault("answer", tidied(trees[1])) or "undecided"


def _fault(side: str, node: Node) -> str:
    """Why no value is there, if none is."""
    if node[0] not in _EXPRESSIONS:
        return next(filter(None, (_fault(side, part) for part in parts(node))), "")
    if node in (("const", "inf"), ("neg", ("const", "inf"))):
        return ""
    names = sorted(symbols(node))
    found = ""
    for point in (*itertools.islice(points(names), _WEIGHED), *itertools.islice(whole_points(names), _WEIGHED)):
        try:
            if exact(node, point) is None:
                evaluate(node, point, FIRST)
            return ""
        except TooLarge:
            found = f"{side}_too_large"
        except (Undefined, NotNumeric):
            found = found or f"{side}_undefined"
        if not names:
            break
    return found
