"""The pages of the documentation, and what is in them: links, headings, and blocks of commands.

A block of commands (``bash``, ``python``) is run by the tests, in order with the others of its page, unless
the line before it says otherwise, in a comment that no reader of the rendered page sees:

- ``<!-- run by: .ci/run installed_wheel -->`` or ``<!-- run by: docs/tutorial.md -->`` names the step of CI,
  or the other page, that has these very commands;
- ``<!-- not run: REASON -->`` stands before what nobody can run here.

A ``text`` block after ``<!-- output -->`` is what the block before it prints; ``…`` stands for what differs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "notebooks" / "README.md", *(ROOT / "docs").glob("*.md")])
COMMANDS = ("bash", "python")
"""Languages of blocks that are run."""

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_NOTE = re.compile(r"<!-- (run by|not run|output)(?:: (.+))? -->")
_OURS = re.compile(r"(?<!^\| )`((?:jupyter daytona|%%?daytona)\s[^`]+)`", re.MULTILINE)
_PROGRAMS = r"apt|bash|curl|git|jupyter|mypy|papermill|pip|pytest|python|ruff"
_INLINE = re.compile(rf"`((?:(?:{_PROGRAMS})\s|%%?daytona)[^`]*)`")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text without the indentation, its line, and what is noted of it."""

    page: Path
    line: int
    language: str
    text: str
    note: str
    """``run by``, ``not run``, ``output`` or nothing."""
    about: str
    """What follows the note's colon."""
    gap: str
    """What stands between this block and the one before it."""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def run(self) -> bool:
        """Whether the tests follow it."""
        return self.language in COMMANDS and not self.note


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    end = 0
    for match in _FENCE.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] or "\n" for line in match["text"].splitlines(keepends=True))
        gap = text[end : match.start()]
        end = match.end()
        note = _NOTE.fullmatch(gap.rstrip().rpartition("\n")[2].strip())
        kind, about = (note[1], note[2] or "") if note else ("", "")
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"], body, kind, about, gap)


def prose(page: Path) -> str:
    """A page without its fenced blocks and comments."""
    return _COMMENT.sub("", _FENCE.sub("", page.read_text(encoding="utf-8")))


def links(page: Path) -> list[str]:
    """Where the links of a page lead."""
    return _LINK.findall(prose(page))


def inline_commands(page: Path) -> list[str]:
    """Commands of ours that are named within a sentence."""
    return [" ".join(text.split()) for text in _OURS.findall(prose(page))]


def whole_commands(page: Path) -> list[str]:
    """Commands within sentences and tables that could be typed as they stand: without gaps to fill."""
    text = "\n".join(line for line in prose(page).splitlines() if not line.startswith("#"))
    found = [" ".join(match.split()) for match in _INLINE.findall(text)]
    return [one for one in found if not re.search(r"\b[A-Z]{2,}\b|…|\.\.\.", one)]


def anchors(page: Path) -> set[str]:
    """What links may name after ``#``, by GitHub's rules: the words of a heading, in small letters."""
    headings = _HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_of(script: str) -> Iterator[list[str]]:
    """The simple commands of a shell script, as words, those in ``$(...)`` included."""
    script = script.replace("\\\n", " ")
    for inner in re.findall(r"\$\(([^)]*)\)", script):
        yield from commands_of(inner)
    for line in re.sub(r"\$\([^)]*\)", "SUBSTITUTED", script).splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        for word in lexer:
            if set(word) <= set("|&;"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def cells_of(block: Block) -> list[str]:
    """The cells of a block of Python: each ``%%`` begins one."""
    return re.split(r"\n(?=%%)", block.text)
