"""A notebook with parameters, run by papermill."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from .notebook import Place

pytestmark = pytest.mark.slow


async def test_papermill_injects_parameters_and_stops_at_an_error(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("papermill", reason="papermill is not installed (extra: test)")
    place.start_server()
    notebook = new_notebook(
        cells=[
            new_code_cell("n, word = 1, 'default'", metadata={"tags": ["parameters"]}),
            new_code_cell("print(word * n)"),
            new_code_cell("assert n < 3, 'too many'"),
            new_code_cell("print('never')"),
        ],
        metadata={"kernelspec": {"name": "daytona", "display_name": "Daytona", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "in.ipynb")
    command = [
        "-m",
        "papermill",
        "in.ipynb",
        "out.ipynb",
        "-p",
        "n",
        "3",
        "-p",
        "word",
        "ab",
        "--no-progress-bar",
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=tmp_path, env=place.environment, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert b"too many" in err
    cells = {
        cell.source: cell.outputs
        for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells
        if "outputs" in cell
    }
    assert cells["print(word * n)"][0].text == "ababab\n"
    assert cells["assert n < 3, 'too many'"][0].ename == "AssertionError"
    assert cells["print('never')"] == []
