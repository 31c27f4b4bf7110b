"""What pages take for granted: files beside the notebook, variables of the environment, ids that differ."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

VARIABLES = {
    "BROWSER": "true",  # a browser that opens nothing
    "GIT_TOKEN": "token-of-git",
    "JUPYTER_TOKEN": "token-of-jupyter",
    "OPENAI_API_KEY": "key-of-somebody",
    "TOKEN": "token-of-somebody",
}
PROGRAM_OF_CELLS = {"README.md": "python3", "ecosystem.md": "python"}
"""Where cells of a page go, if not to the kernel ``daytona``: the name of another, or a script."""

_CONTEXT = "back = %daytona context new\nprint(back[:8])"
STANDS_FOR = {"1f0c": _CONTEXT, "ID": _CONTEXT}
"""Words of the pages that stand for an id, and the cell that prints one."""

_WHEEL = """
import pathlib, zipfile
folder = pathlib.Path.home() / "wheels"
folder.mkdir()
with zipfile.ZipFile(folder / "polars-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("polars.py", "")
    wheel.writestr("polars-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: polars\\nVersion: 1.0\\n")
    kind = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    wheel.writestr("polars-1.0.dist-info/WHEEL", kind)
    wheel.writestr("polars-1.0.dist-info/RECORD", "")
import os
os.environ.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(folder))
"""
BEFORE = {
    ("howto.md", "%pip install polars"): (_WHEEL,),  # pip finds it without a network
    ("howto.md", "%daytona context use 1f0c"): ("%daytona fork agent",),
}
"""Cells to run before the block of a page that begins with a line."""


def notebook(path: Path, *sources: str, parameters: str = "") -> None:
    """Write a notebook of these cells; the one with *parameters* comes first, and is tagged so."""
    cells = [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(sources)]
    if parameters:
        cells.insert(0, new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}))
    path.parent.mkdir(parents=True, exist_ok=True)
    book = new_notebook(cells=cells)
    book.metadata.kernelspec = {"name": "daytona", "display_name": "Python 3 (Daytona)", "language": "python"}
    nbformat.write(book, path)


_PROGRAM = """
from daytona import Daytona

daytona = Daytona()
sandbox = daytona.create()
print(sandbox.process.code_run("print(6 * 7)").result)
sandbox.delete()
"""


def furnish(page: str, home: Path) -> None:
    """Write the files that a page takes for granted to ``work`` in this home directory."""
    work = home / "work"
    jupyter = home / ".jupyter"
    jupyter.mkdir()
    settings = {"port": 0, "port_retries": 0, "open_browser": False, "allow_root": True}
    (jupyter / "jupyter_server_config.json").write_text(
        json.dumps({"ServerApp": settings, "ExtensionApp": {"open_browser": False}})
    )
    notebook(work / "analysis.ipynb", "6 * 7")
    (work / "my_program.py").write_text(_PROGRAM)
    for folder in ("notebooks", "reports"):
        notebook(work / folder / "first.ipynb", "6 * 7")
        notebook(work / folder / "more" / "second.ipynb", "print('second')")
    if page == "howto.md":
        notebook(work / "report.ipynb", "6 * 7", parameters="month = 1")
        train = "assert open('data/a.csv').read() == 'a\\n' and epochs == 3\nopen('loss.png', 'w').close()"
        notebook(work / "train.ipynb", train, parameters="epochs = 1")
        (work / "data").mkdir()
        (work / "data" / "a.csv").write_text("a\n")
        (work / ".env.sandbox").write_text("STAGE=test\n")
    if page == "ecosystem.md":
        notebook(work / "in.ipynb", "assert n == 3", parameters="n = 1")
        notebook(work / "notebook.ipynb", "6 * 7")
    if page == "performance.md":
        # In a clone the tests are beside; figures of other runs, too.
        (work / "tests").symlink_to(Path(__file__).resolve().parents[1])
        for name, seconds in (("before", 2.0), ("now", 1.0)):
            (work / f"{name}.json").write_text(json.dumps({"start": {"python3": 0.5, "daytona": seconds}}))
