"""A crawl made on the spot: the documentation of the running Python as a website, in a WARC, with planted cases.

Nothing is downloaded. Docstrings, signatures and comments come from the sources of the standard library (parsed,
never imported), from built-in modules, and from the language reference that pydoc ships. The law: one installation of
Python, one sequence of bytes, whatever the hash seed, the folder or the day.

Not covered: links that lead somewhere, style sheets, and whatever else a page shows but does not say. Other versions
of Python make other samples. The documentation repeats itself here and there, as sites do: near-duplicates among
its own pages are no planted cases. Payload digests of chunked records are over the bytes as stored, chunk sizes
included, as WARC tools compute them.
"""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import html
import importlib
import inspect
import re
import sys
import sysconfig
import uuid
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import brotli

from gristmill.dataops.planted import Block, Capture, Page, plain, planted

DOCS = "https://docs.python.example"
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


def _html(capture: Capture, documents: list[Page]) -> str:
    """The page as a site serves it: the docs site with semantic elements, all others with nested divs."""
    page = capture.page
    address = page.uri.partition("?")[0]
    at = bisect_left(documents, address, key=lambda each: each.uri) if address.startswith(DOCS) else _number(address)
    near = (documents[(at + i) % len(documents)] for i in range(-8, 8))
    title = html.escape(plain(page.title))
    meta = f'<meta charset="{capture.in_meta}">' if capture.in_meta else ""
    head = f'{meta}<title>{title}</title><link rel="canonical" href="{address}">{capture.head}'
    links = "".join(f'<li><a href="{each.uri}">{html.escape(plain(each.title))}</a></li>' for each in near)
    crumbs = " &raquo; ".join(f'<a href="#">{html.escape(crumb)}</a>' for crumb in page.crumbs)
    search = '<form role="search" action="/search"><input name="q" placeholder="Search"><button>Go</button></form>'
    tops = "".join(f'<li><a href="/{name}/">{name.title()}</a></li>' for name in ("library", "reference", "about"))
    cookies = "We use cookies to remember your settings. <button>Accept</button> <button>Decline</button>"
    legal = '&copy; 2025 <a href="/imprint">Imprint</a> | <a href="/privacy">Privacy policy</a>'
    main = f"<h1>{title}</h1>\n{_main(page.blocks)}"
    if address.startswith(DOCS):
        body = (
            f'<header><nav><a href="/">Python handbook</a><ul>{tops}</ul></nav>{search}</header>\n'
            f'<nav aria-label="breadcrumbs">{crumbs}</nav>\n<aside><nav><h3>More</h3><ul>{links}</ul></nav></aside>'
            f"\n<main><article>\n{main}</article></main>\n<footer>{legal}</footer>\n"
            f'<div id="cookie-banner" role="dialog">{cookies}</div>'
        )
    else:
        body = (
            f'<div id="header" class="header"><ul class="menu">{tops}</ul>{search}</div>\n'
            f'<div class="breadcrumbs">{crumbs}</div>\n<div id="content" class="content">\n{main}</div>\n'
            f'<div id="sidebar" class="sidebar"><h3>More</h3><ul>{links}</ul></div>\n'
            f'<div class="cookie-notice">{cookies}</div>\n<div id="footer" class="footer">{legal}</div>'
        )
    return f'<!DOCTYPE html>\n<html lang="{page.lang}">\n<head>{head}</head>\n<body>\n{body}\n</body>\n</html>\n'


def _main(blocks: Iterable[Block]) -> str:
    """Blocks as markup; neighbours that belong to one list share it."""
    parts, opened = [], ""
    for tag, text in (*blocks, ("", "")):
        in_list = "dl" if opened == "dl" and tag == "pre" else ""
        holder = {"li": "ul", "link": "ul", "dt": "dl", "dd": "dl"}.get(tag, in_list)
        if holder != opened:
            parts.append((f"</{opened}>" if opened else "") + (f"<{holder}>" if holder else ""))
            opened = holder
        said = text if tag == "raw" else re.sub(r"``(.+?)``", r"<code>\1</code>", html.escape(text))
        if tag == "link":
            parts.append(f'<li><a href="/{len(parts)}">{said}</a></li>')
        elif tag == "pre" and opened == "dl":
            parts.append(f"<dd><pre>{said}</pre></dd>")
        elif tag:
            parts.append(said if tag == "raw" else f"<{tag}>{said}</{tag}>")
    return "\n".join(part for part in parts if part)


