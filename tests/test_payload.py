"""HTTP bodies freed of their encodings, media types, and text in any character encoding."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib

import brotli
import pytest
import zstandard
from archives import http
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.readers.messages import dechunk, decode_body, parse_message
from gristmill.dataops.readers.page import Drop
from gristmill.dataops.readers.payload import charset_of, decode, may_be_page, media_type, mime_of

LIMIT = 1 << 20
TEXT = b"<html><p>" + b"some words of a page " * 400


def body_of(content: bytes, truncated: bool = False, limit: int = LIMIT) -> bytes | Drop:
    message = parse_message(memoryview(content))
    body = decode_body(message, limit, truncated)
    return body if isinstance(body, Drop) else bytes(body)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("coding", ENCODERS)
def test_content_encodings_come_off(coding):
    encoded = ENCODERS[coding](TEXT)
    assert body_of(http(encoded, Content_Encoding=coding)) == TEXT
    stacked = http(brotli.compress(encoded), Content_Encoding=f"{coding}, br")
    assert body_of(stacked) == TEXT
    assert body_of(http(encoded, Transfer_Encoding=f"{coding}, chunked")) == TEXT  # stored dechunked


@pytest.mark.parametrize("coding", ENCODERS)
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_cut_body_is_bad_unless_its_record_says_so(coding, cut):
    noise = os.urandom(300_000)
    encoded = ENCODERS[coding](noise)
    cut_body = http(encoded[: int(len(encoded) * cut)], Content_Encoding=coding)
    assert body_of(cut_body).reason == "bad_encoding"
    if coding == "zstd" and cut == 0.3:
        return  # not one block is whole
    kept = body_of(cut_body, truncated=True)
    assert 0 < len(kept) < len(noise) and noise.startswith(kept)


def test_a_gzip_body_without_its_trailer_is_whole():
    encoded = gzip.compress(TEXT)
    assert body_of(http(encoded[:-8], Content_Encoding="gzip")) == TEXT
    assert body_of(http(encoded[:-8] + b"wrongsum", Content_Encoding="gzip")) == TEXT
    assert body_of(http(encoded + b"\r\n\r\n", Content_Encoding="gzip")) == TEXT


@pytest.mark.parametrize("coding", [*ENCODERS, "utf-8", "made-up"])
def test_an_encoding_that_was_not_applied_is_ignored(coding):
    assert body_of(http(TEXT, Content_Encoding=coding)) == TEXT
    assert body_of(http(b"", Content_Encoding=coding)) == b""
    junk = body_of(http(b"\x89\x00\x01" * 999, Content_Encoding=coding))
    assert junk.reason == "bad_encoding" and coding.lower() in junk.evidence


@pytest.mark.parametrize("coding", ENCODERS)
def test_bombs_stop_at_the_limit(coding):
    bomb = http(ENCODERS[coding](bytes(80 << 20)), Content_Encoding=coding)
    tracemalloc.start()
    drop = body_of(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drop.reason == "payload_too_large" and drop.threshold == LIMIT < drop.value < 2 * LIMIT
    assert peak < 4 << 20


def test_a_limit_is_inclusive():
    assert body_of(http(b"x" * 10), limit=10) == b"x" * 10
    assert body_of(http(b"x" * 11), limit=10) == Drop("payload_too_large", 11, 10)


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"


CHUNKED = [
    (chunked(b"<p>", b"x" * 300), b"<p>" + b"x" * 300),
    (chunked(), b""),
    (b"3\nabc\n0\n\n", b"abc"),
    (b"3\r\nabc\r\n", b"abc"),  # the last chunk is missing
    (b"ff\r\nabc", b"abc"),  # cut inside a chunk
    (b"3\r\nabc\r\nzz\r\nrest", b"abczz\r\nrest"),  # damage between chunks
    (b"<p>never chunked", b"<p>never chunked"),
    (b"add\r\nwords that only look chunked" + b" " * 0xADD, b"add\r\nwords that only look chunked" + b" " * 0xADD),
    (b"0\r\n1\r\n2\r\n", b"0\r\n1\r\n2\r\n"),
]


@pytest.mark.parametrize(("sent", "meant"), CHUNKED)
def test_chunks(sent, meant):
    assert bytes(dechunk(memoryview(sent))) == meant
    assert body_of(http(sent, Transfer_Encoding="chunked")) == meant


@given(st.lists(st.binary(min_size=1, max_size=50)), st.integers(0, 400), st.binary(max_size=9))
def test_dechunking_never_loses_a_tail(parts, cut, new):
    sent = chunked(*parts)
    damaged = sent[:cut] + new + sent[cut + len(new) :]
    assert dechunk(sent) == b"".join(parts) and isinstance(dechunk(damaged), bytes)


@pytest.mark.parametrize("length", ["0", "7", "99999", "-1", "many"])
def test_content_length_is_not_believed(length):
    assert body_of(http(b"<p>all of it", Content_Length=length)) == b"<p>all of it"


def test_heads():
    assert parse_message(memoryview(b"<html>")) is None
    bare = parse_message(memoryview(b"HTTP/1.0 200 OK\nA: 1\nA: 2\n folded\n\nbody\r\n\r\n"))
    assert (bare.status, bare.fields, bytes(bare.body)) == (200, {"a": "1, 2 folded"}, b"body\r\n\r\n")
    endless = parse_message(memoryview(b"HTTP/2 204\r\nA: 1"))
    assert (endless.status, endless.fields, bytes(endless.body)) == (204, {"a": "1"}, b"")
    long = parse_message(memoryview(b"HTTP/1.1 200\r\nA: " + b"x" * 9000 + b"\r\n\r\nbody"))
    assert len(long.fields["a"]) == 9000 and bytes(long.body) == b"body"


def test_media_types():
    assert mime_of(" Text/HTML ;charset=x") == "text/html" and mime_of(None) == ""
    assert media_type("application/html", b"") == ("text/html", True)
    assert media_type("", b"<!-- a -->\n<!doctype html>") == ("text/html", True)
    assert media_type("", b"words") == ("text/plain", True) and media_type("", b"\0") == ("unknown", False)
    assert media_type("application/octet-stream", b"words") == ("application/octet-stream", False)
    assert media_type("text/plain", b"\x89PNG\r\n\x1a\n")[1] is False and not may_be_page("image/png")
    assert charset_of('text/html; Charset = "KOI8-R"') == "koi8-r" and charset_of("text/html") is None


SAMPLES = {
    "windows-1251": "Широкая электрификация южных губерний даст мощный толчок подъёму сельского хозяйства.",
    "koi8-r": "Широкая электрификация южных губерний даст мощный толчок подъёму сельского хозяйства.",
    "gb2312": "视野无限广，窗外有蓝天。中文网页的编码声明常常是错误的，但是文字不能丢失。",
    "gbk": "視野無限廣，窗外有藍天。鎔基，喆，堃。",
    "big5": "視野無限廣，窗外有藍天。網頁的編碼聲明常常是錯誤的，但是文字不能遺失。",
    "shift_jis": "いろはにほへと ちりぬるを わかよたれそ つねならむ ①②③ 髙﨑",
    "euc-jp": "いろはにほへと ちりぬるを わかよたれそ つねならむ うゐのおくやま",
    "euc-kr": "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. 똠방각하",
    "iso-8859-1": "Voix ambiguë d’un cœur qui au zéphyr préfère les jattes de kiwis €",
    "iso-8859-2": "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "iso-8859-9": "Pijamalı hasta yağız şoföre çabucak güvendi",
    "iso-2022-jp": "いろはにほへと ちりぬるを",
}
WIRE = {"gb2312": "gbk", "shift_jis": "cp932", "euc-kr": "cp949", "iso-8859-1": "cp1252", "iso-8859-9": "cp1254"}


@pytest.mark.parametrize("label", SAMPLES)
def test_declared_encodings_and_their_supersets(label):
    text = SAMPLES[label]
    data = text.encode(WIRE.get(label, label))
    assert decode(data, label)[0] == text
    page = f'<html><head><meta http-equiv="Content-Type" content="text/html; charset={label}"><p>'.encode() + data
    assert decode(page)[0].endswith(text)
    assert decode(page, "utf-8")[0].endswith(text) and decode(page, "nonsense")[0].endswith(text)


@pytest.mark.parametrize("label", ["windows-1251", "koi8-r", "gb2312", "big5", "shift_jis", "euc-jp"])
def test_the_default_that_servers_declare_does_not_destroy_words(label):
    text = SAMPLES[label] * 4
    data = text.encode(WIRE.get(label, label))
    assert decode(data)[0] == text  # detected
    assert decode(data, "iso-8859-1")[0] == text


@pytest.mark.parametrize("text", [SAMPLES["gbk"], SAMPLES["koi8-r"] + "…", "naïve café – x", "😀", "plain"])
@pytest.mark.parametrize("declared", [None, "iso-8859-1", "gbk", "windows-1251", "shift_jis", "utf-16", "us-ascii", ""])
def test_valid_utf8_wins_over_what_is_declared(text, declared):
    assert decode(f"<meta charset=big5><p>{text}".encode(), declared) == (f"<meta charset=big5><p>{text}", "utf-8")


def test_two_byte_characters_that_are_utf8_by_chance_are_what_was_declared():
    data = "路模".encode("gbk")
    assert decode(data, "gb2312") == ("路模", "gb18030")
    assert decode(data) == ("\xb7ģ", "utf-8")


@pytest.mark.parametrize("declared", [None, "utf-8", "iso-8859-1", "gbk"])
def test_utf8_with_scratches_stays_utf8(declared):
    data = SAMPLES["koi8-r"].encode()
    text, codec = decode(data[:41] + b"\xe9" + data[41:-2], declared)  # a pasted byte, and a character cut at the end
    assert codec == "utf-8" and text.count("\ufffd") in (2, 3)
    assert text[:20] == SAMPLES["koi8-r"][:20] and text[-40:-1] == SAMPLES["koi8-r"][-41:-2]


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_marks_and_utf16(codec):
    text = "<html><body><p>Grüße, 世界"
    assert decode(text.encode(codec), "iso-8859-1")[0] == text
    assert decode("\ufeff世界".encode("utf-16-be"))[0] == "世界"


def test_one_bad_byte_does_not_change_the_encoding():
    data = SAMPLES["shift_jis"].encode("cp932")
    text, codec = decode(data[:20] + b"\xff" + data[20:], "shift_jis")
    assert codec == "cp932" and text[-5:] == SAMPLES["shift_jis"][-5:] and text.count("\ufffd") <= 2


@given(st.binary(max_size=300), st.sampled_from([None, *SAMPLES, "utf-8", "utf-16", "x-user-defined", "\x00"]))
def test_any_bytes_become_text_that_can_be_stored(data, declared):
    text, codec = decode(data, declared)
    assert "\0" not in text
    text.encode()  # raises on lone surrogates
    "".encode(codec)  # raises on unknown codecs


def test_an_xml_declaration_counts_and_plain_text_declares_nothing():
    data = b'<?xml version="1.0" encoding="iso-8859-5"?>' + SAMPLES["koi8-r"].encode("iso-8859-5")
    assert decode(data)[0].endswith(SAMPLES["koi8-r"])
    note = b"<meta charset=koi8-r> " + SAMPLES["windows-1251"].encode("cp1251") * 3
    assert decode(note, "windows-1251", "text/plain")[1] == "cp1251"
