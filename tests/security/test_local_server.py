"""Those who have no key: other programs of the machine, web pages, and sandboxes. They get nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
import pytest_asyncio

from daytona_kernel.local import server as server_module
from daytona_kernel.local.events import MAX_STRANGERS
from daytona_kernel.local.rates import CREATE, FAILED_AUTH, PER_MINUTE
from daytona_kernel.local.server import LocalServer
from tests.local.server.conftest import Running, close_server, open_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = {"/health"}
"""What answers anybody: that there is a server, and its version."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    # So many tries as below would be answered with 429 soon; the limit has a test of its own.
    rates = {**PER_MINUTE, FAILED_AUTH: 0}
    running = await open_server(tmp_path_factory.mktemp("local"), pool_size=0, rates=rates)
    yield running
    await close_server(running)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(running: Running) -> dict[str, Any]:
    """A started sandbox with a web server on port 8000 that says what it was asked for."""
    sandbox = await running.create()
    code = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    seen = []\n"
        "    def do_GET(self):\n"
        "        self.seen.append(self.path)\n"
        "        n = int(self.headers.get('Content-Length') or 0); b = self.rfile.read(n)\n"
        "        t = repr((self.command, self.path, dict(self.headers), b)).encode()\n"
        "        t = repr(self.seen).encode() if self.path == '/seen' else t\n"
        "        self.send_response(200); self.send_header('Content-Length', str(len(t)))\n"
        "        self.end_headers()\n"
        "        self.wfile.write(t)\n"
        "    do_POST = do_GET\n"
        "h.ThreadingHTTPServer(('127.0.0.1', 8000), H).serve_forever()\n"
    )
    url = f"{running.base}/toolbox/{sandbox['id']}/files/upload?path=/tmp/web.py"
    async with running.http.post(url, data={"file": io.BytesIO(code.encode())}) as answer:
        assert answer.status == 200
    await running.run(sandbox, "nohup python3 /tmp/web.py >/dev/null 2>&1 &")
    echo = f"{running.base}/preview/8000-{sandbox['id']}/up"
    while True:
        async with running.http.get(echo) as answer:
            if answer.status == 200:
                return sandbox
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="module")
async def stranger() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a key."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield http


def routes(server: LocalServer, sandbox_id: str) -> list[tuple[str, str]]:
    """Every route, with real names where it has placeholders."""
    assert server._runner is not None
    app = server._runner.app
    found = []
    for route in app.router.routes():
        assert route.resource is not None
        path = str(route.resource.get_info().get("formatter") or route.resource.get_info().get("path"))
        path = path.replace("{sandbox}", sandbox_id).replace("{label}", f"8000-{sandbox_id}")
        path = path.replace("{port}", "8000").replace("{tail}", "process/execute")
        methods = ("GET", "POST", "PUT", "DELETE", "PATCH") if route.method == "*" else (route.method,)
        found += [(method, "".join("x" if c in "{}" else c for c in path)) for method in methods]
    return found


KEYS = {
    "none": {},
    "wrong": {"Authorization": "Bearer dtn_local_" + "0" * 48},
    "empty": {"Authorization": "Bearer "},
    "not text": {"Authorization": "Bearer \u00e9"},
    "another scheme": {"Authorization": "Basic KEY"},
    "lower case": {"Authorization": "bearer KEY"},
    "in another header": {
        "X-API-Key": "KEY",
        "X-Daytona-Preview-Token": "KEY",
        "Proxy-Authorization": "Bearer KEY",
    },
    "in a cookie": {"Cookie": "Authorization=KEY; token=KEY"},
}


@pytest.mark.parametrize("key", KEYS)
async def test_every_route_needs_the_key(
    running: Running, sandbox: dict[str, Any], stranger: aiohttp.ClientSession, key: str
) -> None:
    headers = {name: value.replace("KEY", running.key) for name, value in KEYS[key].items()}
    before = {item["id"] for item in (await running.call("GET", "/sandbox"))[1]["items"]}
    answered = []
    for method, path in routes(running.server, sandbox["id"]):
        url = f"{running.base}{path}?token={running.key}&api_key={running.key}"
        async with stranger.request(method, url, headers=headers, json={}, allow_redirects=False) as answer:
            if answer.status not in (400, 401) or (answer.status == 400 and "socket.io" not in path):
                answered.append((method, path, answer.status))
            text = await answer.text()
        assert running.key not in text
    assert {path for _, path, _ in answered} == OPEN
    assert {item["id"] for item in (await running.call("GET", "/sandbox"))[1]["items"]} == before
    assert len(routes(running.server, "x")) > 60


