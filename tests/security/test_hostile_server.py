"""A server that is not what it should be: it gets no key that was not meant for it, and fills nothing."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from daytona_kernel import controlplane, toolbox, transfer, usage, wire
from daytona_kernel.channel import open_channel
from daytona_kernel.config import DaytonaSettings
from daytona_kernel.controlplane import ControlPlane, ControlPlaneError, SandboxHandle
from daytona_kernel.errors import ConnectionFailed, DaytonaKernelError, SandboxProtocolError
from daytona_kernel.lookback import last_cell
from daytona_kernel.magics.host import CommandFailed
from daytona_kernel.magics.preview import checked_url
from daytona_kernel.remote import run_script
from daytona_kernel.sandbox import SandboxManager
from daytona_kernel.toolbox import Endpoint, Toolbox, ToolboxError
from daytona_kernel.transfer import Item

KEY = "dtn_" + "5ecret" * 8
HEADERS = {"Authorization": f"Bearer {KEY}"}
MIB = 2**20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[str]:
    """The address of a server that answers everything with this handler."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app, **{"scheme": "http", **options.pop("server", {})})
    await server.start_server(**options)
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


@asynccontextmanager
async def clients(base: str) -> AsyncIterator[tuple[ControlPlane, Toolbox]]:
    """The two that carry the key."""
    plane, box = ControlPlane(f"{base}/api", KEY), Toolbox(Endpoint(f"{base}/toolbox/x", HEADERS))
    try:
        yield plane, box
    finally:
        await plane.close()
        await box.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirection_takes_the_key_or_the_cells_elsewhere(status: int) -> None:
    """Neither of calls, which some libraries follow with all headers, nor of the socket that cells go by."""
    stolen = []

    async def thief(request: web.Request) -> web.Response:
        stolen.append(request.path)
        return web.json_response({"id": "x", "state": "started"})

    async with serving(thief) as elsewhere:

        async def redirect(request: web.Request) -> web.Response:
            base = elsewhere.replace("http:", "ws:") if "Upgrade" in request.headers else elsewhere
            return web.Response(status=status, headers={"Location": f"{base}{request.path}"})

        async with serving(redirect) as base, clients(base) as (plane, box):
            with pytest.raises(ControlPlaneError, match="redirected"):
                await plane.get("x")
            with pytest.raises(ToolboxError):
                await box.create_context()
            with pytest.raises(ToolboxError):
                await box.download("/x")
            with pytest.raises(ConnectionFailed, match=str(status)):
                await open_channel(box.endpoint)
    assert stolen == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that nobody has signed, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("not installed: openssl")
    folder = tmp_path_factory.mktemp("certificate")
    key, own = folder / "key.pem", folder / "own.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(own)]
    subprocess.run(["openssl", *words.split(), *names], check=True, capture_output=True, timeout=60)
    return own, key


async def test_a_certificate_that_nobody_signed_gets_no_request(certificate: tuple[Path, Path]) -> None:
    asked = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(dict(request.headers))
        return web.json_response({"id": "x", "state": "started"})

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with (
        serving(handler, server={"scheme": "https"}, ssl=context) as base,
        clients(base) as (plane, box),
    ):
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            await plane.get("x")
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            await box.contexts()
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            await open_channel(box.endpoint)
    assert asked == []


def test_a_key_that_goes_by_https_is_not_sent_without_it() -> None:
    manager = SandboxManager(DaytonaSettings(api_key=KEY))
    plane = ControlPlane("https://app.example/api", KEY)
    manager.sandbox = SandboxHandle(plane, "x", toolbox_proxy_url="http://proxy.example/toolbox")
    with pytest.raises(SandboxProtocolError, match="not https"):
        manager.endpoint()
    manager.sandbox.toolbox_proxy_url = "https://proxy.example/toolbox"
    assert manager.endpoint().base_url == "https://proxy.example/toolbox/x"


