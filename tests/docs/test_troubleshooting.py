"""``docs/troubleshooting.md`` knows each of our errors, and quotes no message that we do not have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from daytona_kernel import errors
from daytona_kernel.magics.cells import RemoteError
from daytona_kernel.magics.host import CommandFailed, UsageError

from .pages import ROOT, anchors

PAGE = ROOT / "docs" / "troubleshooting.md"
ANYTHING = "…"


def family(root: type[Exception]) -> Iterator[type[Exception]]:
    """The errors of errors.py, without their root."""
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from family(child)


PUBLIC = [*family(errors.DaytonaKernelError), UsageError, CommandFailed, RemoteError]
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@cache
def sentences() -> list[str]:
    """All texts of the package, with ``…`` where a value goes."""
    found = []
    for path in (ROOT / "daytona_kernel").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else ANYTHING for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


@pytest.mark.parametrize("error", PUBLIC, ids=lambda error: error.__name__)
def test_every_error_has_a_section(error: type[Exception]) -> None:
    assert error.__name__.lower() in anchors(PAGE)


def test_it_has_messages() -> None:
    assert len(MESSAGES) > 30


@pytest.mark.parametrize("message", MESSAGES)
def test_every_message_is_one_of_ours(message: str) -> None:
    if re.sub(r"\W", "", message) in ("localhost",):
        return
    pieces = [re.escape(piece) for piece in message.split(ANYTHING)]
    wanted = re.compile(".*".join(pieces), re.DOTALL)
    assert any(wanted.search(sentence) for sentence in sentences()), message
