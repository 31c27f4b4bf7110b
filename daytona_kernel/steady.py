"""Standard streams whose reader may go away (``| head``, a closed terminal): what is at work goes on."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import TextIO


class _Steady(io.TextIOBase):
    """Writes to *out*, and to nowhere once nobody reads there any more."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        with _unread(self._out):
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        with _unread(self._out):
            self._out.flush()

    def isatty(self) -> bool:
        return self._out.isatty()

    def fileno(self) -> int:
        return self._out.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._out.encoding


@contextmanager
def _unread(out: TextIO) -> Iterator[None]:
    try:
        yield
    except OSError:
        discard(out)


def discard(out: TextIO) -> None:
    """Let all that is still written to *out* go nowhere: the interpreter, too, flushes it when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


@contextmanager
def steady_stderr() -> Iterator[None]:
    """Within, writing to ``sys.stderr`` never fails, whoever reads it and if it was closed from the start."""
    if sys.stderr is None:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            yield
        return
    with redirect_stderr(_Steady(sys.stderr)):
        yield
