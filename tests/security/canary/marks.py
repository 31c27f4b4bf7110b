"""The mark in every secret of a run with canaries, and the forms in which it may come back."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MARK = "".join(("c0ffee", "5ec7"))
"""In pieces, so that no source and no byte code has it. Hexadecimal digits are in every alphabet that keys
and tokens are made of; these ten come up by chance once in 10**12 digits."""
KEY, TOKEN, PERSON, PLANTED = "a", "b", "c", "d"
KINDS = {
    KEY: "a local server's key",
    TOKEN: "a token or signing key of a local server",
    PERSON: "a key in the environment of the person",
    PLANTED: "a secret of a test",
}
"""What the digit after the mark says."""
UNKNOWN = "?"

PERSONAL = {
    "OPENAI_API_KEY": f"sk-proj-{MARK}{PERSON}0Zx81/qT+9",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}{PERSON}1wJa/rXUtnFEMI",
    "GITHUB_TOKEN": f"ghp_{MARK}{PERSON}2Kd93mQ",
    "CANARY_PASSWORD": f'p"{MARK}{PERSON}3 &\\ü',
}
"""Variables of the person who runs the tests. None of them is for any file or sandbox."""


@dataclass(frozen=True)
class Hit:
    """A mark in some bytes."""

    offset: int
    form: str
    kind: str
    """A key of :data:`KINDS`, or :data:`UNKNOWN`."""


def _base64_forms(word: bytes) -> Iterator[bytes]:
    """What the base64 of every text with `word` has, for each of the three places it can begin at."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + word)
        first = -(-before * 8 // 6)  # characters with a bit of what is before
        last = (before + len(word)) * 8 // 6  # characters with no bit of what is behind
        yield encoded[first:last]


def _forms() -> dict[str, list[bytes]]:
    word = MARK.encode()
    in_base64 = list(_base64_forms(word))
    forms = {
        "as it is": [word],
        "in capitals": [MARK.upper().encode()],
        "base64": [one for raw in in_base64 for one in (raw, _web_safe(raw))],
        "hexadecimal": [word.hex().encode(), word.hex().upper().encode()],
        "URL-encoded": [b"".join(b"%%%02x" % one for one in word), b"".join(b"%%%02X" % one for one in word)],
        "JSON escapes": [b"".join(b"\\u%04x" % one for one in word)],
        "UTF-16": [b"\0".join(bytes([one]) for one in word)],
        "bytes": [binascii.unhexlify(word + b"d0")],
    }
    return {name: list(dict.fromkeys(spelled)) for name, spelled in forms.items()}


def _web_safe(encoded: bytes) -> bytes:
    return encoded.replace(b"+", b"-").replace(b"/", b"_")


FORMS: Mapping[str, list[bytes]] = _forms()
LONGEST = max(len(form) for forms in FORMS.values() for form in forms)
WIDE = 1024
"""More bytes than any secret has in any form."""
KIND_AFTER = 8
"""Bytes after a form that may be needed to know the kind."""


def hits(data: bytes) -> Iterator[Hit]:
    """Every mark in `data`, in any of the forms."""
    for name, forms in FORMS.items():
        for form in forms:
            place = data.find(form)
            while place >= 0:
                yield Hit(place, name, _kind(data, place, name, len(form)))
                place = data.find(form, place + len(form))


def _kind(data: bytes, place: int, form: str, length: int) -> str:
    after = data[place + length : place + length + KIND_AFTER]
    if form in ("as it is", "in capitals"):
        kind = after[:1].decode("latin-1").lower()
    elif form == "hexadecimal":
        kind = _decoded(after[:2])
    elif form == "UTF-16":
        kind = after[1:2].decode("latin-1")
    else:
        kind = UNKNOWN
    return kind if kind in KINDS else UNKNOWN


def _decoded(digits: bytes) -> str:
    try:
        return binascii.unhexlify(digits).decode("latin-1")
    except binascii.Error:
        return UNKNOWN


_NEIGHBOURS = re.compile(
    b"(?:%s)[\\w+/=%%\\\\\\0-]*" % b"|".join(re.escape(form) for forms in FORMS.values() for form in forms)
)
"""A mark and what goes on from it, whatever else stands there."""


def without_marks(data: bytes) -> str:
    """A text for a report."""
    return _NEIGHBOURS.sub(b"<...>", data).decode("utf-8", "replace")


def masked(data: bytes, hit: Hit, around: int = 70) -> str:
    """The text around a mark, for a report: no secret whole, and no control characters."""
    before = _NEIGHBOURS.sub(b"<...>", data[max(0, hit.offset - around - WIDE) : hit.offset])
    behind = data[hit.offset : hit.offset + WIDE + around]
    behind = _NEIGHBOURS.sub(b"<...>", _NEIGHBOURS.sub(b"", behind, count=1))
    before, behind = before[-around:], behind[:around]
    what = f"<{KINDS.get(hit.kind, 'a secret')}, {hit.form}>"
    text = before.decode("utf-8", "replace") + what + behind.decode("utf-8", "replace")
    return "".join(char if char.isprintable() else "." for char in text)
