"""The desktop: pure parts, and a real one with real windows."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from daytona_kernel.local.toolbox.desktop import keyboard, keymap, pointer, programs, screen, session
from daytona_kernel.local.toolbox.errors import ToolboxError

from .conftest import Api, start_daemon

NEEDED = [*programs.PACKAGES, "xterm"]
MISSING = [name for name in NEEDED if programs.find(name, os.environ) is None]
real = [
    pytest.mark.desktop,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]


# --- pure -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", "a"),
        ("A", "a"),
        ("Return", "Return"),
        ("ENTER", "Return"),
        ("esc", "Escape"),
        ("f24", "F24"),
        ("num7", "KP_7"),
        ("/", "slash"),
        (" ", "space"),
        ("option", "alt"),
        ("Meta", "super"),
        ("pgup", "Prior"),
    ],
)
def test_keys_have_many_names(name, expected):
    assert keyboard.x_key(name) == expected


@pytest.mark.parametrize(
    ("name", "hint"), [("entr", "enter"), ("", ""), ("f25", "f2"), ("--help", ""), ("é", "")]
)
def test_unknown_keys_are_refused_with_a_hint(name, hint):
    with pytest.raises(ToolboxError) as caught:
        keyboard.x_key(name)
    assert caught.value.status == 400
    assert hint in caught.value.message


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("ctrl+c", "ctrl+c"),
        ("Control + Shift + T", "ctrl+shift+t"),
        ("ctrl++", "ctrl+plus"),
        ("+", "plus"),
        ("cmd+space", "super+space"),
        ("f5", "F5"),
    ],
)
def test_hotkeys(keys, expected):
    assert keyboard.hotkey(keys) == expected


@pytest.mark.parametrize("keys", ["", "+c", "ctrl+", "c+ctrl", "ctrl+nokey", "ctrl c"])
def test_malformed_hotkeys_are_refused(keys):
    with pytest.raises(ToolboxError):
        keyboard.hotkey(keys)


def test_line_ends_are_typed_and_control_characters_are_not():
    assert keyboard.typable("a\r\nb\rc\né😀") == "a\nb\nc\né😀"
    for text in ("a\tb", "\x1b[A", "\0", "\ud800"):
        with pytest.raises(ToolboxError):
            keyboard.typable(text)


def test_a_drag_moves_in_steps_and_arrives():
    places = pointer.path((0, 0), (100, 50), 4)
    assert places == [(25, 12), (50, 25), (75, 37), (100, 50)]


@pytest.mark.parametrize("text", ["", "garbage", "0x0", "99999999x1", "10 24x768"])
def test_a_resolution_that_cannot_be_read_is_the_default(text):
    assert session.parse_size(text) == (1024, 768)
    assert session.parse_size("1280x720x24") == (1280, 720)


@pytest.mark.parametrize(
    ("quality", "scale"), [(0, 1.0), (101, 1.0), (50, 0.05), (50, 1.5), (50, float("nan"))]
)
def test_numbers_out_of_range_are_refused(quality, scale):
    with pytest.raises(ToolboxError):
        screen.Encoding.parse("png", quality, scale)


def test_an_unknown_format_is_an_unscaled_png():
    assert screen.Encoding.parse("tiff", 10, 0.5) == screen.Encoding()
    assert screen.Encoding.parse("JPG", 10, 0.5) == screen.Encoding("jpeg", 10, 0.5)


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (-1, 0, 5, 5), (1020, 0, 5, 5), (0, 760, 5, 9)])
def test_regions_must_lie_on_the_screen(region):
    with pytest.raises(ToolboxError):
        screen.check_region(screen.Region(*region), (1024, 768))
    screen.check_region(screen.Region(0, 0, 1024, 768), (1024, 768))


def test_the_place_of_a_window_is_parsed_whatever_its_title():
    printed = (
        'xwininfo: Window id: 0x7 "Width: 9"\n\n  Absolute upper-left X:  -3\n  Absolute upper-left Y:  4\n'
        "  Relative upper-left X:  1\n  Width: 5\n  Height: 6\n  Depth: 24\n"
    )
    assert screen.parse_geometry(printed) == {"x": -3, "y": 4, "width": 5, "height": 6}


def test_text_is_cut_where_keys_run_out():
    assert keymap.batches("äö ab äü!", 2) == ["äö ab ä", "ü!"]
    assert keymap.batches("plain", 1) == ["plain"]
    assert keymap.batches("", 1) == []


def test_characters_have_the_names_of_x():
    assert [keymap.keysym(c) for c in "ö€日"] == [0xF6, 0x010020AC, 0x010065E5]


def test_keys_are_lent_once_and_the_oldest_is_lent_anew():
    keys = keymap.LentKeys(":0", b"")
    keys._free = [101, 100]
    assert keys._assign("äöä") == {100: 0xE4, 101: 0xF6}
    assert keys._assign("äü") == {101: 0xFC}  # the ö had not been used since
    assert keys._assign("ä") == {}
    assert keys.capacity == 2


def test_neighbouring_keys_change_together():
    assert keymap.runs([97, 12, 98, 99, 11]) == [[11, 12], [97, 98, 99]]
    assert keymap.runs([]) == []


def test_missing_programs_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(programs, "find", lambda name, env: None if name != "xprop" else "/usr/bin/xprop")
    with pytest.raises(ToolboxError) as caught:
        programs.need(["Xvfb", "xprop", "noVNC"], {})
    assert caught.value.status == 503
    assert "Xvfb, noVNC" in caught.value.message
    assert "apt-get install novnc xvfb" in caught.value.message


def test_the_authority_file_has_the_format_of_libxau():
    cookie = bytes(range(16))
    data = session.authority(cookie)
    assert (
        data
        == struct.pack(">HHHH", 0xFFFF, 0, 0, 18) + b"MIT-MAGIC-COOKIE-1" + struct.pack(">H", 16) + cookie
    )


# --- without a desktop ------------------------------------------------------------------------------------


async def test_without_a_desktop_everything_says_so(api):
    assert await api("GET", "/computeruse/process-status") == {"status": "inactive"}
    assert await api("GET", "/computeruse/process/xvfb/status") == {"processName": "xvfb", "running": False}
    assert (await api("GET", "/computeruse/process/novnc/logs"))["logs"] == ""
    for path in ("screenshot", "display/info", "display/windows", "mouse/position"):
        error = await api.error("GET", f"/computeruse/{path}", 503)
        assert "start" in error["message"]
    await api.error("POST", "/computeruse/keyboard/type", 503, json={"text": "x"})
    await api.error("POST", "/computeruse/recordings/start", 503, json={})
    await api.error("POST", "/computeruse/process/x11vnc/restart", 503)
    await api.error("GET", "/computeruse/process/sshd/status", 404)
    assert (await api("POST", "/computeruse/stop"))["status"]["xvfb"]["running"] is False
    error = await api.error("GET", "/computeruse/a11y/tree", 503)
    assert error["code"] == "A11Y_UNAVAILABLE"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("mouse/move", {"x": 1}),
        ("mouse/move", {"x": 1, "y": -1}),
        ("mouse/move", {"x": 1.5, "y": 1}),
        ("mouse/click", {"x": 1, "y": 1, "button": "fourth"}),
        ("mouse/click", {"x": 1, "y": 1, "clicks": 0}),
        ("mouse/click", {"x": 1, "y": 1, "modifiers": ["hyper"]}),
        ("mouse/drag", {"startX": 1, "startY": 1, "endX": 5}),
        ("mouse/scroll", {"x": 1, "y": 1}),
        ("mouse/scroll", {"x": 1, "y": 1, "direction": "sideways"}),
        ("mouse/down", {"x": 1}),
        ("keyboard/key", {}),
        ("keyboard/key", {"key": "nokey"}),
        ("keyboard/hotkey", {"keys": "ctrl+"}),
        ("keyboard/type", {"text": "tab\there"}),
        ("keyboard/type", {"text": "x", "delay": -1}),
        ("keyboard/down", {"key": ""}),
        ("recordings/stop", {}),
    ],
)
async def test_bad_requests_are_400(api, path, body):
    await api.error("POST", f"/computeruse/{path}", 400, json=body)


# --- a real desktop ---------------------------------------------------------------------------------------


class RealDesktop(Api):
    home: Path

    async def post(self, path, **body):
        return await self("POST", f"/computeruse/{path}", json=body)

    async def get(self, path, **query):
        return await self("GET", f"/computeruse/{path}", params=query)

    async def picture(self, path="screenshot", **query):
        from PIL import Image

        answer = await self.get(path, **query)
        data = base64.b64decode(answer["screenshot"])
        assert answer["sizeBytes"] == len(data)
        return Image.open(io.BytesIO(data))

    async def windows(self):
        return (await self.get("display/windows"))["windows"]

    async def xterm(self, title, command="cat", *options):
        """Open a terminal window and wait until it is there."""
        line = " ".join(["xterm", "-title", title, *options, "-e", f"sh -c '{command}'"])
        await self.run(f"{line} > /dev/null 2>&1 &")
        while True:
            for window in await self.windows():
                if window["title"] == title and window["isActive"]:
                    return window
            await asyncio.sleep(0.02)

    async def content(self, name, size):
        """Wait until a file has ``size`` bytes and give it."""
        path = self.home / name
        while not path.exists() or path.stat().st_size < size:
            await asyncio.sleep(0.02)
        return path.read_bytes()

    async def close_windows(self):
        await self.run(
            'for p in /proc/[0-9]*; do [ "$(readlink $p/exe)" = "$(command -v xterm)" ] '
            "&& tr '\\0' '\\n' < $p/environ | grep -q ^DAYTONA_TEST_DESKTOP=1 "
            "&& kill ${p#/proc/}; done; true"
        )
        while await self.windows():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def desktop_daemon(tmp_path_factory):
    env = {"VNC_RESOLUTION": "801x601", "DAYTONA_TEST_DESKTOP": "1"}
    with socket.socket() as other:
        with contextlib.suppress(OSError):  # somebody else has it: just as good
            other.bind(("127.0.0.1", 6080))
            other.listen()
        daemon = start_daemon(tmp_path_factory.mktemp("desktop") / "home", env=env)
        yield daemon
        assert daemon.stop() == 0


@pytest.fixture
async def desktop(desktop_daemon) -> AsyncIterator[RealDesktop]:
    async with aiohttp.ClientSession(desktop_daemon.url) as http:
        found = RealDesktop(http)
        found.home = desktop_daemon.home
        await found.post("start")
        yield found
        await found.close_windows()


class TestRealDesktop:
    pytestmark = real

    async def test_it_starts_and_says_how_it_is(self, desktop, desktop_daemon):
        answer = await desktop.post("start")  # again is no error
        assert set(answer["status"]) == {"xvfb", "xfce4", "x11vnc", "novnc"}
        for process in answer["status"].values():
            assert process["running"] is True
            assert {"priority", "autoRestart", "pid"} <= set(process)
        assert answer["display"].startswith(":")
        assert (await desktop.run("echo $DISPLAY"))["result"].strip() == answer["display"]
        assert await desktop.get("status") == {"status": "active"}
        assert await desktop.get("display/info") == {
            "displays": [{"id": 0, "x": 0, "y": 0, "width": 801, "height": 601, "isActive": True}]
        }

    async def test_screenshots_show_what_is_there(self, desktop):
        window = await desktop.xterm(
            "red", 'printf "\\033[?25l"; cat', "-bg", "red", "-geometry", "40x10+100+80"
        )
        picture = await desktop.picture()
        assert (picture.format, picture.size) == ("PNG", (801, 601))
        middle = (window["x"] + window["width"] // 2, window["y"] + window["height"] // 2)
        while picture.getpixel(middle)[:3] != (255, 0, 0):  # the window is mapped before it is painted
            picture = await desktop.picture()
        region = {"x": middle[0] - 10, "y": middle[1] - 5, "width": 20, "height": 10}
        part = await desktop.picture("screenshot/region", **region)
        assert part.size == (20, 10)
        assert part.getpixel((10, 5))[:3] == (255, 0, 0)
        small = await desktop.picture("screenshot/region/compressed", **region, scale=0.5, format="png")
        assert (small.format, small.size) == ("PNG", (10, 5))

    @pytest.mark.parametrize(("name", "expected"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")])
    async def test_compressed_screenshots_have_the_format_and_scale(self, desktop, name, expected):
        picture = await desktop.picture("screenshot/compressed", format=name, quality=40, scale=0.5)
        assert picture.format == expected
        assert abs(picture.size[0] - 400) <= 1
        assert abs(picture.size[1] - 300) <= 1

    async def test_bad_picture_requests_are_400(self, desktop):
        for query in ({"quality": 0}, {"scale": 2}, {"quality": "x"}):
            await desktop.error("GET", "/computeruse/screenshot/compressed", 400, params=query)
        for query in ({"x": 0, "y": 0, "width": 10}, {"x": 0, "y": 0, "width": 10, "height": 1000}):
            await desktop.error("GET", "/computeruse/screenshot/region", 400, params=query)

    async def test_the_cursor_is_in_the_picture_if_asked_for(self, desktop):
        await desktop.post("mouse/move", x=700, y=500)
        answer = await desktop.get("screenshot", showCursor="true")
        assert answer["cursorPosition"] == {"x": 700, "y": 500}
        region = {"x": 680, "y": 480, "width": 60, "height": 60}
        with_cursor = await desktop.picture("screenshot/region", **region, showCursor="true")
        without = await desktop.picture("screenshot/region", **region)
        assert with_cursor.tobytes() != without.tobytes()

    async def test_typing_reaches_the_focused_window(self, desktop):
        await desktop.xterm("typing", "cat > typed; echo end >> typed", "-u8")
        text = "Hello, Wörld! ~@#\näöüßéèñ日本語€ 10 and more\n"
        await desktop.post("keyboard/type", text=text)
        assert (await desktop.content("typed", len(text.encode()))).decode() == text
        await desktop.post("keyboard/key", key="A", modifiers=["shift"])
        await desktop.post("keyboard/down", key="shift")
        await desktop.post("keyboard/key", key="b")
        await desktop.post("keyboard/up", key="shift")
        await desktop.post("keyboard/key", key="enter")
        await desktop.post("keyboard/hotkey", keys="ctrl+d")
        assert (await desktop.content("typed", len(text.encode()) + 7)).decode() == text + "AB\nend\n"

    async def test_clicks_arrive_where_they_were_aimed(self, desktop):
        """xterm reports mouse buttons to a program that asks for them (mode 1000)."""
        ask = 'stty raw -echo; printf "\\033[?1000h\\033[6n"; cat > clicks'
        window = await desktop.xterm("clicks", ask, "-geometry", "40x10+50+50")
        await desktop.content("clicks", 6)  # the answer to "where is the cursor": it has read its orders
        offset = len(await desktop.content("clicks", 6))
        x, y = window["x"] + window["width"] // 2, window["y"] + window["height"] // 2
        assert await desktop.post("mouse/click", x=x, y=y) == {"x": x, "y": y}
        seen = (await desktop.content("clicks", offset + 12))[offset:]
        assert seen[:4] == b"\x1b[M "  # left button pressed ...
        assert seen[6:10] == b"\x1b[M#"  # ... and released
        await desktop.post("mouse/click", x=x, y=y, button="right", double=True)
        seen = (await desktop.content("clicks", offset + 36))[offset + 12 :]
        assert seen.count(b'\x1b[M"') == 2
        await desktop.post("mouse/scroll", x=x, y=y, direction="down", amount=3)
        assert (await desktop.content("clicks", offset + 54))[offset + 36 :].count(b"\x1b[Ma") == 3
        await desktop.post("mouse/down", x=x, y=y)
        await desktop.post("mouse/up")
        assert len(await desktop.content("clicks", offset + 66)) == offset + 66
        await desktop.post("mouse/click", x=x, y=y, modifiers=["alt"])
        assert await desktop.get("mouse/position") == {"x": x, "y": y}

    async def test_a_click_right_after_unusual_characters_arrives(self, desktop):
        """The window manager is done with the changed keys by then (openbox lost 11 clicks of 12)."""
        ask = 'stty raw -echo; printf "\\033[?1000h\\033[6n"; cat > both'
        window = await desktop.xterm("both", ask, "-geometry", "40x10+50+50", "-u8")
        size = len(await desktop.content("both", 6))
        x, y = window["x"] + window["width"] // 2, window["y"] + window["height"] // 2
        for number in range(4):
            text = "".join(chr(0x4E00 + 8 * number + offset) for offset in range(8))
            await desktop.post("keyboard/type", text=text)
            await desktop.post("mouse/click", x=x, y=y)
            size += 24 + 12
            assert len(await desktop.content("both", size)) == size

    async def test_a_window_is_dragged_by_its_title(self, desktop):
        before = await desktop.xterm("drag", "cat", "-geometry", "30x5+100+200")
        x, y = before["x"] + 30, before["y"] - 8
        await desktop.post("mouse/drag", startX=x, startY=y, endX=x + 120, endY=y + 60)
        while (after := (await desktop.windows())[0])["x"] == before["x"]:
            await asyncio.sleep(0.02)
        assert abs(after["x"] - before["x"] - 120) < 20

    async def test_recordings_are_films_that_can_be_downloaded(self, desktop):
        started = await desktop(
            "POST", "/computeruse/recordings/start", status=201, json={"label": "../my demo"}
        )
        assert started["status"] == "recording"
        assert started["fileName"].startswith("my_demo_")
        assert Path(started["filePath"]).parent == desktop.home / ".daytona" / "recordings"
        number = started["id"]
        error = await desktop.error("DELETE", f"/computeruse/recordings/{number}", 409)
        assert error["code"] == "RECORDING_STILL_ACTIVE"
        while (await desktop.get(f"recordings/{number}")).get("sizeBytes") is None:
            await asyncio.sleep(0.05)
        stopped = await desktop.post("recordings/stop", id=number)
        assert stopped["status"] == "completed"
        assert stopped["endTime"] >= stopped["startTime"]
        async with desktop.session.get(f"/computeruse/recordings/{number}/download") as answer:
            film = await answer.read()
            assert answer.content_type == "video/mp4"
        assert film[4:8] == b"ftyp"
        assert b"moov" in film
        assert len(film) == stopped["sizeBytes"]
        assert [one["id"] for one in (await desktop.get("recordings"))["recordings"]] == [number]
        await desktop.error("POST", "/computeruse/recordings/stop", 400, json={"id": number})
        await desktop("DELETE", f"/computeruse/recordings/{number}", status=204)
        for path in (number, f"{number}/download", "nonsense"):
            await desktop.error("GET", f"/computeruse/recordings/{path}", 404)

    async def test_finished_recordings_are_found_again(self, desktop):
        directory = desktop.home / ".daytona" / "recordings"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "old_20260102T030405_0123456789abcdef.mp4"
        path.write_bytes(b"film")
        found = await desktop.get("recordings/0123456789abcdef")
        assert found["startTime"] == "2026-01-02T03:04:05.000Z"
        assert (found["status"], found["sizeBytes"]) == ("completed", 4)
        await desktop("DELETE", "/computeruse/recordings/0123456789abcdef", status=204)
        assert not path.exists()

    async def test_novnc_is_found_at_its_usual_port_although_that_is_taken(self, desktop):
        """The page and the screen, through the proxy that previews use."""
        async with desktop.session.get("/proxy/6080/vnc.html") as answer:
            assert "noVNC" in await answer.text()
        async with desktop.session.ws_connect("/proxy/6080/websockify", protocols=["binary"]) as screen:
            assert (await screen.receive_bytes(timeout=10)).startswith(b"RFB 003.")

    async def test_a_process_that_dies_is_started_again(self, desktop):
        status = (await desktop.post("start"))["status"]
        await desktop.run(f"kill -KILL {status['x11vnc']['pid']}")
        while True:
            again = (await desktop.post("start"))["status"]["x11vnc"]
            if again["running"] and again["pid"] != status["x11vnc"]["pid"]:
                break
            await asyncio.sleep(0.02)
        assert await desktop.get("status") == {"status": "active"}

    @pytest.mark.parametrize("name", ["xfce4", "x11vnc", "novnc", "xvfb"])
    async def test_a_process_can_be_restarted(self, desktop, name):
        before = (await desktop.post("start"))["status"][name]["pid"]
        answer = await desktop("POST", f"/computeruse/process/{name}/restart")
        assert answer["processName"] == name
        status = (await desktop.post("start"))["status"]
        assert status[name]["pid"] != before
        assert await desktop.get(f"process/{name}/status") == {"processName": name, "running": True}
        assert isinstance((await desktop.get(f"process/{name}/errors"))["errors"], str)

    async def test_it_stops_and_starts_again(self, desktop):
        status = (await desktop.post("stop"))["status"]
        assert not any(process["running"] for process in status.values())
        assert await desktop.get("status") == {"status": "inactive"}
        assert (await desktop.run("echo [$DISPLAY]"))["result"] == "[]\n"
        await desktop.post("start")
        assert (await desktop.picture()).size == (801, 601)


@pytest.mark.desktop
@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
async def test_the_daemons_end_is_the_desktops_end(tmp_path):
    daemon = start_daemon(tmp_path / "home")
    async with aiohttp.ClientSession(daemon.url) as http:
        status = (await Api(http)("POST", "/computeruse/start"))["status"]
    assert await asyncio.to_thread(daemon.stop) == 0
    for process in status.values():
        assert not Path(f"/proc/{process['pid']}").exists()
