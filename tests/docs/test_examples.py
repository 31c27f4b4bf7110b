"""Every example of ``docs/magics.md`` works, in a notebook with our kernel: on a private local server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from daytona_kernel.magics import registry

from ..magics.doors import KernelDoor
from . import examples
from .examples import DESKTOP, HOME, NEEDS, Needs
from .pages import ROOT
from .reader import Reader

pytestmark = pytest.mark.slow

EVERY = [*registry.commands().values(), *registry.commands(cell=True).values()]
TYPES = "%daytona exec --no-raise -- node --experimental-transform-types -e 0"
IN_THE_KERNEL = [command for command in EVERY if "kernel" in command.doors]


@pytest.fixture(scope="module")
def notebook(base: Path) -> Iterator[Reader]:
    """A notebook in a sandbox that has the files which the examples name."""
    reader = Reader(ROOT / "docs" / "magics.md", base / "magics")
    reader.begin()
    examples.furnish(reader.work)
    reader.kernel(f"%daytona create --name {HOME}").ok()
    reader.kernel(examples.SANDBOX_FILES).ok()
    yield reader
    reader.end()


@pytest.fixture(scope="module")
def plain(notebook: Reader) -> Iterator[KernelDoor]:
    """A notebook that runs locally, with the extension, in the same home directory."""
    door = KernelDoor("python3")
    door("%load_ext daytona_kernel").ok()
    yield door
    door.close()


@pytest.mark.parametrize("command", IN_THE_KERNEL, ids=lambda command: ("%" * command.cell) + command.name)
def test_the_examples_of_a_command_work(notebook: Reader, command: registry.Command) -> None:
    needs = NEEDS.get(command.name, Needs())
    if command.group == "Desktop":
        outcome = notebook.kernel(DESKTOP)
        if outcome.ename:
            pytest.skip(f"no desktop here: {outcome.evalue}")
    if command.group == "Git" and not shutil.which("git"):
        pytest.skip("there is no git here")
    if command.name == "ts" and notebook.kernel(TYPES).ok().stderr:
        pytest.skip("no TypeScript without a download here")
    for cell in needs.before:
        notebook.kernel(cell).ok()
    refused = needs.refused or ("",) * len(command.examples)
    for example, reason in zip(command.examples, refused, strict=True):
        cell = f"{example}\n{needs.body}" if command.cell else notebook.filled_in(example)
        outcome = notebook.kernel(cell, answers=needs.answers)
        if reason:
            assert reason in outcome.evalue
        elif any(program in outcome.evalue for program in ("no Node", "ffmpeg", "needs bubblewrap")):
            pytest.skip(outcome.evalue)
        else:
            outcome.ok()
    for cell in needs.after:
        notebook.kernel(cell).ok()


def test_the_example_for_a_plain_ipython_works(plain: KernelDoor) -> None:
    (command,) = (command for command in EVERY if "kernel" not in command.doors)
    assert command.name == "sdk"
    for example in command.examples:
        plain(example).ok()
    assert "42" in plain("print(sandbox.process.code_run('print(6 * 7)').result)").ok().stdout
    plain("%daytona delete --yes").ok()


def test_nothing_is_prepared_for_commands_that_are_not_there() -> None:
    assert set(NEEDS) <= {command.name for command in EVERY}
