"""What a sandbox may send, fed to the kernel's own reader, session and sink; what leaves for the front end.

Everything between the socket and Jupyter's channels is real, without the two networks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import zmq
from jupyter_client.session import Session as JupyterSession

from daytona_kernel import wire
from daytona_kernel.config import DaytonaSettings
from daytona_kernel.execution import Execution, SocketReader
from daytona_kernel.running import Running
from daytona_kernel.session import Session
from daytona_kernel.sink import KernelSink

Content = dict[str, Any]
ID = "e1"


def line(number: int, type: str, content: Any, **more: Any) -> str:
    """One line of the wire, as an agent writes it, or another program that has its descriptor."""
    return f"{wire.RS}{json.dumps({'x': ID, 'n': number, 't': type, 'c': content, **more})}\n"


def packed(text: bytes, number: int = 0) -> str:
    """A compressed frame of any text."""
    data = b64encode(zlib.compress(text, 9)).decode()
    return f"{wire.RS}{json.dumps({'x': ID, 'n': number, 'p': [0, 1], 'd': data})}\n"


class Victim:
    """A kernel's way of a cell's output, with the front end's end of it."""

    def __init__(self, settings: DaytonaSettings | None = None) -> None:
        self.settings = settings or DaytonaSettings(backend="local")
        self.session = Session(self.settings)
        self.jupyter = JupyterSession(key=b"key")
        self._context = zmq.Context()
        self._out, self._in = self._context.socket(zmq.PUSH), self._context.socket(zmq.PULL)
        for one in (self._out, self._in):
            one.set_hwm(0)
        self._out.bind("inproc://iopub")
        self._in.connect("inproc://iopub")
        kernel: Any = SimpleNamespace(
            session=self.jupyter,
            settings=self.settings,
            ident="k",
            iopub_socket=self._out,
            get_parent=lambda channel: {"header": {"msg_id": "m"}},
            _shell_parent_ident=None,
            _get_shell_context_var=lambda variable: [b"front end"],
        )
        self.sink = KernelSink(kernel)
        self.running = Running(self.sink)
        self.execution: Execution = self.session._execution({"id": ID, "type": "execute"}, self.running)
        self.reader = SocketReader(self.execution, lambda execution, size: None, over_gaps=True)

    def feed(self, text: str) -> None:
        """Let the interpreter's standard output bring this text."""
        self.reader.feed(json.dumps({"type": "stdout", "text": text}))

    def messages(self) -> list[tuple[str, Content]]:
        """What was published since the last look: types and contents."""
        found = []
        while self._in.poll(0):
            _, parts = self.jupyter.feed_identities(self._in.recv_multipart())
            message = self.jupyter.deserialize(parts)
            assert message["parent_header"] == {"msg_id": "m"}
            found.append((message["msg_type"], message["content"]))
        return found

    async def settle(self) -> None:
        """Let background work of the session begin."""
        for _ in range(5):
            await asyncio.sleep(0)

    async def close(self) -> None:
        """End what was begun."""
        self.running.input_cancelled.set()
        tasks = [*self.session._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.session._loop.close()
        self._context.destroy(linger=0)


@contextlib.asynccontextmanager
async def victim(settings: DaytonaSettings | None = None) -> AsyncIterator[Victim]:
    """A victim whose session's loop is the test's."""
    one = Victim(settings)
    one.session._loop.close()
    one.session._loop = asyncio.get_running_loop()
    try:
        yield one
    finally:
        one.session._loop = asyncio.new_event_loop()
        await one.close()
