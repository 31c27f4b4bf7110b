"""One JupyterLab server and one browser for all tests of this package; private folders for both."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .lab import LabPage

# The same variable as in the conformance suite: another kernel shows whether a failure is ours or the test's.
KERNEL = os.environ.get("DAYTONA_KERNEL_TEST_KERNEL", "daytona")


ISOLATED = "daytona-isolated"
"""The kernel with ``output_trust = isolated``; ``@pytest.mark.cells(..., kernel=ISOLATED)`` chooses it."""


@pytest.fixture(scope="package")
def lab_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that JupyterLab shows."""
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="package")
def page(lab_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabPage]:
    """Return a page of a running JupyterLab, in a running browser."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed (extra: lab)")
    pytest.importorskip("selenium", reason="selenium is not installed (extra: test)")
    from .lab import LabPage, chromium, lab_server, missing, private_sandboxes

    if reason := missing():
        pytest.skip(reason)
    home = tmp_path_factory.mktemp("browser")
    # JupyterLab reads the user's settings from the home folder, and the local sandbox server keeps its state
    # there.
    environment = {
        **os.environ,
        "HOME": str(home),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "IPYTHONDIR": str(home / "ipython"),
        "DAYTONA_LOCAL_DIR": str(home / "local"),
    }
    add_isolated_kernel(home / "data")
    with (
        private_sandboxes(environment),
        lab_server(lab_folder, environment) as url,
        chromium(home / "profile") as driver,
    ):
        yield LabPage(driver, url)


def add_isolated_kernel(data: Path) -> None:
    """Install a second kernel in the data directory of the tests."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = KernelSpecManager().get_kernel_spec("daytona").to_dict()
    spec["env"] = {**spec.get("env", {}), "DAYTONA_KERNEL_OUTPUT_TRUST": "isolated"}
    spec["display_name"] = "Isolated"
    folder = data / "kernels" / ISOLATED
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps(spec))


@pytest.fixture(scope="module")
def kernel_title() -> str:
    """The display name of the kernel under test."""
    from jupyter_client.kernelspec import KernelSpecManager

    return str(KernelSpecManager().get_kernel_spec(KERNEL).display_name)


@pytest.fixture
def notebook(lab_folder: Path, request: pytest.FixtureRequest) -> str:
    """Write a notebook with the cells of the test's ``cells`` marker and return its name."""
    marker = request.node.get_closest_marker("cells")
    assert marker is not None
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {},
            "outputs": [],
            "source": source,
            "execution_count": None,
        }
        for number, source in enumerate(marker.args)
    ]
    kernel = marker.kwargs.get("kernel", KERNEL)
    metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    name = f"{request.node.name}.ipynb"
    content = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    (lab_folder / name).write_text(json.dumps(content))
    return name
