"""Whether a cell is complete, while there is no sandbox to ask."""

from __future__ import annotations

import pytest

from daytona_kernel.completeness import completeness


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        ("1 + 1", {"status": "complete"}),
        ("await thing", {"status": "complete"}),
        ("!ls", {"status": "complete"}),
        ("for i in x:", {"status": "incomplete", "indent": "    "}),
        ("print('''", {"status": "incomplete", "indent": ""}),
        ("x = = 1", {"status": "invalid"}),
    ],
)
def test_completeness(code: str, reply: dict[str, str]) -> None:
    assert completeness(code) == reply
