"""The promise: every cell of the corpus gives under the kernel under test what it gives under `python3`."""

from __future__ import annotations

import re

import pytest

from .conftest import Recordings
from .corpus import Cell, Family, load_families
from .differences import PAGE, page
from .driver import REFERENCE, UNDER_TEST
from .known_differences import KNOWN, KnownDifference
from .recording import difference

pytestmark = pytest.mark.slow

FAMILIES = load_families()
CELLS = [pytest.param(family, cell, id=cell.id) for family in FAMILIES for cell in family.cells]


@pytest.mark.parametrize(("family", "cell"), CELLS)
@pytest.mark.timeout(600)
def test_cell_gives_the_same(family: Family, cell: Cell, recordings: Recordings) -> None:
    """Same messages, same replies; known differences differ, and only in the lines that they name."""
    if family.missing():
        pytest.skip(f"not installed: {', '.join(family.missing())}")
    expected, actual = recordings.get(family, (REFERENCE, 0), (UNDER_TEST, 0))
    assert not expected[cell.id].trouble, expected[cell.id].trouble
    assert not actual[cell.id].trouble, actual[cell.id].trouble
    diff = difference(expected[cell.id], actual[cell.id], (REFERENCE, UNDER_TEST))
    known = KNOWN.get(cell.id)
    if known is None:
        assert not diff, "\n".join([f"{cell.id} differs:", cell.code, *diff])
    else:
        check_known(known, diff)


@pytest.mark.parametrize(("family", "cell"), CELLS)
def test_cell_messages_follow_the_specification(family: Family, cell: Cell, recordings: Recordings) -> None:
    """Each message has the keys and types of the specification, and comes in the right order."""
    if family.missing():
        pytest.skip(f"not installed: {', '.join(family.missing())}")
    _, actual = recordings.get(family, (REFERENCE, 0), (UNDER_TEST, 0))
    reference_faults = recordings.get(family, (REFERENCE, 0))[0][cell.id].faults
    # What ipykernel itself does against the specification, we do as well: front ends are used to it.
    assert [fault for fault in actual[cell.id].faults if fault not in reference_faults] == []


def check_known(known: KnownDifference, diff: list[str]) -> None:
    """A known difference must still be one, and stay within the lines that it names."""
    assert diff or not known.always, f"no longer differs; remove it from known_differences.py: {known.reason}"
    changed = [line[1:] for line in diff[2:] if line.startswith(("+", "-"))]
    unexplained = [line for line in changed if not any(re.search(one, line) for one in known.lines)]
    assert not unexplained, "\n".join(["differs in more than is known:", *unexplained, "", *diff])


def test_known_differences_name_cells() -> None:
    """Each entry of known_differences.py belongs to a cell that exists and says why."""
    cells = {cell.id for family in FAMILIES for cell in family.cells}
    assert set(KNOWN) <= cells
    assert all(known.reason and known.lines for known in KNOWN.values())


def test_the_page_of_differences_is_up_to_date() -> None:
    """docs/differences.md is what `python -m tests.conformance.differences` writes."""
    assert PAGE.read_text("utf-8") == page(), "run: python -m tests.conformance.differences"


def test_corpus_is_large() -> None:
    """At least 300 cells, as promised."""
    assert len(CELLS) >= 300
