"""The few control-plane calls between a kernel's start and its first cell, and those that keep it going.

The SDK has them all, but takes a second and 56 MiB to import, which is more than a whole local kernel needs
to answer. So what every notebook needs goes out from here, on aiohttp alone; ``%daytona`` and the command
line use the SDK. Paths, fields and statuses: Daytona's OpenAPI specification, as the SDK 0.226 uses it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ._version import __version__
from .answers import parsed
from .errors import ConfigurationError, ConnectionFailed, SandboxProtocolError
from .proxies import proxy_for

if TYPE_CHECKING:
    from aiohttp import ClientSession

Content = dict[str, Any]

DEFAULT_API_URL = "https://app.daytona.io/api"
CALL_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
"""Of a call to create or start: the service answers after up to 30 s, also when the sandbox does not run yet
(API of v0.190.0). An answer that has not come by then was lost on the way."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024
REPEATABLE = ("GET", "PUT", "DELETE")
PAUSES_S = (0.3, 1.0)
"""Before a call is repeated, unless the answer names a time of its own (``Retry-After``)."""
LONG_PAUSES_S = (2.0,)
"""Besides, where a person waits for a sandbox, and would only try the same again."""
REPEAT_WITHIN_S = 10.0
"""A call that has failed after longer is not repeated: the person has waited enough."""
MOST_PATIENCE_S = 30.0
"""The longest time asked for by the service that is waited for."""
TOO_MANY = 429
GATEWAY = (502, 503, 504, 520, 521, 522, 523, 524)
"""Statuses of what stands before the service: it may be there again in a moment. Those from 520 on are
Cloudflare's words for an origin that did not answer it well."""
IN_PROGRESS = 409
MISSING_LOOKS = 3
"""How often a sandbox that has just been made may be unknown before that is believed."""
FAILED_LOOKS = 10
"""How often in a row nobody may answer while a sandbox gets ready."""
MOST_RETRY_AFTER_S = 86400.0
MOST_MINUTES = 10**7
"""What is more than that is no answer to be reckoned with."""
STARTED = "started"
STOPPED = ("stopping", "stopped", "archiving", "archived")
FAILED = ("error", "build_failed", "destroyed", "destroying")
POLL_S = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Pauses between looks at a sandbox that is getting ready; the last one again and again."""
BUSY_POLL_S = 0.5
"""Between attempts to start a sandbox whose state somebody else is changing."""
PYTHON = {"code-toolbox-language": "python"}
"""The label by which SDK clients know the sandbox's language."""


