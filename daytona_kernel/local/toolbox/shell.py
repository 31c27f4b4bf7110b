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
    """How a command ended; ``output`` is stdout, and stderr too unless that was kept separate."""

    exit_code: int
    output: bytes
    errors: bytes = b""
    started: bool = True

    @property
    def text(self) -> str:
        """The output as text; what is not UTF-8 becomes U+FFFD."""
        return self.output.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """What was written to a separate stderr, as text."""
        return self.errors.decode("utf-8", "replace")


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
    separate_errors: bool = False,
) -> Outcome:
    """Run ``argv`` until it has ended *and* nobody holds its output open any more (as the real daemon waits).

    What cannot be started is an outcome too: exit code -1 with the reason as output.

    :raises ToolboxError: 408 after ``timeout_seconds``; the process group is killed and its output lost.
    """
    pipes = [pipe() for _ in range(2 if separate_errors else 1)]
    source = input_file(stdin)
    try:
        child = children.spawn(argv, env=env, cwd=cwd, stdin=source, stdout=pipes[0][1], stderr=pipes[-1][1])
    except (OSError, ValueError) as exc:
        for read_end, _ in pipes:
            os.close(read_end)
        return Outcome(-1, str(exc).encode("utf-8", "replace"), started=False)
    finally:
        for fd in (source, *(write_end for _, write_end in pipes)):
            os.close(fd)
    outputs = [bytearray() for _ in pipes]
    readers = [PipeReader(read_end, out.extend) for (read_end, _), out in zip(pipes, outputs, strict=True)]
    try:
        status = await asyncio.wait_for(_ended(child, readers), timeout_seconds)
    except asyncio.TimeoutError:
        child.signal_group(signal.SIGKILL)
        await child.wait()
        raise ToolboxError(408, "request timeout: command execution timeout", "REQUEST_TIMEOUT") from None
    finally:
        for reader in readers:
            reader.close()
    errors = bytes(outputs[1]) if separate_errors else b""
    return Outcome(exit_code(status), bytes(outputs[0]), errors)


async def _ended(child: Child, readers: Sequence[PipeReader]) -> int:
    for reader in readers:
        await asyncio.shield(reader.ended)
    return await child.wait()
