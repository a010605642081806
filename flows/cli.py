"""The `gristmill` command: parsing, and the one place where an error becomes a line and an exit status.

0 done; 1 could not be done (a full disk, a damaged file, nothing found); 2 bad usage or input; 130 interrupted. With
--json, stdout is exactly one JSON object ({"error": ...} where it failed); progress and errors go to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from gristmill.dataops.dataset import DamagedError, InputError

ROOT = ".gristmill"


class _Parser(argparse.ArgumentParser):
    """With --json, bad usage is said on stdout too."""

    def error(self, message: str) -> NoReturn:
        if "--json" in sys.argv:
            print(json.dumps({"error": message}))
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main_parser = _Parser(prog="gristmill", description="From a crawl to packed tokens, every row accounted for.")
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--root", help=f"where datasets stand (default {ROOT}, or GRISTMILL_ROOT)")
        command.add_argument("--json", action="store_true", help="print exactly one JSON object to stdout")
        return command

    demo = add("demo", "Make a crawl on the spot, run the whole flow on it and pretrain a tiny model on the tokens.")
    demo.add_argument("--train-seconds", type=_positive, default=60, help="how long to pretrain (default 60)")
    demo.add_argument("--workers", type=_positive, help="worker processes (default: one per core)")
    run = add("run", "Run a flow: pretrain-data goes from crawl files to packed token shards.")
    run.add_argument("flow", choices=["pretrain-data"])
    run.add_argument(
        "--crawl", nargs="+", required=True, metavar="PATH", help="files, globs, folders, list files or URLs"
    )
    tokens = run.add_mutually_exclusive_group()
    tokens.add_argument("--tokenizer", metavar="FOLDER_OR_JSON", help="use this tokenizer")
    tokens.add_argument("--vocab-size", type=_positive, help="train a byte-level BPE of this size (default 32000)")
    run.add_argument("--seq-len", type=_positive, help="tokens per packed row (default 2048)")
    run.add_argument("--languages", nargs="*", metavar="CODE", help="languages to keep (default en; none given: all)")
    run.add_argument("--extractor", choices=["resiliparse", "trafilatura"], help="HTML to text (default resiliparse)")
    run.add_argument("--workers", type=_positive, help="worker processes (default: one per core)")
    add("ls", "List the datasets under a root.")
    show = add("show", "Show a dataset: how it was made, what was kept and dropped, its first rows.")
    show.add_argument("name", help="NAME, NAME@TAG or NAME:KEY")
    report = add("report", "Write the quality report of a dataset: one HTML file and its numbers as JSON.")
    report.add_argument("name", help="NAME, NAME@TAG or NAME:KEY")
    report.add_argument("--out", metavar="FOLDER", help="where to (default ROOT/reports/NAME-KEY)")
    why = add("why", "Tell a page's whole story: where it was kept, changed or dropped, and why.")
    why.add_argument("page", help="a URL, or an id of 32 hex digits")
    trace = add("trace", "Go from a row (and a token in it) back to the page and its WARC record, read again.")
    trace.add_argument("name", help="NAME, NAME@TAG or NAME:KEY")
    trace.add_argument("row", type=int, help="row number, from 0")
    trace.add_argument("position", type=int, nargs="?", help="token in a packed row, from 0")
    add("fsck", "Read every published file again and say which is damaged.")
    add("reindex", "Rebuild the lineage index from the manifests.")
    return main_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        return _run(options)
    except InputError as error:
        return _fail(options, str(error), 2)
    except DamagedError as error:
        return _fail(options, f"{error}; `gristmill fsck` checks everything", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(options, f"{where}{error.strerror or error}; what was published before is whole", 1)
    except KeyboardInterrupt:
        return _fail(options, "interrupted; the next run goes on from here", 130)


def _run(options: argparse.Namespace) -> int:
    from gristmill.flows import commands
    from gristmill.flows.settings import SETTINGS, defaults

    settings: dict[str, Any] = {"root": ROOT, **defaults()}
    if getattr(options, "vocab_size", None) is not None:
        settings.pop("tokenizer", None)  # the flag decides between the two
    given = {name: value for name in SETTINGS if (value := getattr(options, name, None)) is not None}
    settings |= given
    if settings.get("workers", 1) < 1:
        raise InputError(f"workers = {settings['workers']}: at least one is needed")
    result, text = commands.COMMANDS[options.command](options, settings)
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print(text)
    return int(result.get("status", 0))


def _fail(options: argparse.Namespace, message: str, status: int) -> int:
    print(f"gristmill: {message}", file=sys.stderr)
    if options.json:
        print(json.dumps({"error": message}, ensure_ascii=False))
    return status


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