async def test_a_file_beside_the_notebook_does_not_say_where_the_key_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository with a notebook may bring an .env along: a key in it is its own, an address is ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("DAYTONA_API_URL", "DAYTONA_SERVER_URL", "DAYTONA_API_KEY", "DAYTONA_JWT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    words = "DAYTONA_API_URL=https://evil.example/api\nDAYTONA_SERVER_URL=https://evil.example/api\n"
    for name in (".env", ".env.local"):
        (tmp_path / name).write_text(words)
    for settings in (DaytonaSettings(api_key=KEY), DaytonaSettings(backend="daytona", api_key=KEY)):
        service = await SandboxManager(settings)._find_service()
        assert service.api_url == ""
        assert ControlPlane(service.api_url, KEY).api_url == controlplane.DEFAULT_API_URL


# -- answers -------------------------------------------------------------------------------------------

STRANGE = {
    "a web page": web.Response(text="<html>", content_type="text/html"),
    "nothing": web.Response(),
    "a number": web.json_response(7),
    "a list": web.json_response([1, [2]]),
    "depth": web.Response(body=b"[" * 200_000, content_type="application/json"),
    "no text": web.Response(body=b"\xff\xfe{", content_type="application/json"),
    "wrong types": web.json_response({"id": 7, "contexts": {"a": 1}, "exitCode": "x", "items": 3, "url": []}),
    "an error that is a list": web.json_response(["x"], status=500),
    "an error with depth": web.Response(body=b"[" * 200_000, status=400),
    "a compressed lie": web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("strange", STRANGE)
async def test_any_answer_is_a_value_or_an_error_of_ours(strange: str) -> None:
    one = STRANGE[strange]

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=one.status, body=one.body, headers=one.headers)

    async with serving(handler) as base, clients(base) as (plane, box):
        for call in (
            lambda: plane.get("x"),
            lambda: plane.find({}),
            lambda: plane.create({}, 5),
            box.create_context,
            box.contexts,
            lambda: box.execute("true"),
            lambda: box.list_files("/"),
            lambda: box.download("/x"),
            box.version,
        ):
            try:
                await asyncio.wait_for(call(), 20)  # type: ignore[no-untyped-call]
            except (DaytonaKernelError, ControlPlaneError):
                pass


@pytest.mark.parametrize("number", [-5, 10**400, True, 1.5])
def test_numbers_of_the_service_can_be_reckoned_with(number: Any) -> None:
    handle = SandboxHandle(ControlPlane("http://127.0.0.1:1/api", KEY), "id")
    handle.take({"autoStopInterval": number})
    assert handle.auto_stop_minutes is None
    assert controlplane.retry_after({"Retry-After": "9" * 400}) == controlplane.MOST_RETRY_AFTER_S


ADDRESSES = [
    "javascript:alert(1)//http://x",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "file:///etc/passwd",
    "//x/y",
    "/files/x.html",
    "http:",
    "http:///x",
    "-http://x",
    "http://x/ --option",
    "http://x/\nHost: y",
    "http://[x",
    "",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_preview_is_a_web_page_s_address(address: str) -> None:
    """It becomes a frame in Jupyter's page, and with --open a word of a browser's command line."""
    with pytest.raises(CommandFailed):
        checked_url(address)
    assert (
        checked_url("https://8000-abc.proxy.daytona.work/?a=b") == "https://8000-abc.proxy.daytona.work/?a=b"
    )


async def endless(request: web.Request) -> web.StreamResponse:
    """An answer without end."""
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
    await response.prepare(request)
    try:
        while True:
            await response.write(b"x" * 65536)
    except ConnectionError:
        return response


async def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlplane, "MAX_ANSWER_BYTES", 4 * MIB)
    monkeypatch.setattr(toolbox, "MAX_ANSWER_BYTES", 4 * MIB)
    async with serving(endless) as base, clients(base) as (plane, box):
        tracemalloc.start()
        try:
            for call in (plane.get("x"), box.contexts(), box.download("/x"), box.download("/x", 5, 1000)):
                with pytest.raises(SandboxProtocolError, match="more than"):
                    await call
            assert tracemalloc.get_traced_memory()[1] < 40 * MIB
        finally:
            tracemalloc.stop()


async def test_a_compressed_bomb_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlplane, "MAX_ANSWER_BYTES", 4 * MIB)
    monkeypatch.setattr(toolbox, "MAX_ANSWER_BYTES", 4 * MIB)
    bomb = gzip.compress(b"[" + b" " * (64 * MIB) + b"]")

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as base, clients(base) as (plane, box):
        tracemalloc.start()
        try:
            for call in (plane.get("x"), box.contexts()):
                with pytest.raises(DaytonaKernelError):
                    await call
            assert tracemalloc.get_traced_memory()[1] < 40 * MIB
        finally:
            tracemalloc.stop()


async def test_a_bomb_of_empty_lists_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is the sandbox's, and so is what helper scripts say in there."""
    monkeypatch.setattr(wire, "MAX_VALUES", 200_000)
    monkeypatch.setattr(wire, "COUNTED_OVER_BYTES", 100_000)
    bomb = b"[" + b"[]," * (wire.MAX_VALUES // 2 + 1) + b"[]]"

    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("/process/execute"):
            body = b'{"exitCode": 0, "result": "\\u001e' + bomb + b'"}'
            return web.Response(body=body, content_type="application/json")
        return web.Response(body=bomb, content_type="application/octet-stream")

    async with serving(handler) as base, clients(base) as (plane, box):
        tracemalloc.start()
        try:
            assert await box.contexts() == []
            assert await last_cell(box, "/spool") == {}
            assert await usage.ask(box, "python", 5) == {}
            with pytest.raises(SandboxProtocolError):
                await run_script(box, "say(1)")
            with pytest.raises(SandboxProtocolError):
                await plane.get("x")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 12 * len(bomb)


# -- files ---------------------------------------------------------------------------------------------


async def test_a_file_that_does_not_end_does_not_fill_the_disk(tmp_path: Path) -> None:
    item = Item(tmp_path / "big", "/sandbox/big", 2 * MIB, 0o644, 0.0)
    async with serving(endless) as base, clients(base) as (_, box):
        outcome = await transfer.download(box, [item], force=False, count=lambda size: None)
    assert outcome.moved == []
    assert "more" in outcome.errors[0][1]
    assert list(tmp_path.iterdir()) == []


NAMES = [
    "a" * 300,
    "b/" * 3000 + "c",
    "CON",
    "-rf",
    "~",
    "$(id)",
    "a\nb",
    "\x1b]0;x\x07",
    ".ssh",
    "\u202egnp.exe",
]


@pytest.mark.parametrize("name", NAMES)
async def test_odd_names_stay_in_the_target_folder(tmp_path: Path, name: str) -> None:
    """Or are errors: too long for this file system, for one."""
    folder = tmp_path / "in"
    folder.mkdir()
    target = transfer.safe_target(folder, name)
    assert target.is_relative_to(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"")
    except OSError:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("where", ["linked/x", "linked/deeper/x", "deep/linked/x"])
def test_a_link_on_the_way_is_not_written_through(tmp_path: Path, where: str) -> None:
    """Links of the sandbox are never made here; one that was there before leads nowhere either."""
    folder, outside = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (outside / "deeper").mkdir(parents=True)
    (folder / "linked").symlink_to(outside)
    (folder / "deep" / "linked").symlink_to(outside)
    with pytest.raises(transfer.UnsafeName):
        transfer.safe_target(folder, where)
