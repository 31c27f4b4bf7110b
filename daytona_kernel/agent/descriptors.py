"""Where the agent's own descriptors live."""

from __future__ import annotations

import fcntl
import os
import resource

HIGH_FDS = (900, 200)
"""The first that the limit allows: above ``os.closerange(3, 256)`` and the like."""


def move_high(fd: int) -> int:
    """Move a descriptor to where code that closes "all" descriptors seldom comes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = next((number for number in HIGH_FDS if number + 50 < soft), 3)
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, high)
    except OSError:
        return fd
    os.close(fd)
    return moved
