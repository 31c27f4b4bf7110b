"""PURE: how much of a notebook's output is kept, so that a cell that prints for ever fills no disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

LIMITED = (
    "stream",
    "display_data",
    "execute_result",
    "update_display_data",
    "comm_open",
    "comm_msg",
    "error",
)
"""Types of messages that leave something in a notebook."""


class OutputLimit:
    """Counts what one notebook keeps, in characters of its file, and says when that is too much.

    *limit* is for all cells together; 0 stands for none. *kept* measures what there is now. It is asked when
    what came since then could be over the limit: much of that may have been cleared or replaced.
    """

    def __init__(self, limit: int, kept: Callable[[], int]) -> None:
        self._limit = limit
        self._kept = kept
        self._left = limit
        self._full = False
        self._errors = 0
        self.said = False
        """Whether the cell's reader has been told."""

    def cell_begins(self) -> None:
        """What was dropped so far was another cell's."""
        self.said, self._errors = False, 0
        self.cleared()

    def cleared(self) -> None:
        """Outputs were removed: it may not be full any more."""
        if self._full:
            self._full, self._left = False, 0

    def take(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """What is to be kept of a message of IOPub: all of it, the beginning of its text, or ``None``."""
        if not self._limit or message["msg_type"] not in LIMITED:
            return message
        if not self._full:
            size = size_of_message(message)
            self._left -= size
            if self._left >= 0:
                return message
            room = self._limit - self._kept()
            self._left = room - size
            # A tenth of it must be left, so that measuring (which looks at all outputs) stays rare.
            self._full = self._left < self._limit // 10
            if self._left >= 0:
                return message
            if message["msg_type"] == "stream" and room > 0:
                return {
                    **message,
                    "content": {**message["content"], "text": message["content"]["text"][:room]},
                }
        if message["msg_type"] == "error" and not self._errors:
            self._errors += 1  # how a cell ended is worth more than what it said before
            return message
        return None


def size_of_message(message: dict[str, Any]) -> int:
    """About how many characters a message adds to a notebook."""
    content = message["content"]
    if message["msg_type"] == "stream":
        return len(content["text"])
    size = sum(4 * len(buffer) // 3 for buffer in message.get("buffers") or ())
    return size + size_of_output(content)


def size_of_output(output: dict[str, Any]) -> int:
    """About how many characters an output (or a message's content) has in a notebook."""
    return sum(_size(value) for value in output.values())


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return len(json.dumps(value, default=str))
