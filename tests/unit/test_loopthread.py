"""The thread with a loop of its own."""

from __future__ import annotations

from daytona_kernel.loopthread import LoopThread


def test_it_can_be_stopped_twice() -> None:
    """As happens when a kernel manager sends two requests to shut down."""
    thread = LoopThread("test")
    thread._thread.start()
    thread.stop_thread()
    assert not thread._thread.is_alive()
    thread.stop_thread()
