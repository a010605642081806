"""Chats out of files to a packed SFT set: cleaned, chosen, mixed, with what a model will pick up from it."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import REFERENCE, Result, folder_name, funnel, open_store, positive, table
from gristmill.flows.commands.encode_chats import dropped_told, examples_of, formats_told, start_of

if TYPE_CHECKING:
    from gristmill.dataops.chat.read import ChatSet
    from gristmill.dataops.store import Store

HELP = "Build an SFT set from chat files: cleaned, without duplicates, chosen, mixed, packed, with a style report."
#: Of a set in a .toml: what may be said, and of which type.
_FIELDS = {"files": list, "weight": (int, float), "format": str, "source": str, "licence": str}


def arguments(command: argparse.ArgumentParser) -> None:
    """Which chats, for which model, what stays, and what is mixed in."""
    command.add_argument(
        "files", nargs="+", metavar="FILE|REF",
        help="files, globs, folders or URLs as in encode-chats; or a dataset with messages; or one .toml of several "
        "[sources.NAME], each with files, and as wanted weight, format, source, licence",
    )  # fmt: skip
    command.add_argument(
        "--tokenizer", required=True, metavar="REF", help=f"a chat tokenizer, a model or a tokenizer: {REFERENCE}"
    )
    command.add_argument("--template", metavar="NAME|FILE", help="of one that has none, as in encode-chats")
    command.add_argument("--name", type=folder_name, default="chats", help="what to call the result (default chats)")
    command.add_argument("--format", metavar="NAME", help="what the chats are in (default: detected, file by file)")
    command.add_argument("--source", metavar="TEXT", help="where rows are from that do not say it")
    command.add_argument("--licence", metavar="TEXT", help="the licence of rows that name none")
    command.add_argument(
        "--seq-len", type=int, help="tokens of a row, and of a conversation at most (default 4096, or the replay's)"
    )
    command.add_argument(
        "--loss", choices=["assistant", "completion"], default="assistant",
        help="what is learned: all that the assistant says (default), or its last turn",
    )  # fmt: skip
    command.add_argument("--languages", type=_codes, metavar="A,B", help="ISO 639 codes to keep (default all)")
    command.add_argument(
        "--toxicity", type=_share, metavar="REF=MOST",
        help="drop chats with an answer that this classifier of train-toxicity scores higher, as in toxicity=0.8",
    )  # fmt: skip
    command.add_argument(
        "--benchmark", action="append", default=[], metavar="[NAME=]FILE", help="drop chats that hold an item of it"
    )
    command.add_argument(
        "--after", action="append", default=[], metavar="REF",
        help="a set cleaned before (NAME-unique): drop what it holds; repeatable",
    )  # fmt: skip
    command.add_argument("--select", type=positive, metavar="N", help="keep N good ones")
    command.add_argument(
        "--by", default="coverage",
        choices=["coverage", "top", "bottom", "k_center", "ifd", "perplexity", "embedding", "score"],
        help="which: prompts that cover most (default); the highest or lowest --column; the farthest apart by it; by "
        "--model those whose answers follow least from their instruction (ifd), are likeliest after it (perplexity), "
        "or are farthest apart (embedding); by --scorer those with the best score",
    )  # fmt: skip
    command.add_argument(
        "--column", metavar="NAME",
        help="of the files, or of what --model or --scorer finds: a score, or for k_center a vector; for coverage a "
        "factor",
    )  # fmt: skip
    command.add_argument(
        "--model", metavar="REF", help="a language model that is asked for perplexities, IFD or embeddings to choose by"
    )
    command.add_argument(
        "--scorer", metavar="JSON|FILE", help="a judge, a reward model or a verifier to choose by, as in from-scores"
    )
    command.add_argument("--tokens", type=positive, metavar="N", help="of the whole set (default: every chat once)")
    command.add_argument(
        "--replay", type=_share, metavar="REF=SHARE", help="packed pretraining text to mix in, as in packed=0.05"
    )
    command.add_argument("--seed", type=int, default=1, help="of the mixture (default 1)")
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.rpartition("=")
    try:
        if name and 0 <= float(share) <= 1:
            return name, float(share)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not REF=X, X a number from 0 to 1")


def _codes(text: str) -> list[str]:
    return [code.strip() for code in text.split(",") if code.strip()]


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The recipe of dataops/sft/build.py without a Prefect server; its summary."""
    from gristmill.dataops.chat.detect import detect
    from gristmill.dataops.chat.formats.find import find
    from gristmill.dataops.executor import InProcess, LocalPool
    from gristmill.dataops.sft.build import Choice
    from gristmill.flows.progress import draw
    from gristmill.flows.sets.sft import built

    chosen = [options.column, options.model, options.scorer]
    if options.select is None and (options.by != "coverage" or any(item is not None for item in chosen)):
        raise InputError("--by, --column, --model and --scorer are of --select N: say how many to keep")
    store = open_store(settings)
    chats = _chats(options, store)
    formats = []
    if not isinstance(chats, str):
        formats = [vars(item) for one in chats for item in detect(find(list(one.files)), one.format)]
    with LocalPool(settings.get("workers")) as pool:
        store.executor, store.progress = InProcess() if pool.workers == 1 else pool, draw
        result = built(
            store, chats, options.tokenizer, name=options.name, template=options.template,
            seq_len=settings.get("seq_len"), loss=options.loss, languages=options.languages,
            toxicity=options.toxicity, after=options.after, benchmarks=options.benchmark,
            choice=None if options.select is None else Choice(options.select, options.by, options.column),
            model=options.model, scorer=options.scorer, tokens=options.tokens, replay=options.replay,
            seed=options.seed,
        )  # fmt: skip
    steps = [store.get(f"{item['name']}:{item['key']}") for item in result["datasets"]]
    examples = [] if isinstance(chats, str) else [one for step in steps for one in examples_of(step, steps[0])]
    chat = store.get(f"{result['chat']['name']}:{result['chat']['key']}")
    start = start_of(store.get(options.tokenizer), chat, options.tokenizer)
    result |= {"formats": formats, "examples": examples}
    result["train"] = f"gristmill train sft --data {result['name']}@latest {start}"
    return result, _text(result, options.select)


