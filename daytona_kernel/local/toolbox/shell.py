"""Running one command to its end and collecting what it wrote."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .children import Child, Children, PipeReader, exit_code, pipe
from .errors import ToolboxError


@dataclass(frozen=True)
class Outcome:
    """How a command ended; ``output`` is stdout and stderr as they came."""

    exit_code: int
    output: bytes

    @property
    def text(self) -> str:
        """The output as text; what is not UTF-8 becomes U+FFFD."""
        return self.output.decode("utf-8", "replace")


def find_shell(env: Mapping[str, str]) -> str:
    """Choose the shell as the real daemon does: zsh or bash if ``/etc/shells`` lists them, ``$SHELL``, sh."""
    try:
        with open("/etc/shells", encoding="utf-8", errors="replace") as file:
            listed = [line.strip() for line in file]
    except OSError:
        listed = []
    for name in ("zsh", "bash"):
        for path in listed:
            if os.path.basename(path) == name and os.access(path, os.X_OK):
                return path
    for path in (env.get("SHELL", ""), "/bin/bash"):
        if path and os.access(path, os.X_OK):
            return path
    return shutil.which("sh", path=env.get("PATH", os.defpath)) or "/bin/sh"


def input_file(data: bytes) -> int:
    """Make a descriptor from which ``data`` can be read, then end of file.

    A file in memory, not a pipe: nobody has to feed it, and a shell reads its script from it in blocks.
    """
    try:
        fd = os.memfd_create("input")
    except (AttributeError, OSError):  # not Linux
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


async def run(
    children: Children,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    stdin: bytes = b"",
    timeout_seconds: float | None = None,
) -> Outcome:
    """Run ``argv`` until it has ended *and* nobody holds its output open any more (as the real daemon waits).

    What cannot be started is an outcome too: exit code -1 with the reason as output.

    :raises ToolboxError: 408 after ``timeout_seconds``; the process group is killed and its output lost.
    """
    read_end, write_end = pipe()
    source = input_file(stdin)
    try:
        child = children.spawn(argv, env=env, cwd=cwd, stdin=source, stdout=write_end, stderr=write_end)
    except (OSError, ValueError) as exc:
        os.close(read_end)
        return Outcome(-1, str(exc).encode("utf-8", "replace"))
    finally:
        os.close(source)
        os.close(write_end)
    output = bytearray()
    reader = PipeReader(read_end, output.extend)
    try:
        status = await asyncio.wait_for(_ended(child, reader), timeout_seconds)
    except asyncio.TimeoutError:
        child.signal_group(signal.SIGKILL)
        await child.wait()
        raise ToolboxError(408, "request timeout: command execution timeout", "REQUEST_TIMEOUT") from None
    finally:
        reader.close()
    return Outcome(exit_code(status), bytes(output))


async def _ended(child: Child, reader: PipeReader) -> int:
    await asyncio.shield(reader.ended)
    return await child.wait()
