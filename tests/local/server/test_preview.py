"""Previews of web servers in a sandbox: who may see them, and what passes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from daytona_kernel.local.preview import parse_label, target_of_host

from .conftest import Running, close_server, open_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVER = r"""
import json
from aiohttp import web

async def echo(request):
    if request.path == "/stream":
        response = web.StreamResponse()
        await response.prepare(request)
        for i in range(5):
            await response.write(b"%d\n" % i)
        return response
    if request.headers.get("Upgrade", "").lower() == "websocket":
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str("echo " + message.data)
        return ws
    facts = {"path": request.raw_path, "headers": {k.lower(): v for k, v in request.headers.items()}}
    return web.json_response(facts, headers={"Set-Cookie": "own=1"})

app = web.Application()
app.router.add_route("*", "/{tail:.*}", echo)
web.run_app(app, host="127.0.0.1", port=8765, print=lambda *a: open("up", "w").write("up"))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(running: Running) -> dict[str, Any]:
    """A sandbox with a web server on port 8765."""
    sandbox = await running.create()
    await running.run(sandbox, f"cat > server.py <<'EOF'\n{SERVER}\nEOF\npython server.py > log 2>&1 &")
    code, _ = await running.run(
        sandbox, "for i in $(seq 400); do [ -e up ] && exit 0; sleep 0.05; done; cat log; exit 1"
    )
    assert code == 0
    return sandbox


@pytest_asyncio.fixture(loop_scope="module")
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without the key that keeps no cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield http


def host_form(running: Running, label: str) -> dict[str, str]:
    """Headers with which loopback is asked under a preview's name, as a browser would after resolving it."""
    return {"Host": f"{label}.localhost:{running.server.state.port}"}


async def link(running: Running, sandbox: dict[str, Any]) -> dict[str, Any]:
    _, body = await running.call("GET", f"/sandbox/{sandbox['id']}/ports/8765/preview-url")
    return body


async def signed(running: Running, sandbox: dict[str, Any], seconds: int = 60) -> dict[str, Any]:
    _, body = await running.call(
        "GET", f"/sandbox/{sandbox['id']}/ports/8765/signed-preview-url", params={"expiresInSeconds": seconds}
    )
    return body


async def test_link_names_the_port_and_the_sandbox(running: Running, sandbox: dict[str, Any]) -> None:
    """The standard link has the host form and a token of 32 characters."""
    body = await link(running, sandbox)
    assert body["url"] == f"http://8765-{sandbox['id']}.localhost:{running.server.state.port}"
    assert len(body["token"]) == 32


@pytest.mark.parametrize("how", ["header", "query", "bearer"])
async def test_token_opens_the_preview(
    running: Running, sandbox: dict[str, Any], browser: aiohttp.ClientSession, how: str
) -> None:
    """In a header, in the query, or with the key; what opened it does not reach the previewed server."""
    token = (await link(running, sandbox))["token"]
    headers = host_form(running, f"8765-{sandbox['id']}")
    query = "?a=%2F&a=b"
    if how == "header":
        headers["X-Daytona-Preview-Token"] = token
    elif how == "bearer":
        headers["Authorization"] = f"Bearer {running.key}"
    else:
        query += f"&DAYTONA_SANDBOX_AUTH_KEY={token}"
    url = aiohttp.client.URL(f"{running.base}/a%2Fb{query}", encoded=True)
    async with browser.get(url, headers=headers) as answer:
        assert answer.status == 200
        seen = await answer.json()
    assert seen["path"] in ("/a%2Fb?a=%2F&a=b",)
    assert token not in json.dumps(seen)
    assert running.key not in json.dumps(seen)
    assert seen["headers"]["x-forwarded-host"] == headers["Host"]


