"""Known secrets, taken out of what a cell shows. Pure: text in, text without them out.

It guards against accidents (a printed environment, a traceback with a password in it), not against code that
wants to show a secret: that can spell it in some other way.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

REDACTED = "[redacted]"
MIN_CHARS = 8
MIN_DIFFERENT = 5
"""Shorter or simpler values (``dev``, ``00000000``, ``test-test``) are in too much of all output."""
HELD_CHARS = 4
"""A piece of text that ends with so much of a secret waits for what comes next; less is shown at once."""

_PLACES = re.compile(
    r"(PATH|HOME|PWD|SHELL|TERM|TZ|LANG|LANGUAGE|LC_\w+|EDITOR|PAGER|USER|LOGNAME|HOSTNAME|PYTHON\w*|\w+_(DIR|PATH|HOME))\Z"
)
"""Variables whose values are no secrets, and in much of all output: paths, languages, places."""
_BINARY = (
    "image/",
    "audio/",
    "video/",
    "font/",
    "application/pdf",
    "application/octet-stream",
    "application/zip",
)


class Secrets:
    """The secrets of one session. False while there are none."""

    def __init__(self) -> None:
        self._forms: list[str] = []
        self._pattern = re.compile("(?!)")

    def __bool__(self) -> bool:
        return bool(self._forms)

    def __repr__(self) -> str:
        return f"Secrets({len(self._forms)} forms)"

    @property
    def forms(self) -> tuple[str, ...]:
        """All spellings that are looked for, the longest first."""
        return tuple(self._forms)

    def add(self, *values: str) -> None:
        """Take these out from now on, also as they are spelled in JSON, in HTML and in URLs.

        Values that are too short or too simple are left: they would be found everywhere.
        """
        for value in values:
            if len(value) < MIN_CHARS or len(set(value)) < MIN_DIFFERENT:
                continue
            spelled = (json.dumps(value)[1:-1], repr(value)[1:-1], html.escape(value), quote(value, safe=""))
            for form in (value, value.strip(), *spelled):
                if form not in self._forms and len(form) >= MIN_CHARS:
                    self._forms.append(form)
        self._forms.sort(key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._forms)) or "(?!)")

    def add_environment(self, variables: Mapping[str, Any]) -> None:
        """Take out the values of environment variables, but for those that only name places and languages."""
        self.add(*(str(value) for name, value in variables.items() if not _PLACES.match(str(name).upper())))

    def text(self, text: str) -> str:
        """``text`` without the secrets; the same object if there are none in it."""
        return self._pattern.sub(REDACTED, text) if self.found_in(text) else text

    def found_in(self, text: str) -> bool:
        """Whether there is one; much quicker than the pattern."""
        return any(form in text for form in self._forms)

    def matches(self, text: str) -> list[tuple[int, int]]:
        """Where they begin and end."""
        return [match.span() for match in self._pattern.finditer(text)] if self.found_in(text) else []

    def begun_at(self, text: str, start: int) -> int:
        """Where, from ``start`` on, the longest beginning of a secret stands that ``text`` ends with.

        The length of ``text`` if there is none.
        """
        best = len(text)
        for form in self._forms:
            for place in range(max(start, len(text) - len(form) + 1), best):
                if form.startswith(text[place:]):
                    best = place
                    break
        return best

    def value(self, value: Any) -> Any:
        """A JSON value without the secrets in its texts."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value

    def bundle(self, data: dict[str, Any]) -> dict[str, Any]:
        """A mime bundle without the secrets in its texts; pictures and the like stay as they are."""
        return {
            mime: item if mime.startswith(_BINARY) and not mime.endswith("xml") else self.value(item)
            for mime, item in data.items()
        }


class StreamRedactor:
    """Takes secrets out of a stream of text, also where they are cut in two."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._shown = ""
        """The end of what was given out, as far as it may be a secret's beginning."""
        self._held = ""
        """What goes on from there, and waits."""

    @property
    def holds(self) -> bool:
        """Whether some text waits."""
        return bool(self._held)

    def feed(self, text: str) -> str:
        """Take the next piece; what can be shown by now."""
        raw = self._shown + self._held + text
        place = len(self._shown)
        pieces = []
        for start, end in self._secrets.matches(raw):
            pieces += [raw[place : max(place, start)], REDACTED]
            place = end
        begun = self._secrets.begun_at(raw, 0 if not pieces else place)
        if len(raw) - begun < HELD_CHARS:
            self._shown, self._held = raw[begun:], ""
            return "".join([*pieces, raw[place:]])
        self._shown, self._held = raw[begun : max(begun, place)], raw[max(begun, place) :]
        return "".join([*pieces, raw[place : max(begun, place)]])

    def flush(self) -> str:
        """Give out what waits: something else comes next, or nothing for too long."""
        text, self._held = self._held, ""
        self._shown += text
        return text
