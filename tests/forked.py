"""Training processes forked from one that has imported everything: started in no time, and stopped at a step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

from gristmill.flows.ranks import environments

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["gristmill.training.pretrain", "transformers.models.llama.modeling_llama", __name__])


def pretrain(spec: Path, processes: int, stop: tuple[int, int] | None = None) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each process of `gristmill.training.pretrain`; `stop` is (rank, step): who
    gets a SIGTERM, and after which step."""
    places = [spec.with_name(f"{spec.stem}-{number}") for number in range(processes)]
    ranks: list[Any] = []
    for environment, place in zip(environments(processes), places, strict=True):
        ranks.append(FORKS.Process(target=_rank, args=(environment, str(spec), str(place), stop)))
        ranks[-1].start()
    try:
        for rank in ranks:
            rank.join(300)
    finally:
        for rank in ranks:
            rank.kill()
    said = [[Path(f"{place}.{end}").read_text() for end in ("out", "err")] for place in places]
    return [(rank.exitcode, *texts) for rank, texts in zip(ranks, said, strict=True)]


def _rank(environment: dict[str, str], spec: str, place: str, stop: tuple[int, int] | None) -> None:
    os.environ.update(environment, GRISTMILL_PARENT=str(os.getppid()))  # the fork server
    for number, end in ((1, "out"), (2, "err")):
        file = os.open(f"{place}.{end}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import torch

    from gristmill.training import pretrain
    from gristmill.training.step import main

    torch.set_num_threads(1)  # as torchrun has it
    train = pretrain.train

    def steps(*arguments: Any, **settings: Any) -> Any:
        for metrics in train(*arguments, **settings):
            if stop is not None and stop == (int(environment["RANK"]), metrics.step):
                os.kill(os.getpid(), signal.SIGTERM)
            yield metrics

    pretrain.train = steps
    sys.exit(main(pretrain.PretrainSpec, pretrain.run, pretrain.dry, ["--spec", spec]))