async def test_cookie_keeps_a_browser_signed_in(
    running: Running, sandbox: dict[str, Any], browser: aiohttp.ClientSession
) -> None:
    """A token in the query sets a cookie; with it the next request needs no token."""
    token = (await link(running, sandbox))["token"]
    headers = host_form(running, f"8765-{sandbox['id']}")
    async with browser.get(f"{running.base}/?DAYTONA_SANDBOX_AUTH_KEY={token}", headers=headers) as answer:
        cookies = answer.headers.getall("Set-Cookie")
    ours = next(cookie for cookie in cookies if cookie.startswith("daytona-sandbox-auth-"))
    assert "HttpOnly" in ours
    assert "own=1" in cookies
    pair = ours.partition(";")[0]
    async with browser.get(f"{running.base}/", headers={**headers, "Cookie": f"{pair}; mine=2"}) as answer:
        assert answer.status == 200
        assert (await answer.json())["headers"]["cookie"] == "mine=2"


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Daytona-Preview-Token": "wrong"}, {"Authorization": "Bearer wrong"}, {"Cookie": "a=b"}],
)
async def test_strangers_see_nothing(
    running: Running, sandbox: dict[str, Any], browser: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    """401 as JSON for programs and as a page for browsers."""
    wanted = {**host_form(running, f"8765-{sandbox['id']}"), **headers}
    async with browser.get(f"{running.base}/", headers=wanted) as answer:
        assert (answer.status, answer.content_type) == (401, "application/json")
    async with browser.get(f"{running.base}/", headers={**wanted, "Accept": "text/html"}) as answer:
        assert (answer.status, answer.content_type) == (401, "text/html")
        assert "token" in await answer.text()


async def test_public_sandbox_is_open_but_not_its_reserved_ports(
    running: Running, sandbox: dict[str, Any], browser: aiohttp.ClientSession
) -> None:
    """Public previews need nothing; terminal, toolbox and recordings always do."""
    await running.call("POST", f"/sandbox/{sandbox['id']}/public/true")
    try:
        async with browser.get(
            f"{running.base}/", headers=host_form(running, f"8765-{sandbox['id']}")
        ) as answer:
            assert answer.status == 200
        for port in (2280, 22222, 33333):
            async with browser.get(
                f"{running.base}/", headers=host_form(running, f"{port}-{sandbox['id']}")
            ) as answer:
                assert answer.status == 401, port
    finally:
        await running.call("POST", f"/sandbox/{sandbox['id']}/public/false")


async def test_signed_link_opens_its_port_until_it_expires(
    running: Running, sandbox: dict[str, Any], browser: aiohttp.ClientSession
) -> None:
    """The token in the host name works for one port only, and not after its time."""
    made = await signed(running, sandbox, 30)
    assert made["url"] == f"http://8765-{made['token']}.localhost:{running.server.state.port}"
    async with browser.get(
        f"{running.base}/x", headers=host_form(running, f"8765-{made['token']}")
    ) as answer:
        assert answer.status == 200
    async with browser.get(
        f"{running.base}/x", headers=host_form(running, f"8766-{made['token']}")
    ) as answer:
        assert answer.status == 404
    running.manager.clock.advance(31)
    async with browser.get(
        f"{running.base}/x", headers=host_form(running, f"8765-{made['token']}")
    ) as answer:
        assert answer.status == 404


async def test_signed_link_can_be_taken_back(
    running: Running, sandbox: dict[str, Any], browser: aiohttp.ClientSession
) -> None:
    """After expire the link is dead; expiring it again is 404."""
    made = await signed(running, sandbox)
    path = f"/sandbox/{sandbox['id']}/ports/8765/signed-preview-url/{made['token']}/expire"
    assert (await running.call("POST", path))[0] == 200
    async with browser.get(f"{running.base}/", headers=host_form(running, f"8765-{made['token']}")) as answer:
        assert answer.status == 404
    assert (await running.call("POST", path))[0] == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ports/0/preview-url", 400),
        ("/ports/65536/preview-url", 400),
        ("/ports/x/preview-url", 400),
        ("/ports/80/signed-preview-url?expiresInSeconds=0", 400),
        ("/ports/80/signed-preview-url?expiresInSeconds=86401", 400),
        ("/ports/80/signed-preview-url", 200),
    ],
)
async def test_link_parameters_are_checked(
    running: Running, sandbox: dict[str, Any], path: str, status: int
) -> None:
    """Ports are 1-65535, life times 1-86400 seconds, 60 if not given."""
    assert (await running.call("GET", f"/sandbox/{sandbox['id']}{path}"))[0] == status


