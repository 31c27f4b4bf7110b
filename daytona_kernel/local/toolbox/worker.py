"""The process in which a context's code runs; speaks JSON lines with the toolbox daemon.

This file runs on the *sandbox's* Python (3.8 or later), alone, from a copy in the sandbox's temporary
directory: it imports nothing but the standard library and nothing of this package. Descriptor 0 brings
commands (``{"code": str, "envs": {str: str}}``), descriptor 1 takes chunks (``{"type", "text", ...}``).

It behaves as the worker of Daytona's daemon v0.190.0 was seen to, weaknesses included, because clients of the
real service have to live with them: a SIGINT raises KeyboardInterrupt wherever it lands, in the middle of a
chunk too; chunks go through ``sys.__stdout__`` and commands through ``sys.stdin``, both looked up at each
use; an exception that is neither an ``Exception`` nor SystemExit nor KeyboardInterrupt ends the process.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys

TYPE_CHECKING = False  # as in `typing`, which would cost some milliseconds of each start
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType
    from typing import Any, NoReturn

FLUSH_AT = 1024
"""Buffered characters at which text is sent without waiting for the end of the line."""


class ChunkStream(io.TextIOBase):
    """What ``sys.stdout`` and ``sys.stderr`` are while a cell runs: text in, chunks out.

    It has no file descriptor and no binary buffer underneath, like the real one.
    """

    # ruff: noqa: D102 - these are the file methods everybody knows
    encoding = "utf-8"
    errors = "strict"

    def __init__(self, worker: Worker, kind: str) -> None:
        self._worker = worker
        self._kind = kind
        self._parts: list[str] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._parts.append(text)
        self._size += len(text)
        if "\n" in text or self._size >= FLUSH_AT:
            self.flush()
        return len(text)

    def flush(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts = []
            self._size = 0
            if text:
                self._worker.emit({"type": self._kind, "text": text})


class Worker:
    """Runs commands one after the other in one namespace."""

    def __init__(self) -> None:
        self.globals: dict[str, Any] = {
            "__name__": "__main__",
            "__doc__": None,
            "__package__": None,
            "__builtins__": __builtins__,
        }
        self.stopping = False

    def emit(self, chunk: dict[str, str]) -> None:
        """Send one chunk in pieces; an interrupt between two of them spoils the line, as in the real
        worker."""
        json.dump(chunk, sys.__stdout__)  # type: ignore[arg-type]  # None only if descriptor 1 was closed
        sys.__stdout__.write("\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]

    def run(self) -> None:
        """Read and execute commands until the daemon closes the pipe or asks to stop."""
        while not self.stopping:
            try:
                line = sys.stdin.readline()
                if not line:
                    return
                self.handle_command(json.loads(line))
            except KeyboardInterrupt:
                continue  # an interrupt between cells has nothing to interrupt
            except Exception as error:
                # Not the cell's own error (that was reported already) but one met while reporting it.
                self.emit_error(error)

    def handle_command(self, command: dict[str, Any]) -> None:
        """Execute one command with its environment variables set, and put the old ones back."""
        saved: dict[str, str | None] = {}
        try:
            for name, value in (command.get("envs") or {}).items():
                saved[name] = os.environ.get(name)
                os.environ[name] = value
            self.execute_code(command["code"])
        finally:
            for name, value in saved.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def execute_code(self, code: str) -> None:
        """Run *code* as a module body; send its output, its error if any, and the closing control chunk."""
        before = sys.stdout, sys.stderr
        out, err = ChunkStream(self, "stdout"), ChunkStream(self, "stderr")
        sys.stdout, sys.stderr = out, err
        # "then" is for the daemon alone: it says that this is not the end yet, because the process is about
        # to die of the exception ("exit"), or because a chunk about a failed error report follows ("error").
        closing = {"type": "control", "text": "completed", "then": "exit"}
        try:
            try:
                exec(compile(code, "<string>", "exec", dont_inherit=True), self.globals)  # noqa: S102
            finally:
                out.flush()
                err.flush()
            del closing["then"]
        except KeyboardInterrupt:
            closing = {"type": "control", "text": "interrupted"}
        except SystemExit:
            del closing["then"]
        except Exception as error:
            closing["then"] = "error"
            self.emit_error(error)
            del closing["then"]
        finally:
            sys.stdout, sys.stderr = before
            self.emit(closing)

    def emit_error(self, error: Exception) -> None:
        """Send the error chunk of *error*; raises what its ``__str__`` raises."""
        name, value = type(error).__name__, str(error)
        last = name + ": " + value + "\n" if value else name + "\n"
        text = last
        if not isinstance(error, SyntaxError):
            text = "Traceback (most recent call last):\n" + "".join(user_frames(error.__traceback__)) + last
        self.emit({"type": "error", "name": name, "value": value, "traceback": text})


def user_frames(trace: TracebackType | None) -> Iterator[str]:
    """Yield one traceback line for each frame of code that came in a command."""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<string>":
            yield f'  File "<stdin>", line {trace.tb_lineno}\n'
        trace = trace.tb_next


def main() -> None:
    """Install the signal handlers and serve until the end."""
    worker = Worker()

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        worker.stopping = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, stop)
    worker.run()


if __name__ == "__main__":
    main()
