"""A web page of somebody else's, in a real browser, tries to use the local sandbox server of this machine."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from daytona_kernel.local.launcher import LocalServer, ensure_running, stop
from daytona_kernel.local.paths import local_paths

if TYPE_CHECKING:
    from .lab import LabPage

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

REBOUND = "rebound.example"
"""A name that the tests' browser resolves to 127.0.0.1, as an attacker's name server would."""

# What a page can do without a key: whatever it learns or brings about is in the answer.
ATTACK = """
const done = arguments[arguments.length - 1], [base, id] = arguments, found = {};
const socket = path => new Promise(end => {
    const one = new WebSocket(base.replace('http', 'ws') + path);
    one.onopen = () => end('open'); one.onerror = () => end('refused');
});
const read = async (path, options) => {
    try {
        const answer = await fetch(base + path, options);
        return answer.type + ' ' + answer.status + ' ' + (await answer.text()).slice(0, 40);
    } catch (error) { return 'refused'; }
};
(async () => {
    found.list = await read('/api/sandbox');
    found.cookies = await read('/api/sandbox', {credentials: 'include'});
    found.health = await read('/health');
    found.key = await read('/api/sandbox', {headers: {Authorization: 'Bearer guess'}});
    found.create = await read('/api/sandbox', {method: 'POST', mode: 'no-cors', body: '{}'});
    found.stop = await read('/api/local/stop', {method: 'POST', mode: 'no-cors'});
    found.run = await read('/toolbox/' + id + '/process/execute', {method: 'POST', mode: 'no-cors',
        body: JSON.stringify({command: 'touch /tmp/owned'})});
    found.interpreter = await socket('/toolbox/' + id + '/process/interpreter/execute');
    found.terminal = await socket('/toolbox/' + id + '/process/pty/x/connect');
    found.preview = await socket('/preview/22222-' + id + '/');
    found.events = await socket('/api/socket.io/?EIO=4&transport=websocket');
    done(found);
})();
"""


class Page(http.server.BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>foreign</title>")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def foreign() -> Iterator[int]:
    """The port of another web server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A local sandbox server of these tests."""
    folder = tmp_path_factory.mktemp("s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAYTONA_LOCAL_DIR", str(folder))
        paths = local_paths()
        yield ensure_running(paths)
        stop(paths)


async def call(server: LocalServer, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    base = server.api_url.removesuffix("/api")
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.request(method, base + path, json=body) as answer,
    ):
        return json.loads(await answer.text() or "null")


@pytest.mark.parametrize("name", ["127.0.0.1", REBOUND])
async def test_a_foreign_page_gets_nothing(
    page: LabPage, server: LocalServer, foreign: int, name: str
) -> None:
    """From another port of this machine, and from a name that was led here after the page had come."""
    sandbox = await call(server, "POST", "/api/sandbox", {})
    base = server.api_url.removesuffix("/api")
    port = base.rpartition(":")[2]
    page.driver.get(f"http://{name}:{foreign}/")
    # Once rebound, the page's own name leads to the server: same origin, so no browser rule stands between.
    target = base if name == "127.0.0.1" else f"http://{name}:{port}"
    if name == REBOUND:
        page.driver.get(f"{target}/health")
        assert "is not rebound.example" in page.text()
    found = page.driver.execute_async_script(ATTACK, target, sandbox["id"])
    for attempt, result in found.items():
        if name == REBOUND and result.startswith("basic"):
            assert result.startswith("basic 403"), attempt
        else:
            assert result in ("refused", "opaque 0 "), attempt
    assert found["events"] == found["interpreter"] == found["terminal"] == found["preview"] == "refused"
    run = await call(
        server, "POST", f"/toolbox/{sandbox['id']}/process/execute", {"command": "ls /tmp/owned"}
    )
    assert run["exitCode"] != 0
    assert [one["id"] for one in (await call(server, "GET", "/api/sandbox"))["items"]] == [sandbox["id"]]
    await call(server, "DELETE", f"/api/sandbox/{sandbox['id']}")
    page.driver.get("about:blank")
