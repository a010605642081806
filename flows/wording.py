"""Results as text for a terminal."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset

_CUT = 100


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns lined up; those in `right` are numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = (
        [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    )
    return "\n".join("  ".join(row).rstrip() for row in cells)


def plain(value: Any) -> Any:
    """A value of a row as JSON that can be read: bytes in hex, long texts and lists cut with their length."""
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 16 else f"{value[:16].hex()}… ({len(value):,} bytes)"
    if isinstance(value, str):
        return value if len(value) <= _CUT else f"{value[:_CUT]}… ({len(value):,} characters)"
    if isinstance(value, list):
        head = [plain(item) for item in value[:8]]
        return head if len(value) <= 8 else [*head, f"… ({len(value):,} items)"]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    return value


def _funnel(counts: dict[str, Any]) -> str:
    rows = [["op", "in", "kept", "dropped", "why"]]
    for op, tally in counts.items():
        reasons = sorted(tally["reasons"].items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {number:,}" for name, number in reasons[:4]) + (", …" if len(reasons) > 4 else "")
        rows.append([op, f"{tally['in']:,}", f"{tally['kept']:,}", f"{tally['dropped']:,}", told])
    return table(rows, right=(1, 2, 3))


def run(result: dict[str, Any]) -> str:
    """What a flow made, where rows went, and how long it took."""
    rows = [["dataset", "key", "rows", "tokens", "seconds"]]
    for name, item in result["datasets"].items():
        tokens = "" if item["tokens"] is None else f"{item['tokens']:,}"
        rows.append([name, item["key"][:12], f"{item['rows']:,}", tokens, f"{result['seconds'].get(name, 0):.2f}"])
    total = sum(result["seconds"].values())
    start = result["orchestration"]["total"]
    times = f"{total:.1f} s of work, {start:.1f} s to start Prefect and the workers"
    return "\n\n".join(
        [_funnel(result["counts"]), table(rows, right=(2, 3, 4)), times, f"Quality report: {result['report']}"]
    )


def try_next(root: Path, truth: dict[str, Any]) -> list[str]:
    """Three commands that show something on the demo's data."""
    twin = next(case for case in truth["cases"] if case["kind"].startswith("near"))
    at = f" --root {shlex.quote(str(root))}"
    me = "gristmill" if shutil.which("gristmill") else shlex.quote(os.path.relpath(sys.argv[0]))
    return [f"{me} why {twin['uri']}{at}", f"{me} trace packed 0 100{at}", f"{me} show clean{at}"]


def demo(result: dict[str, Any]) -> str:
    """The run, the model, and what to try next."""
    model = result["checkpoint"]
    lines = [
        run(result),
        f"Model: loss {model['first_loss']:.2f} -> {model['last_loss']:.2f} in {model['steps']:,} steps "
        f"({model['tokens']:,} tokens; knowing only how frequent each token is gives {model['unigram_entropy']:.2f})\n"
        f"       {model['path']}",
        "Try next:\n" + "\n".join(f"  {command}" for command in result["try"]),
    ]
    return "\n\n".join(lines)


def ls(rows: list[dict[str, Any]], root: Path) -> str:
    """A line per version."""
    if not rows:
        return f"no datasets under {root}"
    head = [["name", "key", "kind", "rows", "made", ""]]
    body = [
        [
            row["name"],
            row["key"][:12],
            row["kind"],
            f"{row['rows']:,}",
            row["made_at"] or "",
            "latest" if row["latest"] else "",
        ]
        for row in rows
    ]
    return table(head + body, right=(3,))


