"""The laws of the design, each as a test over the real ops and the real recipe."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
from chain import build
from exchanges import Exchange
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dataops import extract, language, quality, signals
from gristmill.dataops.catalogue import Index
from gristmill.dataops.consent import optout
from gristmill.dataops.fsck import fsck
from gristmill.dataops.identity import row_id
from gristmill.dataops.lineage import trace, why
from gristmill.dataops.op import REGISTRY
from gristmill.dataops.passes import check_accounting
from gristmill.dataops.pii import redact
from gristmill.dataops.readers.page import PAGE
from gristmill.dataops.store import Store
from gristmill.dataops.web import languages, line_rules, rules
from gristmill.dataops.web import signals as web_signals
from gristmill.verifiers.verifier import REGISTRY as VERIFIERS

HERE = Path(__file__).parent
for _path in sorted((HERE.parent / "dataops").rglob("*.py")):  # every op registers when its module is imported
    if "@op(" in (_source := _path.read_text()) or "@keep(" in _source:
        importlib.import_module(".".join(("gristmill", *_path.relative_to(HERE.parent).with_suffix("").parts)))
importlib.import_module("gristmill.verifiers.over")
for _name in ("critique", "distill", "redteam", "redteam_ops"):
    importlib.import_module(f"gristmill.flows.sets.{_name}")
OURS = {name: factory for name, factory in REGISTRY.items() if not name.startswith("toy.")}

WORDS = st.sampled_from(
    ["the", "mill", "and", "of", "grinds", "#", "...", "{", "lorem ipsum", "JavaScript", "水", "\u0301", "-"]
)
TEXTS = st.lists(st.lists(WORDS | st.text(max_size=6), max_size=12).map(" ".join), max_size=12).map("\n".join)


@st.composite
def pages(draw) -> pl.DataFrame:
    rows = []
    for text in draw(st.lists(TEXTS, max_size=5)):
        html = draw(st.booleans())
        body = (f"<html><body><p>{text}</p></body></html>" if html else text).encode("utf-8", "surrogatepass")
        mime = "text/html" if html else "text/plain"
        rows.append({**dict.fromkeys(PAGE), "id": row_id(str(len(rows)), body), "payload": body, "mime": mime})
    return pl.DataFrame(rows, schema=PAGE)


# ---- 1. accounting


@given(rows=pages())
@settings(deadline=None, max_examples=60)
def test_every_page_is_kept_or_dropped_with_a_reason(rows):
    chain = [
        extract.extract(), language.language(), redact.redact(), signals.signals(), line_rules.line_rules(),
        web_signals.signals(), optout.opt_out(), quality.language_is(), quality.gopher_repetition(), quality.gopher(),
        quality.c4(), quality.fineweb(), rules.refinedweb(), rules.dclm(), rules.content(), languages.by_language(),
    ]  # fmt: skip
    for op in chain:
        split = op(rows.lazy())
        kept = set(split.kept["id"])
        gone = split.drops.filter(pl.col("unit") == "row")
        dropped = set(gone["id"])
        assert kept | dropped == set(rows["id"]) and kept.isdisjoint(dropped)
        assert split.drops["reason"].null_count() == 0
        check_accounting(op, rows, split)
        # What the rules would drop goes on, so that every op sees every page.
        rows = rows if op.kind == "rule" else split.kept


@given(rows=pages())
@settings(deadline=None, max_examples=60)
def test_characters_lost_inside_a_page_are_in_the_ledger(rows):
    before = extract.extract()(rows).kept
    split = signals.signals()(before)
    lost = split.drops.filter(pl.col("unit") == "chars").group_by("id").agg(pl.col("lost").sum())
    sizes = before.select("id", before=pl.col("text").str.len_chars())
    after = split.kept.select("id", after=pl.col("text").str.len_chars())
    joined = sizes.join(after, on="id").join(lost, on="id", how="left").with_columns(pl.col("lost").fill_null(0))
    assert (joined["before"].cast(pl.Int64) - joined["lost"] == joined["after"]).all()


def test_the_whole_chain_accounts_for_every_record(built, sample):
    _, datasets = built
    records = sum(sample[1]["records"].values())
    assert datasets["crawl"].scan().collect()["records"].sum() == records
    counts = datasets["pages"].manifest["counts"]
    assert counts["crawl.read"]["in"] == records
    rows, told = datasets["pages"].rows, 0
    for name in ("clean", "exact", "unique"):
        for tally in datasets[name].manifest["counts"].values():
            assert tally["in"] == rows and tally["dropped"] == sum(tally["reasons"].values())
            rows = tally["kept"]
            told += tally["dropped"]
    assert rows == datasets["unique"].rows == datasets["packed"].manifest["stats"]["documents"]
    assert told == datasets["pages"].rows - rows
    ids = set(datasets["pages"].scan().collect()["id"])
    gone = {id for name in ("clean", "exact", "unique") for id in datasets[name].ledger().collect()["id"]}
    assert ids == gone | set(datasets["unique"].scan().collect()["id"])


# ---- 2. identity


def test_shards_workers_and_roots_do_not_show(built, sample, tmp_path):
    _, here = built
    moved = tmp_path / "elsewhere" / sample[0].name
    moved.parent.mkdir()
    moved.write_bytes(sample[0].read_bytes())
    there = build(tmp_path / "root", moved, workers=2)
    assert {name: item.digest for name, item in there.items()} == {name: item.digest for name, item in here.items()}
    assert {name: item.key for name, item in there.items()} == {name: item.key for name, item in here.items()}
    finer = build(tmp_path / "finer", sample[0], workers=2, seek_bytes=100_000)
    assert {name: item.digest for name, item in finer.items()} | {"crawl": ""} == {
        name: item.digest for name, item in here.items()
    } | {"crawl": ""}  # the index of a crawl says where reading may start; nothing after it does
    assert len(finer["pages"].manifest["shards"]) >= 7 > len(here["pages"].manifest["shards"])


def test_an_op_whose_code_changes_raises_its_version():
    """`op_versions.json` says what the code of each op looks like at its version. Where this fails: raise the version
    of the op and run `python tests/test_laws.py`; for a change that cannot change results, add --same-results."""
    assert code_table() == json.loads((HERE / "op_versions.json").read_text())


def code_table() -> dict[str, dict[str, object]]:
    table = {}
    for name, factory in sorted(OURS.items()):
        source = sorted({_normal(piece) for piece in _reached(factory.body)})
        version = inspect.getclosurevars(factory).nonlocals["version"]
        table[name] = {"version": version, "code": sha256("\n".join(source).encode()).hexdigest()[:16]}
    return table


def _reached(function) -> list[str]:
    """Sources of a function and of every function, class and constant of ours that it names, directly or not."""
    seen, todo = {}, [function]
    while todo:
        item = todo.pop()
        item = getattr(item, "body", item)
        if not getattr(item, "__module__", "").startswith("gristmill.") or item in seen:
            continue
        try:
            seen[item] = textwrap.dedent(inspect.getsource(item))
        except (TypeError, OSError):
            continue
        module = sys.modules[item.__module__]
        for node in ast.walk(ast.parse(seen[item])):
            name = node.id if isinstance(node, ast.Name) else None
            value = getattr(module, name, None) if name else None
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                value = getattr(getattr(module, node.value.id, None), node.attr, None)
            constant = isinstance(value, int | float | str | bytes | tuple | list | dict | frozenset | re.Pattern)
            if constant and value is not REGISTRY and value is not VERIFIERS:  # these two fill up as modules load
                seen[name or node.attr] = f"{name or node.attr} = {_spelled(value)}"
            if inspect.isfunction(value) or inspect.isclass(value) or hasattr(value, "__wrapped__"):
                todo.append(value if inspect.isclass(value) else inspect.unwrap(value))
    return list(seen.values())


def _spelled(value) -> str:
    """A constant as code, sets in order; what is of another kind by its name alone."""
    if isinstance(value, re.Pattern):  # its repr is cut
        return repr((value.pattern, value.flags))
    if isinstance(value, frozenset | set):
        return repr(sorted(map(_spelled, value)))
    if isinstance(value, dict):
        return repr(sorted((_spelled(k), _spelled(v)) for k, v in value.items()))
    if isinstance(value, tuple | list):
        return repr([_spelled(item) for item in value])
    return (
        repr(value)
        if isinstance(value, int | float | str | bytes | re.Pattern)
        else repr(getattr(value, "__name__", ""))
    )


def _normal(source: str) -> str:
    """Code without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


