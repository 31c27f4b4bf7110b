"""Sandboxes and snapshots from a Dockerfile, without Docker.

The file's steps are carried out inside a new sandbox: ``RUN`` runs there, ``ENV``, ``WORKDIR``, ``CMD`` and
``ENTRYPOINT`` are remembered, ``FROM python:3.12`` picks an interpreter of the host, and ``FROM`` the name of
a snapshot starts from its files. What can not be done without root and an image (system packages, other base
images, ``COPY``) is skipped with a line in the build log, or fails the build where the result would be wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shlex
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from . import creation
from .booting import Sandbox, copy_tree
from .clock import to_iso
from .daemon import DaemonError
from .dockerfile import INERT, BuildError, parse_dockerfile, parse_env, parse_words, split_root_commands
from .errors import ApiError, bad_request
from .operations import tree_gigabytes
from .python_env import PythonUnusableError, probe_python
from .records import SandboxRecord
from .safe_files import remove_tree
from .snapshots import SnapshotRecord, SnapshotStore

if TYPE_CHECKING:
    from .sandboxes import SandboxManager
    from .volumes import VolumeStore

log = logging.getLogger(__name__)

STEP_SECONDS = 900
NO_FILES = (
    "the local sandbox server has no object storage that the SDK can reach: images can not take local files; "
    "upload them into the sandbox instead"
)


async def python_for_image(image: str) -> tuple[str, str]:
    """The host's interpreter that stands for a base image (empty: the server's), and a remark for the log."""
    match = re.match(r"(?:.*/)?python:(\d+\.\d+)", image)
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if match is None:
        return "", f"base image {image} is not available here; the sandbox has the host's Python {own}"
    wanted = match.group(1)
    if wanted == own:
        return "", f"base image {image}: Python {own} of the host"
    for candidate in _candidates(wanted):
        try:
            info = await probe_python(candidate)
        except PythonUnusableError:  # a pyenv shim of a version that is not switched on, say
            continue
        if info.tag == wanted:
            return candidate, f"base image {image}: Python {wanted} of the host"
    return "", f"base image {image}: the host has no Python {wanted}; the sandbox has Python {own}"


def _candidates(version: str) -> list[str]:
    found = [shutil.which(f"python{version}")]
    found += [str(path) for path in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    return [candidate for candidate in found if candidate]


class BuildLog:
    """The log of one build, in a file that may be read while it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._grown = asyncio.Event()
        self.closed = False

    def say(self, line: str) -> None:
        """Add one line, or several."""
        with self._path.open("a") as stream:
            stream.write(line.rstrip("\n") + "\n")
        self._wake()

    def close(self) -> None:
        """The build has ended."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        """Let every reader look again; each waits on the event that was current when it last looked."""
        self._grown.set()
        self._grown = asyncio.Event()

    async def read(self, *, follow: bool) -> AsyncIterator[bytes]:
        """What is there; with `follow` also what comes, until the build ends."""
        offset = 0
        while True:
            grown, closed = self._grown, self.closed
            data = await asyncio.to_thread(read_from, self._path, offset)
            offset += len(data)
            if data:
                yield data
            if closed or not follow:
                return
            await grown.wait()


def read_from(path: Path, offset: int) -> bytes:
    """A file's bytes from `offset` on; none if there is no file."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        stream.seek(offset)
        return stream.read()
    return b""


def build_info(body: dict[str, Any], reference: str, now: float) -> dict[str, Any] | None:
    """The ``BuildInfo`` of a creation request. ``ApiError`` 400: it is malformed or needs local files."""
    info = body.get("buildInfo")
    if info is None:
        return None
    if not isinstance(info, dict) or not isinstance(info.get("dockerfileContent"), str):
        raise bad_request("buildInfo must have dockerfileContent")
    if info.get("contextHashes"):
        raise bad_request(NO_FILES)
    return {
        "dockerfileContent": info["dockerfileContent"],
        "contextHashes": [],
        "createdAt": to_iso(now),
        "updatedAt": to_iso(now),
        "snapshotRef": f"local-build-{reference}",
    }