def show(dataset: Dataset, head: list[dict[str, Any]]) -> str:
    """A manifest in words."""
    manifest = dataset.manifest
    size = sum(entry["bytes"] for entry in [*manifest["shards"], *manifest["ledger"], *manifest.get("files", [])])
    facts = [
        ["name", dataset.name],
        ["kind", dataset.kind + (f" of {manifest['parent']['name']}" if "parent" in manifest else "")],
        ["key", dataset.key],
        ["digest", dataset.digest],
        ["path", dataset.path],
        ["rows", f"{dataset.rows:,}"],
        ["size", f"{size / 1e6:.1f} MB in {len(manifest['shards'])} shards"],
        ["made", f"{manifest['made'].get('at', '')} in {manifest['made'].get('seconds', 0):.1f} s"],
        ["from", ", ".join(f"{item['name']}:{item['key'][:12]}" for item in manifest["inputs"]) or "files"],
        *(
            [["stats", ", ".join(f"{k} {v}" for k, v in manifest["stats"].items() if not isinstance(v, (list, dict)))]]
            if manifest["stats"]
            else []
        ),
    ]
    ops = [
        f"{op['name']} v{op['version']}  " + " ".join(f"{k}={v!r}" for k, v in op["params"].items())
        for op in manifest["ops"]
    ]
    losses = [
        [op, reason, f"{loss['rows']:,} rows", f"{loss['lost']:,} {loss['unit']}"]
        for op, tally in manifest["counts"].items()
        for reason, loss in sorted(tally["losses"].items(), key=lambda item: -item[1]["lost"])
    ]
    parts = [table(facts), "\n".join(ops)]
    parts += [_funnel(manifest["counts"])] if manifest["counts"] else []
    parts += ["Lost inside rows that stay:\n" + table(losses, right=(2, 3))] if losses else []
    parts += ["\n".join(f"{name}: {value}" for name, value in row.items() if value is not None) for row in head[:1]]
    return "\n\n".join(parts)


def why(stories: list[dict[str, Any]]) -> str:
    """Each row's way through the datasets, a line per step."""
    told = []
    for story in stories:
        place = f"  ({story['warc']}, offset {story['offset']:,})" if story.get("warc") else ""
        rows = [[f"  {event['dataset']}", _event(event)] for event in story["events"]]
        told.append(f"{story.get('uri') or ''} id {story['id']}{place}".strip() + "\n" + table(rows))
    return "\n\n".join(told)


def _event(event: dict[str, Any]) -> str:
    if event["what"] == "kept":
        return f"kept as row {event['row']} of {event['shard']}"
    if event["what"] == "packed":
        rows = ", ".join(str(row) for row in event["rows"][:8])
        return f"{event['tokens']:,} tokens in packed rows {rows}" + (", …" if len(event["rows"]) > 8 else "")
    measured = ""
    if event["value"] is not None:
        measured = f": {event['value']:.4g}" + (
            "" if event["threshold"] is None else f" against {event['threshold']:.4g}"
        )
    evidence = f" [{event['evidence']}]" if event["evidence"] else ""
    if event["what"] == "lost":
        return f"lost {event['lost']:,} {event['unit']} to {event['op']}: {event['reason']}{measured}{evidence}"
    return f"DROPPED by {event['op']}: {event['reason']}{measured}{evidence}"


def trace(story: dict[str, Any]) -> str:
    """From the row to the record, outside in."""
    page, record = story["page"], story["record"]
    token = (
        f", position {story['position']} = token {story['token_in_document']:,} of the document"
        if "position" in story
        else ""
    )
    lines = [
        ["row", f"{story['dataset']}:{story['key'][:12]} row {story['row']}{token}"],
        ["page", f"{page['uri']}  id {story['id']}"],
        ["title", page["title"] or ""],
        ["record", f"{page['record_id'] or ''} of {page['date'] or 'no date'}"],
        ["file", f"{record['file']} at {page['offset']:,}, {page['length']:,} bytes"],
    ]
    if "problem" in record:
        lines.append(["re-read", record["problem"]])
    else:
        lines.append(["re-read", f"{record['bytes']:,} bytes of {record['mime']}, and they give the same id"])
        lines.append(["", record["head"].strip().replace("\n", " ")[:_CUT]])
    return table(lines)