# ---- 3. atomic publishing


def test_kill_at_any_moment_loses_nothing(built, sample, tmp_path):
    expected = {name: item.digest for name, item in built[1].items()}
    root, rounds, finished = tmp_path / "root", 0, 0
    command = [sys.executable, str(HERE / "chain.py"), str(root), str(sample[0]), "2"]
    rng = random.Random(20)
    whole = None
    while rounds < 20:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        deadline = rng.uniform(0.5, whole or 6.0)
        try:
            out, _ = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)  # the parent alone: its workers must go by themselves
            process.communicate()
            rounds += 1
            store = Store(root)
            for item in store.all():  # whatever is there is whole
                assert item.digest == expected[item.name]
            assert fsck(store)[1] == []
            continue
        assert process.returncode == 0 and json.loads(out) == expected
        whole = time.monotonic() - started + 0.5
        finished += 1
        root = tmp_path / f"root{finished}"
        command[2] = str(root)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert json.loads(done.stdout) == expected
    assert fsck(Store(root))[1] == []
    assert _gone(str(root))


def _gone(mark: str) -> bool:
    """No process is left that a killed run started."""
    for _ in range(50):
        found = [path for path in Path("/proc").glob("[0-9]*/environ") if _mentions(path.parent / "cmdline", mark)]
        if not found:
            return True
        time.sleep(0.1)
    return False


