"""The comparison of whole notebooks: its verdicts, and one small notebook from end to end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nbformat
import pytest

from .notebooks import Comparison, compare, judge, load, summary


def written(path: Path, *sources: str, language: str = "python") -> Path:
    """A notebook of these code cells."""
    make = nbformat.v4
    cells = [make.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    metadata = {"kernelspec": {"name": "x", "language": language, "display_name": "X"}}
    notebook = make.new_notebook(cells=cells, metadata=metadata)  # type: ignore[no-untyped-call]
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    return path


@pytest.mark.parametrize(
    ("reference", "again", "tested", "verdict"),
    [
        (["a"], ["a"], ["a"], "equal"),
        (["a"], ["b"], ["b"], "equal"),
        (["a"], ["a"], ["b"], "differs"),
        (["a"], ["b"], ["c"], "varies"),
        (["a"], None, ["c"], "varies"),
        (["a"], ["a"], None, "not run"),
    ],
)
def test_a_cell_is_judged_by_what_python3_itself_repeats(
    reference: list[str], again: list[str] | None, tested: list[str] | None, verdict: str
) -> None:
    """A difference counts only where `python3` says the same twice."""
    comparison = Comparison("x.ipynb")
    judge(comparison, "cell 0", (reference, again, tested))
    assert comparison.verdicts == {"cell 0": verdict}


def test_cells_that_vary_are_not_in_the_share() -> None:
    """They are counted, and neither for nor against the kernel."""
    comparison = Comparison("x.ipynb", {"a": "equal", "b": "varies", "c": "differs", "d": "equal"})
    assert "1 varies; 66.67 % equal" in summary([comparison, Comparison("y.ipynb", left_out="no code")])


@pytest.mark.parametrize(("sources", "language"), [((), "python"), (("1",), "R")])
def test_only_python_notebooks_with_code_are_run(
    tmp_path: Path, sources: tuple[str, ...], language: str
) -> None:
    """The others are left out, with the reason."""
    notebook, reason = load(written(tmp_path / "x.ipynb", *sources, language=language))
    assert notebook is None
    assert reason


def test_what_is_no_notebook_is_left_out(tmp_path: Path) -> None:
    """The reason says that it can not be read."""
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps([1, 2]))
    assert load(path)[1].startswith("can not be read")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_notebook_is_compared_cell_by_cell(tmp_path: Path) -> None:
    """Equal cells are equal; what is different each time is told apart; so is where the sandbox shows."""
    cells = (
        "print(1)\n2",
        "import secrets; secrets.token_urlsafe(80)",
        "import os; 'DAYTONA_SANDBOX_ID' in os.environ",
    )
    path = written(tmp_path / "x.ipynb", *cells)
    comparison = asyncio.run(compare(path, cell_timeout_s=60, limit_s=60, beside=False))
    assert not comparison.left_out, comparison.left_out
    assert not comparison.trouble, comparison.trouble
    verdicts = [comparison.verdicts[f"cell {number}"] for number in range(3)]
    assert verdicts == ["equal", "varies", "differs"], comparison.differences
    assert comparison.verdicts["widget state"] == comparison.verdicts["language info"] == "equal"
