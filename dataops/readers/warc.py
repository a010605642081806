"""Pages of WARC, WET and ARC files: which records are pages, and why the others are not.

The law: each record of `records.records` becomes a kept row or one ledger row, and which of them depends on the record
alone, or, for a revisit, on the record that it repeats, which the index names. So any cut into spans gives the same.

Kept are responses with HTTP status 200, resources and conversions, if they are HTML, XHTML or plain text (sniffed where
nothing is declared). A revisit becomes a page with the payload of the record that it repeats, its own URI, date and id,
and the opt-out signals of its own HTTP head, if it has one with status 200. Ledger reasons: "not_a_page",
"http_status", "media_type", "bad_http", "bad_encoding", "payload_too_large", "revisit_unresolved", and those of
records.py.

Not covered: revisits of records in other files, and records cut into segments ("truncated_record").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gristmill.dataops.op import Split
from gristmill.dataops.readers.headers import MAX_HEADER, Header, parse_date
from gristmill.dataops.readers.messages import Message, decode_body, parse_message
from gristmill.dataops.readers.page import SEEK_BYTES, Batch, Drop, FileIndex, Limits, Page, SourceFile
from gristmill.dataops.readers.payload import charset_of, may_be_page, media_type, mime_of
from gristmill.dataops.readers.records import Record, records
from gristmill.dataops.readers.streams import open_raw

_PAGE_TYPES = {"response", "resource", "conversion"}
_SLACK = 1 << 20  # bytes that HTTP heads and chunk sizes may add to the largest payload


def index(source: SourceFile, seek_bytes: int = SEEK_BYTES) -> FileIndex:
    """Count the records, and find the seeks, the originals of revisits, and what cannot be read."""
    count, weight, seeks = 0, 0, [(0, 0)]
    originals = _Originals()
    problems: list[tuple[int, str]] = []
    with open_raw(source.url) as raw:
        for record in records(raw, source.format, 0, None, lambda _header: 0):
            if weight >= seek_bytes and count and record.part == 0:
                seeks.append((record.offset, count))
                weight = 0
            count += 1
            if record.problem is not None:
                problems.append((record.offset, record.problem))
            elif record.header is not None:
                weight += record.header.bytes + record.header.size
                if record.part == 0:
                    originals.see(record.header, record.offset)
    return FileIndex(count, seeks, originals.resolve(), problems)


def read(
    source: SourceFile, start: int, stop: int | None, *, limits: Limits, revisits: Mapping[int, int]
) -> Iterator[Split]:
    """The records that start in [start, stop), in batches of about `limits.max_batch_bytes` of payload."""
    batch = Batch(source, limits)

    def want(header: Header) -> int:
        """A page's content; only the head of one that is too large, and nothing of what is no page."""
        if header.type not in _PAGE_TYPES and header.type != "revisit":
            return 0
        return header.size if header.size <= limits.max_payload_bytes + _SLACK else MAX_HEADER

    with open_raw(source.url) as raw:
        for record in records(raw, source.format, start, stop, want):
            original = None
            if record.offset in revisits and record.part == 0:
                at = revisits[record.offset]
                original = next(records(raw, source.format, at, at + 1, want), None)
            page = decide(record, limits, original)
            header = record.header
            uri, record_id = (header.uri, header.record_id) if header is not None else (None, None)
            key = f"{source.name}:{record.offset}" + (f"+{record.part}" if record.part else "")
            if isinstance(page, Drop):
                batch.drop(page, record.offset, uri, record_id, key)
            else:
                if not batch.room_for(len(page.payload)):
                    yield batch.split()
                date = parse_date(header.date) if header is not None else None
                batch.keep(page, uri, record.offset, record.length, record_id, date, key)
            yield from batch.splits()
        yield from batch.splits(last=True)


def decide(record: Record, limits: Limits, original: Record | None = None) -> Page | Drop:
    """A record as a page, or why it is none. `original` is the record that a revisit repeats."""
    header = record.header
    if record.problem is not None or header is None:
        return Drop(record.problem or "bad_record", record.value, record.threshold, record.evidence)
    if header.type == "revisit":
        return _decide_revisit(record, header, limits, original)
    if header.type not in _PAGE_TYPES:
        return Drop("not_a_page", evidence=header.type)
    if header.type == "resource" and (header.uri or "").startswith(("metadata:", "urn:")):
        return Drop("not_a_page", evidence=f"resource {header.uri}")  # the crawler's own logs and manifests
    if "warc-segment-number" in header.fields:
        return Drop("truncated_record", evidence="the first segment of a record in several")
    message = parse_message(record.content) if header.type == "response" else None
    if message is not None:
        return _decide_http(message, header, limits)
    if header.type == "response" and header.mime.lower().startswith("application/http"):
        return Drop("bad_http", evidence=f"no status line but {bytes(record.content[:40])!r}")
    return _decide_plain(record.content, header, limits)


