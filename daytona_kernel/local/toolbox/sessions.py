"""Shells that live as long as their client wants (``/process/session``): what a session is.

A session is one shell process. Commands are files that it sources one after the other, so ``cd`` and
variables persist. Each command has its own named pipes for output and input; its exit status comes back
through a pipe that belongs to the session. Unlike v0.190.0, where a command that ends the shell (``exit 3``)
hangs its caller for ever, the end of the shell is the end of its command here, with the shell's exit status.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import tempfile
import uuid
from collections import deque
from typing import Any

from .children import Child, Children, PipeReader, enlarge_pipe, exit_code
from .errors import ToolboxError
from .logs import STDERR, STDOUT, CommandLog, Labeller
from .shell import find_shell

END_GRACE_SECONDS = 5.0
"""How long a deleted session's processes may take to end before they are killed (v0.190.0)."""


class Command:
    """One command of a session: waiting, running or ended (then ``exit_code`` is set)."""

    def __init__(self, directory: str, text: str, *, with_input: bool, echo_input: bool) -> None:
        self.id = str(uuid.uuid4())
        self.text = text
        self.exit_code: int | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._directory = os.path.join(directory, self.id)
        os.mkdir(self._directory, 0o700)
        self.log = CommandLog(self._path("log"))
        self._echo_input = echo_input
        self._input_fd: int | None = None
        self._readers: list[PipeReader] = []
        self._labellers = {label: Labeller(label) for label in (STDOUT, STDERR)}
        with open(self._path("command"), "wb") as file:
            file.write(text.encode("utf-8", "replace") + b"\n")
        if with_input:
            os.mkfifo(self._path("in"), 0o600)
            # Open for reading too: so the pipe never loses its last reader or writer while the command runs.
            self._input_fd = os.open(self._path("in"), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def start(self, status_path: str) -> bytes:
        """Open the pipes and give the line that makes the shell run the command."""
        for name, label in (("out", STDOUT), ("err", STDERR)):
            os.mkfifo(self._path(name), 0o600)
            fd = os.open(self._path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            enlarge_pipe(fd)
            self._readers.append(PipeReader(fd, self._logger(self._labellers[label])))
        source = "/dev/null" if self._input_fd is None else self._path("in")
        command, out, err, source, status = map(
            shlex.quote, (self._path("command"), self._path("out"), self._path("err"), source, status_path)
        )
        return f"{{ . {command}; }} >{out} 2>{err} <{source}; command echo {self.id} $? >{status}\n".encode()

    def _logger(self, labeller: Labeller) -> Any:
        def on_data(data: bytes) -> None:
            if lines := labeller.feed(data):
                self.log.append(lines)

        return on_data

    def end(self, code: int | None) -> None:
        """Record the end. What is in the pipes is logged; a child that outlives the command may log on."""
        if self.ended.done():
            return
        for reader in self._readers:
            reader.drain()
        for labeller in self._labellers.values():
            if line := labeller.finish():
                self.log.append(line)
        self.exit_code = code
        if self._input_fd is not None:
            os.close(self._input_fd)
            self._input_fd = None
        for name in ("out", "err", "in", "command"):
            try:
                os.unlink(self._path(name))
            except FileNotFoundError:
                pass
        self.log.end()
        self.ended.set_result(None)

    def close(self) -> None:
        """Release everything; the session is being deleted."""
        self.end(self.exit_code)
        for reader in self._readers:
            reader.close()
        self.log.close()

    async def send(self, data: str) -> None:
        """Give the command a line of input.

        :raises ToolboxError: 410 if it has ended, 400 if it runs without input.
        """
        if self.ended.done():
            raise ToolboxError(410, "the command has already completed", "COMMAND_ALREADY_COMPLETED")
        if self._input_fd is None:
            raise ToolboxError(400, "a synchronous command has no input")
        line = data.encode("utf-8", "replace")
        if not line.endswith(b"\n"):
            line += b"\n"
        if self._echo_input:
            self.log.append(Labeller(STDOUT).feed(line))
        await self._write(line)

    async def _write(self, data: bytes) -> None:
        while data:
            if self._input_fd is None:
                raise ToolboxError(410, "the command has already completed", "COMMAND_ALREADY_COMPLETED")
            try:
                data = data[os.write(self._input_fd, data) :]
            except BlockingIOError:
                await self._writable(self._input_fd)

    async def _writable(self, fd: int) -> None:
        """Wait until the command has read some of its input, or has ended."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def on_writable() -> None:
            loop.remove_writer(fd)
            ready.set_result(None)

        loop.add_writer(fd, on_writable)
        try:
            await asyncio.wait([ready, self.ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_writer(fd)

    def describe(self) -> dict[str, Any]:
        """Give the command as the API shows it; no exit code while it has none."""
        found: dict[str, Any] = {"id": self.id, "command": self.text}
        if self.exit_code is not None:
            found["exitCode"] = self.exit_code
        return found


class Session:
    """A shell and its commands."""

    def __init__(self, children: Children, session_id: str, env: dict[str, str], cwd: str) -> None:
        """Start the shell.

        :raises OSError: if it cannot be started.
        """
        self.id = session_id
        self.commands: dict[str, Command] = {}
        self._directory = tempfile.mkdtemp(prefix="daytona-session-")
        self._waiting: deque[Command] = deque()
        self._current: Command | None = None
        self._status_path = os.path.join(self._directory, "status")
        os.mkfifo(self._status_path, 0o600)
        status = os.open(self._status_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._status_text = b""
        self._status = PipeReader(status, self._on_status)
        source, self._shell_input = os.pipe()
        try:
            self._shell: Child = children.spawn([find_shell(env)], env=env, cwd=cwd, stdin=source)
        except BaseException:
            self._release()
            raise
        finally:
            os.close(source)
        self._shell.on_end(self._on_shell_end)

    @property
    def ended(self) -> bool:
        """Whether the shell has ended, so that no command can run any more."""
        return self._shell.returncode is not None

    def run(self, text: str, *, with_input: bool, echo_input: bool) -> Command:
        """Queue a command.

        :raises ToolboxError: 410 SESSION_ENDED if the shell has ended.
        """
        if self.ended:
            raise ToolboxError(410, f"the shell of session {self.id} has ended", "SESSION_ENDED")
        command = Command(self._directory, text, with_input=with_input, echo_input=echo_input)
        self.commands[command.id] = command
        self._waiting.append(command)
        if self._current is None:
            self._start_next()
        return command

    def _start_next(self) -> None:
        self._current = self._waiting.popleft() if self._waiting else None
        if self._current is not None:
            try:
                os.write(self._shell_input, self._current.start(self._status_path))
            except BrokenPipeError:
                pass  # the shell is dying; its end is about to be noticed

    def _on_status(self, data: bytes) -> None:
        *lines, self._status_text = (self._status_text + data).split(b"\n")
        for line in lines:
            name, _, code = line.decode("ascii", "replace").partition(" ")
            # User code could write here too; only the running command's own name ends it.
            if self._current is not None and name == self._current.id and code.isdigit():
                self._current.end(int(code))
                self._start_next()

    def _on_shell_end(self, returncode: int) -> None:
        self._status.drain()  # the last command may have ended before the shell
        for command in (self._current, *self._waiting):
            if command is not None:
                command.end(exit_code(returncode))
        self._current = None
        self._waiting.clear()

    async def delete(self) -> None:
        """End the shell and all its processes and forget the logs."""
        await self._shell.end(END_GRACE_SECONDS)
        self._release()

    def _release(self) -> None:
        for command in self.commands.values():
            command.close()
        self._status.close()
        os.close(self._shell_input)
        shutil.rmtree(self._directory, ignore_errors=True)

    def describe(self) -> dict[str, Any]:
        """Give the session as the API shows it."""
        return {"sessionId": self.id, "commands": [command.describe() for command in self.commands.values()]}
