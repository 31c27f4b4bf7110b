"""A private local server, and the two doors, once for all tests of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .doors import Door, IPythonDoor, KernelDoor

PRIVATE = (
    "DAYTONA_LOCAL_DIR",
    "DAYTONA_KERNEL_SHELF",
    "JUPYTER_RUNTIME_DIR",
    "JUPYTER_CONFIG_DIR",
    "IPYTHONDIR",
)
CLEARED = ("DAYTONA_API_KEY", "DAYTONA_API_URL", "DAYTONA_SANDBOX", "JPY_SESSION_NAME")


@pytest.fixture(scope="package")
def private_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The local server that the doors start has directories of its own, and ends with the tests."""
    base = tmp_path_factory.mktemp("magics")
    patch = pytest.MonkeyPatch()
    for name in PRIVATE:
        patch.setenv(name, str(base / name.lower()))
    for name in CLEARED:
        patch.delenv(name, raising=False)
    patch.setenv("DAYTONA_KERNEL_ON_SHUTDOWN", "delete")
    yield base
    subprocess.run(
        [sys.executable, "-m", "daytona_kernel.cli", "local", "stop"],
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    patch.undo()


@pytest.fixture(scope="package")
def kernel(private_server: Path) -> Iterator[KernelDoor]:
    """A notebook with our kernel."""
    door = KernelDoor()
    yield door
    door.close()


@pytest.fixture(scope="package")
def ipython(private_server: Path) -> Iterator[IPythonDoor]:
    """An IPython with the extension."""
    door = IPythonDoor()
    yield door
    door.close()


@pytest.fixture(params=["kernel", "ipython"])
def door(request: pytest.FixtureRequest) -> Door:
    """Each of the doors."""
    found: Door = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def place(request: pytest.FixtureRequest, door: Door) -> str:
    """An empty directory of the sandbox, for one test."""
    name = "t-" + "".join(char if char.isalnum() else "-" for char in request.node.name)
    door(f"%daytona mkdir {name}").ok()
    return name
