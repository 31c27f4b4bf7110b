"""Patience for the SDK's calls, as our own have it: with gateways that are away, and with 429.

The SDK tries again what could not connect. An answer of 502, or one that asks to come back later, it raises
at once; a command would fail for what is over in a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .controlplane import GATEWAY, MOST_PATIENCE_S, PAUSES_S, REPEATABLE, TOO_MANY, retry_after

log = logging.getLogger(__name__)

ANSWER_S = 300.0
"""How long a call that changes nothing may take, where the SDK would wait for ever."""
NAMES = ("_api_client", "_toolbox_api_client")
"""Where the SDK 0.226 keeps its clients for the control plane and for toolboxes."""

Request = Callable[..., Awaitable[Any]]


def make_patient(client: Any) -> None:
    """Have the calls of an SDK client repeated as those of :class:`~.controlplane.ControlPlane` are.

    A version of the SDK that is made otherwise stays as it is.
    """
    for name in NAMES:
        rest = getattr(getattr(client, name, None), "rest_client", None)
        request = getattr(rest, "request", None)
        if rest is not None and callable(request):
            rest.request = _patiently(request)


def _patiently(request: Request) -> Request:
    async def patient(method: str, *args: Any, **options: Any) -> Any:
        may_repeat = method.upper() in REPEATABLE
        if not may_repeat or options.get("_request_timeout") is not None:
            return await ask(may_repeat, method, *args, **options)
        try:
            return await ask(may_repeat, method, *args, **{**options, "_request_timeout": ANSWER_S})
        except asyncio.TimeoutError as exc:
            raise asyncio.TimeoutError(f"no answer within {ANSWER_S:g} s") from exc

    async def ask(may_repeat: bool, method: str, *args: Any, **options: Any) -> Any:
        for pause_s in PAUSES_S:
            answer = await request(method, *args, **_fresh(options))
            if may_repeat and not await _is_whole(answer):
                await asyncio.sleep(pause_s)
                continue
            again = answer.status == TOO_MANY or (may_repeat and answer.status in GATEWAY)
            headers = getattr(answer, "headers", None)
            wait_s = max(pause_s, (retry_after(headers) if isinstance(headers, Mapping) else None) or 0.0)
            if not again or wait_s > MOST_PATIENCE_S:
                return answer
            log.info("%s was answered %d: once more in %.1f s", method, answer.status, wait_s)
            await answer.read()  # which gives its connection back
            await asyncio.sleep(wait_s)
        return await request(method, *args, **_fresh(options))

    return patient


async def _is_whole(answer: Any) -> bool:
    """Whether all of an answer in JSON comes, which is kept; files are left to be read bit by bit."""
    from aiohttp import ClientError

    try:
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            await answer.read()
    except (ClientError, OSError) as exc:
        log.info("an answer was cut: %s", exc)
        return False
    return True


def _fresh(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options once more: the SDK's client writes into the headers that it gets."""
    headers = options.get("headers")
    return {**options, "headers": dict(headers)} if isinstance(headers, Mapping) else dict(options)
