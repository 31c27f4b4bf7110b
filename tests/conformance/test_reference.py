"""The harness compares `python3` with itself: no differences, so what it reports elsewhere is real."""

from __future__ import annotations

import pytest

from .conftest import Recordings
from .corpus import Family, load_families
from .driver import REFERENCE
from .recording import difference


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("family", [pytest.param(family, id=family.name) for family in load_families()])
def test_python3_equals_itself(family: Family, recordings: Recordings) -> None:
    """Two recordings of fresh `python3` kernels are equal, cell by cell."""
    if family.missing():
        pytest.skip(f"not installed: {', '.join(family.missing())}")
    first, second = recordings.get(family, (REFERENCE, 0), (REFERENCE, 1))
    lines = []
    for cell in family.cells:
        diff = difference(first[cell.id], second[cell.id], ("first", "second"))
        if diff:
            lines += ["", f"{cell.id}:", *diff]
    assert not lines, "\n".join(lines)
    assert not [recording.trouble for recording in first.values() if recording.trouble]
