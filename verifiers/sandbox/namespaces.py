"""Kernel calls and the steps that build an isolation: namespaces, a read-only root, no capabilities.

Standard library only: this file's text is sent into the sandbox's own interpreter, which has nothing of ours installed.
The law: after `enter` a process sees only what was bound, read-only, has an empty network and is no root outside.
Needs Linux 5.12 (mount_setattr makes a whole tree read-only at once, and setns takes a pidfd).
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Any

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 4, 38, 36
NOBODY = 65534
#: System call numbers that x86_64 and aarch64 share or that the C library lacks a wrapper for.
SYS_MOUNT_SETATTR = 442
DEVICES = ("null", "zero", "urandom", "random")

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> int:
    """A function of the C library by name. Raises OSError with its errno."""
    result: int = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2)."""
    kind_bytes = None if kind is None else kind.encode()
    call("mount", source.encode(), target.encode(), kind_bytes, ctypes.c_ulong(flags), options.encode())


def prctl(option: int, value: int) -> None:
    """prctl(2) with one argument."""
    call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def drop_capabilities() -> None:
    """Give up every capability of this process, effective, permitted and inheritable."""
    call("capset", struct.pack("Ii", 0x20080522, 0), bytes(24))


def read_only(path: str) -> None:
    """Make the mounts at and below a path read-only, without set-user-id."""
    attributes = struct.pack("QQQQ", MS_RDONLY | MS_NOSUID, 0, 0, 0)
    recursive = 0x8000
    call("syscall", ctypes.c_long(SYS_MOUNT_SETATTR), -100, path.encode(), recursive, attributes, ctypes.c_size_t(32))


def become_nobody(paths: list[str]) -> bool:
    """Root only: turn into nobody, for whom `paths` stay reachable although a home they lie in may be closed.

    A closed folder above a path is covered, in a mount namespace of this process, by an empty one that leads to that
    path alone. False where the process may not do that, and stays who it is.
    """
    closed = {path: top for path in paths if (top := _closed_folder(path)) is not None}
    try:
        if closed:
            call("unshare", NEWNS)
            mount("none", "/", None, MS_REC | MS_PRIVATE)
            held = {path: os.open(path, os.O_PATH) for path in closed}
            for top in set(closed.values()):
                mount("none", top, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k")
            for path, fd in held.items():
                bind(fd, path)
                os.close(fd)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except PermissionError:
        return False
    prctl(PR_SET_DUMPABLE, 1)  # else /proc/self/uid_map belongs to root
    return True


def _closed_folder(path: str) -> str | None:
    """The topmost folder above a path that others may not pass."""
    return next((str(top) for top in [*Path(path).parents][::-1] if not top.stat().st_mode & 0o001), None)


def bind(fd: int, target: str) -> None:
    """Bind what an O_PATH descriptor names to a path, which is made."""
    place = Path(target)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    mount(f"/proc/self/fd/{fd}", target, None, MS_BIND | MS_REC)


def new_user(flags: int) -> None:
    """A user namespace, and those in `flags`, in which this process is nobody, whoever it is outside."""
    user, group = os.geteuid(), os.getegid()
    call("unshare", NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def enter(binds: list[tuple[str, str]], links: list[tuple[str, str]], hidden: list[str]) -> None:
    """Namespaces of our own and a read-only root that holds `binds` (source, target), `links` (text, path), /dev, /tmp.

    `hidden` folders are covered by empty ones. The next child is the first process of a pid namespace.
    """
    new_user(NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS | NEWCGROUP)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    wanted = [*binds, *((f"/dev/{name}", f"/dev/{name}") for name in DEVICES)]
    held = [(os.open(source, os.O_PATH), target) for source, target in wanted]
    root = "/tmp"
    mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64k")
    for fd, target in held:
        bind(fd, root + target)
        os.close(fd)
    for text, path in links:
        Path(root + path).symlink_to(text)
    Path(root + "/tmp").mkdir()
    os.chdir(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", 2)
    os.chdir("/")
    cover(hidden)
    read_only("/")
    socket.sethostname("sandbox")


def cover(folders: list[str]) -> None:
    """Put an empty read-only folder over each that is there."""
    for folder in folders:
        if Path(folder).is_dir():
            mount("none", folder, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=4k")
