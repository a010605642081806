"""The guest that runs a command line: compilers and programs in other languages.

Standard library only (see namespaces.py). It receives one frame of JSON {"argv", "files": [names]} and one frame per
file, writes the files, runs the command with the channel closed, and sends one frame {"code"} (negative: a signal).
"""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path
from typing import Any

PATH = "/usr/local/bin:/usr/bin:/bin"


def run(role: str, channel: Any) -> None:
    """The guest. Its process is the first of the run: when it ends, all the command started is killed."""
    task = json.loads(channel.receive())
    what = ""
    try:
        for what in task["files"]:
            content = channel.receive()
            path = Path(what)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o700)
        what = task["argv"][0]
        code = subprocess.run(task["argv"], env={"PATH": PATH}, check=False).returncode
        told: dict[str, Any] = {"code": code}
    except (OSError, ValueError) as error:
        told = {"error": f"{getattr(error, 'strerror', error)}: {what}"}
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    told |= {"cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * 1024}
    channel.send(json.dumps(told).encode())
