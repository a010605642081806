"""A verifier whose code changes raises its version: verdicts of two versions must not be taken for the same."""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path

from test_laws import _normal

from gristmill.verifiers.verifier import MODULES, find, names

HERE = Path(__file__).parent
TABLE = HERE / "verifier_versions.json"
#: What decides verdicts beside the module's own file or folder.
BESIDE = {"tools": ["toolcalls"], "facts": ["claims"]}


def code_table() -> dict[str, dict[str, object]]:
    """By module: the versions of the verifiers it declares, and what the code that decides them looks like."""
    table: dict[str, dict[str, object]] = {}
    for module in sorted(set(MODULES.values())):
        folder = module.partition(".")[0]
        places = [HERE.parent / "verifiers" / name for name in (folder, f"{folder}.py", *BESIDE.get(folder, []))]
        files = [file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
        code = "\n".join(_normal(file.read_text()) for file in files if file.is_file())
        mine = [name for name in names() if MODULES.get(name.partition(".")[0]) == module]
        versions = {name: find(name).version for name in mine}
        table[module] = {"versions": versions, "code": sha256(code.encode()).hexdigest()[:16]}
    return table


def test_a_verifier_whose_code_changes_raises_its_version():
    """Where this fails: raise the version of the verifiers whose verdicts change and run `python
    tests/test_verifier_versions.py`; for a change that cannot change any verdict, add --same-results."""
    assert code_table() == json.loads(TABLE.read_text())


if __name__ == "__main__":
    new = code_table()
    old = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    stale = [name for name, entry in new.items() if name in old and entry != old[name]]
    stale = [name for name in stale if new[name]["versions"] == old[name]["versions"]]
    if stale and "--same-results" not in sys.argv:
        sys.exit(f"raise a version in: {', '.join(stale)}")
    TABLE.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
