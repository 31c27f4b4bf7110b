"""The daemon's handle on one worker process: start, commands in, chunks out, signals, death."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .children import KILL_ROUNDS, Child, Children, pipe, session_members, signal_all
from .chunks import LineSplitter, LineTooLongError, parse_line

SCRIPT_NAME = "daytona_repl_worker.py"
SCRIPT_MARK = b"# daytona-kernel interpreter worker "
"""Start of the first line of the copies that we write; a digest of the rest follows."""
READ_BYTES = 1024 * 1024
READS_AFTER_DEATH = 64
"""A dead worker's child may keep writing to the pipe; what the worker itself left there is one pipe's
content."""
LINES_PER_TURN = 256
"""Lines handled before the event loop gets a turn, so that a flood neither starves it nor fills a client's
queue."""


@dataclass(frozen=True)
class Host:
    """What a worker needs of its sandbox."""

    children: Children
    python: str
    env: Mapping[str, str]
    """The environment of workers; a view of what may change between two starts."""


class Sink(Protocol):
    """Who takes what a worker sends."""

    def deliver(self, worker: WorkerProcess, fields: dict[str, Any]) -> bool:
        """Take one object line; ``False``: the client's queue is full, so :meth:`relieve` and try again."""

    async def relieve(self) -> None:
        """Return when delivering can go on."""

    def worker_died(self, worker: WorkerProcess) -> None:
        """Called once, after everything that *worker* had written was delivered."""


def install_script(temp_dir: str) -> Path:
    """Put the worker's script into *temp_dir* and return its path; a copy that is there is used as it is.

    "As it is" includes copies that somebody edited, as with the real daemon. Two exceptions, since a local
    sandbox may share its temporary directory: a file of another user is never run, and a copy left by another
    version of this package is replaced. Raises ``OSError`` if there is no place for it.
    """
    source = Path(__file__).with_name("worker.py").read_bytes()
    mark = SCRIPT_MARK + hashlib.sha256(source).hexdigest()[:16].encode()
    for directory in (Path(temp_dir), Path(temp_dir, f"daytona-worker-{os.getuid()}")):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _only_we_replace_files_in(directory):
            continue
        path = directory / SCRIPT_NAME
        try:
            mine, first = _peek(path)
        except FileNotFoundError:
            mine, first = True, SCRIPT_MARK
        except OSError:
            continue  # a symbolic link, or not readable: not ours
        if mine and (first == mark or not first.startswith(SCRIPT_MARK)):
            return path
        if mine:
            fd, temporary = tempfile.mkstemp(dir=directory, prefix=SCRIPT_NAME)
            with open(fd, "wb") as file:
                file.write(mark + b"\n" + source)
            os.replace(temporary, path)
            return path
    raise PermissionError(f"no place for the interpreter's worker in {temp_dir}")


def _only_we_replace_files_in(directory: Path) -> bool:
    """Whether it is ours or, like ``/tmp``, lets everybody replace only their own files."""
    status = directory.stat()
    return status.st_uid == os.getuid() or bool(status.st_mode & stat.S_ISVTX)


