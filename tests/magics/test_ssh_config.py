"""`%daytona ssh --config`: entries in a file of this machine, and nothing else that a service may say."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from daytona_kernel.magics import ssh_config
from daytona_kernel.magics.host import CommandFailed, UsageError

from .doors import Door

COMMAND = "ssh token-1@ssh.app.daytona.io"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "daytona"


def test_an_entry_is_written_for_its_owner_only(file: Path) -> None:
    assert ssh_config.write(str(file), "nb-1", "ssh -p 2222 token-1@ssh.example.org", [5432]) == "nb-1"
    assert file.read_text().splitlines()[1:] == [
        "",
        "Host nb-1",
        "    HostName ssh.example.org",
        "    User token-1",
        "    Port 2222",
        "    LocalForward 5432 localhost:5432",
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["daytona"]


def test_a_new_token_takes_the_old_ones_place(file: Path) -> None:
    for name, token in (("nb-1", "old"), ("nb-2", "other"), ("nb-1", "new")):
        ssh_config.check(str(file))
        ssh_config.write(str(file), name, f"ssh {token}@ssh.example.org")
    text = file.read_text()
    assert text.startswith(ssh_config.HEAD)
    assert [line.split()[1] for line in text.splitlines() if line.startswith("Host ")] == ["nb-2", "nb-1"]
    assert "old" not in text
    assert "User new" in text


@pytest.mark.parametrize(
    "command",
    [
        "",
        "echo no gateway",
        "ssh host",
        "ssh 'a\n    ProxyCommand touch x@host'",
        "ssh -oProxyCommand=x@host",
        "ssh a@-oProxyCommand=x",
        "ssh a@host ProxyCommand",
        "ssh '",
    ],
)
def test_a_service_can_not_write_other_lines(file: Path, command: str) -> None:
    with pytest.raises(CommandFailed):
        ssh_config.write(str(file), "nb-1", command)
    with pytest.raises(CommandFailed):
        ssh_config.write(str(file), "nb-1\nHost *", COMMAND)
    assert not file.exists()


def test_a_command_that_is_not_understood_is_told_without_its_token(file: Path) -> None:
    with pytest.raises(CommandFailed, match="ssh …@host -v") as caught:
        ssh_config.write(str(file), "nb-1", "ssh 3fGh7-kLmN_0pQrStUv@host -v")
    assert "pQrStUv" not in str(caught.value)


def test_a_directory_that_is_not_there_is_named_with_the_way_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory") as caught:
        ssh_config.check(str(tmp_path / "none" / "daytona"))
    assert f"mkdir -m 700 '{tmp_path / 'none'}'" in str(caught.value)


def test_files_of_others_are_left_alone(file: Path) -> None:
    file.write_text("Host mine\n")
    for wrong in (file, file.parent, file / "below"):
        with pytest.raises(UsageError):
            ssh_config.check(str(wrong))
    assert file.read_text() == "Host mine\n"


def test_the_command_checks_the_file_first(door: Door, file: Path) -> None:
    file.write_text("Host mine\n")
    assert "not made by" in door(f"%daytona ssh --config {file}").failed("UsageError")
    file.unlink()
    assert "no SSH gateway" in door(f"%daytona ssh --config {file}").failed("CommandFailed")
    assert not file.exists()
