"""Where a notebook's cells run: its sandbox, an interpreter context in it, and the agent in there.

Got ready, found again, changed on request, repaired and given up. What is done there is :mod:`.session`'s.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .config import DaytonaSettings
from .context import ContextStarter, Started, checked_info
from .controlplane import STARTED
from .errors import DaytonaKernelError, SandboxError, SandboxGone
from .link import Link
from .lookback import last_cell, left_behind, used_by_others
from .loopthread import LoopThread
from .messages import is_count
from .redaction import Secrets
from .sandbox import BUSY, SandboxManager
from .toolbox import Toolbox

if TYPE_CHECKING:
    from daytona import AsyncSandbox

log = logging.getLogger(__name__)

Content = dict[str, Any]

STATE_CHECK_S = 2.0
"""Between two looks at the sandbox's state while it does not answer."""
OTHERS_S = 1.0
"""How long an end may look for others in the sandbox."""
LEFT_BEHIND = (
    "The kernel before this one ended abruptly. Its Python process is there still: %daytona missed goes back"
    " to it, with its variables, and shows the output of its last cell."
)


class Workplace(LoopThread):
    """One notebook's sandbox and context, on a thread of its own. A lost context is made anew when needed."""

    def __init__(
        self,
        settings: DaytonaSettings,
        *,
        name: str = "",
        remembered: Content | None = None,
        on_ready: Callable[[Content], None] = lambda info: None,
    ) -> None:
        super().__init__("daytona-session")
        self.settings = settings
        self.name = name or uuid.uuid4().hex
        self.info: Content = {}
        """What the agent said of itself: ``python``, ``shell_version``, ``banner``, ``pid``, ``cwd`` ..."""
        self.secrets = Secrets()
        """What is taken out of the cells' output: the key, and values of variables that this side has set."""
        self.execution_count = 1
        self.manager = SandboxManager(settings, self._show_status)
        self._remembered = dict(remembered or {})
        self._on_ready = on_ready
        self._toolbox: Toolbox | None = None
        self._link: Link | None = None
        self._ready: asyncio.Task[None] | None = None
        self._notices: list[str] = []
        self._status: str | None = None
        self._ever_ready = False
        self._announced = False
        """Whether a command has told the person that the next cell begins without variables."""
        self.left_behind = ""
        """The context of a kernel that was killed, which is still there."""
        self._starter = ContextStarter(self.name, self._show_status)
        self._own: set[str] = set()
        """The contexts that are ours to end: the one in use, unless it is shared, and those kept aside."""
        self._lock = asyncio.Lock()
        """Held while a request is served: nobody changes the context under it."""
        self._acquiring = asyncio.Lock()

    def start(self, *, prepare: bool = True) -> None:
        """Begin to get the sandbox ready, in the background. Without ``prepare`` only when it is needed."""
        self._thread.start()
        if prepare:
            self.run(self._begin())

    def attach(self, context_id: str = "") -> concurrent.futures.Future[Content]:
        """Go over to a Python process that is there in the sandbox already, with its variables.

        Without ``context_id`` to the one used last, other than the present one. The result tells
        ``context_id``, and ``running``: whether a cell still runs there (see :meth:`missed`); the next cell
        waits for it. The present context is deleted. Raises :class:`SandboxError` if there is no such
        process.
        """
        return self.run(self._attach(context_id))

    # -- getting ready -----------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._ready = self._spawn(self._prepare())

    async def _acquire(self) -> None:
        """Have a sandbox, found or made, and its toolbox."""
        async with self._acquiring:
            if self.manager.sandbox is not None:
                return
            self.secrets.add_environment(self.settings.env_vars)
            await self.manager.acquire(str(self._remembered.get("sandbox_id", "")))
            if self._remembered.get("owned") is False:
                self.manager.owned = False
            if self.manager.notice:
                self._notices.append(self.manager.notice)
                self.manager.notice = ""
            await self._renew_toolbox()

    async def _renew_toolbox(self) -> None:
        old, self._toolbox = self._toolbox, None
        if self.manager.sandbox is not None:
            endpoint = self.manager.endpoint()
            self._toolbox = Toolbox(endpoint)
            self.secrets.add(endpoint.headers.get("Authorization", "").removeprefix("Bearer "))
        if old is not None:
            await old.close()

    async def _prepare(self) -> None:
        """From nothing, or from a lost context, to an agent that answers."""
        began = time.monotonic()
        if self.manager.sandbox is not None:
            await self._repair_sandbox()
        await self._acquire()
        assert self._toolbox is not None
        acquired = time.monotonic()
        started = await self._start_context()
        link, self.info = started.link, started.info
        self._own.add(link.context_id)
        self._notices += started.notices
        await self._look_back()
        self._link = link
        link.warm_up()
        self._ever_ready, self._announced = True, False
        now = time.monotonic()
        log.info("ready: sandbox after %.3f s, Python in it %.3f s later", acquired - began, now - acquired)
        self._tell_ready()

    async def _start_context(self) -> Started:
        """A context. A sandbox that turns out to have stopped, as may be told late, is started first."""
        assert self._toolbox is not None
        starting = asyncio.ensure_future(self._starter.start(self._toolbox, self.execution_count))
        stopping = asyncio.ensure_future(self._until_stopped())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                return starting.result()
        finally:
            for task in (starting, stopping):
                task.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
        await self._repair_sandbox()
        await self._acquire()
        return await self._starter.start(self._toolbox, self.execution_count)

    async def _until_stopped(self) -> None:
        """Look again and again whether the sandbox runs, until it does not."""
        while True:
            await asyncio.sleep(STATE_CHECK_S)
            with suppress(DaytonaKernelError):
                if not await self._sandbox_runs():
                    return

    def _tell_ready(self) -> None:
        self._on_ready(
            {
                **self.info,
                "sandbox_id": self.manager.sandbox.id if self.manager.sandbox else "",
                "context_id": self.context_id if self.context_id in self._own else "",
                "left_behind": self.left_behind,
                "owned": self.manager.owned,
            }
        )

    async def _look_back(self) -> None:
        """A kernel that ends in order deletes its context. If it is there, the kernel was killed."""
        assert self._toolbox is not None
        older = str(self._remembered.pop("left_behind", ""))
        if older:
            self._own.add(older)
            self._spawn(self._delete_context(older))
        old = str(self._remembered.pop("context_id", ""))
        if not old:
            return
        with suppress(DaytonaKernelError):
            if any(item.get("id") == old and item.get("active") for item in await self._toolbox.contexts()):
                self.left_behind = old
                self._notices.append(LEFT_BEHIND)

    async def _repair_sandbox(self) -> None:
        """Before a context is made anew: the sandbox may have stopped meanwhile, or be gone."""
        try:
            if await self.manager.ensure_started():
                if self._announced:
                    return
                notice = "Python in the sandbox was started anew: variables are lost, files are there."
            else:
                notice = "The sandbox had stopped and was started again: variables are lost, files are there."
                await self._renew_toolbox()
        except SandboxGone:
            if self.settings.sandbox:
                raise
            self._remembered = {}
            notice = "The sandbox is gone, a new one takes its place: variables and files are lost."
        if self._ever_ready and notice not in self._notices:
            self._notices.append(notice)
            self._announced = True  # which says it all, also for the new context that comes after it

    async def _attach(self, context_id: str) -> Content:
        await self._acquire()
        async with self._lock:
            if self._ready is not None and not self._ready.done():
                await asyncio.wait({self._ready})
            assert self._toolbox is not None
            found = [
                one
                for one in await left_behind(self._toolbox)
                if one.context_id != self.context_id and context_id in ("", one.context_id)
            ]
            if not found:
                raise SandboxError("There is no other Python process of a notebook in this sandbox.")
            one = found[0]
            self._drop_context()
            self._notices.clear()
            self._link = Link(self._toolbox, one.context_id, one.spool)
            self._own.add(one.context_id)
            self._link.pid, self.info, self._ever_ready = one.pid, checked_info(one.info), True
            count = one.last.get("execution_count")
            self.execution_count = count if is_count(count) else 1
            if self.left_behind == one.context_id:
                self.left_behind = ""
            self._link.warm_up()
            self._tell_ready()
            return {"context_id": one.context_id, "running": one.running}

    # -- for %daytona; on the session's loop -------------------------------------------------------

    @property
    def toolbox(self) -> Toolbox | None:
        """Calls to the sandbox, once there is one."""
        return self._toolbox

    @property
    def context_id(self) -> str:
        """The interpreter context of the cells; empty if there is none yet."""
        return self._link.context_id if self._link is not None else ""

    async def settled(self) -> None:
        """Wait for a preparation that has begun, whatever comes of it."""
        if self._ready is not None and not self._ready.done():
            await asyncio.wait({self._ready})

    async def ensure_sandbox(self) -> AsyncSandbox:
        """The sandbox, found, made or started if need be. No context is made in it."""
        if self.manager.sandbox is not None and not await self._sandbox_runs():
            self._drop_context()
            await self._repair_sandbox()
        await self._acquire()
        return await self.manager.sdk_sandbox()

    async def use_sandbox(self, sandbox: AsyncSandbox | None, *, owned: bool) -> None:
        """Go over to another sandbox, or with ``None`` to a new one for the next cell.

        Our contexts in the old one are ended; the old sandbox itself is left as it is.
        """
        await self.forget_context()
        await self._end_contexts()
        async with self._acquiring:
            self._remembered = {}
            await self.manager.adopt(sandbox, owned=owned)
            self.settings.sandbox = sandbox.name if sandbox is not None and not owned else ""
            await self._renew_toolbox()
        self._announced = True

    async def forget_context(self, *, delete: bool = True, keep: bool = False) -> None:
        """Let the next cell begin in a new context: variables are lost.

        ``keep``: the context stays, to be gone back to. Without ``delete`` the sandbox itself stops, and all
        contexts with it. A sandbox that is just being made is waited for: nobody would delete it otherwise.
        """
        await self.settled()
        link, toolbox = self._link, self._toolbox
        self._drop_context(delete=False)
        self._announced = keep
        if not delete:
            self._own.clear()
        elif link is not None and toolbox is not None and not keep:
            await self._delete_context(link.context_id)

    async def join_context(self, context_id: str) -> None:
        """Go over to a context that is there already, whoever made it; the present one is kept.

        Raises :class:`SandboxError` if nothing of ours can be started there; then all stays as it is.
        """
        await self.ensure_sandbox()
        await self.settled()
        assert self._toolbox is not None
        async with self._lock:
            started = await self._starter.join(self._toolbox, context_id, self.execution_count)
            self._drop_context(delete=False)
            self._notices[:] = started.notices
            self._link, self.info, self._ever_ready = started.link, started.info, True
            last = await last_cell(self._toolbox, started.link.spool)
            count = last.get("execution_count")
            self.execution_count = count if is_count(count) else 1
            started.link.warm_up()
            self._tell_ready()

    # -- giving up ---------------------------------------------------------------------------------

    async def _sandbox_runs(self) -> bool:
        """Whether processes go on in the sandbox by its state; ``True`` if the service can not be asked."""
        return self.manager.sandbox is not None and await self.manager.state() in (STARTED, "", *BUSY)

    async def _is_shared(self) -> bool:
        """Whether another kernel of this notebook uses the sandbox, which must not end under it."""
        if self._toolbox is None or not self.manager.may_be_shared:
            return False
        look = used_by_others(self._toolbox, {*self._own, self.left_behind})
        try:
            return await asyncio.wait_for(look, OTHERS_S)
        except (DaytonaKernelError, asyncio.TimeoutError):
            return False

    def _drop_context(self, *, delete: bool = True) -> None:
        """Forget the context: the next request gets a new one, and hears of the lost variables."""
        link, self._link, self._ready = self._link, None, None
        if link is not None:
            self._spawn(link.close())
            if delete:
                # A dead context stays wedged on the real daemon (observed on v0.190.0): it is not used again.
                self._spawn(self._delete_context(link.context_id))

    async def _delete_context(self, context_id: str) -> None:
        """End a context, unless it is somebody else's."""
        if self._toolbox is not None and context_id in self._own:
            self._own.discard(context_id)
            with suppress(DaytonaKernelError):
                await self._toolbox.delete_context(context_id)

    async def _end_contexts(self) -> None:
        """End all contexts that are ours."""
        await asyncio.gather(*(self._delete_context(one) for one in [*self._own]))
        self._own.clear()

    # -- small things ------------------------------------------------------------------------------

    def _show_status(self, text: str | None) -> None:
        self._status = text
