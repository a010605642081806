"""The tests' side, inside the sandbox: the data set's test code, where the candidate's names ask the candidate.

The law kept here: every assertion is evaluated here, by an interpreter that never ran the candidate, over values that
were rebuilt from plain data. The prompt's own helpers come from the prompt; built-ins and standard modules are this
process's. Each assertion is counted; one that fails does not stop the next, except inside `try` and `with`, where the
flow is the tests' own business. Tests that cannot judge anybody are told apart from those that fail: `Broken`.

Not covered: unittest's assert methods, and tests that look at how an argument was changed in place.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from gristmill.verifiers.programs.handles import HERE, Broken, Gone, Handle, ask, begin
from gristmill.verifiers.programs.wire import Malformed, dumps, loads


class Counted(ast.NodeTransformer):
    """Turn each assertion into a note under its index: that of its unit, or its own where there is one unit."""

    def __init__(self) -> None:
        self.sites: dict[int, str] = {}
        self.unit: int | None = None
        self.guarded = 0

    def _within(self, nodes: list[ast.stmt], guard: int) -> list[ast.stmt]:
        self.guarded += guard
        changed = [self.visit(node) for node in nodes]
        self.guarded -= guard
        return changed

    def visit_Try(self, node: ast.Try) -> ast.AST:
        """Inside `try`, a failed assertion is raised: somebody may be waiting for it."""
        node.body = self._within(node.body, 1)
        for handler in node.handlers:
            handler.body = self._within(handler.body, 0)
        node.orelse, node.finalbody = self._within(node.orelse, 0), self._within(node.finalbody, 0)
        return node

    def visit_With(self, node: ast.With) -> ast.AST:
        """As `try`: a context manager may swallow errors."""
        node.body = self._within(node.body, 1)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """Note what came of it; `assert True` says nothing of anybody."""
        if isinstance(node.test, ast.Constant) and node.test.value is True:
            return node
        index = len(self.sites) if self.unit is None else self.unit
        self.sites.setdefault(index, ast.unparse(node.test))
        call = "__seen__" if self.guarded else "__site__"
        noted: ast.expr = ast.Call(ast.Name(call, ast.Load()), [ast.Constant(index), node.test], [])
        if self.guarded:
            return ast.copy_location(ast.Assert(noted, node.msg), node)
        told = ast.Call(ast.Name("__error__", ast.Load()), [ast.Constant(index), ast.Name("__e", ast.Load())], [])
        handler = ast.ExceptHandler(ast.Name("BaseException", ast.Load()), "__e", [ast.Expr(told)])
        return ast.copy_location(ast.Try([ast.Expr(noted)], [handler], [], []), node)


def judge(channel: Any) -> None:
    """Run the tests and tell, per assertion, how often it passed and what went wrong first."""
    setup = loads(channel.receive())
    begin(channel)
    random.seed(0)
    try:
        told = _judge(**setup)
    except Broken as error:
        told = {"broken": str(error)[:300]}
    except (Malformed, Gone) as error:
        told = {"results": [], "error": None, "calls": 0, "malformed": str(error)}
    channel.send(b"." + dumps(told))


def _judge(units: list[str], setup: str, prompt: str, entry: str | None, listed: bool) -> dict[str, Any]:
    """`listed`: the units are assertions, each a test; else one unit of code, with `check`, `test_*` or neither."""
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    names = module.__dict__
    counter, before = Counted(), _parsed(setup)
    trees = [_parsed(unit) for unit in units]
    if entry is not None and f"def {entry}" in prompt:
        _attempt(lambda: exec(compile(_parsed(prompt), "prompt.py", "exec"), names), set())
    missing = _bind(names, [before, *trees], entry)
    bodies = []
    for index, tree in enumerate(trees):
        counter.unit = index if listed else None
        at = len(counter.sites)
        bodies.append(compile(ast.fix_missing_locations(counter.visit(tree)), f"test {index}", "exec"))
        if len(counter.sites) == at:
            raise Broken(f"no assertion in {'test ' + str(index) if listed else 'the tests'}")
    notes: dict[int, list[Any]] = {index: [0, None, None] for index in counter.sites}

    def note(index: int, failed: str | None) -> None:
        if failed is None:
            notes[index][0] += 1
        elif notes[index][1] is None:
            notes[index][1:] = [failed[:200], _short(HERE["last"]) if failed == "assertion" else None]

    def error(index: int, raised: BaseException) -> None:
        note(index, _blamed(raised, missing))

    def seen(index: int, value: Any) -> Any:
        if value:
            note(index, None)
        return value

    names["__site__"] = lambda index, value: note(index, None if value else "assertion")
    names.update(__seen__=seen, __error__=error)
    try:
        whole = _attempt(lambda: exec(compile(before, "setup", "exec"), names), missing)
        for index, body in enumerate(bodies):
            if whole is None:
                failed = _attempt(lambda: _run(body, names), missing)  # noqa: B023 - called at once
                if failed is not None and listed:
                    note(index, failed)
                else:
                    whole = failed
    except Gone:
        whole = "no answer"
    results = [[index, *notes[index], counter.sites[index][:200]] for index in notes]
    return {"results": results, "error": whole, "calls": HERE["calls"], "malformed": HERE["malformed"]}


def _run(body: types.CodeType, names: dict[str, Any]) -> None:
    """Run a unit; what it defines as `check` or `test_...` is its tests."""
    exec(body, names)
    if isinstance(names.get("check"), types.FunctionType):
        names["check"](names["__entry__"])
    for name in [name for name in names if name.startswith("test_") and isinstance(names[name], types.FunctionType)]:
        names.pop(name)()


def _attempt(run: Callable[[], None], missing: set[str]) -> str | None:
    try:
        run()
    except BaseException as error:
        return _blamed(error, missing)
    return None


def _blamed(error: BaseException, missing: set[str]) -> str:
    """What an error says of the candidate. Raises Broken where the tests fail by themselves."""
    text = f"{type(error).__name__}: {error}"[:200]
    if isinstance(error, Broken | Gone):
        raise error
    theirs = any(error is raised for raised in HERE["theirs"]) or isinstance(error, AssertionError | Malformed)
    lacking = isinstance(error, NameError) and error.name in missing
    if not theirs and not lacking and (isinstance(error, ImportError) or not HERE["calls"]):
        raise Broken(f"the tests fail by themselves: {text}")
    return text


def _bind(names: dict[str, Any], trees: list[ast.Module], entry: str | None) -> set[str]:
    """Give the tests the names they use and do not define: standard modules, else the candidate's. Returns those that
    the candidate lacks."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {(node.asname or node.name).partition(".")[0] for node in nodes if isinstance(node, ast.alias)}
    free = sorted(name for name in used - bound - names.keys() if not hasattr(builtins, name))
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    for name in [name for name in free if name in sys.stdlib_module_names and name not in called]:
        names[name] = importlib.import_module(name)
        free.remove(name)
    if entry is None and not free:  # a candidate that is called as a built-in is: `assert sum(10, 15) == 6`
        free = sorted({name for name in map(_called, nodes) if name is not None})
    wanted = free if entry is None else [*free, entry]
    answer = ask("names", wanted) if wanted else []
    try:
        found = dict(answer)
    except (TypeError, ValueError):
        raise Malformed("names that are no names") from None
    if not found.keys() <= set(wanted):
        raise Malformed("names that were not asked for")
    for name, value in found.items():
        names[name] = value
        if isinstance(value, Handle) and name.lstrip("_")[:1].isupper():
            HERE["classes"].add(value._number)
    names["__entry__"] = None if entry is None else found.get(entry)
    return set(wanted) - found.keys()


def _called(node: ast.AST) -> str | None:
    """The name that an assertion calls first."""
    if not isinstance(node, ast.Assert):
        return None
    called = node.test.left if isinstance(node.test, ast.Compare) else node.test
    return called.func.id if isinstance(called, ast.Call) and isinstance(called.func, ast.Name) else None


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Broken(f"the tests do not parse: {error}") from None


def _short(value: Any) -> str:
    try:
        return repr(value)[:200]
    except Exception as error:
        return type(error).__name__
