"""The documentation of the running Python as pages of a website.

Docstrings, signatures and comments come from the sources of the standard library (parsed, never imported), from
built-in modules, and from the language reference that pydoc ships. The law: one installation of Python, one list of
pages, whatever the hash seed, the folder or the program that runs.

Not covered: private modules, tests, and what docstrings refer to. The documentation repeats itself here and there, as
sites do: near-duplicates among its own pages are no planted cases.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.demo.captures import DOCS, Block, Page, plain

_SKIPPED = {"antigravity", "encodings", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "this", "turtledemo"}
# Modules in C, under the name by which they are documented. Their docstrings are no source text: they are imported.
_BUILT_IN = (
    "builtins math cmath itertools time sys gc array marshal zlib binascii select unicodedata mmap posix:os "
    "_socket:socket _collections:collections _functools:functools _operator:operator _struct:struct _codecs:codecs "
    "_thread _io:io _datetime:datetime _ssl:ssl _bisect:bisect _heapq:heapq _random:random _csv:csv _signal:signal "
    "_weakref:weakref _pickle:pickle fcntl resource termios pwd grp syslog faulthandler atexit"
)
_PUBLIC = {"_pydecimal": "decimal", "_pyio": "io", "_pydatetime": "datetime", "_collections_abc": "collections.abc"}


@dataclass(frozen=True)
class Entry:
    """A documented thing: a module, class or function, with what stands in it and the comments in its body."""

    name: str
    kind: str
    signature: str
    doc: str
    members: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()


def documentation() -> list[Page]:
    """All pages of the documentation of this Python, by address; the longer of two pages with one address."""
    pages: dict[str, Page] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes and deprecations in other people's sources
        modules = list(_modules())
    for page in (*_topics(), *(page for module in modules for page in _pages(module, (module.name,)))):
        if page.uri not in pages or len(page.text) > len(pages[page.uri].text):
            pages[page.uri] = page
    return [pages[uri] for uri in sorted(pages)]


def _topics() -> Iterator[Page]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        blocks = list(_blocks(topics[name]))
        title = plain(blocks[0][1]) if blocks[0][0] == "h2" else name
        yield Page(f"{DOCS}/reference/{name}.html", title, tuple(blocks[1:]), ("Reference", title))


def _modules() -> Iterator[Entry]:
    """Every public module: those with a source file in the order of their paths, then those in C."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        name = _PUBLIC.get(name, name)
        if parts[0] not in sys.stdlib_module_names or parts[0] in _SKIPPED or {"test", "tests"} & set(parts):
            continue
        if not any(part.startswith("_") for part in name.split(".")):
            yield _from_source(name, path.read_text("utf-8", "replace"))
    for names in _BUILT_IN.split():
        real, _, public = names.partition(":")
        try:
            module = importlib.import_module(real)
        except ImportError:
            continue  # some are not built on every system
        members = tuple(_from_object(key, value) for key, value in _documented(module))
        yield Entry(public or real, "module", "", inspect.cleandoc(module.__doc__ or ""), members)


def _from_source(name: str, source: str) -> Entry:
    tree = ast.parse(source)
    lines = source.splitlines()
    members = tuple(_from_node(node, lines) for node in _definitions(tree))
    covered = {i for node in _definitions(tree) for i in range(node.lineno - 1, node.end_lineno or 0)}
    notes = _comments(["" if i in covered else line for i, line in enumerate(lines)])
    return Entry(name, "module", "", ast.get_docstring(tree) or "", members, notes)


Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.Module | ast.ClassDef) -> list[Definition]:
    found = {n.name: n for n in node.body if isinstance(n, Definition) and not n.name.startswith("_")}
    return list(found.values())


def _from_node(node: Definition, lines: list[str]) -> Entry:
    doc = ast.get_docstring(node) or ""
    notes = _comments(lines[node.lineno - 1 : node.end_lineno])
    if isinstance(node, ast.ClassDef):
        bases = f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
        members = tuple(_from_node(child, lines) for child in _definitions(node))
        return Entry(node.name, "class", f"class {node.name}{bases}", doc, members, notes)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return Entry(node.name, "function", f"{node.name}({ast.unparse(node.args)}){result}", doc, (), notes)


