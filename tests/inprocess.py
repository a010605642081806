"""Training steps in the tests' own process: one of theirs costs seconds of imports, whatever it does then.

What a process of its own promises (its streams, its end, signals) is tested in test_train_command.py.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import typing
from collections.abc import Iterator, Sequence

import pytest

from gristmill.dataops.dataset import InputError
from gristmill.flows import train
from gristmill.flows.ranks import Ended
from gristmill.training.spec import read_spec
from gristmill.training.step import summary


def here(command: Sequence[str], processes: int = 1) -> Ended:
    """`flows.ranks.launch` without a process."""
    assert processes == 1
    step = importlib.import_module(command[2])
    try:
        made = step.run(read_spec(command[4], typing.get_type_hints(step.run)["spec"]))
    except InputError as error:
        return Ended(2, "", str(error), None)
    return Ended(0, json.dumps(summary(made)), "", None)


@contextlib.contextmanager
def steps_here() -> Iterator[None]:
    """While the block runs, steps are run by `here`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "launch", here)
        yield
