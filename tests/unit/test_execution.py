"""An execution and its two readers: the interpreter's chunks and the agent's spool feed the same receiver."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from daytona_kernel import execution as module
from daytona_kernel import wire
from daytona_kernel.errors import ConnectionFailed
from daytona_kernel.execution import Close, Execution, SocketReader, SpoolReader, classify_close


@dataclass
class Watched:
    """An execution and all that comes of it."""

    frames: list[wire.Frame] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.execution = Execution(
            {"id": "e1", "type": "execute"},
            self.frames.append,
            lambda name, text: self.texts.append((name, text)),
        )

    @property
    def said(self) -> list[str]:
        return [frame.content["text"] for frame in self.frames]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def stream(text: str) -> wire.Frame:
    return wire.Frame("e1", "stream", {"name": "stdout", "text": text})


def lines(*frames: wire.Frame, start: int = 0) -> list[str]:
    made: list[str] = []
    for frame in frames:
        made += wire.encode(frame, start + len(made))
    return made


def parsed(*frames: wire.Frame, start: int = 0) -> list[wire.Line]:
    items = [item for line in lines(*frames, start=start) for item in wire.Splitter().feed(line)]
    return [item for item in items if isinstance(item, wire.Line)]


READY, DONE = wire.Frame("e1", "ready", {"token": "t"}), wire.Frame("e1", "done", {"reply": {"status": "ok"}})


# -- what a socket's end means -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "meaning"),
    [
        (1000, "", Close.FINISHED),
        (1001, "worker process ended", Close.WORKER_DIED),
        (1001, "context shutdown", Close.LOST),
        (1001, "", Close.LOST),
        (4008, "", Close.INTERRUPTED),
        (1008, "context not found: abc", Close.REFUSED),
        (1008, "context is not active", Close.REFUSED),
        (1008, "slow consumer", Close.LOST),
        (1011, "failed to get default context: no python", Close.REFUSED),
        (1011, "", Close.LOST),
        (1011, "context canceled", Close.LOST),  # a proxy's, in Go's words: the interpreter has the request
        (1008, "read: context deadline exceeded.", Close.LOST),
        (1006, "", Close.LOST),
        (1002, "invalid JSON payload", Close.LOST),
        (None, "", Close.LOST),
    ],
)
def test_close_codes_of_the_interpreter(code: int | None, reason: str, meaning: Close) -> None:
    assert classify_close(code, reason) is meaning


# -- the execution -------------------------------------------------------------------------------------


def test_an_execution_has_started_with_its_first_frame_and_ends_with_done(watched: Watched) -> None:
    execution = watched.execution
    ready, text, done = parsed(READY, stream("a"), DONE)
    assert not execution.started
    execution.feed(ready)
    assert execution.started
    execution.feed(text)
    assert execution.result is None
    assert not execution.done.is_set()
    execution.feed(done)
    assert execution.result == {"reply": {"status": "ok"}}
    assert execution.done.is_set()
    assert watched.said == ["a"]


def test_a_further_copy_asks_for_the_lines_that_have_not_come(watched: Watched) -> None:
    for line in parsed(READY, stream("a")):
        watched.execution.feed(line)
    code = watched.execution.resend_code()
    assert '\\"from\\":2' in code
    assert '\\"id\\":\\"e1\\"' in code


# -- the socket's reader -------------------------------------------------------------------------------


def chunk(text: str, kind: str = "stdout") -> str:
    return json.dumps({"type": kind, "text": text, "name": "", "value": "", "traceback": ""})


@pytest.fixture
def acknowledged() -> list[int]:
    return []


@pytest.fixture
def reader(watched: Watched, acknowledged: list[int]) -> SocketReader:
    return SocketReader(watched.execution, lambda execution, size: acknowledged.append(size))


def test_chunks_become_frames_wherever_they_are_cut(watched: Watched, reader: SocketReader) -> None:
    text = "".join(lines(READY, stream("a"), stream("b"), DONE))
    for start in range(0, len(text), 7):
        reader.feed(chunk(text[start : start + 7]))
    assert watched.said == ["a", "b"]
    assert watched.execution.result is not None


def test_output_that_is_no_frame_is_shown_under_its_streams_name(
    watched: Watched, reader: SocketReader
) -> None:
    reader.feed(chunk("loose\n"))
    reader.feed(chunk("bad\n", "stderr"))
    reader.feed(chunk(wire.RS + '{"x":'))
    reader.finish()
    assert watched.texts == [("stdout", "loose\n"), ("stderr", "bad\n"), ("stdout", wire.RS + '{"x":')]


@pytest.mark.parametrize(
    "raw", ["", "not json", "[]", "null", "3", '{"type":"stdout"}', '{"type":"stdout","text":7}', b"\xff\xfe"]
)
def test_a_chunk_of_unknown_form_does_no_harm(
    watched: Watched, reader: SocketReader, raw: str | bytes
) -> None:
    reader.feed(raw)
    reader.feed(chunk("".join(lines(READY, DONE))))
    assert watched.texts == []
    assert watched.execution.result is not None
    assert reader.heard


def test_control_and_unknown_chunks_are_not_shown(watched: Watched, reader: SocketReader) -> None:
    reader.feed(chunk("completed", "control"))
    reader.feed(chunk("x", "new_in_next_version"))
    assert watched.texts == []


def test_every_stdout_chunk_is_acknowledged_with_its_size(
    reader: SocketReader, acknowledged: list[int]
) -> None:
    raw = chunk("abc")
    reader.feed(raw)
    assert acknowledged == [len(raw)]


def error(name: str, value: str) -> str:
    return json.dumps({"type": "error", "text": "", "name": name, "value": value, "traceback": ""})


def test_a_missing_agent_is_noticed_by_its_name_error(watched: Watched, reader: SocketReader) -> None:
    reader.feed(error("NameError", "name '__daytona__' is not defined"))
    assert reader.agent_missing
    assert watched.texts == []


def test_another_error_of_the_interpreter_is_shown(watched: Watched, reader: SocketReader) -> None:
    reader.feed(error("SyntaxError", "bad agent"))
    assert not reader.agent_missing
    assert watched.texts == [("stderr", "SyntaxError: bad agent\n")]


def test_a_gap_is_raised_and_not_skipped(watched: Watched, reader: SocketReader) -> None:
    reader.feed(chunk(lines(READY)[0]))
    with pytest.raises(wire.Gap):
        reader.feed(chunk(lines(stream("late"), start=5)[0]))
    assert watched.said == []


# -- the spool's reader --------------------------------------------------------------------------------


class SpoolFiles:
    """The two toolbox calls that the reader makes, on a dict of files."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] | None = {}
        self.fails = False
        self.swallows = False
        self.downloads: list[tuple[str, int]] = []
        self.silences: list[float] = []

    async def list_files(self, path: str) -> dict[str, int] | None:
        assert path == "/spool"
        if self.fails:
            raise ConnectionFailed("No.")
        return None if self.files is None else {name: len(data) for name, data in self.files.items()}

    async def version(self) -> str:
        return "0.190.0"

    async def download(
        self, path: str, offset: int = 0, most: int | None = None, *, silence_s: float = 30
    ) -> bytes | None:
        self.downloads.append((path, offset))
        self.silences.append(silence_s)
        assert self.files is not None
        if self.swallows:
            raise ConnectionFailed("No answer.")
        data = self.files.get(path.removeprefix("/spool/"))
        return None if data is None else data[offset:][:most]


