"""Run a command with a network of its own, which is a loopback interface and nothing else.

``python -m tests.own_network COMMAND...``; it needs root and Linux. Two runs of tests that start kernels can
then go side by side: Jupyter picks a kernel's ports long before the kernel takes them, and another run could
take them meanwhile.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
"""linux/sched.h, linux/sockios.h and linux/if.h; ``os.unshare`` is there from Python 3.12 on only."""


def unshare_network() -> None:
    """Leave the network behind. Raises ``OSError`` without the right to."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no network of its own: {os.strerror(number)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def main(command: list[str]) -> None:
    """Become the command."""
    try:
        unshare_network()
    except OSError as exc:
        sys.exit(str(exc))
    # A shell starts what is in its background with SIGINT ignored; kernels and tests need it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
