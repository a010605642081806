"""What the sandbox runs: one of three roles, each in a process of its own.

The law kept here: a process has one role for its whole life; the one that runs a response never sees tests.
"""

from __future__ import annotations

from typing import Any

from gristmill.verifiers.programs.assertions import judge
from gristmill.verifiers.programs.candidate import script, serve


def run(role: str, channel: Any) -> None:
    """`candidate` answers calls, `script` runs a program over its standard input, `tests` holds the test code."""
    {"candidate": serve, "script": script, "tests": judge}[role](channel)