def _comments(lines: list[str]) -> tuple[str, ...]:
    """Blocks of comments that read like prose; licences, authors and code put out of action do not."""
    blocks, block = [], []
    for line in [*lines, ""]:
        bare = line.strip()
        if bare.startswith("# "):
            block.append(bare[2:].strip())
        else:
            blocks.append(" ".join(block))
            block = []
    other = re.compile(r"copyright|licen[cs]e|@|[=({]\S*[)}]|  ", re.IGNORECASE)
    prose = [text for text in blocks if len(text) > 60 and text[0].isupper() and text[-1] in ".:!?"]
    return tuple(text for text in prose if not other.search(text))


def _documented(owner: Any) -> list[tuple[str, Any]]:
    """Public routines and classes of a module or class in C, by name. Aliases stay out, and so do hooks of `sys`:
    what they are is up to the program that runs (pytest replaces some)."""
    found = []
    for name, value in sorted(vars(owner).items()):
        kinds = (inspect.isbuiltin, inspect.ismethoddescriptor, inspect.isdatadescriptor, inspect.isclass)
        own_name = getattr(value, "__name__", None) == name
        if own_name and value.__doc__ and not name.startswith("_") and not name.endswith("hook"):
            found += [(name, value)] if any(kind(value) for kind in kinds) else []
    return found


def _from_object(name: str, value: Any) -> Entry:
    doc = inspect.cleandoc(value.__doc__ or "")
    arguments = re.sub(r"\$\w+(, )?(/, |/)?", "", getattr(value, "__text_signature__", None) or "")
    if inspect.isclass(value):
        members = tuple(_from_object(key, member) for key, member in _documented(value) if not inspect.isclass(member))
        return Entry(name, "class", f"class {name}{arguments}", doc, members)
    return Entry(name, "function", name + arguments, doc)


def _pages(entry: Entry, path: tuple[str, ...]) -> Iterator[Page]:
    """The page of a module with a summary per member, then a page per class and per function that says something."""
    module = len(path) == 1
    blocks = list(_blocks(entry.doc))
    if not module:
        blocks.insert(0, ("pre", entry.signature))
    for heading, kind in (("Classes", "class"), ("Functions" if module else "Methods", "function")):
        members = [member for member in entry.members if member.kind == kind]
        if members:
            blocks.append(("h2", heading))
        for member in members:
            blocks.append(("dt", member.signature))
            doc = [("dd" if tag == "p" else tag, text) for tag, text in _blocks(member.doc)]
            blocks += doc[:1] if module else doc
    if entry.notes:
        blocks += [("h2", "Implementation notes"), *(("p", note) for note in entry.notes)]
    name = ".".join(path)
    summary = entry.doc.strip().split("\n")[0].rstrip(".") if entry.doc else ""
    title = f"{name}: {summary}" if module and summary else name
    yield Page(f"{DOCS}/library/{'/'.join(path)}.html", title, tuple(blocks), ("Library", *path))
    for member in entry.members if module else ():
        said = len(member.doc) + sum(len(each.doc) for each in member.members) + sum(map(len, member.notes))
        if said >= 80:
            yield from _pages(member, (*path, member.name))


def _blocks(doc: str) -> Iterator[Block]:
    """Plain documentation text (reST at heart) as blocks: headings, lists, prose, and all else as `pre`."""
    for piece in re.split(r"\n\s*\n", inspect.cleandoc(doc).expandtabs()):
        lines = piece.split("\n")
        if len(lines) > 1 and re.fullmatch(r"([=*~^\"-])\1{2,}", lines[1].strip()):
            yield "h2" if lines[1][:1] in "*=" else "h3", lines[0].strip()
            lines = lines[2:]
        text = re.sub(r"\s+", " ", " ".join(lines)).strip()
        if not text:
            continue
        text = re.sub(r":\w+:`~?([^`]+)`", r"``\1``", text)
        text = re.sub(r"(?<!\S)\*(\w[\w -]*\w|\w)\*(?!\w)", r"\1", text)
        if re.match(r"[*-] ", text):
            yield from (("li", item) for item in re.split(r" [*-] (?=\S)", text[2:]))
        elif re.search(r">>>|::=|^\+-|^\||\n +\S.*  +\S", piece) or (lines[0][0] == " " and not _reads(text)):
            yield "pre", "\n".join(lines)
        else:
            yield "p", text


def _reads(text: str) -> bool:
    """Whether an indented piece is prose, not an example."""
    return len(text.split()) >= 8 and text[0].isupper() and text[-1] in ".:)" and " = " not in text
