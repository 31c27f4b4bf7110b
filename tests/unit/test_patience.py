"""The SDK's calls, repeated where that does no harm: with its own client, which must stay as it is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daytona_kernel import patience as module
from daytona_kernel.config import DaytonaSettings
from daytona_kernel.service import Service, make_client


class Api:
    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.calls: list[str] = []
        self.hangs = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade"):
            return web.Response(status=404)  # no events here
        self.calls.append(request.method)
        if self.hangs:
            await asyncio.Event().wait()
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        if "cut" in headers:
            answer = web.StreamResponse(headers={"Content-Length": "99", "Content-Type": "application/json"})
            await answer.prepare(request)
            await answer.write(b"{")
            assert request.transport is not None
            request.transport.abort()
            return answer
        return web.json_response({"items": [], "nextCursor": None}, status=status, headers=headers)


@pytest.fixture
async def api() -> Api:
    return Api()


@pytest.fixture
async def client(api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(app, handler_cancellation=True) as server:
        service = Service(str(server.make_url("/api")), "key", False)
        client = await asyncio.to_thread(make_client, service, DaytonaSettings())
        yield client
        await client.close()


async def names(client: Any) -> list[str]:
    return [one.name async for one in client.list()]


@pytest.mark.parametrize("status", [429, 502, 503, 522])
async def test_a_question_is_asked_again(api: Api, client: Any, status: int) -> None:
    api.answers = [(status, {}), (status, {"Retry-After": "0"})]
    assert await names(client) == []
    assert api.calls == ["GET"] * 3


async def test_a_question_whose_answer_is_cut_is_asked_again(api: Api, client: Any) -> None:
    api.answers = [(200, {"cut": "yes"})] * 2
    assert await names(client) == []
    assert api.calls == ["GET"] * 3


@pytest.mark.parametrize(
    ("answer", "calls"),
    [((500, {}), 1), ((429, {"Retry-After": "600"}), 1), ((503, {}), 3)],
)
async def test_what_stays_is_told(
    api: Api, client: Any, answer: tuple[int, dict[str, str]], calls: int
) -> None:
    api.answers = [answer] * 5
    with pytest.raises(Exception, match="list") as caught:
        await names(client)
    assert getattr(caught.value, "status_code", None) == answer[0]
    assert len(api.calls) == calls


async def test_what_may_have_been_carried_out_is_not_repeated_but_what_was_turned_away_is(
    api: Api, client: Any
) -> None:
    rest = client._api_client.rest_client
    url = f"{client._api_client.configuration.host}/sandbox"
    api.answers = [(502, {})]
    assert (await rest.request("POST", url, headers={}, body={})).status == 502
    api.answers = [(429, {})]
    assert (await rest.request("POST", url, headers={}, body={})).status == 200
    assert api.calls == ["POST"] * 3


async def test_a_question_that_is_swallowed_has_an_end(
    api: Api, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    api.hangs = True
    with pytest.raises(Exception, match="no answer within"):
        await names(client)


def test_an_sdk_that_is_made_otherwise_stays_as_it_is() -> None:
    module.make_patient(object())