async def test_keys_are_compared_in_constant_time() -> None:
    """By what compares them, since a clock would tell nothing reliable."""
    folder = Path(server_module.__file__).parent
    for name in ("state.py", "events.py", "preview.py", "toolbox_proxy.py"):
        text = (folder / name).read_text()
        assert "hmac.compare_digest" in text
        for line in text.splitlines():
            if "api_key" in line or "auth_token" in line or "signature" in line.lower():
                assert " == " not in line, f"{name}: {line}"


async def test_it_listens_on_loopback_only_and_can_not_be_told_otherwise(running: Running) -> None:
    listening = [
        one.laddr for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN
    ]
    (own,) = [address for address in listening if address.port == running.server.state.port]
    assert own.ip == "127.0.0.1"
    fields = set(vars(running.server.options))
    assert not fields & {"host", "bind", "address", "interface", "listen"}


HOSTS = [
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "x.localhost",
    "",
]


@pytest.mark.parametrize("host", HOSTS)
async def test_a_name_of_somebody_else_s_is_refused_even_with_the_key(running: Running, host: str) -> None:
    """DNS rebinding: a page of evil.example whose name now leads here. Its Host header gives it away."""
    for path in ("/health", "/api/sandbox", "/toolbox/x/version", "/preview/1-x/"):
        answer = await raw(
            running,
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            f"Authorization: Bearer {running.key}\r\n\r\n",
        )
        assert answer.split(b" ")[1] in (b"400", b"403")


