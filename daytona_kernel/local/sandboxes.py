"""The sandboxes themselves: records on disk, daemons, and the moves between states.

Everything here runs on the server's loop. A move (create, start, stop, ...) sets a transitional state at
once, so that a second one is refused with 409, and is carried out by a task of the manager's, so that a
client that goes away does not leave a sandbox half-way.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from . import creation
from .booting import Booter, Sandbox, copy_tree
from .clock import Clock
from .daemon import Daemon, DaemonError, SocketDir, kill_marked
from .errors import ApiError, bad_request, conflict, not_found
from .events import EventHub
from .isolation import (
    HOME,
    Isolation,
    PlainProcesses,
)
from .limits import Limiter
from .options import ServerOptions
from .pool import WarmPool
from .python_env import PythonInfo, PythonUnusableError, probe_python
from .records import SandboxRecord, new_token
from .safe_files import remove_tree
from .secrets_store import SecretStore
from .snapshots import SnapshotRecord, SnapshotStore
from .volumes import VolumeStore

log = logging.getLogger(__name__)

START_ANSWER_SECONDS = 30.0
"""The service waits so long for a start before it answers with whatever state there is."""
END_ANSWER_SECONDS = 5.0
"""We wait so long for a stop or delete before we answer, so that clients need no second look."""


class SandboxManager:
    """All sandboxes of this server."""

    def __init__(
        self,
        *,
        options: ServerOptions,
        isolation: Isolation,
        clock: Clock,
        events: EventHub,
        snapshots: SnapshotStore,
        volumes: VolumeStore,
        secrets: SecretStore,
        toolbox_url: Callable[[], str],
    ) -> None:
        self.isolation = isolation
        self.clock = clock
        self.limiter = Limiter(isolation)
        self._options = options
        self._events = events
        self._snapshots = snapshots
        self._volumes = volumes
        self._secrets = secrets
        self._toolbox_url = toolbox_url
        self._directory = options.paths.state_dir / "sandboxes"
        self._sockets = SocketDir(options.paths.socket_dir)
        self._sandboxes: dict[str, Sandbox] = {}
        self._by_name: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._booter = Booter(options, isolation, clock, volumes, secrets, self.limiter, self._sockets)
        self._default_python: PythonInfo | None = None
        self.pool = WarmPool(options.pool_size, self._launch_spare, self._directory)

    # -- opening and closing -------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the sandboxes of earlier servers: they are stopped now, ephemeral ones are deleted."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self._sockets.path.glob("*.sock"):
            path.unlink(missing_ok=True)
        self._default_python = await probe_python(self._options.python)
        for entry in sorted(self._directory.iterdir()):
            if isinstance(self.isolation, PlainProcesses):
                kill_marked(entry.name)
            await self._reload(entry)
        self.pool.fill()

    async def _reload(self, entry: Path) -> None:
        try:
            record = SandboxRecord.load(entry / "sandbox.json")
        except (OSError, ValueError, TypeError) as exc:
            if (entry / "sandbox.json").exists():
                log.warning("sandbox %s has a damaged record and is removed: %s", entry.name, exc)
            await asyncio.to_thread(remove_tree, entry)
            return
        if record.ephemeral or record.desired_state == "destroyed" or record.state == "destroyed":
            await asyncio.to_thread(remove_tree, entry)
            return
        sandbox = Sandbox(record, entry)
        if record.state in ("pending_build", "building_snapshot", "build_failed"):
            record.state, record.error_reason = "build_failed", "the server ended during the build"
        elif record.state not in ("archived", "error"):
            record.state = record.desired_state = "stopped"
        self._sandboxes[record.id] = sandbox
        self._by_name[record.name] = record.id
        record.save(entry / "sandbox.json")

    async def close(self) -> None:
        """End everything that runs: ephemeral sandboxes are deleted, of others the files stay."""
        await self.pool.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(self._close_one(sandbox) for sandbox in list(self._sandboxes.values())))
        self.limiter.close()
        self._sockets.close()

    async def _close_one(self, sandbox: Sandbox) -> None:
        await self.halt(sandbox)
        record = sandbox.record
        if record.ephemeral or record.desired_state == "destroyed":
            await asyncio.to_thread(remove_tree, sandbox.directory)
        elif record.state not in ("archived", "error", "build_failed"):
            record.state = record.desired_state = "stopped"
            record.save(sandbox.directory / "sandbox.json")

    # -- looking up -----------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Sandbox]:
        return iter(list(self._sandboxes.values()))

    def get(self, sandbox_id: str) -> Sandbox | None:
        """Look up by id alone."""
        return self._sandboxes.get(sandbox_id)

    def find(self, id_or_name: str) -> Sandbox:
        """Look up by id, then by name. ``ApiError`` 404: none such, or a failed one being deleted."""
        sandbox = self._sandboxes.get(id_or_name) or self._sandboxes.get(self._by_name.get(id_or_name, ""))
        if sandbox is None:
            raise not_found("Sandbox", id_or_name)
        record = sandbox.record
        if record.desired_state == "destroyed" and record.state in ("error", "build_failed"):
            raise not_found("Sandbox", id_or_name)
        return sandbox

    @property
    def started(self) -> int:
        """How many sandboxes run or are about to."""
        quiet = ("stopped", "archived", "error", "build_failed", "destroyed")
        return sum(sandbox.record.state not in quiet for sandbox in self)

    def used_volumes(self) -> set[str]:
        """Ids of volumes that some sandbox has."""
        return {wish["volumeId"] for sandbox in self for wish in sandbox.record.volumes}

    def dto(self, sandbox: Sandbox) -> dict[str, Any]:
        """The API's view of a sandbox."""
        return sandbox.record.dto(self._toolbox_url())

    def list_item(self, sandbox: Sandbox) -> dict[str, Any]:
        """The API's view of a sandbox in a list."""
        return sandbox.record.list_item(self._toolbox_url())

    # -- records and states --------------------------------------------------------------------------------

    def save(self, sandbox: Sandbox) -> None:
        """Write the record after a change."""
        sandbox.record.updated_at = self.clock.now()
        if not sandbox.deleted:
            sandbox.record.save(sandbox.directory / "sandbox.json")

    def touch(self, sandbox: Sandbox) -> None:
        """Note activity. Not written to disk by itself: after a restart the sandbox is stopped anyway."""
        sandbox.record.last_activity_at = self.clock.now()

    def set_state(
        self, sandbox: Sandbox, state: str, *, desired: str = "", reason: str | None = None
    ) -> None:
        """Change the state, save, and tell everybody who listens. State changes count as activity."""
        record = sandbox.record
        old, record.state = record.state, state
        record.desired_state = desired or record.desired_state
        record.error_reason = reason
        record.recoverable = state == "error"
        self.touch(sandbox)
        self.save(sandbox)
        if old != state:
            log.info("sandbox %s: %s -> %s", record.id, old, state)
            data = {"sandbox": self.dto(sandbox), "oldState": old, "newState": state}
            self._events.emit("sandbox.state.updated", data)

    def require_idle(self, sandbox: Sandbox) -> None:
        """Refuse a move while another is under way. ``ApiError`` 409."""
        if sandbox.record.busy:
            raise conflict("Sandbox state change in progress")

    def begin(self, sandbox: Sandbox, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Carry a move out in a task of our own; an unexpected failure puts the sandbox into ``error``."""
        task = asyncio.create_task(self._guard(sandbox, work))
        sandbox.move = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, sandbox: Sandbox, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (ApiError, DaemonError, PythonUnusableError, OSError) as exc:
            log.warning("sandbox %s failed: %s", sandbox.record.id, exc)
            await self.halt(sandbox)
            self.set_state(sandbox, "error", reason=str(exc))
        except Exception as exc:
            log.exception("sandbox %s failed", sandbox.record.id)
            await self.halt(sandbox)
            self.set_state(sandbox, "error", reason=f"internal error of the local server: {exc!r}")

    async def settle(self, task: asyncio.Task[None], seconds: float) -> None:
        """Wait for a move, but not for ever; the move goes on if the caller is cancelled."""
        await asyncio.wait([task], timeout=seconds)

    # -- creating ------------------------------------------------------------------------------------------

    def reserve_name(self, name: str, sandbox_id: str) -> None:
        """Take a name for a sandbox. ``ApiError`` 409: another one has it."""
        if name in self._by_name:
            raise conflict(f"Sandbox with name {name} already exists")
        self._by_name[name] = sandbox_id

    async def create(self, body: dict[str, Any]) -> Sandbox:
        """Make a sandbox as the body of ``POST /sandbox`` says and start it.

        Returns when it is started, has failed, or 30 s are over. ``ApiError``: if the body is refused.
        """
        now = self.clock.now()
        record = creation.new_record(body, str(uuid.uuid4()), now)
        snapshot = self._snapshots.for_creation(creation.optional_text(body, "snapshot"), now)
        if any(body.get(key) is not None for key in ("cpu", "memory", "disk", "gpu")):
            raise bad_request("Cannot specify Sandbox resources when using a snapshot")
        record.volumes = self._volumes.checked(body.get("volumes"))
        self.check_isolation_needs(record)
        self._secrets.check(record.secrets)
        python = await self._python(snapshot.python)
        self._inherit(record, snapshot)
        sandbox = await self._admit(record, spare_suits=self._spare_suits(record, snapshot))
        self._announce(sandbox)
        task = self.begin(sandbox, self._first_start(sandbox, snapshot, python))
        await self.settle(task, START_ANSWER_SECONDS)
        return sandbox

    def check_isolation_needs(self, record: SandboxRecord) -> None:
        """Refuse what plain processes can not do. ``ApiError`` 400."""
        if not isinstance(self.isolation, PlainProcesses):
            return
        if record.network_block_all:
            raise bad_request("networkBlockAll needs bubblewrap, which is missing or does not work here")
        for wish in record.volumes:
            if not wish["mountPath"].startswith(HOME + "/"):
                raise bad_request(f"without bubblewrap, volumes can be mounted below {HOME} only")

    async def _python(self, wish: str) -> PythonInfo:
        try:
            return await probe_python(wish or self._options.python)
        except PythonUnusableError as exc:
            raise bad_request(f"no sandbox can be made: {exc}") from exc

    def _inherit(self, record: SandboxRecord, snapshot: SnapshotRecord) -> None:
        record.snapshot = snapshot.name
        record.cpu, record.memory, record.disk = snapshot.cpu, snapshot.memory, snapshot.disk
        record.python, record.bare = snapshot.python, snapshot.bare
        record.work_dir, record.entrypoint = snapshot.work_dir, snapshot.entrypoint or []
        record.env = {**snapshot.env, **record.env}
        record.isolation = self.isolation.name

    def _spare_suits(self, record: SandboxRecord, snapshot: SnapshotRecord) -> bool:
        default_bare = self._options.bare
        plain = not snapshot.has_files and not snapshot.python and snapshot.bare == default_bare
        blocked = record.network_block_all and not self.isolation.own_network
        return plain and not record.volumes and not blocked

    async def _admit(self, record: SandboxRecord, *, spare_suits: bool) -> Sandbox:
        """Take the name, a spare daemon if one suits, and a place in the books."""
        named_by_id = record.name == record.id
        if not named_by_id:
            self.reserve_name(record.name, record.id)
        daemon = await self.pool.take() if spare_suits else None
        if daemon is not None:
            record.id = daemon.spec.sandbox_id
        if named_by_id:
            record.name = record.id
        self._by_name[record.name] = record.id
        return self.adopt(record, daemon)

    def adopt(self, record: SandboxRecord, daemon: Daemon | None = None) -> Sandbox:
        """Enter a new sandbox into the books."""
        sandbox = Sandbox(record, self._directory / record.id)
        sandbox.daemon = daemon
        sandbox.directory.mkdir(exist_ok=True, mode=0o700)
        if record.ttl_minutes:
            record.auto_destroy_at = record.created_at + self.clock.minutes(record.ttl_minutes)
        self._sandboxes[record.id] = sandbox
        self.save(sandbox)
        return sandbox

    def workshop(self, record: SandboxRecord) -> Sandbox:
        """A sandbox outside the books, in which a snapshot is built. Its maker halts and removes it.

        If the server dies first, the next one removes it, as it does with every directory without a record.
        """
        record.isolation = self.isolation.name
        sandbox = Sandbox(record, self._directory / record.id)
        sandbox.directory.mkdir(exist_ok=True, mode=0o700)
        return sandbox

    def _announce(self, sandbox: Sandbox) -> None:
        log.info("sandbox %s: created from %s", sandbox.record.id, sandbox.record.snapshot)
        self._events.emit("sandbox.created", self.dto(sandbox))

    announce = _announce

    async def _first_start(self, sandbox: Sandbox, snapshot: SnapshotRecord, python: PythonInfo) -> None:
        if snapshot.has_files:
            await copy_tree(self._snapshots.files(snapshot), sandbox.files)
        await self.boot(sandbox, python)

    # -- starting and ending -------------------------------------------------------------------------------

    async def _launch_spare(self, sandbox_id: str) -> Daemon:
        assert self._default_python is not None
        directory = self._directory / sandbox_id
        return await self._booter.launch(sandbox_id, directory, self._default_python, bare=self._options.bare)

    async def boot(self, sandbox: Sandbox, python: PythonInfo | None = None) -> None:
        """Start the daemon (or set the spare one up) and bring the sandbox to ``started``."""
        daemon = await self._booter.bring_up(sandbox, python)
        daemon.exited.add_done_callback(lambda _: self._daemon_ended(sandbox, daemon))
        sandbox.record.auth_token = new_token()
        self.set_state(sandbox, "started", desired="started")
        self.pool.fill_later()

    async def boot_for_build(self, sandbox: Sandbox) -> str:
        """Start the daemon without a change of state, to carry out the steps of a build.

        Returns the address of its socket.
        """
        await self._booter.bring_up(sandbox)
        assert sandbox.upstream is not None
        return sandbox.upstream.path

    def _daemon_ended(self, sandbox: Sandbox, daemon: Daemon) -> None:
        """The daemon is gone although nobody asked for it."""
        if sandbox.daemon is not daemon or sandbox.record.state != "started":
            return
        code = daemon.exited.result()
        log.warning("sandbox %s: its daemon ended with %s", sandbox.record.id, code)
        self.set_state(sandbox, "stopping")
        self.begin(sandbox, self._after_crash(sandbox, code))

    async def _after_crash(self, sandbox: Sandbox, code: int) -> None:
        await self.halt(sandbox)
        if sandbox.record.ephemeral:
            await self._destroy(sandbox)
            return
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        self.set_state(
            sandbox, "error", reason=f"the sandbox's processes ended by themselves: the daemon {how}"
        )

    async def fail(self, sandbox: Sandbox, reason: str) -> None:
        """End a started sandbox's processes because of something that it did; its files stay."""
        if sandbox.record.state != "started":
            return
        log.warning("sandbox %s is ended: %s", sandbox.record.id, reason)
        self.set_state(sandbox, "stopping")
        await self.halt(sandbox, 0)
        self.set_state(sandbox, "error", reason=reason)

    async def halt(self, sandbox: Sandbox, grace: float = 1.5) -> None:
        """End the processes and connections of a sandbox; its state is the caller's business."""
        upstream, sandbox.upstream = sandbox.upstream, None
        daemon, sandbox.daemon = sandbox.daemon, None
        if daemon is not None:
            await daemon.stop(grace)
            self.limiter.release(sandbox.record.id)
        if upstream is not None:
            upstream.close()

    async def start(self, sandbox: Sandbox) -> None:
        """``POST …/start``: from stopped, archived or paused; nothing to do when started."""
        record = sandbox.record
        if record.state == "started":
            return
        if record.state not in ("stopped", "archived", "archiving", "paused"):
            self.require_idle(sandbox)
            raise bad_request(f"Sandbox is not in a state that can be started (state: {record.state})")
        states = {"archived": "restoring", "paused": "resuming"}
        self.set_state(sandbox, states.get(record.state, "starting"), desired="started")
        work = self._resume(sandbox) if record.state == "resuming" else self._unarchive_and_boot(sandbox)
        await self.settle(self.begin(sandbox, work), START_ANSWER_SECONDS)

    async def _unarchive_and_boot(self, sandbox: Sandbox) -> None:
        sandbox.record.backup_state = "None"
        await self.boot(sandbox)

    async def _resume(self, sandbox: Sandbox) -> None:
        if sandbox.daemon is None or not sandbox.daemon.alive:
            await self.boot(sandbox)
            return
        self.limiter.thaw(sandbox.record.id, sandbox.daemon)
        self.set_state(sandbox, "started", desired="started")

    async def stop(self, sandbox: Sandbox, *, force: bool = False) -> None:
        """``POST …/stop``: end the processes, keep the files. An ephemeral sandbox is deleted."""
        self.require_idle(sandbox)
        if sandbox.record.state not in ("started", "paused"):
            raise bad_request("Sandbox is not started")
        if sandbox.record.ephemeral:
            await self.delete(sandbox)
            return
        self.set_state(sandbox, "stopping", desired="stopped")
        await self.settle(self.begin(sandbox, self._stop(sandbox, force)), END_ANSWER_SECONDS)

    async def _stop(self, sandbox: Sandbox, force: bool) -> None:
        if sandbox.daemon is not None:
            self.limiter.thaw(sandbox.record.id, sandbox.daemon)
        await self.halt(sandbox, 0 if force else 1.5)
        self.set_state(sandbox, "stopped", desired="stopped")

    async def delete(self, sandbox: Sandbox) -> None:
        """``DELETE …``: end the processes and remove the files; the name is free at once."""
        record = sandbox.record
        if record.state == "destroying":
            if sandbox.move is not None:
                await self.settle(sandbox.move, END_ANSWER_SECONDS)
            return
        if record.state != "pending_build":
            self.require_idle(sandbox)
        if any(other.record.parent_id == record.id for other in self if record.sandbox_class == "linux-vm"):
            raise bad_request("Sandbox has forks that still exist")
        if sandbox.move is not None:
            sandbox.move.cancel()
        self._by_name.pop(record.name, None)
        record.name = f"DESTROYED_{record.name}_{int(self.clock.now() * 1000)}"
        self.set_state(sandbox, "destroying", desired="destroyed")
        await self.settle(self.begin(sandbox, self._destroy(sandbox)), END_ANSWER_SECONDS)

    async def _destroy(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        if self._by_name.get(record.name) == record.id:
            del self._by_name[record.name]
        await self.halt(sandbox, 0)
        await asyncio.to_thread(remove_tree, sandbox.directory)
        sandbox.deleted = True
        self.set_state(sandbox, "destroyed", desired="destroyed")
        self._sandboxes.pop(record.id, None)
