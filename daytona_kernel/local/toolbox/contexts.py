"""Interpreter contexts: a namespace in a worker process, with a queue of executions in front of it."""

from __future__ import annotations

import asyncio
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from . import quirks
from .chunks import ExecuteRequest, encode_frame, to_chunk
from .clients import Client
from .worker_process import Host, WorkerProcess

QUEUE_LENGTH = 128
"""Executions that may wait in one context; further clients wait for a place (v0.190.0)."""
GRACE = 2.0
"""Seconds between the polite signal and SIGKILL, at a timeout and at deletion (v0.190.0)."""
POLL = 0.05
"""Seconds between two looks at a running execution with the quirk ``poll50``; also how long a chunk that
belongs next to the closing one is waited for."""
DEATH_WAIT = 1.0
"""Seconds that a worker which announced its own death is given to die."""

TIMED_OUT = 4008
WORKER_ENDED = (1001, "worker process ended")
SHUT_DOWN = (1001, "context shutdown")


@dataclass(eq=False)
class Job:
    """One execution: what to run and who listens."""

    request: ExecuteRequest
    client: Client
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the job has left the queue, to run or to be dropped."""
    close_code: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """Resolved when the worker has said that it is done, with the close code that this means."""

    worker_exits: bool = False
    """The worker has said that it completed and dies now."""

    def settle(self, close_code: int) -> None:
        """Resolve :attr:`close_code` unless it has been."""
        if not self.close_code.done():
            self.close_code.set_result(close_code)


class Context:
    """One namespace, its worker process and its queue.

    The first submission after a worker's death starts another worker; the namespace is then empty and nothing
    says so (as in v0.190.0).
    """

    def __init__(self, context_id: str, cwd: str, host: Host, traits: frozenset[str]) -> None:
        self.id = context_id
        self.cwd = cwd
        self.created_at = datetime.now(timezone.utc)
        self._host = host
        self._quirks = traits
        self._worker: WorkerProcess | None = None
        self._left_behind: list[WorkerProcess] = []
        self._queue: asyncio.Queue[Job] = asyncio.Queue(QUEUE_LENGTH)
        self._running: Job | None = None
        self._closing = False
        self._starting = asyncio.Lock()
        self._processor = asyncio.create_task(self._process())

    @property
    def active(self) -> bool:
        """Whether a worker is alive."""
        return self._worker is not None and self._worker.alive and not self._closing

    @property
    def closing(self) -> bool:
        """Whether the context is being deleted."""
        return self._closing

    def describe(self) -> dict[str, object]:
        """The context as REST answers show it."""
        return {
            "id": self.id,
            "cwd": self.cwd,
            "createdAt": self.created_at.isoformat().replace("+00:00", "Z"),
            "active": self.active,
            "language": "python",
        }

    async def ensure_worker(self) -> None:
        """Start a worker if none is alive. Raises ``OSError`` if that fails."""
        async with self._starting:
            worker = self._worker
            if self._closing or (worker is not None and worker.alive):
                return
            if worker is not None:
                self._left_behind.append(worker)
            if not os.path.isdir(self.cwd):  # noqa: ASYNC240 - one look at a local directory
                raise NotADirectoryError(self.cwd)
            self._worker = await WorkerProcess.start(self._host, self.cwd, self)

    async def submit(self, job: Job) -> None:
        """Put *job* at the end of the queue; waits for a place in it."""
        await self._queue.put(job)
        if self._closing:
            self._drop_queue()

    async def delete(self) -> None:
        """End the worker (2 s for the code that runs to stop), its children and every waiting execution."""
        if self._closing:
            return
        self._closing = True
        async with self._starting:  # a worker that is being started is not to be missed
            worker = self._worker
        if worker is not None:
            worker.terminate()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(worker.dead.wait(), GRACE)
            if worker.alive and self._running is not None:
                self._running.client.abort()
        await self._stop()

    async def kill(self) -> None:
        """End everything at once; the connections are cut."""
        self._closing = True
        if self._running is not None:
            self._running.client.abort()
        await self._stop()

    async def _stop(self) -> None:
        for worker in (*self._left_behind, self._worker):
            if worker is not None:
                worker.kill_session()
                await worker.dead.wait()
        self._processor.cancel()
        await asyncio.wait({self._processor})
        self._drop_queue()

    def _drop_queue(self) -> None:
        while not self._queue.empty():
            job = self._queue.get_nowait()
            job.client.finish(*SHUT_DOWN)
            job.started.set()

    # What the worker reports (worker_process.Sink).

    def deliver(self, worker: WorkerProcess, fields: dict[str, Any]) -> bool:
        """Relay a chunk to the client of the running execution and notice the end of that execution."""
        job = self._running
        if job is None:
            return True
        chunk = to_chunk(fields)
        if not job.client.push(encode_frame(chunk)):
            return False
        if chunk["type"] == "error":
            # The closing chunk follows at once, or was lost; or this is the one that came after it.
            self._settle_later(job, 1000, POLL)
        elif chunk["type"] == "control" and chunk["text"] == "interrupted":
            job.settle(TIMED_OUT)
        elif chunk["type"] == "control" and chunk["text"] == "completed":
            job.worker_exits = fields.get("then") == "exit"
            if job.worker_exits:
                self._settle_later(job, 1000, DEATH_WAIT)
            elif fields.get("then") == "error":
                self._settle_later(job, 1000, POLL)
            else:
                job.settle(1000)
        return True

    async def relieve(self) -> None:
        """Let the client that is behind catch up, or give it up."""
        if self._running is not None:
            await self._running.client.overflow()

    def worker_died(self, worker: WorkerProcess) -> None:
        """Tell the client; the execution itself stays "running" with the quirk ``wedge``."""
        job = self._running
        if job is None or worker is not self._worker or job.close_code.done():
            return
        job.client.finish(*WORKER_ENDED)
        if job.worker_exits or quirks.WEDGE not in self._quirks:
            job.settle(1001)

    @staticmethod
    def _settle_later(job: Job, close_code: int, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, job.settle, close_code)

    # The queue.

    async def _process(self) -> None:
        while True:
            job = await self._queue.get()
            job.started.set()
            if self._closing:
                job.client.finish(*SHUT_DOWN)
                continue
            self._running = job
            try:
                await self._run(job)
            finally:
                self._running = None

    async def _run(self, job: Job) -> None:
        if quirks.WEDGE not in self._quirks:
            with suppress(OSError):
                await self.ensure_worker()
        worker = self._worker
        if worker is None or not worker.send({"code": job.request.code, "envs": job.request.envs}):
            job.client.finish(1000)  # undelivered, and nothing says so: v0.190.0
            return
        started = asyncio.get_running_loop().time()
        await asyncio.wait({job.close_code}, timeout=job.request.timeout or None)
        if not job.close_code.done():
            await self._time_out(job)
        elif quirks.POLL50 in self._quirks:
            elapsed = asyncio.get_running_loop().time() - started
            await asyncio.sleep(POLL - elapsed % POLL)
        job.client.finish(job.close_code.result())

    async def _time_out(self, job: Job) -> None:
        """SIGINT, then SIGKILL, to the worker that the context has now (perhaps not the job's own)."""
        if self._worker is not None:
            self._worker.interrupt()
        await asyncio.wait({job.close_code}, timeout=GRACE)
        if job.close_code.done():
            return
        job.client.finish(TIMED_OUT)
        job.settle(TIMED_OUT)
        if self._worker is not None:
            self._worker.kill()


class Contexts:
    """All contexts of one sandbox. They live in the daemon's memory only."""

    def __init__(self, host: Host, work_dir: str, traits: frozenset[str]) -> None:
        self._host = host
        self._work_dir = work_dir
        self._quirks = traits
        self._contexts: dict[str, Context] = {}
        self._default: Context | None = None
        self._lock = asyncio.Lock()

    async def create(self, cwd: str | None = None) -> Context:
        """Make a context; *cwd* is relative to the work directory. ``OSError`` if no worker can start."""
        async with self._lock:
            context = self._new(str(uuid.uuid4()), cwd)
            await self._start(context)
            self._contexts[context.id] = context
            return context

    async def default(self) -> Context:
        """The context for requests without an id. It is made at its first use, which nobody can see."""
        async with self._lock:
            if self._default is None:
                self._default = self._new("default", None)
            await self._default.ensure_worker()
            return self._default

    async def get(self, context_id: str) -> Context | None:
        """The context with this id, its worker alive; ``None`` if there is none. ``OSError`` as in
        `create`."""
        if context_id in ("", "default"):
            return await self.default()
        async with self._lock:
            context = self._contexts.get(context_id)
            if context is not None:
                await context.ensure_worker()
            return context

    async def created(self) -> list[Context]:
        """The contexts that were created, dead ones included, `default` never."""
        async with self._lock:
            return list(self._contexts.values())

    async def delete(self, context_id: str) -> bool:
        """End and forget a context; ``False`` if there is none with this id."""
        async with self._lock:
            context = self._contexts.get(context_id)
            if context is None:
                return False
            if quirks.GLOBAL_LOCK in self._quirks:
                await context.delete()
            self._contexts.pop(context_id, None)
        await context.delete()
        return True

    async def kill_all(self) -> None:
        """End every worker at once (the daemon is stopping)."""
        contexts = [*self._contexts.values(), *([self._default] if self._default else [])]
        await asyncio.gather(*(context.kill() for context in contexts))

    def _new(self, context_id: str, cwd: str | None) -> Context:
        path = os.path.join(self._work_dir, cwd or "")
        return Context(context_id, os.path.normpath(path), self._host, self._quirks)

    async def _start(self, context: Context) -> None:
        try:
            await context.ensure_worker()
        except BaseException:
            await context.kill()
            raise
