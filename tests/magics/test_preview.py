"""`%daytona` and ports of the sandbox, through both doors."""

from __future__ import annotations

import http.client
import re
import socket
from urllib.parse import urlsplit

import pytest

from .doors import Door


def status_of(url: str) -> int:
    """What the link answers; its host is a name of the loopback address that not every system resolves."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port or 80, timeout=30)
    try:
        connection.request(
            "GET", "/", headers={"Host": parts.netloc, "X-Daytona-Skip-Preview-Warning": "true"}
        )
        with connection.getresponse() as response:
            response.read()
            return response.status
    finally:
        connection.close()


@pytest.fixture
def port() -> int:
    """A port that is free here; local sandboxes may share the machine's network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def link_of(text: str) -> str:
    found = re.search(r"http://\S+", text)
    assert found is not None, text
    return found[0]


def test_serve_starts_links_and_is_used_again(door: Door, port: int) -> None:
    outcome = door(f"%daytona serve {port} -- python3 -m http.server {port}").ok()
    assert "works until" in outcome.text
    assert "(1h)" in outcome.text
    assert 'target="_blank"' in outcome.html
    first = link_of(outcome.text)
    assert status_of(first) == 200
    outcome = door(f"%daytona serve {port} -- python3 -m http.server {port} --iframe").ok()
    assert door("%daytona jobs").text.count(f"serve-{port}") == 1
    assert str(port) in door("%daytona preview").ok().text
    assert first in door("%daytona previews").ok().text
    door(f"%daytona preview {port} --revoke").ok()
    assert status_of(first) != 200
    assert first not in door("%daytona previews").ok().text
    door(f"%daytona serve {port} --restart").ok()
    door(f"%daytona serve {port} --stop").ok()
    assert f"serve-{port}" not in door("%daytona jobs").text


def test_the_value_of_a_preview_is_its_url(door: Door, port: int) -> None:
    outcome = door(f"url = %daytona preview {port} --expires 90s").ok()
    assert not outcome.text.strip()
    assert door.here("print(url)").stdout.startswith("http://")


def test_an_iframe_is_sandboxed(door: Door, port: int) -> None:
    html = door(f"%daytona preview {port} --iframe --height 300").ok().html
    assert 'height="300"' in html
    assert 'sandbox="allow-scripts' in html


def test_the_standard_link_hides_its_token(door: Door, port: int) -> None:
    outcome = door(f"%daytona preview {port} --standard").ok()
    assert "--show-token" in outcome.text
    shown = door(f"%daytona preview {port} --standard --show-token").ok().text
    token = shown.split("x-daytona-preview-token: ")[1].split()[0]
    assert len(token) >= 16
    assert token not in outcome.text + outcome.html


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("preview 0", "from 1 to 65535"),
        ("preview 65536", "from 1 to 65535"),
        ("preview http", "no port"),
        ("preview 22222", "gives control"),
        ("preview 2280 --standard", "gives control"),
        ("preview 80 --expires 2d", "1s to 1d"),
        ("preview 80 --expires 0s", "1s to 1d"),
        ("preview 80 --height 3", "50 to 5000"),
        ("preview 80 --show-token", "goes with --standard"),
        ("preview 80 --ifrme", "Did you mean --iframe?"),
        ("preview 81 --revoke", "no live link"),
        ("serve 22222 -- true", "gives control"),
        ("serve 82 --stop", "No job of ours"),
        ("serve 83", "serve 83 -- COMMAND"),
    ],
)
def test_wrong_words_are_refused(door: Door, line: str, words: str) -> None:
    assert words in door(f"%daytona {line}").failed("UsageError")


def test_a_server_that_ends_shows_its_last_lines(door: Door, port: int) -> None:
    message = door(f"%daytona serve {port} -- sh -c 'echo no such module >&2; exit 2'").failed(
        "CommandFailed"
    )
    assert "no such module" in message
    assert "exit 2" in message


def test_an_interrupt_ends_the_wait_and_the_server_that_was_waited_for(door: Door) -> None:
    outcome = door.interrupted("%daytona serve 8219 -- sleep 600", "Waiting for port 8219")
    assert outcome.ename == "KeyboardInterrupt"
    assert "8219" not in door("%daytona jobs").ok().text


def test_a_server_is_restarted_where_it_was(door: Door) -> None:
    """The directory and the command stay, though only the port is named."""
    port = {"kernel": 8221, "ipython": 8222}[door.name]
    door("%daytona mkdir 'served here'").ok()
    command = f"python3 -m http.server {port}"
    door(f"%daytona serve {port} --cwd 'served here' -- {command}").ok()
    before = door("%daytona jobs --json").ok().stdout
    door(f"%daytona serve {port} --restart").ok()
    assert door("%daytona jobs --json").ok().stdout == before
    door(f"%daytona serve {port} --stop").ok()