def _chats(options: argparse.Namespace, store: Store) -> str | list[ChatSet]:
    """A dataset by its reference, or sets of files."""
    from gristmill.dataops.chat.read import ChatSet

    first = options.files[0]
    own = {"--format": options.format, "--source": options.source, "--licence": options.licence}
    said = [name for name, value in own.items() if value is not None]
    if first.endswith(".toml"):
        if len(options.files) > 1 or said:
            raise InputError(f"{first} says files and {', '.join(said) or 'the rest'} itself: give it alone")
        return _from_file(Path(first))
    if (
        len(options.files) == 1
        and not Path(first).exists()
        and first.partition(":")[0].partition("@")[0] in store.names()
    ):
        if said:
            raise InputError(f"{first} is a dataset: {', '.join(said)} is of files")
        return first
    return [ChatSet(options.name, tuple(options.files), None, options.format, options.source, options.licence)]


def _from_file(path: Path) -> list[ChatSet]:
    """Sets of a .toml; their files are named from its folder. Raises InputError for what is no such file."""
    from gristmill.dataops.chat.read import ChatSet

    try:
        stated = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"no file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}") from None
    sources = stated.get("sources")
    if [*stated] != ["sources"] or not isinstance(sources, dict) or not sources:
        raise InputError(f"{path}: it needs [sources.NAME] with files, and nothing else beside them")
    sets = []
    for name, fields in sources.items():
        try:
            folder_name(name)
        except argparse.ArgumentTypeError as error:
            raise InputError(f"{path}: {error}") from None
        if not isinstance(fields, dict):
            raise InputError(f"{path}: {name} is no [sources.{name}]")
        for field, value in fields.items():
            if field not in _FIELDS:
                raise InputError(f"{path}: {name} has {field!r}; there are: {', '.join(_FIELDS)}")
            if not isinstance(value, _FIELDS[field]) or isinstance(value, bool):  # type: ignore[arg-type]
                raise InputError(f"{path}: {field} of {name} is {value!r}, of the wrong kind")
        files = fields.get("files", [])
        if not files or not all(isinstance(file, str) for file in files):
            raise InputError(f"{path}: {name} needs files, a list of names")
        named = tuple(file if "://" in file else str(path.parent / file) for file in files)
        sets.append(ChatSet(name, named, **{field: value for field, value in fields.items() if field != "files"}))
    return sets


def _text(result: dict[str, Any], wanted: int | None) -> str:
    chat = result["chat"]
    parts = [formats_told(result["formats"]) + funnel(result["counts"]) + _losses(result["counts"])]
    amount = (
        f"{result['conversations']:,} conversations in {result['rows']:,} rows of {result['seq_len']:,}; "
        f"{result['tokens']:,} tokens, {result['loss_share']:.1%} of them with loss; "
        f"{result['padding_share']:.1%} padding"
    )
    head = [f"{result['name']}:{result['key'][:12]}  {amount}"]
    head.append(f"for {chat['name']}:{chat['key'][:12]}, template {chat['template'][:12]}")
    if wanted is not None and result["conversations"] < wanted:
        head.append(f"{wanted:,} were wanted: no more are left to choose from")
    parts.append("\n".join(head))
    if result["sources"]:
        rows = [["source", "rows", "tokens", "share", "with loss", "epochs"]]
        rows += [
            [
                item["source"], f"{item['rows']:,}", f"{item['tokens']:,}", f"{item['share']:.1%}",
                f"{item['loss_tokens']:,}", f"{item['epochs']:.2f}",
            ]
            for item in result["sources"]
        ]  # fmt: skip
        parts.append(table(rows, right=(1, 2, 3, 4, 5)))
    if result["examples"]:
        parts.append(dropped_told(result["examples"]))
    warned = [f"  {warning}" for warning in result["warnings"]]
    parts.append("\n".join([f"Style report: {result['style']}", *warned]))
    return "\n\n".join([*parts, result["train"]])


def _losses(counts: dict[str, Any]) -> str:
    """What is gone of rows that stay."""
    told = [
        f"{reason} {loss['rows']:,} ({loss['lost']:,} {loss['unit']})"
        for tally in counts.values()
        for reason, loss in sorted(tally["losses"].items())
    ]
    return f"\nout of rows that stay: {', '.join(told)}" if told else ""
