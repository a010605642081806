"""Captures as WARC/1.1 records: the HTTP message with its codings, the digests, and a gzip member per record.

The law: a record's bytes follow from its capture and the documentation that it links to. Ids are name-based UUIDs,
gzip members carry no time, and dates come from addresses.

Not covered: records longer than memory, and segmented ones. Payload digests of chunked records are over the bytes as
stored, chunk sizes included, as WARC tools compute them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import uuid
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

import brotli

from gristmill.dataops.demo.captures import Capture, Page, date, number
from gristmill.dataops.demo.layout import page_html


@dataclass(frozen=True)
class Record:
    """A WARC record: its type, id and address, and the gzip member that it is."""

    type: str
    id: str
    uri: str | None
    member: bytes


def http_message(capture: Capture, documents: list[Page]) -> tuple[bytes, bytes]:
    """HTTP head (status line to empty line) and body of a capture, as they came over the wire.

    `documents` are what `page_html` takes its links from.
    """
    body = capture.body
    if body is None:
        body = page_html(capture, documents).encode(capture.encoding)
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
    headers += [("Content-Type", capture.media + charset), ("Date", format_datetime(date(capture), usegmt=True))]
    if "chunked" not in capture.transfer:
        headers.append(("Content-Length", str(len(body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {capture.status}\r\n{head}\r\n".encode(), body


def digest(data: bytes) -> str:
    """SHA-1 in Base32 with its name in front, as in the examples of the WARC/1.1 specification."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode()


def make_record(kind: str, uri: str | None, when: datetime, media: str, block: bytes, **headers: str) -> Record:
    """One WARC/1.1 record of type `kind` around `block`, dated to the second in UTC.

    Further headers are named without "WARC-" and with underscores. The id is a UUID of version 5 (RFC 9562) over type,
    address and date, so these three have to differ between any two records of a file.
    """
    record_id = f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {uri} {when}')}>"
    fields = {
        "WARC-Type": kind,
        "WARC-Record-ID": record_id,
        "WARC-Date": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **({"WARC-Target-URI": uri} if uri else {}),
        **{f"WARC-{name.replace('_', '-')}": value for name, value in headers.items()},
        "WARC-Block-Digest": digest(block),
        "Content-Type": media,
        "Content-Length": str(len(block)),
    }
    head = "WARC/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    return Record(kind, record_id, uri, gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0))


def response(capture: Capture, documents: list[Page]) -> Record:
    """The response record of a capture, from an address that is its host's and reserved for examples (RFC 5737)."""
    head, body = http_message(capture, documents)
    uri = capture.page.uri
    address = f"192.0.2.{number(uri.split('/')[2]) % 200 + 1}"
    media = "application/http; msgtype=response"
    said = {"IP_Address": address, "Payload_Digest": digest(body)}
    return make_record("response", uri, date(capture), media, head + body, **said)
