"""The shape of a decoder: what parameters, FLOPs and memory are counted from.

A shape comes from a published model's name, from a `config.json` in transformers' form, or from a parameter count
alone. A count says nothing of depth and width, so those follow the ladder of published models: Kaplan et al. 2020 found
that the loss hardly depends on the shape at a given count, and the plan prints the shape that it took.

The law kept here: `Shape.parameters` is what transformers counts for a Llama of this shape, to the last one. Not
covered: biases, norms over queries and keys (Qwen 3: 0.001 %), learned positions (GPT-3: 0.01 %), mixtures of experts,
which are refused.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError

VOCAB_SIZE = 32_000  # where nothing says another: Llama 2's


@dataclass(frozen=True)
class Shape:
    """`heads` of `head_dim` for queries, `kv_heads` for keys and values; `ffn` is the inner width of the MLP, which has
    three matrices where it is `gated` (SwiGLU, Shazeer 2020) and two where not (GPT-3). `tied`: one matrix is both the
    embedding and the output."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab_size: int = VOCAB_SIZE
    tied: bool = False
    gated: bool = True

    @property
    def queries(self) -> int:
        """The width of all queries together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """The width of all keys together, which is that of the values."""
        return self.kv_heads * self.head_dim

    @property
    def matrices(self) -> int:
        """Parameters in the matrices of one layer: queries and output, keys and values, MLP."""
        return self.width * (2 * self.queries + 2 * self.keys + (3 if self.gated else 2) * self.ffn)

    @property
    def embeddings(self) -> int:
        """Parameters of the embedding and, unless tied, of the output."""
        return self.vocab_size * self.width * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All of them, with two norms a layer and one at the end."""
        return self.layers * (self.matrices + 2 * self.width) + self.width + self.embeddings


#: Shapes from the papers and configurations of the models named.
PUBLISHED = {
    "smollm2-135m": Shape(30, 576, 9, 3, 64, 1_536, 49_152, tied=True),
    "smollm2-360m": Shape(32, 960, 15, 5, 64, 2_560, 49_152, tied=True),
    "qwen3-0.6b": Shape(28, 1_024, 16, 8, 128, 3_072, 151_936, tied=True),
    "tinyllama-1.1b": Shape(22, 2_048, 32, 4, 64, 5_632, 32_000),
    "llama-3.2-1b": Shape(16, 2_048, 32, 8, 64, 8_192, 128_256, tied=True),
    "llama-3.2-3b": Shape(28, 3_072, 24, 8, 128, 8_192, 128_256, tied=True),
    "llama-2-7b": Shape(32, 4_096, 32, 32, 128, 11_008, 32_000),
    "llama-3.1-8b": Shape(32, 4_096, 32, 8, 128, 14_336, 128_256),
    "llama-2-13b": Shape(40, 5_120, 40, 40, 128, 13_824, 32_000),
    "llama-2-70b": Shape(80, 8_192, 64, 8, 128, 28_672, 32_000),
    "llama-3.1-70b": Shape(80, 8_192, 64, 8, 128, 28_672, 128_256),
    "llama-3.1-405b": Shape(126, 16_384, 128, 8, 128, 53_248, 128_256),
    "gpt-3-175b": Shape(96, 12_288, 96, 96, 128, 49_152, 50_257, tied=True, gated=False),
}

#: Parameters and layers: Hoffmann et al. 2022, table A9 (the first), Brown et al. 2020, table 2.1, Touvron et al. 2023
#: (13B, 65B), Llama team 2024 (405B).
LADDER = ((44e6, 8), (125e6, 12), (350e6, 24), (1.3e9, 24), (6.7e9, 32), (13e9, 40), (65.2e9, 80), (405e9, 126))

TIED_BELOW = 4e9  # parameters: Llama 3.2 and Qwen 3 tie up to 3B and 4B, Llama 2 and 3 do not from 7B on
WIDE = 2_048  # from this width on heads are 128 wide, below 64
FFN_STEP = 64  # inner widths are multiples of it, for the matrix units