def _http(capture: Capture, documents: list[Page]) -> tuple[bytes, bytes]:
    """HTTP head and body of a capture, as they came over the wire."""
    body = capture.body
    if body is None:
        body = _html(capture, documents).encode(capture.encoding)
    headers = list(capture.headers)
    for step in capture.transfer:
        if step == "gzip":
            body = gzip.compress(body, mtime=0)
        elif step == "br":
            body = brotli.compress(body)
        else:
            pieces = [body[i : i + 700] for i in range(0, len(body), 700)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        headers.append(("Transfer-Encoding" if step == "chunked" else "Content-Encoding", step))
    charset = f"; charset={capture.in_header}" if capture.in_header and capture.body is None else ""
    headers += [("Content-Type", capture.media + charset), ("Date", format_datetime(_date(capture), usegmt=True))]
    if "chunked" not in capture.transfer:
        headers.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {capture.status}\r\n{head}\r\n".encode(), body


def _digest(data: bytes) -> str:
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode()


@dataclass(frozen=True)
class Record:
    """A WARC record: its type, id and address, and the gzip member that it is."""

    type: str
    id: str
    uri: str | None
    member: bytes


def _record(kind: str, uri: str | None, date: datetime, media: str, block: bytes, **headers: str) -> Record:
    """One WARC/1.1 record. Further headers are named without "WARC-" and with underscores."""
    record_id = f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {uri} {date}')}>"
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": record_id,
        "WARC-Date": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **({"WARC-Target-URI": uri} if uri else {}),
        **{f"WARC-{name.replace('_', '-')}": value for name, value in headers.items()},
        "WARC-Block-Digest": _digest(block),
        "Content-Type": media,
        "Content-Length": str(len(block)),
    }
    head = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    return Record(kind, record_id, uri, gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0))


def _response(capture: Capture, documents: list[Page]) -> Record:
    head, body = _http(capture, documents)
    uri = capture.page.uri
    address = f"192.0.2.{_number(uri.split('/')[2]) % 200 + 1}"
    media = "application/http; msgtype=response"
    said = {"IP_Address": address, "Payload_Digest": _digest(body)}
    return _record("response", uri, _date(capture), media, head + body, **said)


def _beside(capture: Capture, record_id: str, documents: list[Page]) -> list[Record]:
    """The other types of records: what the file is, and what belongs to one of its responses."""
    head, body = _http(capture, documents)
    uri, date, fields = capture.page.uri, _date(capture), "application/warc-fields"
    host, path = re.fullmatch("https://([^/]+)(.*)", uri).groups()  # type: ignore[union-attr]
    asked = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gristmill-sample\r\n\r\n".encode()
    again = {
        "Refers_To": record_id,
        "Refers_To_Target_URI": uri,
        "Refers_To_Date": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Profile": "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest",
        "Payload_Digest": _digest(body),
    }
    info = b"software: gristmill sample\r\nformat: WARC File Format 1.1\r\n"
    later = date + timedelta(days=40)
    return [
        _record("warcinfo", None, datetime(2024, 1, 1, tzinfo=UTC), fields, info, Filename="sample.warc.gz"),
        _record("request", uri, date, "application/http; msgtype=request", asked, Concurrent_To=record_id),
        _record("metadata", uri, date, fields, b"fetchTimeMs: 120\r\n", Refers_To=record_id),
        _record("revisit", uri, later, "application/http; msgtype=response", head, **again),
    ]


def write_sample(path: str | Path, *, pages: int | None = None) -> dict[str, Any]:
    """Write the sample crawl as a gzip WARC/1.1, a member per record, and return what is true of it.

    `pages` caps the documentation pages; planted cases, and the originals that some were edited from, are always there.
    Returns {"pages": responses with HTML and status 200, "records": {WARC type: count}, "cases": [{"uri", "record_id",
    "kind", "text" (the main text, of HTML pages), and facts of the kind}]}.
    """
    documents = documentation()
    captures, originals, rest = planted(documents)
    kept = originals + sorted(rest, key=lambda page: _number(page.uri))
    captures += [Capture(page) for page in kept[: None if pages is None else max(pages, len(originals))]]
    captures.sort(key=lambda capture: (_date(capture), capture.page.uri))
    responses = [_response(capture, documents) for capture in captures]
    first_id = {str(record.uri): record.id for record in reversed(responses)}
    revisited = originals[0]
    info, *others = _beside(Capture(revisited), first_id[revisited.uri], documents)
    records = [info, *responses, *others]
    Path(path).write_bytes(b"".join(record.member for record in records))

    cases: list[dict[str, Any]] = []
    for capture, record in zip(captures, responses, strict=True):
        facts = dict(capture.facts)
        if _is_page(capture):
            facts["text"] = capture.page.text
        if "original" in facts:
            facts["original_record_id"] = first_id[facts["original"]]
        if capture.kind:
            cases.append({"uri": record.uri, "record_id": record.id, "kind": capture.kind, **facts})
    for record in (info, *others):
        facts = {} if record is info else {"original": revisited.uri, "original_record_id": first_id[revisited.uri]}
        cases.append({"uri": record.uri, "record_id": record.id, "kind": record.type, **facts})
    return {
        "pages": sum(map(_is_page, captures)),
        "records": dict(sorted(Counter(record.type for record in records).items())),
        "cases": sorted(cases, key=lambda case: (case["kind"], case["uri"] or "", case["record_id"])),
    }


def _is_page(capture: Capture) -> bool:
    return capture.media == "text/html" and capture.status.startswith("200")


def _number(uri: str) -> int:
    """A number that depends on an address only: what spreads pages over dates, hosts and the file."""
    return int.from_bytes(hashlib.sha1(uri.encode()).digest()[:6], "big")


def _date(capture: Capture) -> datetime:
    """Somewhere in 2024 or 2025, at least forty days before its end (2024 has 366 days)."""
    seconds = _number(capture.page.uri) % (690 * 86_400)
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=capture.days_late, seconds=seconds)
