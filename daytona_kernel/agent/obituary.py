"""What a dying worker can still say: its exit code or its fatal signal, in a file that the kernel reads.

The interpreter only closes the socket when its worker dies (1001, observed on v0.190.0) and keeps the reason
to itself. ``os._exit`` is wrapped to note the code, after the pending output has gone out; faulthandler notes
a fatal signal with the Python stack. A SIGKILL, as by the kernel's OOM killer, leaves nothing, which says
enough.
"""

from __future__ import annotations

import faulthandler
import os
from typing import NoReturn, TextIO

from .outbox import Outbox

_exit = os._exit


class Obituary:
    """The file ``{directory}/died``, empty while all is well."""

    def __init__(self, directory: str, outbox: Outbox) -> None:
        self._path = os.path.join(directory, "died")
        self._outbox = outbox
        self._pid = os.getpid()
        self._file: TextIO | None = None
        if directory:
            self._install()

    def _install(self) -> None:
        try:
            # Open for as long as the process lives: faulthandler writes to the descriptor.
            self._file = open(self._path, "w", encoding="utf-8")  # noqa: SIM115
        except OSError:
            return
        self.renew()

        def _exit(status: int) -> NoReturn:
            self.exit(status)

        # pickle finds it under this name, for a pool of processes.
        _exit.__module__, _exit.__qualname__ = "os", "_exit"
        os._exit = _exit
        self._outbox.on_broken = self.cut_off

    def renew(self) -> None:
        """Before each cell: user code may have pointed faulthandler elsewhere, or turned it off."""
        if self._file is not None and not faulthandler.is_enabled():
            faulthandler.enable(self._file)

    def exit(self, status: int) -> NoReturn:
        """``os._exit`` that leaves a note. In a forked child it is the plain one."""
        if os.getpid() == self._pid and self._file is not None:
            try:
                self._file.write(f"exit code {status}\n")
                self._file.flush()
                self._outbox.flush()
            except (OSError, ValueError):
                pass
        _exit(status)

    def cut_off(self, reason: OSError) -> None:
        """End a process that nobody can hear any more: user code has closed its descriptors."""
        if os.getpid() == self._pid:
            try:
                with open(self._path, "w", encoding="utf-8") as file:
                    file.write(f"its code closed the way its output takes ({reason.strerror})\n")
            finally:
                _exit(1)