async def test_web_pages_can_not_use_it(
    running: Running, sandbox: dict[str, Any], stranger: aiohttp.ClientSession
) -> None:
    """No preflight is answered, so a page can not send a key; no answer is readable by a page."""
    for path in ("/api/sandbox", f"/toolbox/{sandbox['id']}/version", "/health"):
        page = {"Origin": "https://evil.example"}
        asking = {
            **page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        async with stranger.options(running.base + path, headers=asking) as answer:
            assert answer.status in (401, 403, 405)
            assert "Access-Control-Allow-Origin" not in answer.headers
        async with stranger.get(running.base + path, headers=page) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_web_pages_can_not_open_websockets(
    running: Running, sandbox: dict[str, Any], stranger: aiohttp.ClientSession
) -> None:
    for path in (
        f"/toolbox/{sandbox['id']}/process/interpreter/execute",
        f"/toolbox/{sandbox['id']}/process/pty/x/connect",
        f"/preview/22222-{sandbox['id']}/",
        "/api/socket.io/?EIO=4&transport=websocket",
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stranger.ws_connect(running.base + path, origin="https://evil.example")
        assert refused.value.status in (401, 403)


# -- previews ------------------------------------------------------------------------------------------


async def raw(running: Running, request: str) -> bytes:
    """The answers to bytes as they stand, until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.server.state.port)
    writer.write(request.encode("latin-1"))
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


TRICKS = [
    "/../../process/execute",
    "/../process/execute",
    "/%2e%2e/%2e%2e/files?path=/",
    "/..%2f..%2fprocess/execute",
    "//127.0.0.1:22/",
    "/http://127.0.0.1:22/",
    "/@127.0.0.1:22/",
    "/\\..\\..\\version",
    "/../../version",
    "/%2e%2e/%2e%2e/version",
]


@pytest.mark.parametrize("trick", TRICKS)
async def test_a_preview_leads_to_its_port_and_nowhere_else(
    running: Running, sandbox: dict[str, Any], trick: str
) -> None:
    """Not to the toolbox beside it, whose `process/execute` a visitor of a public preview must not have."""
    for method in ("GET", "POST"):
        answer = await raw(
            running,
            f"{method} /preview/8000-{sandbox['id']}{trick} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Connection: close\r\nX-Daytona-Preview-Token: {await token_of(running, sandbox)}\r\n"
            "Content-Length: 2\r\n\r\n{}",
        )
        status = int(answer.split(b" ", 2)[1])
        assert status in (200, 400, 404)
        if status == 200:
            assert f"'{method}', '".encode() in answer  # the program on the port saw it


async def token_of(running: Running, sandbox: dict[str, Any]) -> str:
    return str((await running.call("GET", f"/sandbox/{sandbox['id']}/ports/8000/preview-url"))[1]["token"])


async def test_the_server_itself_is_no_port_of_a_sandbox(running: Running, sandbox: dict[str, Any]) -> None:
    """A preview of the server's own port shows the sandbox's port, on which nothing listens."""
    if running.manager.isolation.name != "bubblewrap":
        pytest.skip("without isolation a sandbox shares the machine's ports")
    async with running.http.get(
        f"{running.base}/preview/{running.server.state.port}-{sandbox['id']}/health"
    ) as answer:
        assert answer.status == 502


async def test_a_previewed_program_never_sees_the_key_or_a_token(
    running: Running, sandbox: dict[str, Any]
) -> None:
    token = await token_of(running, sandbox)
    headers = {"X-Daytona-Preview-Token": token, "Cookie": f"daytona-sandbox-auth-x={token}; own=1"}
    url = f"{running.base}/preview/8000-{sandbox['id']}/a?DAYTONA_SANDBOX_AUTH_KEY={token}&b=1"
    async with running.http.get(url, headers=headers) as answer:
        seen = await answer.text()
    assert "own=1" in seen
    assert "b=1" in seen
    for secret in (running.key, token):
        assert secret not in seen


async def test_jupyter_s_cookies_stay_with_jupyter(running: Running, sandbox: dict[str, Any]) -> None:
    """A browser sends the cookies of 127.0.0.1 to all of its ports; a host of its own has its own ones."""
    cookies = "username-127-0-0-1-8888=theirs; _xsrf=theirs;Jupyterhub-session-id=theirs;  own=1; ;a=b"
    for host, path in (
        ("127.0.0.1", f"/preview/8000-{sandbox['id']}/"),
        (f"8000-{sandbox['id']}.localhost", "/"),
    ):
        headers = {"Cookie": cookies, "Host": host}
        async with running.http.get(f"{running.base}{path}", headers=headers) as answer:
            seen = await answer.text()
        assert "own=1; a=b" in seen
        assert ("theirs" in seen) is host.endswith("localhost")


# -- malformed and slow requests -----------------------------------------------------------------------


async def smuggled(running: Running, sandbox: dict[str, Any], head: str, body: str) -> bytes:
    return await raw(
        running,
        f"POST /preview/8000-{sandbox['id']}/first HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {running.key}\r\n{head}\r\n\r\n{body}",
    )


SMUGGLED = {
    "two lengths": "Content-Length: 5\r\nContent-Length: 0",
    "length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "chunks of another kind": "Transfer-Encoding: chunked, identity",
    "a space before the colon": "Transfer-Encoding : chunked",
    "a folded line": "X-A: b\r\n Transfer-Encoding: chunked",
    "a negative length": "Content-Length: -1",
    "a length with a sign": "Content-Length: +5",
    "a bare line feed": "X-A: b\nTransfer-Encoding: chunked\r\nContent-Length: 5",
    "a NUL": "X-A: b\x00c\r\nContent-Length: 0",
    "chunks": "Transfer-Encoding: chunked",
}


@pytest.mark.parametrize("trick", SMUGGLED)
async def test_a_second_request_can_not_be_smuggled_in(
    running: Running, sandbox: dict[str, Any], trick: str
) -> None:
    """Server and daemon agree on where a request ends, or the request is refused."""
    inner = "GET /proxy/8000/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
    hidden = (
        f"{len(inner):x}\r\n{inner}\r\n"
        "0\r\n\r\nGET /process/execute HTTP/1.1\r\nHost: localhost\r\nX-Smuggled: 1\r\n\r\n"
        "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    answer = await smuggled(running, sandbox, SMUGGLED[trick], hidden)
    first, *rest = re.split(rb"HTTP/1\.[01] ", answer)[1:]
    if int(first.split(b" ")[0]) == 200:
        assert b"X-Smuggled" not in first.split(b"\r\n\r\n", 1)[0]
    for other in rest:  # the bytes behind the end are a request of their own, to this server, without a key
        assert int(other.split(b" ")[0]) in (400, 401, 404) or b'{"status": "ok"' in other  # of /health
    async with running.http.get(f"{running.base}/preview/8000-{sandbox['id']}/seen") as seen:
        assert "'/hidden'" not in await seen.text()


PATHS = ["..", "../x", "%2e%2e", "a%00b", "a" * 5000, "%ff%fe", "a/../../b", "\x7f", "x y", "'\";--"]


def listed(root: Path) -> list[Path]:
    """All files but those of the sandboxes, which run meanwhile."""
    return sorted(path for path in root.rglob("*") if "sandboxes" not in path.relative_to(root).parts)


@pytest.mark.parametrize("name", PATHS)
async def test_a_name_is_never_a_path(running: Running, name: str) -> None:
    """Of sandboxes, snapshots and volumes: nothing of the disk is read, made or removed by such a name."""
    root = running.server.options.paths.state_dir.parent
    beside = sorted(root.parent.iterdir())
    before = listed(root)
    for kind in ("sandbox", "snapshots", "volumes"):
        for method in ("GET", "DELETE"):
            answer = await raw(
                running,
                f"{method} /api/{kind}/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                f"Authorization: Bearer {running.key}\r\n\r\n",
            )
            assert int(answer.split(b" ")[1]) in (200, 400, 403, 404, 405)
            assert b"root:" not in answer
    status, _ = await running.call("POST", "/sandbox", {"name": "../x", "snapshot": name})
    assert status in (400, 404)
    status, volume = await running.call("POST", "/volumes", {"name": name})
    if status == 200:  # a name is only a name: the directory is called by the id
        made = sorted(set(listed(root)) - set(before))
        assert all(volume["id"] in str(path) for path in made), made
        assert (await running.call("DELETE", f"/volumes/{volume['id']}"))[0] == 200
    assert listed(root) == before
    assert sorted(root.parent.iterdir()) == beside


async def test_a_body_has_a_limit(running: Running) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(server_module.MAX_BODY // 2**20 + 8):
            yield b" " * 2**20

    async with running.http.post(f"{running.base}/api/sandbox", data=endless()) as answer:
        assert answer.status in (400, 413)


async def test_connections_that_say_nothing_are_closed_and_hold_up_nobody(tmp_path: Path) -> None:
    """Slowloris: half a request each, for ever."""
    running = await open_server(tmp_path, pool_size=0)
    server, slow = running.server, []
    try:
        assert (await running.call("GET", "/sandbox"))[0] == 200
        for _ in range(100):
            one = socket.create_connection(("127.0.0.1", server.state.port))
            one.sendall(b"GET /api/sandbox HTTP/1.1\r\nHost: 127.0.0.1\r\nX-")
            one.setblocking(False)
            slow.append(one)
        while len(known := server.close_silent(set())) < 100:
            await asyncio.sleep(0.01)
        assert (await running.call("GET", "/sandbox"))[0] == 200
        assert server.close_silent(known) == set()
        loop = asyncio.get_running_loop()
        for one in slow:
            assert b"200" not in await asyncio.wait_for(loop.sock_recv(one, 4096), 30)
        assert (await running.call("GET", "/sandbox"))[0] == 200
        assert server._patience is not None
        assert not server._patience.done()
    finally:
        for one in slow:
            one.close()
        await close_server(running)


# -- rates ---------------------------------------------------------------------------------------------


GUESSES = ("/api/sandbox", "/api/no/such/route", "/toolbox/SANDBOX/version", "/preview/8000-SANDBOX/")


async def test_guesses_are_limited_and_lock_nobody_out(
    tmp_path: Path, stranger: aiohttp.ClientSession
) -> None:
    running = await open_server(tmp_path, pool_size=0, rates={**PER_MINUTE, FAILED_AUTH: 8})
    try:
        sandbox = await running.create()
        statuses: list[int] = []
        for _ in range(3):
            for path in GUESSES:
                url = running.base + path.replace("SANDBOX", sandbox["id"])
                async with stranger.get(url, headers={"Authorization": "Bearer guess"}) as answer:
                    statuses.append(answer.status)
                    assert running.key not in await answer.text()
                    if answer.status == 429:
                        assert 0 < int(answer.headers["Retry-After"]) <= 60
                        assert answer.headers["Connection"] == "close"
                        assert answer.headers["X-RateLimit-Remaining-failed-auth"] == "0"
        assert statuses == [401] * 8 + [429] * 4
        # Who has the key, or a sandbox's token, does not notice.
        assert (await running.call("GET", f"/sandbox/{sandbox['id']}"))[0] == 200
        assert await running.run(sandbox, "echo still here") == (0, "still here\n")
    finally:
        await close_server(running)


async def test_what_a_previewed_program_refuses_is_no_guess(tmp_path: Path) -> None:
    running = await open_server(tmp_path, pool_size=0, rates={**PER_MINUTE, FAILED_AUTH: 1})
    try:
        sandbox = await running.create()
        url = f"{running.base}/toolbox/{sandbox['id']}/files/upload?path=/tmp/no.py"
        code = (
            "import http.server as h\n"
            "class H(h.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_response(401); self.send_header('Content-Length', '0'); self.end_headers()\n"
            "s = h.ThreadingHTTPServer(('127.0.0.1', 8000), H); print('up', flush=True); s.serve_forever()\n"
        )
        async with running.http.post(url, data={"file": io.BytesIO(code.encode())}) as answer:
            assert answer.status == 200
        await running.run(
            sandbox, "mkfifo /tmp/up; nohup python3 -u /tmp/no.py >/tmp/up 2>/dev/null & head -1 /tmp/up"
        )
        page = f"{running.base}/preview/8000-{sandbox['id']}/"
        for _ in range(3):
            async with running.http.get(page) as answer:
                assert answer.status == 401
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await running.http.ws_connect(page)
            assert refused.value.status == 401
    finally:
        await close_server(running)


async def test_a_loop_of_creations_is_told_when_to_go_on(tmp_path: Path) -> None:
    """In the service's words, so that the SDK raises its own error for it."""
    running = await open_server(tmp_path, pool_size=0, rates={**PER_MINUTE, CREATE: 2})
    try:
        for _ in range(2):  # a refused one counts as well
            assert (await running.call("POST", "/sandbox", {"snapshot": "none such"}))[0] == 400
        async with running.http.post(f"{running.base}/api/sandbox", json={}) as answer:
            assert answer.status == 429
            assert 0 < int(answer.headers["Retry-After"]) <= 60
            assert answer.headers["X-RateLimit-Limit-sandbox-create"] == "2"
            assert (await answer.json())["statusCode"] == 429
        assert (await running.call("GET", "/sandbox"))[1]["items"] == []
        assert (await running.call("GET", "/config"))[1]["rateLimit"]["sandboxCreate"] == {
            "ttl": 60,
            "limit": 2,
        }
    finally:
        await close_server(running)


async def test_listeners_who_do_not_say_who_they_are_are_few(running: Running) -> None:
    url = f"{running.base}/api/socket.io/?EIO=4&transport=websocket"
    stranger, waiting = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)), []
    try:
        for _ in range(MAX_STRANGERS):
            waiting.append(await stranger.ws_connect(url))
            assert (await waiting[-1].receive()).data.startswith("0")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stranger.ws_connect(url)
        assert refused.value.status == 503
    finally:
        for one in waiting:
            await one.close()
    async with stranger, stranger.ws_connect(url) as again:
        assert (await again.receive()).data.startswith("0")


