"""The page about the server lists every endpoint that the SDK can call, and what is true today."""

from __future__ import annotations

from .endpoints import CONTROL_NOTES, PAGE, TOOLBOX_NOTES, page_with, rows, table_text
from .operations import TOOLBOX, operations, other_sdk, used_by_sdk

pytestmark = other_sdk


def test_page_has_the_table_that_code_and_notes_make() -> None:
    """If not: ``python -m tests.local.endpoints``."""
    assert PAGE.read_text() == page_with(table_text())


def test_every_endpoint_is_explained_and_no_note_is_left_over() -> None:
    """A sentence for each."""
    assert [endpoint for endpoint, _, said in rows() if not said.endswith(".")] == []
    assert set(CONTROL_NOTES) == {one.name for one in used_by_sdk().values()}
    assert set(TOOLBOX_NOTES) <= {one.name for one in operations(TOOLBOX).values()}
