"""The `gristmill` command: parsing, and the one place where an error becomes a line and an exit status.

0 done; 1 could not be done (a full disk, a damaged file, nothing found); 2 bad usage or input; 130 interrupted; 143 a
training step stopped by SIGTERM. With --json, stdout is exactly one JSON object ({"error": ...} where it failed);
progress and errors go to stderr.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from gristmill.dataops.dataset import DamagedError, InputError
from gristmill.dataops.executor import WorkerDied

ROOT = ".gristmill"
_INTERRUPTED = "interrupted; what is published is whole, and the same command goes on from it"


class _Parser(argparse.ArgumentParser):
    """With --json, bad usage is said on stdout too."""

    def error(self, message: str) -> NoReturn:
        if "--json" in sys.argv:
            print(json.dumps({"error": message}))
        super().error(message)


#: The commands in the order of the help, and the module of flows/commands that holds each.
COMMANDS = {
    "demo": "demo",
    "run": "run",
    "ls": "ls",
    "show": "show",
    "report": "report",
    "why": "why",
    "trace": "trace_row",
    "fsck": "fsck",
    "rethreshold": "rethreshold",
    "diff": "diff",
    "decontaminate": "decontaminate",
    "takedown": "takedown",
    "train-filter": "train_filter",
    "train-toxicity": "train_toxicity",
    "train-tokenizer": "train_tokenizer",
    "compare-tokenizers": "compare_tokenizers",
    "mix": "mix",
    "holdout": "holdout",
    "export": "export",
    "verify": "verify",
    "plan": "plan",
    "adopt": "adopt",
    "encode-chats": "encode_chats",
    "build-sft": "build_sft",
    "build-tasks": "build_tasks",
    "from-scores": "from_scores",
    "build-preferences": "build_preferences",
    "ai-feedback": "ai_feedback",
    "revise": "revise",
    "red-team": "red_team",
    "distill": "distill",
    "feedback": "feedback",
    "align": "align",
    "up": "up",
    "deploy": "deploy",
    "train": "train",
    "gate": "gate",
    "promote": "promote",
    "reindex": "reindex",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main_parser = _Parser(prog="gristmill", description="From a crawl to packed tokens, every row accounted for.")
    commands = main_parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = _module(name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        command.add_argument("--root", help=f"where datasets stand (default {ROOT}, or GRISTMILL_ROOT)")
        command.add_argument("--json", action="store_true", help="print exactly one JSON object to stdout")
        module.arguments(command)
    return main_parser


def _module(name: str) -> Any:
    return importlib.import_module(f"gristmill.flows.commands.{COMMANDS[name]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    try:
        options = parser().parse_args(arguments)
    except KeyboardInterrupt:  # as early as in the imports
        return _fail(argparse.Namespace(json="--json" in sys.argv), _INTERRUPTED, 130)
    try:
        return _run(options)
    except InputError as error:
        return _fail(options, str(error), 2)
    except DamagedError as error:
        return _fail(options, f"{error}; `gristmill fsck` checks everything", 1)
    except WorkerDied as error:
        return _fail(options, str(error), 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(options, f"{where}{error.strerror or error}; what was published before is whole", 1)
    except KeyboardInterrupt:
        return _fail(options, _INTERRUPTED, 130)
    except Exception as error:
        if not _interrupted(error):
            raise
        return _fail(options, _INTERRUPTED, 130)


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: libraries that it meets at work wrap it into one of their own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        if "KeyboardInterrupt" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return error is not None


def _run(options: argparse.Namespace) -> int:
    from gristmill.flows.settings import SETTINGS, defaults

    settings: dict[str, Any] = {"root": ROOT, **defaults()}
    if getattr(options, "vocab_size", None) is not None:
        settings.pop("tokenizer", None)  # the flag decides between the two
    given = {name: value for name in SETTINGS if (value := getattr(options, name, None)) is not None}
    settings |= given
    if settings.get("workers", 1) < 1:
        raise InputError(f"workers = {settings['workers']}: at least one is needed")
    result, text = _module(options.command).run(options, settings)
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


if __name__ == "__main__":
    sys.exit(main())
