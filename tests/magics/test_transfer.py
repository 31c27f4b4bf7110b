"""The transfer engine against a place that is not trusted, without one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daytona_kernel import supplies
from daytona_kernel.errors import ConnectionFailed, SandboxProtocolError
from daytona_kernel.magics import progress
from daytona_kernel.magics.host import Bundle, Host
from daytona_kernel.magics.recordings import local_name
from daytona_kernel.magics.transfers import _download_items
from daytona_kernel.toolbox import Endpoint, Toolbox
from daytona_kernel.transfer import (
    BATCH_BYTES,
    Item,
    Outcome,
    UnsafeName,
    _Target,
    _unpack,
    batches,
    download,
    safe_target,
)

HOSTILE = ["/etc/passwd", "../x", "a/../../x", "..", "", ".", "a\\..\\x", "a\0b", "a/..", "/"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises((UnsafeName, ValueError)):
        safe_target(tmp_path, name)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "..", ".", "", "b c", "é", "\\", "\0"]), max_size=5).map("/".join))
def test_whatever_the_name_the_target_is_inside(name: str) -> None:
    folder = Path("/nowhere/in/particular")
    try:
        target = safe_target(folder, name)
    except UnsafeName:
        return
    assert target.resolve().is_relative_to(folder)
    assert target != folder


def test_a_list_with_hostile_names_gives_errors_and_no_files(tmp_path: Path) -> None:
    outcome = Outcome()
    entries = [["/sandbox/x", name, 1, 0o6777, 0.0] for name in HOSTILE] + [
        ["/sandbox/f", "ok", 1, 0o644, 0.0]
    ]
    items = _download_items(entries, ["x/"], f"{tmp_path}/", outcome)
    assert [item.local for item in items] == [tmp_path / "ok"]
    assert len(outcome.errors) == len(HOSTILE)


def test_two_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    outcome = Outcome()
    entries = [["/a/f", "f", 1, 0o644, 0.0], ["/b/f", "f", 1, 0o644, 0.0]]
    assert len(_download_items(entries, ["a/f", "b/f"], f"{tmp_path}/", outcome)) == 1
    assert "second file" in outcome.errors[0][1]


ASKED: list[tuple[str, list[str], list[str]]] = [
    ("plot.png", ["plot.png"], [".ssh/rc", "numpy.py", "plot.png.py", "x/plot.png", "PLOT.PNG"]),
    ("~/run/plot.png", ["plot.png"], ["run", "~"]),
    ("results", ["results", "results/deep/.x", "results/a"], [".results", "results2/a", "a/results"]),
    ("results/", ["a", ".git/hooks/x"], []),
    ("data/../results", ["results/a"], ["data/a"]),
    ("*.csv", ["a.csv", "dir.csv/x"], [".a.csv", "a.csv.py", "a/b.csv", ".profile"]),
    ("run/*/log?.txt", ["log1.txt"], ["log.txt", "run"]),
    (".*rc", [".bashrc"], ["bashrc"]),
    ("data [1]", ["data [1]/x"], ["data 2/x"]),
    ("**", ["a", "a/.b"], [".profile"]),
    (".", ["work/a", "work/.git/x"], [".profile", ".ssh/rc"]),
    ("~", ["daytona/a"], [".profile"]),
]


@pytest.mark.parametrize(("source", "wanted", "others"), ASKED)
def test_only_what_was_asked_for_is_written(
    tmp_path: Path, source: str, wanted: list[str], others: list[str]
) -> None:
    """The list is the sandbox's: beside other files of a person, names like these are programs."""
    outcome = Outcome()
    entries = [[f"/sandbox/{name}", name, 1, 0o644, 0.0] for name in [*wanted, *others]]
    items = _download_items(entries, ["no such", source], f"{tmp_path}/", outcome)
    assert [item.local for item in items] == [tmp_path / name for name in wanted]
    assert [path for path, _ in outcome.errors] == [f"/sandbox/{name}" for name in others]


async def test_only_what_matches_is_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.png", "out/b.png", "conftest.py", "out/.ssh/rc", "model/deep/weights"]
    taken_items: list[Item] = []

    async def run_script(box: Toolbox, script: str, **request: Any) -> Any:
        files = [[f"/home/u/{name}", name.rpartition("/")[2], 1, 0o644, 0.0] for name in names]
        return {"files": files, "errors": []} if "sources" in request else {"path": "/home/u"}

    async def download(box: Toolbox, items: list[Item], **options: Any) -> Outcome:
        taken_items.extend(items)
        return Outcome()

    monkeypatch.setattr(supplies.remote, "run_script", run_script)
    monkeypatch.setattr(supplies.transfer, "download", download)
    box = Toolbox(Endpoint("http://127.0.0.1:1", {}))
    taken = await supplies.take(box, ["*.png", "model"], tmp_path)
    assert [item.local for item in taken_items] == [
        tmp_path / name for name in ("a.png", "out/b.png", "model/deep/weights")
    ]
    assert len(taken.problems) == 2


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("demo.mp4", "demo.mp4"),
        ("numpy.py", "recording.mp4"),
        ("../../.ssh/rc", "recording.mp4"),
        (".mp4", "recording.mp4"),
        ("-o x.mp4", "recording.mp4"),
        ("a b.webm", "a_b.webm"),
    ],
)
def test_a_recording_has_the_name_of_a_video(name: str, here: str) -> None:
    assert local_name(name) == here


