"""Pure part of the interpreter: worker lines to chunks to frames, first message to request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_LINE = 1024 * 1024
"""Bytes of a worker line with its newline; one more and the real daemon's reader stops for good
(v0.190.0)."""

DEFAULT_TIMEOUT = 600
"""Seconds an execution may take when the client names no timeout (v0.190.0)."""

KEYS = ("type", "text", "name", "value", "traceback")

Chunk = dict[str, str]

_quote_plain = json.JSONEncoder(ensure_ascii=False).encode
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPES = (
    ("<", "\\u003c"),
    (">", "\\u003e"),
    ("&", "\\u0026"),
    ("\u2028", "\\u2028"),
    ("\u2029", "\\u2029"),
)


class LineTooLongError(Exception):
    """A worker line passed :data:`MAX_LINE`."""


class LineSplitter:
    """Cuts the worker's byte stream into lines without copying long lines more than once."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield each line that *data* completes; raise :class:`LineTooLongError` where one is too long."""
        *complete, rest = data.split(b"\n")
        for line in complete:
            if self._held + len(line) >= MAX_LINE:
                raise LineTooLongError
            if self._pieces:
                self._pieces.append(line)
                line = b"".join(self._pieces)  # noqa: PLW2901
                self._pieces.clear()
                self._held = 0
            yield line
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)
            if self._held >= MAX_LINE:
                raise LineTooLongError

    def rest(self) -> bytes:
        """The unfinished last line, once there is no more to come."""
        return b"".join(self._pieces)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a worker line; ``None`` for everything else (which the daemon drops).

    ``null`` counts as an empty object, as it does for the real daemon.
    """
    try:
        value = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def to_chunk(fields: dict[str, Any]) -> Chunk:
    """Keep the five known keys; a missing or non-string value becomes empty."""
    return {key: value if isinstance(value := fields.get(key), str) else "" for key in KEYS}


def encode_frame(chunk: Chunk) -> str:
    """The text of the WebSocket message for *chunk*, escaped as Go's encoder does (``<``, ``>``, ``&``: 6
    bytes)."""
    return "{" + ",".join(f'"{key}":{_quote(chunk[key])}' for key in KEYS) + "}"


def _quote(text: str) -> str:
    if not text:
        return '""'
    if not text.isascii():
        text = replace_surrogates(text)
    quoted = _quote_plain(text)
    for raw, escaped in _ESCAPES:
        if raw in quoted:
            quoted = quoted.replace(raw, escaped)
    return quoted


def replace_surrogates(text: str) -> str:
    """Lone surrogates become U+FFFD, as in every JSON text that passes through Go."""
    return _LONE_SURROGATE.sub("\ufffd", text)


@dataclass(frozen=True)
class ExecuteRequest:
    """The first message on an execute socket."""

    code: str
    context_id: str = ""
    envs: dict[str, str] = field(default_factory=dict)
    timeout: int = DEFAULT_TIMEOUT
    """Seconds from the start of the execution; 0 for none."""


class BadRequestError(Exception):
    """A first message that is refused: close code and reason of the daemon."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def parse_request(message: str | bytes) -> ExecuteRequest:
    """Read the first message as the daemon does: unknown keys ignored, ``null`` the same as absent.

    Raises :class:`BadRequestError`: 1002 when it is no JSON object or a value has the wrong type (a
    fractional timeout too), 1008 when the code is empty or the timeout negative.
    """
    try:
        fields = json.loads(message)
    except (ValueError, RecursionError):
        raise BadRequestError(1002, "invalid JSON payload") from None
    if fields is None:
        fields = {}
    if not isinstance(fields, dict):
        raise BadRequestError(1002, "invalid JSON payload")
    code = _typed(fields, "code", str, "")
    context_id = _typed(fields, "contextId", str, "")
    timeout = _typed(fields, "timeout", int, DEFAULT_TIMEOUT)
    envs = _typed(fields, "envs", dict, {})
    if any(value is not None and not isinstance(value, str) for value in envs.values()):
        raise BadRequestError(1002, "invalid JSON payload")
    if not code:
        raise BadRequestError(1008, "code is required")
    if timeout < 0:
        raise BadRequestError(1008, "timeout must be greater than or equal to 0")
    return ExecuteRequest(
        code=replace_surrogates(code),
        context_id=context_id,
        envs={replace_surrogates(name): replace_surrogates(value or "") for name, value in envs.items()},
        timeout=timeout,
    )


def _typed(fields: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = fields.get(key)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadRequestError(1002, "invalid JSON payload")
    return value
