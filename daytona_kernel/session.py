"""A notebook's requests, served one after the other in its sandbox: sent, watched, explained, interrupted.

A session has a thread and an event loop of its own, so that neither a busy kernel nor a slow front end
stalls the socket. Its public methods may be called from any thread; they return
:class:`concurrent.futures.Future`. Where the requests go is :mod:`.workplace`'s.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from . import usage, wire
from .config import DaytonaSettings
from .context import envelope
from .errors import (
    ConnectionFailed,
    CredentialsError,
    DaytonaKernelError,
    ExecutionUnknown,
    SandboxError,
    SandboxGone,
    SandboxProcessDied,
    SandboxProtocolError,
)
from .execution import ContextLost, Execution
from .link import Link
from .lookback import last_cell
from .messages import is_count
from .outflow import Outflow
from .questions import Questions
from .running import Aside, ConnectionStatus, LateOutput, Running, Sink, Sinks
from .workplace import STATE_CHECK_S, Workplace

log = logging.getLogger(__name__)

Content = dict[str, Any]
T = TypeVar("T")

STUBBORN_S = 5.0
CONTEXT_END_S = 2.5
"""Ending a busy context takes the daemon 2.1 s (v0.190.0); Jupyter kills a kernel after 5 s."""
ATTEMPTS = 3
REFUSALS = 4
"""How often in a row the service may refuse the key while a cell's connection is lost: it may be a moment."""
REPORTED = 10
"""Messages of a request that are no messages: so many are told in the log."""


class Interrupted(DaytonaKernelError):
    """The person interrupted the cell before any of it ran, or while nobody could reach the sandbox."""


