"""Register the flows with their schedules and the trigger on a Prefect server that is there already."""

from __future__ import annotations

import argparse
import logging
import os
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import Result, table
from gristmill.flows.supervisor import WORD

HELP = "Register flows, schedules and the feedback trigger on a Prefect server (PREFECT_API_URL) or work pool."

SERVES = "serves"  # before a deployment's name, with --serve
READY = "serves all of these"


def arguments(command: argparse.ArgumentParser) -> None:
    """Where the runs go, and what they are about."""
    where = command.add_mutually_exclusive_group()
    where.add_argument("--pool", metavar="NAME", help="a work pool whose workers run them")
    where.add_argument("--serve", action="store_true", help="run them here, until Ctrl-C")
    data_arguments(command)


def data_arguments(command: argparse.ArgumentParser) -> None:
    """What the scheduled flows are about."""
    command.add_argument(
        "--crawl", nargs="+", default=[], metavar="PATH",
        help="what is read every night: files, globs, folders, list files or URLs (default: nothing is)",
    )  # fmt: skip
    command.add_argument(
        "--database",
        metavar="URL",
        help="of the feedback, postgresql://USER@HOST/NAME (default: feedback.db in the root)",
    )
    command.add_argument("--recipe", metavar="FILE", help="by which closed batches align a model (default: see README)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """What stands on the server now; with --serve it comes back when that ends."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    import httpx
    from prefect.settings import get_current_settings

    from gristmill.flows.deploy import DEPLOYED, deployments, register, serve
    from gristmill.flows.wheel.recipe import read_recipe

    logging.getLogger("httpx").setLevel(logging.WARNING)
    recipe = None if options.recipe is None else read_recipe(options.recipe)
    made = deployments(settings["root"], options.database, options.crawl, options.pool, recipe)
    rows = [[one.full_name, listed.when(bool(options.crawl))] for one, listed in zip(made, DEPLOYED, strict=True)]

    def ready() -> None:
        print("\n".join([*(f"{SERVES} {name}: {when}" for name, when in rows), READY]), flush=True)

    api = get_current_settings().api.url
    try:
        if options.serve:
            serve(made, alone=WORD in os.environ, ready=ready)
        else:
            register(made)
    except httpx.TransportError as error:
        raise InputError(f"no Prefect server answers at {api}: {error}") from None
    result = {
        "api": api, "pool": options.pool, "root": made[0].parameters["root"],
        "deployments": [{"name": name, "when": when} for name, when in rows],
    }  # fmt: skip
    where = f"work pool {options.pool}" if options.pool else "run by whoever serves them: --serve, or --pool NAME"
    return result, f"{api}, {where}\n\n{table([['deployment', 'runs'], *rows])}"
