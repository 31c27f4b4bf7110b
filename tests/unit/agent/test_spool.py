"""Recordings: every line of an execution is kept until the kernel has it, whatever becomes of the disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daytona_kernel.agent import spool as module
from daytona_kernel.agent.spool import Recording, SpoolDirectory


def numbered(*numbers: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in numbers)


def fill(recording: Recording, count: int, each: int = 1) -> None:
    for first in range(0, count, each):
        recording.append(first, numbered(*range(first, first + each)))


def kept(recording: Recording, start: int = 0) -> list[int]:
    return [int(line.split()[1]) for line in recording.read(start)]


def names(directory: SpoolDirectory) -> set[str]:
    return set(os.listdir(directory.path))


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 30)


def test_the_directory_is_for_its_owner_alone(directory: SpoolDirectory) -> None:
    assert os.stat(directory.path).st_mode & 0o777 == 0o700
    assert names(directory) == set()


def test_lines_are_read_from_any_number_on(directory: SpoolDirectory) -> None:
    recording = Recording(directory, "e1")
    fill(recording, 9, each=3)
    assert kept(recording) == list(range(9))
    assert kept(recording, 4) == [4, 5, 6, 7, 8]
    assert kept(recording, 100) == []


@pytest.mark.usefixtures("small_segments")
def test_a_new_file_begins_when_one_is_full(directory: SpoolDirectory) -> None:
    recording = Recording(directory, "e1")
    fill(recording, 20)
    assert len(names(directory)) > 2
    assert all(name.startswith("e1.") for name in names(directory))
    assert kept(recording, 7) == list(range(7, 20))


@pytest.mark.usefixtures("small_segments")
def test_files_that_the_kernel_has_are_removed_and_no_other(directory: SpoolDirectory) -> None:
    recording = Recording(directory, "e1")
    fill(recording, 20)
    recording.trim(10)
    found = kept(recording)
    assert 0 < found[0] <= 10
    assert found[-1] == 19
    recording.trim(1000)
    assert kept(recording)[-1] == 19


@pytest.mark.usefixtures("small_segments")
def test_the_limit_is_held_for_a_kernel_that_is_gone(
    directory: SpoolDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIMIT_BYTES", 100)
    recording = Recording(directory, "e1")
    for number in range(100):
        recording.append(number, numbered(number))
        recording.shrink()
    assert sum(os.path.getsize(os.path.join(directory.path, name)) for name in names(directory)) < 200
    assert kept(recording, 0)[-1] == 99


@pytest.mark.usefixtures("small_segments")
def test_a_small_disk_is_not_filled_for_a_kernel_that_is_gone(
    directory: SpoolDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of what is free: here there are 400 bytes, with those that are kept already."""
    recording = Recording(directory, "e1")

    def statvfs(path: str) -> Any:
        used = sum(os.path.getsize(os.path.join(path, name)) for name in names(directory))
        return SimpleNamespace(f_bavail=max(0, 400 - used), f_frsize=1)

    monkeypatch.setattr(module.os, "statvfs", statvfs)
    for number in range(100):
        recording.append(number, numbered(number))
        recording.shrink()
    assert sum(os.path.getsize(os.path.join(directory.path, name)) for name in names(directory)) < 200
    assert kept(recording, 0)[-1] == 99


def test_discarding_removes_the_files(directory: SpoolDirectory) -> None:
    recording = Recording(directory, "e1")
    fill(recording, 5)
    recording.discard()
    assert names(directory) == set()
    assert kept(recording) == []


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (None, 0),
        ("e1 7 \n", 7),
        ("e1 7", 0),
        ("e1 7 ", 0),
        ("e2 7 \n", 0),
        ("e1 -7 \n", 0),
        ("e1 x \n", 0),
        ("", 0),
        ("\u20ac", 0),
    ],
)
def test_an_acknowledgement_counts_only_when_it_is_whole_and_ours(
    directory: SpoolDirectory, content: str | None, number: int
) -> None:
    if content is not None:
        Path(directory.path, "ack").write_text(content, "utf-8")
    assert Recording(directory, "e1").acknowledged() == number


def test_a_directory_that_user_code_removes_is_made_again_with_all_lines(directory: SpoolDirectory) -> None:
    recording = Recording(directory, "e1")
    fill(recording, 5)
    shutil.rmtree(directory.path)
    recording.append(5, numbered(5))
    assert kept(recording) == [0, 1, 2, 3, 4, 5]


def test_a_descriptor_that_user_code_closes_loses_no_line_from_then_on(directory: SpoolDirectory) -> None:
    recording = Recording(directory, "e1")
    fill(recording, 3)
    os.close(recording._fd)
    for number in range(3, 6):
        recording.append(number, numbered(number))
    assert kept(recording)[-3:] == [3, 4, 5]
    recording.close()


def test_without_any_place_for_files_memory_holds_the_last_lines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(blocked))
    monkeypatch.setattr(module, "MEMORY_BYTES", 60)
    directory = SpoolDirectory("test")
    directory.path = ""
    recording = Recording(directory, "e1")
    fill(recording, 50)
    found = kept(recording)
    assert found[-1] == 49
    assert found == list(range(found[0], 50))
    assert len(found) < 15
