"""What a training run takes, before it starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.flows.commands.common import Result, open_store, positive, table

if TYPE_CHECKING:
    from gristmill.dataops.dataset import Dataset

HELP = "Plan a training run: tokens, loss, FLOPs, time, memory per GPU, epochs of your data, cost."


def arguments(command: argparse.ArgumentParser) -> None:
    """The model, the machine, and what is known of the run."""
    from gristmill.training.plan.chips import ALIASES, CHIPS
    from gristmill.training.plan.flops import STAGES
    from gristmill.training.plan.memory import PRECISIONS

    command.add_argument(
        "--params", required=True, metavar="N", help="1.3B, or a published model (llama-3.1-8b), or a config.json"
    )
    command.add_argument("--gpu", required=True, metavar="NAME", help=", ".join([*ALIASES, *CHIPS]))
    command.add_argument("--gpus", type=positive, default=1, metavar="N", help="how many (default 1)")
    command.add_argument("--days", type=float, help="how long they are yours")
    command.add_argument(
        "--tokens", metavar="N", help="tokens to train on, such as 26B (default in pretraining: 20 per parameter)"
    )
    command.add_argument("--seq-len", type=int, help="tokens in a row (default 4096)")
    command.add_argument("--stage", choices=list(STAGES), default="pretrain", help="what to train (default pretrain)")
    command.add_argument(
        "--precision",
        choices=list(PRECISIONS),
        default="autocast",
        help="of weights, gradients and Adam: float32 under autocast (default), bf16 with a float32 master, all bf16",
    )
    command.add_argument("--mfu", type=float, help="share of the peak that is reached, such as 0.45, once measured")
    command.add_argument("--price", type=float, help="of one GPU for one hour, in your currency")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Work it out."""
    from gristmill.training.plan.chips import chip
    from gristmill.training.plan.plan import plan
    from gristmill.training.plan.shape import VOCAB_SIZE, count, shape_of

    planned = plan(
        shape_of(options.params, settings.get("vocab_size", VOCAB_SIZE)),
        chip(options.gpu),
        gpus=options.gpus,
        days=options.days,
        tokens=None if options.tokens is None else count(options.tokens, "--tokens"),
        seq_len=settings.get("seq_len", 4096),
        stage=options.stage,
        precision=options.precision,
        mfu=options.mfu,
        price=options.price,
        data=_packed(options, settings),
    )
    return planned, _text(planned)


def _packed(options: argparse.Namespace, settings: dict[str, Any]) -> list[Dataset]:
    """The latest version of each packed dataset under the root; a root that was not asked for need not be there."""
    if options.root is None and not Path(settings["root"]).is_dir():
        return []
    store = open_store(settings)
    return [dataset for name in store.names() if (dataset := store.get(name)).base.kind == "tokens"]


def _text(plan: dict[str, Any]) -> str:
    model, chip = plan["model"], plan["hardware"]
    head = (
        f"{_si(model['parameters'])} parameters: {model['layers']} layers of width {model['width']:,}, "
        f"{model['heads']} heads ({model['kv_heads']} for keys), MLP {model['ffn']:,}, "
        f"vocabulary {model['vocab_size']:,}{', tied' if model['tied'] else ''}\n"
        f"{chip['gpus']} x {chip['name']} ({chip['peak'] / 1e12:,.0f} TFLOP/s in dense bf16, "
        f"{chip['memory'] / 1e9:g} GB): {plan['stage']}, rows of {plan['seq_len']:,} tokens, {plan['precision']}"
    )
    rough = "\n".join(f"  {name:7} {words}" for name, words in plan["rough"].items())
    rows = [*_law_rows(plan), *_run_rows(plan), *_budget_rows(plan)]
    return "\n\n".join([head, table(rows), _memory_text(plan), _data_text(plan), f"Estimates:\n{rough}"])


def _law_rows(plan: dict[str, Any]) -> list[list[str]]:
    laws = plan["laws"]
    if laws is None:
        return []
    fitted = {name: law for name, law in laws.items() if "loss" in law}
    optimal = ", ".join(f"{_si(law['tokens'])} ({name})" for name, law in fitted.items())
    losses = [f"{law['loss']:.2f} ({name})" for name, law in fitted.items()]
    return [
        ["optimum", _si(laws["chinchilla"]["tokens"]), f"tokens, 20 per parameter; by the fitted laws {optimal}"],
        ["loss", losses[0].split()[0], f"nats after {_si(plan['tokens'])} fresh tokens: {', '.join(losses)}"],
    ]


