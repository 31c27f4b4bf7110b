"""A thread with an event loop of its own, and work on it that may be asked for from any thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .errors import DaytonaKernelError

log = logging.getLogger(__name__)

T = TypeVar("T")


class LoopThread:
    """Owns the thread and the loop. Subclasses keep their state on the loop, so that they need no locks."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._background: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run_loop, name=name, daemon=True)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop; cancelling the future cancels it. From any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop_thread(self) -> None:
        """Stop the loop and cancel what is left on it; waits for the thread's end unless called on it.

        Calling it again is safe: a kernel manager in a hurry asks for the shutdown twice.
        """
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self._loop.close()

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start background work, kept until it ends; its failure is logged. On the loop only."""
        task = self._loop.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(_log_failure)
        return task


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (exc := task.exception()) is not None:
        level = logging.DEBUG if isinstance(exc, DaytonaKernelError) else logging.ERROR
        log.log(level, "background work failed: %s: %s", type(exc).__name__, exc)