class ControlPlaneError(Exception):
    """The control plane refused, or the sandbox came to a bad end. ``status``: HTTP's, or ``None``.

    ``retry_after_s``: for how long it wants to be left alone, if it said so. ``made``: the sandbox that was
    asked for exists all the same.
    """

    def __init__(self, status: int | None, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.made = False


@dataclass
class SandboxHandle:
    """One sandbox as the control plane last described it, and what can be done with it."""

    plane: ControlPlane
    id: str
    name: str = ""
    state: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    toolbox_proxy_url: str = ""
    error_reason: str = ""
    recoverable: bool = False
    auto_stop_minutes: int | None = None

    async def refresh_data(self) -> None:
        """Ask for the state of now. Raises as :meth:`ControlPlane.call` does."""
        self.take(await self.plane.call("GET", _path(self.id)))

    async def start(self, timeout: float | None = None) -> None:
        """Start it and wait until it runs; ``timeout`` in seconds, ``None`` or 0 for none.

        Raises :class:`ControlPlaneError` if it fails, :class:`asyncio.TimeoutError` if it takes too long.
        """
        await asyncio.wait_for(self._start("start"), timeout or None)

    async def recover(self, timeout: float | None = None) -> None:
        """Start it from ``error``, where it says that it is recoverable. As :meth:`start` otherwise."""
        await asyncio.wait_for(self._start("recover"), timeout or None)

    async def _start(self, verb: str) -> None:
        while True:
            try:
                call = self.plane.call("POST", _path(self.id, verb), timeout_s=START_TIMEOUT_S, repeat=True)
                self.take(await call)
                break
            except ControlPlaneError as exc:
                if exc.status != IN_PROGRESS:
                    raise
            # Another kernel may just be starting it, or its stop is not quite over.
            await asyncio.sleep(BUSY_POLL_S)
            await self.refresh_data()
            if self.state == STARTED or self.state in FAILED:
                break
        await self.wait_until_started()

    async def wait_until_started(self) -> None:
        """Look at it until it runs. Raises :class:`ControlPlaneError` with the reason if it never will."""
        looks = failures = 0
        while self.state != STARTED:
            if self.state in FAILED:
                reason = self.error_reason or "no reason given"
                raise ControlPlaneError(None, f"its state is {self.state}, the reason: {reason}")
            await asyncio.sleep(POLL_S[min(looks, len(POLL_S) - 1)])
            looks += 1
            try:
                await self.refresh_data()
                failures = 0
            except (ConnectionFailed, ControlPlaneError) as exc:
                failures += 1
                if failures > _looks_allowed(exc):
                    raise

    async def stop(self) -> None:
        """Ask for its stop, without waiting for it. That it stops already, or has stopped, is no error."""
        try:
            self.take(await self.plane.call("POST", _path(self.id, "stop"), repeat=True))
        except (ControlPlaneError, ConnectionFailed):
            # 400 does not tell whether it has stopped before, or by a call of ours whose answer was lost.
            with suppress(ControlPlaneError, ConnectionFailed):
                await self.refresh_data()
                if self.state in STOPPED:
                    return
            raise

    async def delete(self, timeout: float = CALL_TIMEOUT_S) -> None:
        """Ask for its deletion, without waiting for it."""
        await self.plane.call("DELETE", _path(self.id), timeout_s=timeout)

    async def set_labels(self, labels: Mapping[str, str]) -> None:
        """Replace all its labels."""
        await self.plane.call("PUT", _path(self.id, "labels"), body={"labels": dict(labels)})
        self.labels = dict(labels)

    async def refresh_activity(self) -> None:
        """Tell that it is in use: its auto-stop clock begins anew."""
        await self.plane.call("POST", _path(self.id, "last-activity"), repeat=True)

    def take(self, answer: Any) -> None:
        """Take over what an answer says. Fields that are missing stay as they are."""
        if not isinstance(answer, dict):
            return
        for name in ("name", "state"):
            if isinstance(answer.get(name), str):
                setattr(self, name, answer[name])
        if isinstance(answer.get("labels"), dict):
            self.labels = {str(key): str(value) for key, value in answer["labels"].items()}
        self.toolbox_proxy_url = str(answer.get("toolboxProxyUrl") or self.toolbox_proxy_url)
        self.error_reason = str(answer.get("errorReason") or "")
        self.recoverable = answer.get("recoverable") is True
        minutes = answer.get("autoStopInterval")
        if type(minutes) is int and 0 <= minutes <= MOST_MINUTES:
            self.auto_stop_minutes = minutes


class ControlPlane:
    """Calls to one Daytona API with one credential. Use it on one event loop only.

    ``organization_id`` goes with a JWT, which may be good for several organizations.
    """

    def __init__(self, api_url: str, credential: str, organization_id: str = "") -> None:
        self.api_url = (api_url or DEFAULT_API_URL).rstrip("/")
        if urlsplit(self.api_url).scheme not in ("http", "https") or not urlsplit(self.api_url).hostname:
            raise ConfigurationError(
                f"The API URL {self.api_url!r} is not a URL.",
                hint="DAYTONA_API_URL looks like https://host/api.",
            )
        self.headers = {
            "Authorization": f"Bearer {credential}",
            "X-Daytona-Source": "daytona-kernel",
            "User-Agent": f"daytona-kernel/{__version__}",
        }
        if organization_id:
            self.headers["X-Daytona-Organization-ID"] = organization_id
        self._session: ClientSession | None = None

    def __repr__(self) -> str:
        return f"ControlPlane({self.api_url!r})"

    async def get(self, key: str) -> SandboxHandle:
        """The sandbox of this id or name. Raises :class:`ControlPlaneError` (404) if there is none."""
        return await self._handle(await self.call("GET", _path(key)))

    async def find(self, labels: Mapping[str, str]) -> list[SandboxHandle]:
        """Sandboxes that have these labels, one page of them at most."""
        answer = await self.call("GET", "/sandbox", params={"labels": json.dumps(dict(labels))})
        items = answer.get("items") if isinstance(answer, dict) else answer
        return [await self._handle(item) for item in items] if isinstance(items, list) else []

    async def create(self, body: Content, timeout: float | None = None) -> SandboxHandle:
        """Make a sandbox and wait until it runs; ``timeout`` in seconds for both, ``None`` or 0 for none.

        ``body``: the fields of the API's ``CreateSandbox``. Raises :class:`ControlPlaneError` if it is
        refused or fails, :class:`asyncio.TimeoutError` if it takes too long. It may exist after an error,
        under the name that was asked for. An answer that is lost is no error: the name tells which it is.
        """
        return await asyncio.wait_for(self._create(body, timeout or None), timeout or None)

    async def _create(self, body: Content, timeout_s: float | None) -> SandboxHandle:
        whole = {**body, "labels": {**PYTHON, **body.get("labels", {})}}
        made = await self._make(whole, timeout_s)
        try:
            await made.wait_until_started()
        except ControlPlaneError as exc:
            exc.made = True
            raise
        return made

    async def _make(self, body: Content, timeout_s: float | None) -> SandboxHandle:
        """Ask for it until there is one of that name. Names are unique, so it is never made twice.

        A network or gateway that is away is waited for, some 7 s in all.
        """
        answer_s = min(timeout_s or START_TIMEOUT_S, START_TIMEOUT_S)
        for pause_s in (*PAUSES_S, *LONG_PAUSES_S, None):
            try:
                return await self._handle(await self.call("POST", "/sandbox", body=body, timeout_s=answer_s))
            except (ConnectionFailed, ControlPlaneError) as exc:
                lost = is_away(exc) or getattr(exc, "status", None) == IN_PROGRESS
                if not lost or pause_s is None or not body.get("name"):
                    raise
            await asyncio.sleep(pause_s)
            try:
                return await self.get(body["name"])
            except (ConnectionFailed, ControlPlaneError) as exc:
                if not (is_away(exc) or getattr(exc, "status", None) == 404):
                    raise
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Content | None = None,
        params: dict[str, str] | None = None,
        timeout_s: float | None = CALL_TIMEOUT_S,
        repeat: bool | None = None,
    ) -> Any:
        """Make a call; the JSON of the answer, ``None`` if it has none.

        Raises :class:`ControlPlaneError` for an answer that is an error, and :class:`ConnectionFailed` if
        there was none in time. ``repeat``: whether it may be carried out twice, by default by its method;
        then it is repeated after a failure on the way. One that was refused because there are too many at
        the moment always is. No redirection is followed with the key in hand.
        """
        may_repeat = method in REPEATABLE if repeat is None else repeat
        until = time.monotonic() + REPEAT_WITHIN_S
        for pause_s in PAUSES_S:
            try:
                return await self._call(method, path, body, params, timeout_s)
            except ConnectionFailed:
                if not may_repeat or time.monotonic() > until:
                    raise
                wait_s = pause_s
            except ControlPlaneError as exc:
                wait_s = max(pause_s, exc.retry_after_s or 0.0)
                again = exc.status == TOO_MANY or (may_repeat and exc.status in GATEWAY)
                if not again or wait_s > MOST_PATIENCE_S:
                    raise
            await asyncio.sleep(wait_s)
        return await self._call(method, path, body, params, timeout_s)

    async def _call(
        self,
        method: str,
        path: str,
        body: Content | None,
        params: dict[str, str] | None,
        timeout_s: float | None,
    ) -> Any:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self.headers, proxy=proxy_for(self.api_url))
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.request(
                method, self.api_url + path, json=body, params=params, timeout=timeout, allow_redirects=False
            ) as answer:
                content = _json(await _read(answer))
                if answer.status >= 300:
                    raise ControlPlaneError(
                        answer.status, _reason(content, answer), retry_after(answer.headers)
                    )
                return content
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as exc:
            reason = " ".join(str(exc).split())[:400] or type(exc).__name__
            raise ConnectionFailed(f"Daytona could not be reached ({reason}).") from exc

    async def _handle(self, answer: Any) -> SandboxHandle:
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
            raise SandboxProtocolError(
                "Daytona described a sandbox without an id.",
                hint="Is DAYTONA_API_URL the URL of a Daytona API?",
            )
        handle = SandboxHandle(self, answer["id"])
        handle.take(answer)
        if not handle.toolbox_proxy_url:
            found = await self.call("GET", _path(handle.id, "toolbox-proxy-url"))
            handle.toolbox_proxy_url = str(found.get("url") or "") if isinstance(found, dict) else ""
        return handle


