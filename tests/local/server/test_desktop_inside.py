"""A desktop inside bubblewrap: a real browser on it, and its screen in a preview."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import shutil
from typing import Any

import aiohttp
import pytest

from daytona_kernel.local.toolbox.desktop import programs

from .conftest import Running

MISSING = [
    name for name in (*programs.PACKAGES, "chromium", "bwrap") if programs.find(name, os.environ) is None
]

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.bwrap,
    pytest.mark.desktop,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

PAGE = "<title>green page</title><body style='background:#00ff00'>"


async def use(running: Running, sandbox: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    """One call to the desktop of a sandbox."""
    url = f"{running.base}/toolbox/{sandbox['id']}/computeruse/{path}"
    async with running.http.request(method, url) as answer:
        body: dict[str, Any] = await answer.json()
        assert answer.status == 200, body
        return body


async def open_browser(running: Running, sandbox: dict[str, Any]) -> None:
    """Chromium with a page, without any option, until its window is there."""
    await running.run(
        sandbox, f'echo "{PAGE}" > page.html; chromium file://$HOME/page.html > browser.log 2>&1 &'
    )
    while True:
        windows = (await use(running, sandbox, "GET", "display/windows"))["windows"]
        if any("green page" in window["title"] for window in windows):
            return
        _, alive = await running.run(sandbox, "pgrep -c chromium; cat browser.log")
        assert not alive.startswith("0"), alive
        await asyncio.sleep(0.1)


async def middle_of_screen(running: Running, sandbox: dict[str, Any]) -> tuple[int, ...]:
    """The colour there."""
    from PIL import Image

    shot = await use(running, sandbox, "GET", "screenshot")
    picture = Image.open(io.BytesIO(base64.b64decode(shot["screenshot"])))
    found: tuple[int, ...] = picture.getpixel((512, 500))[:3]
    return found


async def test_browser_is_seen_on_the_screen_and_the_screen_in_a_preview(running: Running) -> None:
    """Chromium starts without options, its page is in the picture; noVNC answers at port 6080."""
    sandbox = await running.create()
    status = (await use(running, sandbox, "POST", "start"))["status"]
    assert all(process["running"] for process in status.values()), status
    await open_browser(running, sandbox)
    while await middle_of_screen(running, sandbox) != (0, 255, 0):
        await asyncio.sleep(0.1)
    label = f"6080-{sandbox['id']}"
    async with running.http.get(f"{running.base}/preview/{label}/vnc.html") as answer:
        assert "noVNC" in await answer.text()
    screen = f"{running.base}/preview/{label}/websockify"
    async with running.http.ws_connect(screen, protocols=["binary"]) as socket:
        assert (await socket.receive_bytes(timeout=30)).startswith(b"RFB 003.")
    async with (
        aiohttp.ClientSession() as stranger,
        stranger.get(f"{running.base}/preview/{label}/") as answer,
    ):
        assert answer.status == 401
    await running.delete(sandbox)
