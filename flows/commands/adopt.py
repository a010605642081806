"""A model of elsewhere, made one that can be trained here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gristmill.flows.commands.common import Result, folder_name

HELP = "Adopt a model folder (config.json, safetensors, tokenizer.json) as a checkpoint to train from."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which folder, what to call it, and the template where it has none."""
    command.add_argument("folder", metavar="FOLDER", help="as transformers' save_pretrained writes it")
    command.add_argument("--name", required=True, type=folder_name, help="what to call the checkpoint")
    command.add_argument(
        "--template", metavar="NAME|FILE", help="chatml, llama3, ..., or a .jinja file (default: its own template)"
    )


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Check it, copy it, publish it."""
    from gristmill.dataops.store import Store
    from gristmill.flows.adopt import adopt, described
    from gristmill.flows.progress import draw

    draw(f"{options.name}: {options.folder} is checked and copied", 0, 0, 0)
    model = adopt(Store(Path(settings["root"]), progress=draw), options.folder, options.name, options.template)
    told = described(model)
    return told, _text(told)


def _text(told: dict[str, Any]) -> str:
    head = (
        f"{told['name']}:{told['key'][:12]}  {told['architecture']}, {told['parameters']:,} parameters, "
        f"{told['bytes'] / 1e6:,.1f} MB, vocabulary of {told['vocab_size']:,}"
    )
    lines = [head, told["path"]]
    if told["unused"]:
        lines.append(f"{len(told['unused']):,} tensors in the files are not of this model, such as {told['unused'][0]}")
    if told["chat_dataset"] is None:
        plain = told["tokenizer_dataset"]
        lines += [
            "it has no chat template; chats for it:",
            f"  gristmill encode-chats FILE... --tokenizer {plain} --template chatml --name NAME",
            f"  gristmill train sft --data NAME@latest --start {told['name']}@latest --tokenizer {plain}-chat@latest",
        ]
    else:
        lines += [
            f"it speaks template {told['template'][:12]} ({told['chat_dataset']}); chats for it:",
            f"  gristmill encode-chats FILE... --tokenizer {told['name']}@latest --name NAME",
            f"  gristmill train sft --data NAME@latest --start {told['name']}@latest",
        ]
    return "\n".join(lines)
