"""``GET /sandbox``: filters, order, and pages. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

from multidict import MultiMapping

from .clock import from_iso
from .errors import bad_request
from .records import SandboxRecord

DEFAULT_LIMIT = 100
MAX_LIMIT = 200

SORTS: dict[str, Callable[[SandboxRecord], Any]] = {
    "name": lambda record: record.name.lower(),
    "cpu": lambda record: record.cpu,
    "memoryGib": lambda record: record.memory,
    "diskGib": lambda record: record.disk,
    "lastActivityAt": lambda record: record.last_activity_at,
    "createdAt": lambda record: record.created_at,
}

Filter = Callable[[SandboxRecord], bool]


def list_sandboxes(
    records: Sequence[SandboxRecord], query: MultiMapping[str], *, limit: int | None = None
) -> tuple[list[SandboxRecord], str | None]:
    """The page that the query asks for, and the cursor of the next one (``None`` at the end).

    ``ApiError`` 400: for a value that makes no sense.
    """
    filters = _filters(query)
    matching = [record for record in records if all(matches(record) for matches in filters)]
    sort = query.get("sort") or "lastActivityAt"
    if sort not in SORTS:
        raise bad_request(f"sort must be one of the following values: {', '.join(SORTS)}")
    order = query.get("order") or ("asc" if sort == "name" and "sort" in query else "desc")
    if order not in ("asc", "desc"):
        raise bad_request("order must be one of the following values: asc, desc")
    matching.sort(key=lambda record: record.id)
    matching.sort(key=SORTS[sort], reverse=order == "desc")
    offset = _after(matching, query.get("cursor"))
    size = limit or _limit(query)
    page = matching[offset : offset + size]
    more = offset + size < len(matching)
    return page, _cursor(page[-1], offset + size) if more and page else None


def _limit(query: MultiMapping[str]) -> int:
    try:
        limit = int(query.get("limit") or DEFAULT_LIMIT)
    except ValueError:
        raise bad_request("limit must be an integer number") from None
    if not 1 <= limit <= MAX_LIMIT:
        raise bad_request(f"limit must be between 1 and {MAX_LIMIT}")
    return limit


def _cursor(record: SandboxRecord, offset: int) -> str:
    text = json.dumps([record.id, offset])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _after(matching: Sequence[SandboxRecord], cursor: str | None) -> int:
    """Where the page begins: behind the cursor's sandbox, or at its old place if that one is gone."""
    if not cursor:
        return 0
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        sandbox_id, offset = json.loads(base64.urlsafe_b64decode(padded))
        offset = int(offset)
    except (ValueError, TypeError):
        raise bad_request("invalid cursor") from None
    places = [place for place, record in enumerate(matching) if record.id == sandbox_id]
    return places[0] + 1 if places else max(offset, 0)


def _filters(query: MultiMapping[str]) -> list[Filter]:
    found: list[Filter] = []
    for name, pick in (("id", lambda record: record.id), ("name", lambda record: record.name)):
        if prefix := query.get(name, "").lower():
            found.append(lambda record, prefix=prefix, pick=pick: pick(record).lower().startswith(prefix))  # type: ignore[misc]
    if text := query.get("labels"):
        labels = _labels(text)
        found.append(lambda record: labels.items() <= record.labels.items())
    found += _choices(query)
    found += _ranges(query)
    for name, attribute in (("isPublic", "public"), ("isRecoverable", "recoverable")):
        if value := query.get(name):
            found.append(lambda record, a=attribute, v=value: getattr(record, a) == (v == "true"))  # type: ignore[misc]
    return found


def _labels(text: str) -> dict[str, str]:
    try:
        labels = json.loads(text)
    except ValueError:
        raise bad_request("labels must be a JSON object") from None
    if not isinstance(labels, dict):
        raise bad_request("labels must be a JSON object")
    return {str(key): str(value) for key, value in labels.items()}


def _choices(query: MultiMapping[str]) -> list[Filter]:
    found: list[Filter] = []
    for name, attribute in (("states", "state"), ("snapshots", "snapshot"), ("regionIds", "target")):
        values = {part for value in query.getall(name, []) for part in value.split(",") if part}
        if values:
            found.append(lambda record, a=attribute, v=values: getattr(record, a) in v)  # type: ignore[misc]
    return found


def _ranges(query: MultiMapping[str]) -> list[Filter]:
    found: list[Filter] = []
    for word, attribute in (("Cpu", "cpu"), ("MemoryGiB", "memory"), ("DiskGiB", "disk")):
        _bounds(found, query, f"min{word}", f"max{word}", attribute=attribute, parse=float)
    times = (("createdAt", "created_at"), ("lastEvent", "updated_at"), ("autoDestroyAt", "auto_destroy_at"))
    for word, attribute in times:
        _bounds(found, query, f"{word}After", f"{word}Before", attribute=attribute, parse=from_iso)
    return found


def _bounds(
    found: list[Filter],
    query: MultiMapping[str],
    low_name: str,
    high_name: str,
    *,
    attribute: str,
    parse: Callable[[str], float],
) -> None:
    for name, sign in ((low_name, 1), (high_name, -1)):
        text = query.get(name)
        if not text:
            continue
        try:
            bound = parse(text)
        except ValueError:
            raise bad_request(f"{name} has a value that can not be understood: {text}") from None
        found.append(_bound(attribute, bound, sign))


def _bound(attribute: str, bound: float, sign: int) -> Filter:
    def matches(record: SandboxRecord) -> bool:
        value = getattr(record, attribute)
        return value is not None and (value - bound) * sign >= 0

    return matches
