"""Frames between the agent in the sandbox and the link on this side. Pure: text in, frames out.

A frame is one line of text: RS (U+001E), then compact ASCII JSON, then a newline. It travels as ordinary
standard output of the interpreter, which cuts and joins text as it likes. Two shapes of line exist:

- a whole frame: ``{"x": execution id, "n": number, "t": type, "c": content}``, with ``"m": metadata``
  and ``"b": buffers`` where there are any;
- a part of a frame too large or too compressible for one line: ``{"x", "n", "p": [index, count],
  "d": text}``,
  where the texts of all parts, joined, are base64 of the zlib-compressed JSON of the whole frame, or that
  JSON itself (which begins with a brace, as base64 never does) if compression does not pay.

Every *line* has a number, counted from 0 in each execution, so a receiver can tell a line it has had
(dropped) from one it misses (fetched again from the agent's spool).

Types are Jupyter's own message types (``stream``, ``display_data`` ...) plus ``ready`` (the execution has
started), ``reply`` (answer to a request that is no cell) and ``done`` (the execution has ended).

This module runs on both sides, so it uses the standard library only and Python 3.10 at the most.
"""

from __future__ import annotations

import binascii
import json
import math
import numbers
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

RS = "\x1e"
MAX_LINE_BYTES = 256 * 1024
"""Largest line, as escaped by the daemon. Its worker dies of lines over 1 MiB (observed on v0.190.0)."""
PART_CHARS = 160 * 1024
HEAD_BYTES = 1024
"""More than what a line has besides its piece."""
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Largest frame after decompression: the other end is not trusted, and zlib expands up to 1000-fold."""
MAX_VALUES = 8 * 1024 * 1024
"""Most values in a frame: each takes up to 64 bytes as an object, so that ``[[],[],...`` expands 20-fold."""
COUNTED_OVER_BYTES = 4 * 1024 * 1024
"""Smaller frames can not hold so many that it matters."""
MAX_DEPTH = 150
"""Levels of lists and dicts in a frame. Whoever walks through it needs a few calls for each of them."""
MAX_PARTS = 64 * 1024
SAMPLES, SAMPLE_CHARS = 8, 8 * 1024
"""How much of a large frame is compressed to see whether that pays."""
WORTH_IT = 0.9
"""It pays if no more than this is left, after base64, which makes it a third longer."""
MAX_OPEN_LINE_CHARS = 4 * 1024 * 1024
"""A line without an end that grows beyond this was never a frame: it is given up and shown as text."""
NO_COMPRESSION = MAX_LINE_BYTES
"""``compress_over_chars`` for a link that is quicker than zlib: compress only what needs several lines."""


@dataclass(frozen=True)
class Frame:
    """One message of an execution, as made by the agent or put together again by :class:`Receiver`."""

    execution_id: str
    type: str
    content: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    buffers: tuple[bytes, ...] = ()
    parent: str = ""
    """Message id of the request that it belongs to, when that is not the one of the execution."""


@dataclass(frozen=True)
class Line:
    """One parsed line: a whole frame, or one part of one."""

    execution_id: str
    number: int
    body: dict[str, Any]

    @property
    def part(self) -> tuple[int, int] | None:
        """``(index, count)`` of a part, ``None`` for a whole frame."""
        part = self.body.get("p")
        return (part[0], part[1]) if part is not None else None


@dataclass(frozen=True)
class Text:
    """Text between frames: ordinary standard output that did not come through the agent."""

    text: str


def json_default(value: Any) -> Any:
    """What Jupyter makes of a value that JSON does not know, for ``json.dumps``."""
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(bytes(value)).decode("ascii")
    if isinstance(value, Iterable):
        return list(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{value!r} is not JSON serializable")


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=json_default).encode
# made once, which is quicker, and independent of what user code does to the module


def json_clean(value: Any) -> Any:
    """Make ``value`` fit for JSON as far as it goes: NaN to its repr, keys to text.

    Raises :class:`ValueError` in Jupyter's words for what can not be made any JSON.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else repr(number)
    if isinstance(value, dict):
        return {str(key): json_clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_clean(item) for item in value]
    try:
        return json_clean(json_default(value))
    except TypeError:
        raise ValueError(f"Can't clean for JSON: {value!r}") from None


def dumps(value: Any) -> str:
    """Compact ASCII JSON of ``value``. Raises :class:`ValueError` like :func:`json_clean`."""
    try:
        return _encode(value)
    except (TypeError, ValueError):
        return _encode(json_clean(value))


def escaped_size(text: str) -> int:
    """Bytes of ASCII ``text`` inside the daemon's JSON: quotes double; ``<``, ``>``, ``&`` take six."""
    doubled = text.count('"') + text.count("\\") + text.count("\n") + text.count(RS) * 5
    return len(text) + doubled + 5 * (text.count("<") + text.count(">") + text.count("&"))


def encode_body(
    type: str, content: dict[str, Any], metadata: dict[str, Any], buffers: tuple[bytes, ...], parent: str = ""
) -> str:
    """The JSON of a message, without its execution and number.

    Raises :class:`ValueError` if something in it is no JSON and can not be made any, as Jupyter does.
    """
    body: dict[str, Any] = {"t": type, "c": content}
    if metadata:
        body["m"] = metadata
    if buffers:
        body["b"] = [b64encode(buffer).decode("ascii") for buffer in buffers]
    if parent:
        body["h"] = parent
    return dumps(body)


def encode_lines(
    execution_id: str, body: str, first_number: int, compress_over_chars: int = NO_COMPRESSION
) -> list[str]:
    """Write a message as one or more lines, numbered from ``first_number``.

    ``compress_over_chars``: longer messages are compressed even if one line would do, which pays on any real
    network and costs on loopback.
    """
    head = _encode(execution_id)
    if len(body) <= compress_over_chars and _fits(body):
        return [f'{RS}{{"x":{head},"n":{first_number},{body[1:]}\n']
    pieces = None if _shrinks(body) else _plain_pieces(body)
    pieces = pieces or _cut(_compressed(body))
    return [
        f'{RS}{{"x":{head},"n":{first_number + index},"p":[{index},{len(pieces)}],"d":"{piece}"}}\n'
        for index, piece in enumerate(pieces)
    ]


def _plain_pieces(body: str) -> list[str] | None:
    """Pieces of the JSON itself, escaped as strings of JSON; ``None`` if that makes a line too long."""
    pieces = []
    for piece in _cut(body):
        escaped = piece.replace("\\", "\\\\").replace('"', '\\"')
        marks = piece.count("<") + piece.count(">") + piece.count("&")
        # What was escaped here are two characters, of which the daemon makes four.
        if len(piece) + 3 * (len(escaped) - len(piece)) + 5 * marks > MAX_LINE_BYTES - HEAD_BYTES:
            return None
        pieces.append(escaped)
    return pieces


def _cut(text: str) -> list[str]:
    return [text[start : start + PART_CHARS] for start in range(0, len(text), PART_CHARS)]


def _compressed(body: str) -> str:
    return b64encode(zlib.compress(body.encode("ascii"), 1)).decode("ascii")


def _shrinks(body: str) -> bool:
    """Whether compression pays, going by samples: a picture in base64 gets no smaller."""
    if len(body) < SAMPLES * SAMPLE_CHARS:
        return True
    step = len(body) // SAMPLES
    sample = "".join(body[start : start + SAMPLE_CHARS] for start in range(0, step * SAMPLES, step))
    return len(_compressed(sample)) <= WORTH_IT * len(sample)


def encode(frame: Frame, first_number: int, compress_over_chars: int = NO_COMPRESSION) -> list[str]:
    """Write ``frame`` as lines: :func:`encode_body` and :func:`encode_lines` in one."""
    body = encode_body(frame.type, frame.content, frame.metadata, frame.buffers, frame.parent)
    return encode_lines(frame.execution_id, body, first_number, compress_over_chars)


def _fits(text: str) -> bool:
    return len(text) * 6 <= MAX_LINE_BYTES or (
        len(text) <= MAX_LINE_BYTES and escaped_size(text) <= MAX_LINE_BYTES
    )


def parse_line(text: str) -> Line | None:
    """Parse one line (without RS and newline); ``None`` if it is not a frame of ours."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    execution_id, number = body.get("x"), body.get("n")
    if not isinstance(execution_id, str) or type(number) is not int or number < 0:
        return None
    if not (_is_part(body) if "p" in body else _is_whole(body)):
        return None
    return Line(execution_id, number, body)


def _is_part(body: dict[str, Any]) -> bool:
    part = body["p"]
    return (
        isinstance(part, list)
        and len(part) == 2
        and all(type(item) is int for item in part)
        and 0 <= part[0] < part[1] <= MAX_PARTS
        and isinstance(body.get("d"), str)
        and body["d"] != ""
    )


def _is_whole(body: dict[str, Any]) -> bool:
    buffers = body.get("b", [])
    return (
        isinstance(body.get("t"), str)
        and isinstance(body.get("c"), dict)
        and isinstance(body.get("m", {}), dict)
        and isinstance(body.get("h", ""), str)
        and isinstance(buffers, list)
        and all(isinstance(item, str) for item in buffers)
        and not (_is_deep(body["c"]) or _is_deep(body.get("m")))
    )


def _is_deep(value: Any) -> bool:
    """Whether there are more than :data:`MAX_DEPTH` levels."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for outer in level
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


def is_heavy(text: bytes) -> bool:
    """Whether this JSON has more than :data:`MAX_VALUES` values; those in its strings do not count."""

    def count(text: bytes) -> int:
        return text.count(b",") + text.count(b"[") + text.count(b"{")

    if len(text) <= COUNTED_OVER_BYTES or count(text) <= MAX_VALUES:
        return False
    return sum(count(between) for between in _between_strings(text)) > MAX_VALUES


def _between_strings(text: bytes) -> Iterator[bytes]:
    place = 0
    for match in _STRING.finditer(text):
        yield text[place : match.start()]
        place = match.end()
    yield text[place:]


class Splitter:
    """Cuts a stream of text into :class:`Line` and :class:`Text`, however the text was cut on its way."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._open_chars = 0

    def feed(self, text: str) -> Iterator[Line | Text]:
        """Take the next piece of the stream and yield what is complete. Text is never held back."""
        while text:
            if not self._open:
                plain, separator, text = text.partition(RS)
                if plain:
                    yield Text(plain)
                if not separator:
                    return
                self._open, self._open_chars = [""], 0
            piece, newline, text = text.partition("\n")
            self._open.append(piece)
            self._open_chars += len(piece)
            if newline:
                yield self._close(newline)
            elif self._open_chars > MAX_OPEN_LINE_CHARS:
                yield self._give_up()

    def finish(self) -> Iterator[Text]:
        """Yield what is left when the stream ends: a line without its end is shown, not dropped."""
        if self._open:
            yield self._give_up()

    def _close(self, newline: str) -> Line | Text:
        candidate = "".join(self._open)
        self._open = []
        return parse_line(candidate) or Text(RS + candidate + newline)

    def _give_up(self) -> Text:
        text = RS + "".join(self._open)
        self._open = []
        return Text(text)


class Gap(Exception):
    """A line is missing: ``expected`` is its number. What came so far is complete up to there."""

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(expected, got)
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        return f"line {self.expected} of the execution is missing (line {self.got} came instead)"


class Receiver:
    """Puts the lines of one execution together again: each frame once and in order.

    It may be fed from two sources in turn, the socket and the spool; lines had before are dropped.
    """

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        self.next_number = 0
        self.dropped = 0
        """How many frames came whole and were none, or too large ones."""
        self._parts: list[str] = []
        self._part_chars = 0

    def feed(self, line: Line) -> Frame | None:
        """Take one line; return the frame that it completes, if any.

        Raises :class:`Gap` if a line before this one has not come; the receiver's state is then unchanged.
        """
        if line.execution_id != self.execution_id or line.number < self.next_number:
            return None
        if line.number > self.next_number:
            raise Gap(self.next_number, line.number)
        self.next_number += 1
        if line.part is None:
            self._parts, self._part_chars = [], 0
            return self._counted(_frame(self.execution_id, line.body))
        return self._feed_part(*line.part, line.body["d"])

    def _counted(self, frame: Frame | None) -> Frame | None:
        self.dropped += frame is None
        return frame

    def _feed_part(self, index: int, count: int, text: str) -> Frame | None:
        if index == 0:
            self._parts, self._part_chars = [], 0
        if index != len(self._parts):
            return None
        self._parts.append(text)
        self._part_chars += len(text)
        if self._part_chars > MAX_MESSAGE_BYTES:
            self._parts, self._part_chars = [], 0
            return self._counted(None)
        if len(self._parts) < count:
            return None
        packed, self._parts = "".join(self._parts), []
        return self._counted(_unpack(self.execution_id, packed))


def _unpack(execution_id: str, packed: str) -> Frame | None:
    try:
        text = packed.encode("ascii")
        if packed[0] != "{":
            stream = zlib.decompressobj()
            text = stream.decompress(b64decode(packed), MAX_MESSAGE_BYTES)
            if stream.unconsumed_tail:
                return None
        if is_heavy(text):
            return None
        body = json.loads(text)
    except (ValueError, binascii.Error, zlib.error, RecursionError):
        return None
    if not isinstance(body, dict) or not _is_whole(body):
        return None
    return _frame(execution_id, body)


def _frame(execution_id: str, body: dict[str, Any]) -> Frame | None:
    try:
        buffers = tuple(b64decode(item) for item in body.get("b", []))
    except (ValueError, binascii.Error):
        return None
    return Frame(execution_id, body["t"], body["c"], body.get("m", {}), buffers, body.get("h", ""))
