"""Terminals with a shell (``/process/pty``): what a PTY session is.

The shell becomes the leader of a session whose controlling terminal is the new PTY without any code between
fork and exec: a first ``sh`` opens the terminal by its name, which is what makes it the controlling one, and
then becomes the real shell.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web

from .children import Child, Children, PipeReader
from .errors import timestamp
from .shell import find_shell

DEFAULT_COLS, DEFAULT_ROWS, MAX_SIZE = 80, 24, 1000
TERM = "xterm-256color"
QUEUED_CHUNKS_HIGH, QUEUED_CHUNKS_LOW = 64, 16
"""A client with this many unsent chunks pauses the terminal, until it is down to the lower number."""
SLOW_SECONDS = 5.0
"""How long one client may keep the terminal paused; then it is closed as a slow consumer.

v0.190.0 closes a client with 256 unsent chunks at once, without pausing. That bounds memory too, but loses
clients that are merely bursty behind a local proxy.
"""
SEND_BYTES = 64 * 1024
CLOSE_SECONDS = 2.0
"""How long a client may take to read what was sent and its close frame before it is cut off."""

_OPEN_TERMINAL = 'tty=$1; shift; exec "$@" <>"$tty" >&0 2>&1'


def exit_report(returncode: int) -> dict[str, Any]:
    """Describe the end of a shell as v0.190.0 does: 137 for SIGKILL, -1 for other signals."""
    if returncode == 0:
        return {"exitCode": 0}
    if returncode > 0:
        return {"exitCode": returncode, "exitReason": "non-zero exit"}
    name = signal.Signals(-returncode).name
    return {"exitCode": 137 if -returncode == signal.SIGKILL else -1, "exitReason": name}


class Client:
    """One WebSocket that is attached to a terminal; its own task sends what is queued."""

    def __init__(
        self,
        terminal: Terminal,
        socket: web.WebSocketResponse,
        *,
        wants_exit_message: bool,
        abort: Callable[[], None],
    ) -> None:
        self._terminal = terminal
        self._socket = socket
        self._abort = abort
        self._deadline: asyncio.TimerHandle | None = None
        self._wants_exit_message = wants_exit_message
        self._queue: deque[bytes] = deque()
        self._more = asyncio.Event()
        self._report: dict[str, Any] | None = None
        self._too_slow = False

    @property
    def queued(self) -> int:
        """The number of chunks not yet given to the socket."""
        return len(self._queue)

    def push(self, data: bytes) -> None:
        """Queue output."""
        self._queue.append(data)
        self._more.set()

    def finish(self, report: dict[str, Any]) -> None:
        """Tell the client about the shell's end, after all that is queued."""
        self._report = report
        self._more.set()

    def give_up(self) -> None:
        """Forget what is queued and close: the client does not read. If it goes on so, it is cut off."""
        self._too_slow = True
        self._deadline = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._abort)
        self._queue.clear()
        self._more.set()

    async def send(self) -> None:
        """Send until the shell has ended or the client is given up. Leaves the socket open."""
        while True:
            if not self._queue:
                if self._report is not None or self._too_slow:
                    return
                self._more.clear()
                await self._more.wait()
                continue
            pieces, size = [], 0
            while self._queue and size < SEND_BYTES:
                pieces.append(self._queue.popleft())
                size += len(pieces[-1])
            self._terminal.relieved()
            await self._socket.send_bytes(b"".join(pieces))

    async def close(self) -> None:
        """Say good-bye in the way that this client understands."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._too_slow:
            await self._socket.close(code=1008, message=b"slow consumer")
        elif self._report is not None:
            report = self._report
            if self._wants_exit_message:
                await self._socket.send_str(json.dumps({"type": "control", "status": "exited", **report}))
                await self._socket.close()
            else:
                code = 1000 if report["exitCode"] == 0 else 1011
                await self._socket.close(code=code, message=json.dumps(report).encode())


class Terminal:
    """A shell in a terminal; lives until the shell ends, whoever is attached."""

    def __init__(
        self, name: str, cwd: str, envs: dict[str, str], cols: int, rows: int, *, lazy: bool
    ) -> None:
        self.id = name
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cwd = cwd
        self._envs = envs
        self._cols, self._rows = cols, rows
        self._lazy = lazy
        self._created = timestamp()
        self._clients: list[Client] = []
        self._child: Child | None = None
        self._master = self._slave = -1
        self._reader: PipeReader | None = None
        self._paused: asyncio.TimerHandle | None = None
        self._report: dict[str, Any] | None = None

    @property
    def started(self) -> bool:
        """Whether the shell has been started."""
        return self._child is not None

    def start(self, children: Children, env: dict[str, str]) -> None:
        """Start the shell. Its output waits until :meth:`read`.

        :raises OSError: if that fails (a missing directory, no terminals left).
        """
        env = {"TERM": TERM, **env, **self._envs}
        self._master, self._slave = os.openpty()
        try:
            os.set_blocking(self._master, False)
            self._set_size()
            # Interactive but no login shell: /etc/profile would replace the PATH of the sandbox's Python.
            argv = ["/bin/sh", "-c", _OPEN_TERMINAL, "sh", os.ttyname(self._slave), find_shell(env), "-i"]
            self._child = children.spawn(argv, env=env, cwd=self._cwd)
        except BaseException:
            os.close(self._master)
            os.close(self._slave)
            raise
        self._child.on_end(self._on_end)

    def read(self) -> None:
        """Begin to deliver the output (to nobody, while nobody is attached)."""
        if self._reader is None and not self.ended.done():
            self._reader = PipeReader(self._master, self._on_output)

    def _on_output(self, data: bytes) -> None:
        for client in self._clients:
            client.push(data)
        if self._reader and not self._paused and self._slow_clients():
            self._reader.pause()
            self._paused = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._drop_slow_clients)

    def _slow_clients(self, limit: int = QUEUED_CHUNKS_HIGH) -> list[Client]:
        return [client for client in self._clients if client.queued >= limit]

    def relieved(self) -> None:
        """A client's queue has become shorter: read on if all are short now."""
        if self._paused and self._reader and not self._slow_clients(QUEUED_CHUNKS_LOW):
            self._paused.cancel()
            self._paused = None
            self._reader.resume()

    def _drop_slow_clients(self) -> None:
        for client in self._slow_clients(QUEUED_CHUNKS_LOW):
            client.give_up()
            self._clients.remove(client)
        self.relieved()

    def _on_end(self, returncode: int) -> None:
        if self._paused:
            self._paused.cancel()
            self._paused = None
        self.read()  # the shell may have ended before anybody came
        if self._reader:
            self._reader.drain()
            self._reader.close()  # and with it the master
        os.close(self._slave)
        self._report = exit_report(returncode)
        self.ended.set_result(None)
        for client in self._clients:
            client.finish(self._report)

    def attach(self, client: Client) -> None:
        """Add a client; it gets what comes from now on."""
        self._clients.append(client)
        if self._report is not None:  # it has ended since the client asked for it
            client.finish(self._report)

    def detach(self, client: Client) -> None:
        """Remove a client."""
        if client in self._clients:
            self._clients.remove(client)
            self.relieved()

    async def write(self, data: bytes) -> None:
        """Type ``data``; waits while the terminal takes no more."""
        loop = asyncio.get_running_loop()
        while data and not self.ended.done():
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                ready = loop.create_future()
                # A descriptor of its own: the master has a reader already, and may be closed meanwhile.
                fd = os.dup(self._master)
                loop.add_writer(fd, _set_once, ready)
                try:
                    await asyncio.wait([ready, self.ended], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    loop.remove_writer(fd)
                    os.close(fd)
            except OSError:
                return  # the terminal has just gone

    def resize(self, cols: int, rows: int) -> None:
        """Change the size; the system tells the foreground program (SIGWINCH)."""
        self._cols, self._rows = cols, rows
        if self.started:
            self._set_size()

    def _set_size(self) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", self._rows, self._cols, 0, 0))

    async def kill(self) -> None:
        """End the shell and all its jobs at once."""
        if self._child is not None:
            self._child.kill_session()
            await self._child.wait()
        elif not self.ended.done():
            self.ended.set_result(None)

    def describe(self) -> dict[str, Any]:
        """Give the session as the API shows it."""
        return {
            "id": self.id,
            "cwd": self._cwd,
            "envs": self._envs,
            "cols": self._cols,
            "rows": self._rows,
            "createdAt": self._created,
            "active": self.started and not self.ended.done(),
            "lazyStart": self._lazy,
        }


def _set_once(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