class BuildRunner:
    """Builds under way and their logs."""

    def __init__(self, manager: SandboxManager, volumes: VolumeStore, snapshots: SnapshotStore) -> None:
        self._manager = manager
        self._volumes = volumes
        self._snapshots = snapshots
        self._logs: dict[str, BuildLog] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Break off the builds of snapshots; those of sandboxes end with their sandboxes."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def follow(self, identity: str, path: Path, *, follow: bool) -> AsyncIterator[bytes]:
        """A build's log by the id of its sandbox or snapshot; with `follow` until the build ends."""
        build_log = self._logs.get(identity)
        if build_log is None:
            build_log = BuildLog(path)
            build_log.close()
        return build_log.read(follow=follow)

    # -- sandboxes ------------------------------------------------------------------------------------------

    async def create(self, body: dict[str, Any]) -> Sandbox:
        """``POST /sandbox`` with ``buildInfo``: answers at once, in ``pending_build``."""
        manager = self._manager
        now = manager.clock.now()
        record = creation.new_record(body, str(uuid.uuid4()), now)
        record.build_info = build_info(body, record.id, now)
        creation.apply_resources(record, body)
        record.volumes = self._volumes.checked(body.get("volumes"))
        manager.check_isolation_needs(record)
        record.isolation = manager.isolation.name
        record.state = "pending_build"
        manager.reserve_name(record.name, record.id)
        sandbox = manager.adopt(record)
        manager.announce(sandbox)
        manager.begin(sandbox, self._build_sandbox(sandbox))
        return sandbox

    async def _build_sandbox(self, sandbox: Sandbox) -> None:
        manager, record = self._manager, sandbox.record
        assert record.build_info is not None
        await asyncio.sleep(0)  # lets the first answer go out as pending_build
        manager.set_state(sandbox, "building_snapshot")
        given = dict(record.env)
        with self._open_log(record.id, sandbox.log_file) as build_log:
            try:
                await self._carry_out(sandbox, record.build_info["dockerfileContent"], build_log)
            except BuildError as exc:
                build_log.say(f"ERROR: {exc}")
                await manager.halt(sandbox, 0)
                manager.set_state(sandbox, "build_failed", reason=str(exc))
                return
        record.env = {**record.env, **given}
        manager.set_state(sandbox, "creating")
        await manager.boot(sandbox)

    @contextlib.contextmanager
    def _open_log(self, identity: str, path: Path) -> Any:
        build_log = self._logs[identity] = BuildLog(path)
        try:
            yield build_log
        finally:
            build_log.close()
            self._logs.pop(identity, None)

    # -- snapshots ------------------------------------------------------------------------------------------

    def create_snapshot(self, body: dict[str, Any], image: str) -> SnapshotRecord:
        """``POST /snapshots`` with ``buildInfo``, or with the name of an image: answers in ``building``."""
        now = self._manager.clock.now()
        info = build_info(body, creation.optional_text(body, "name") or "", now)
        dockerfile = info["dockerfileContent"] if info else f"FROM {image}\n"
        workshop = SandboxRecord(
            id=str(uuid.uuid4()), name="", created_at=now, updated_at=now, last_activity_at=now
        )
        creation.apply_resources(workshop, body)
        record = self._snapshots.add(
            creation.optional_text(body, "name") or "",
            now,
            state="building",
            image_name=image,
            build_info=info,
            has_files=True,
            entrypoint=creation.words(body, "entrypoint"),
            cpu=workshop.cpu,
            memory=workshop.memory,
            disk=workshop.disk,
        )
        task = asyncio.create_task(self._build_snapshot(record, workshop, dockerfile))
        self._tasks[record.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(record.id, None))
        return record

    async def wait(self, identity: str) -> None:
        """Until the build of a snapshot has ended; at once if there is none."""
        task = self._tasks.get(identity)
        if task is not None:
            await asyncio.wait([task])

    async def cancel_snapshot(self, identity: str) -> None:
        """Break off the build of a snapshot, if it is being built."""
        task = self._tasks.get(identity)
        if task is not None:
            task.cancel()
        await self.wait(identity)

    async def _build_snapshot(self, record: SnapshotRecord, workshop: SandboxRecord, dockerfile: str) -> None:
        sandbox = self._manager.workshop(workshop)
        state, reason = "build_failed", "the build was broken off"
        try:
            with self._open_log(record.id, self._snapshots.log_file(record)) as build_log:
                try:
                    await self._carry_out(sandbox, dockerfile, build_log)
                    await asyncio.to_thread(self._snapshots.take_files, record, sandbox.files)
                    state, reason = "active", ""
                except (ApiError, BuildError, DaemonError, PythonUnusableError, OSError) as exc:
                    reason = str(exc)
                    build_log.say(f"ERROR: {exc}")
            record.size = await asyncio.to_thread(tree_gigabytes, self._snapshots.files(record))
        except Exception as exc:
            log.exception("building snapshot %s failed", record.id)
            state, reason = "build_failed", f"internal error of the local server: {exc!r}"
        finally:
            record.state, record.error_reason = state, reason or None
            record.env, record.python, record.work_dir = workshop.env, workshop.python, workshop.work_dir
            record.entrypoint = record.entrypoint or workshop.entrypoint
            record.updated_at = self._manager.clock.now()
            self._snapshots.save(record)
            await self._manager.halt(sandbox, 0)
            await asyncio.to_thread(remove_tree, sandbox.directory)

    # -- the steps ------------------------------------------------------------------------------------------

    async def _carry_out(self, sandbox: Sandbox, dockerfile: str, build_log: BuildLog) -> None:
        """Build in a sandbox, which is halted afterwards. ``BuildError``: a step failed."""
        manager, record = self._manager, sandbox.record
        steps = parse_dockerfile(dockerfile)
        base = next(arguments for word, arguments in steps if word == "FROM").split()[0]
        remark = await self._start_from(sandbox, base)
        build_log.say(f"Step 1/{len(steps)} : FROM {base}\n ---> {remark}")
        socket = await manager.boot_for_build(sandbox)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
            build = _Build(record, session, build_log)
            for number, (word, arguments) in enumerate(steps[1:], start=2):
                build_log.say(f"Step {number}/{len(steps)} : {word} {arguments}")
                await build.step(word, arguments)
        record.entrypoint = [*build.entrypoint, *build.command]
        await manager.halt(sandbox)
        build_log.say("Successfully built")

    async def _start_from(self, sandbox: Sandbox, base: str) -> str:
        """Give a new sandbox what its base image has; the remark for the log."""
        record = sandbox.record
        known = self._snapshots.get(base)
        if known is None:
            record.python, remark = await python_for_image(base)
            return remark
        if known.state != "active":
            raise BuildError(f"snapshot {base} is {known.state}")
        record.python, record.bare, record.work_dir = known.python, known.bare, known.work_dir
        record.env = {**known.env, **record.env}
        if known.has_files:
            await copy_tree(self._snapshots.files(known), sandbox.files)
        return f"snapshot {base} of this server"