def _run_rows(plan: dict[str, Any]) -> list[list[str]]:
    run, mfu, generation = plan["run"], plan["mfu"], plan["generation"]
    rows = []
    if run is not None:
        words = f"FLOPs for {_si(plan['tokens'])} tokens, with attention and logits; 6 N D is {run['flops_6nd']:.2e}"
        rows.append(["compute", f"{run['flops']:.2e}", words])
    slower = ", a third slower by checkpointing" if mfu["slower_by_checkpointing"] > 1 else ""
    words = f"tokens/s at {mfu['value']:.0%} MFU{slower} ({mfu['source']})"
    rows.append(["speed", _si(plan["tokens_per_second"]), words])
    if run is not None:
        words = f"{run['gpu_hours']:,.{0 if run['gpu_hours'] >= 10 else 2}f} GPU hours"
        words += {None: "", True: "; it fits in the days", False: "; it does NOT fit in the days"}[run["fits"]]
        words += "; it does NOT fit in the memory" if plan["memory"][plan["stage"]]["setting"] is None else ""
        rows.append(["time", _time(run["hours"]), words])
    if generation is not None:
        more = "" if generation["hours"] is None else f": {_time(generation['hours'])} more"
        words = f"tokens/s sampled at best, {generation['sequences_per_gpu']:,} sequences a GPU{more}"
        rows.append(["rollouts", _si(generation["tokens_per_second"]), words])
    if run is not None and run["cost"] is not None:
        words = "in the currency of --price" + ("" if generation is None else ", rollouts not counted")
        rows.append(["cost", f"{run['cost']:,.0f}", words])
    return rows


def _budget_rows(plan: dict[str, Any]) -> list[list[str]]:
    budget = plan["in_days"]
    if budget is None:
        return []
    best = ", ".join(f"{_si(s['parameters'])} on {_si(s['tokens'])} ({name})" for name, s in budget["best"].items())
    rows = [
        ["budget", _si(budget["tokens"]), f"tokens of this model in {budget['days']:g} day{'s'[: budget['days'] != 1]}"]
    ]
    return [*rows, ["", "", f"best use of these FLOPs: {best}"]] if best else rows


def _memory_text(plan: dict[str, Any]) -> str:
    """A line for each stage: GB before the first row and for each, and the rows that fit."""
    one = plan["hardware"]["gpus"] == 1
    columns = [("ddp", False), ("ddp", True)] if one else [(s, c) for c in (False, True) for s in ("ddp", "fsdp")]
    names = {"ddp": "" if one else "DDP ", "fsdp": "FSDP "}
    standing = ["ddp"] if one else ["ddp", "fsdp"]
    head = ["stage", *(f"{names[s]}GB" for s in standing), "row", "row ckpt"]
    head += [f"{names[s]}rows{' ckpt' * c}" for s, c in columns]
    rows = [[*head, "fewest GPUs"]]
    for stage, needed in plan["memory"].items():
        found = {(b["sharding"], b["checkpointing"]): b for b in needed["budgets"]}
        mark = "> " if stage == plan["stage"] else "  "
        cells = [mark + stage, *(_gb(found[s, False]["fixed_bytes"]["total"]) for s in standing)]
        cells += [_gb(found["ddp", c]["row_bytes"]) for c in (False, True)]
        cells += [f"{found[key]['rows']:,}" if found[key]["rows"] else "-" for key in columns]
        rows.append([*cells, str(needed["least_gpus"] or "none")])
    needed = plan["memory"][plan["stage"]]
    words = (
        f"Memory of one GPU, in GB ({_gb(needed['usable_bytes'])} planned with): what stands before the first row, "
        "what a row adds\n(ckpt: with activation checkpointing), how many rows fit, and the fewest GPUs for one row\n"
    )
    return words + table(rows, right=range(1, len(rows[0]))) + "\n" + _setting(plan, needed)


def _setting(plan: dict[str, Any], needed: dict[str, Any]) -> str:
    """The setting to start with, and what stands in it."""
    stage, setting = plan["stage"], needed["setting"]
    if setting is None:
        least = needed["least_gpus"]
        ask = "shorter rows, or tensor parallelism" if least is None else f"{least} GPUs with FSDP, or shorter rows"
        return f"{stage} does NOT fit: it takes {ask}"
    chosen = (setting["sharding"], setting["checkpointing"])
    fixed = next(b["fixed_bytes"] for b in needed["budgets"] if (b["sharding"], b["checkpointing"]) == chosen)
    parts = ", ".join(f"{name} {_gb(size)}" for name, size in fixed.items() if size and name != "total")
    where = "one GPU" if plan["hardware"]["gpus"] == 1 else setting["sharding"].upper()
    ckpt = "with" if setting["checkpointing"] else "without"
    return f"{stage}: start with {where} {ckpt} checkpointing, up to {setting['rows']:,} rows; it holds {parts} GB"


def _data_text(plan: dict[str, Any]) -> str:
    if not plan["data"]:
        return "No packed datasets under the root: epochs are not known."
    rows = [["packed dataset", "tokens", "epochs", "worth in fresh tokens"]]
    for item in plan["data"]:
        epochs = "-" if item["epochs"] is None else f"{item['epochs']:,.2f}"
        worth = "-" if item["worth"] is None else f"{_si(item['worth_tokens'])} ({item['worth']:.0%})"
        rows.append([f"{item['name']}:{item['key'][:12]}", _si(item["tokens"]), epochs, worth])
    note = "Repeated tokens fade (Muennighoff et al. 2023): four epochs cost little, beyond sixteen little is gained"
    return f"{table(rows, right=(1, 2, 3))}\n{note}"


def _si(number: float) -> str:
    """Three digits with k, M, B or T."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            value = number / size
            return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return f"{number:,.0f}"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.{2 if size < 9.995e9 else 1 if size < 99.95e9 else 0}f}"


def _time(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:,.1f} minutes"
