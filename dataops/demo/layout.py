"""Pages as HTML, in two layouts: semantic elements on the documentation site, nested divs on all others.

The law: all blocks of a page stand in its main part, in their order and escaped unless they are markup themselves
(`raw`); around it are navigation, search, a cookie notice and a footer, whose words belong to no page.

Not covered: links that lead somewhere beyond the documentation, style sheets, and whatever else a page shows but does
not say.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections.abc import Iterable

from gristmill.dataops.demo.captures import DOCS, Block, Capture, Page, number, plain

_SEARCH = '<form role="search" action="/search"><input name="q" placeholder="Search"><button>Go</button></form>'
_TOPS = "".join(f'<li><a href="/{name}/">{name.title()}</a></li>' for name in ("library", "reference", "about"))
_COOKIES = "We use cookies to remember your settings. <button>Accept</button> <button>Decline</button>"
_LEGAL = '&copy; 2025 <a href="/imprint">Imprint</a> | <a href="/privacy">Privacy policy</a>'


def page_html(capture: Capture, documents: list[Page]) -> str:
    """The page as a site serves it: the docs site with semantic elements, all others with nested divs.

    `documents` are sorted by address; every page links to sixteen of them, a documentation page to its neighbours.
    """
    page = capture.page
    address = page.uri.partition("?")[0]
    at = bisect_left(documents, address, key=lambda each: each.uri) if address.startswith(DOCS) else number(address)
    near = (documents[(at + i) % len(documents)] for i in range(-8, 8))
    title = html.escape(plain(page.title))
    meta = f'<meta charset="{capture.in_meta}">' if capture.in_meta else ""
    head = f'{meta}<title>{title}</title><link rel="canonical" href="{address}">{capture.head}'
    links = "".join(f'<li><a href="{each.uri}">{html.escape(plain(each.title))}</a></li>' for each in near)
    crumbs = " &raquo; ".join(f'<a href="#">{html.escape(crumb)}</a>' for crumb in page.crumbs)
    main = f"<h1>{title}</h1>\n{_main(page.blocks)}"
    layout = _semantic if address.startswith(DOCS) else _nested
    body = layout(main, crumbs, links)
    return f'<!DOCTYPE html>\n<html lang="{page.lang}">\n<head>{head}</head>\n<body>\n{body}\n</body>\n</html>\n'


def _semantic(main: str, crumbs: str, links: str) -> str:
    """The body of a page of the documentation: the elements say what is what."""
    return (
        f'<header><nav><a href="/">Python handbook</a><ul>{_TOPS}</ul></nav>{_SEARCH}</header>\n'
        f'<nav aria-label="breadcrumbs">{crumbs}</nav>\n<aside><nav><h3>More</h3><ul>{links}</ul></nav></aside>'
        f"\n<main><article>\n{main}</article></main>\n<footer>{_LEGAL}</footer>\n"
        f'<div id="cookie-banner" role="dialog">{_COOKIES}</div>'
    )


def _nested(main: str, crumbs: str, links: str) -> str:
    """The body of any other page: names of classes are all that tells text from what surrounds it."""
    return (
        f'<div id="header" class="header"><ul class="menu">{_TOPS}</ul>{_SEARCH}</div>\n'
        f'<div class="breadcrumbs">{crumbs}</div>\n<div id="content" class="content">\n{main}</div>\n'
        f'<div id="sidebar" class="sidebar"><h3>More</h3><ul>{links}</ul></div>\n'
        f'<div class="cookie-notice">{_COOKIES}</div>\n<div id="footer" class="footer">{_LEGAL}</div>'
    )


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
