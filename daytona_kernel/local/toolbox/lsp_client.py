"""A client of one language server: JSON-RPC over the pipes of its process."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import subprocess
from collections.abc import Iterator
from typing import Any

from .children import Child, Children, PipeReader, pipe
from .errors import ToolboxError

log = logging.getLogger(__name__)

REQUEST_SECONDS = 30.0
"""How long an answer may take; a first look at a large project does take seconds."""
END_SECONDS = 1.0


class MessageParser:
    """Cuts a server's output into messages. Pure."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Take bytes and yield the messages that they complete; what is no JSON object is skipped."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            size = 0
            for line in self._buffer[:end].split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name.strip().lower() == b"content-length" and value.strip().isdigit():
                    size = int(value)
            if len(self._buffer) < end + 4 + size:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + size], self._buffer[end + 4 + size :]
            try:
                message = json.loads(body)
            except ValueError:
                continue
            if isinstance(message, dict):
                yield message


class LanguageServer:
    """A running language server."""

    def __init__(self, children: Children, argv: list[str], env: dict[str, str], cwd: str) -> None:
        """Start the server.

        :raises OSError: if it cannot be started.
        """
        self.capabilities: dict[str, Any] = {}
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._parser = MessageParser()
        read_end, write_end = pipe()
        source, target = os.pipe()
        try:
            self._child: Child = children.spawn(
                argv, env=env, cwd=cwd, stdin=source, stdout=write_end, stderr=subprocess.DEVNULL
            )
        except BaseException:
            os.close(read_end)
            os.close(target)
            raise
        finally:
            os.close(source)
            os.close(write_end)
        self._target = open(target, "wb")  # noqa: SIM115 (the transport closes it)
        self._reader = PipeReader(read_end, self._on_data)
        self._child.on_end(self._on_end)
        self._transport: asyncio.WriteTransport | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child.returncode is None

    async def initialize(self, root: str) -> None:
        """Shake hands; ``root`` is the project's directory.

        :raises ToolboxError: 500 if the server does not answer as it should.
        """
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, self._target)
        uri = f"file://{root}"
        answer = await self.request(
            "initialize",
            {
                "processId": os.getpid(),
                "rootPath": root,
                "rootUri": uri,
                "workspaceFolders": [{"uri": uri, "name": os.path.basename(root)}],
                "capabilities": {"textDocument": {}, "workspace": {}},
            },
        )
        self.capabilities = (answer or {}).get("capabilities") or {}
        self.notify("initialized", {})

    def notify(self, method: str, params: Any) -> None:
        """Send a message that gets no answer."""
        self._send({"method": method, "params": params})

    async def request(self, method: str, params: Any) -> Any:
        """Send a request and wait for its result.

        :raises ToolboxError: 500 if it fails, takes too long or the server ends.
        """
        number = next(self._numbers)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        self._send({"id": number, "method": method, "params": params})
        try:
            return await asyncio.wait_for(future, REQUEST_SECONDS)
        except asyncio.TimeoutError:
            raise ToolboxError(500, f"the language server did not answer {method} in time") from None
        finally:
            self._pending.pop(number, None)

    def _send(self, message: dict[str, Any]) -> None:
        if not self.running or self._transport is None:
            raise ToolboxError(500, "the language server has ended")
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._transport.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)

    def _on_data(self, data: bytes) -> None:
        for message in self._parser.feed(data):
            if "method" in message:
                if "id" in message:  # it asks us something; we have no opinion
                    self._send({"id": message["id"], "result": None})
                continue
            future = self._pending.get(message.get("id", 0))
            if future is None or future.done():
                continue
            if error := message.get("error"):
                text = error.get("message") if isinstance(error, dict) else error
                future.set_exception(ToolboxError(500, f"the language server said: {text}"))
            else:
                future.set_result(message.get("result"))

    def _on_end(self, returncode: int) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ToolboxError(500, f"the language server has ended ({returncode})"))
        if self._transport is not None:
            self._transport.close()
        else:
            self._target.close()
        self._reader.close()

    async def stop(self) -> None:
        """Ask the server to end, and make it end."""
        try:
            await asyncio.wait_for(self.request("shutdown", None), END_SECONDS)
            self.notify("exit", None)
            await asyncio.wait_for(self._child.wait(), END_SECONDS)
        except (ToolboxError, asyncio.TimeoutError):
            pass
        if self.running:
            await self._child.end(END_SECONDS)