@pytest.fixture
def files() -> SpoolFiles:
    return SpoolFiles()


def spool_reader(files: Any, watched: Watched) -> SpoolReader:
    return SpoolReader(files, "/spool", watched.execution)


async def test_the_spool_is_read_from_where_the_last_read_ended(files: SpoolFiles, watched: Watched) -> None:
    reader = spool_reader(files, watched)
    first, second, third = lines(READY, stream("a"), DONE)
    files.files = {"e1.0": (first + second[:5]).encode()}
    assert await reader.read()
    assert watched.said == []
    files.files = {"e1.0": (first + second + third).encode()}
    assert await reader.read()
    assert watched.said == ["a"]
    assert watched.execution.result is not None
    assert files.downloads == [("/spool/e1.0", 0), ("/spool/e1.0", len(first) + 5)]
    assert not await reader.read()


async def test_a_long_recording_is_read_in_pieces(
    files: SpoolFiles, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow line gets on piece by piece: what has come is not asked for again."""
    monkeypatch.setattr(module, "PIECE_BYTES", 50)
    data = "".join(lines(READY, *[stream(str(index)) for index in range(5)])).encode()
    files.files = {"e1.0": data}
    assert await spool_reader(files, watched).read()
    assert watched.said == [str(index) for index in range(5)]
    assert [offset for _, offset in files.downloads] == [*range(0, len(data) + 1, 50)]


async def test_a_swallowed_read_is_given_up_soon_and_later_each_time(
    files: SpoolFiles, watched: Watched
) -> None:
    files.files = {"e1.0": lines(READY)[0].encode()}
    files.swallows = True
    reader = spool_reader(files, watched)
    for _ in range(8):
        with pytest.raises(ConnectionFailed):
            await reader.read()
    assert files.silences == [1, 2, 4, 8, 16, 30, 30, 30]
    files.swallows = False
    assert await reader.read()
    files.files["e1.0"] += lines(DONE, start=1)[0].encode()
    await reader.read()
    assert files.silences[-1] == 1


async def test_segments_are_read_in_their_numerical_order(files: SpoolFiles, watched: Watched) -> None:
    made = lines(READY, *[stream(str(index)) for index in range(12)])
    by_name = sorted((f"e1.{index}", line.encode()) for index, line in enumerate(made))
    files.files = dict(by_name)  # as a directory is listed: 10 comes before 2
    assert await spool_reader(files, watched).read()
    assert watched.said == [str(index) for index in range(12)]


async def test_files_of_other_executions_and_other_files_are_not_touched(
    files: SpoolFiles, watched: Watched
) -> None:
    files.files = {"e2.0": b"x", "ack": b"e1 0 \n", "e1.tmp": b"x", "input-9": b"{}", "e1.": b""}
    reader = spool_reader(files, watched)
    assert not await reader.read()
    assert not reader.found
    assert files.downloads == []


async def test_lines_the_socket_brought_already_are_not_shown_twice(
    files: SpoolFiles, watched: Watched
) -> None:
    for line in parsed(READY, stream("a")):
        watched.execution.feed(line)
    files.files = {"e1.0": "".join(lines(READY, stream("a"), stream("b"))).encode()}
    await spool_reader(files, watched).read()
    assert watched.said == ["a", "b"]


async def test_lost_segments_are_told_and_the_rest_is_shown(files: SpoolFiles, watched: Watched) -> None:
    files.files = {"e1.3": "".join(lines(stream("late"), DONE, start=40)).encode()}
    reader = spool_reader(files, watched)
    assert await reader.read()
    assert watched.texts == [("stderr", "\n[daytona-kernel: 40 blocks of output were lost]\n")]
    assert watched.said == ["late"]
    assert watched.execution.result is not None


async def test_a_spool_that_is_gone_has_nothing_to_read(files: SpoolFiles, watched: Watched) -> None:
    files.files = None
    reader = spool_reader(files, watched)
    assert not await reader.read()
    assert not reader.found
    assert not await SpoolReader(files, "", watched.execution).read()  # type: ignore[arg-type]


async def test_a_segment_removed_between_the_list_and_the_read_is_no_error(
    files: SpoolFiles, watched: Watched
) -> None:
    reader = spool_reader(files, watched)
    files.files = {"e1.0": lines(READY)[0].encode()}
    await reader.read()

    async def vanished(path: str, offset: int = 0, most: int | None = None, **options: Any) -> None:
        return None

    files.files["e1.0"] += lines(stream("a"), start=1)[0].encode()
    files.download = vanished  # type: ignore[method-assign, assignment]
    assert not await reader.read()
    assert reader.found