def _decide_http(message: Message, header: Header, limits: Limits) -> Page | Drop:
    if message.status != 200:
        return Drop("http_status", message.status)
    content_type = message.fields.get("content-type")
    declared = mime_of(content_type)
    if not may_be_page(declared):
        return Drop("media_type", evidence=declared)
    if _is_too_large(header, limits):
        return Drop("payload_too_large", header.size, limits.max_payload_bytes)
    body = decode_body(message, limits.max_payload_bytes, "warc-truncated" in header.fields)
    if isinstance(body, Drop):
        return body
    mime, is_page = media_type(declared, bytes(body[:2048]))
    if not is_page:
        return Drop("media_type", evidence=mime)
    return Page(body, message.status, mime, charset_of(content_type), *_signals(message))


def _decide_plain(content: memoryview, header: Header, limits: Limits) -> Page | Drop:
    """A record without an HTTP head: its own Content-Type says what it is."""
    mime, is_page = media_type(mime_of(header.mime), bytes(content[:2048]))
    status = header.fields.get("arc-status", "")
    if status.isdigit() and int(status) != 200:
        return Drop("http_status", int(status))
    if not is_page:
        return Drop("media_type", evidence=mime)
    if len(content) > limits.max_payload_bytes or _is_too_large(header, limits):
        return Drop("payload_too_large", header.size, limits.max_payload_bytes)
    return Page(content, int(status) if status.isdigit() else None, mime, charset_of(header.mime))


def _decide_revisit(record: Record, header: Header, limits: Limits, original: Record | None) -> Page | Drop:
    if original is None:
        target = header.fields.get("warc-refers-to") or header.fields.get("warc-refers-to-target-uri")
        return Drop("revisit_unresolved", evidence=target)
    page = decide(original, limits)
    own = parse_message(record.content)
    if isinstance(page, Page) and own is not None and own.status == 200:
        return Page(page.payload, page.status, page.mime, page.charset, *_signals(own))
    return page


def _is_too_large(header: Header, limits: Limits) -> bool:
    """Whether only the head of the record was loaded."""
    return header.size > limits.max_payload_bytes + _SLACK


def _signals(message: Message) -> tuple[str | None, ...]:
    return tuple(message.fields.get(name) for name in _SIGNALS)


#: Opt-out signals: robots exclusion by header, the TDM Reservation Protocol (W3C CG 2024), IETF AI Preferences.
_SIGNALS = ("x-robots-tag", "tdm-reservation", "tdm-policy", "content-usage")


@dataclass(frozen=True)
class _Originals:
    """Where the records are that revisits repeat, by their ids and by (digest, URI); and the revisits themselves."""

    by_id: dict[str, int] = field(default_factory=dict)
    by_digest: dict[tuple[str, str], int] = field(default_factory=dict)
    revisits: list[tuple[int, Header]] = field(default_factory=list)

    def see(self, header: Header, offset: int) -> None:
        if header.type == "revisit":
            self.revisits.append((offset, header))
        elif header.type in _PAGE_TYPES:
            if header.record_id is not None:
                self.by_id.setdefault(header.record_id, offset)
            digest = header.fields.get("warc-payload-digest")
            if digest is not None and header.uri is not None:
                self.by_digest.setdefault((digest, header.uri), offset)

    def resolve(self) -> dict[int, int]:
        """Offsets of revisits and of their originals: by WARC-Refers-To, else by digest and URI."""
        found = {}
        for offset, header in self.revisits:
            digest = header.fields.get("warc-payload-digest", "")
            target = header.fields.get("warc-refers-to-target-uri", "").strip("<>")
            places = (
                self.by_id.get(header.fields.get("warc-refers-to", "").strip().strip("<>")),
                self.by_digest.get((digest, target)),
                self.by_digest.get((digest, header.uri or "")),
            )
            original = next((place for place in places if place is not None), None)
            if original is not None:
                found[offset] = original
        return found
