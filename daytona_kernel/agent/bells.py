"""Waking threads up from anywhere: from a signal handler or a ``__del__`` method, too.

``threading.Event`` is not for that: whoever prints in a handler that has come in the middle of ``set()`` or
``wait()`` of the same thread waits for ever for the lock inside, and the cell hangs.
"""

from __future__ import annotations

import _thread
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue


class Alarm:
    """Wakes one thread, the only one that calls :meth:`wait`."""

    def __init__(self) -> None:
        # Its put() may come in the middle of another put() (documented of this queue alone).
        self._calls: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Have :meth:`wait` return, now or when it is called next."""
        if self._calls.empty():
            self._calls.put(None)

    def wait(self, timeout: float | None) -> None:
        """Wait for :meth:`set`, at most for ``timeout`` seconds (``None``: for as long as it takes)."""
        with suppress(Empty):
            self._calls.get(timeout=timeout)


class Ringing:
    """One ring that somebody listens for."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def end(self) -> None:
        """Have :meth:`wait` return."""
        self._lock.release()

    def wait(self, timeout: float) -> None:
        """Wait for the ring, at most for ``timeout`` seconds."""
        self._lock.acquire(timeout=timeout)


class Bell:
    """Wakes all who listen. Each has a lock of its own, so that nobody waits for anybody else's."""

    def __init__(self) -> None:
        self._listening: deque[Ringing] = deque()

    def listen(self) -> Ringing:
        """What ends with the next ring from now on."""
        ringing = Ringing()
        self._listening.append(ringing)
        return ringing

    def ring(self) -> None:
        """Wake all who listen."""
        while self._listening:
            try:
                self._listening.popleft().end()
            except IndexError:  # another thread rings, too
                return
