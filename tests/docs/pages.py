"""The pages of the documentation, and what is in them: links, headings, and blocks of commands.

A block after the line ``<!-- run -->`` is run by the tests, in order with the others of its page; all other
blocks are taken apart by the parsers that would get them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "notebooks" / "README.md", *(ROOT / "docs").glob("*.md")])
RUN = "<!-- run -->"

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_INLINE = re.compile(r"(?<!^\| )`((?:jupyter daytona|%%?daytona)\s[^`]+)`", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text without the indentation, its line, whether it is to be run."""

    page: Path
    line: int
    language: str
    text: str
    run: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] or "\n" for line in match["text"].splitlines(keepends=True))
        before = text[: match.start()].rstrip().rpartition("\n")[2].strip()
        yield Block(page, text.count("\n", 0, match.start()) + 1, match["language"], body, before == RUN)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Where the links of a page lead."""
    return _LINK.findall(prose(page))


def inline_commands(page: Path) -> list[str]:
    """Commands of ours that are named within a sentence."""
    return [" ".join(text.split()) for text in _INLINE.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """What links may name after ``#``, by GitHub's rules: the words of a heading, in small letters."""
    headings = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
