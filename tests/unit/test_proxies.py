"""The way out of this machine: proxies by the environment, and nothing else from it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from daytona.common.errors import DaytonaError

from daytona_kernel import doctor
from daytona_kernel.controlplane import ControlPlane
from daytona_kernel.errors import ConfigurationError
from daytona_kernel.proxies import proxy_for
from daytona_kernel.toolbox import Endpoint, Toolbox
from daytona_kernel.translation import translate

BOX = {"id": "s1", "name": "box", "state": "started", "toolboxProxyUrl": "http://proxy.invalid/toolbox"}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in [name for name in os.environ if name.startswith("DAYTONA_")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[list[web.Request]]:
    """What a proxy with a password is asked for, on a machine with a ``default`` entry in ``.netrc``."""
    requests: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request)
        return web.json_response(BOX | {"version": "0.190.0"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with TestServer(app) as server:
        monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{server.port}")
        yield requests


async def test_calls_go_through_the_proxy_with_our_key_and_nobody_elses(seen: list[web.Request]) -> None:
    """aiohttp, left to itself, refuses to send a key of our own where ``.netrc`` has one."""
    plane = ControlPlane("http://daytona.invalid/api", "secret-key")
    toolbox = Toolbox(Endpoint("http://proxy.invalid/toolbox/s1", plane.headers))
    try:
        assert (await plane.get("s1")).name == "box"
        assert await toolbox.version() == "0.190.0"
    finally:
        await toolbox.close()
        await plane.close()
    assert [request.host for request in seen] == ["daytona.invalid", "proxy.invalid"]
    for request in seen:
        assert request.headers["Authorization"] == "Bearer secret-key"
        assert request.headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"


def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> list[doctor.Finding]:
    path = tmp_path / "netrc"
    path.write_text(text)
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    monkeypatch.setenv("DAYTONA_API_KEY", "k")
    return list(doctor.check_netrc())


def test_the_doctor_finds_the_entry_that_stops_the_sdk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert entry(tmp_path, monkeypatch, "machine other.example login a password b\n") == []
    (found,) = entry(tmp_path, monkeypatch, "default login a password hunter2\n")
    assert (found.level, "hunter2" in found.text) == (doctor.BAD, False)
    (found,) = entry(tmp_path, monkeypatch, "machine app.daytona.io login a password b\n")
    assert "app.daytona.io" in found.text
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert list(doctor.check_netrc()) == []


def test_what_the_sdk_says_then_is_explained() -> None:
    exc = DaytonaError("Failed: Cannot combine AUTHORIZATION header with AUTH argument or credentials")
    assert "NETRC=/dev/null" in str(translate(exc))


def test_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "proxy.corp:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("https://app.daytona.io/api") == "http://proxy.corp:3128"
    assert proxy_for("wss://proxy.app.daytona.io/toolbox/s1") == "http://proxy.corp:3128"
    assert proxy_for("http://app.daytona.io/api") is None
    assert proxy_for("https://box.inside.example:8443/api") is None
    assert proxy_for("https://localhost:3000/api") is None


@pytest.mark.parametrize("proxy", ["socks5h://127.0.0.1:1080", "http://"])
def test_a_proxy_that_can_not_be_used_is_told_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("https_proxy", proxy.replace("//", "//me:secret@"))
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as caught:
        proxy_for("https://app.daytona.io/api")
    assert "secret" not in str(caught.value)
