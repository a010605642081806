"""Which engine generates, in a spec's words: {"kind": "server", "url": "http://127.0.0.1:8000"}.

The law: what a kind has no use for is refused. A key is never in a spec: `key_env` names the environment variable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gristmill.dataops.dataset import InputError
from gristmill.training.engines.prompts import Replying
from gristmill.training.spec import check_fields

#: Of a batch of the transformers engine at most, padding counted.
BATCH_TOKENS = 8_192
_USES = {
    "transformers": ("folder", "dtype"),
    "vllm": ("folder", "dtype", "window", "memory"),
    "server": ("folder", "url", "model", "key_env", "concurrent", "timeout", "tries"),
}


@dataclass(frozen=True)
class EngineSettings:
    """One engine. What is left out takes the default that the engine's own description names.

    `folder`: the model's (transformers, vllm), or for a server the tokenizer and template that it is held to; a step
    that has a model of its own gives that one's. `url`, `model`, `key_env`, `concurrent`, `timeout` (seconds), `tries`:
    training/engines/server.py. `dtype`, `window` (tokens), `memory`: training/engines/inprocess.py.
    """

    kind: Literal["transformers", "vllm", "server"] = "transformers"
    folder: str | None = None
    dtype: None | Literal["float32", "bfloat16", "float16"] = None
    window: int | None = None
    memory: float | None = None
    url: str | None = None
    model: str | None = None
    key_env: str | None = None
    concurrent: int | None = None
    timeout: float | None = None
    tries: int | None = None

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for settings that the kind has no use for or cannot do without."""
        check_fields(self, "engine")
        useless = sorted(name for name in self._given if name not in _USES[self.kind])
        if useless:
            raise InputError(
                f"engine: {self.kind} takes no {', '.join(useless)}; it takes {', '.join(_USES[self.kind])}"
            )
        if self.kind == "server" and self.url is None:
            raise InputError("engine: a server needs its url")
        for name in ("window", "memory", "concurrent", "timeout", "tries"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"engine: {name} is {value}; it must be above 0")

    @property
    def _given(self) -> list[str]:
        return [name for name in self.__dataclass_fields__ if name != "kind" and getattr(self, name) is not None]


def check_folder(settings: EngineSettings, folder: str | Path | None = None) -> Path | None:
    """Where the model of `open_engine` lies; None for a server that is held to none. Raises InputError where there has
    to be one and is not."""
    where = folder if settings.folder is None else settings.folder
    if where is None and settings.kind != "server":
        raise InputError(f"engine: {settings.kind} needs the folder of a model, in `folder` or from the step's model")
    wanted = "tokenizer_config.json" if settings.kind == "server" else "config.json"
    if where is not None and not (Path(where) / wanted).is_file():
        raise InputError(f"{where}: no {wanted}; a model's folder is wanted (for a GGUF file see from_gguf)")
    return None if where is None else Path(where)


def needs(settings: EngineSettings, folder: str | Path | None = None) -> dict[str, Any]:
    """Bytes of memory by part that the engine takes on this machine, at most; nothing for a server, which has its own,
    nor for what training/plan/shape.py cannot count. Raises InputError as `check_folder` does."""
    where = check_folder(settings, folder)
    if settings.kind == "server" or where is None:
        return {}
    import torch

    from gristmill.training.plan.shape import read_config

    try:
        shape = read_config(where / "config.json")
    except InputError:
        return {}
    gpu = torch.cuda.is_available()
    whole = settings.dtype == "float32" or (settings.dtype is None and settings.kind == "transformers" and not gpu)
    width = 4 if whole else 2
    parts = {"weights": shape.parameters * width}
    if settings.kind == "transformers":
        parts["cache"] = 2 * BATCH_TOKENS * shape.layers * shape.keys * width
    elif gpu:  # vLLM takes its share whatever the model is
        share = 0.9 if settings.memory is None else settings.memory
        parts["cache"] = int(share * torch.cuda.mem_get_info()[1]) - parts["weights"]
    else:
        parts["cache"] = int((1.0 if settings.memory is None else settings.memory) * 2**30)
    return {**parts, "total": sum(parts.values())}


def open_engine(settings: EngineSettings, folder: str | Path | None = None) -> Replying:
    """The engine that a spec chose, over `folder` unless the settings name one. `close()` gives back what it holds.
    Raises InputError where there is no model to load or the server has another one, OSError where there is no server.
    """
    where = check_folder(settings, folder)
    given = {name: getattr(settings, name) for name in settings._given if name not in ("folder", "url")}
    if settings.kind == "server":
        from gristmill.training.engines.server import ServerEngine

        return ServerEngine(settings.url or "", folder=where, **given)
    assert where is not None  # check_folder has seen to it
    if settings.kind == "vllm":
        from gristmill.training.engines.inprocess import VllmEngine

        return VllmEngine(where, **given)
    from gristmill.training.engines.local import TransformersEngine

    return TransformersEngine(where, **given)
