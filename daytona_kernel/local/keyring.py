"""The kernel's keyrings. What programs keep there (Kerberos, encrypted file systems) is not for sandboxes.

A process inherits its session keyring, through all namespaces. So the server lets go of its own one, and what
it starts has an empty one. See keyrings(7), session-keyring(7).
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform

log = logging.getLogger(__name__)

KEYCTL = {
    "x86_64": 250,
    "aarch64": 219,
    "riscv64": 219,
    "i686": 288,
    "armv7l": 311,
    "ppc64le": 271,
    "s390x": 280,
}
"""The number of ``keyctl``, for which the C library has no function."""
JOIN_SESSION_KEYRING = 1


def leave_session_keyring() -> bool:
    """Have a new, empty session keyring in this thread and in what it starts. Whether that worked.

    Where it does not, the kernel has no keyrings, or the system keeps programs from using them.
    """
    number = KEYCTL.get(platform.machine())
    if number is None:
        log.warning("sandboxes may read this session's kernel keyring: %s is not known", platform.machine())
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, JOIN_SESSION_KEYRING, None) >= 0:
        return True
    log.info("the session keyring stays: %s", os.strerror(ctypes.get_errno()))
    return False
