"""Hand packed shards to a training step: a process of its own, with a spec file in and one line of JSON out."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.store import Store


def pretrain(packed: Dataset, root: Path, *, seconds: float, name: str = "base", **spec: Any) -> dict[str, Any]:
    """Pretrain for about `seconds` and publish the checkpoint `name`; returns what the step printed.

    Raises InputError with the step's own words where it refuses the data or the spec, RuntimeError where it fails.
    """
    data = [{"path": packed.path, "digest": packed.digest}]
    wanted = {"data": data, "root": str(root), "name": name, "seconds": seconds, **spec}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(wanted))
        command = [sys.executable, "-m", "gristmill.training.pretrain", "--spec", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 2:
        raise InputError(f"pretraining refused {packed.name}: its reason stands above")
    if done.returncode != 0:
        raise RuntimeError(f"pretraining ended with status {done.returncode}: its reason stands above")
    told = json.loads(done.stdout)
    Store(root).tag(name, "latest", told["key"])
    return told
