"""The kernel's door: a cell in parts, each run where it belongs, published as one cell."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import threading
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from ..cellsplit import FILLER, Local, Part, Remote, split
from ..running import Sink
from ..session import Interrupted, Session
from . import registry
from .cells import RemoteError
from .host import Bundle, Host, Result
from .words import escape

Content = dict[str, Any]
Execute = Callable[[Content], Awaitable[Content]]


class LocalSink(Sink, Protocol):
    """Where the output of a kernel's request goes."""

    @property
    def attended(self) -> bool:
        """Whether a person is likely to be there to read what is only for them."""


class KernelHost(Host):
    """Shows a command's output as output of the request that the cell came with."""

    door = "kernel"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.sink: LocalSink | None = None
        self.silent = False
        self.allow_stdin = False
        self.shown = False
        """Whether the cell may have shown something already."""
        self._waits = False
        self._displays: dict[str, str] = {}

    def publish(self, type: str, content: Content, metadata: Bundle, buffers: tuple[bytes, ...]) -> None:
        """Send an IOPub message, unless the request is silent."""
        if self.sink is None or self.silent:
            return
        if self._waits:
            self.show_status(None)
        self.shown = True
        self.said += 1
        self.sink.publish(type, content, dict(metadata), buffers)

    def write(self, text: str, *, error: bool = False) -> None:
        """Send a stream message."""
        shown = self.without_secrets(text)
        self.publish(
            "stream", {"name": "stderr" if error or self.as_json else "stdout", "text": shown}, {}, ()
        )

    def display(self, data: Bundle, metadata: Bundle | None = None) -> None:
        """Send a ``display_data`` message."""
        shown = self.bundle_without_secrets(data)
        content = {"data": shown, "metadata": dict(metadata or {}), "transient": {}}
        self.publish("display_data", content, {}, ())

    def show_status(self, text: str | None) -> None:
        """Show it in the cell, and remove it again without a trace, or in a cell with output leave a gap."""
        if self.sink is None or self.silent:
            return
        if text is None and not self._waits and "status" not in self._displays:
            return
        if self._waits or not self.shown:
            self._waits = text is not None
            self.sink.status(text)
            return
        # To take it away would take away what the cell has shown.
        said = self.said
        self._replace("status", text or "")
        self.said = said
        if text is None:
            self._displays.pop("status", None)

    def progress(self, line: str | None) -> None:
        """Show it in a display of its own, where somebody may be there to see it."""
        if line is None:
            self._displays.pop("progress", None)
        else:
            self._replace("progress", line)

    def _replace(self, kind: str, text: str) -> None:
        """Show a line in place of the one before of its kind."""
        if self.sink is None or self.silent or not self.sink.attended:
            return
        update = kind in self._displays
        if not update and not text:
            return
        display_id = self._displays.setdefault(kind, uuid.uuid4().hex)
        html = f'<code style="white-space:pre">{escape(text)}</code>' if text else ""
        content = {
            "data": {"text/plain": text, "text/html": html},
            "metadata": {},
            "transient": {"display_id": display_id},
        }
        self.publish("update_display_data" if update else "display_data", content, {}, ())

    def ask_blocking(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        """Send an ``input_request``; ``None`` if the front end said that it answers none."""
        if not self.allow_stdin or self.sink is None:
            return None
        return self.sink.ask(prompt, password, cancelled)


class CellRunner:
    """Runs the cells of a kernel that have ``%daytona`` in them.

    Such a cell is one cell: one count, one reply, the whole text once in the history. Its remote parts run
    without history; the whole text travels with the next execution (``earlier_cells``), so that a cell that
    needs nothing of the sandbox does not talk to it, and ``%daytona stop`` does not start it again.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.host = KernelHost(session)
        self._unremembered: list[tuple[int, str]] = []
        self._running: concurrent.futures.Future[Any] | None = None

    def parts(self, code: str) -> list[Part] | None:
        """The parts of a cell that is not all for the sandbox; ``None`` for one that is."""
        return split(code)

    def earlier_cells(self) -> Content:
        """What an execution's content must have besides, for the sandbox's history."""
        earlier, self._unremembered = self._unremembered, []
        return {"earlier_cells": earlier} if earlier else {}

    async def complete(self, code: str, cursor: int) -> Content | None:
        """The content of a ``complete_reply`` if the cursor is in a ``%daytona`` line; else ``None``."""
        from .completion import complete_cell

        completion = self.session.run(complete_cell(self.host, code, cursor))
        return await asyncio.wrap_future(completion)

    def interrupt(self) -> bool:
        """Cancel the local command that runs. Whether there was one."""
        running = self._running
        return running is not None and running.cancel()

    async def run(self, parts: list[Part], content: Content, sink: LocalSink, execute: Execute) -> Content:
        """Run the parts in order until one fails; the content of the reply.

        ``execute`` runs a remote part and gives its raw reply. Raises what a local command raises.
        """
        session, count = self.session, self.session.execution_count
        context_id = session.context_id
        store = bool(content["store_history"]) and not content["silent"]
        if store:
            self._unremembered.append((count, content["code"]))
        host = self.host
        host.sink, host.silent, host.allow_stdin = sink, content["silent"], content["allow_stdin"]
        host.shown = False
        reply: Content = {"status": "ok", "user_expressions": {}, "payload": []}
        try:
            for index, part in enumerate(parts):
                last = index == len(parts) - 1
                reply = await self._run_part(part, content, reply, execute, last=last)
                if reply["status"] != "ok":
                    break
        finally:
            host.sink = None
            counted = count
            if session.context_id not in ("", context_id):
                # Gone over to a process with a history of its own: there the cell gets the next number.
                counted = max(count, session.execution_count)
                self._unremembered = [(counted, text) for _, text in self._unremembered[-1:]]
            session.execution_count = counted + 1 if store else counted
        return {**reply, "execution_count": count}

    async def _run_part(
        self, part: Part, content: Content, reply: Content, execute: Execute, *, last: bool
    ) -> Content:
        if isinstance(part, Remote):
            self.host.shown = True
            return await self._remote(part.code, content, reply, execute, last=last)
        try:
            result = await self._local(part)
        except RemoteError as exc:  # of a %%daytona cell: an error of the code, like any cell's
            error = {"ename": exc.ename, "evalue": exc.evalue, "traceback": exc.traceback}
            self.host.publish("error", error, {}, ())
            return {**reply, "status": "error", **error}
        if result.error is not None:
            raise result.error
        expressions = last and content["user_expressions"]
        if part.target or expressions:
            code = FILLER * (part.line_number - 1)
            if part.target:
                # The value is data: it is read from JSON there and never becomes code.
                code += f'{part.target} = __import__("json").loads({json.dumps(result.value)!r})\n'
            return await self._remote(code, content, reply, execute, last=last)
        return reply

    async def _remote(
        self, code: str, content: Content, reply: Content, execute: Execute, *, last: bool
    ) -> Content:
        part = {**content, "code": code, "store_history": False}
        if not last:
            part["user_expressions"] = {}
        answer = await execute({**part, **self.earlier_cells()})
        payload = [*(reply.get("payload") or []), *(answer.get("payload") or [])]
        return {**answer, "payload": payload}

    async def _local(self, part: Local) -> Result:
        """Run a command on the session's loop and show its result, unless it is assigned."""
        self._running = self.session.run(self._command(part))
        try:
            return await asyncio.wrap_future(self._running)
        except asyncio.CancelledError:
            if asyncio.current_task() is not None and self._running.cancelled():
                raise Interrupted("", hint="") from None
            raise
        finally:
            self._running = None

    async def _command(self, part: Local) -> Result:
        host = self.host
        if part.body is not None:
            result, as_json = await registry.run_cell(host, part.line, part.body), False
        else:
            result, as_json = await registry.run_line(host, part.line)
        if not part.target:
            registry.show(host, result, as_json=as_json)
        return result
