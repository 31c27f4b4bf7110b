"""What children write comes before what the cell prints after them, whoever has taken it from the pipe."""

from __future__ import annotations

import codecs
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from daytona_kernel.agent import streams


@contextlib.contextmanager
def capture_that_calls(write: Callable[[str], None]) -> Iterator[tuple[streams.Capture, int, int]]:
    """The capture of one pipe, which hands text on to ``write``, and the pipe."""
    outbox: Any = SimpleNamespace(
        interrupts=SimpleNamespace(hold=contextlib.nullcontext),
        buffer=lambda name: SimpleNamespace(write=write),
    )
    capture = streams.Capture(outbox)
    read_end, write_end = os.pipe()
    try:
        capture.on = True
        capture._names = {read_end: "stdout"}
        capture._decoders = {read_end: codecs.getincrementaldecoder("utf-8")("replace")}
        yield capture, read_end, write_end
    finally:
        os.close(read_end)
        os.close(write_end)


def test_what_the_reader_has_taken_is_waited_for() -> None:
    """It has read the pipe empty, and was held up before it handed the text on."""
    written: list[str] = []
    taken, go = threading.Event(), threading.Event()

    def write(text: str) -> None:
        taken.set()
        go.wait(30)
        written.append(text)

    with capture_that_calls(write) as (capture, read_end, write_end):
        os.write(write_end, b"of a child\n")
        reader = threading.Thread(target=capture._read, args=(read_end,))
        reader.start()
        assert taken.wait(30)

        def print_after() -> None:
            capture.drain()
            written.append("of the cell\n")

        printer = threading.Thread(target=print_after)
        printer.start()
        printer.join(0.05)  # time enough to go past it, if it does
        go.set()
        printer.join(30)
        reader.join(30)
        assert written == ["of a child\n", "of the cell\n"]


def test_a_child_that_never_stops_writing_holds_nobody_up() -> None:
    """It writes as fast as it is read: who prints takes what was there, and goes on."""
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) < 100:
            os.write(write_end, b"more\n")

    with capture_that_calls(write) as (capture, _, write_end):
        os.write(write_end, b"first\n")
        capture.drain()
    assert written == ["first\n"]
