"""What a crawl is made of before it is written: pages, and the ways in which a server answered with one.

The law: where a page comes to lie, in time and in the file, depends on its address alone, so that leaving pages out
moves no other page.

Not covered: how a page looks (`layout`) and how it travels (`records`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

DOCS = "https://docs.python.example"
MIRROR = "https://mirror.example"
SPAM = "https://spam.example"
Block = tuple[str, str]  # (tag, text): h2, h3, p, pre, li, dt, dd, link; raw is markup that says nothing


@dataclass(frozen=True)
class Page:
    """What a page says, apart from how it looks and travels. ``code`` in a block is marked by double backticks."""

    uri: str
    title: str
    blocks: tuple[Block, ...]
    crumbs: tuple[str, ...] = ()
    lang: str = "en"

    @property
    def text(self) -> str:
        """The main text: heading and blocks, one per line (`pre` has more), without markup or navigation."""
        return "\n".join([self.title, *(plain(text) for tag, text in self.blocks if tag != "raw")])


@dataclass(frozen=True)
class Capture:
    """One response of the crawl. `body` stands in for a page that is no HTML; `transfer` is applied left to right.

    A planted case has a `kind`, and `facts` that say what is true of it. `encoding` is what the page is written in,
    `in_header` and `in_meta` are what is claimed; a visit can come some days later than its address says.
    """

    page: Page
    kind: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()
    head: str = ""
    encoding: str = "utf-8"
    in_header: str | None = "utf-8"
    in_meta: str | None = "utf-8"
    transfer: tuple[str, ...] = ()
    body: bytes | None = None
    media: str = "text/html"
    days_late: int = 0


def plain(text: str) -> str:
    """A block's text without the marks around code."""
    return re.sub(r"``(.+?)``", r"\1", text)


def is_page(capture: Capture) -> bool:
    """Whether the capture is HTML with status 200, which is what counts as a page."""
    return capture.media == "text/html" and capture.status.startswith("200")


def number(uri: str) -> int:
    """A number below 2**48 that depends on an address only: what spreads pages over dates, hosts and the file."""
    return int.from_bytes(hashlib.sha1(uri.encode()).digest()[:6], "big")


def date(capture: Capture) -> datetime:
    """Somewhere in 2024 or 2025, at least forty days before its end (2024 has 366 days)."""
    seconds = number(capture.page.uri) % (690 * 86_400)
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=capture.days_late, seconds=seconds)