def _mentions(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in path.read_bytes() and path.parent.name != str(os.getpid())
    except OSError:
        return False


def test_a_full_disk_publishes_nothing_half(sample, tmp_path):
    """A file size limit stands in for the disk: every write beyond it fails as on a full one."""
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    command = [sys.executable, str(HERE / "chain.py"), str(tmp_path / "root"), str(sample[0]), "0"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode != 0 and "File too large" in done.stderr
    store = Store(tmp_path / "root")
    assert "pages" not in store.names() and fsck(store)[1] == []


# ---- 5. trace is an identity


def test_back_from_any_token_and_forward_again(built):
    from warcio.archiveiterator import ArchiveIterator

    root, datasets = built
    index = Index.open(Store(root))
    packed = datasets["packed"]
    rng = random.Random(5)
    for row in rng.sample(range(packed.rows), min(12, packed.rows)):
        filled = packed.scan().collect()["length"][row]
        story = trace(index, packed, row, rng.randrange(filled))
        assert story["record"]["same_id"]
        page = story["page"]
        with open(story["record"]["file"], "rb") as file:  # another WARC library, at the same offset
            file.seek(page["offset"])
            record = next(ArchiveIterator(file, no_record_parse=True))
            block = record.raw_stream.read()
            assert record.rec_headers["WARC-Record-ID"].strip("<>").removeprefix("urn:uuid:") in page["record_id"]
            assert record.rec_headers["WARC-Target-URI"] == page["uri"]
            body = Exchange(block).body if record.rec_type == "response" else block
            assert len(body) == story["record"]["bytes"]
        forward = [entry for entry in why(index, page["uri"]) if entry["id"] == story["id"]]
        events = {event["dataset"]: event for event in forward[0]["events"] if event["what"] in ("kept", "packed")}
        assert row in events["packed"]["rows"] and {"pages", "encoded"} <= events.keys()


@pytest.mark.parametrize("name", ["clean", "exact", "unique"])
def test_every_dropped_page_can_say_why(built, name):
    root, datasets = built
    index = Index.open(Store(root))
    lost = datasets[name].ledger().collect().group_by("reason").first()
    for entry in lost.iter_rows(named=True):
        (story,) = why(index, entry["id"].hex())
        (last,) = [event for event in story["events"] if event["what"] == "dropped" and event["dataset"] == name]
        assert last["reason"] == entry["reason"] and last["key"] == datasets[name].key
        if name != "clean":  # a duplicate names a page that is really there
            twin = why(index, entry["evidence"])[0]["events"]
            assert {"dataset": name, "what": "kept"}.items() <= next(e for e in twin if e["dataset"] == name).items()


if __name__ == "__main__":
    path, new = HERE / "op_versions.json", code_table()
    old = json.loads(path.read_text()) if path.exists() else {}
    stale = [
        n for n, e in new.items() if n in old and e["code"] != old[n]["code"] and e["version"] <= old[n]["version"]
    ]
    if stale and "--same-results" not in sys.argv:
        sys.exit(f"raise the version of: {', '.join(stale)}")
    path.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
