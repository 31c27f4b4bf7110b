"""When SIGINT becomes a KeyboardInterrupt, and when it must wait.

The interpreter's worker raises KeyboardInterrupt wherever the signal finds it, half-way through a protocol
line too; then the end of the cell is lost and the context hangs (20 of 25 tries, observed on v0.190.0). So
the agent installs its own handler: no effect between cells, put off while a line is written, at once in user
code.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

_MAIN = threading.main_thread().ident


class Interrupts:
    """The agent's SIGINT handler. Handlers run in the main thread, so plain attributes are enough here."""

    def __init__(self) -> None:
        self._armed = False
        self._cancel: Callable[[], None] | None = None
        self._held = 0
        self.pending = False
        """Whether an interrupt waits for the end of a held section; whoever makes it wait should hurry."""
        self._cancelled_once = False

    def install(self) -> None:
        """Take over SIGINT. Called before each execution: user code may have set a handler of its own."""
        signal.signal(signal.SIGINT, self._on_signal)

    def disarm(self) -> None:
        """No more exceptions from here on: the execution is about to report its end."""
        self._armed, self._cancel, self.pending = False, None, False

    def release_in_child(self) -> None:
        """Give a forked child Python's usual handler."""
        self._held, self.pending, self._armed = 0, False, False
        signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """While user code runs: an interrupt raises KeyboardInterrupt in it."""
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
            self.pending = False

    @contextmanager
    def cancelling(self, cancel: Callable[[], None]) -> Iterator[None]:
        """While a cell awaits: an interrupt calls ``cancel``; the next one raises, for code that never
        awaits.
        """
        self._cancel, self._cancelled_once = cancel, False
        try:
            yield
        finally:
            self._cancel = None
            self.pending = False

    def hold(self) -> _Hold:
        """Put interrupts off inside ``with``; one that came meanwhile is raised at its end."""
        return _Hold(self)

    def enter(self) -> None:
        """Start of a held section in the main thread."""
        self._held += 1

    def leave(self) -> None:
        """End of a held section: deliver what was put off."""
        self._held -= 1
        if self._held == 0 and self.pending:
            self.pending = False
            self._deliver()

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        if self._held:
            self.pending = self._armed or self._cancel is not None
        else:
            self._deliver()

    def _deliver(self) -> None:
        if self._cancel is not None and not self._cancelled_once:
            self._cancelled_once = True
            self._cancel()
        elif self._armed or self._cancel is not None:
            raise KeyboardInterrupt


class _Hold:
    """Context manager of :meth:`Interrupts.hold`; a class, since a generator can be interrupted in
    between.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._main = threading.get_ident() == _MAIN

    def __enter__(self) -> None:
        if self._main:
            self._interrupts.enter()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._main:
            self._interrupts.leave()
