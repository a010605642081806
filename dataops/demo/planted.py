"""The planted half of the sample crawl: pages whose fate is known beforehand, so that a report can be held to it.

Opt-outs, leaks, personal data and broken transports are put on real prose ("carriers", each used once). The law:
nothing but the planted reason can cost a carrier its place.

Not covered: what a particular recipe does with a case. The facts state what is in the page, not who must drop it.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gristmill.dataops.demo.captures import MIRROR, SPAM, Block, Capture, Page, plain
from gristmill.dataops.demo.cases import ALERT, CARRIED
from gristmill.dataops.demo.copies import ORIGINALS, chain, exact_duplicates, near_duplicates, word_ngrams
from gristmill.dataops.demo.texts import CHARSETS, PDF, PNG, STORIES, SWAPS


def planted(pages: Sequence[Page]) -> tuple[list[Capture], list[Page], list[Page]]:
    """(planted captures, the originals that some were edited from, the pages left over).

    Originals must be written too; carriers are taken out of `pages`. Raises ValueError where `pages` has too little
    prose to carry the cases.
    """
    prose = sorted(_prose(pages), key=lambda page: (-len(page.text), page.uri))
    if len(prose) < ORIGINALS + len(CARRIED):
        need = ORIGINALS + len(CARRIED)
        raise ValueError(f"{len(prose)} of {len(pages)} pages are prose, {need} needed; are Python's sources there?")
    originals, carriers = prose[:ORIGINALS], prose[ORIGINALS : ORIGINALS + len(CARRIED)]
    captures = [
        *near_duplicates(originals[:-5]),
        *chain(originals[-5]),
        *exact_duplicates(originals[-4:]),
        *_poor(pages),
        *_languages(),
        *(_carry(page, *case) for page, case in zip(carriers, CARRIED, strict=True)),
        *_other_responses(),
    ]
    used = {page.uri for page in originals + carriers}
    return captures, originals, [page for page in pages if page.uri not in used]


def _prose(pages: Sequence[Page]) -> list[Page]:
    """Pages that read well and share less than 30 % of their 5-grams with all others together."""
    seen = Counter(gram for page in pages for gram in word_ngrams(page.text))
    readable = (_readable(page) for page in pages)
    return [page for page in readable if _is_prose(page) and _own_share(word_ngrams(page.text), seen) > 0.7]


def _readable(page: Page) -> Page:
    """A page's running sentences: technical prose is so full of marks that a rule on letters would take it for code."""
    blocks = []
    for tag, text in page.blocks:
        if tag in ("p", "dd"):
            sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)
            text = " ".join(sentence for sentence in sentences if _share_of_letters(sentence) > 0.85)
            blocks.append((tag, text))
        elif tag not in ("pre", "dt"):
            blocks.append((tag, text))
    return replace(page, blocks=tuple(block for block in blocks if block[1]))


def _share_of_letters(text: str) -> float:
    """Tokens with a letter among all, marks counted as tokens, as Gopher's rule counts them."""
    tokens = re.findall(r"\w+(?:['-]\w+)*|[^\w\s]", plain(text))
    return sum(any(map(str.isalpha, token)) for token in tokens) / len(tokens) if tokens else 0.0


def _is_prose(page: Page) -> bool:
    """Well clear of the limits of Gopher, C4 and FineWeb, so that the planted trouble is a page's only one.

    No list either: extractors disagree on which lists are navigation, and the facts are about the text with them.
    """
    text = page.text
    words, lines = text.split(), text.split("\n")
    return (
        all(tag != "li" for tag, _ in page.blocks)
        and 90 <= len(words) <= 1500
        and len(words) >= 8 * len(lines)
        and sum(line.endswith((".", "!", "?")) for line in lines) > 0.4 * len(lines)
        and len(re.findall(r"[.!?](?=\s|$)", text)) >= 8
        and len(set(lines)) == len(lines)
        and len(word_ngrams(text)) > 0.95 * len(words)
        and sum(len(line) <= 30 for line in lines) < 0.5 * len(lines)
        and _share_of_letters(text) > 0.84
        and not re.search(r"[{}@#]|\.\.\.|…|javascript|lorem|cookie|terms of use", text, re.IGNORECASE)
    )


def _own_share(grams: set[tuple[str, ...]], seen: Counter[tuple[str, ...]]) -> float:
    return sum(seen[gram] == 1 for gram in grams) / len(grams)


