"""A kernel and a client that records everything the kernel says, sorted by the request that caused it.

`KernelUnderTest` starts one fresh kernel in a private directory. `Exchange` is one request with all messages
that name it as their parent. Nothing here knows which kernel it talks to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

Message = dict[str, Any]

REFERENCE = "python3"
#: The kernel that the suite compares with `python3`.
UNDER_TEST = os.environ.get("DAYTONA_KERNEL_TEST_KERNEL", "daytona")

#: In seconds. A hung cell is a finding, so this is generous to slow machines and never part of a comparison.
TIMEOUT = float(os.environ.get("DAYTONA_KERNEL_TEST_TIMEOUT", "60"))


class KernelDied(Exception):
    """The kernel process ended while a request was waiting for its answer."""


class NoAnswer(Exception):
    """A request got no reply or no `idle` within `TIMEOUT`."""


@dataclass
class Exchange:
    """One request and all that came of it, in the order of arrival on each channel."""

    msg_id: str
    msg_type: str
    channel: str
    answers: list[str] = field(default_factory=list)
    interrupt_on: str | None = None
    wants_reply: bool = True
    iopub: list[Message] = field(default_factory=list)
    stdin: list[Message] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def reply(self) -> Message:
        """The one reply. AssertionError if there are none or many."""
        assert len(self.replies) == 1, f"{self.msg_type}: {len(self.replies)} replies"
        return self.replies[0]

    @property
    def content(self) -> Message:
        """The content of the one reply."""
        content: Message = self.reply["content"]
        return content

    def idle(self) -> bool:
        """True when the kernel said that it has finished with this request."""
        return any(is_status(message, "idle") for message in self.iopub)

    def finished(self) -> bool:
        """True when both the reply and `idle` are here."""
        return self.idle() and (bool(self.replies) or not self.wants_reply)

    def of_type(self, *types: str) -> list[Message]:
        """The IOPub messages of these types."""
        return [message for message in self.iopub if message["msg_type"] in types]

    def text(self, name: str = "stdout") -> str:
        """All text that this request wrote to a stream."""
        return "".join(m["content"]["text"] for m in self.of_type("stream") if m["content"]["name"] == name)

    def states(self) -> list[str]:
        """The kernel states that were published for this request."""
        return [message["content"]["execution_state"] for message in self.of_type("status")]


def is_status(message: Message, state: str) -> bool:
    """True if the message announces that state."""
    return bool(message["msg_type"] == "status" and message["content"]["execution_state"] == state)


class KernelUnderTest:
    """One running kernel. Use :func:`running_kernel` to make one."""

    def __init__(self, manager: AsyncKernelManager, client: AsyncKernelClient, name: str, log: Path) -> None:
        self.manager = manager
        self.client = client
        self.name = name
        self.log = log
        self.exchanges: dict[str, Exchange] = {}
        self.everything: list[Message] = []
        self.orphans: list[Message] = []
        self._readers: list[asyncio.Task[None]] = []

    def start_reading(self) -> None:
        """From here on, every message is recorded."""
        for channel in ("shell", "control", "iopub", "stdin"):
            self._readers.append(asyncio.create_task(self._read(channel), name=f"read {channel}"))

    async def stop_reading(self) -> None:
        """Ends the readers; what has arrived stays recorded."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self, channel: str) -> None:
        receive: Callable[..., Any] = getattr(self.client, f"{channel}_channel").get_msg
        while True:
            try:
                # Not for ever: jupyter_client sends through a shadow of the socket, which can swallow the one
                # wake-up that zmq gives for a message. A new wait looks again.
                message = await receive(timeout=0.25)
            except Empty:
                continue
            message["channel"] = channel
            self.everything.append(message)
            exchange = self.exchanges.get(message["parent_header"].get("msg_id", ""))
            if exchange is None:
                self.orphans.append(message)
                continue
            if channel == "iopub":
                exchange.iopub.append(message)
                await self._interrupt_when_asked(exchange)
            elif channel == "stdin":
                exchange.stdin.append(message)
                self._answer(exchange, message)
            else:
                exchange.replies.append(message)
            exchange.changed.set()

    def _answer(self, exchange: Exchange, request: Message) -> None:
        """Answers an `input_request` with the next scripted answer, with an empty line after the last."""
        answer = exchange.answers.pop(0) if exchange.answers else ""
        if answer == "<none>":
            return
        self.reply_to_input(request, answer)

    def reply_to_input(self, request: Message, value: str) -> None:
        """Sends an `input_reply`, with the request as its parent as JupyterLab does it."""
        message = self.client.session.msg("input_reply", {"value": value}, parent=request)
        self.client.stdin_channel.send(message)

    async def _interrupt_when_asked(self, exchange: Exchange) -> None:
        mark = exchange.interrupt_on
        if mark is not None and mark in exchange.text() + exchange.text("stderr"):
            exchange.interrupt_on = None
            # From the end of print() to the statement to interrupt. Nothing waits for this time.
            await asyncio.sleep(0.3)
            await self.interrupt()

    async def interrupt(self) -> Exchange | None:
        """The interrupt button: a message or a signal, as the kernel's specification says."""
        specification = self.manager.kernel_spec
        if specification is not None and specification.interrupt_mode == "message":
            # Not by the manager: its session counts message ids from 0 again, and ours would come twice.
            return self.send("interrupt_request", channel="control")
        await self.manager.interrupt_kernel()
        return None

    def send(
        self,
        msg_type: str,
        content: Message | None = None,
        *,
        channel: str = "shell",
        metadata: Message | None = None,
        answers: Sequence[str] = (),
        interrupt_on: str | None = None,
        wants_reply: bool = True,
        buffers: Sequence[bytes] | None = None,
    ) -> Exchange:
        """Sends a request and does not wait."""
        session = self.client.session
        message = session.msg(msg_type, content or {}, metadata=metadata)
        exchange = Exchange(
            msg_id=message["header"]["msg_id"],
            msg_type=msg_type,
            channel=channel,
            answers=list(answers),
            interrupt_on=interrupt_on,
            wants_reply=wants_reply,
        )
        self.exchanges[exchange.msg_id] = exchange
        if buffers:
            socket = getattr(self.client, f"{channel}_channel").socket
            session.send(socket, message, buffers=list(buffers))
        else:
            getattr(self.client, f"{channel}_channel").send(message)
        return exchange

    def send_execute(self, code: str, *, metadata: Message | None = None, **options: Any) -> Exchange:
        """Sends an `execute_request` as JupyterLab does. `answers` and `interrupt_on` are ours."""
        ours = {key: options.pop(key) for key in ("answers", "interrupt_on") if key in options}
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": True,
            "stop_on_error": True,
            **options,
        }
        return self.send("execute_request", content, metadata=metadata, **ours)

    async def until(self, exchange: Exchange, condition: Callable[[Exchange], bool]) -> None:
        """Waits until the condition holds for what the exchange has received.

        KernelDied: the process ended. NoAnswer: after `TIMEOUT` seconds.
        """
        deadline = asyncio.get_running_loop().time() + TIMEOUT
        while not condition(exchange):
            exchange.changed.clear()
            try:
                await asyncio.wait_for(exchange.changed.wait(), timeout=1)
            except asyncio.TimeoutError:
                if not await self.manager.is_alive():
                    raise KernelDied(self.name, self.log_tail()) from None
                if asyncio.get_running_loop().time() > deadline:
                    seen = [message["msg_type"] for message in exchange.iopub]
                    what = f"{self.name}: {exchange.msg_type} after {TIMEOUT} s, only {seen}"
                    raise NoAnswer(what, self.log_tail()) from None

    def log_tail(self) -> str:
        """The last lines that the kernel process wrote."""
        return self.log.read_text("utf-8", "replace")[-2000:]

    async def request(self, msg_type: str, content: Message | None = None, **options: Any) -> Exchange:
        """Sends a request and waits for its reply and its `idle`."""
        exchange = self.send(msg_type, content, **options)
        await self.until(exchange, Exchange.finished)
        return exchange

    async def execute(self, code: str, **options: Any) -> Exchange:
        """Runs a cell to its end."""
        exchange = self.send_execute(code, **options)
        await self.until(exchange, Exchange.finished)
        return exchange

    async def evaluate(self, expression: str) -> str:
        """The value of an expression as text, without a trace in history or counters."""
        import ast

        options: Message = {"silent": True, "store_history": False, "user_expressions": {"value": expression}}
        exchange = await self.execute("", **options)
        assert exchange.content["status"] == "ok", exchange.content
        value = exchange.content["user_expressions"]["value"]
        assert value["status"] == "ok", value
        return str(ast.literal_eval(value["data"]["text/plain"]))


