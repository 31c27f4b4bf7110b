"""Which sandboxes nobody can use any more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from daytona_kernel.labels import LABEL_OWNER, owner_label
from daytona_kernel.sharing import is_left_behind


def test_a_sandbox_is_left_behind_when_its_owner_has_ended() -> None:
    code = "from daytona_kernel.labels import owner_label; print(owner_label())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert is_left_behind({LABEL_OWNER: result.stdout.strip()}, "started")


def test_a_process_of_the_same_number_is_not_the_owner() -> None:
    assert is_left_behind({LABEL_OWNER: f"{os.getpid()}:1"}, "started")
    assert not is_left_behind({LABEL_OWNER: owner_label()}, "started")


def test_a_process_of_another_machine_or_container_is_not_told_to_have_ended() -> None:
    """They may have the same name and user: what is their process is none here."""
    assert not is_left_behind({LABEL_OWNER: "999999999:1:0123456789ab"}, "started")
    _, start, space = owner_label().split(":")
    assert is_left_behind({LABEL_OWNER: f"999999999:{start}:{space}"}, "started")


@pytest.mark.parametrize("owner", ["", "x", ":", f"{os.getpid()}", f"{os.getpid()}:0", f"{os.getpid()}:"])
def test_an_owner_that_can_not_be_told_to_have_ended_has_not(owner: str) -> None:
    assert not is_left_behind({LABEL_OWNER: owner}, "started")


@pytest.mark.parametrize(
    ("state", "expected"), [("destroyed", False), ("destroying", False), ("error", True), ("stopped", True)]
)
def test_what_is_deleted_already_is_not_deleted_again(state: str, expected: bool) -> None:
    assert is_left_behind({LABEL_OWNER: "999999999:1"}, state) is expected


def test_what_could_not_be_built_is_of_no_use() -> None:
    assert is_left_behind({}, "build_failed")
    assert not is_left_behind({}, "started")
