"""``input()``, ``getpass()``, and the worker's command pipe.

Descriptor 0 of the worker is the pipe that commands come through: a cell (or a child process) that reads it
would eat the next cell. So the pipe moves to a private descriptor, descriptor 0 becomes ``/dev/null``, and
``sys.stdin`` an object that knows who is reading: the worker between executions gets commands, anybody else
end-of-file, as under ipykernel. While it waits for a command, asyncio's loop runs, so that background tasks
go on between cells.
"""

from __future__ import annotations

import asyncio
import builtins
import getpass
import io
import json
import os
import threading
import time
import types
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from .outbox import Outbox

REPLY_POLL_S = 0.01
_loads = json.JSONDecoder().decode  # user code may break what is in the module


class StdinNotImplementedError(NotImplementedError):
    """Replaced by IPython's own class of that name where there is IPython."""


class _Bytes:
    """The binary side of ``sys.stdin``, for a worker that reads bytes."""

    def __init__(self, stream: CommandStdin) -> None:
        self._stream = stream

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next command, or end of file."""
        return self._stream.readline().encode("utf-8")

    def read(self, size: int | None = -1, /) -> bytes:
        """End of file."""
        return b""


class CommandStdin(io.TextIOBase):
    """``sys.stdin``: the worker's commands for the worker, end-of-file for everybody else."""

    encoding = "utf-8"
    errors = "strict"
    name = "<stdin>"

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop, is_worker: Callable[[], bool]) -> None:
        self._fd = fd
        self._loop = loop
        self._is_worker = is_worker
        self._buffer = bytearray()
        self.before_wait: Callable[[], None] = lambda: None
        self.buffer = _Bytes(self)

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """The next command, for the worker (run by the event loop meanwhile); else the empty string."""
        if not self._is_worker():
            return ""
        self.before_wait()
        while b"\n" not in self._buffer:
            self._wait_readable()
            data = os.read(self._fd, 1 << 20)
            if not data:
                return ""
            self._buffer += data
        end = self._buffer.index(b"\n") + 1
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        return line.decode("utf-8")

    def read(self, size: int | None = -1, /) -> str:
        """End of file."""
        return ""

    def readable(self) -> bool:
        """Always."""
        return True

    def __repr__(self) -> str:
        return "<_io.TextIOWrapper name='<stdin>' mode='r' encoding='utf-8'>"

    def fileno(self) -> int:
        """Descriptor 0, which is ``/dev/null``."""
        return 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def _wait_readable(self) -> None:
        """Run the event loop until the command pipe can be read."""
        if not _has_work(self._loop):
            return
        ready: asyncio.Future[None] = self._loop.create_future()
        try:
            self._loop.add_reader(self._fd, lambda: None if ready.done() else ready.set_result(None))
            self._loop.run_until_complete(ready)
        except OSError:
            return  # user code has closed the loop's own descriptors: the read itself waits, too
        finally:
            with suppress(OSError, ValueError):
                self._loop.remove_reader(self._fd)


def _has_work(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop can be run here; a loop that user code closed or runs elsewhere can not."""
    return not loop.is_closed() and not loop.is_running()


# Error messages and libraries show the type's name; under ipykernel it is a file.
CommandStdin.__name__ = CommandStdin.__qualname__ = "TextIOWrapper"


class InputBridge:
    """``input()`` and ``getpass.getpass()`` as Jupyter's ``input_request``.

    The answer comes as a file ``{directory}/input-{request id}`` that the kernel uploads: JSON and a newline,
    which is waited for since an upload is not atomic.
    """

    def __init__(self, outbox: Outbox, directory: str) -> None:
        self._outbox = outbox
        self._directory = directory
        self.allowed = False
        self.refusal: type[Exception] = StdinNotImplementedError
        self._input = builtins.input
        self._getpass = getpass.getpass

    def install(self, allowed: bool) -> None:
        """Before a cell: ``allowed`` is the request's ``allow_stdin``."""
        self.allowed = allowed
        builtins.input = self.raw_input
        getpass.getpass = self.getpass

    def remove(self) -> None:
        """After a cell: put back what was there, as ipykernel does."""
        builtins.input = self._input
        getpass.getpass = self._getpass

    def raw_input(self, prompt: object = "") -> str:
        """Ask the front end for a line."""
        if not self.allowed:
            self._refuse("raw_input")
        return self._ask(str(prompt), False)

    def getpass(self, prompt: str = "", stream: TextIO | None = None, *, echo_char: str | None = None) -> str:
        """Ask the front end for a line that it does not show."""
        if not self.allowed:
            self._refuse("getpass")
        for name, value in (("stream", stream), ("echo_char", echo_char)):
            if value is not None:
                text = f"The `{name}` parameter of `getpass.getpass` will have no effect when using ipykernel"
                warnings.warn(text, UserWarning, stacklevel=2)
        return self._ask(prompt, True)

    def _refuse(self, method: str) -> NoReturn:
        """Say that nobody can answer; with ipykernel's own method, if it is here, for the same traceback."""
        if self.refusal is not StdinNotImplementedError:  # there is IPython
            with suppress(ImportError):
                from ipykernel.kernelbase import Kernel

                getattr(Kernel, method)(types.SimpleNamespace(_allow_stdin=False))
        raise self.refusal(f"{method} was called, but this frontend does not support input requests.")

    def _ask(self, prompt: str, password: bool) -> str:
        request_id = uuid.uuid4().hex
        path = os.path.join(self._directory, f"input-{request_id}")
        content = {"prompt": prompt, "password": password, "request_id": request_id}
        self._outbox.post("input_request", content)
        try:
            while (answer := _read_answer(path)) is None:
                time.sleep(REPLY_POLL_S)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted by user") from None
        finally:
            try:
                os.unlink(path)
            except OSError:
                pass
        value = str(answer.get("value", ""))
        if value == "\x04":
            raise EOFError
        return value


def _read_answer(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        answer = _loads(text) if text.endswith("\n") else None
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def main_thread() -> bool:
    """Whether the caller is the main thread, where the worker lives."""
    return threading.current_thread() is threading.main_thread()
