"""The few toolbox calls on a cell's critical path, on one pooled HTTP session.

The SDK serves the control plane and bulk files. These calls (contexts, a signal, a small file, a range of a
file) need what it does not offer: HTTP ranges, no 1 s retries of a POST, and no import of a second before
the first cell. Paths and statuses: Daytona's toolbox API, as observed on v0.190.0.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from .answers import parsed
from .errors import ConnectionFailed, SandboxError, SandboxProtocolError
from .proxies import proxy_for

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

T = TypeVar("T")

CALL_TIMEOUT_S = 30.0
LOOK_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""Of an answer that is held in memory; one that does not end must not fill it."""
HEDGE_S = 1.0
HEDGE_MOST = 10
UNNOTICED = {"X-Daytona-Skip-Last-Activity-Update": "true"}
"""For calls that only look: an idle notebook must not keep its sandbox from stopping."""


@dataclass(frozen=True)
class Endpoint:
    """Where one sandbox's toolbox answers, and the headers it wants.

    The headers hold the key: never log them.
    """

    base_url: str
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Endpoint({self.base_url!r})"

    @property
    def websocket_url(self) -> str:
        """The base URL with the WebSocket scheme."""
        return "ws" + self.base_url.removeprefix("http")

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where compression costs more than it saves."""
        host = self.base_url.split("//", 1)[-1].split("/", 1)[0]
        return host.rsplit(":", 1)[0] in ("127.0.0.1", "localhost", "[::1]")


class ToolboxError(SandboxError):
    """The toolbox answered with a status that is no success."""

    internal = True

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"The sandbox's toolbox answered {status}: {message or 'no reason given'}.")
        self.status = status


class Toolbox:
    """Calls to one sandbox. All methods raise :class:`ConnectionFailed` if there was no answer in time, and
    :class:`ToolboxError` for an answer that is an error. Use it on one event loop only.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._session: ClientSession | None = None
        self._old: set[asyncio.Task[None]] = set()
        self._closed = False

    async def close(self) -> None:
        """Close the connections; calls from now on fail, whoever still makes them."""
        self._closed = True
        session, self._session = self._session, None
        for task in [*self._old]:
            task.cancel()
        await asyncio.gather(*self._old, return_exceptions=True)
        if session is not None:
            await session.close()

    def renew(self) -> None:
        """Use new connections from now on: the pooled ones may be dead. Calls under way go on as they are."""
        session, self._session = self._session, None
        if session is not None:
            task = asyncio.ensure_future(_close_later(session))
            self._old.add(task)
            task.add_done_callback(self._old.discard)

    # -- contexts ----------------------------------------------------------------------------------

    async def create_context(self, cwd: str | None = None) -> str:
        """Start an interpreter context and return its id. May be repeated: a spare context does no harm."""
        body = {"cwd": cwd} if cwd else {}
        answer = await self._json("POST", "/process/interpreter/context", json=body)
        context_id = answer.get("id")
        if not isinstance(context_id, str):
            raise SandboxProtocolError("The sandbox made an interpreter context without an id.")
        return context_id

    async def delete_context(self, context_id: str) -> None:
        """End a context with its process. One that is gone already is no error."""
        try:
            await self._json("DELETE", f"/process/interpreter/context/{quote(context_id, safe='')}")
        except ToolboxError as exc:
            if exc.status != 404:
                raise

    async def contexts(self) -> list[dict[str, Any]]:
        """The contexts of the sandbox, dead ones too."""
        answer = await self._json("GET", "/process/interpreter/context")
        found = answer.get("contexts")
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    # -- processes ---------------------------------------------------------------------------------

    async def execute(self, *argv: str, timeout_s: int = 20) -> tuple[int, str]:
        """Run a command; its exit code and output. Not repeated when the answer is lost."""
        body = {"command": shell_words(argv), "timeout": timeout_s}
        answer = await self._json("POST", "/process/execute", json=body, timeout_s=timeout_s + 5)
        code = answer.get("exitCode")
        return code if isinstance(code, int) else -1, str(answer.get("result", ""))

    async def shell(self, script: str, timeout_s: int = 20) -> tuple[int, str]:
        """Run a script of POSIX ``sh``, whatever the sandbox's own shell is (zsh in the official image)."""
        return await self.execute("sh", "-c", script, timeout_s=timeout_s)

    # -- files -------------------------------------------------------------------------------------

    async def upload(self, path: str, data: bytes, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Write a file; directories above it are made. May be repeated."""
        from aiohttp import FormData

        form = FormData(default_to_multipart=True)
        form.add_field("files[0].path", path)
        # As a file: aiohttp writes bytes in one go, and warns of those over 1 MiB.
        form.add_field("files[0].file", BytesIO(data), filename=path, content_type="application/octet-stream")
        await self._json("POST", "/files/bulk-upload", data=form, timeout_s=timeout_s)

    async def download(
        self, path: str, offset: int = 0, most: int | None = None, *, silence_s: float = CALL_TIMEOUT_S
    ) -> bytes | None:
        """Bytes of a file from ``offset`` on; empty if it ends there, ``None`` if there is no such file.

        At ``most`` so many. ``silence_s``: how long nothing may come; the whole may take longer.
        """
        last = "" if most is None else offset + most - 1
        wanted = {"Range": f"bytes={offset}-{last}"} if offset or most is not None else {}
        headers = {**UNNOTICED, **wanted}
        async with self._request(
            "GET", "/files/download", silence_s=silence_s, params={"path": path}, headers=headers
        ) as answer:
            if answer.status == 404:
                return None
            if answer.status == 416:
                return b""
            await _raise_for_status(answer)
            ranged = answer.status == 206
            limit = MAX_ANSWER_BYTES if most is None or not ranged else most
            data = await read_body(answer, limit)
            return data if ranged else data[offset:][:most]

    async def list_files(self, path: str) -> dict[str, int] | None:
        """Names and sizes in bytes of the files in a directory; ``None`` if there is no such directory."""
        query = {"path": path}
        async with self._request(
            "GET", "/files", params=query, headers=UNNOTICED, timeout_s=LOOK_TIMEOUT_S
        ) as answer:
            if answer.status == 404:
                return None
            await _raise_for_status(answer)
            items = await _body(answer)
        if not isinstance(items, list):
            raise SandboxProtocolError("The sandbox listed a directory in an unknown form.")
        sizes = {str(item.get("name")): item.get("size", 0) for item in items if isinstance(item, dict)}
        return {name: size for name, size in sizes.items() if type(size) is int}

    async def version(self) -> str:
        """The daemon's version, such as ``0.190.0``."""
        answer = await self._json("GET", "/version", timeout_s=LOOK_TIMEOUT_S, headers=UNNOTICED)
        return str(answer.get("version", ""))

    # -- transport ---------------------------------------------------------------------------------

    async def _json(
        self, method: str, path: str, *, timeout_s: float = CALL_TIMEOUT_S, **options: Any
    ) -> dict[str, Any]:
        async with self._request(method, path, timeout_s=timeout_s, **options) as answer:
            await _raise_for_status(answer)
            if answer.status == 204:
                return {}
            body = await _body(answer)
            return body if isinstance(body, dict) else {}

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        silence_s: float | None = None,
        **options: Any,
    ) -> AsyncIterator[ClientResponse]:
        """Make a call. The connection may also be lost while the caller reads the answer's body."""
        import aiohttp

        if self._closed:
            raise ConnectionFailed(f"The connection to the sandbox has been closed ({method} {path}).")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=dict(self.endpoint.headers), proxy=proxy_for(self.endpoint.base_url)
            )
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=10, sock_read=silence_s)
        url = self.endpoint.base_url + path
        try:
            async with self._session.request(
                method, url, timeout=timeout, allow_redirects=False, **options
            ) as answer:
                yield answer
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as exc:
            reason = str(exc) or type(exc).__name__
            raise ConnectionFailed(f"The sandbox did not answer ({method} {path}: {reason}).") from exc