async def test_websocket_and_streams_pass(
    running: Running, sandbox: dict[str, Any], browser: aiohttp.ClientSession
) -> None:
    """Both the host form and the path form carry WebSockets and chunked bodies."""
    token = (await link(running, sandbox))["token"]
    key = {"X-Daytona-Preview-Token": token}
    for base, headers in (
        (running.base, host_form(running, f"8765-{sandbox['id']}")),
        (f"{running.base}/preview/8765-{sandbox['id']}", {}),
    ):
        async with browser.ws_connect(f"{base}/ws", headers={**headers, **key}) as ws:
            await ws.send_str("hello")
            assert await ws.receive_str() == "echo hello"
        async with browser.get(f"{base}/stream", headers={**headers, **key}) as answer:
            assert await answer.text() == "0\n1\n2\n3\n4\n"


async def test_nothing_listens_is_a_bad_gateway(running: Running, sandbox: dict[str, Any]) -> None:
    """A port without a server is 502."""
    headers = host_form(running, f"8999-{sandbox['id']}")
    async with running.http.get(f"{running.base}/", headers=headers) as answer:
        assert answer.status == 502


async def test_stopped_sandbox_is_explained(running: Running) -> None:
    """The page says that the sandbox is stopped and what to do."""
    sandbox = await running.create()
    await running.call("POST", f"/sandbox/{sandbox['id']}/stop")
    headers = {**host_form(running, f"8765-{sandbox['id']}"), "Accept": "text/html"}
    async with running.http.get(f"{running.base}/", headers=headers) as answer:
        assert (answer.status, "stopped" in await answer.text()) == (502, True)
    await running.delete(sandbox)


async def test_other_origins_get_cors_headers(running: Running, sandbox: dict[str, Any]) -> None:
    """The origin is echoed with credentials, unless the header switches that off."""
    headers = {**host_form(running, f"8765-{sandbox['id']}"), "Origin": "http://app.example"}
    async with running.http.get(f"{running.base}/", headers=headers) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "http://app.example"
    headers["X-Daytona-Disable-CORS"] = "true"
    async with running.http.get(f"{running.base}/", headers=headers) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_warning_page_comes_first_for_browsers(tmp_path: Any, browser: aiohttp.ClientSession) -> None:
    """If switched on: browsers see it once, programs and WebSockets never; redirects stay on the host."""
    running = await open_server(tmp_path, preview_warning=True, pool_size=0)
    try:
        sandbox = await running.create()
        token = (await link(running, sandbox))["token"]
        headers = {
            **host_form(running, f"8765-{sandbox['id']}"),
            "User-Agent": "Mozilla/5.0",
            "X-Daytona-Preview-Token": token,
        }
        async with browser.get(f"{running.base}/page?x=1", headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
            assert "port 8765" in await answer.text()
        for extra in (
            {"X-Daytona-Skip-Preview-Warning": "true"},
            {"Cookie": "daytona-preview-page-accepted=true"},
        ):
            async with browser.get(f"{running.base}/page", headers={**headers, **extra}) as answer:
                assert answer.status == 502
        accept = f"{running.base}/accept-daytona-preview-warning"
        for redirect, wanted in (
            ("/page?x=1", "/page?x=1"),
            ("//evil.example", "/"),
            ("https://evil.example/", "/"),
        ):
            async with browser.post(
                accept, params={"redirect": redirect}, headers=headers, allow_redirects=False
            ) as answer:
                assert (answer.status, answer.headers["Location"]) == (302, wanted)
                assert "daytona-preview-page-accepted=true" in answer.headers["Set-Cookie"]
    finally:
        await close_server(running)


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("8000-abc", (8000, "abc")),
        ("1-a-b-c", (1, "a-b-c")),
        ("0-a", None),
        ("70000-a", None),
        ("x-a", None),
        ("80", None),
    ],
)
async def test_label_is_split_at_its_first_dash(label: str, found: tuple[int, str] | None) -> None:
    """Port and name; anything else is no preview."""
    target = parse_label(label)
    assert (None if target is None else (target.port, target.name)) == found


async def test_only_names_below_our_hosts_are_previews() -> None:
    """``localhost`` and the advertised host, with or without a port."""
    assert target_of_host("80-a.localhost:1234", "") is not None
    assert target_of_host("80-a.proxy.example", "proxy.example") is not None
    for host in ("80-a.evil.example", "localhost:80", "127.0.0.1", "80-a", "[::1]:80"):
        assert target_of_host(host, "proxy.example") is None
