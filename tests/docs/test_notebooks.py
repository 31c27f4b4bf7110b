"""The saved notebooks: listed, whole, and the same wherever they were made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from .pages import ROOT, links

FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TRACES = re.compile(r"/work/|/root/|/tmp/\w+/|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}")
"""Of a machine, or of one run: paths, and ids of sandboxes."""


def test_every_notebook_is_listed() -> None:
    listed = {(FOLDER / link).name for link in links(FOLDER / "README.md") if link.endswith(".ipynb")}
    assert listed == {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name in ("daytona", "python3")
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_that_are_compared_are_those_of_any_machine(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", []):
            assert not TRACES.search(json.dumps(cell.outputs)), cell.id