# -- files and processes -------------------------------------------------------------------------------


async def test_files_are_their_owner_s_alone(running: Running, sandbox: dict[str, Any]) -> None:
    paths = running.server.options.paths
    for directory in (paths.runtime_dir, paths.state_dir, paths.socket_dir):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert paths.server_file.stat().st_mode & 0o777 == 0o600
    holding = [
        path
        for top in (paths.runtime_dir, paths.state_dir)
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink() and running.key.encode() in path.read_bytes()
    ]
    assert holding == [paths.server_file]


async def test_no_process_has_the_key_in_its_words_or_environment(
    running: Running, sandbox: dict[str, Any]
) -> None:
    told = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended, or is somebody else's by now
            told.append(json.dumps([process.cmdline(), process.environ()]))
    assert told
    assert running.key not in "".join(told)


async def test_a_sandbox_can_not_use_the_server(running: Running, sandbox: dict[str, Any]) -> None:
    """Neither its files, nor its network, nor its environment have the key or a way to the server."""
    if running.manager.isolation.name != "bubblewrap":
        pytest.skip("promised with isolation only")
    port, paths = running.server.state.port, running.server.options.paths
    script = (
        f"cat {paths.server_file} {paths.runtime_dir}/* 2>&1; env; "
        "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; "
        f"python3 -c \"import socket; socket.create_connection(('127.0.0.1', {port}), 2)\" 2>&1 | tail -1; "
        f"ls /proc/{os.getpid()} 2>&1"
    )
    _, said = await running.run(sandbox, f"sh -c {json.dumps(script)}")
    assert running.key not in said
    assert "dtn_local_" not in said
    assert "Refused" in said or "refused" in said or "unreachable" in said
