"""An outbox whose protocol stream is a file, and what a kernel would make of that file."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daytona_kernel import wire
from daytona_kernel.agent.interrupts import Interrupts
from daytona_kernel.agent.outbox import Outbox
from daytona_kernel.agent.spool import SpoolDirectory


@dataclass
class Bench:
    """The outbox of an agent, and the far end of its protocol stream."""

    outbox: Outbox
    interrupts: Interrupts
    directory: SpoolDirectory
    protocol: Path

    def chunks(self) -> list[dict[str, Any]]:
        """What the daemon has got: one JSON object per line."""
        return [json.loads(line) for line in self.protocol.read_bytes().splitlines()]

    def lines(self) -> list[wire.Line]:
        splitter = wire.Splitter()
        items = [item for chunk in self.chunks() for item in splitter.feed(chunk["text"])]
        assert all(isinstance(item, wire.Line) for item in items)
        return [item for item in items if isinstance(item, wire.Line)]

    def frames(self, execution_id: str) -> list[wire.Frame]:
        """What the kernel makes of it; a missing line raises `wire.Gap`."""
        receiver = wire.Receiver(execution_id)
        found = [receiver.feed(line) for line in self.lines()]
        return [frame for frame in found if frame is not None]

    def said(self, execution_id: str) -> list[tuple[str, str]]:
        return [
            (frame.content["name"], frame.content["text"])
            if frame.type == "stream"
            else (frame.type, str(frame.content))
            for frame in self.frames(execution_id)
        ]

    def recorded(self) -> bytes:
        """All that is in the recordings' files."""
        paths = sorted(Path(self.directory.path).glob("*.*"))
        return b"".join(path.read_bytes() for path in paths)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SpoolDirectory:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return SpoolDirectory("test")


@pytest.fixture
def bench(tmp_path: Path, directory: SpoolDirectory) -> Iterator[Bench]:
    protocol = tmp_path / "protocol"
    fd = os.open(protocol, os.O_WRONLY | os.O_CREAT)
    interrupts = Interrupts()
    yield Bench(Outbox(fd, interrupts, directory), interrupts, directory, protocol)
    os.close(fd)


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    """The agent's handler, installed for SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    made = Interrupts()
    made.install()
    yield made
    signal.signal(signal.SIGINT, before)
