"""math-verify's side of the maths bench, run by the interpreter of .venv/peers.

usage: maths_peer.py RESULT_JSON CASES_JSON     cases: {name: [[gold, response], ...]}; per name seconds and verdicts
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any


def judge(cases: dict[str, list[list[str]]]) -> dict[str, Any]:
    """Processor seconds (its time limits are alarms in this process) and the verdicts, with its default settings."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    told: dict[str, Any] = {}
    for name, pairs in cases.items():
        for gold, response in pairs[:50]:  # its grammars are built on first use
            verify(parse(gold), parse(response))
        clock = time.process_time()
        verdicts = [bool(verify(parse(gold), parse(response))) for gold, response in pairs]
        told[name] = {"seconds": time.process_time() - clock, "verdicts": verdicts}
    return told


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(judge(json.loads(Path(sys.argv[2]).read_text()))))
