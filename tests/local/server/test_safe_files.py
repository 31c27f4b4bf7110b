"""Writing where a sandbox may have planted links."""

from __future__ import annotations

from pathlib import Path

import pytest

from daytona_kernel.local.safe_files import SafeDir, has_link, remove_tree


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A directory whose names all lead out, and what they lead to."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "file").write_text("theirs")
    (inside / "file").symlink_to(outside / "file")
    (inside / "missing").symlink_to(outside / "missing")
    (inside / "directory").symlink_to(outside)
    return inside


def test_writes_stay_inside(planted: Path) -> None:
    """Links are replaced by what the server wants to write, never followed."""
    with SafeDir.open(planted) as top:
        assert top.has("missing")
        top.write("file", "ours")
        top.write("missing", "ours", 0o755)
        with top.below("directory") as below, below.below("deeper") as deeper:
            deeper.write("x", "ours")
            deeper.link("l", "x")
    assert (planted / "directory" / "deeper" / "l").read_text() == "ours"
    assert (planted / "missing").stat().st_mode & 0o777 == 0o755
    outside = planted.parent / "outside"
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (outside / "file").read_text() == "theirs"


def test_directory_that_is_a_link_is_not_opened(planted: Path) -> None:
    """The server's own directory must be a real one."""
    with pytest.raises(OSError, match="directory"), SafeDir.open(planted / "directory"):
        pass


def test_links_in_a_path_are_seen(planted: Path) -> None:
    """Every component counts; what does not exist yet is fine."""
    assert has_link(planted, "directory/x") is True
    assert has_link(planted, "file") is True
    assert has_link(planted, "new/place") is False


def test_removal_takes_locked_directories_and_leaves_targets(planted: Path) -> None:
    """A tree is removed whole, links are removed as links."""
    locked = planted / "a" / "b"
    locked.mkdir(parents=True)
    (locked / "c").write_text("x")
    locked.chmod(0)
    locked.parent.chmod(0o500)
    remove_tree(planted)
    assert not planted.exists()
    assert (planted.parent / "outside" / "file").read_text() == "theirs"
