"""Whether two trees say the same: values, relations, sets, tuples, lists, matrices, ratios. Used in the workers only.

The policy, beside that of values.py for plain expressions:
- `x = 11` and 11 are equal both ways (a name, then its value; of a chain the last part, if its numbers agree); two
  labelled values need the same label. Of an equation "name = number" only another such equation is an equal, so the
  question's own equation is no answer.
- Equations are equal up to a constant factor that is not zero, inequalities up to a positive one, chains link by link.
- A gold inequality and a set as the answer are compared as sets; a gold set and an inequality as the answer are not
  equal: it may be the question's own.
- `{...}` has no order and no repetition; a bare list has no order; `(...)` has order, and so has a list or set held
  against it, or one of values held against values with names (`x = 1, y = 2`, as written or by the names).
  `(a,b)` and `[a,b]` differ. A column of a matrix is a tuple.
- A number in a stated base is equal to numbers in that base only: neither 3 nor 11_2 is an answer in place of the
  other.
- `a:b` is equal to proportional ratios without zeros, and to the quotient.
- A bare `log` is natural where the other side has `ln`; else decimal.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from gristmill.verifiers.maths.algebra.bounds import ELEMENTS, TooLarge
from gristmill.verifiers.maths.algebra.exact import based
from gristmill.verifiers.maths.algebra.grammar import Node, is_name, parts
from gristmill.verifiers.maths.algebra.numeric import NotNumeric
from gristmill.verifiers.maths.algebra.regions import (
    NotRegion,
    Pieces,
    intersection,
    joined,
    pieces,
    relation_body,
    same_pieces,
    solved,
)
from gristmill.verifiers.maths.algebra.relations import is_solved, pair_equal, pairs
from gristmill.verifiers.maths.algebra.tidying import has, natural, tidied
from gristmill.verifiers.maths.algebra.values import Undecided, canonical, contains, same, symbols

_COLLECTIONS = ("list", "set", "group")
_REGIONS = ("group", "set", "cup", "cap", "minus", "known", "where")
_PLAIN = ("rel", "mod", "list", "group", "set", "cup", "cap", "minus", "known", "where", "matrix", "ratio", "dots")


def equal(gold: Node, answer: Node) -> bool:
    """Whether the answer says what the gold says. Raises Undecided, TooLarge or Undefined where neither can be said."""
    gold, answer = tidied(gold), tidied(answer)
    if has(gold, "ln") != has(answer, "ln"):
        gold, answer = natural(gold), natural(answer)
    return _equal(gold, answer)


def _equal(gold: Node, answer: Node) -> bool:
    if canonical(gold) == canonical(answer):
        return True
    if contains(gold, ("dots",)) or contains(answer, ("dots",)):
        return _with_dots(gold, answer)
    kinds = gold[0], answer[0]
    if "rel" in kinds:
        return _relations(gold, answer)
    if "mod" in kinds:
        return kinds == ("mod", "mod") and _equal(gold[2], answer[2]) and _equal(gold[1], answer[1])
    if "ratio" in kinds:
        return _ratios(gold, answer)
    if "matrix" in kinds:
        left, right = _rows(gold), _rows(answer)
        return left is not None and right is not None and len(left) == len(right) and all(map(_ordered, left, right))
    if "set" in kinds and not set(kinds) <= set(_PLAIN):  # {5} and 5
        one, other = _items(gold), _items(answer)
        return len(one) == len(other) == 1 and _equal(one[0], other[0])
    if kinds[0] in _PLAIN or kinds[1] in _PLAIN:
        return _collections(gold, answer)
    return _values(gold, answer)


def _with_dots(gold: Node, answer: Node) -> bool:
    """Something with an ellipsis: part by part, as written."""
    if gold[0] == answer[0] and gold[0] not in (*_COLLECTIONS, "ratio"):
        raise Undecided("an ellipsis in an expression")
    return gold[0] == answer[0] and _ordered(_items(gold), _items(answer))


def _values(gold: Node, answer: Node) -> bool:
    while gold[0] == answer[0] == "neg":
        gold, answer = gold[1], answer[1]
    if gold[0] == "based" or answer[0] == "based":
        return gold[0] == answer[0] and gold[2] == answer[2] and based(*gold[1:]) == based(*answer[1:])
    if _bases(answer) != _bases(gold):
        return False
    return same(gold, answer)


def _bases(node: Node) -> frozenset[int]:
    if node[0] == "based":
        return frozenset((node[2],))
    return frozenset().union(*(_bases(part) for part in parts(node)))


def _items(node: Node) -> Sequence[Node]:
    return node[2:] if node[0] in ("list", "group") else node[1:] if node[0] in ("set", "ratio") else (node,)


def _ordered(gold: Sequence[Node], answer: Sequence[Node]) -> bool:
    return len(gold) == len(answer) and all(map(_equal, gold, answer))


def _unordered(gold: Sequence[Node], answer: Sequence[Node], *, repeated: bool) -> bool:
    """Whether two collections have the same elements, each as often where `repeated` counts."""
    if repeated and len(gold) != len(answer):
        return False
    if len(gold) * len(answer) > ELEMENTS**2:
        raise TooLarge(f"more than {ELEMENTS} elements")
    left = list(answer)
    doubt: Undecided | None = None
    used: set[int] = set()
    for item in gold:
        for place, other in enumerate(left):
            if repeated and place in used:
                continue
            try:
                if _equal(item, other):
                    used.add(place)
                    if repeated:
                        break
            except Undecided as error:
                doubt = error
        else:
            if repeated or not any(_known_equal(item, left[place]) for place in used):
                if doubt is not None:
                    raise doubt
                return False
    return len(used) == len(left)


def _known_equal(a: Node, b: Node) -> bool:
    try:
        return _equal(a, b)
    except Undecided:
        return False


def _collections(gold: Node, answer: Node) -> bool:
    kinds = gold[0], answer[0]
    if kinds == ("group", "group"):
        marks = gold[1] == answer[1] or (len(gold) != 4 and {gold[1], answer[1]} == {"()", "[]"})
        return marks and _ordered(gold[2:], answer[2:])
    if all(kind in _COLLECTIONS for kind in kinds):
        if "group" in kinds:
            group = gold if kinds[0] == "group" else answer
            return (group[1] == "()" or len(group) != 4) and _ordered(_by_name(gold), _by_name(answer))
        if kinds == ("list", "list"):
            left, right = _conditions(gold), _conditions(answer)
            if left is not None and right is not None:
                return same_pieces(left, right)
        if _is_named(gold) != _is_named(answer):
            written = _ordered(_items(gold), _items(answer))
            return written or _ordered(_by_name(gold), _by_name(answer))
        return _unordered(_items(gold), _items(answer), repeated=kinds == ("list", "list"))
    if gold[0] == "list":
        region = _conditions(gold)
        return region is not None and answer[0] in _REGIONS and same_pieces(region, _region(answer))
    if all(kind in _REGIONS for kind in kinds):
        try:
            return same_pieces(_region(gold), _region(answer))
        except (NotRegion, NotNumeric):
            return kinds[0] == kinds[1] and kinds[0] != "known" and _ordered(gold[1:], answer[1:])
    return False


def _by_name(node: Node) -> Sequence[Node]:
    """The items; of `y = 2, x = 1` in the order of the names, as the coordinates of a point are."""
    items = _items(node)
    return sorted(items, key=lambda item: repr(item[2][0])) if _is_named(node) else items


def _is_named(node: Node) -> bool:
    """Whether every item is a value of another name: `x = 1, y = 2`, not `x = 1, x = 2`."""
    items = _items(node)
    if not all(item[0] == "rel" and item[1] == ("=",) and is_name(item[2][0]) for item in items):
        return False
    return len({item[2][0] for item in items}) == len(items)


def _region(node: Node) -> Pieces:
    if node[0] == "where":
        return _solutions(node[2])
    return pieces(node)


def _solutions(node: Node) -> Pieces:
    from gristmill.verifiers.maths.algebra.solving import solve

    if node[0] == "list":
        found = _conditions(node)
        if found is None:
            raise NotRegion("conditions")
        return found
    if node[0] != "rel":
        raise NotRegion(node[0])
    return solved(node, solve)


def _conditions(node: Node) -> Pieces | None:
    """The region of several relations in one letter: with "or" any holds, with "and" all; a comma is "and" where
    they overlap and "or" where not. None for lists of anything else than letters between numbers."""
    parts = node[2:]
    if not all(part[0] == "rel" and not {"=", "in", "equiv"} & set(part[1]) for part in parts):
        return None
    if not all(map(_is_plain_range, parts)):
        return None
    if len({name for part in parts for name in symbols(relation_body(part))}) != 1:
        return None
    regions = [_solutions(part) for part in parts]
    common = regions[0]
    for region in regions[1:]:
        common = intersection(common, region)
    if node[1] == "and" or (node[1] == "," and common):
        return common
    return joined(tuple(piece for region in regions for piece in region))


def _rows(node: Node) -> list[Sequence[Node]] | None:
    """Rows of a matrix, of `[[1,2],[3,4]]`, or of a tuple as a column."""
    if node[0] == "matrix":
        return list(node[1:])
    if node[0] != "group":
        return None
    if all(part[0] == "group" for part in node[2:]):
        return [part[2:] for part in node[2:]]
    return [(part,) for part in node[2:]] if node[1] == "()" else None


def _ratios(gold: Node, answer: Node) -> bool:
    if gold[0] == answer[0]:
        left, right = gold[1:], answer[1:]
        if len(left) != len(right):
            return False
        zero = ("num", Fraction(0))
        if any(not symbols(part) and same(part, zero) for part in (*left, *right)):
            return _ordered(left, right)
        return all(same(("mul", a, right[0]), ("mul", b, left[0])) for a, b in zip(left, right, strict=True))
    ratio, other = (gold, answer) if gold[0] == "ratio" else (answer, gold)
    if len(ratio) != 3 or other[0] in _PLAIN:
        return False
    return _values(("div", *ratio[1:]), other) if ratio is gold else _values(other, ("div", *ratio[1:]))


def _relations(gold: Node, answer: Node) -> bool:
    """At least one side is a relation."""
    if gold[0] == answer[0]:
        return _two_relations(_collapsed(gold), _collapsed(answer))
    if gold[0] == "rel":
        told = _told(gold)
        if told is not None:
            return _equal(told, answer)
        region = _conditions(answer) if answer[0] == "list" else None
        if "=" in gold[1] or (answer[0] not in _REGIONS and region is None):
            return False
        return same_pieces(_solutions(gold), _region(answer) if region is None else region)
    if gold[0] == "list" and _is_plain_range(answer):
        region = _conditions(gold)
        return region is not None and same_pieces(region, _solutions(answer))
    told = _told(answer)
    return told is not None and _equal(gold, told)


def _collapsed(relation: Node) -> Node:
    """`x = 6/2 = 3` as `x = 3`, where its numbers agree."""
    _, operators, terms = relation
    if len(terms) > 2 and set(operators) == {"="} and is_name(terms[0]) and _told(relation) is not None:
        return ("rel", ("=",), (terms[0], terms[-1]))
    return relation


def _told(relation: Node) -> Node | None:
    """What a relation says of a name, or what a chain of equal numbers comes to; None where it is neither."""
    _, operators, terms = relation
    if operators == ("in",):
        return terms[1] if is_name(terms[0]) else None
    if set(operators) != {"="}:
        return None
    if len(terms) == 2 and is_name(terms[1]) and not is_name(terms[0]):
        terms = terms[::-1]
    numbers = [term for term in terms if term[0] not in _PLAIN and not symbols(term)]
    if any(not same(a, b) for a, b in zip(numbers, numbers[1:], strict=False)):
        return None
    if is_name(terms[0]):
        return None if symbols(terms[0]) & symbols(terms[-1]) and terms[0][0] != "app" else terms[-1]
    return terms[-1] if len(numbers) == len(terms) else None


def _two_relations(gold: Node, answer: Node) -> bool:
    if "in" in gold[1] + answer[1]:
        if gold[1] == answer[1] == ("in",):
            return _equal(gold[2][0], answer[2][0]) and _equal(gold[2][1], answer[2][1])
        if answer[1] != ("in",) or symbols(relation_body(gold)) != symbols(answer[2][0]) or "=" in gold[1]:
            return False
        return same_pieces(_solutions(gold), _region(answer[2][1]))
    left, right = pairs(gold), pairs(answer)
    if any(a[0] in _PLAIN for pair in (*left, *right) for a in pair[1:]):
        return gold[1] == answer[1] and _ordered(gold[2], answer[2])
    if is_solved(gold) and not is_solved(answer):
        return False
    if len(left) == len(right) and all(any(pair_equal(a, b) for b in right) for a in left):
        return all(any(pair_equal(a, b) for a in left) for b in right)
    if "=" in gold[1] + answer[1] or symbols(relation_body(gold)) != symbols(relation_body(answer)):
        return False
    if len(symbols(relation_body(gold))) != 1 or not _is_plain_range(answer):
        return False
    return same_pieces(_solutions(gold), _solutions(answer))


def _is_plain_range(relation: Node) -> bool:
    """A letter between numbers: an inequality that is solved."""
    return all((a[0] == "sym" and not symbols(b)) or (b[0] == "sym" and not symbols(a)) for _, a, b in pairs(relation))
