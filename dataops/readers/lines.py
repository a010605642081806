"""Lines of a file, plain or compressed, in bounded memory.

The law: a line costs no more memory than the limit, however long it is, and which lines there are does not depend on
the limit. A compressed file is one run of lines over all its members; damage ends it at the line that it cuts.
"""

from __future__ import annotations

from collections.abc import Iterator

from gristmill.dataops.readers.members import codec, skip_padding
from gristmill.dataops.readers.streams import WINDOW, Chunks, Damage, Raw


class Torn(Exception):
    """A compressed file that cannot be read on from an offset of the decompressed stream."""

    def __init__(self, offset: int, evidence: str) -> None:
        super().__init__(evidence)
        self.offset = offset


def decompressed(raw: Raw, format: str, start: int) -> Chunks:
    """The bytes of a file from `start` (0 in a compressed one), decompressed."""
    compression, at = format.partition(".")[2], start
    if not compression:
        while data := raw.read(at, WINDOW):
            at += len(data)
            yield data
        return at
    packing = codec(compression, raw)
    while (at := skip_padding(raw, at)) < raw.size:
        if raw.read(at, len(packing.magic)) != packing.magic:
            raise Damage("corrupt_member", f"no {compression} member but {raw.read(at, 16)!r} at byte {at}")
        at = yield from packing.chunks(raw, at)
    return at


def lines(chunks: Chunks, start: int, limit: int, blanks: bool = False) -> Iterator[tuple[int, bytes | None, int]]:
    """(offset, line, length) of lines, blank ones only if asked; of a line longer than `limit` bytes None for the line.

    Raises Torn where the chunks end in damage, at the line that it cuts.
    """
    held: list[bytes] = []
    offset, length, blank = start, 0, True
    try:
        for chunk in chunks:
            *whole, rest = chunk.split(b"\n")
            for piece in whole:
                length += len(piece) + 1
                if blanks or not blank or piece.strip():
                    if length - 1 > limit:
                        yield offset, None, length
                    else:
                        yield offset, b"".join((*held, piece)) if held else piece, length
                offset, length, blank = offset + length, 0, True
                held.clear()
            length += len(rest)
            blank = blank and not rest.strip()
            if length <= limit:
                held.append(rest)
            else:
                held.clear()
    except Damage as damage:
        raise Torn(offset, str(damage)) from None
    if not blank or (blanks and length):
        yield offset, b"".join(held) if length <= limit else None, length
