"""Reading ``multipart/form-data`` piece by piece. Pure: bytes in, events out.

aiohttp's own reader goes line by line; this one looks for the boundary with one search per chunk and hands
the chunk on, so that an upload runs at the speed of the socket and nothing is kept in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

MAX_HEADER_BYTES = 64 * 1024


class MultipartError(ValueError):
    """The bytes are not a multipart body."""


@dataclass(frozen=True)
class PartBegin:
    """A part starts. ``name`` is the form field; ``filename`` is ``None`` for plain fields."""

    name: str
    filename: str | None


@dataclass(frozen=True)
class PartData:
    """Some of the content of the current part."""

    data: bytes


@dataclass(frozen=True)
class PartEnd:
    """The current part is complete."""


Event = PartBegin | PartData | PartEnd

_PARAMETER = re.compile(r';\s*([\w*]+)\s*=\s*(?:"((?:\\.|[^"\\])*)"|([^;\s]*))')


def disposition_parameters(header: str) -> dict[str, str]:
    """Parse the parameters of a Content-Disposition header; ``filename*`` is decoded into ``filename``."""
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(header):
        name, quoted, bare = match.groups()
        found[name.lower()] = re.sub(r'\\(["\\])', r"\1", quoted) if quoted is not None else bare
    extended = found.pop("filename*", None)
    if extended is not None and extended.lower().startswith("utf-8'"):
        found["filename"] = unquote(extended.split("'", 2)[-1])
    return found


def boundary_of(content_type: str) -> bytes | None:
    """Give the boundary of a multipart content type, or ``None`` if it is another type."""
    kind, _, rest = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return None
    match = re.search(r'boundary\s*=\s*(?:"([^"]+)"|([^;\s]+))', rest, re.IGNORECASE)
    return (match.group(1) or match.group(2)).encode("latin-1", "replace") if match else None


class MultipartParser:
    """Feed it chunks cut anywhere; it yields events. At the end :attr:`complete` tells if all has come."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._state: Literal["preamble", "body", "delimiter", "headers", "end"] = "preamble"
        self._rest = b"\r\n"  # as if a line had ended before the first boundary

    @property
    def complete(self) -> bool:
        """Whether the closing boundary has been seen."""
        return self._state == "end"

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes and yield what they mean. The iterator must be exhausted.

        :raises MultipartError: if they break the format.
        """
        buffer = self._rest + data if self._rest else data
        position = 0
        while self._state != "end":
            if self._state == "delimiter":
                step = self._after_delimiter(buffer, position)
            elif self._state == "headers":
                end = buffer.find(b"\r\n\r\n", position - 2 if position >= 2 else position)
                if end < 0:
                    if len(buffer) - position > MAX_HEADER_BYTES:
                        raise MultipartError("the headers of a part are too long")
                    step = None
                else:
                    yield self._begin(buffer[position : max(end, position)])
                    step = end + 4
                    self._state = "body"
            else:
                in_body = self._state == "body"
                end = buffer.find(self._delimiter, position)
                cut = end if end >= 0 else self._safe_end(buffer, position)
                if in_body and cut > position:
                    whole = position == 0 and cut == len(buffer)
                    yield PartData(buffer if whole else buffer[position:cut])
                position = cut
                if end < 0:
                    step = None
                else:
                    if in_body:
                        yield PartEnd()
                    step = end + len(self._delimiter)
                    self._state = "delimiter"
            if step is None:
                break
            position = step
        self._rest = b"" if self._state == "end" else buffer[position:]

    def _safe_end(self, buffer: bytes, position: int) -> int:
        """Find where a boundary could begin that the next chunk completes."""
        start = max(position, len(buffer) - len(self._delimiter) + 1)
        candidate = buffer.find(b"\r", start)
        while candidate >= 0 and not self._delimiter.startswith(buffer[candidate:]):
            candidate = buffer.find(b"\r", candidate + 1)
        return len(buffer) if candidate < 0 else candidate

    def _after_delimiter(self, buffer: bytes, position: int) -> int | None:
        while buffer[position : position + 1] in (b" ", b"\t"):  # padding that RFC 2046 allows
            position += 1
        mark = buffer[position : position + 2]
        if len(mark) < 2:
            return None
        if mark == b"--":
            self._state = "end"
        elif mark == b"\r\n":
            self._state = "headers"
        else:
            raise MultipartError("a boundary is followed by neither a line end nor --")
        return position + 2

    @staticmethod
    def _begin(block: bytes) -> PartBegin:
        for line in block.decode("utf-8", "replace").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-disposition":
                parameters = disposition_parameters(value)
                if "name" in parameters:
                    return PartBegin(parameters["name"], parameters.get("filename"))
        raise MultipartError("a part has no name")
