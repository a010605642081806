"""Starting a zygote: what its interpreter may see, the command line, and the thread that waits for its end.

The law: a zygote dies with this process (its parent-death signal and the end of its control socket both see to it) and
is reaped as soon as it dies. The interpreter is the base one, never the virtual environment's: a program sees no
third-party package but those asked for. Linux only.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.sandbox.namespaces import DEVICES, NOBODY

#: Modules whose text goes inside, each after those it imports.
INSIDE = ("namespaces", "seccomp", "confine", "zygote")
#: Seconds a zygote may take to get ready: it imports some fifty modules, numpy perhaps.
READY = 60.0
#: Seconds after which a zygote that takes no requests is given up.
STALLED = 10.0
PACKAGES = "/packages"
#: Reads the configuration, makes the modules of its texts under our package's name, and goes.
BOOT = """
import json, os, sys, types
config = json.loads(os.pread(int(sys.argv[1]), 1 << 24, 0))
package = sys.modules[config["package"]] = types.ModuleType(config["package"])
for name, text in config["modules"].items():
    full = config["package"] + "." + name
    module = sys.modules[full] = types.ModuleType(full)
    setattr(package, name, module)
    exec(compile(text, full, "exec"), module.__dict__)
module.start(config, int(sys.argv[2]), sys.argv[3])
"""
#: A fixed hash seed keeps the order of sets, and with it verdicts, the same from run to run.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Zygote:
    """A started zygote: its control socket, its process and a flag that its thread sets when it has ended."""

    control: socket.socket
    process: subprocess.Popen[bytes]
    ended: threading.Event

    def alive(self) -> bool:
        """Whether it has not been seen to end."""
        return not self.ended.is_set()


def launch(isolation: str, guest: Path, packages: Sequence[str]) -> Zygote:
    """Start one and wait until it serves. Raises InputError saying why it cannot."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    described, complaints = os.memfd_create("sandbox"), os.memfd_create("stderr")
    try:
        interpreter = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]
        command = [interpreter, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", BOOT]
        command += [str(described), str(theirs.fileno())]
        os.write(described, json.dumps(_config(isolation, guest, packages, command)).encode())
        zygote = _spawn([*command, "outer"], ours, (described, theirs.fileno()), complaints)
        theirs.close()
        failure = _failure(ours)
        if failure is not None:
            stop(zygote)
            last = os.pread(complaints, 1 << 16, 0).decode(errors="replace").strip().splitlines()[-1:]
            raise InputError(f"no sandbox by {isolation}: {'; '.join([failure, *last])}")
        return zygote
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        os.close(described)
        os.close(complaints)


def _failure(control: socket.socket) -> str | None:
    """Wait until a zygote is ready; else what it says went wrong."""
    control.settimeout(READY)
    try:
        answer: dict[str, Any] = json.loads(control.recv(1 << 16) or b'{"error": "it ended before it was ready"}')
    except OSError as error:
        return str(error)
    control.settimeout(STALLED)
    return answer.get("error")


def stop(zygote: Zygote) -> None:
    """End a zygote and all its runs; returns when its process is reaped."""
    with contextlib.suppress(OSError):
        zygote.control.shutdown(socket.SHUT_RDWR)  # closing is not enough where a forked process has a copy
    zygote.control.close()
    if not zygote.ended.wait(STALLED):
        zygote.process.kill()
        zygote.ended.wait(STALLED)


def _spawn(command: list[str], control: socket.socket, fds: tuple[int, ...], stderr: int) -> Zygote:
    """Start the process in a thread that lives as long: a parent-death signal comes when the starting thread ends."""
    ended, started = threading.Event(), threading.Event()
    made: list[Any] = []

    def keep() -> None:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                env=ENVIRONMENT, pass_fds=fds, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            made.append(error)
            started.set()
            return
        made.append(process)
        started.set()
        process.wait()
        ended.set()

    threading.Thread(target=keep, name="sandbox-zygote", daemon=True).start()
    started.wait()
    if isinstance(made[0], OSError):
        raise made[0]
    return Zygote(control, made[0], ended)


def _config(isolation: str, guest: Path, packages: Sequence[str], command: list[str]) -> dict[str, Any]:
    here = Path(__file__).parent
    found = [part for name in packages for part in package_parts(name)]
    binds, links = _system()
    prefixes = [os.path.realpath(prefix) for prefix in dict.fromkeys((sys.base_prefix, sys.base_exec_prefix))]
    binds += [(prefix, prefix) for prefix in prefixes if not _within(prefix, [source for source, _ in binds])]
    visible = [source for source, _ in binds]
    binds += [(str(part), f"{PACKAGES}/{part.name}") for part in found]
    project = str(Path(__file__).resolve().parents[2])
    private = ["/usr/src", "/usr/local/src", *([project] if _within(project, visible) else [])]
    config = {
        "isolation": isolation,
        "package": __name__.rpartition(".")[0],
        "modules": {name: (here / f"{name}.py").read_text() for name in INSIDE},
        "guests": {"guest": guest.read_text(), "command": (here / "command.py").read_text()},
        "packages": list(packages),
        "path": sorted({str(part.parent) for part in found}) if isolation == "none" else [PACKAGES] if found else [],
        "needed": [*prefixes, *(str(part) for part in found)],
        "binds": binds,
        "links": links,
        "hidden": [*_site_packages(), *private],
        "folder": "/tmp",
    }
    if isolation == "bubblewrap":
        config["bubblewrap"] = _bubblewrap(binds, links, [*command, "inner"])
    return config


def _system() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """What of the system is visible: binds (source, target) and links (text, path)."""
    binds, links = [], []
    for name in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"):
        path = Path(name)
        if path.is_symlink():
            links.append((str(path.readlink()), name))
        elif path.exists():
            binds.append((name, name))
    return binds, links


def _site_packages() -> list[str]:
    """Third-party packages of the base interpreter, which are no part of it."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    paths = sysconfig.get_paths(vars=base)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    debian = ["/usr/lib/python3/dist-packages", f"/usr/local/lib/{version}/dist-packages"]
    return list(dict.fromkeys([os.path.realpath(paths["purelib"]), os.path.realpath(paths["platlib"]), *debian]))


def _within(path: str, folders: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


def package_parts(name: str) -> list[Path]:
    """The folders of an installed package: its own and its bundled libraries' (`name.libs`). Raises InputError."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"no package {name!r} is installed that a sandbox could show to programs")
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    return [part for part in (folder, folder.with_name(f"{folder.name}.libs")) if part.is_dir()]


def _bubblewrap(binds: list[tuple[str, str]], links: list[tuple[str, str]], command: list[str]) -> list[str]:
    found = shutil.which("bwrap")
    if found is None:
        raise InputError("bubblewrap's program, bwrap, is not installed")
    line = [found, "--unshare-user", "--unshare-all", "--die-with-parent", "--new-session", "--hostname", "sandbox"]
    line += ["--uid", str(NOBODY), "--gid", str(NOBODY)]
    for source, target in binds:
        line += ["--ro-bind", source, target]
    for text, path in links:
        line += ["--symlink", text, path]
    for device in DEVICES:
        line += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
    return [*line, "--proc", "/proc", "--dir", "/tmp", "--remount-ro", "/", "--chdir", "/", "--", *command]
