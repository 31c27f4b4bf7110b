"""`%daytona` and the sandbox's desktop: real X server, real pictures."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from .doors import Door, KernelDoor

pytestmark = pytest.mark.desktop


@pytest.fixture
def desktop(kernel: KernelDoor) -> KernelDoor:
    """The kernel, with the desktop of its sandbox running."""
    outcome = kernel("%daytona vnc start")
    if outcome.ename:
        pytest.skip(f"no desktop here: {outcome.evalue}")
    return kernel


def test_a_screenshot_shows_itself_with_its_size(desktop: KernelDoor, tmp_path: Path) -> None:
    outcome = desktop(f"%daytona screenshot --save {tmp_path}/shot.png").ok()
    data = base64.b64decode(outcome.shown[0]["image/png"])
    assert data.startswith(b"\x89PNG")
    assert (tmp_path / "shot.png").read_bytes() == data
    assert "there already" in desktop(f"%daytona screenshot --save {tmp_path}/shot.png").failed("UsageError")
    outcome = desktop(
        "facts = %daytona screenshot --region 0,0,100,50\nprint(facts['width'], facts['height'])"
    )
    assert outcome.ok().stdout.strip() == "100 50"
    refusal = desktop("%daytona screenshot --save /no/such/x.png").failed("UsageError")
    assert "directory that is not there" in refusal


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_every_format_tells_its_size(desktop: KernelDoor, kind: str) -> None:
    whole = desktop("facts = %daytona screenshot\nprint(facts['width'], facts['height'])").ok().stdout.split()
    half = [int(side) // 2 for side in whole]
    outcome = desktop(f"%daytona screenshot --format {kind} --quality 50 --scale 0.5").ok()
    assert f"<image/{kind}, {half[0]}x{half[1]}, " in outcome.text
    assert f"image/{kind}" in outcome.shown[0]


def test_mouse_and_keyboard_reach_the_desktop(desktop: KernelDoor) -> None:
    assert "120,80" in desktop("%daytona move 120 80").ok().text
    desktop("%daytona click 100 100 --button right").ok()
    assert "image/png" in desktop("%daytona key escape --shot").ok().shown[0]
    desktop("%daytona type hello").ok()
    desktop("%daytona windows").ok()
    desktop("%daytona scroll 10 10 down").ok()
    desktop("%daytona drag 10 10 50 50").ok()


def test_the_screen_is_recorded_and_shown(desktop: KernelDoor, tmp_path: Path) -> None:
    outcome = desktop("recording = %daytona record start --label demo")
    if "ffmpeg" in outcome.evalue:
        pytest.skip(outcome.evalue)
    outcome.ok()
    while not json.loads(desktop("%daytona record list --json").ok().stdout)[-1]["bytes"]:
        desktop("%daytona move 300 300").ok()
    assert "recording" in desktop("%daytona record list").ok().text
    desktop("%daytona record stop").ok()
    assert "Nothing is being recorded" in desktop("%daytona record stop").failed("UsageError")
    outcome = desktop(f"%daytona record download --save {tmp_path}/film.mp4").ok()
    assert "data:video/mp4;base64," in outcome.html
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert "there already" in desktop(f"%daytona record download --save {tmp_path}/film.mp4").evalue
    assert "no recording 'other'" in desktop("%daytona record download other").failed("UsageError")


def test_a_key_that_is_none_is_named(desktop: KernelDoor) -> None:
    assert "nonsense" in desktop("%daytona key nonsense").failed("CommandFailed")


def test_the_desktop_can_be_viewed_and_stopped(desktop: KernelDoor) -> None:
    assert "xvfb" in desktop("%daytona vnc status").ok().text
    outcome = desktop("%daytona vnc view --iframe").ok()
    assert "/vnc.html?autoconnect=true" in outcome.text
    assert "<iframe" in outcome.html
    desktop("%daytona vnc logs x11vnc").ok()
    desktop("%daytona vnc stop").ok()
    assert "stopped" in desktop("%daytona vnc status").ok().text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("screenshot --region 1,2,3", "0,0,800,600"),
        ("screenshot --quality 0", "from 1 to 100"),
        ("screenshot --scale 2", "from 0.1 to 1.0"),
        ("screenshot --format bmp", "invalid choice"),
        ("click 1", "required"),
        ("click -1 5", "pixels, from 0 up"),
        ("move 1.5 5", "pixels, from 0 up"),
        ("type 'a\tb'", "key tab"),
        ("type a --delay -1", "from 0 up"),
        ("scroll 1 1 left", "invalid choice"),
        ("vnc restart x12", "invalid choice"),
        ("vnc view --expires 0s", "1s to 1d"),
        ("vnc strat", "Did you mean start?"),
    ],
)
def test_wrong_words_are_refused(door: Door, line: str, words: str) -> None:
    assert words in door(f"%daytona {line}").failed("UsageError")
