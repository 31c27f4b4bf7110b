"""The labels by which sandboxes are found again, and known as nobody's.

Whoever has the account can read them: what is private in them is a hash.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform

LABEL = "daytona-kernel"
LABEL_NOTEBOOK = "daytona-kernel.notebook"
LABEL_OWNER = "daytona-kernel.owner-pid"
LABEL_HOST = "daytona-kernel.host"
"""Whose machine and user, by their names: ``sandboxes --mine``."""


def notebook_label(path: str) -> str:
    """Label value that finds a notebook's sandbox again: a hash, for paths are nobody else's business."""
    return hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:24]


def host_label() -> str:
    """Label value for this user on this machine: a hash, for names of both are nobody else's business."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return hashlib.sha256(f"{platform.node()}\0{user}".encode()).hexdigest()[:24]


def owner_label() -> str:
    """``pid:start time:space`` of this process, by which others here notice that it was killed."""
    try:
        with open("/proc/self/stat") as file:
            start = file.read().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        start = "0"
    return f"{os.getpid()}:{start}:{_space()}"


def owner_has_ended(owner: str) -> bool:
    """Whether the process of an :func:`owner_label` is gone; ``False`` if that can not be told from here."""
    pid, start, space = [*owner.split(":"), "", ""][:3]
    if not pid.isdigit() or (space and space != _space()):
        return False
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return os.path.isdir("/proc/self")  # Without /proc nothing is known of processes.
    return fields[0] == "Z" or (start not in ("", "0") and fields[19] != start)


@functools.cache
def _space() -> str:
    """Where process numbers mean what they mean here: this boot of this machine, and this container of it.

    Names do not tell: machines that use one account may all be called ``ubuntu`` or ``localhost``.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return hashlib.sha256(f"{boot}\0{os.readlink('/proc/self/ns/pid')}".encode()).hexdigest()[:12]
    except OSError:
        return ""
