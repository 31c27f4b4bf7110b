"""Control groups, on directories that look like the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daytona_kernel.local import cgroups
from daytona_kernel.local.cgroups import PREFIX, Cgroups, remove_abandoned

GIB = 2**30
NAME = f"{PREFIX}{os.getpid()}-test"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hierarchy; the process's place in it is written to ``own``."""
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "own")
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def unified(root: Path, controllers: str) -> Path:
    """A slice of a user's session manager that may be written, with our own service in it."""
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    apps = root / "user.slice" / "app.slice"
    (apps / "own.service").mkdir(parents=True)
    (apps / "cgroup.subtree_control").write_text(controllers)
    (apps / "cgroup.procs").touch()
    cgroups.OWN.write_text("0::/user.slice/app.slice/own.service\n")
    return apps / NAME


def test_unified_hierarchy_gets_the_limits_next_to_our_own_group(root: Path) -> None:
    """Processes live in leaves there, so the groups must not be below our own."""
    base = unified(root, "cpu memory pids\n")
    groups = Cgroups(NAME)
    assert groups.controllers == {"memory", "pids", "cpu"}
    groups.limit("box", [11], memory=2 * GIB, cpus=2)
    group = base / "box"
    assert (group / "memory.max").read_text() == str(2 * GIB)
    assert (group / "memory.swap.max").read_text() == "0"
    assert (group / "cpu.max").read_text() == "200000 100000"
    assert (group / "pids.max").read_text() == str(cgroups.MAX_PROCESSES)
    assert (group / "cgroup.procs").read_text() == "11"
    assert groups.pids("box") == [11]


def test_unified_hierarchy_gives_what_is_delegated(root: Path) -> None:
    """A session without the CPU controller limits the rest; one without processes nothing at all."""
    unified(root, "memory pids\n")
    assert Cgroups(NAME).controllers == {"memory", "pids"}


def test_unified_hierarchy_that_may_not_be_written_is_left_alone(root: Path) -> None:
    """No controller, and no answer to "which processes"."""
    base = unified(root, "cpu\n")
    groups = Cgroups(NAME)
    assert groups.controllers == frozenset()
    assert groups.pids("box") is None
    assert not base.exists()


def test_old_hierarchies_get_the_limits_below_our_own_group(root: Path) -> None:
    """One directory for each controller, under other names of files."""
    for controller in ("memory", "cpu", "pids"):
        (root / controller / "mine").mkdir(parents=True)
    cgroups.OWN.write_text("4:memory:/mine\n3:pids:/mine\n2:cpu:/mine\n1:name=systemd:/mine\n")
    groups = Cgroups(NAME)
    assert groups.controllers == {"memory", "pids", "cpu"}
    groups.limit("box", [11, 12], memory=GIB, cpus=1)
    base = root / "memory" / "mine" / NAME
    assert (base / "box" / "memory.limit_in_bytes").read_text() == str(GIB)
    assert (root / "cpu" / "mine" / NAME / "box" / "cpu.cfs_quota_us").read_text() == "100000"


def test_groups_go_with_their_sandbox_and_with_the_server(root: Path) -> None:
    """As directories without files of their own do."""
    (root / "pids").mkdir()
    cgroups.OWN.write_text("3:pids:/\n")
    groups = Cgroups(NAME)
    base = root / "pids" / NAME
    for name in ("one", "two"):
        (base / name).mkdir()
        groups._made.add(base / name)
    groups.remove("one")
    assert [path.name for path in base.iterdir()] == ["two"]
    groups.close()
    assert not base.exists()


def test_groups_of_killed_servers_are_removed(root: Path) -> None:
    """Of processes that are gone; those of living ones, and those that can not be removed, stay."""
    gone, living = root / f"{PREFIX}999999999-a", root / f"{PREFIX}{os.getpid()}-b"
    for base in (gone, living):
        (base / "box").mkdir(parents=True)
    (root / f"{PREFIX}999999998-c" / "box").mkdir(parents=True)
    (root / f"{PREFIX}999999998-c" / "box" / "process").touch()  # stands for a process in it
    remove_abandoned(root)
    assert sorted(path.name for path in root.iterdir()) == sorted([living.name, f"{PREFIX}999999998-c"])
