"""The control plane's calls, against a server that answers as Daytona does, and as it should not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from daytona_api_client_async import CreateSandbox

from daytona_kernel import controlplane as module
from daytona_kernel import sandbox as sandbox_module
from daytona_kernel.config import DaytonaSettings
from daytona_kernel.controlplane import ControlPlane, ControlPlaneError
from daytona_kernel.errors import ConfigurationError, ConnectionFailed, SandboxProtocolError
from daytona_kernel.sandbox import SandboxManager
from daytona_kernel.translation import translate

BOX = {"id": "s1", "name": "box", "state": "started", "labels": {}, "toolboxProxyUrl": "http://t/toolbox"}


class Api:
    """Answers each call with the next of ``answers`` for it, the last one again and again."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, list[Any]] = {}
        self.asked = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.calls.append((request.method, request.path_qs.removeprefix("/api"), body))
        self.headers.append(dict(request.headers))
        self.asked.set()
        answers = self.answers.get(f"{request.method} {request.path.removeprefix('/api')}", [(404, {})])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, web.Response):
            return answer
        status, content = answer if isinstance(answer, tuple) else (200, answer)
        return web.json_response(content, status=status)


@pytest.fixture
async def api() -> Api:
    return Api()


@pytest.fixture
async def plane(api: Api, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ControlPlane]:
    monkeypatch.setattr(module, "POLL_S", (0.001,))
    monkeypatch.setattr(module, "PAUSES_S", (0.001, 0.001))
    monkeypatch.setattr(module, "BUSY_POLL_S", 0.001)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    server = TestServer(app, handler_cancellation=True)
    await server.start_server()
    made = ControlPlane(str(server.make_url("/api/")), "secret-key")
    yield made
    await made.close()
    await server.close()


async def test_each_call_carries_the_key_and_who_calls(plane: ControlPlane, api: Api) -> None:
    api.answers["GET /sandbox/s1"] = [BOX]
    assert (await plane.get("s1")).name == "box"
    assert api.headers[0]["Authorization"] == "Bearer secret-key"
    assert api.headers[0]["X-Daytona-Source"] == "daytona-kernel"
    assert "X-Daytona-Organization-ID" not in api.headers[0]
    assert "secret-key" not in repr(plane)


def test_a_jwt_comes_with_its_organization() -> None:
    assert ControlPlane("", "jwt", "org-1").headers["X-Daytona-Organization-ID"] == "org-1"
    assert ControlPlane("", "jwt").api_url == "https://app.daytona.io/api"


@pytest.mark.parametrize("url", ["garbage", "ftp://host/api", "http://", "/api"])
def test_an_api_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigurationError, match="DAYTONA_API_URL"):
        ControlPlane(url, "k")


async def test_a_sandbox_that_is_made_is_waited_for(plane: ControlPlane, api: Api) -> None:
    api.answers["POST /sandbox"] = [BOX | {"state": "creating"}]
    api.answers["GET /sandbox/s1"] = [BOX | {"state": "starting"}, BOX]
    made = await plane.create({"name": "box", "labels": {"a": "b"}}, 10)
    assert made.state == "started"
    assert api.calls[0][2] == {"name": "box", "labels": {"code-toolbox-language": "python", "a": "b"}}
    assert [call[0] for call in api.calls] == ["POST", "GET", "GET"]


@pytest.mark.parametrize("state", ["error", "build_failed", "destroyed"])
async def test_a_sandbox_that_comes_to_a_bad_end_is_told_with_its_reason(
    plane: ControlPlane, api: Api, state: str
) -> None:
    api.answers["POST /sandbox"] = [BOX | {"state": "pulling_snapshot"}]
    api.answers["GET /sandbox/s1"] = [BOX | {"state": state, "errorReason": "no runner"}]
    with pytest.raises(ControlPlaneError, match=f"{state}, the reason: no runner") as caught:
        await plane.create({}, 10)
    assert caught.value.status is None


async def test_a_creation_has_an_end_also_while_nothing_answers(plane: ControlPlane, api: Api) -> None:
    api.answers["POST /sandbox"] = [None]
    with pytest.raises((asyncio.TimeoutError, ConnectionFailed)):
        await plane.create({}, 0.05)


