"""Accelerators by their published figures: dense bfloat16 peak, memory, memory bandwidth.

Peaks are the vendors' for dense matrices with float32 accumulation; data sheets that print only the figure "with
sparsity" print twice as much, and halves are taken here. A gigabyte is 10**9 bytes. NVIDIA's devices hold up to 7 %
more than printed (80 GB is 85.9e9 bytes before error correction and the driver take their part); plans keep that as
slack. The law kept here: a figure stands only with its source. Not covered: clocks under a power limit, and links
between devices.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gristmill.dataops.dataset import InputError


@dataclass(frozen=True)
class Chip:
    """`peak` in dense bf16 FLOP/s, `memory` in bytes, `bandwidth` of that memory in bytes/s, `source` of the three."""

    name: str
    peak: float
    memory: float
    bandwidth: float
    source: str


def _chip(name: str, tflops: float, gigabytes: float, gigabytes_per_second: float, source: str) -> Chip:
    return Chip(name, tflops * 1e12, gigabytes * 1e9, gigabytes_per_second * 1e9, source)


_A100 = "NVIDIA A100 data sheet (SXM; the PCIe board has the same peak)"
_H100 = "NVIDIA H100 data sheet; dense is half of the printed figure"

#: Each under one name; ALIASES has the others.
CHIPS = {
    chip.name: chip
    for chip in (
        _chip("a100-40gb", 312, 40, 1_555, _A100),
        _chip("a100-80gb", 312, 80, 2_039, _A100),
        _chip("h100-sxm", 989.4, 80, 3_350, _H100),
        _chip("h100-pcie", 756, 80, 2_000, _H100),
        _chip("h200", 989.4, 141, 4_800, "NVIDIA H200 data sheet (SXM); dense is half of the printed figure"),
        _chip("b200", 2_250, 180, 7_700, "NVIDIA DGX B200 data sheet, an eighth of the system; dense is half"),
        _chip("l40s", 362.05, 48, 864, "NVIDIA L40S data sheet"),
        _chip("rtx4090", 165.2, 24, 1_008, "NVIDIA Ada architecture white paper, with float32 accumulation"),
        _chip("mi300x", 1_307.4, 192, 5_300, "AMD Instinct MI300X data sheet"),
        _chip("tpu-v5e", 197, 16, 819, "Google Cloud TPU v5e documentation"),
        _chip("tpu-v5p", 459, 95, 2_765, "Google Cloud TPU v5p documentation"),
    )
}

#: The plain names mean what clouds rent under them most often.
ALIASES = {"a100": "a100-80gb", "h100": "h100-sxm", "4090": "rtx4090", "v5e": "tpu-v5e", "v5p": "tpu-v5p"}


def chip(name: str) -> Chip:
    """By name, whatever its case, spaces and dashes. Raises InputError that lists the names."""
    names = {_plain(known): known for known in CHIPS} | {_plain(alias): known for alias, known in ALIASES.items()}
    found = names.get(_plain(name).removeprefix("nvidia").removeprefix("amd"))
    if found is None:
        raise InputError(f"no accelerator {name!r} is known; there are: {', '.join([*ALIASES, *CHIPS])}")
    return CHIPS[found]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
