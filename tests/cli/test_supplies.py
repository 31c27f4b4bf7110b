"""What is sent along with a notebook, and what never is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daytona_kernel import supplies
from daytona_kernel.supplies import SuppliesError, files_beside, files_to_upload, parse_upload


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = [
        "book.ipynb",
        "other.ipynb",
        "book.out.ipynb",
        "book.files/plot.png",
        "data/one.csv",
        "data/deep/two.csv",
        "helper.py",
        ".env",
        ".git/config",
        "__pycache__/helper.pyc",
        "venv/pyvenv.cfg",
        "venv/lib/x.py",
        "out/book.ipynb",
    ]
    for name in names:
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "outside.txt").write_text("private")
    (tmp_path / "work" / "link.txt").symlink_to(tmp_path / "outside.txt")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_beside_sends_what_a_notebook_may_read_and_nothing_hidden_made_or_linked(folder: Path) -> None:
    found = files_beside(folder / "book.ipynb", [folder / "out"])
    assert [name for _, name in found] == ["helper.py", "other.ipynb", "data/one.csv", "data/deep/two.csv"]
    assert all(path.read_text() == name for path, name in found)


def test_beside_refuses_a_folder_that_is_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supplies, "BESIDE_LIMIT", 20)
    with pytest.raises(SuppliesError, match="--upload"):
        files_beside(folder / "book.ipynb")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data", ["data/one.csv", "data/deep/two.csv"]),
        ("data/deep", ["data/deep/two.csv"]),
        ("./data/deep/", ["data/deep/two.csv"]),
        ("helper.py", ["helper.py"]),
        ("../outside.txt", ["outside.txt"]),
        ("helper.py:/opt/h.py", ["/opt/h.py"]),
        ("helper.py:lib/", ["lib/helper.py"]),
        ("data/deep:in", ["in/two.csv"]),
        ("data/deep:.", ["./two.csv"]),
    ],
)
def test_where_an_upload_goes(folder: Path, word: str, expected: list[str]) -> None:
    found = files_to_upload([parse_upload(word)])
    assert sorted(name for _, name in found) == sorted(expected)


def test_an_absolute_path_goes_by_its_name(folder: Path) -> None:
    assert [name for _, name in files_to_upload([parse_upload(str(folder / "data" / "deep"))])] == [
        "deep/two.csv"
    ]


@pytest.mark.parametrize("word", ["nothing", "nothing:there", "", ":x", "x" * 300])
def test_what_is_not_there_is_refused(folder: Path, word: str) -> None:
    with pytest.raises(SuppliesError, match="there is no"):
        parse_upload(word)


def test_what_can_not_be_sent_of_a_folder_is_left_out_and_told(folder: Path) -> None:
    (folder / "data" / "broken").symlink_to("nowhere")
    (folder / "data" / "link.csv").symlink_to("one.csv")
    (folder / "data" / "raw").symlink_to("deep")
    os.mkfifo(folder / "data" / "pipe")
    told: list[str] = []
    found = files_to_upload([parse_upload("data")], told.append)
    assert [name for _, name in found] == ["data/link.csv", "data/one.csv", "data/deep/two.csv"]
    assert told == [
        "data/raw is not uploaded: a link to a folder; name it with --upload",
        "data/broken is not uploaded: a broken link",
        "data/pipe is not uploaded: no file",
    ]
    assert [name for _, name in files_to_upload([parse_upload("data/raw")])] == ["data/raw/two.csv"]


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(SuppliesError, match="not a regular file"):
        files_to_upload([parse_upload("pipe")])