async def test_without_its_toolbox_url_a_sandbox_is_asked_for_it(plane: ControlPlane, api: Api) -> None:
    api.answers["GET /sandbox/s1"] = [BOX | {"toolboxProxyUrl": ""}]
    api.answers["GET /sandbox/s1/toolbox-proxy-url"] = [{"url": "http://t/other"}]
    assert (await plane.get("s1")).toolbox_proxy_url == "http://t/other"


async def test_starting_stopping_labelling_and_deleting(plane: ControlPlane, api: Api) -> None:
    api.answers["GET /sandbox/box%2F1"] = api.answers["GET /sandbox/box/1"] = [BOX | {"state": "stopped"}]
    api.answers["POST /sandbox/s1/start"] = [BOX | {"state": "starting"}]
    api.answers["GET /sandbox/s1"] = [BOX]
    api.answers["POST /sandbox/s1/stop"] = [BOX | {"state": "stopping"}]
    api.answers["PUT /sandbox/s1/labels"] = [{"labels": {"x": "y"}}]
    api.answers["POST /sandbox/s1/last-activity"] = [web.Response(status=201)]
    api.answers["DELETE /sandbox/s1"] = [BOX | {"state": "destroying"}]
    handle = await plane.get("box/1")
    assert api.calls[0][1] == "/sandbox/box%2F1"
    await handle.start(10)
    assert handle.state == "started"
    await handle.refresh_activity()
    await handle.set_labels({"x": "y"})
    assert (handle.labels, api.calls[-1][2]) == ({"x": "y"}, {"labels": {"x": "y"}})
    await handle.stop()
    assert handle.state == "stopping"
    await handle.delete()
    assert api.calls[-1][:2] == ("DELETE", "/sandbox/s1")


async def test_sandboxes_are_found_by_their_labels(plane: ControlPlane, api: Api) -> None:
    api.answers["GET /sandbox"] = [{"items": [BOX, BOX | {"id": "s2"}], "nextCursor": None}]
    assert [item.id for item in await plane.find({"daytona-kernel.notebook": "7f"})] == ["s1", "s2"]
    assert "daytona-kernel.notebook" in api.calls[0][1]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ((401, {"message": "bad key"}), 401, "bad key"),
        ((400, {"message": ["name must be a string", "cpu too large"]}), 400, "string; cpu too large"),
        ((500, {"error": "Internal"}), 500, "Internal"),
        ((501, None), 501, "Not Implemented"),
        (web.Response(status=403, text="<html>no</html>"), 403, "Forbidden"),
        (web.Response(status=302, headers={"Location": "http://evil/"}), 302, "redirected to http://evil/"),
    ],
)
async def test_a_refusal_is_told_in_the_services_words(
    plane: ControlPlane, api: Api, answer: Any, status: int, words: str
) -> None:
    api.answers["GET /sandbox/s1"] = [answer]
    with pytest.raises(ControlPlaneError, match=words) as caught:
        await plane.get("s1")
    assert caught.value.status == status
    assert len(api.calls) == 1


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_call_that_only_asks_is_repeated_when_a_gateway_fails(
    plane: ControlPlane, api: Api, status: int
) -> None:
    api.answers["GET /sandbox/s1"] = [(status, {}), (status, {}), BOX]
    assert (await plane.get("s1")).name == "box"
    assert len(api.calls) == 3


async def test_a_gateway_that_stays_away_is_told(plane: ControlPlane, api: Api) -> None:
    api.answers["GET /sandbox/s1"] = [(503, {"message": "no server"})]
    with pytest.raises(ControlPlaneError, match="no server"):
        await plane.get("s1")
    assert len(api.calls) == 3


async def test_a_call_that_may_have_been_carried_out_is_not_repeated(plane: ControlPlane, api: Api) -> None:
    api.answers["POST /sandbox/s1/resize"] = [(502, {}), BOX]
    with pytest.raises(ControlPlaneError, match="Bad Gateway"):
        await plane.call("POST", "/sandbox/s1/resize", body={"cpu": 2})
    assert [call[0] for call in api.calls] == ["POST"]