def _carry(page: Page, kind: str, said: Sequence[str], how: Mapping[str, Any], facts: Mapping[str, Any]) -> Capture:
    """Real prose at an address of its own, with paragraphs of ours in the middle and a way of serving it."""
    middle = len(page.blocks) // 2
    ours = (("raw" if text == ALERT else "pre" if "\n" in text else "p", text) for text in said)
    blocks = (*page.blocks[:middle], *ours, *page.blocks[middle:])
    title = how.get("title", page.title)
    carried = replace(page, uri=re.sub("//[^/]+", "//blog.example", page.uri), title=title, blocks=blocks)
    return Capture(carried, kind, facts, **{key: how[key] for key in how if key != "title"})


def _poor(pages: Sequence[Page]) -> list[Capture]:
    """Pages that say little or nothing: spam, navigation, stubs, and lists of words or of other pages."""
    titles = [plain(page.title) for page in pages if len(page.title) > 3]
    teasers = [" ".join(page.text.split()[:9]) + " ..." for page in pages if len(page.text) > 400]
    captures: list[Capture] = []

    def add(kind: str, title: str, blocks: Sequence[Block], host: str = MIRROR, **facts: Any) -> None:
        path = re.sub(r"\W+", "-", f"{kind} {len(captures)}")
        captures.append(Capture(Page(f"{host}/{path}.html", title, tuple(blocks)), kind, facts))

    for goods in ("watches", "mattresses"):
        words = f"cheap {goods} buy {goods} online best {goods} discount {goods} {goods} sale".split() * 40
        stuffed = [("p", " ".join(words) + ".")]
        add("spam", f"Cheap {goods}", stuffed, SPAM, way="keyword_stuffing", keyword=goods, times=words.count(goods))
        phrase = f"the very best {goods} in the whole town"
        repeated = [("p", " ".join(f"{word} {phrase}" for word in SWAPS.split()) + ".")]
        add("spam", f"Best {goods}", repeated, SPAM, way="repeated_ngrams", phrase=phrase, times=30)
    for title in ("Sign in", "Archive", "Search"):
        add("navigation_only", title, [])
    for said in ("Coming soon.", "Thank you! Your message was sent.", "No entries yet.", "This page has moved."):
        add("very_short", "Notice", [("p", said)])
    for product in ("dashboard", "map"):
        line = f"JavaScript is disabled. Please enable JavaScript in your browser to use the {product}."
        empty = [("raw", '<div id="app"></div><script src="/app.js"></script>'), ("p", line)]
        add("javascript_required", product.title(), empty, line=line)
    for start in (0, 1):
        tags = ["#" + re.sub(r":.*|\W", "", title) for title in titles[start:400:2]]
        lines = [("p", " ".join(tags[i : i + 10])) for i in range(0, len(tags), 10)]
        add("hashes", "Trending", lines, SPAM, hashes=len(tags))
        add("ellipses", "Latest posts", [("p", teaser) for teaser in teasers[start:80:2]], lines=40)
        add("link_list", "All pages", [("link", title) for title in titles[start:400:2]], links=200)
    return captures


def _languages() -> list[Capture]:
    """One UTF-8 page per language, and the same texts again in other encodings, well and badly declared."""
    captures = []
    for lang, (title, *paragraphs) in STORIES.items():
        page = Page(f"https://news.example/{lang}/", title, tuple(("p", text) for text in paragraphs), lang=lang)
        captures.append(Capture(page, "language", {"lang": lang}))
    pages = {capture.page.lang: capture.page for capture in captures}
    for i, (lang, encoding, in_header, in_meta, way) in enumerate(CHARSETS):
        page = replace(pages[lang], uri=f"{pages[lang].uri}{i:02d}.html")
        facts = {"lang": lang, "way": way, "encoding": encoding, "in_header": in_header, "in_meta": in_meta}
        capture = Capture(page, "charset", facts | {"same_text_as": pages[lang].uri})
        captures.append(replace(capture, encoding=encoding, in_header=in_header, in_meta=in_meta))
    return captures


def _other_responses() -> list[Capture]:
    """What a crawl holds besides pages: an error, a redirect, a PDF and an image."""
    gone = Page(f"{MIRROR}/gone.html", "Not found", (("p", "There is no page at this address."),))
    moved = Page(f"{MIRROR}/old.html", "Moved", (("p", "This page lives elsewhere now."),))
    book, dot = Page(f"{MIRROR}/handbook.pdf", "", ()), Page(f"{MIRROR}/dot.png", "", ())
    there = f"{MIRROR}/copies/same.html"
    redirect = {"status": 301, "location": there}
    return [
        Capture(gone, "not_found", {"status": 404}, "404 Not Found"),
        Capture(moved, "redirect", redirect, "301 Moved Permanently", (("Location", there),)),
        Capture(book, "pdf", body=PDF.encode(), media="application/pdf"),
        Capture(dot, "image", body=base64.b64decode(PNG), media="image/png"),
    ]
