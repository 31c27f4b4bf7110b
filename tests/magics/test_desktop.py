"""`%daytona` and the sandbox's desktop: real X server, real pictures."""

from __future__ import annotations

import base64
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
    outcome = desktop("%daytona screenshot --format jpeg --quality 50 --scale 0.5").ok()
    assert "image/jpeg" in outcome.shown[0]


def test_mouse_and_keyboard_reach_the_desktop(desktop: KernelDoor) -> None:
    assert "120,80" in desktop("%daytona move 120 80").ok().text
    desktop("%daytona click 100 100 --button right").ok()
    assert "image/png" in desktop("%daytona key escape --shot").ok().shown[0]
    desktop("%daytona type hello").ok()
    desktop("%daytona windows").ok()
    desktop("%daytona scroll 10 10 down").ok()
    desktop("%daytona drag 10 10 50 50").ok()


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
        ("scroll 1 1 left", "invalid choice"),
        ("vnc restart x12", "invalid choice"),
        ("vnc view --expires 0s", "1s to 1d"),
        ("vnc strat", "Did you mean start?"),
    ],
)
def test_wrong_words_are_refused(door: Door, line: str, words: str) -> None:
    assert words in door(f"%daytona {line}").failed("UsageError")
