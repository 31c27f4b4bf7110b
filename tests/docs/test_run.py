"""Every block of README and docs does what it says, in order, on a private local server.

The commands of ``docs/magics.md``, which has no order, are in ``test_examples.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .pages import PAGES, Block, blocks
from .reader import Reader, missing, pattern_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the first of a page may follow many before it

FOLLOWED = [page for page in PAGES if page.name != "magics.md"]
RUN = [block for page in FOLLOWED for block in blocks(page) if block.run]
RECIPES = [block for page in FOLLOWED for block in blocks(page) if block.language == "yaml"]


class Readers:
    """Somebody for each page; one at a time, since each has a home, and there is one environment."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._present: Reader | None = None

    def of(self, page: Path) -> Reader:
        """Who follows this page now."""
        if self._present is None or self._present.page != page:
            self.end()
            number = len(list(self._base.iterdir()))
            reader = Reader(page, self._base / f"{page.stem.lower()}-{number}")
            reader.begin()
            self._present = reader
        return self._present

    def end(self) -> None:
        """Whoever is there leaves."""
        reader, self._present = self._present, None
        if reader is not None:
            reader.end()


@pytest.fixture(scope="module")
def readers(base: Path) -> Iterator[Readers]:
    """Somebody for each page."""
    readers = Readers(base)
    yield readers
    readers.end()


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_of_the_docs_does_what_it_says(readers: Readers, block: Block) -> None:
    if program := missing(block):
        pytest.skip(f"there is no {program} here")
    printed = readers.of(block.page).follow(block)
    for shown in blocks(block.page):
        if shown.note == "output" and shown.line == following(block).line:
            assert pattern_of(shown.text).search(printed), printed


def following(block: Block) -> Block:
    """The next block of the page, or itself if there is none."""
    return next((one for one in blocks(block.page) if one.line > block.line), block)
