"""The rarer moves of a sandbox: pause, archive, recover, resize, fork, snapshot.

Each takes the server's state, the sandbox and the request's body, answers when the move has begun or is done,
and raises ``ApiError`` when the sandbox is not in a state for it.
"""

from __future__ import annotations

import asyncio
import copy
import shutil
import uuid
from typing import Any

from . import creation
from .booting import Sandbox, copy_tree
from .daemon import Daemon
from .errors import bad_request
from .records import SandboxRecord, new_token
from .sandboxes import END_ANSWER_SECONDS, START_ANSWER_SECONDS, SandboxManager
from .snapshots import SnapshotRecord
from .state import ServerState


async def pause(state: ServerState, sandbox: Sandbox, body: dict[str, Any]) -> None:
    """Freeze all processes where they are; ``start`` lets them go on."""
    manager = state.manager
    manager.require_idle(sandbox)
    if sandbox.record.state != "started":
        raise bad_request("Sandbox is not started")
    manager.set_state(sandbox, "pausing", desired="paused")
    await manager.settle(manager.begin(sandbox, _pause(manager, sandbox)), END_ANSWER_SECONDS)


async def _pause(manager: SandboxManager, sandbox: Sandbox) -> None:
    if sandbox.daemon is not None:
        manager.limiter.freeze(sandbox.record.id, sandbox.daemon)
    manager.set_state(sandbox, "paused", desired="paused")


async def archive(state: ServerState, sandbox: Sandbox, body: dict[str, Any]) -> None:
    """Put a stopped sandbox away. Its files stay where they are: there is no other storage here."""
    manager, record = state.manager, sandbox.record
    manager.require_idle(sandbox)
    if record.state != "stopped":
        raise bad_request("Sandbox is not stopped")
    if record.ephemeral:
        raise bad_request("Ephemeral sandboxes cannot be archived")
    manager.set_state(sandbox, "archiving", desired="archived")
    await manager.settle(manager.begin(sandbox, _archive(manager, sandbox)), END_ANSWER_SECONDS)


async def _archive(manager: SandboxManager, sandbox: Sandbox) -> None:
    sandbox.record.backup_state = "Completed"
    sandbox.record.backup_created_at = manager.clock.now()
    manager.set_state(sandbox, "archived", desired="archived")


async def recover(state: ServerState, sandbox: Sandbox, body: dict[str, Any]) -> None:
    """Start a sandbox that is in ``error`` again."""
    manager = state.manager
    manager.require_idle(sandbox)
    if sandbox.record.state != "error":
        raise bad_request("Sandbox is not in error state")
    manager.set_state(sandbox, "starting", desired="started")
    await manager.settle(manager.begin(sandbox, manager.boot(sandbox)), START_ANSWER_SECONDS)


async def resize(state: ServerState, sandbox: Sandbox, body: dict[str, Any]) -> None:
    """Change CPUs, memory (GiB) and disk (GiB)."""
    manager, record = state.manager, sandbox.record
    manager.require_idle(sandbox)
    check_resize(record, body)
    before = record.state
    manager.set_state(sandbox, "resizing")
    creation.apply_resources(record, body)
    if sandbox.daemon is not None:
        manager.limiter.apply(record, sandbox.daemon)
    manager.set_state(sandbox, before)


def check_resize(record: SandboxRecord, body: dict[str, Any]) -> None:
    """The rules for a resize. ``ApiError`` 400."""
    cpu = creation.integer(body, "cpu", 1, record.cpu)
    memory = creation.integer(body, "memory", 1, record.memory)
    disk = creation.integer(body, "disk", 1, record.disk)
    if record.state not in ("started", "stopped"):
        raise bad_request("Sandbox must be started or stopped to be resized")
    if (cpu, memory, disk) == (record.cpu, record.memory, record.disk):
        raise bad_request("Resize changes nothing")
    if disk < record.disk:
        raise bad_request("Sandbox disk size cannot be decreased")
    if record.state == "started":
        if disk != record.disk:
            raise bad_request("Sandbox must be stopped to change its disk size")
        if cpu < record.cpu or memory < record.memory:
            raise bad_request("Sandbox must be stopped to decrease CPU or memory")


async def fork(state: ServerState, sandbox: Sandbox, body: dict[str, Any]) -> Sandbox:
    """A new sandbox with a copy of this one's files; processes are not copied."""
    manager, source = state.manager, sandbox.record
    manager.require_idle(sandbox)
    if source.state != "started":
        raise bad_request("Sandbox is not started")
    record = copy.deepcopy(source)
    now = manager.clock.now()
    record.id = str(uuid.uuid4())
    record.name = creation.optional_text(body, "name") or record.id
    record.created_at = record.updated_at = record.last_activity_at = now
    record.parent_id = source.id
    record.signing_key, record.auth_token = new_token(), new_token()
    record.state, record.desired_state = "creating", "started"
    manager.reserve_name(record.name, record.id)
    child = manager.adopt(record)
    manager.announce(child)
    manager.set_state(sandbox, "forking")
    task = manager.begin(child, _fork(manager, sandbox, child))
    await manager.settle(task, START_ANSWER_SECONDS)
    return child


async def _fork(manager: SandboxManager, sandbox: Sandbox, child: Sandbox) -> None:
    try:
        await frozen_copy(manager, sandbox, lambda: copy_tree(sandbox.files, child.files))
    finally:
        manager.set_state(sandbox, "started")
    await manager.boot(child)


async def frozen_copy(manager: SandboxManager, sandbox: Sandbox, work: Any) -> None:
    """Copy files while the sandbox's processes hold still, so that the copy is of one moment."""
    daemon: Daemon | None = sandbox.daemon
    if daemon is not None:
        manager.limiter.freeze(sandbox.record.id, daemon)
    try:
        await work()
    finally:
        if daemon is not None:
            manager.limiter.thaw(sandbox.record.id, daemon)


async def snapshot_of(state: ServerState, sandbox: Sandbox, body: dict[str, Any]) -> None:
    """Make a snapshot from the sandbox's files."""
    manager, source = state.manager, sandbox.record
    manager.require_idle(sandbox)
    if source.state not in ("started", "stopped"):
        raise bad_request("Sandbox must be started or stopped to be snapshotted")
    name = creation.optional_text(body, "name") or ""
    record = state.snapshots.add(
        name,
        manager.clock.now(),
        state="snapshotting",
        cpu=source.cpu,
        memory=source.memory,
        disk=source.disk,
        source_sandbox_id=source.id,
        python=source.python,
        bare=source.bare,
        has_files=True,
    )
    before = source.state
    manager.set_state(sandbox, "snapshotting")
    work = _snapshot(state, sandbox, record, before)
    await manager.settle(manager.begin(sandbox, work), START_ANSWER_SECONDS)


async def _snapshot(state: ServerState, sandbox: Sandbox, record: SnapshotRecord, before: str) -> None:
    manager, target = state.manager, state.snapshots.files(record)
    try:
        await frozen_copy(manager, sandbox, lambda: copy_tree(sandbox.files, target))
        record.state = "active"
        record.size = await asyncio.to_thread(tree_gigabytes, target)
    except OSError as exc:
        record.state, record.error_reason = "error", str(exc)
        await asyncio.to_thread(shutil.rmtree, target, True)
    record.updated_at = manager.clock.now()
    state.snapshots.save(record)
    manager.set_state(sandbox, before)


def tree_gigabytes(path: Any) -> float:
    """Size of all files below a directory, in GiB."""
    total = 0
    for entry in path.rglob("*"):
        try:
            total += entry.lstat().st_size
        except OSError:
            continue
    return round(total / 2**30, 6)
