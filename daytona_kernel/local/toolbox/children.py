"""Processes that the daemon starts: spawning, waiting without threads, and an end that leaves nobody behind.

The daemon makes itself the *subreaper* of its descendants (Linux): a process whose parent died becomes the
daemon's child, as it would become a child of PID 1 in a container. So everything that ever came out of the
sandbox's API, ``setsid`` or not, can be found and killed when the daemon ends, and is reaped when it dies.
Every process of the daemon must be started by :meth:`Children.spawn`: what it does not know, it takes for an
orphan.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import IO, NamedTuple

from aiohttp import web

log = logging.getLogger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_F_SETPIPE_SZ = 1031
PIPE_BYTES = 1024 * 1024
READ_BYTES = 256 * 1024
ORPHAN_REAP_SECONDS = 0.05
"""Deaths within this time share one look at the children."""
TERM_GRACE_SECONDS = 0.4
KILL_ROUNDS = 20
"""A fork bomb can outrun some."""

Stdio = int | IO[bytes] | None


class Child:
    """A running process, the leader of its own session and process group."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pid = process.pid
        self._process = process
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watch()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            fd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or a kernel (or filter) without pidfds
            threading.Thread(target=self._wait_in_thread, args=(loop,), daemon=True).start()
            return

        def on_exit() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            self._finish(self._process.wait())

        loop.add_reader(fd, on_exit)

    def _wait_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()
        try:
            loop.call_soon_threadsafe(self._finish, code)
        except RuntimeError:
            pass  # the loop has ended before the process

    def _finish(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for death by a signal; ``None`` while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Wait for the end of the process (not of its children). Cancelling is safe."""
        return await asyncio.shield(self._ended)

    def on_end(self, callback: Callable[[int], None]) -> None:
        """Call ``callback`` with the exit status, in the loop, when the process has ended."""
        self._ended.add_done_callback(lambda ended: callback(ended.result()))

    async def end(self, grace_seconds: float) -> None:
        """End it with its whole session and tree: SIGTERM, after ``grace_seconds`` SIGKILL."""
        await end_tree(lambda: session_members(self.pid), grace_seconds)
        await self.wait()

    def kill_session(self) -> None:
        """Send SIGKILL to its whole session: the jobs of an interactive shell have groups of their own."""
        signal_all(session_members(self.pid), signal.SIGKILL)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process group; does nothing when nobody is left in it."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # PermissionError: only zombies, or set-uid programs that are not ours to kill


class Children:
    """The processes that one application has started."""

    def __init__(self) -> None:
        self._living: set[Child] = set()
        self._adopts_orphans = False

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        stdin: Stdio = subprocess.DEVNULL,
        stdout: Stdio = subprocess.DEVNULL,
        stderr: Stdio = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> Child:
        """Start ``argv`` in its own session with exactly ``env``, whose PATH is searched for the program.

        :raises OSError: if it cannot be started (program or ``cwd`` missing, no permission).
        :raises ValueError: if an argument holds a NUL.
        """
        program = shutil.which(argv[0], path=env.get("PATH", os.defpath)) or argv[0]
        process = subprocess.Popen(
            argv,
            executable=program,
            env=env,
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        child = Child(process)
        self._living.add(child)
        child.on_end(lambda _: self._living.discard(child))
        return child

    def adopt_orphans(self) -> None:
        """Become responsible for everything below this process, which is a daemon and nothing else."""
        self._adopts_orphans = become_subreaper()

    def reap_orphans(self) -> None:
        """Reap the adopted processes that have ended; those that :meth:`spawn` started have watchers."""
        known = {child.pid for child in self._living}
        for pid in direct_children() - known:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass

    async def end_all(self) -> None:
        """End all that is left: SIGTERM, a moment of grace, then SIGKILL until none is left."""
        await end_tree(self._roots, TERM_GRACE_SECONDS)

    def _roots(self) -> set[int]:
        if self._adopts_orphans:
            return descendants([os.getpid()])
        return {member for child in self._living for member in session_members(child.pid)}


CHILDREN = web.AppKey("children", Children)


def pipe() -> tuple[int, int]:
    """Make a pipe (read end, write end) whose read end does not block; as large as the system grants."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    enlarge_pipe(read_end)
    return read_end, write_end


def enlarge_pipe(fd: int) -> None:
    """Let a pipe hold more, so that a fast writer needs fewer switches. Best effort."""
    try:
        import fcntl

        fcntl.fcntl(fd, _F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, OSError):
        pass  # not Linux, or the user's pipe quota is used up


class PipeReader:
    """Reads a non-blocking descriptor as data comes and owns it: it is closed at the end of file."""

    def __init__(self, fd: int, on_data: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._on_data = on_data
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(fd, self._read)

    def _read(self) -> int:
        """Read once; give the number of bytes, 0 if there is nothing (any more)."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:  # EIO: the other side of a terminal is gone
            data = b""
        if not data:
            self.close()
            return 0
        self._on_data(data)
        return len(data)

    def drain(self) -> None:
        """Take what is there now: at most what a pipe holds, since somebody may be writing without end."""
        taken = 0
        while taken < PIPE_BYTES and not self.ended.done() and (count := self._read()):
            taken += count

    def pause(self) -> None:
        """Stop reading; the writer blocks once the pipe is full."""
        if not self.ended.done():
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Read again after :meth:`pause`."""
        if not self.ended.done():
            self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Stop reading and close the descriptor. Safe to call twice."""
        if not self.ended.done():
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.ended.set_result(None)


def exit_code(returncode: int) -> int:
    """Map an exit status to what the API reports: -1 for death by a signal (observed on v0.190.0)."""
    return returncode if returncode >= 0 else -1


# --- the tree of processes --------------------------------------------------------------------------------


class ProcessEntry(NamedTuple):
    """One line of the table of processes."""

    parent: int
    session: int
    state: str
    """A letter as in ``ps``; Z and X mean dead."""

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.state not in "ZX"


def processes() -> dict[int, ProcessEntry]:
    """List the visible processes, from ``/proc``; empty where there is none."""
    table: dict[int, ProcessEntry] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return table
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent, _, session = file.read().rpartition(b")")[2].split()[:4]
            except (OSError, ValueError):
                continue  # it has just ended
            table[int(name)] = ProcessEntry(int(parent), int(session), state.decode())
    return table


def descendants(roots: Iterable[int]) -> set[int]:
    """Find the living processes below ``roots`` (without those themselves)."""
    children: dict[int, list[int]] = {}
    for pid, entry in processes().items():
        if entry.alive:
            children.setdefault(entry.parent, []).append(pid)
    found: set[int] = set()
    queue = list(roots)
    while queue:
        for pid in children.get(queue.pop(), ()):
            if pid not in found:
                found.add(pid)
                queue.append(pid)
    return found


def session_members(session: int) -> set[int]:
    """Find the living processes of a session: also those whose parent has ended."""
    return {pid for pid, entry in processes().items() if entry.session == session and entry.alive}


def signal_all(pids: Iterable[int], *numbers: int) -> None:
    """Send signals to processes, of which some may have ended already."""
    for pid in pids:
        for number in numbers:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                pass


async def end_tree(find_roots: Callable[[], Iterable[int]], grace_seconds: float) -> None:
    """End processes and all below them: SIGTERM (SIGHUP for shells), after ``grace_seconds`` SIGKILL.

    ``find_roots`` is asked again for each round: what dies may leave orphans that are roots themselves.
    """

    def everyone() -> set[int]:
        roots = set(find_roots())
        return roots | descendants(roots)

    signal_all(everyone(), signal.SIGTERM, signal.SIGHUP, signal.SIGCONT)
    try:
        await asyncio.wait_for(_gone(everyone()), grace_seconds)
    except asyncio.TimeoutError:
        pass
    for _ in range(KILL_ROUNDS):
        left = everyone()
        signal_all(left, signal.SIGKILL)
        try:
            return await asyncio.wait_for(_gone(left), 0.05)
        except asyncio.TimeoutError:
            continue
    log.warning("%d processes survived SIGKILL", len(everyone()))


async def _gone(pids: Iterable[int]) -> None:
    """Wait until none of ``pids`` lives (there is no event for processes that are not our children)."""
    left = set(pids)
    while left:
        table = processes()
        left = {pid for pid in left if pid in table and table[pid].alive}
        if left:
            await asyncio.sleep(0.02)


# --- orphans ----------------------------------------------------------------------------------------------


def become_subreaper() -> bool:
    """Adopt orphaned descendants; ``False`` where the system cannot (then only process groups are killed)."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def direct_children() -> set[int]:
    """List this process's own children, dead ones included, as cheaply as the system allows."""
    mine = os.getpid()
    try:
        with open(f"/proc/self/task/{mine}/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        return {pid for pid, entry in processes().items() if entry.parent == mine}


async def _reap_orphans(app: web.Application) -> AsyncIterator[None]:
    """Reap adopted processes when they end. Woken by SIGCHLD, so it costs nothing while nothing dies."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def reap() -> None:
        nonlocal timer
        timer = None
        app[CHILDREN].reap_orphans()

    def schedule() -> None:
        nonlocal timer
        timer = timer or loop.call_later(ORPHAN_REAP_SECONDS, reap)

    loop.add_signal_handler(signal.SIGCHLD, schedule)
    yield
    loop.remove_signal_handler(signal.SIGCHLD)
    if timer:
        timer.cancel()


def own_process(app: web.Application) -> None:
    """Make ``app`` the master of this whole process: orphans are adopted, reaped, and killed at the end."""
    app[CHILDREN].adopt_orphans()
    app.cleanup_ctx.append(_reap_orphans)


async def _end_on_shutdown(app: web.Application) -> None:
    await app[CHILDREN].end_all()


def setup(app: web.Application) -> None:
    """End every process with the application (before the handlers that wait for them are abandoned)."""
    app[CHILDREN] = Children()
    app.on_shutdown.append(_end_on_shutdown)
