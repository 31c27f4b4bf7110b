"""Sandboxes from a Dockerfile, without Docker.

The file's steps are carried out inside a new sandbox: ``RUN`` runs there, ``ENV`` and ``WORKDIR`` are
remembered, ``FROM python:3.12`` picks an interpreter of the host. What can not be done without root and an
image (system packages, other base images, ``COPY``) is skipped with a line in the build log, or fails the
build where the result would be wrong.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from . import creation
from .clock import to_iso
from .errors import bad_request
from .python_env import PythonUnusableError, probe_python

if TYPE_CHECKING:
    from .booting import Sandbox
    from .sandboxes import SandboxManager
    from .volumes import VolumeStore

log = logging.getLogger(__name__)

STEP_SECONDS = 900
ROOT_COMMAND = re.compile(
    r"^\s*(sudo\s+)?(apt-get|apt|dpkg|apk|yum|dnf|useradd|groupadd|adduser|usermod)\b|debconf-set"
)
INERT = frozenset(
    [
        "CMD",
        "ENTRYPOINT",
        "LABEL",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "SHELL",
        "MAINTAINER",
        "ONBUILD",
        "VOLUME",
        "USER",
    ]
)


class BuildError(Exception):
    """A step of the Dockerfile failed; the text names it."""


def parse_dockerfile(text: str) -> list[tuple[str, str]]:
    """Instructions in order, in capitals, with their arguments; continued lines are joined.

    ``BuildError``: if a line is no instruction or the first one is not ``FROM``.
    """
    joined = re.sub(r"\\[ \t]*\n", " ", text)
    steps = []
    for line in joined.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        word, _, rest = stripped.partition(" ")
        if not re.match(r"[A-Za-z]+\Z", word):
            raise BuildError(f"this line of the Dockerfile is no instruction: {stripped[:80]}")
        steps.append((word.upper(), rest.strip()))
    if not steps or next(word for word, _ in steps if word != "ARG") != "FROM":
        raise BuildError("the Dockerfile does not begin with FROM")
    return steps


def parse_env(arguments: str) -> dict[str, str]:
    """``ENV`` in both forms: ``A=1 B="two words"`` and ``A value``."""
    pairs = re.findall(r"""([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|'[^']*'|\S*)""", arguments)
    if not pairs:
        name, _, value = arguments.partition(" ")
        return {name: value.strip()} if name else {}
    return {name: value[1:-1] if value[:1] in "\"'" and len(value) > 1 else value for name, value in pairs}


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


class BuildRunner:
    """Builds under way and their logs."""

    def __init__(self, manager: SandboxManager, volumes: VolumeStore) -> None:
        self._manager = manager
        self._volumes = volumes
        self._grown: dict[str, asyncio.Event] = {}

    async def create(self, body: dict[str, Any]) -> Sandbox:
        """``POST /sandbox`` with ``buildInfo``: answers at once, in ``pending_build``."""
        manager = self._manager
        info = body.get("buildInfo")
        if not isinstance(info, dict) or not isinstance(info.get("dockerfileContent"), str):
            raise bad_request("buildInfo must have dockerfileContent")
        if info.get("contextHashes"):
            raise bad_request(
                "the local sandbox server has no object storage: images can not take local files"
            )
        now = manager.clock.now()
        record = creation.new_record(body, str(uuid.uuid4()), now)
        creation.apply_resources(record, body)
        record.volumes = self._volumes.checked(body.get("volumes"))
        manager.check_isolation_needs(record)
        record.isolation = manager.isolation.name
        record.build_info = {
            "dockerfileContent": info["dockerfileContent"],
            "contextHashes": [],
            "createdAt": to_iso(now),
            "updatedAt": to_iso(now),
            "snapshotRef": f"local-build-{record.id}",
        }
        record.state = "pending_build"
        manager.reserve_name(record.name, record.id)
        sandbox = manager.adopt(record)
        manager.announce(sandbox)
        manager.begin(sandbox, self._run(sandbox))
        return sandbox

    def log_file(self, sandbox: Sandbox) -> Path:
        """Where the log of a sandbox's build is."""
        return sandbox.directory / "build.log"

    def _say(self, sandbox: Sandbox, line: str) -> None:
        with self.log_file(sandbox).open("a") as stream:
            stream.write(line.rstrip("\n") + "\n")
        event = self._grown.get(sandbox.record.id)
        if event is not None:
            event.set()

    async def _run(self, sandbox: Sandbox) -> None:
        manager, record = self._manager, sandbox.record
        assert record.build_info is not None
        await asyncio.sleep(0)  # lets the first answer go out as pending_build
        manager.set_state(sandbox, "building_snapshot")
        try:
            steps = parse_dockerfile(record.build_info["dockerfileContent"])
            await self._carry_out(sandbox, steps)
        except BuildError as exc:
            self._say(sandbox, f"ERROR: {exc}")
            await manager.halt(sandbox, 0)
            manager.set_state(sandbox, "build_failed", reason=str(exc))
            return
        finally:
            self._finish(sandbox)
        manager.set_state(sandbox, "creating")
        await manager.boot(sandbox)

    def _finish(self, sandbox: Sandbox) -> None:
        event = self._grown.pop(sandbox.record.id, None)
        if event is not None:
            event.set()

    async def _carry_out(self, sandbox: Sandbox, steps: list[tuple[str, str]]) -> None:
        manager, record = self._manager, sandbox.record
        base = next(arguments for word, arguments in steps if word == "FROM").split()[0]
        record.python, remark = await python_for_image(base)
        self._say(sandbox, f"Step 1/{len(steps)} : FROM {base}\n ---> {remark}")
        socket = await manager.boot_for_build(sandbox)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
            await self._run_steps(sandbox, session, steps)
        await manager.halt(sandbox)
        self._say(sandbox, "Successfully built")

    async def _run_steps(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, steps: list[tuple[str, str]]
    ) -> None:
        record, directory = sandbox.record, ""
        for number, (word, arguments) in enumerate(steps[1:], start=2):
            self._say(sandbox, f"Step {number}/{len(steps)} : {word} {arguments}")
            if word == "RUN":
                await self._run_step(sandbox, session, arguments, directory)
            elif word == "ENV":
                record.env = {**parse_env(arguments), **record.env}
            elif word == "WORKDIR":
                directory = arguments
                await self._run_step(sandbox, session, f"mkdir -p {arguments}", "")
            elif word in ("COPY", "ADD", "FROM"):
                raise BuildError(f"{word} is not supported by the local sandbox server: {arguments}")
            elif word not in INERT and word != "ARG":
                raise BuildError(f"unknown instruction: {word}")

    async def _run_step(
        self, sandbox: Sandbox, session: aiohttp.ClientSession, command: str, directory: str
    ) -> None:
        parts = [part.strip() for part in command.split("&&")]
        kept = [part for part in parts if not ROOT_COMMAND.match(part)]
        if len(kept) < len(parts):
            self._say(sandbox, " ---> skipped, needs root: " + " && ".join(p for p in parts if p not in kept))
        if not kept:
            return
        body: dict[str, Any] = {
            "command": " && ".join(kept),
            "timeout": STEP_SECONDS,
            "envs": sandbox.record.env,
        }
        if directory:
            body["cwd"] = directory
        unlimited = aiohttp.ClientTimeout(total=None)
        async with session.post("http://daemon/process/execute", json=body, timeout=unlimited) as answer:
            result = await answer.json()
        text = str(result.get("result") or result.get("message") or "")
        if text:
            self._say(sandbox, text)
        if result.get("exitCode") != 0:
            raise BuildError(
                f"RUN {command[:200]} ended with {result.get('exitCode')}: {text.strip()[-300:]}"
            )

    async def follow(self, sandbox: Sandbox, *, follow: bool) -> AsyncIterator[bytes]:
        """The build's log; with `follow` until the build ends."""
        path = self.log_file(sandbox)
        offset = 0
        while True:
            building = sandbox.record.state in ("pending_build", "building_snapshot")
            event = self._grown.setdefault(sandbox.record.id, asyncio.Event()) if building else None
            if event is not None:
                event.clear()
            if path.exists():
                with path.open("rb") as stream:
                    stream.seek(offset)
                    data = stream.read()
                offset += len(data)
                if data:
                    yield data
            if event is None or not follow:
                return
            await event.wait()
