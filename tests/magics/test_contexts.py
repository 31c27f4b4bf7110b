"""`%daytona context`: several Python processes of one sandbox, through both doors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from daytona_kernel.local import launcher

from .doors import Door, IPythonDoor, KernelDoor
from .test_lifecycle import name_of, python


@pytest.fixture
def home(door: Door) -> str:
    """The sandbox that the door uses, with Python running in it."""
    python(door, "pass")
    return name_of(door)


def context_of(door: Door) -> str:
    """The context that the door's cells run in."""
    door("facts = %daytona status").ok()
    return door.here("print(facts['context'])").stdout.strip()


def test_a_new_context_leaves_the_one_before_to_go_back_to(door: Door, home: str) -> None:
    python(door, "v = 'first'")
    first = context_of(door)
    assert f"use {first[:8]}" in door("%daytona context new").ok().text
    assert python(door, "print('v' in globals()); v = 'second'") == "False"
    second = context_of(door)
    assert first != second
    door(f"%daytona context use {first[:8]}").ok()
    assert python(door, "print(v)") == "first"
    listed = door("%daytona context list").ok().text
    assert f"→  {first}" in listed
    assert second in listed
    door(f"%daytona context rm {second}").ok()
    assert second not in door("%daytona context list").ok().text


def test_what_a_command_has_said_is_not_said_again_by_the_next_cell(door: Door, home: str) -> None:
    door("%daytona context new").ok()
    assert "[daytona]" not in door("%%daytona python\npass").ok().stderr
    door("%daytona create --ephemeral").ok()
    assert "[daytona]" not in door("%%daytona python\npass").ok().stderr
    door("%daytona restart").ok()
    assert "variables are lost" in door("%%daytona python\npass").ok().stderr
    door("%daytona delete --yes").ok()


def test_cells_count_on_whichever_context_they_run_in(kernel: KernelDoor) -> None:
    python(kernel, "pass")
    first, count = context_of(kernel), kernel("%daytona context new").count
    counts = [kernel(code).count for code in ("3", f"%daytona context use {first}", "Out", "5")]
    assert counts == [count + 1, count + 2, count + 3, count + 4]
    assert kernel(f"print(In[{count + 4}], len(In))").stdout.split() == ["5", str(count + 6)]


def plain_client(script: str) -> str:
    """What a program prints that uses the SDK, in a process of its own: its client has no close()."""
    server = launcher.find_running()
    assert server is not None
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **launcher.environment(server)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_variables_are_shared_with_plain_clients(door: Door, home: str) -> None:
    door(f"%daytona attach {home} --shared-context").ok()
    assert context_of(door) == "default"
    python(door, "from_notebook = 1")
    script = (
        "from daytona import Daytona\n"
        f"box = Daytona().get({home!r})\n"
        "print(box.code_interpreter.run_code('print(from_notebook + 1); from_client = 40').stdout)"
    )
    assert plain_client(script).strip() == "2"
    assert python(door, "print(from_client + 2)") == "42"
    door("%daytona context new").ok()
    assert python(door, "print('from_client' in globals())") == "False"
    door("%daytona context use default").ok()
    assert python(door, "print(from_client)") == "40"
    door("%daytona restart").ok()
    assert python(door, "print('from_client' in globals())") == "False"
    assert context_of(door) != "default"


def test_another_notebooks_context_can_be_used_and_outlives_that(
    kernel: KernelDoor, ipython: IPythonDoor
) -> None:
    python(kernel, "v = 'of the kernel'")
    ipython(f"%daytona attach {name_of(kernel)}").ok()
    try:
        ipython(f"%daytona context use {context_of(kernel)}").ok()
        assert python(ipython, "print(v); v = 'of both'") == "of the kernel"
        assert python(kernel, "print(v); w = 1") == "of both"
        assert python(ipython, "print(w)") == "1"
    finally:
        ipython("%daytona detach").ok()
    assert python(kernel, "print(v)") == "of both"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("context use nothing", "no context 'nothing'"),
        ("context use defualt", "Did you mean default?"),
        ("context use ''", "no context ''"),
        ("context rm default", "can not be ended"),
        ("context use", "required"),
        ("context", "wants one more word"),
        ("attach --shared-context", "Give its name"),
    ],
)
def test_wrong_words_are_refused(door: Door, home: str, line: str, words: str) -> None:
    assert words in door(f"%daytona {line}").failed("UsageError")
