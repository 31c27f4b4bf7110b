"""What ``%daytona status`` says of memory: of the sandbox where that is known, and never as if it were."""

from __future__ import annotations

import pytest

from daytona_kernel.magics.general import _memory_text

GIB = 2**30


@pytest.mark.parametrize(
    ("used", "total", "limit", "words"),
    [
        (GIB, 4 * GIB, 4, "1.0 GiB of 4.0 GiB"),
        (3.9 * GIB, 4 * GIB, 4, "3.9 GiB of 4.0 GiB: NEARLY FULL, what takes more is killed"),
        (2 * GIB, 23.5 * GIB, 4, "2.0 GiB of 23.5 GiB of the whole machine; the sandbox may use 4 GiB"),
        (2 * GIB, 4.1 * GIB, 4, "2.0 GiB of 4.1 GiB"),
        (2 * GIB, 8 * GIB, 0, "2.0 GiB of 8.0 GiB"),
        (0, 0, 4, ""),
    ],
)
def test_memory_is_said_to_be_whose_it_is(used: float, total: float, limit: float, words: str) -> None:
    facts = {"memory_used": int(used), "memory_total": int(total), "memory_gib": limit}
    assert _memory_text(facts) == words
