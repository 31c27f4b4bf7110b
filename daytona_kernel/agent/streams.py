"""``sys.stdout``, ``sys.stderr``, and whatever is written to descriptors 1 and 2 behind their back."""

from __future__ import annotations

import codecs
import fcntl
import io
import os
import select
import struct
import termios
import threading
import time
from collections.abc import Iterable
from typing import Any

from .descriptors import move_high
from .outbox import Outbox, StreamBuffer

AWAY_S = 0.0005
"""Python code silent for so long may have waited for a child: its output comes first."""


class OutStream(io.TextIOBase):
    """A text stream that feeds the outbox. Named after ipykernel's, since error messages show the name.

    Text is kept per stream and passed on as ipykernel does it: on ``flush()``, before a display, a result
    or an error, at the end of the cell (stdout first), and a moment after the first character. So output
    that goes to both streams comes in the order people are used to.
    """

    encoding = "UTF-8"
    errors = None

    def __init__(
        self, outbox: Outbox, capture: Capture, name: str, fd: int, *, original: bool = False
    ) -> None:
        """``original``: it is what Python began with, such as ``sys.__stderr__``, and has ``fd`` itself."""
        self._outbox = outbox
        self._capture = capture
        self.name = name
        self._fd = fd
        self._original = original
        self._buffer = outbox.buffer(name)
        self._parents = outbox.parents
        self._closed = False
        self._pid = os.getpid()
        self._last = 0.0

    def write(self, string: str) -> int:
        """Add ``string`` to the output; in a forked child, to the pipe that the parent reads."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string)}")
        if self._closed:
            raise ValueError("I/O operation on closed file")
        now = time.monotonic()
        if now - self._last > AWAY_S:
            if os.getpid() != self._pid:
                return self._write_in_child(string)
            self._capture.drain()
        self._last = now
        self._own_buffer().write(string)
        return len(string)

    def _own_buffer(self) -> StreamBuffer:
        parent = self._parents.other_id()
        return self._outbox.buffer(self.name, parent) if parent else self._buffer

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        """Write each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass on what is buffered, and have it sent at once."""
        if not self._closed and self._is_master_process():
            self._own_buffer().flush()
            self._outbox.hurry()

    def fileno(self) -> int:
        """A captured descriptor, so that ``subprocess`` can inherit this stream.

        It is not 1 or 2, as under ipykernel: what redirects those two to this stream, as wurlitzer does, asks
        whether they are the same.
        """
        if self._capture.on:
            return self._fd if self._original else self._capture.copies[self._fd]
        raise io.UnsupportedOperation("fileno")

    def isatty(self) -> bool:
        """A notebook is no terminal."""
        return False

    def _is_master_process(self) -> bool:
        return os.getpid() == self._pid

    @property
    def parent_header(self) -> dict[str, Any]:
        """The header of the request that the caller's output belongs to."""
        message = self._parents.get()
        header: dict[str, Any] = message.get("header", message)
        return header

    @parent_header.setter
    def parent_header(self, value: dict[str, Any]) -> None:
        self._parents.set(value)

    def set_parent(self, parent: dict[str, Any]) -> None:
        """Say which request output belongs to."""
        self._parents.set(parent)

    def set_thread_parent(self, parent: dict[str, Any]) -> Any:
        """Say it for this thread only; the result undoes it with :meth:`reset_thread_parent`."""
        return self._parents.set_here(parent)

    def reset_thread_parent(self, token: Any) -> None:
        """Undo :meth:`set_thread_parent`."""
        self._parents.reset_here(token)

    def writable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Refuse further output. The next cell gets a fresh stream."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether user code has closed the stream."""
        return self._closed

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it stands for the stream of that name in the process that reads it.

        dill comes by here when it saves a session: IPython was imported when this was ``sys.stdout``.
        """
        return eval, (f"__import__('sys').{self.name}",)

    def _write_in_child(self, string: str) -> int:
        self._last = 0.0
        if self._capture.on:
            data = memoryview(string.encode("utf-8", "backslashreplace"))
            while data:
                data = data[os.write(self._fd, data) :]
        return len(string)


OutStream.__module__ = "ipykernel.iostream"


class Capture:
    """Descriptors 1 and 2 as pipes whose content becomes stream output.

    Without it, what child processes and C code write would land in the middle of the worker's protocol.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.on = False
        self._names: dict[int, str] = {}
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._lock = threading.Lock()
        self._reading = 0
        """The thread that has the lock."""
        self._write_ends: dict[int, int] = {}
        self.copies: dict[int, int] = {}
        """For each captured descriptor another one of the same pipe, for user code."""

    def start(self) -> None:
        """Move descriptors 1 and 2 to pipes. The worker's protocol must have moved away from 1 before."""
        for fd, name in ((1, "stdout"), (2, "stderr")):
            read_end, write_end = (move_high(end) for end in os.pipe())
            self._names[read_end] = name
            self._decoders[read_end] = codecs.getincrementaldecoder("utf-8")("replace")
            self._write_ends[fd] = write_end
            self.copies[fd] = move_high(os.dup(write_end))
        self.on = True
        self.restore()
        threading.Thread(target=self._read_forever, name="daytona-capture", daemon=True).start()

    def restore(self) -> None:
        """Put the pipes (back) onto descriptors 1 and 2. Called before each cell: user code may close
        them.
        """
        for fd, write_end in self._write_ends.items():
            try:
                if os.path.samestat(os.fstat(fd), os.fstat(write_end)):
                    continue
            except OSError:
                pass
            os.dup2(write_end, fd)

    def drain(self) -> None:
        """Take what is in the pipes now, so that it comes before what is written next."""
        if not self.on or self._reading == threading.get_ident():
            return  # in the second case, a signal handler or a destructor prints in the middle of a read
        for fd in self._names:
            # No more than that: a child may go on writing, and be as fast as this.
            left = _available(fd)
            while left > 0 and (taken := self._read(fd)):
                left -= taken
        if self._lock.locked():  # the reader may have taken something that it has not handed on yet
            with self._outbox.interrupts.hold(), self._lock:
                pass

    def forget_in_child(self) -> None:
        """In a forked child: the parent reads the pipes, and locks may be held by threads that are not
        here.
        """
        self._names = {}
        self._lock = threading.Lock()
        self._reading = 0

    def _read_forever(self) -> None:
        poll = select.poll()
        for fd in self._names:
            poll.register(fd, select.POLLIN)
        while True:
            for fd, events in poll.poll():
                if events & select.POLLNVAL:  # user code has closed it; the next process has another
                    poll.unregister(fd)
                    continue
                try:
                    self._read(fd)
                except Exception:  # user code may have taken anything away, and may bring it back
                    time.sleep(0.1)

    def _read(self, fd: int) -> int:
        """Pass on some of what is in a pipe; how many bytes, 0 if there are none."""
        with self._outbox.interrupts.hold(), self._lock:
            self._reading = threading.get_ident()
            try:
                if not _available(fd):
                    return 0
                data = os.read(fd, 65536)
                if text := self._decoders[fd].decode(data):
                    self._outbox.buffer(self._names[fd]).write(text)
                return len(data)
            finally:
                self._reading = 0


def _available(fd: int) -> int:
    """Bytes that can be read without waiting."""
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])
    except OSError:
        return 0