def is_away(exc: BaseException) -> bool:
    """Whether nobody of the service has answered, or only what stands before it."""
    return isinstance(exc, ConnectionFailed) or getattr(exc, "status", None) in GATEWAY


def _looks_allowed(exc: ConnectionFailed | ControlPlaneError) -> int:
    """How many looks in a row may fail like this before it is said."""
    if isinstance(exc, ConnectionFailed) or exc.status in (*GATEWAY, TOO_MANY):
        return FAILED_LOOKS
    return MISSING_LOOKS if exc.status == 404 else 0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to be left alone for (``Retry-After``); ``None`` if it does not say."""
    lowered = {name.lower(): value.strip() for name, value in headers.items()}
    text = lowered.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return min(float(text), MOST_RETRY_AFTER_S)
    until = _timestamp(text)
    if until is None:
        return None
    now = _timestamp(lowered.get("date", ""))  # of the same clock: ours may be wrong by hours
    return max(0.0, until - (time.time() if now is None else now))


def _timestamp(text: str) -> float | None:
    """Seconds since 1970 of a date as HTTP writes it; ``None`` if it is none."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _path(key: str, verb: str = "") -> str:
    return f"/sandbox/{quote(key, safe='')}" + (f"/{verb}" if verb else "")


async def _read(answer: Any) -> bytes:
    data = bytearray()
    async for piece in answer.content.iter_any():
        data += piece
        if len(data) > MAX_ANSWER_BYTES:
            answer.close()
            raise SandboxProtocolError(
                f"Daytona's answer has more than {MAX_ANSWER_BYTES} bytes.",
                hint="Is DAYTONA_API_URL the URL of a Daytona API?",
            )
    return bytes(data)


def _json(data: bytes) -> Any:
    try:
        return parsed(data) if data else None
    except ValueError:
        return None


def _reason(content: Any, answer: Any) -> str:
    """Words for an error: the API's own, or where a redirection would have led, or HTTP's."""
    if 300 <= answer.status < 400:
        return f"redirected to {answer.headers.get('Location', 'elsewhere')}; is DAYTONA_API_URL right?"
    message = content.get("message") or content.get("error") if isinstance(content, dict) else ""
    if isinstance(message, list):
        message = "; ".join(str(item) for item in message)
    return str(message or answer.reason or answer.status)[:400]