def derive(parameters: int, vocab_size: int = VOCAB_SIZE) -> Shape:
    """A Llama shape with about so many parameters (within 2 %, from 3M beyond the narrowest embedding on).

    Of each width the layers that come nearest to the count; of these shapes the one nearest to LADDER in depth, and its
    MLP then takes up the rest. Raises InputError where the vocabulary leaves no room for layers.
    """
    tied, wanted = parameters < TIED_BELOW, math.log(_depth(parameters))
    found: list[Shape] = []
    for width in _widths():
        bare = _at(0, width, vocab_size, tied)
        one = _at(1, width, vocab_size, tied).parameters - bare.parameters
        layers = round((parameters - bare.parameters) / one)
        if layers < 1:
            break
        found.append(dataclasses.replace(bare, layers=layers))
    if not found:
        raise InputError(
            f"{parameters:,} parameters are too few for a vocabulary of {vocab_size:,} tokens, whose embedding alone "
            f"takes {vocab_size * 64:,} at a width of 64: ask for more, or set a smaller vocab_size"
        )
    shape = min(found, key=lambda one: abs(math.log(one.layers) - wanted))
    missing = (parameters - shape.parameters) / (3 * shape.layers * shape.width * FFN_STEP)
    return dataclasses.replace(shape, ffn=max(FFN_STEP, shape.ffn + FFN_STEP * round(missing)))


def _depth(parameters: float) -> float:
    steps = [(math.log(n), math.log(layers)) for n, layers in LADDER]
    at = min(max(bisect.bisect([x for x, _ in steps], math.log(parameters)), 1), len(steps) - 1)
    (x0, y0), (x1, y1) = steps[at - 1], steps[at]
    return math.exp(y0 + (math.log(parameters) - x0) * (y1 - y0) / (x1 - x0))


def _widths() -> Iterator[int]:
    """64, 128, 192, 256, 384 ... 1024, 1280 ... 2048, 2560, and so on: from 1024 on, heads come in fours."""
    width = 64
    while True:
        yield width
        width += 64 if width < 256 else 128 if width < 1_024 else 256 if width < WIDE else 512


def _at(layers: int, width: int, vocab_size: int, tied: bool) -> Shape:
    """A width's shape: SwiGLU of 8/3 of it (Touvron et al. 2023), keys in 8 groups as Llama 3 has them, or in 4."""
    head_dim = 128 if width >= WIDE else 64
    heads = width // head_dim
    kv_heads = next((groups for groups in (8, 4) if heads % groups == 0), heads)
    ffn = round(8 * width / 3 / FFN_STEP) * FFN_STEP
    return Shape(layers, width, heads, kv_heads, head_dim, ffn, vocab_size, tied)


def count(text: str, what: str) -> int:
    """A number as people write it: 1.3B, 350M, 2e9, 26_000. Raises InputError, naming `what`, for anything else."""
    match = re.fullmatch(r"([\d_]+(?:\.\d+)?(?:e\d+)?)\s*([kmbt]?)", text.strip().lower())
    value = float(match[1].replace("_", "")) * 1000 ** " kmbt".index(match[2] or " ") if match else 0.0
    if not 1 <= value < 1e18:
        raise InputError(f"{what} is {text!r}: give a number from 1 on, such as 1.3B, 350M or 2e9")
    return round(value)


def shape_of(text: str, vocab_size: int = VOCAB_SIZE) -> Shape:
    """From a published name, a config.json or the folder that holds one, or a count such as 1.3B.

    `vocab_size` is for counts alone; the others bring their own. Raises InputError for what is none of them.
    """
    if text.lower() in PUBLISHED:
        return PUBLISHED[text.lower()]
    for path in (Path(text), Path(text) / "config.json", Path(text) / "files" / "config.json"):
        if path.is_file():
            return read_config(path)
    if not text[:1].isdigit():
        raise InputError(
            f"--params is {text!r}: no config.json is there, and no such model is known; give a count such as 1.3B, "
            f"the path of a config.json, or one of {', '.join(PUBLISHED)}"
        )
    return derive(count(text, "--params"), vocab_size)


def read_config(path: Path) -> Shape:
    """From a Llama-like config.json in transformers' form. Raises InputError naming the file and what it lacks."""
    try:
        config: Any = json.loads(path.read_text())
        layers, width, heads = (config[n] for n in ("num_hidden_layers", "hidden_size", "num_attention_heads"))
        ffn, vocab_size = config["intermediate_size"], config["vocab_size"]
        kv_heads = config.get("num_key_value_heads") or heads
        head_dim = config.get("head_dim") or width // heads
        experts = [name for name in ("num_experts", "num_local_experts", "n_routed_experts") if config.get(name)]
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; a Llama or Qwen config.json is needed") from None
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path}: no model configuration can be read: {error}") from None
    if experts:
        raise InputError(f"{path}: {experts[0]} says a mixture of experts; plans count dense models only")
    numbers = (layers, width, heads, kv_heads, head_dim, ffn, vocab_size)
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        raise InputError(f"{path}: layers, widths, heads and vocabulary must be whole numbers from 1 on")
    return Shape(*numbers, tied=bool(config.get("tie_word_embeddings", False)))
