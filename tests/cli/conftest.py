"""Fixtures for the command line: private Jupyter folders, and notebooks made of cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

MakeNotebook = Callable[..., Path]


@pytest.fixture(autouse=True)
def _private_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's Jupyter files out of the tests, and the tests' out of the user's."""
    home = tmp_path_factory.mktemp("home")
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.delenv("DAYTONA_SANDBOX", raising=False)


@pytest.fixture
def make_notebook(tmp_path: Path) -> MakeNotebook:
    """Return a function that writes a notebook with one code cell per argument."""

    def make(*sources: str, name: str = "book.ipynb", tags: dict[int, list[str]] | None = None) -> Path:
        notebook = new_notebook()
        for index, source in enumerate(sources):
            cell = new_code_cell(source, id=f"cell-{index}")
            cell.metadata["tags"] = (tags or {}).get(index, [])
            notebook.cells.append(cell)
        path = tmp_path / name
        nbformat.write(notebook, path)
        return path

    return make