def kernel_environment(home: Path) -> dict[str, str]:
    """The environment for a kernel: nothing of this test run, of the user's account, or of the terminal."""
    terminal = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    hidden = ("PYTEST", "PYTHON", "DAYTONA_", "JPY_", "IPYTHON", *terminal)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    for name in ("config", "data", "cache", "state"):
        environment[f"XDG_{name.upper()}_HOME"] = str(home / f".{name}")
    # One local server for all kernels of a test run: conftest.py names its directories and stops it.
    for name in ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        if f"CONFORMANCE_{name}" in os.environ:
            environment[name] = os.environ[f"CONFORMANCE_{name}"]
    # `!` runs commands with $SHELL and an error of it names that: not that of whoever runs the tests.
    return environment | {"HOME": str(home), "PWD": str(home), "SHELL": "/bin/bash"}


@contextlib.asynccontextmanager
async def running_kernel(name: str, home: Path) -> AsyncIterator[KernelUnderTest]:
    """A fresh kernel at home in `home`, shut down at the end. Its log is beside that directory."""
    manager = AsyncKernelManager(kernel_name=name)
    # The working directory is the home on both sides, so that `~` stands for the same files in both.
    # Open for the whole time: a restart starts the kernel with the same arguments.
    log_file = Path(f"{home}.log")
    log = log_file.open("wb")
    await manager.start_kernel(cwd=str(home), env=kernel_environment(home), stdout=log, stderr=log)
    client = manager.client()
    client.start_channels()
    kernel = KernelUnderTest(manager, client, name, log_file)
    try:
        await client.wait_for_ready(timeout=TIMEOUT)
        kernel.start_reading()
        yield kernel
    finally:
        await kernel.stop_reading()
        client.stop_channels()
        await manager.shutdown_kernel()
        manager.context.destroy(linger=0)
        log.close()
