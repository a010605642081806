"""What is done to the syntax of chat templates: generation blocks, and calls that count the work.

The law: what a template writes is not changed by either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.visitor import NodeTransformer


class Counting(NodeTransformer):
    """Puts calls of `turn`, `joined` and `held` where the sandbox itself sees nothing."""

    def _looped(self, node: Any, *args: Any, **kwargs: Any) -> nodes.Node:
        self.generic_visit(node, *args, **kwargs)
        node.body.insert(0, nodes.ExprStmt(_call("turn", [])).set_lineno(node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = _looped  # noqa: N815

    def visit_Concat(self, node: nodes.Concat, *args: Any, **kwargs: Any) -> nodes.Node:  # noqa: N802
        """`a ~ b`."""
        self.generic_visit(node, *args, **kwargs)
        return _call("joined", node.nodes)

    def visit_Getitem(self, node: nodes.Getitem, *args: Any, **kwargs: Any) -> nodes.Node:  # noqa: N802
        """`a[1:]`."""
        self.generic_visit(node, *args, **kwargs)
        return _call("held", [node]) if isinstance(node.arg, nodes.Slice) else node

    def _new(self, node: Any, *args: Any, **kwargs: Any) -> nodes.Node:
        self.generic_visit(node, *args, **kwargs)
        constant = all(isinstance(item, nodes.Const) for item in getattr(node, "items", ()))
        return node if constant or getattr(node, "ctx", "load") != "load" else _call("held", [node])

    visit_List = visit_Tuple = visit_Dict = _new  # noqa: N815


def _call(name: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), arguments, [], None, None)


class Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`: what the model says.

    Each block's text goes to `spans` of the environment with the place `at` that the rendering has come to.
    """

    tags = {"generation"}

    def parse(self, parser: Any) -> nodes.Node:
        """A block whose text is noted where it comes out."""
        line = next(parser.stream).lineno
        self.environment.generates = True  # type: ignore[attr-defined]
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_note"), [], [], body).set_lineno(line)

    def _note(self, caller: Callable[[], str]) -> str:
        environment: Any = self.environment
        start = environment.at
        text = caller()
        environment.spans.append((start, text))
        return text
