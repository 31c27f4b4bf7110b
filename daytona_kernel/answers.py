"""PURE: the JSON of answers, which come from places that are not trusted."""

from __future__ import annotations

import json
from typing import Any

from . import wire


def parsed(text: bytes | bytearray | str) -> Any:
    """The value in an answer. Raises :class:`ValueError` for none, and for one that would fill the memory.

    ``[[],[],...`` takes twenty times its size as objects, so that a limit of the bytes alone is none.
    """
    data = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
    if wire.is_heavy(data):
        raise ValueError(f"more than {wire.MAX_VALUES} values")
    try:
        return json.loads(data)
    except RecursionError as exc:
        raise ValueError("too many levels") from exc
