"""From a started sandbox to an interpreter context with an agent that answers, and IPython for it.

A sandbox may have any Python from 3.10 on, no IPython and no network. What it lacks is sent from this side.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from . import payload, wire
from .controlplane import GATEWAY
from .errors import ConnectionFailed, DaytonaKernelError, SandboxError, SandboxProtocolError
from .execution import ContextLost, Execution
from .link import Link
from .messages import clean_text
from .terminal import without_sequences
from .toolbox import Toolbox, ToolboxError

log = logging.getLogger(__name__)

Content = dict[str, Any]

BOOTSTRAP_TIMEOUT_S = 60.0
PATIENCE_S = 15.0
"""How long a sandbox that is started may refuse before that is believed."""
PAUSE_MIN_S, PAUSE_MAX_S = 0.3, 2.0
GIVE_UP_S = 2.5
SHOWN = ("python", "shell_version", "banner")
"""What front ends are told first of all: a text that can not be sent would leave them without an answer."""
SHOWN_CHARS = 4000
NOT_YET = (400, 401, 404, 429, *GATEWAY)
"""The proxy's words for a sandbox that it does not know yet (401, which it remembers for 5 s; 404), that has
no address yet (400) or whose daemon does not listen yet (502, 503, 504), as of v0.190.0."""
PLAIN_NOTICE = "IPython could not be provided in this sandbox: cells are plain Python, without magics."
NO_CAPTURE_NOTICE = "Output of child processes is not shown: this sandbox's interpreter does not allow it."
PIP_SCRIPT = '"$0" -m pip install -q --disable-pip-version-check --retries 1 --target "$1" ipython comm'
UNPACK_SCRIPT = (
    "import sys,zipfile,os\n"
    "zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])\n"
    "os.unlink(sys.argv[1]); open(sys.argv[2]+'/complete','w').close()"
)


def envelope(
    kind: str, content: Content, parent: Content, execution_count: int, *, local: bool, **extra: Any
) -> Content:
    """A request to the agent, with an id of its own.

    ``local``: on loopback, compressing costs more than it saves.
    """
    return {
        "id": uuid.uuid4().hex,
        "type": kind,
        "content": content,
        "parent": parent,
        "execution_count": execution_count,
        "compress_over_chars": wire.NO_COMPRESSION if local else 2048,
        **extra,
    }


@dataclass
class Started:
    """A context that is ready: the way into it, what its agent said, and what the person should know."""

    link: Link
    info: Content
    notices: list[str] = field(default_factory=list)


class ContextStarter:
    """Makes contexts for one notebook. ``name``: of the spool's directory in the sandbox.

    ``on_status`` gets a line for the person while something takes its time, ``None`` when it is over.
    """

    def __init__(self, name: str, on_status: Callable[[str | None], None] = lambda _: None) -> None:
        self.name = name
        self._on_status = on_status
        self._capture = True

    async def start(self, toolbox: Toolbox, execution_count: int = 1) -> Started:
        """A fresh context with the agent in it. Without descriptor capture if that does not work there.

        Raises :class:`SandboxProtocolError` if no agent can be started, :class:`ConnectionFailed` and
        :class:`ToolboxError` if the toolbox does not answer or refuses.
        """
        for capture in (True, False) if self._capture else (False,):
            context_id = await self._create_context(toolbox)
            link = Link(toolbox, context_id)
            try:
                return await self._bootstrap(link, capture, execution_count)
            except (ContextLost, asyncio.TimeoutError, SandboxProtocolError) as exc:
                log.warning("the agent did not start (capture %s): %s", capture, exc or type(exc).__name__)
                await link.close()
                with suppress(DaytonaKernelError):
                    await toolbox.delete_context(context_id)
                self._capture = False
            except BaseException:
                await link.close()
                with suppress(DaytonaKernelError, asyncio.TimeoutError):
                    await asyncio.wait_for(toolbox.delete_context(context_id), GIVE_UP_S)
                raise
        raise SandboxProtocolError(
            "Python was started in the sandbox, but the kernel's agent does not answer there.",
            hint="The sandbox needs Python 3.10 or later as python3; try another snapshot or image.",
        )

    async def join(self, toolbox: Toolbox, context_id: str, execution_count: int = 1) -> Started:
        """The agent in a context that is there already, whoever made it. ``default`` is plain clients' own.

        The context stays, whatever becomes of this. Raises :class:`SandboxError` if no agent answers there.
        """
        link = Link(toolbox, context_id)
        try:
            return await self._bootstrap(link, self._capture, execution_count)
        except BaseException as exc:
            await link.close()
            if isinstance(exc, (ContextLost, asyncio.TimeoutError, SandboxProtocolError)):
                raise SandboxError(
                    f"The context {context_id} does not answer.", hint="Its Python is busy, or has died."
                ) from exc
            raise

    async def _create_context(self, toolbox: Toolbox) -> str:
        """A context, as soon as there can be one: a sandbox is "started" before all of it answers."""
        give_up_at = time.monotonic() + PATIENCE_S
        pause_s = PAUSE_MIN_S
        try:
            while True:
                try:
                    return await toolbox.create_context()
                except ToolboxError as exc:
                    if exc.status == 500:
                        raise SandboxProtocolError(
                            "The sandbox could not start Python.",
                            hint="It needs python3, version 3.10 or later.",
                        ) from exc
                    if exc.status not in NOT_YET:
                        raise
                    if time.monotonic() > give_up_at:
                        raise SandboxError(
                            f"The sandbox is started, but does not take calls yet ({exc.status}).",
                            hint="Run the cell again; if it stays so: %daytona stop, and again.",
                        ) from exc
                except ConnectionFailed:
                    if time.monotonic() > give_up_at:
                        raise
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_MAX_S)
                self._on_status("Waiting for the sandbox to answer …")
        finally:
            self._on_status(None)

    # -- the agent ---------------------------------------------------------------------------------

    async def _bootstrap(self, link: Link, capture: bool, execution_count: int) -> Started:
        # Of its own for each context: an earlier one of this notebook may still be there to go back to.
        options = {"name": f"{self.name}-{link.context_id[:8]}", "capture": capture}
        hello = _hello(link, execution_count)
        info = await _greet(link, hello, payload.bootstrap_code(options, hello))
        if info["shell"] == "plain" and (path := await self._provide_ipython(link.toolbox, info)):
            info = await _greet(link, _hello(link, execution_count, ipython_path=path), None)
        elif capture:
            # The handshake: a worker that keeps to its old descriptors has lost its commands by now.
            info = await _greet(link, _hello(link, execution_count), None)
        notices = []
        if info["shell"] == "plain":
            notices.append(PLAIN_NOTICE)
        if not info["capture"]:
            notices.append(NO_CAPTURE_NOTICE)
        return Started(link, info, notices)

    # -- IPython -----------------------------------------------------------------------------------

    async def _provide_ipython(self, toolbox: Toolbox, info: Content) -> str | None:
        """Bring IPython into the sandbox; the directory to import it from, or ``None``."""
        try:
            if payload.python_suits(str(info["python"])):
                self._on_status("Sending IPython to the sandbox …")
                try:
                    return await _send_ipython(toolbox, info)
                except (payload.NoPureIPython, DaytonaKernelError) as exc:
                    log.warning("IPython could not be sent: %s", exc)
            self._on_status("Installing IPython in the sandbox …")
            return await _pip_install_ipython(toolbox, info)
        finally:
            self._on_status(None)


def _hello(link: Link, execution_count: int, **content: Any) -> Content:
    variables = {}
    if session_name := os.environ.get("JPY_SESSION_NAME", ""):
        variables["__session__"] = session_name
    local = link.toolbox.endpoint.is_local
    return envelope(
        "hello",
        {"variables": variables, "context_id": link.context_id, "environment": _appearance(), **content},
        {},
        execution_count,
        local=local,
    )


def _appearance() -> dict[str, str]:
    """Variables of this side that say how tracebacks and tables look, as under ipykernel."""
    names = ("COLUMNS", "LINES", "IPYKERNEL_CELL_NAME")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


async def _greet(link: Link, request: Content, code: str | None) -> Content:
    """Run a ``hello``; what the agent says of itself.

    Raises :class:`SandboxProtocolError` if it says nothing.
    """
    stray: list[str] = []
    execution = Execution(request, lambda frame: None, lambda name, text: stray.append(text), code=code)
    done = await asyncio.wait_for(link.run(execution), BOOTSTRAP_TIMEOUT_S)
    info = done.get("reply")
    if not isinstance(info, dict) or info.get("status") != "ok":
        raise SandboxProtocolError(f"The kernel's agent could not start: {''.join(stray)[-500:] or info}")
    link.spool = str(info.get("spool", ""))
    info = checked_info(info)
    link.pid = info["pid"]
    return info


def checked_info(info: Content) -> Content:
    """What an agent says of itself, with values of the types that are relied on: it may say anything."""
    texts = {name: info.get(name) for name in ("executable", "home", "shell", *SHOWN)}
    known = {name: text if isinstance(text, str) else "" for name, text in texts.items()}
    known |= {name: without_sequences(clean_text(known[name][:SHOWN_CHARS])) for name in SHOWN}
    pid = info.get("pid")
    return {
        **info,
        **known,
        "capture": info.get("capture") is True,
        "pid": pid if type(pid) is int and pid > 1 else 0,
    }


async def _pip_install_ipython(toolbox: Toolbox, info: Content) -> str | None:
    target = f"{info['home']}/.cache/daytona-kernel/pip-{info['python']}"
    try:
        status, output = await toolbox.execute(
            "sh", "-c", PIP_SCRIPT, str(info["executable"]), target, timeout_s=120
        )
    except DaytonaKernelError as exc:
        log.warning("pip could not be run: %s", exc)
        return None
    if status != 0:
        log.warning("pip failed: %s", output[-300:])
        return None
    return target


async def _send_ipython(toolbox: Toolbox, info: Content) -> str:
    """Upload this side's IPython, once per sandbox and version; where it is.

    Raises :class:`SandboxError` if nothing can be written there, :class:`payload.NoPureIPython` if this
    side has none to send.
    """
    name = f"ipython-{payload.ipython_hash()}"
    archive: bytes | None = None
    for parent in (f"{info['home']}/.cache/daytona-kernel", f"/tmp/.daytona-kernel-{name}"):  # noqa: S108
        target = f"{parent}/{name}"
        check, _ = await toolbox.execute("test", "-e", f"{target}/complete", timeout_s=10)
        if check == 0:
            return target
        if archive is None:
            archive = await asyncio.to_thread(payload.ipython_zip)
        try:
            await toolbox.upload(f"{parent}/{name}.zip", archive, timeout_s=120)
        except ToolboxError as exc:
            log.info("no upload to %s: %s", parent, exc)
            continue
        python = str(info["executable"])
        status, output = await toolbox.execute(
            python, "-c", UNPACK_SCRIPT, f"{parent}/{name}.zip", target, timeout_s=60
        )
        if status == 0:
            return target
        log.warning("unpacking IPython failed: %s", output[-300:])
    raise SandboxError("There is no place in the sandbox to put IPython.")
