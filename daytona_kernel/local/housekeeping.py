"""What happens by itself: auto-stop, auto-archive, auto-delete, time to live, owners that are gone."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from .booting import Sandbox
from .disk import GIB, DiskWatch
from .errors import ApiError
from .operations import archive, pause
from .records import OWNER_LABEL, SandboxRecord
from .state import ServerState

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
OWNER_SECONDS = 2.0


def process_start(pid: int) -> str | None:
    """A process's start time (field 22 of ``/proc/<pid>/stat``); ``None`` if it is gone or a zombie.

    Where there is no ``/proc``: ``""`` for a process that exists.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if os.path.exists("/proc/self/stat"):
            return None
        return "" if _exists(pid) else None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def owner_gone(label: str) -> bool:
    """Whether the process of a label ``<pid>:<start time>[:...]`` has ended. Text that names none: no."""
    pid, start = [*label.split(":"), ""][:2]
    if not pid.isdigit():
        return False
    current = process_start(int(pid))
    return current is None or bool(start and current and current != start)


def due_action(record: SandboxRecord, now: float, minute: float, active: bool) -> str:
    """What the clock asks for: ``stop``, ``pause``, ``archive``, ``delete``, or nothing.

    `minute` is the length of a minute in seconds; `active` says that a request is open right now.
    """
    if record.busy:
        return ""
    if record.auto_destroy_at is not None and now >= record.auto_destroy_at:
        return "delete"
    quiet = now - record.last_activity_at
    if record.state == "started" and not active:
        if record.auto_stop_interval and quiet > record.auto_stop_interval * minute:
            return "stop"
        if record.auto_pause_interval and quiet > record.auto_pause_interval * minute:
            return "pause"
    if record.state in ("stopped", "archived"):
        if record.auto_delete_interval >= 0 and quiet >= record.auto_delete_interval * minute:
            return "delete"
        if record.state == "stopped" and quiet > record.auto_archive_interval * minute:
            return "archive"
    return ""


class Housekeeper:
    """Looks after all sandboxes once a second."""

    def __init__(self, state: ServerState, stop_server: Callable[[str], None]) -> None:
        self._state = state
        self._stop_server = stop_server
        self._owner_check = 0.0
        self._idle_since: float | None = None
        self._disk = DiskWatch(state.options.paths.state_dir)
        self._actions: set[asyncio.Task[None]] = set()
        self._sampling: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """For ever, until cancelled."""
        pause_seconds = min(TICK_SECONDS, max(TICK_SECONDS / self._state.options.time_scale, 0.02))
        try:
            while True:
                await asyncio.sleep(pause_seconds)
                try:
                    await self.tick()
                except Exception:
                    log.exception("housekeeping failed")
        finally:
            if self._sampling is not None:
                self._sampling.cancel()

    async def tick(self) -> None:
        """One round."""
        manager = self._state.manager
        clock = manager.clock
        now, minute = clock.now(), clock.minutes(1)
        check_owners = asyncio.get_running_loop().time() - self._owner_check >= OWNER_SECONDS
        if check_owners:
            self._owner_check = asyncio.get_running_loop().time()
        for sandbox in manager:
            owner = sandbox.record.labels.get(OWNER_LABEL, "")
            if check_owners and owner and not sandbox.record.busy and owner_gone(owner):
                log.info("sandbox %s: its owner is gone", sandbox.record.id)
                self._spawn(sandbox, "delete")
                continue
            action = due_action(sandbox.record, now, minute, sandbox.connections > 0)
            if action:
                self._spawn(sandbox, action)
        for sandbox, used in await self._disk.find_oversized(manager, asyncio.get_running_loop().time()):
            await manager.fail(sandbox, f"its files use {used / GIB:.1f} GiB of {sandbox.record.disk} GiB")
        await manager.pool.trim()
        self._sample()
        self._check_idle()

    def _sample(self) -> None:
        """Note how busy sandboxes are, without waiting for them."""
        if self._sampling is None or self._sampling.done():
            history, now = self._state.history, asyncio.get_running_loop().time()
            self._sampling = asyncio.create_task(history.tick(self._state.manager, now))

    def _spawn(self, sandbox: Sandbox, action: str) -> None:
        task = asyncio.create_task(self._act(sandbox, action))
        self._actions.add(task)
        task.add_done_callback(self._actions.discard)

    async def _act(self, sandbox: Sandbox, action: str) -> None:
        manager = self._state.manager
        try:
            if action == "stop":
                await manager.stop(sandbox)
            elif action == "delete":
                await manager.delete(sandbox)
            elif action == "pause":
                await pause(self._state, sandbox, {})
            elif action == "archive":
                await archive(self._state, sandbox, {})
        except ApiError as exc:
            # A client was faster: the sandbox is in another state by now.
            log.info("sandbox %s: %s was not carried out: %s", sandbox.record.id, action, exc)

    def _check_idle(self) -> None:
        """End the server when nothing has run and nobody has asked for long enough."""
        minutes = self._state.options.idle_minutes
        busy = self._state.manager.started or self._state.events.listeners
        now = asyncio.get_running_loop().time()
        if busy or not minutes:
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = now
        quiet_since = max(self._idle_since, self._state.last_request)
        if now - quiet_since > self._state.manager.clock.minutes(minutes):
            self._stop_server(f"idle for {minutes:g} minutes")