def _peek(path: Path) -> tuple[bool, bytes]:
    """Whether the file belongs to us, and its first line."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        return os.fstat(file.fileno()).st_uid == os.getuid(), file.readline().rstrip()


class WorkerProcess:
    """One worker, in a session of its own so that its children can be found and killed with it."""

    def __init__(self, child: Child, commands: asyncio.WriteTransport, chunk_fd: int, sink: Sink) -> None:
        self._child = child
        self._commands = commands
        self._chunk_fd = chunk_fd
        self._sink = sink
        self._splitter = LineSplitter()
        self._readable = asyncio.Event()
        self._exited = False
        self._has_orphans = False
        self.dead = asyncio.Event()
        self.doomed = False
        """SIGKILL has been sent; nothing can be delivered to it any more."""
        self._reader = asyncio.create_task(self._read())
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    async def start(cls, host: Host, cwd: str, sink: Sink) -> WorkerProcess:
        """Start a worker; it takes commands at once (they wait in the pipe while Python starts).

        Raises ``OSError`` if the interpreter or *cwd* does not exist or the script cannot be written.
        """
        script = install_script(host.env.get("TMPDIR") or "/tmp")  # noqa: S108 - the real daemon's place
        command_read, command_write = os.pipe()
        chunk_read, chunk_write = pipe()
        try:
            argv = [host.python, str(script)]
            child = host.children.spawn(argv, env=host.env, cwd=cwd, stdin=command_read, stdout=chunk_write)
        except BaseException:
            os.close(command_write)
            os.close(chunk_read)
            raise
        finally:
            os.close(command_read)
            os.close(chunk_write)
        loop = asyncio.get_running_loop()
        commands, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(command_write, "wb", 0))
        return cls(child, commands, chunk_read, sink)

    @property
    def pid(self) -> int:
        """Its process id, which is its session's too."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether its death has not been noticed yet."""
        return not self.dead.is_set()

    def send(self, command: Mapping[str, Any]) -> bool:
        """Write one command; ``False`` if it could not be delivered."""
        if self.doomed or self._exited or self._commands.is_closing():
            return False
        self._commands.write(json.dumps(command).encode() + b"\n")
        return True

    def interrupt(self) -> None:
        """SIGINT to the worker itself, not to its children."""
        self._signal(signal.SIGINT)

    def terminate(self) -> None:
        """Ask the worker to stop: KeyboardInterrupt in the cell that runs, then its normal exit."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the worker now."""
        self.doomed = True
        self._signal(signal.SIGKILL)

    def kill_session(self) -> None:
        """End the worker and whatever it left behind in its session."""
        self.kill()
        if not self.dead.is_set() or self._has_orphans:  # else the number may be somebody else's by now
            for _ in range(KILL_ROUNDS):
                members = session_members(self.pid)
                signal_all(members, signal.SIGKILL)
                if not members:
                    break

    def _signal(self, number: int) -> None:
        if self._child.returncode is None:
            signal_all({self.pid}, number)

    async def _watch(self) -> None:
        """Report the worker's death, after what it had written before."""
        await self._child.wait()
        self._exited = True
        self._readable.set()
        await asyncio.wait({self._reader})
        os.close(self._chunk_fd)
        if not self._commands.is_closing():  # it closes itself when it meets a broken pipe
            self._commands.abort()
        self._has_orphans = bool(session_members(self.pid))
        self.dead.set()
        self._sink.worker_died(self)

    async def _read(self) -> None:
        """Deliver lines until the pipe ends, the worker is dead and the pipe empty, or a line is too long."""
        loop = asyncio.get_running_loop()
        reads_left = READS_AFTER_DEATH
        while reads_left:
            reads_left -= self._exited
            self._readable.clear()
            try:
                data = os.read(self._chunk_fd, READ_BYTES)
            except BlockingIOError:
                if self._exited:
                    # its children may hold the other end open for ever, so the pipe's end may never come
                    break
                loop.add_reader(self._chunk_fd, self._readable.set)
                try:
                    await self._readable.wait()
                finally:
                    loop.remove_reader(self._chunk_fd)
                continue
            if not data:
                break
            if not await self._take(data):
                return
            await asyncio.sleep(0)
        if rest := self._splitter.rest():
            await self._deliver(rest)

    async def _take(self, data: bytes) -> bool:
        """Deliver the lines in *data*; ``False`` if reading must stop for good."""
        try:
            for count, line in enumerate(self._splitter.feed(data), 1):
                await self._deliver(line)
                if count % LINES_PER_TURN == 0:
                    await asyncio.sleep(0)
        except LineTooLongError:
            return False  # the worker will now block on a full pipe; only the timeout ends that
        return True

    async def _deliver(self, line: bytes) -> None:
        fields = parse_line(line)
        if fields is not None:
            while not self._sink.deliver(self, fields):
                await self._sink.relieve()