class _Build:
    """The steps after ``FROM``, in a sandbox whose daemon answers on a socket."""

    def __init__(self, record: SandboxRecord, session: aiohttp.ClientSession, build_log: BuildLog) -> None:
        self._record = record
        self._session = session
        self._log = build_log
        self.entrypoint: list[str] = []
        self.command: list[str] = []

    async def step(self, word: str, arguments: str) -> None:
        """Carry one instruction out. ``BuildError``: it fails, or is not possible here."""
        handlers: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
            "RUN": self._run,
            "ENV": self._env,
            "WORKDIR": self._workdir,
            "CMD": self._cmd,
            "ENTRYPOINT": self._entrypoint,
        }
        if word in handlers:
            await handlers[word](arguments)
        elif word in ("COPY", "ADD", "FROM"):
            raise BuildError(f"{word} is not supported by the local sandbox server: {arguments}")
        elif word not in INERT:
            raise BuildError(f"unknown instruction: {word}")

    async def _env(self, arguments: str) -> None:
        self._record.env = {**self._record.env, **parse_env(arguments)}

    async def _cmd(self, arguments: str) -> None:
        self.command = parse_words(arguments)

    async def _entrypoint(self, arguments: str) -> None:
        self.entrypoint, self.command = parse_words(arguments), []

    async def _workdir(self, arguments: str) -> None:
        path = shlex.quote(arguments.strip("\"'"))
        code, text = await self._execute(f"mkdir -p {path} && cd {path} && pwd")
        if code != 0:
            raise BuildError(f"WORKDIR {arguments[:200]} can not be made: {text.strip()[-300:]}")
        self._record.work_dir = text.splitlines()[-1]

    async def _run(self, command: str) -> None:
        if command.startswith("["):
            command = shlex.join(parse_words(command))
        kept, needs_root = split_root_commands(command)
        if needs_root:
            self._log.say(" ---> skipped, needs root: " + " && ".join(needs_root))
        if not kept:
            return
        code, text = await self._execute(" && ".join(kept))
        if text:
            self._log.say(text)
        if code != 0:
            raise BuildError(f"RUN {command[:200]} ended with {code}: {text.strip()[-300:]}")

    async def _execute(self, command: str) -> tuple[Any, str]:
        """Exit code and output of a shell command in the sandbox, in the work directory so far."""
        body: dict[str, Any] = {
            "command": command,
            "timeout": STEP_SECONDS,
            "envs": self._record.env,
        }
        if self._record.work_dir:
            body["cwd"] = self._record.work_dir
        unlimited = aiohttp.ClientTimeout(total=None)
        async with self._session.post(
            "http://daemon/process/execute", json=body, timeout=unlimited
        ) as answer:
            result = await answer.json()
        return result.get("exitCode"), str(result.get("result") or result.get("message") or "").rstrip("\n")
