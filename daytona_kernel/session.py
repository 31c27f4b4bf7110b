"""One live notebook: its sandbox, its interpreter context, the agent in there, and the link to it.

A session has a thread and an event loop of its own, so that neither a busy kernel nor a slow front end
stalls the socket. Its public methods may be called from any thread; they return
:class:`concurrent.futures.Future`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from . import wire
from .config import DaytonaSettings
from .context import ContextStarter, envelope
from .errors import (
    ConnectionFailed,
    DaytonaKernelError,
    ExecutionUnknown,
    SandboxGone,
    SandboxProcessDied,
    SandboxProtocolError,
)
from .execution import ContextLost, Execution
from .link import Link
from .sandbox import SandboxManager
from .toolbox import Toolbox

log = logging.getLogger(__name__)

Content = dict[str, Any]
T = TypeVar("T")

MESSAGE_TYPES = frozenset(
    (
        *("stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"),
        *("comm_open", "comm_msg", "comm_close"),
    )
)
"""What the sandbox may have published. Anything else from there is dropped: it is not trusted."""
CONNECTION_STATUS_S = 3.0
STATE_CHECK_S = 2.0
STUBBORN_S = 5.0
ATTEMPTS = 3


class Sink(Protocol):
    """Where a request's output goes. Called on the session's thread; must not block."""

    def publish(self, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]) -> None:
        """Send an IOPub message with the request's parent header."""

    def status(self, text: str | None) -> None:
        """Show the person what is being waited for; ``None``: it is over."""

    def notice(self, text: str) -> None:
        """Tell the person something that must not be missed, in the cell."""

    def ask(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        """Ask the front end for a line; called on a thread of its own. ``None`` if ``cancelled``."""


class Interrupted(DaytonaKernelError):
    """The person interrupted the cell before any of it ran, or while nobody could reach the sandbox."""


@dataclass
class _Running:
    """The request that is being served right now."""

    sink: Sink
    execution: Execution | None = None
    interrupts: int = 0
    sent: int = 0
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    input_cancelled: threading.Event = field(default_factory=threading.Event)


class Session:
    """Runs a notebook's requests in a sandbox, one at a time and in order."""

    def __init__(
        self,
        settings: DaytonaSettings,
        *,
        name: str = "",
        remembered: Content | None = None,
        on_ready: Callable[[Content], None] = lambda info: None,
    ) -> None:
        self.settings = settings
        self.name = name or uuid.uuid4().hex
        self.info: Content = {}
        """What the agent said of itself: ``python``, ``shell_version``, ``banner``, ``pid``, ``cwd`` ..."""
        self.execution_count = 1
        self.manager = SandboxManager(settings, self._show_status)
        self._remembered = remembered or {}
        self._on_ready = on_ready
        self._toolbox: Toolbox | None = None
        self._link: Link | None = None
        self._ready: asyncio.Task[None] | None = None
        self._notices: list[str] = []
        self._running: _Running | None = None
        self._status: str | None = None
        self._ever_ready = False
        self._starter = ContextStarter(self.name, self._show_status)
        self._loop = asyncio.new_event_loop()
        self._lock = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run_loop, name="daytona-session", daemon=True)

    # -- from any thread ---------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to get the sandbox ready, in the background."""
        self._thread.start()
        self._submit(self._begin())

    def execute(self, content: Content, parent: Content, sink: Sink) -> concurrent.futures.Future[Content]:
        """Run a cell; the result is the content of its ``execute_reply``, without engine fields.

        ``content``: ``code``, ``silent``, ``store_history``, ``user_expressions``, ``allow_stdin``,
        ``cell_id``. Errors of the sandbox are raised as :class:`DaytonaKernelError`; errors of the code are
        in the reply.
        """
        return self._submit(self._serve("execute", content, parent, sink))

    def request(
        self, kind: str, content: Content, parent: Content, sink: Sink, **extra: Any
    ) -> concurrent.futures.Future[Content]:
        """Ask the agent something that is no cell: ``complete``, ``inspect``, ``history``, ``comm`` ..."""
        return self._submit(self._serve(kind, content, parent, sink, **extra))

    def interrupt(self) -> concurrent.futures.Future[None]:
        """Interrupt what runs, as Ctrl-C does. Nothing happens if nothing runs."""
        return self._submit(self._interrupt())

    def close(self, *, restarting: bool = False) -> concurrent.futures.Future[str]:
        """End the session; with ``restarting`` the sandbox is kept for the next one.

        What became of the sandbox.
        """
        return self._submit(self._close(restarting))

    def stop_thread(self) -> None:
        """Stop the loop's thread, after :meth:`close`."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self._running is not None

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            pending = asyncio.all_tasks(self._loop)
            for task in pending:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self._loop.close()

    # -- getting ready -----------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._ready = self._spawn(self._prepare())

    async def _ensure_ready(self, running: _Running) -> None:
        """Wait for the sandbox; try again if the last try failed. Raises what the try raised."""
        if self._link is not None:
            return
        if self._ready is None or (self._ready.done() and self._ready.exception() is not None):
            self._ready = self._spawn(self._prepare())
        status = self._spawn(self._announce(running))
        abandoned = asyncio.ensure_future(running.abandoned.wait())
        try:
            await asyncio.wait({self._ready, abandoned}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            status.cancel()
            abandoned.cancel()
            await asyncio.gather(status, return_exceptions=True)
        if not self._ready.done():
            raise Interrupted("Interrupted before the sandbox was ready.", hint="The cell did not run.")
        self._ready.result()

    async def _announce(self, running: _Running) -> None:
        """Say what a cell waits for, once it has waited a while; take the words back at the end."""
        await asyncio.sleep(self.settings.status_after)
        shown: str | None = None
        try:
            while True:
                text = self._status or "Starting Python in the sandbox …"
                if text != shown:
                    running.sink.status(text)
                    shown = text
                await asyncio.sleep(0.2)
        finally:
            if shown is not None:
                running.sink.status(None)

    async def _prepare(self) -> None:
        """From nothing, or from a lost context, to an agent that answers."""
        if self.manager.sandbox is None:
            await self.manager.acquire(str(self._remembered.get("sandbox_id", "")))
            if self.manager.notice:
                self._notices.append(self.manager.notice)
                self.manager.notice = ""
            old = self._toolbox
            self._toolbox = Toolbox(self.manager.endpoint())
            if old is not None:
                await old.close()
        assert self._toolbox is not None
        started = await self._starter.start(self._toolbox, self.execution_count)
        link, self.info = started.link, started.info
        self._notices += started.notices
        old_context = self._remembered.pop("context_id", "")
        if old_context:
            self._spawn(self._delete_context(old_context))
        self._link = link
        link.warm_up()
        self._ever_ready = True
        self._on_ready(
            {
                "sandbox_id": self.manager.sandbox.id if self.manager.sandbox else "",
                "context_id": link.context_id,
                **self.info,
            }
        )

    # -- serving -----------------------------------------------------------------------------------

    def _envelope(self, kind: str, content: Content, parent: Content, **extra: Any) -> Content:
        local = self._toolbox is not None and self._toolbox.endpoint.is_local
        return envelope(kind, content, parent, self.execution_count, local=local, **extra)

    async def _serve(self, kind: str, content: Content, parent: Content, sink: Sink, **extra: Any) -> Content:
        async with self._lock:
            running = self._running = _Running(sink)
            keepalive: asyncio.Task[None] | None = None
            try:
                for attempt in range(ATTEMPTS):
                    await self._ensure_ready(running)
                    keepalive = keepalive or self._spawn(self.manager.keep_alive())
                    request = self._envelope(kind, content, parent, **extra)
                    done = await self._attempt(request, running, last=attempt == ATTEMPTS - 1)
                    if done is not None:
                        return self._finish(done)
                raise AssertionError("unreachable")
            finally:
                self._running = None
                running.input_cancelled.set()
                if keepalive is not None:
                    keepalive.cancel()

    def _finish(self, done: Content) -> Content:
        state = done.get("state")
        if isinstance(state, dict) and isinstance(state.get("execution_count"), int):
            self.execution_count = state["execution_count"]
        if self._link is not None:
            self._link.warm_up()
        reply = done.get("reply")
        return (
            reply
            if isinstance(reply, dict)
            else {"status": "error", "ename": "", "evalue": "", "traceback": []}
        )

    async def _attempt(self, request: Content, running: _Running, *, last: bool) -> Content | None:
        """Send a request once. ``None``: it certainly did not run, and the way is free to send it again."""
        assert self._link is not None
        execution = self._execution(request, running)
        running.execution = execution
        if self._notices and request["type"] == "execute":
            for text in self._notices:
                running.sink.notice(text)
            self._notices.clear()
        try:
            return await self._run(execution, running)
        except ContextLost as lost:
            await self._context_lost(lost, died=lost.died or execution.started)
            if lost.started or execution.started:
                raise self._death(lost) from lost
            if last:
                raise SandboxProtocolError(
                    "The sandbox's interpreter refused the cell several times; it did not run.",
                    hint="Restart the kernel, or the sandbox.",
                ) from lost
            return None
        except ConnectionFailed:
            # Nothing was sent. The control plane knows whether the sandbox is there at all.
            if last or await self._sandbox_survives():
                raise
            return None

    def _execution(self, request: Content, running: _Running) -> Execution:
        status = _ConnectionStatus(self, running)

        def on_frame(frame: wire.Frame) -> None:
            self._on_frame(frame, running)

        def on_text(name: str, text: str) -> None:
            running.sink.publish("stream", {"name": name, "text": text}, {}, ())

        return Execution(request, on_frame, on_text, status.set)

    async def _run(self, execution: Execution, running: _Running) -> Content:
        """Run it, and meanwhile notice a sandbox that goes away and a person who gives up."""
        assert self._link is not None
        run = asyncio.ensure_future(self._link.run(execution))
        watch = asyncio.ensure_future(self._watch_started(execution, running))
        abandoned = asyncio.ensure_future(running.abandoned.wait())
        try:
            await asyncio.wait({run, watch, abandoned}, return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                return run.result()
            if watch.done() and (error := watch.exception()) is not None:
                raise error
            raise Interrupted(
                "Interrupted while the sandbox could not be reached.",
                hint="Whether the cell still runs there is not known.",
            )
        finally:
            for task in (run, watch, abandoned):
                task.cancel()
            await asyncio.gather(run, watch, abandoned, return_exceptions=True)

    async def _watch_started(self, execution: Execution, running: _Running) -> None:
        """While the connection is lost, ask the control plane whether the sandbox is still there."""
        while True:
            await asyncio.sleep(STATE_CHECK_S)
            if running.interrupts > running.sent and execution.started:
                await self._signal(running)
            if execution.connected is not False:
                continue
            if not await self._sandbox_survives(repair=False):
                self._drop_link()
                raise SandboxGone(
                    "The sandbox stopped while the cell was running."
                    if execution.started
                    else "The sandbox stopped before the cell was confirmed to have begun."
                )

    async def _sandbox_survives(self, *, repair: bool = True) -> bool:
        """Whether the sandbox has run without a break.

        With ``repair`` it is started, or a new one will be made.
        """
        try:
            if not repair:
                sandbox = self.manager.sandbox
                if sandbox is None:
                    return False
                state = await self.manager.state()
                return state in ("started", "")
            if await self.manager.ensure_started():
                return True
            notice = "The sandbox had stopped and was started again: files are there, variables are lost."
        except SandboxGone:
            if self.settings.sandbox:
                raise
            notice = "The sandbox is gone, a new one takes its place: variables and files are lost."
        except DaytonaKernelError as exc:
            log.warning("the sandbox's state is not known: %s", exc)
            return True
        self._drop_link()
        if notice not in self._notices:
            self._notices.append(notice)
        return False

    def _drop_link(self) -> None:
        link, self._link, self._ready = self._link, None, None
        if link is not None:
            self._spawn(link.close())

    async def _context_lost(self, lost: ContextLost, *, died: bool) -> None:
        """Forget the context; the next request gets a new one and hears of the lost variables."""
        link = self._link
        self._drop_link()
        if link is not None:
            # A dead context stays wedged on the real daemon (observed on v0.190.0): it is never used again.
            self._spawn(self._delete_context(link.context_id))
        if not died and not await self._sandbox_survives():
            return
        if self._ever_ready:
            self._notices.append(
                "Python in the sandbox was started anew: variables are lost, files are there."
            )

    def _death(self, lost: ContextLost) -> DaytonaKernelError:
        if lost.died:
            return SandboxProcessDied("The Python process in the sandbox died while the cell was running.")
        return ExecutionUnknown(f"{lost.message} The cell had begun; its end is not known.")

    async def _delete_context(self, context_id: str) -> None:
        if self._toolbox is not None:
            with suppress(DaytonaKernelError):
                await self._toolbox.delete_context(context_id)

    # -- what comes from the sandbox ---------------------------------------------------------------

    def _on_frame(self, frame: wire.Frame, running: _Running) -> None:
        if frame.type in MESSAGE_TYPES:
            running.sink.publish(frame.type, frame.content, frame.metadata, frame.buffers)
        elif frame.type == "input_request":
            self._spawn(self._answer_input(frame.content, running))
        else:
            log.warning("the sandbox sent a message of unknown type %.40r", frame.type)

    async def _answer_input(self, content: Content, running: _Running) -> None:
        request_id = content.get("request_id")
        if not isinstance(request_id, str) or not request_id.isalnum() or self._link is None:
            return
        prompt, password = str(content.get("prompt", "")), bool(content.get("password"))
        value = await asyncio.to_thread(running.sink.ask, prompt, password, running.input_cancelled)
        if value is None or self._toolbox is None or self._link is None:
            return
        answer = json.dumps({"value": value}) + "\n"
        for attempt in range(ATTEMPTS):
            try:
                await self._toolbox.upload(f"{self._link.spool}/input-{request_id}", answer.encode())
                return
            except DaytonaKernelError as exc:
                log.warning("an answer to input() did not get through (%d): %s", attempt, exc)
                await asyncio.sleep(0.5 * 3**attempt)

    # -- interrupting and ending -------------------------------------------------------------------

    async def _interrupt(self) -> None:
        running = self._running
        if running is None:
            return
        running.interrupts += 1
        execution = running.execution
        if (
            execution is None
            or self._link is None
            or (execution.connected is False and running.interrupts > 1)
        ):
            running.abandoned.set()
        elif execution.started:
            await self._signal(running)
        else:
            self._spawn(self._interrupt_when_started(execution, running))

    async def _interrupt_when_started(self, execution: Execution, running: _Running) -> None:
        await execution.has_started.wait()
        await self._signal(running)

    async def _signal(self, running: _Running) -> None:
        """Send SIGINT to the worker's process group, so that children of the cell get it, too."""
        assert self._toolbox is not None
        running.sent = running.interrupts
        pid, group = self.info.get("pid"), self.info.get("process_group")
        target = f"-{group}" if group == pid else str(pid)
        try:
            status, output = await self._toolbox.execute("kill", "-INT", "--", target, timeout_s=10)
            if status != 0:
                log.warning("the interrupt was not delivered: %s", output[:200])
        except DaytonaKernelError as exc:
            log.warning("the interrupt was not delivered: %s", exc)
            running.sent -= 1
        if running.interrupts >= 2:
            self._spawn(self._tell_stubborn(running))

    async def _tell_stubborn(self, running: _Running) -> None:
        await asyncio.sleep(STUBBORN_S)
        if self._running is running and running.execution is not None and running.execution.result is None:
            running.sink.notice("The cell does not react to interrupts; restart the kernel to end it.")

    async def _close(self, restarting: bool) -> str:
        link, toolbox, idle = self._link, self._toolbox, self._running is None
        if self._ready is not None and not self._ready.done():
            self._ready.cancel()
            await asyncio.gather(self._ready, return_exceptions=True)
        if link is not None and toolbox is not None:
            if idle:
                await self._say_goodbye(link)
            await link.close()
            if not restarting and not self.manager.owned:
                with suppress(DaytonaKernelError, asyncio.TimeoutError):
                    await asyncio.wait_for(toolbox.delete_context(link.context_id), 3)
        released = await self.manager.release(restarting=restarting)
        for task in [*self._background]:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if toolbox is not None:
            await toolbox.close()
        await self.manager.close()
        return released

    async def _say_goodbye(self, link: Link) -> None:
        """Let the shell save its history and run its exit handlers."""
        execution = Execution(self._envelope("shutdown", {}, {}), lambda frame: None)
        with suppress(DaytonaKernelError, asyncio.TimeoutError):
            await asyncio.wait_for(link.run(execution), 1.5)

    # -- small things ------------------------------------------------------------------------------

    def _show_status(self, text: str | None) -> None:
        self._status = text

    def _spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        task.add_done_callback(_log_failure)
        return task


class _ConnectionStatus:
    """Tells the person of a lost connection once it has lasted, and takes the words back."""

    def __init__(self, session: Session, running: _Running) -> None:
        self._session = session
        self._running = running
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._id = ""

    def set(self, connected: bool) -> None:
        if self._running.execution is not None:
            self._running.execution.connected = connected
        if not connected and self._timer is None and not self._id:
            self._since = time.monotonic()
            self._timer = self._session._loop.call_later(CONNECTION_STATUS_S, self._show)
        elif connected:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._id:
                self._publish("update_display_data", "")
                self._id = ""

    def _show(self) -> None:
        self._timer, self._id = None, f"daytona-{uuid.uuid4().hex}"
        self._publish(
            "display_data", "The connection to the sandbox is lost; the cell goes on there. Reconnecting …"
        )

    def _publish(self, type: str, text: str) -> None:
        content = {"data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": self._id}}
        self._running.sink.publish(type, content, {}, ())


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (exc := task.exception()) is not None:
        level = logging.DEBUG if isinstance(exc, DaytonaKernelError) else logging.ERROR
        log.log(level, "background work failed: %s: %s", type(exc).__name__, exc)