def shell_words(argv: Sequence[str]) -> str:
    """A program and its arguments as a line of shell, also of zsh, which reads ``=ls`` as ``/bin/ls``."""
    quoted = (shlex.quote(word) for word in argv)
    return " ".join(f"'{word}'" if word.startswith("=") else word for word in quoted)


async def hedged(attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the first of several attempts gives; another begins each second while none has answered.

    For calls that may be repeated: one that was swallowed by a dead connection holds up nobody. Raises what
    the last attempt raised, if all of them failed.
    """
    pending: set[asyncio.Future[T]] = set()
    now = asyncio.get_running_loop().time
    due = now()
    try:
        while True:
            # Not as soon as one fails: while another hangs, a gateway that refuses would be asked on and on.
            if (left := due - now()) <= 0:
                due, left = now() + HEDGE_S, HEDGE_S
                if len(pending) < HEDGE_MOST:
                    pending.add(asyncio.ensure_future(attempt()))
            done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            failed = [task for task in done if task.exception() is not None]  # each is looked at
            if len(failed) < len(done):
                return next(task for task in done if task not in failed).result()
            if failed and not pending:
                return failed[-1].result()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _close_later(session: ClientSession) -> None:
    try:
        await asyncio.sleep(CALL_TIMEOUT_S)
    finally:
        await session.close()


async def read_body(answer: ClientResponse, limit: int) -> bytes:
    """The body of an answer. Raises :class:`SandboxProtocolError` if it has more than ``limit`` bytes."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            answer.close()
            raise SandboxProtocolError(f"An answer of the sandbox has more than {limit} bytes.")
    return b"".join(pieces)


async def _body(answer: ClientResponse) -> Any:
    """The JSON of an answer, ``None`` if it is none."""
    try:
        return parsed(await read_body(answer, MAX_ANSWER_BYTES))
    except ValueError:
        return None


async def _raise_for_status(answer: ClientResponse) -> None:
    if answer.status < 300:
        return
    body = await _body(answer)
    message = (body.get("message") or body.get("error") or "") if isinstance(body, dict) else ""
    raise ToolboxError(answer.status, str(message)[:500])
