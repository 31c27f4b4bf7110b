"""The agent's outbox and recordings, and the kernel's two readers of them, with a network that loses chunks.

Nothing here is modelled but the network: what the outbox writes is what the readers read.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daytona_kernel import wire
from daytona_kernel.agent import outbox as outbox_module
from daytona_kernel.agent import spool as spool_module
from daytona_kernel.execution import Execution, SocketReader, SpoolReader

from .conftest import Bench

counts = st.integers(1, 12)
steps = st.one_of(
    st.tuples(st.just("print"), counts),
    st.tuples(st.just("display"), counts),
    st.tuples(st.just("deliver"), counts),
    st.tuples(st.just("lose"), st.just(0)),
    st.tuples(st.just("read the spool"), st.just(0)),
    st.tuples(st.just("acknowledge"), st.just(0)),
    st.tuples(st.just("tear an acknowledgement"), st.integers(0, 8)),
    st.tuples(st.just("next cell"), st.integers(0, 3)),
)


class Spool:
    """The toolbox calls of a reader, on the directory itself."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)

    async def list_files(self, path: str) -> dict[str, int]:
        return {entry.name: entry.stat().st_size for entry in os.scandir(path)}

    async def download(self, path: str, offset: int = 0, most: int | None = None, **_: Any) -> bytes | None:
        try:
            return Path(path).read_bytes()[offset:][:most]
        except FileNotFoundError:
            return None


class Far:
    """The kernel's side of one cell."""

    def __init__(self, execution_id: str, previous: Far | None) -> None:
        self.got: list[str] = []
        self.said: list[str] = []
        self.stray: list[str] = []
        self.execution: Execution = Execution(
            {"id": execution_id, "type": "execute"},
            self._take,
            lambda name, text: self.stray.append(text),
            previous=previous.execution if previous is not None else None,
        )
        self.socket: SocketReader | None = self.reader()

    def reader(self, *, over_gaps: bool = False) -> SocketReader:
        return SocketReader(self.execution, lambda execution, size: None, over_gaps=over_gaps)

    def _take(self, frame: wire.Frame) -> None:
        self.got += (
            frame.content["text"].splitlines() if frame.type == "stream" else [str(frame.content["n"])]
        )

    @property
    def next_number(self) -> int:
        return self.execution.receiver.next_number


class Story:
    """One example: an agent that has begun a cell, and a kernel that listens."""

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench = bench
        self.name = name
        self.count = 0
        self.cells = 0
        self.read = len(bench.chunks())
        self.late_from: int | None = None
        self.far = self._begin(None)
        self.before: Far | None = None

    def _begin(self, previous: Far | None) -> Far:
        self.cells += 1
        far = Far(f"{self.name}c{self.cells}", previous)
        self.late_from = previous.next_number if previous is not None else None
        self.bench.outbox.begin(far.execution.id, late_from=self.late_from)
        self.bench.outbox.post("ready", {})
        self.bench.outbox.flush()
        return far

    def play(self, step: str, number: int) -> None:
        out, far = self.bench.outbox, self.far
        if step in ("print", "display"):
            for _ in range(number):
                self.count += 1
                far.said.append(str(self.count))
                if step == "print":
                    out.buffer("stdout").write(f"{self.count}\n")
                else:
                    out.post("display_data", {"n": self.count})
            out.flush()
        elif step == "deliver":
            self._deliver(number)
        elif step == "lose":
            self.read = len(self.bench.chunks())
            far.socket = None
        elif step == "read the spool" and far.socket is None:
            self._read_spool()
        elif step == "acknowledge":
            self._acknowledge(f"{far.execution.id} {far.next_number} \n")
        elif step == "tear an acknowledgement":
            self._acknowledge(f"{far.execution.id} {far.next_number} \n"[:-number])
        elif step == "next cell":
            self._end(far)
            for _ in range(number):  # a thread goes on
                self.count += 1
                far.said.append(str(self.count))
                out.post("display_data", {"n": self.count})
            out.flush()
            self.before, self.far = far, self._begin(far)

    def _deliver(self, most: int) -> None:
        chunks = self.bench.chunks()[self.read :][:most]
        self.read += len(chunks)
        if self.far.socket is not None:
            for chunk in chunks:
                self.far.socket.feed(json.dumps(chunk))

    def _read_spool(self) -> None:
        async def read() -> None:
            for execution in (self.far.execution.previous, self.far.execution):
                if execution is not None:
                    reader = SpoolReader(
                        Spool(self.bench.directory.path),  # type: ignore[arg-type]
                        self.bench.directory.path,
                        execution,
                    )
                    while await reader.read():
                        pass

        asyncio.run(read())

    def _acknowledge(self, text: str) -> None:
        Path(self.bench.directory.path, "ack").write_text(text)

    def _end(self, far: Far) -> None:
        """The cell ends; a kernel that has lost the socket has sent its request again meanwhile."""
        self.bench.outbox.post("done", {})
        self.bench.outbox.flush()
        self.bench.outbox.end()
        if far.socket is None:
            far.socket = far.reader(over_gaps=True)
            self.read = len(self.bench.chunks())
            self.bench.outbox.resend(far.next_number, self.late_from)
        self._deliver(10_000)
        assert far.execution.result is not None
        assert far.got == far.said
        if self.before is not None:
            assert self.before.got == self.before.said

    def check(self) -> None:
        """What has come is the beginning of what was said, once and in order."""
        assert self.far.got == self.far.said[: len(self.far.got)]
        assert self.far.stray == []

    def finish(self) -> None:
        self.play("next cell", 2)
        self._end(self.far)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, max_size=40))
def test_each_line_comes_once_and_in_order_whatever_is_lost(
    bench: Bench, told: list[tuple[str, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox_module, "WINDOW_CHUNKS", 2)
        patch.setattr(outbox_module, "ACK_PATIENCE_S", 0.0)
        patch.setattr(spool_module, "SEGMENT_BYTES", 150)
        os.ftruncate(bench.outbox._protocol_fd, 0)
        os.lseek(bench.outbox._protocol_fd, 0, os.SEEK_SET)
        story = Story(bench, os.urandom(8).hex())
        for step, number in told:
            story.play(step, number)
            story.check()
        story.finish()
