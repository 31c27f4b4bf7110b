"""The blocks of README and docs that are marked ``<!-- run -->`` do what they say: on a private local server.

The cells of all pages run in one kernel, those of the shell in one directory, both in the order of the pages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ..magics.doors import KernelDoor
from .pages import PAGES, Block, blocks

pytestmark = pytest.mark.slow

MARKED = [block for page in PAGES for block in blocks(page) if block.run]
CELLS = [block for block in MARKED if block.language == "python"]
SHELL = [block for block in MARKED if block.language == "bash"]
PRIVATE = ("DAYTONA_LOCAL_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The directory of a person who follows the pages, with a notebook; its server is stopped at the end."""
    # Not pytest's own directory: paths of Unix sockets are short (108 bytes).
    base = Path(tempfile.mkdtemp(prefix="docs-"))
    work = base / "work"
    work.mkdir()
    notebook = new_notebook(cells=[new_code_cell("6 * 7", id="answer")])
    nbformat.write(notebook, work / "analysis.ipynb")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DAYTONA_", "JPY_"))]:
            patch.delenv(name)
        for name in PRIVATE:
            patch.setenv(name, str(base / name.lower()))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("HOME", str(base))
        patch.chdir(work)
        yield work
        run("jupyter daytona local stop")
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="module")
def kernel(folder: Path) -> Iterator[KernelDoor]:
    """The notebook that the cells are typed into."""
    door = KernelDoor()
    yield door
    door.close()


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as bash would for a person, but stop at the first command that fails."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_there_is_something_to_run() -> None:
    assert len(CELLS) > 15
    assert len(SHELL) > 3


@pytest.mark.parametrize("block", CELLS, ids=str)
def test_a_cell_of_the_docs_runs(block: Block, kernel: KernelDoor) -> None:
    kernel(block.text).ok()


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_a_command_of_the_docs_runs(block: Block, folder: Path) -> None:
    done = run(block.text)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
