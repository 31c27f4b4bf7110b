"""Where a command runs: the kernel or a plain IPython. A command may do what a :class:`Host` offers."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DaytonaKernelError

if TYPE_CHECKING:
    from daytona import AsyncDaytona, AsyncSandbox

    from ..session import Session
    from ..toolbox import Toolbox

T = TypeVar("T")
Bundle = Mapping[str, Any]


class UsageError(DaytonaKernelError):
    """What was typed can not be right; nothing was done."""


class CommandFailed(DaytonaKernelError):
    """A command could not do, or not do all of, what it was asked to."""


@dataclass
class Result:
    """What a command has to show, and its value.

    ``value`` is JSON-able: it is what ``name = %daytona ...`` and ``--json`` give. ``data`` and ``metadata``
    are a mime bundle; ``text`` is its plain form. With ``error`` the result is shown, then that is raised.
    """

    value: Any = None
    text: str = ""
    html: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    error: DaytonaKernelError | None = None

    def bundle(self) -> dict[str, Any]:
        """All forms of the result, for a front end to choose from."""
        bundle = dict(self.data)
        if self.html:
            bundle["text/html"] = self.html
        bundle["text/plain"] = self.text
        return bundle


class Host(ABC):
    """The session of a notebook, and ways to talk to its person. Commands use it on the session's loop."""

    door = ""
    """``kernel`` or ``ipython``."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.state: dict[str, Any] = {}
        """What commands remember of this notebook: live preview links and the like."""
        self.namespace: dict[str, Any] = {}
        """The variables of the person's own Python, where there is one."""
        self.phase = ""
        """What is being waited for, if a command has said so."""
        self.said = 0
        """How often something was shown that stays."""
        self.as_json = False
        """Whether the command's value is to be shown as JSON: stdout is for that alone."""
        self._checked = False
        self._start_of = ("", "")

    @property
    def is_local(self) -> bool:
        """Whether the sandboxes are those of the embedded server."""
        return self.session.settings.is_local

    def without_secrets(self, text: str) -> str:
        """What may be shown of a text, for what programs of the sandbox print comes this way, too."""
        hidden = self.session.settings.redact_secrets
        return self.session.secrets.text(text) if hidden else text

    def bundle_without_secrets(self, data: Bundle) -> dict[str, Any]:
        """What may be shown of a mime bundle."""
        hidden = self.session.settings.redact_secrets
        return self.session.secrets.bundle(dict(data)) if hidden else dict(data)

    @abstractmethod
    def write(self, text: str, *, error: bool = False) -> None:
        """Write to the cell's stdout, or with ``error`` to its stderr."""

    @abstractmethod
    def display(self, data: Bundle, metadata: Bundle | None = None) -> None:
        """Show a mime bundle."""

    @abstractmethod
    def publish(
        self, type: str, content: dict[str, Any], metadata: Bundle, buffers: tuple[bytes, ...]
    ) -> None:
        """Show a message that came from the sandbox, as it is: stream, display, result, clear_output."""

    def status(self, text: str | None) -> None:
        """Say what is being waited for; ``None``: it is over."""
        self.phase = text or ""
        self.show_status(text)

    @abstractmethod
    def show_status(self, text: str | None) -> None:
        """Show a line, where somebody looks, that vanishes with ``None`` or the next output."""

    @abstractmethod
    def progress(self, line: str | None) -> None:
        """Show how far a command is, where somebody looks, in place of the line before.

        ``None``: the last one stays.
        """

    @abstractmethod
    def ask_blocking(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        """Ask the person for a line, on a thread of its own; ``None`` if nobody can be asked."""

    async def ask(self, prompt: str, *, password: bool = False) -> str:
        """Ask the person for a line. Raises :class:`UsageError` where nobody can be asked."""
        cancelled = threading.Event()
        self.said += 1
        self.show_status(None)
        try:
            answer = await asyncio.to_thread(self.ask_blocking, prompt, password, cancelled)
        finally:
            cancelled.set()
        if answer is None:
            raise UsageError(f"There is nobody to ask: {prompt.strip()}")
        return answer

    @property
    def python_cwd(self) -> str:
        """Where the notebook's Python is in the sandbox, as it said at last; empty if that is not known."""
        path = self.session.info.get("cwd") if self.session.context_id else ""
        usable = isinstance(path, str) and path.startswith("/") and path.isprintable() and len(path) < 4096
        return str(path) if usable else ""

    async def directory(self, sandbox: AsyncSandbox | None = None) -> str:
        """Where relative paths begin: with the notebook's Python. Empty for where programs start anyway.

        ``sandbox``: as it is; without one it is started if need be.
        """
        sandbox = await self.sandbox() if sandbox is None else sandbox
        path = self.python_cwd
        if not path:
            return ""
        if self._start_of[0] != sandbox.id:
            self._start_of = sandbox.id, await sandbox.get_work_dir()
        return "" if path == self._start_of[1] else path

    # -- what commands work on -------------------------------------------------------------------------

    async def sandbox(self) -> AsyncSandbox:
        """The notebook's sandbox, made or started if need be; looked at once for each command."""
        if self._checked and self.session.manager.sandbox is not None:
            return await self.session.manager.sdk_sandbox()
        sandbox = await self._announced(self.session.ensure_sandbox())
        self._checked = True
        return sandbox

    async def settled_sandbox(self) -> AsyncSandbox | None:
        """The notebook's sandbox as it is, if there is one. One that is being made is waited for."""
        if self.session.manager.sandbox is None:
            await self._announced(self.session.settled())
        if self.session.manager.sandbox is None:
            return None
        return await self._announced(self.session.manager.sdk_sandbox())

    async def _announced(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something; say so once it has taken a while, and take the words back."""
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=self.session.settings.status_after)
            if not done:
                self.status("Waiting for the sandbox …")
                try:
                    await asyncio.wait({task})
                finally:
                    self.status(None)
            return task.result()
        finally:
            task.cancel()

    def begin_command(self) -> None:
        """Called before each command: the sandbox may have stopped since the last one."""
        self._checked = False

    async def toolbox(self) -> Toolbox:
        """Calls to the notebook's sandbox."""
        await self.sandbox()
        toolbox = self.session.toolbox
        assert toolbox is not None
        return toolbox

    async def client(self) -> AsyncDaytona:
        """The SDK's client, for what concerns more than the notebook's sandbox."""
        return await self.session.manager.client()
