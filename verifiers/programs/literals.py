"""Tests that are nothing but calls on literals, read as data: `assert f(1, [2]) == 3`, as most of HumanEval's and
MBPP's are. They need no process of their own, which makes a verdict twice as fast.

The law kept here: the verdict is that of the assertions run as code (assertions.py); whatever is not plainly of this
form is left to it. Test code is parsed here and never run; the text is of bounded length, for the parser's sake.
"""

from __future__ import annotations

import ast
import builtins
import operator
from dataclasses import dataclass
from typing import Any

from gristmill.verifiers.programs.shapes import Tests

#: Longest test code that is parsed, in characters.
LONGEST = 50_000


_SUMS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


class Unclear(Exception):
    """A value that only the tests run as code can judge: whether a thing of the candidate's own is true."""


@dataclass(frozen=True)
class Call:
    """An assertion: what is called (None: the entry point), with what, and `how` the value must be: == or is what is
    expected, true or false."""

    name: str | None
    args: tuple[Any, ...]
    named: dict[str, Any]
    how: str
    expected: Any
    test: ast.expr

    @property
    def source(self) -> str:
        """The assertion's text."""
        return ast.unparse(self.test)


def calls_of(tests: Tests) -> list[Call] | None:
    """The calls of tests, None where some assertion is of another form."""
    if tests.setup.strip() or sum(map(len, tests.units)) > LONGEST:
        return None
    try:
        trees = [ast.parse(unit) for unit in tests.units]
        if tests.kind == "code":
            return _checked(trees[0])
        calls = [_call(node, None) for tree in trees for node in _only(tree)]
        names = {call.name for call in calls}
        # A built-in beside other names is the tests' own; alone it is the response's: `assert sum(10, 15) == 6`.
        return None if len(names) > 1 and any(hasattr(builtins, str(name)) for name in names) else calls
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError):
        return None


def _only(tree: ast.Module) -> list[ast.stmt]:
    if len(tree.body) != 1:
        raise ValueError("an assertion of several statements")
    return tree.body


def _checked(tree: ast.Module) -> list[Call] | None:
    """The calls of `check(candidate)` where the module holds that function and literals alone."""
    *before, check = [node for node in tree.body if not _idle(node)]
    if before or not isinstance(check, ast.FunctionDef) or check.name != "check" or check.decorator_list:
        raise ValueError("not one check")
    (parameter,) = [argument.arg for argument in ast.walk(check.args) if isinstance(argument, ast.arg)]
    body = [node for node in check.body if not _idle(node)]
    return [_call(node, parameter) for node in body] or None


def _idle(node: ast.stmt) -> bool:
    """A text, a variable in capitals with a literal, or `assert True`, which says nothing of anybody."""
    if isinstance(node, ast.Assign):
        ast.literal_eval(node.value)
        return all(isinstance(target, ast.Name) and target.id.isupper() for target in node.targets)
    if isinstance(node, ast.Assert):
        return isinstance(node.test, ast.Constant) and node.test.value is True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _call(node: ast.stmt, parameter: str | None) -> Call:
    """Raises ValueError for anything but `assert [not] name(literals) [== literal]`, and `is` with True, False, None.

    A message says nothing of the verdict.
    """
    if not isinstance(node, ast.Assert):
        raise ValueError("no assertion")
    call, how, expected = node.test, "true", None
    if isinstance(call, ast.UnaryOp) and isinstance(call.op, ast.Not):
        call, how = call.operand, "false"
    elif isinstance(call, ast.Compare) and len(call.ops) == 1:
        how, expected = {ast.Eq: "==", ast.Is: "is"}.get(type(call.ops[0]), ""), _value(call.comparators[0])
        call = call.left
    if not how or (how == "is" and not any(expected is one for one in (True, False, None))):
        raise ValueError("another comparison")
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError("not a call")
    if parameter is not None and call.func.id != parameter:
        raise ValueError("a call of something else")
    args = tuple(_value(arg) for arg in call.args)
    named = {str(item.arg): _value(item.value) for item in call.keywords if item.arg is not None}
    if len(named) != len(call.keywords):
        raise ValueError("arguments by **")
    return Call(None if parameter is not None else call.func.id, args, named, how, expected, node.test)


def _value(node: ast.expr) -> Any:
    """A literal; sums, differences, products and quotients of small numbers besides, as in `3 * 5 * 7`."""
    if isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
        left, right = _value(node.left), _value(node.right)
        small = all(type(side) in (int, float) and abs(side) < 2**64 for side in (left, right))
        if not small and not (type(left) is type(right) is str and isinstance(node.op, ast.Add)):
            raise ValueError("no small numbers")
        return _SUMS[type(node.op)](left, right)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)