@pytest.mark.parametrize(("status", "state"), [(409, "stopping"), (400, "stopped")])
async def test_a_stop_whose_answer_was_lost_has_stopped_it(
    plane: ControlPlane, api: Api, status: int, state: str
) -> None:
    api.answers["GET /sandbox/s1"] = [BOX, BOX | {"state": state}]
    api.answers["POST /sandbox/s1/stop"] = [(502, {}), (status, {"message": "Sandbox is not started"})]
    box = await plane.get("s1")
    await box.stop()
    assert box.state == state


async def test_a_stop_that_is_refused_is_an_error(plane: ControlPlane, api: Api) -> None:
    api.answers["GET /sandbox/s1"] = [BOX, BOX | {"state": "starting"}]
    api.answers["POST /sandbox/s1/stop"] = [(409, {"message": "Sandbox state change in progress"})]
    box = await plane.get("s1")
    with pytest.raises(ControlPlaneError, match="in progress"):
        await box.stop()


async def test_a_call_that_comes_too_early_is_made_again_when_the_service_says(
    plane: ControlPlane, api: Api
) -> None:
    early = web.Response(status=429, headers={"Retry-After": "0"}, text="{}")
    api.answers["GET /sandbox/s1"] = [BOX]
    api.answers["POST /sandbox/s1/stop"] = [early, BOX | {"state": "stopping"}]
    box = await plane.get("s1")
    await box.stop()
    assert box.state == "stopping"


async def test_a_service_that_wants_much_patience_is_not_waited_for(plane: ControlPlane, api: Api) -> None:
    api.answers["GET /sandbox/s1"] = [web.Response(status=429, headers={"Retry-After": "600"}, text="{}")]
    with pytest.raises(ControlPlaneError) as caught:
        await plane.get("s1")
    assert (caught.value.status, caught.value.retry_after_s, len(api.calls)) == (429, 600, 1)
    assert "600 s" in str(translate(caught.value))


