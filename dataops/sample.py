"""A crawl made on the spot: the documentation of the running Python as a website, in a WARC, with planted cases.

Nothing is downloaded: the pages come from the installation (`demo.documentation`), the planted cases from literal
texts and from edits of those pages (`demo.planted`). The law: one installation of Python, one sequence of bytes,
whatever the hash seed, the folder or the day.

Not covered: other versions of Python, which make other samples.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gristmill.dataops.demo.captures import Capture, Page, date, is_page, number
from gristmill.dataops.demo.documentation import documentation
from gristmill.dataops.demo.planted import planted
from gristmill.dataops.demo.records import Record, digest, http_message, make_record, response


def write_sample(path: str | Path, *, pages: int | None = None) -> dict[str, Any]:
    """Write the sample crawl as a gzip WARC/1.1, a member per record, and return what is true of it.

    `pages` caps the documentation pages; planted cases, and the originals that some were edited from, are always there.
    Returns {"pages": responses with HTML and status 200, "records": {WARC type: count}, "cases": [{"uri", "record_id",
    "kind", "text" (the main text, of HTML pages), and facts of the kind}]}.
    """
    documents = documentation()
    captures, originals, rest = planted(documents)
    kept = originals + sorted(rest, key=lambda page: number(page.uri))
    captures += [Capture(page) for page in kept[: None if pages is None else max(pages, len(originals))]]
    captures.sort(key=lambda capture: (date(capture), capture.page.uri))
    responses = [response(capture, documents) for capture in captures]
    first_id = {str(record.uri): record.id for record in reversed(responses)}
    revisited = originals[0]
    info, *others = _beside(Capture(revisited), first_id[revisited.uri], documents)
    records = [info, *responses, *others]
    Path(path).write_bytes(b"".join(record.member for record in records))

    cases: list[dict[str, Any]] = []
    for capture, record in zip(captures, responses, strict=True):
        facts = dict(capture.facts)
        if is_page(capture):
            facts["text"] = capture.page.text
        if "original" in facts:
            facts["original_record_id"] = first_id[facts["original"]]
        if capture.kind:
            cases.append({"uri": record.uri, "record_id": record.id, "kind": capture.kind, **facts})
    for record in (info, *others):
        facts = {} if record is info else {"original": revisited.uri, "original_record_id": first_id[revisited.uri]}
        cases.append({"uri": record.uri, "record_id": record.id, "kind": record.type, **facts})
    return {
        "pages": sum(map(is_page, captures)),
        "records": dict(sorted(Counter(record.type for record in records).items())),
        "cases": sorted(cases, key=lambda case: (case["kind"], case["uri"] or "", case["record_id"])),
    }


def _beside(capture: Capture, record_id: str, documents: list[Page]) -> list[Record]:
    """The other types of records: what the file is, and what belongs to one of its responses."""
    head, body = http_message(capture, documents)
    uri, when, fields = capture.page.uri, date(capture), "application/warc-fields"
    host, path = re.fullmatch("https://([^/]+)(.*)", uri).groups()  # type: ignore[union-attr]
    asked = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gristmill-sample\r\n\r\n".encode()
    again = {
        "Refers_To": record_id,
        "Refers_To_Target_URI": uri,
        "Refers_To_Date": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Profile": "http://netpreserve.org/warc/1.1/revisit/identical-payload-digest",
        "Payload_Digest": digest(body),
    }
    info = b"software: gristmill sample\r\nformat: WARC File Format 1.1\r\n"
    later = when + timedelta(days=40)
    return [
        make_record("warcinfo", None, datetime(2024, 1, 1, tzinfo=UTC), fields, info, Filename="sample.warc.gz"),
        make_record("request", uri, when, "application/http; msgtype=request", asked, Concurrent_To=record_id),
        make_record("metadata", uri, when, fields, b"fetchTimeMs: 120\r\n", Refers_To=record_id),
        make_record("revisit", uri, later, "application/http; msgtype=response", head, **again),
    ]
