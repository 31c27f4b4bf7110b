"""What the kernel's door sends while a command runs: never at the cost of what the cell has shown."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daytona_kernel.config import DaytonaSettings
from daytona_kernel.magics.kerneldoor import KernelHost
from daytona_kernel.magics.progress import Progress
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