def test_the_time_to_wait_may_be_given_in_two_forms() -> None:
    assert module.retry_after({"retry-after": " 7 "}) == 7
    assert module.retry_after({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert module.retry_after({"Retry-After": "soon"}) is None
    # by the clock that wrote it: this machine's may be hours off
    told = {"Date": "Sat, 01 Jan 2050 00:00:00 GMT", "Retry-After": "Sat, 01 Jan 2050 00:00:09 GMT"}
    assert module.retry_after(told) == 9
    assert module.retry_after({}) is None


# -- creating and starting, with a service that is not quite there ---------------------------------------


async def test_a_creation_whose_answer_was_lost_is_found_by_its_name(plane: ControlPlane, api: Api) -> None:
    api.answers["POST /sandbox"] = [(504, {})]
    api.answers["GET /sandbox/nb-1"] = [BOX | {"state": "creating"}]
    api.answers["GET /sandbox/s1"] = [BOX]
    assert (await plane.create({"name": "nb-1"}, 10)).id == "s1"
    assert [call[0] for call in api.calls] == ["POST", "GET", "GET"]


async def test_a_creation_that_the_network_swallowed_is_asked_for_again(
    plane: ControlPlane, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before the time that the sandbox itself may take is over."""
    monkeypatch.setattr(module, "START_TIMEOUT_S", 0.2)
    api.answers["POST /sandbox"] = [None, BOX]
    api.answers["GET /sandbox/nb-1"] = [(404, {"message": "no such sandbox"})]
    assert (await plane.create({"name": "nb-1"}, 120)).id == "s1"
    assert [call[0] for call in api.calls] == ["POST", "GET", "POST"]


async def test_a_service_that_is_away_for_some_seconds_is_waited_for(
    plane: ControlPlane, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever needs a sandbox: a person would only try the same again."""
    monkeypatch.setattr(module, "LONG_PAUSES_S", (0.001,))
    monkeypatch.setattr(sandbox_module, "LONG_PAUSES_S", (0.001,))
    api.answers["POST /sandbox"] = [(502, {}), (522, {}), (503, {}), BOX]
    api.answers["GET /sandbox/nb-1"] = [(502, {})]
    assert (await plane.create({"name": "nb-1"}, 10)).id == "s1"
    manager = SandboxManager(DaytonaSettings(backend="daytona", api_key="k", sandbox="s1"))
    manager._plane = plane
    api.answers["GET /sandbox/s1"] = [(504, {})] * 4 + [BOX]
    assert (await manager.acquire()).id == "s1"


async def test_a_creation_that_did_not_arrive_is_asked_for_again(plane: ControlPlane, api: Api) -> None:
    api.answers["POST /sandbox"] = [(503, {}), BOX]
    api.answers["GET /sandbox/nb-1"] = [(404, {"message": "no such sandbox"})]
    assert (await plane.create({"name": "nb-1"}, 10)).id == "s1"
    assert [call[0] for call in api.calls] == ["POST", "GET", "POST"]


async def test_while_a_sandbox_gets_ready_the_service_may_be_away(plane: ControlPlane, api: Api) -> None:
    """Right after it was made, a replica may not know it yet; and gateways are restarted."""
    api.answers["POST /sandbox"] = [BOX | {"state": "creating"}]
    api.answers["GET /sandbox/s1"] = [(404, {}), (404, {}), *[(503, {})] * 7, BOX]
    assert (await plane.create({"name": "nb-1"}, 10)).state == "started"


async def test_a_sandbox_that_vanishes_while_it_gets_ready_is_told(plane: ControlPlane, api: Api) -> None:
    api.answers["POST /sandbox"] = [BOX | {"state": "creating"}]
    with pytest.raises(ControlPlaneError) as caught:
        await plane.create({"name": "nb-1"}, 10)
    assert (caught.value.status, caught.value.made) == (404, True)


async def test_a_start_while_somebody_else_starts_it_is_waited_for(plane: ControlPlane, api: Api) -> None:
    api.answers["POST /sandbox/s1/start"] = [(409, {"message": "Sandbox state change in progress"})]
    api.answers["GET /sandbox/s1"] = [
        *(BOX | {"state": state} for state in ("stopped", "starting", "starting", "started"))
    ]
    box = await plane.get("s1")
    await box.start(10)
    assert box.state == "started"


async def test_a_start_right_after_a_stop_is_asked_for_again(plane: ControlPlane, api: Api) -> None:
    """The state says stopped a moment before the service has done with it."""
    api.answers["GET /sandbox/s1"] = [BOX | {"state": "stopped"}]
    api.answers["POST /sandbox/s1/start"] = [(409, {}), (409, {}), BOX]
    box = await plane.get("s1")
    await box.start(10)
    assert [call[0] for call in api.calls].count("POST") == 3


@pytest.mark.parametrize("content", [[], "text", {"name": "box"}, {"id": 7}])
async def test_an_answer_that_is_no_sandbox_is_an_error_of_the_protocol(
    plane: ControlPlane, api: Api, content: Any
) -> None:
    api.answers["GET /sandbox/s1"] = [content]
    with pytest.raises(SandboxProtocolError, match="without an id"):
        await plane.get("s1")


async def test_nobody_there_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0))
    server = TestServer(web.Application())
    await server.start_server()
    url = str(server.make_url("/api"))
    await server.close()
    plane = ControlPlane(url, "secret-key")
    with pytest.raises(ConnectionFailed, match="could not be reached") as caught:
        await plane.get("s1")
    assert "secret-key" not in str(caught.value)
    await plane.close()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"headless": True},
        {"snapshot": "sn", "auto_stop": "2h", "env_vars": {"A": "b"}, "network_block_all": True},
        {"image": "python:3.12", "cpu": 2, "memory_gib": 4, "disk_gib": 5, "target": "eu"},
    ],
)
def test_what_is_asked_for_is_what_the_sdks_own_model_would_send(settings: dict[str, Any]) -> None:
    body = SandboxManager(DaytonaSettings(**settings))._body()
    model = CreateSandbox.from_dict(body)
    assert model is not None
    sent = model.to_dict()
    assert {name: sent.get(name) for name in body} == body  # a field it does not know would be missing