@pytest.mark.parametrize(
    "entries", [[["a"]], [["a", "b", "x", 0, 0]], "ab", [["a", "b", 1, 0, float("nan")]], 5]
)
def test_a_list_of_unknown_form_is_an_error(tmp_path: Path, entries: Any) -> None:
    with pytest.raises(SandboxProtocolError):
        _download_items(entries, ["x"], str(tmp_path), Outcome())


def bundle(*parts: bytes | str) -> bytes:
    head = json.dumps([part if isinstance(part, str) else len(part) for part in parts]).encode()
    contents = b"".join(part for part in parts if isinstance(part, bytes))
    return len(head).to_bytes(8, "big") + head + contents


def item(folder: Path, name: str) -> Item:
    return Item(folder / name, f"/s/{name}", 3, 0o4755, 1e9)


def test_parts_become_files_and_errors_are_named(tmp_path: Path) -> None:
    outcome = Outcome()
    group = [item(tmp_path, name) for name in ("a", "b", "c")]
    assert _unpack(bundle(b"body", "gone", b""), group, False, outcome) == 4
    assert (tmp_path / "a").read_bytes() == b"body"
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "c").read_bytes() == b""
    assert outcome.errors == [("/s/b", "gone")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


@pytest.mark.parametrize(
    "data",
    [
        bundle(b"first", b"second")[:-1],
        bundle(b"first", b"second") + b"x",
        bundle(b"first"),
        bundle(b"first", b"second")[:12],
        b"",
        b"\xff" * 100,
        (2).to_bytes(8, "big") + b"{}",
        (7).to_bytes(8, "big") + b"[1, -1]",
        (10).to_bytes(8, "big") + b"[1, 0.5  ]x",
    ],
)
def test_a_bundle_that_is_not_whole_is_an_error_and_writes_nothing(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConnectionFailed):
        _unpack(data, [item(tmp_path, "a"), item(tmp_path, "b")], False, Outcome())
    assert not list(tmp_path.iterdir())


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    outcome = Outcome()
    target = _Target(item(tmp_path, "a"), False)
    assert target.begin(outcome)
    target.write(b"new")
    (tmp_path / "a").write_text("mine")
    with pytest.raises(FileExistsError):
        target.finish()
    target.discard()
    assert (tmp_path / "a").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_target_that_is_discarded_leaves_nothing_whatever_its_threads_do_later(tmp_path: Path) -> None:
    outcome = Outcome()
    late = _Target(item(tmp_path, "late"), False)
    late.discard()
    assert not late.begin(outcome)
    begun = _Target(item(tmp_path, "begun"), False)
    assert begun.begin(outcome)
    begun.discard()
    begun.write(b"too late")
    begun.finish()
    assert not list(tmp_path.iterdir())
    assert not outcome.errors


@pytest.mark.parametrize("step", ["begin", "write"])
async def test_a_download_that_is_cancelled_beside_its_thread_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    at_it, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    work = getattr(_Target, step)

    def slow(target: _Target, *args: Any) -> Any:
        at_it.set()
        go_on.wait(30)
        try:
            return work(target, *args)
        finally:
            ended.set()

    async def endless(*_: object) -> AsyncIterator[list[bytes]]:
        while True:
            yield [bytes(1 << 20)]

    monkeypatch.setattr(_Target, step, slow)
    monkeypatch.setattr("daytona_kernel.transfer.gathered", endless)
    toolbox = Toolbox(Endpoint("http://nowhere.test", {}))
    big = Item(tmp_path / "big", "/s/big", 1 << 40, 0o644, 1e9)
    moving = asyncio.ensure_future(download(toolbox, [big], force=False, count=lambda _: None))
    await asyncio.to_thread(at_it.wait, 30)
    moving.cancel()
    await asyncio.wait([moving])
    go_on.set()
    await asyncio.to_thread(ended.wait, 30)
    assert not list(tmp_path.iterdir())


def test_batches_fit_in_memory(tmp_path: Path) -> None:
    items = [Item(tmp_path, str(n), 1 << 20, 0, 0.0) for n in range(20)]
    groups = batches(items)
    assert [one for group in groups for one in group] == items
    assert all(sum(one.size for one in group) <= BATCH_BYTES for group in groups)


class ListeningHost(Host):
    """A host that keeps the lines of progress."""

    def __init__(self) -> None:
        self.lines: list[str | None] = []

    def progress(self, line: str | None) -> None:
        self.lines.append(line)

    def write(self, text: str, *, error: bool = False) -> None:
        raise AssertionError

    def display(self, data: Bundle, metadata: Bundle | None = None) -> None:
        raise AssertionError

    def publish(
        self, type: str, content: dict[str, Any], metadata: Bundle, buffers: tuple[bytes, ...]
    ) -> None:
        raise AssertionError

    def show_status(self, text: str | None) -> None:
        raise AssertionError

    def ask_blocking(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        raise AssertionError


def test_progress_is_one_line_with_rate_and_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SHOW_AFTER_S", 0.0)
    monkeypatch.setattr(progress, "UPDATE_S", 0.0)
    host = ListeningHost()
    with progress.Progress(host, "upload", 100 << 20) as bar:
        bar.add(50 << 20)
    assert host.lines[0] is not None
    assert host.lines[0].startswith("upload:  50%")
    assert "50.0M/100M" in host.lines[0]
    assert host.lines[-1] is None


def test_what_is_quick_shows_no_progress() -> None:
    host = ListeningHost()
    with progress.Progress(host, "upload", 10) as bar:
        bar.add(10)
    assert not host.lines
