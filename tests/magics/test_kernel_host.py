"""What is shown while a command runs: never at the cost of what the cell has shown."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daytona_kernel.config import DaytonaSettings
from daytona_kernel.extension import Overwritten
from daytona_kernel.magics.kerneldoor import KernelHost
from daytona_kernel.magics.progress import Progress
from daytona_kernel.magics.waiting import Waiting
from daytona_kernel.redaction import Secrets
from daytona_kernel.session import Session


class KeepingSink:
    """A sink that keeps what it is given, as text."""

    def __init__(self, *, attended: bool = True) -> None:
        self.attended = attended
        self.sent: list[str] = []
        self.displays: dict[str, str] = {}

    def publish(self, type: str, content: dict[str, Any], metadata: Any, buffers: Any) -> None:
        if type == "stream":
            self.sent.append(content["text"])
            return
        display_id = content["transient"]["display_id"]
        assert (type == "update_display_data") == (display_id in self.displays)
        self.displays[display_id] = content["data"]["text/plain"]

    def status(self, text: str | None) -> None:
        self.sent.append(f"status: {text}")

    def notice(self, text: str) -> None:
        raise AssertionError

    def ask(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        raise AssertionError


@pytest.fixture
def sink() -> KeepingSink:
    """Where the host's output goes."""
    return KeepingSink()


@pytest.fixture
def host(sink: KeepingSink) -> KernelHost:
    """A host whose cell has begun; showing things needs no session."""
    session = SimpleNamespace(settings=DaytonaSettings(), secrets=Secrets())
    host = KernelHost(cast(Session, session))
    host.sink = sink
    return host


def test_what_is_waited_for_goes_before_the_first_output(host: KernelHost, sink: KeepingSink) -> None:
    host.status("Waiting")
    host.status("Still waiting")
    host.write("output")
    host.status(None)
    assert sink.sent == ["status: Waiting", "status: Still waiting", "status: None", "output"]
    assert not sink.displays


def test_output_stays_when_something_is_waited_for_after_it(host: KernelHost, sink: KeepingSink) -> None:
    """Clearing a status clears the whole cell."""
    host.write("output")
    host.status("Waiting")
    assert list(sink.displays.values()) == ["Waiting"]
    host.status(None)
    host.status("Waiting again")
    host.status(None)
    assert sink.sent == ["output"]
    assert list(sink.displays.values()) == ["", ""]


def test_progress_is_a_display_of_its_own(
    host: KernelHost, sink: KeepingSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daytona_kernel.magics.progress.SHOW_AFTER_S", 0.0)
    monkeypatch.setattr("daytona_kernel.magics.progress.UPDATE_S", 0.0)
    for label in ("upload", "download"):
        with Progress(host, label, 100) as bar:
            bar.add(50)
            bar.add(50)
    shown = list(sink.displays.values())
    assert [text.partition("|")[0] for text in shown] == ["upload: 100%", "download: 100%"]
    assert not sink.sent


def test_progress_is_not_sent_where_nobody_looks(host: KernelHost, sink: KeepingSink) -> None:
    sink.attended = False
    host.progress("50%")
    host.progress(None)
    assert not sink.displays


def test_a_silent_cell_shows_nothing(host: KernelHost, sink: KeepingSink) -> None:
    host.silent = True
    host.write("output")
    host.status("Waiting")
    host.progress("50%")
    assert not sink.sent
    assert not sink.displays


# -- a sign of life ------------------------------------------------------------------------------------


class KeepingHost(KernelHost):
    """A host that notes its lines, and tells when there is one."""

    def __init__(self) -> None:
        super().__init__(cast(Session, None))
        self.lines: list[str | None] = []
        self.line = asyncio.Event()

    def show_status(self, text: str | None) -> None:
        self.lines.append(text)
        self.line.set()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes more than a moment is announced at once."""
    monkeypatch.setattr("daytona_kernel.magics.waiting.SHOW_AFTER_S", 0.0)
    monkeypatch.setattr("daytona_kernel.magics.waiting.EACH_S", 0.0)


async def next_line(host: KeepingHost) -> str:
    host.line.clear()
    await host.line.wait()
    assert host.lines[-1] is not None
    return host.lines[-1]


async def test_a_long_command_says_that_it_goes_on(soon: None) -> None:
    host = KeepingHost()
    async with Waiting(host, "%daytona nap"):
        assert re.fullmatch(r"%daytona nap … \d+ s", await next_line(host))
        host.status("Waiting for the sandbox …")
        assert re.fullmatch(r"Waiting for the sandbox … \d+ s", await next_line(host))
        host.status(None)
        assert (await next_line(host)).startswith("%daytona nap …")
    assert host.lines[-1] is None


async def test_a_command_that_shows_something_needs_no_sign_of_life(soon: None) -> None:
    host = KeepingHost()
    async with Waiting(host, "%daytona nap") as waiting:
        await next_line(host)
        host.said += 1
        await waiting._task
        assert host.lines[-1] is not None  # what was shown has taken its place


async def test_a_short_command_says_nothing() -> None:
    host = KeepingHost()
    async with Waiting(host, "%daytona blink"):
        await asyncio.sleep(0)
    assert not host.lines


# -- the line that is written over, in plain IPython ---------------------------------------------------------


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


class Shell:
    """An IPython, with a kernel around it or without, that keeps what is displayed."""

    def __init__(self, **kernel: bool) -> None:
        if kernel:
            self.kernel = SimpleNamespace(**kernel)
        self.displays: dict[str, str] = {}
        self.display_pub = SimpleNamespace(publish=self._publish)

    def _publish(self, data: Any, metadata: Any, *, transient: dict[str, str], update: bool) -> None:
        assert update == (transient["display_id"] in self.displays)
        self.displays[transient["display_id"]] = data["text/plain"]


def test_on_a_terminal_a_line_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    line = Overwritten(cast(Any, Shell()))
    line.show("1 s")
    line.show("2 s")
    line.erase()
    line.show("100%")
    line.keep()
    line.erase()
    assert terminal.getvalue() == "\r1 s\x1b[K\r2 s\x1b[K\r\x1b[K\r100%\x1b[K\n"


def test_in_a_notebook_a_line_is_a_display_of_its_own() -> None:
    shell = Shell(_allow_stdin=True)
    line = Overwritten(cast(Any, shell))
    for text in ("1 s", "2 s"):
        line.show(text)
    line.erase()
    line.show("100%")
    line.keep()
    line.erase()
    assert list(shell.displays.values()) == ["", "100%"]


@pytest.mark.parametrize("kernel", [{}, {"_allow_stdin": False}], ids=["script", "nbclient"])
def test_where_nobody_looks_there_is_no_such_line(
    kernel: dict[str, bool], capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(**kernel)
    line = Overwritten(cast(Any, shell))
    line.show("1 s")
    line.erase()
    line.keep()
    assert capsys.readouterr() == ("", "")
    assert not shell.displays
