"""Typed access to what a request carries, with 400 for whatever does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from .errors import ToolboxError

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _bad(message: str) -> ToolboxError:
    return ToolboxError(400, message, "INVALID_REQUEST_BODY")


class Fields:
    """The fields of a JSON body or of a query string.

    Unknown fields are ignored and ``null`` counts as absent. In a query string every value is text, so
    numbers and flags are parsed; in a body they must have their own JSON type, as the real daemon demands.
    """

    def __init__(self, data: Mapping[str, Any], *, from_query: bool = False) -> None:
        self._data = data
        self._from_query = from_query

    def get(self, name: str) -> Any:
        """Give the raw value, or ``None``."""
        return self._data.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        """Give a text; without ``default`` it is required and must not be empty."""
        value = self.get(name)
        if value is None:
            if default is None:
                raise _bad(f"{name} is required")
            return default
        if not isinstance(value, str):
            raise _bad(f"{name} must be a string")
        if not value and default is None:
            raise _bad(f"{name} is required")
        return value

    def optional_text(self, name: str) -> str | None:
        """Give a text, or ``None`` where it is absent or empty."""
        return self.text(name, "") or None

    def flag(self, name: str, default: bool = False) -> bool:
        """Give a boolean."""
        value = self.get(name)
        if value is None:
            return default
        if self._from_query and isinstance(value, str):
            lowered = value.lower()
            if lowered in {"true", "1", "t"}:
                return True
            if lowered in {"false", "0", "f", ""}:
                return False
        if not isinstance(value, bool):
            raise _bad(f"{name} must be true or false")
        return value

    def integer(
        self, name: str, default: int | None = None, *, low: int | None = None, high: int | None = None
    ) -> int:
        """Give a whole number within ``low`` and ``high``; without ``default`` it is required."""
        value = self.get(name)
        if value is None:
            if default is None:
                raise _bad(f"{name} is required")
            return default
        if self._from_query and isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise _bad(f"{name} must be a whole number") from None
        if not isinstance(value, int) or isinstance(value, bool):
            raise _bad(f"{name} must be a whole number")
        if (low is not None and value < low) or (high is not None and value > high):
            raise _bad(f"{name} must be between {low} and {high}, not {value}")
        return value

    def number(self, name: str, default: float) -> float:
        """Give a number."""
        value = self.get(name)
        if value is None:
            return default
        if self._from_query and isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise _bad(f"{name} must be a number") from None
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise _bad(f"{name} must be a number")
        return float(value)

    def texts(self, name: str) -> list[str]:
        """Give a list of texts; absent means empty."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _bad(f"{name} must be a list of strings")
        return value

    def environment(self, name: str) -> dict[str, str]:
        """Give a map of environment variables; absent means empty."""
        value = self.get(name)
        return {} if value is None else check_environment(value)


def check_environment(value: Any) -> dict[str, str]:
    """Return ``value`` if it can be an environment: names of letters, digits and ``_``, no NUL in values."""
    if not isinstance(value, dict):
        raise _bad("environment variables must be an object")
    for name, text in value.items():
        if not _ENV_NAME.match(name):
            raise _bad(f"invalid environment variable name: {name!r}")
        if not isinstance(text, str) or "\0" in text:
            raise _bad(f"the value of environment variable {name} must be a string without NUL")
    return value


async def body_fields(request: web.Request) -> Fields:
    """Read a JSON body. An empty one counts as ``{}``: the async SDK announces JSON even without a body."""
    raw = await request.read()
    if not raw.strip():
        return Fields({})
    try:
        data = json.loads(raw)
    except ValueError as exc:  # includes bad UTF-8
        raise _bad(f"the body is not valid JSON: {exc}") from exc
    except RecursionError:
        raise _bad("the body is nested too deeply") from None
    if not isinstance(data, dict):
        raise _bad("the body must be a JSON object")
    return Fields(data)


def query_fields(request: web.Request) -> Fields:
    """Give the query string's fields (the first value where a name repeats)."""
    return Fields(request.query, from_query=True)
