"""`%daytona git` in the sandbox, through both doors, with a repository in the sandbox itself."""

from __future__ import annotations

import pytest

from .doors import Door


@pytest.fixture
def origin(door: Door, place: str) -> str:
    """A bare repository with one commit."""
    script = (
        f"cd {place} && git init -q -b main seed && cd seed && echo one >file && git add file && "
        "git -c user.name=a -c user.email=a@b commit -qm one && cd .. && git clone -q --bare seed origin.git"
    )
    outcome = door(f'%daytona exec -- sh -c "{script}"')
    if outcome.ename:
        pytest.skip(f"no git in the sandbox: {outcome.text}")
    return f"{place}/origin.git"


def test_clone_change_commit_push_pull(door: Door, place: str, origin: str) -> None:
    door(f"%daytona git clone {origin} {place}/work --branch main").ok()
    assert "Nothing changed" in door(f"%daytona git status {place}/work").ok().text
    door(f"%daytona exec -- sh -c 'echo two >> {place}/work/file'").ok()
    assert "file" in door(f"%daytona git status {place}/work").ok().text
    assert "Committed" in door(f"%daytona git commit {place}/work -m 'Add two'").ok().text
    assert "1 ahead" in door(f"%daytona git status {place}/work").ok().text
    door(f"%daytona git push {place}/work").ok()
    door(f"%daytona git pull {place}/work").ok()


def test_errors_name_the_cause(door: Door, place: str) -> None:
    assert door(f"%daytona git status {place}").ename == "CommandFailed"
    assert "required" in door(f"%daytona git commit {place}").failed("UsageError")
    assert "is not set" in door(f"%daytona git pull {place} --token-env NO_SUCH_TOKEN").failed("UsageError")
    assert "password in it" in door("%daytona git clone https://u:p@example.org/x").failed("UsageError")
