"""``GET /sandbox``: filters, order, pages. Pure, no server."""

from __future__ import annotations

import json

import pytest
from multidict import MultiDict

from daytona_kernel.local.errors import ApiError
from daytona_kernel.local.listing import list_sandboxes
from daytona_kernel.local.records import SandboxRecord

RECORDS = [
    SandboxRecord(
        id=f"id{index}",
        name=f"{'ab'[index % 2]}-{index}",
        created_at=index * 100.0,
        updated_at=index * 100.0,
        last_activity_at=1000.0 - index,
        cpu=index,
        state="started" if index < 3 else "stopped",
        snapshot=f"snap{index % 2}",
        labels={"parity": str(index % 2), "all": "yes"},
        public=index == 4,
    )
    for index in range(6)
]


def ids(*pairs: tuple[str, str]) -> str:
    """The digits of the ids on the first page, in order."""
    page, _ = list_sandboxes(RECORDS, MultiDict(pairs))
    return "".join(record.id[2:] for record in page)


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([], "012345"),
        ([("order", "asc")], "543210"),
        ([("sort", "createdAt")], "543210"),
        ([("sort", "name")], "024135"),
        ([("sort", "cpu"), ("order", "asc")], "012345"),
        ([("id", "ID3")], "3"),
        ([("name", "B-")], "135"),
        ([("states", "stopped")], "345"),
        ([("states", "stopped"), ("states", "started")], "012345"),
        ([("states", "stopped,started")], "012345"),
        ([("snapshots", "snap1")], "135"),
        ([("labels", json.dumps({"parity": "1", "all": "yes"}))], "135"),
        ([("labels", "{}")], "012345"),
        ([("minCpu", "2"), ("maxCpu", "4")], "234"),
        ([("isPublic", "true")], "4"),
        ([("isPublic", "false")], "01235"),
        ([("createdAtAfter", "1970-01-01T00:03:20.000000+0000")], "2345"),
        ([("createdAtBefore", "1970-01-01T00:03:20Z")], "012"),
        ([("autoDestroyAtAfter", "1970-01-01T00:03:20Z")], ""),
        ([("regionIds", "elsewhere")], ""),
        ([("unknown", "x")], "012345"),
    ],
)
def test_filters_and_order(pairs: list[tuple[str, str]], found: str) -> None:
    """Each filter alone; the default order is the latest activity first."""
    assert ids(*pairs) == found


def test_pages_join_to_the_whole_list() -> None:
    """Following the cursor gives every sandbox once, also when the one at the cursor has gone meanwhile."""
    seen: list[str] = []
    cursor: str | None = ""
    records = list(RECORDS)
    while cursor is not None:
        query = MultiDict([("limit", "2"), ("cursor", cursor)])
        page, cursor = list_sandboxes(records, query)
        seen += [record.id for record in page]
    assert seen == [f"id{index}" for index in range(6)]
    page, cursor = list_sandboxes(records, MultiDict(limit="2"))
    records.remove(page[-1])
    page, _ = list_sandboxes(records, MultiDict([("limit", "2"), ("cursor", cursor or "")]))
    assert page[0].id == "id3"


@pytest.mark.parametrize(
    "pair",
    [
        ("limit", "0"),
        ("limit", "201"),
        ("limit", "x"),
        ("sort", "colour"),
        ("order", "up"),
        ("cursor", "!!"),
        ("cursor", "bnVsbA"),
        ("labels", "[1]"),
        ("labels", "{"),
        ("minCpu", "many"),
        ("createdAtAfter", "yesterday"),
    ],
)
def test_nonsense_is_refused(pair: tuple[str, str]) -> None:
    """A bad value is a 400, not an empty list."""
    with pytest.raises(ApiError) as caught:
        list_sandboxes(RECORDS, MultiDict([pair]))
    assert caught.value.status == 400
