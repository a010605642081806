"""Input files: what paths, globs, folders, lists and URLs name, under which names, and in which format."""

from __future__ import annotations

import gzip
import json

import fsspec
import lz4.frame
import pytest
import zstandard
from archives import bodies, member, pages, read_all

from gristmill.dataops.dataset import InputError
from gristmill.dataops.readers.files import find_files

WARC = b"".join(pages(2))
LINE = json.dumps({"text": "a"}).encode() + b"\n"


@pytest.fixture
def crawl(tmp_path):
    """A folder of files: top.jsonl, a/1.warc.gz, a/2.warc, b/3.jsonl.gz, and hidden ones."""
    for name, data in {
        "top.jsonl": LINE,
        "a/1.warc.gz": member(WARC),
        "a/2.warc": WARC,
        "b/3.jsonl.gz": gzip.compress(LINE),
        "b/_SUCCESS": b"",
        "b/.hidden.jsonl": LINE,
        "_temporary/4.jsonl": LINE,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def names(*paths: object) -> list[str]:
    return [source.name for source in find_files([str(path) for path in paths])]


def test_names_are_relative_to_the_common_parent(crawl):
    everything = ["a/1.warc.gz", "a/2.warc", "b/3.jsonl.gz", "top.jsonl"]
    assert names(crawl) == everything
    assert names(crawl / "a/1.warc.gz") == ["1.warc.gz"]
    assert names(crawl / "b", crawl / "a") == everything[:3]
    assert names(crawl / "top.jsonl", crawl / "a") == ["a/1.warc.gz", "a/2.warc", "top.jsonl"]
    assert names(crawl / "a/*.gz", f"{crawl}/a/*.warc", crawl / "a") == ["1.warc.gz", "2.warc"]
    assert names(crawl / "*/*.gz") == ["a/1.warc.gz", "b/3.jsonl.gz"]
    assert names(f"{crawl}/**/*.warc*") == ["a/1.warc.gz", "a/2.warc"]


def test_what_a_source_file_says(crawl, monkeypatch):
    (source,) = find_files([str(crawl / "a/1.warc.gz")])
    assert (source.url, source.format) == (str(crawl / "a/1.warc.gz"), "warc.gz")
    assert source.bytes == (crawl / "a/1.warc.gz").stat().st_size
    monkeypatch.chdir(crawl / "a")
    assert find_files(["1.warc.gz"]) == find_files([f"file://{crawl}/a/1.warc.gz"]) == [source]


@pytest.mark.parametrize("name", ["@files", "files.txt", "files.list", "@files.gz", "files.txt.gz"])
def test_list_files(crawl, name, monkeypatch):
    lines = f"# a comment\n\na/*.warc\n{crawl}/top.jsonl\r\n  a/2.warc  \nfile://{crawl}/b\n".encode()
    path = crawl / name.removeprefix("@")
    path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    monkeypatch.chdir("/")
    listed = find_files([("@" if name[0] == "@" else "") + str(path)])
    assert [source.name for source in listed] == ["a/2.warc", "b/3.jsonl.gz", "top.jsonl"]


def test_urls_of_other_filesystems(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe({"/crawl/x/1.warc.gz": member(WARC), "/crawl/2.jsonl": LINE})
    for paths in (["memory://crawl"], ["memory://crawl/2.jsonl", "memory://crawl/x/*.gz"], ["memory://crawl/**/*.*"]):
        sources = find_files(paths)
        assert [(source.name, source.format) for source in sources] == [
            ("2.jsonl", "jsonl"),
            ("x/1.warc.gz", "warc.gz"),
        ]
    assert bodies(read_all(sources[0])[0]) == [b"a"] and read_all(sources[1])[0].height == 2
    (tmp_path / "3.jsonl").write_bytes(LINE)
    mixed = find_files(["memory://crawl/2.jsonl", str(tmp_path)])
    assert len({source.name for source in mixed}) == 2 and all(read_all(source)[0].height == 1 for source in mixed)
    memory.rm("/crawl", recursive=True)


FORMATS = [
    ("x.warc.gz", WARC, "warc"),  # lying extensions first
    ("x.warc", member(WARC), "warc.gz"),
    ("x.csv", gzip.compress(LINE, mtime=0), "jsonl.gz"),
    ("x.parquet", LINE, "jsonl"),
    ("x.json.gz", zstandard.compress(WARC), "warc.zst"),
    ("nothing", lz4.frame.compress(WARC), "warc.lz4"),
    ("x.warc.gz", b"some plain text", "warc"),
    ("x.warc.gz", b"\0damaged" + member(WARC), "warc.gz"),
    ("x.warc.gz", member(WARC)[:12], "warc.gz"),
    ("x.wet", b"\r\n" + WARC, "warc"),
    ("x.arc.gz", member(b"http://e/ 1.2.3.4 20080430204825 text/html 1\na\n"), "arc.gz"),
    ("filedesc", b"filedesc://x 0.0.0.0 20080430204825 text/plain 1\na\n", "arc"),
    ("x.jsonl", b"not json", "jsonl"),
    ("x.ndjson", b"\xef\xbb\xbf" + LINE, "jsonl"),
    ("x.csv.gz", gzip.compress(b"text\na\n", mtime=0), "csv.gz"),
    ("x.csv", b"{a},text\n1,a\n", "csv"),
    ("x.parquet", b"PAR1", "parquet"),
    ("x.wat.gz", b"", "warc"),
]


@pytest.mark.parametrize(("name", "data", "expected"), FORMATS)
def test_formats_by_first_bytes_then_by_extension(tmp_path, name, data, expected):
    (tmp_path / name).write_bytes(data)
    (source,) = find_files([str(tmp_path / name)])
    assert source.format == expected
    read_all(source)


BAD = [
    ([], "no input files"),
    (["{0}/missing.warc"], "no such file: .*missing.warc"),
    (["{0}/*.zip"], r"no files match .*\*.zip"),
    (["{0}/empty"], "no files match .*empty"),
    (["{0}/page.html"], "page.html is of no known format"),
    (["{0}/array.json"], "array.json is of no known format"),
    (["{0}/dangling.warc"], "no such file: .*dangling.warc"),
    (["{0}/missing.txt"], "no such file: .*missing.txt"),
    (["@{0}/missing.txt"], "cannot read the list file .*missing.txt"),
    (["{0}/gone.list"], r"no such file: nowhere.warc \(listed in .*gone.list\)"),
    (["{0}/nested.list"], "nested.list names another list, gone.list"),
    (["nonsense://x/y"], "cannot read nonsense://x/y: .*nonsense"),
]


@pytest.mark.parametrize(("paths", "message"), BAD)
def test_what_cannot_be_read_is_refused_with_a_reason(tmp_path, paths, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "page.html").write_bytes(b"<html>")
    (tmp_path / "array.json").write_bytes(b'[{"text": "a"}]')
    (tmp_path / "dangling.warc").symlink_to(tmp_path / "away")
    (tmp_path / "gone.list").write_text("nowhere.warc\n")
    (tmp_path / "nested.list").write_text("@gone.list\n")
    with pytest.raises(InputError, match=message):
        find_files([path.format(tmp_path) for path in paths])
