"""A signal handler or a destructor prints in the middle of a print of the same thread."""

from __future__ import annotations

import codecs
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from daytona_kernel.agent import outbox as module
from daytona_kernel.agent.outbox import Outbox
from daytona_kernel.agent.streams import Capture, OutStream

from .conftest import Bench

OURS = ("outbox.py", "interrupts.py", "streams.py", "bells.py", "threading.py")


def _entered_at(step: int, produce: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Run ``produce`` with ``handler`` before instruction ``step`` of our code; whether it came to that."""
    left = step

    def before_instruction(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(OURS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                frame.f_trace = None
                handler()
        return before_instruction

    before = sys.gettrace()
    sys.settrace(before_instruction)
    try:
        produce()
    finally:
        sys.settrace(before)
    return left < 0


@pytest.mark.parametrize("how", ["a first line", "a full buffer", "a flush", "a display"])
def test_a_handler_that_prints_at_any_instruction_neither_hangs_nor_loses_anything(
    bench: Bench, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that the handler wants, and that is held by what it came into the middle of, is a hang."""
    monkeypatch.setattr(module, "FLUSH_CHARS", 100)
    out = bench.outbox
    stream = OutStream(out, Capture(out), "stdout", 1)
    produce: dict[str, Callable[[], object]] = {
        "a first line": lambda: stream.write("line\n"),
        "a full buffer": lambda: stream.write("line" * 25),
        "a flush": lambda: (stream.write("line\n"), stream.flush()),
        "a display": lambda: out.post("display_data", {}),
    }

    def handler() -> None:
        stream.write("handler\n")
        stream.flush()
        out.post("display_data", {})

    step, met = 0, True
    while met:
        out.begin(f"e{step}")
        came: list[bool] = []

        def enter(step: int = step, came: list[bool] = came) -> None:
            came.append(_entered_at(step, produce[how], handler))

        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        thread.join(10)
        assert came, f"a handler before instruction {step} hangs, or its cell failed"
        met = came[0]
        out.flush()
        out.end()
        said = bench.said(f"e{step}")
        text = "".join(words for kind, words in said if kind == "stdout")
        assert text.count("handler") == met
        assert text.count("line") == {"a full buffer": 25, "a display": 0}.get(how, 1)
        assert len([kind for kind, _ in said if kind == "display_data"]) == met + (how == "a display")
        os.truncate(out._protocol_fd, 0)
        os.lseek(out._protocol_fd, 0, os.SEEK_SET)
        step += 1
    assert step > 20


@pytest.fixture
def captured(bench: Bench) -> Iterator[tuple[Capture, int]]:
    """The bench with a descriptor that is captured, and the end of its pipe that children write to."""
    capture = Capture(bench.outbox)
    read_end, write_end = os.pipe()
    capture.on = True
    capture._names = {read_end: "stderr"}
    capture._decoders = {read_end: codecs.getincrementaldecoder("utf-8")("replace")}
    bench.outbox.before_message = capture.drain
    yield capture, write_end
    for fd in (read_end, write_end):
        with suppress(OSError):
            os.close(fd)


def test_what_c_code_has_written_comes_before_the_display_that_follows(
    bench: Bench, captured: tuple[Capture, int]
) -> None:
    """C code does not give the reader a chance to run: it keeps the interpreter's lock."""
    _capture, write_end = captured
    bench.outbox.begin("e")
    os.write(write_end, b"warning from C\n")
    bench.outbox.post("display_data", {})
    bench.outbox.flush()
    assert [kind for kind, _ in bench.said("e")] == ["stderr", "display_data"]


def test_a_handler_that_prints_while_output_of_a_child_is_read_does_not_hang(
    bench: Bench, captured: tuple[Capture, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a handler of SIGCHLD does: the child's last words and the signal come together."""
    capture, write_end = captured
    outbox = bench.outbox
    stream = OutStream(outbox, capture, "stdout", 1)
    buffer = Outbox.buffer

    def signalled(self: Outbox, name: str, parent: str = "") -> Any:
        if name == "stderr":
            stream.write("handler\n")
        return buffer(self, name, parent)

    outbox.begin("e")
    os.write(write_end, b"child\n")
    monkeypatch.setattr(Outbox, "buffer", signalled)
    drained = threading.Thread(target=capture.drain, daemon=True)
    drained.start()
    drained.join(10)
    assert not drained.is_alive()
    outbox.flush()
    assert sorted(bench.said("e")) == [("stderr", "child\n"), ("stdout", "handler\n")]


def test_text_that_the_flusher_has_in_its_hands_comes_before_the_display_that_follows(bench: Bench) -> None:
    """It has taken the text out of the buffer, and was held up before it handed it on."""
    taken, go = threading.Event(), threading.Event()

    class Slow(deque[str]):
        def popleft(self) -> str:
            text = super().popleft()
            taken.set()
            go.wait(30)
            return text

    outbox = bench.outbox
    outbox.begin("e")
    buffer = outbox.buffer("stdout")
    buffer._texts = Slow(["printed\n"])
    flusher = threading.Thread(target=buffer.flush, daemon=True)
    flusher.start()
    assert taken.wait(30)
    display = threading.Thread(target=lambda: outbox.post("display_data", {}), daemon=True)
    display.start()
    display.join(0.05)  # time enough to overtake it, if it does
    go.set()
    display.join(30)
    flusher.join(30)
    outbox.flush()
    assert [kind for kind, _ in bench.said("e")] == ["stdout", "display_data"]