class Session(Workplace):
    """Runs a notebook's requests in a sandbox, one at a time and in order."""

    def __init__(self, settings: DaytonaSettings, **options: Any) -> None:
        """``options``: those of :class:`~daytona_kernel.workplace.Workplace`."""
        super().__init__(settings, **options)
        self._running: Running | None = None
        self._serving: asyncio.Task[Any] | None = None
        self._late: LateOutput | None = None
        self._sinks = Sinks()
        self._signalling = asyncio.Lock()
        self._questions = Questions(lambda: self._link)
        self._aside_open = asyncio.Event()
        self._given_up: tuple[Link | None, str] | None = None
        """Way and id of the cell that the person gave up while nobody could reach it."""

    # -- from any thread ---------------------------------------------------------------------------

    def execute(
        self, content: Content, parent: Content, sink: Sink, **extra: Any
    ) -> concurrent.futures.Future[Content]:
        """Run a cell; the result is the content of its ``execute_reply``, without engine fields.

        ``content``: ``code``, ``silent``, ``store_history``, ``user_expressions``, ``allow_stdin``,
        ``cell_id``. Errors of the sandbox are raised as :class:`DaytonaKernelError`; errors of the code are
        in the reply.
        """
        return self.run(self._serve("execute", content, parent, sink, **extra))

    def request(
        self, kind: str, content: Content, parent: Content, sink: Sink, **extra: Any
    ) -> concurrent.futures.Future[Content]:
        """Ask the agent something that is no cell: ``complete``, ``inspect``, ``history``, ``comm`` ..."""
        return self.run(self._serve(kind, content, parent, sink, **extra))

    def awaiting(self) -> concurrent.futures.Future[bool]:
        """Becomes true when a cell awaits, so that it can be sent comm messages. May be cancelled."""
        return self.run(self._aside_open.wait())

    def comm_beside(
        self, content: Content, parent: Content, sink: Sink, **extra: Any
    ) -> concurrent.futures.Future[bool]:
        """Have the cell that awaits serve a comm message; whether it has, it may have ended before."""
        return self.run(self._comm_beside(content, parent, sink, **extra))

    def usage_while_busy(self) -> concurrent.futures.Future[Content]:
        """What the sandbox uses, asked past the cell that runs; empty if it can not be asked."""
        return self.run(self._usage_while_busy())

    def interrupt(self) -> concurrent.futures.Future[None]:
        """Interrupt what runs, as Ctrl-C does. Nothing happens if nothing runs."""
        return self.run(self._interrupt())

    def close(self, *, restarting: bool = False) -> concurrent.futures.Future[str]:
        """End the session; with ``restarting`` the sandbox is kept for the next one.

        What became of the sandbox.
        """
        return self.run(self._close(restarting))

    @property
    def busy(self) -> bool:
        """Whether a request is being served."""
        return self._running is not None

    # -- waiting for the sandbox -------------------------------------------------------------------

    async def _ensure_ready(self, running: Running) -> None:
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

    async def _announce(self, running: Running) -> None:
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

    # -- what an earlier kernel left ---------------------------------------------------------------

    def missed(self, sink: Sink) -> concurrent.futures.Future[Content]:
        """Publish what is recorded of the last cell's output, live if it still runs; how it ended.

        The result is the content of that cell's ``execute_reply``. Raises :class:`SandboxError` if nothing
        is recorded. It can be interrupted as the cell itself.
        """
        return self.run(self._missed(sink))

    async def _missed(self, sink: Sink) -> Content:
        async with self._lock:
            link = self._link
            last = await last_cell(link.toolbox, link.spool) if link is not None else {}
            if link is None or not last:
                raise SandboxError("There is no recorded output of a cell.")
            if self._late is not None:  # it may be the same cell
                await self._late.stop()
                self._late = None
            running = self._running = Running(sink)
            request = {"id": last["id"], "type": "execute"}
            execution = running.execution = self._execution(request, running)
            execution.has_started.set()
            try:
                await self._until_end(link.follow(execution), execution, running)
            except ContextLost as lost:
                error = await self._explain_loss(lost, started=True)
                self._drop_context()
                raise error or lost from lost
            finally:
                self._ended(running)
            assert execution.result is not None
            return self._finish(execution.result, running)

    # -- serving -----------------------------------------------------------------------------------

    def _envelope(self, kind: str, content: Content, parent: Content, **extra: Any) -> Content:
        local = self._toolbox is not None and self._toolbox.endpoint.is_local
        return envelope(kind, content, parent, self.execution_count, local=local, **extra)

    async def _comm_beside(self, content: Content, parent: Content, sink: Sink, **extra: Any) -> bool:
        running, link = self._running, self._link
        if running is None or running.aside is None or link is None:
            return False
        self._sinks.add(parent, sink)
        request = self._envelope("comm", content, parent, **extra)
        return await running.aside.send(link.toolbox, link.spool, request)

    async def _usage_while_busy(self) -> Content:
        if self._toolbox is None or not self.info.get("pid"):
            return {}
        return await usage.ask(self._toolbox, str(self.info["executable"]), int(self.info["pid"]))

    async def _serve(self, kind: str, content: Content, parent: Content, sink: Sink, **extra: Any) -> Content:
        async with self._lock:
            async with self._signalling:
                pass  # an interrupt of the request before must not hit this one
            running = self._running = Running(sink)
            if kind in ("execute", "comm"):
                self._sinks.add(parent, sink)
            self._serving = asyncio.current_task()
            keepalive: asyncio.Task[None] | None = None
            try:
                for attempt in range(ATTEMPTS):
                    await self._ensure_ready(running)
                    keepalive = keepalive or self._spawn(self.manager.keep_alive())
                    await self._end_given_up()
                    late_from = await self._late.stop() if self._late is not None else None
                    request = self._envelope(kind, content, parent, late_from=late_from, **extra)
                    done = await self._attempt(request, running, last=attempt == ATTEMPTS - 1)
                    if done is not None:
                        return self._finish(done, running)
                raise AssertionError("unreachable")
            except DaytonaKernelError:
                if kind == "execute" and content["store_history"]:
                    self.execution_count += 1
                raise
            finally:
                self._ended(running)
                if keepalive is not None:
                    keepalive.cancel()

    async def _end_given_up(self) -> None:
        """Pass on the interrupt of the cell that was given up: the next one would wait behind it."""
        given_up, self._given_up = self._given_up, None
        link = self._link
        if given_up is None or link is None or link is not given_up[0]:
            return
        with suppress(DaytonaKernelError):
            last = await last_cell(link.toolbox, link.spool)
            if last.get("id") == given_up[1] and last.get("running") is True:
                await link.toolbox.shell(self._interrupt_script(), 5)

    def _ended(self, running: Running) -> None:
        """A request is over, however it ended."""
        self._running = None
        running.input_cancelled.set()
        if running.outflow is not None:
            running.outflow.flush()
        self._aside_open.clear()
        if running.aside is not None:
            running.aside.close()

    def _finish(self, done: Content, running: Running) -> Content:
        """Take up what the agent said at the end, and get ready for the next request."""
        state = done.get("state")
        state = state if isinstance(state, dict) else {}
        if is_count(state.get("execution_count")):
            self.execution_count = state["execution_count"]
        if "cwd" in state:
            self.info["cwd"] = state["cwd"]
        execution, link = running.execution, self._link
        if execution is not None and execution.request["type"] == "execute":
            self._late = LateOutput(execution, running.sink)
        if link is not None:
            link.warm_up()
            if self._late is not None and state.get("background"):
                self._late.start(link.toolbox, link.spool, state.get("position"))
        reply = done.get("reply")
        if not isinstance(reply, dict):
            reply = {"status": "error", "ename": "", "evalue": "", "traceback": []}
        if running.outflow is None or execution is None:
            return reply
        return running.outflow.reply(str(execution.request["type"]), reply)

    async def _attempt(self, request: Content, running: Running, *, last: bool) -> Content | None:
        """Send a request once. ``None``: it certainly did not run, and the way is free to send it again."""
        execution = running.execution = self._execution(request, running)
        if self._notices and request["type"] == "execute":
            for text in self._notices:
                running.sink.notice(text)
            self._notices.clear()
        try:
            return await self._run(execution, running)
        except ContextLost as lost:
            error = await self._explain_loss(lost, started=lost.started or execution.started)
            self._drop_context()
            if error is not None:
                raise error from lost
            if last:
                raise SandboxProtocolError(
                    "The sandbox's interpreter refused the cell several times; it did not run. "
                    f"The last time: {lost.message}",
                    hint="Restart the kernel, or the sandbox.",
                ) from lost
            return None
        except ConnectionFailed:
            # Nothing was sent. The control plane knows whether the sandbox is there at all.
            if last or await self._sandbox_runs():
                raise
            self._drop_context()
            return None

    def _execution(self, request: Content, running: Running) -> Execution:
        status = ConnectionStatus(running)

        # What is printed while a question is answered belongs to the last cell, not to the question.
        sink = running.sink
        if request["type"] not in ("execute", "comm") and self._late is not None:
            sink = self._late.sink

        settings = self.settings
        running.outflow = outflow = Outflow(
            self.secrets if settings.redact_secrets else None, isolated=settings.output_trust == "isolated"
        )

        def on_frame(frame: wire.Frame) -> None:
            self._on_frame(frame, running, sink, outflow)

        def on_text(name: str, text: str) -> None:
            outflow.text(sink, name, text)

        previous = self._late.execution if self._late is not None else None
        return Execution(request, on_frame, on_text, status.set, previous=previous)

    async def _run(self, execution: Execution, running: Running) -> Content:
        """Run it, and meanwhile notice a sandbox that goes away and a person who gives up."""
        assert self._link is not None
        return await self._until_end(self._link.run(execution), execution, running)

    async def _until_end(self, work: Coroutine[Any, Any, T], execution: Execution, running: Running) -> T:
        run = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._watch_started(execution, running))
        abandoned = asyncio.ensure_future(running.abandoned.wait())
        try:
            await asyncio.wait({run, watch, abandoned}, return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                return run.result()
            if watch.done() and (error := watch.exception()) is not None:
                raise error
            self._given_up = (self._link, execution.id) if execution.sent else None
            raise Interrupted(
                "Interrupted while the sandbox could not be reached.",
                hint="Whether the cell still runs there is not known; if so, the next one ends it.",
            )
        finally:
            for task in (run, watch, abandoned):
                task.cancel()
            await asyncio.gather(run, watch, abandoned, return_exceptions=True)

    async def _watch_started(self, execution: Execution, running: Running) -> None:
        """While the connection is lost, ask the control plane whether the sandbox is still there."""
        refused = 0
        while True:
            await asyncio.sleep(STATE_CHECK_S)
            if running.interrupts > running.sent and execution.started and execution.connected is not False:
                await self._signal(running)
            if execution.connected is not False:
                refused = 0
                continue
            try:
                runs = await self._sandbox_runs()
            except CredentialsError:
                refused += 1
                if refused == REFUSALS:
                    raise
                continue
            refused = 0
            if not runs:
                if not execution.sent:  # it still has no socket: it goes to the sandbox once that is started
                    raise ConnectionFailed("The sandbox has stopped.")
                self._drop_context()
                raise SandboxGone(
                    "The sandbox stopped while the cell was running."
                    if execution.started
                    else "The sandbox stopped before the cell was confirmed to have begun."
                )

    def _drop_context(self, *, delete: bool = True) -> None:
        super()._drop_context(delete=delete)
        self._late = None

    async def _explain_loss(self, lost: ContextLost, *, started: bool) -> DaytonaKernelError | None:
        """The error for a cell whose context was lost while it ran; ``None`` if it had not begun."""
        if lost.unknown:
            return ExecutionUnknown(
                f"The connection was lost as the cell was sent. {lost.message} "
                "Whether the cell ran is not known."
            )
        if not started:
            return None
        if not await self._sandbox_runs():
            return SandboxGone("The sandbox stopped while the cell was running.")
        if lost.died:
            cause = await self._cause_of_death()
            return SandboxProcessDied(
                f"The Python process in the sandbox died while the cell was running: {cause}."
            )
        return ExecutionUnknown(f"{lost.message} The cell had begun; its end is not known.")

    async def _cause_of_death(self) -> str:
        """What the agent's obituary says, in a few words."""
        note = b""
        if self._link is not None and self._link.spool:
            with suppress(DaytonaKernelError):
                note = await self._link.toolbox.download(f"{self._link.spool}/died") or b""
        first = note.decode("utf-8", "replace").split("\n", 1)[0].strip()[:100]
        if first.startswith("exit code "):
            return f"it ended itself with {first}"
        if first:
            return first.removeprefix("Fatal Python error: ")
        return "it was killed (SIGKILL or another signal that leaves no trace; it may have run out of memory)"

    # -- what comes from the sandbox ---------------------------------------------------------------

    def _on_frame(self, frame: wire.Frame, running: Running, sink: Sink, outflow: Outflow) -> None:
        if frame.type == "input_request":
            self._spawn(self._questions.serve(frame.content, running))
        elif frame.type == "aside":
            if running.aside is not None:  # forged: who waits for the one before must not wait for ever
                running.aside.close()
            running.aside = Aside(frame.execution_id)
            self._aside_open.set()
        elif frame.type == "aside_done":
            if running.aside is not None:
                running.aside.served(frame.content.get("number"))
        elif not outflow.message(
            self._sinks.get(frame.parent, sink), frame.type, frame.content, frame.metadata, frame.buffers
        ):
            running.dropped += 1
            if running.dropped <= REPORTED:
                log.warning("the sandbox sent what is no message of a cell (%.40r): dropped", frame.type)

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
        elif execution.connected is False:
            log.info("the interrupt is sent when the connection is there again")
        elif execution.started:
            await self._signal(running)
        else:
            self._spawn(self._interrupt_when_started(execution, running))
            if running.interrupts > 1 and self._link.context_id in self._own:
                await self._signal(running)  # what keeps it from beginning is ours, too

    async def _interrupt_when_started(self, execution: Execution, running: Running) -> None:
        await execution.has_started.wait()
        await self._signal(running)

    async def _signal(self, running: Running) -> None:
        """Send SIGINT to the worker's process group, so that children of the cell get it, too."""
        async with self._signalling:
            if self._running is running and running.execution is not None:
                await self._send_signal(running)
        if running.interrupts >= 2:
            self._spawn(self._tell_stubborn(running))

    async def _send_signal(self, running: Running) -> None:
        assert self._toolbox is not None
        running.sent = running.interrupts
        try:
            status, output = await self._toolbox.shell(self._interrupt_script(), 5)
            if status != 0:
                log.warning("the interrupt was not delivered: %s", output[:200])
        except DaytonaKernelError as exc:
            log.warning("the interrupt was not delivered: %s", exc)
            running.sent -= 1

    def _interrupt_script(self) -> str:
        pid, group = int(self.info.get("pid", 0)), self.info.get("process_group")
        return f"kill -s INT -- -{pid} || kill -s INT {pid}" if group == pid else f"kill -s INT {pid}"

    async def _tell_stubborn(self, running: Running) -> None:
        await asyncio.sleep(STUBBORN_S)
        if self._running is running and running.execution is not None and running.execution.result is None:
            running.sink.notice("The cell does not react to interrupts; restart the kernel to end it.")

    async def _close(self, restarting: bool) -> str:
        idle = self._running is None
        if self._ready is not None and not self._ready.done():
            self._ready.cancel()
            await asyncio.gather(self._ready, return_exceptions=True)
        link, toolbox = self._link, self._toolbox
        if self._late is not None:
            await self._late.stop()
        if link is not None and toolbox is not None:
            if idle and link.context_id in self._own:
                await self._say_goodbye(link)
            await link.close()
        shared = not restarting and await self._is_shared()
        if toolbox is not None and (restarting or shared or not self.manager.owned):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._end_contexts(), CONTEXT_END_S)
        # Of two that end at once, the one that looks last ends the sandbox.
        shared = shared and await self._is_shared()
        # The next kernel knows of a sandbox only if this one was ready, or knew of it itself.
        known = self._ever_ready or bool(self._remembered.get("sandbox_id"))
        released = await self.manager.release(restarting=restarting and known, shared=shared)
        work = [*self._background, *([self._serving] if self._serving is not None else [])]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        if toolbox is not None:
            await toolbox.close()
        await self.manager.close()
        return released

    async def _say_goodbye(self, link: Link) -> None:
        """Let the shell save its history and run its exit handlers."""
        execution = Execution(self._envelope("shutdown", {}, {}), lambda frame: None)
        with suppress(DaytonaKernelError, asyncio.TimeoutError):
            await asyncio.wait_for(link.run(execution), 1.5)
