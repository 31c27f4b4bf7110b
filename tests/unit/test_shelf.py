"""The shelf: values under their keys, whole or not at all, and nothing outside of its directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from daytona_kernel import values
from daytona_kernel.shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """An empty shelf."""
    return Shelf(str(tmp_path / "shelf"))


def keep(shelf: Shelf, key: str, value: object, **options: bool) -> None:
    with shelf.put(key, "a test") as file:
        file.writelines(values.dump(value, **options))


def test_what_is_put_there_is_found_again(shelf: Shelf) -> None:
    assert shelf.keys() == []
    keep(shelf, "team/x.y", [1, 2])
    keep(shelf, "a", {1, len}, pickled=True)
    assert shelf.keys() == ["a", "team/x.y"]
    entry = shelf.entry("team/x.y")
    assert entry is not None
    assert (entry.about, entry.pickled, entry.source) == ("list of 2", False, "a test")
    assert values.load(entry.path.read_bytes()) == [1, 2]
    assert entry.size == entry.path.stat().st_size
    pickled = shelf.entry("a")
    assert pickled is not None
    assert pickled.pickled
    assert shelf.entry("b") is None


def test_only_its_user_can_read_it(shelf: Shelf) -> None:
    keep(shelf, "team/x", 1)
    for path in (shelf.folder, shelf.folder / "team", shelf.path("team/x")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_value_that_did_not_come_whole_leaves_the_one_before(shelf: Shelf) -> None:
    keep(shelf, "x", 1)

    def lost_on_the_way() -> None:
        with shelf.put("x", "a test") as file:
            file.write(b"half")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        lost_on_the_way()
    entry = shelf.entry("x")
    assert entry is not None
    assert values.load(entry.path.read_bytes()) == 1
    assert os.listdir(shelf.folder) == ["x.value"]


def test_what_is_removed_takes_its_empty_directories_along(shelf: Shelf) -> None:
    keep(shelf, "a/b/c", 1)
    keep(shelf, "a/d", 2)
    assert shelf.remove("a/b/c")
    assert not shelf.remove("a/b/c")
    assert shelf.keys() == ["a/d"]
    assert sorted(os.listdir(shelf.folder / "a")) == ["d.value"]
    assert shelf.remove("a/d")
    assert os.listdir(shelf.folder) == []


@pytest.mark.parametrize(
    "key",
    ["", "/x", "x/", "../x", "a/../x", "a//x", ".x", "a\\x", "a b", "ü", "a\n", "a" * 65, "a/" * 8 + "a"],
)
def test_keys_that_could_lead_elsewhere_are_none(shelf: Shelf, key: str) -> None:
    for use in (shelf.path, shelf.entry, shelf.remove):
        with pytest.raises(ValueError, match="no name"):
            use(key)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"[]\n",
        b'{"from": "x"}\n',
        b'{"from": "x"}\nother',
        b"{}\n" + values.MAGIC + b"\xff" * 8,
        b"{}\n" + values.MAGIC + (2).to_bytes(8, "big") + b"[]",
        b"{}\n" + values.MAGIC + (3).to_bytes(8, "big") + b"\xff\xfe\xfd",
    ],
)
def test_files_of_another_form_are_listed_without_words(shelf: Shelf, content: bytes) -> None:
    shelf.folder.mkdir()
    shelf.path("odd").write_bytes(content)
    entry = shelf.entry("odd")
    assert entry is not None
    assert (entry.about, entry.pickled, entry.size) == ("", False, len(content))


def test_other_files_of_the_directory_are_no_values(shelf: Shelf) -> None:
    keep(shelf, "x", 1)
    for name in ("notes.txt", ".hidden.value", "a b.value"):
        (shelf.folder / name).write_text("")
    assert shelf.keys() == ["x"]


def test_it_is_among_jupyters_own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    assert Shelf().folder == tmp_path / "daytona-kernel" / "shelf"
