"""Every command of README and docs is run: by ``test_run.py``, or by whom the comment above it names."""

from __future__ import annotations

import re
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from daytona_kernel.magics import registry

from .pages import COMMANDS, PAGES, ROOT, Block, blocks, commands_of, whole_commands
from .reader import pattern_of

BLOCKS = [block for page in PAGES for block in blocks(page)]
ELSEWHERE = [block for block in BLOCKS if block.note == "run by"]
NOT_RUN = {
    "README.md": "it is what runs the tests",
    "performance.md": "five minutes, and other figures on each machine",
}
"""The blocks that nobody runs in the tests, one on a page, and why."""
NAME = "{0.parent.name}/{0.name}".format
STEP = re.compile(r"^(\w+)\(\) \{\n(.*?)^\}$", re.MULTILINE | re.DOTALL)


@cache
def steps() -> dict[str, str]:
    """The steps of ``.ci/run`` that are really taken, with their text."""
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    taken = set(re.findall(r'^step "[^"]+" (\w+)$', text, re.MULTILINE))
    return {name: body for name, body in STEP.findall(text) if name in taken}


def runs(script: str, wanted: list[str]) -> bool:
    """Whether a line of a shell script has this command: all of its words, next to each other."""
    for line in script.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue  # a line of a longer quotation
        if any(words[at : at + len(wanted)] == wanted for at in range(len(words))):
            return True
    return False


def lines_of(block: Block) -> list[str]:
    """The lines of a block, without what is said about them."""
    return [line.partition("  #")[0].strip() for line in block.text.splitlines() if line.strip()]


@pytest.mark.parametrize("block", ELSEWHERE, ids=str)
def test_who_is_named_runs_these_very_commands(block: Block) -> None:
    if block.about.startswith("docs/"):
        others = [one for one in blocks(ROOT / block.about) if one.run and one.language == block.language]
        said = {line for one in others for line in lines_of(one)}
        assert set(lines_of(block)) <= said, f"{block.about} does not have: {block.text}"
        return
    who, _, step = block.about.partition(" ")
    assert who == ".ci/run"
    for words in filter(None, commands_of(block.text)):
        assert runs(steps()[step], words), f"{step} of .ci/run does not run: {shlex.join(words)}"


def test_what_nobody_runs_is_known_with_its_reason() -> None:
    marked = [(block.page.name, block.about) for block in BLOCKS if block.note == "not run"]
    assert marked == [*NOT_RUN.items()]


@pytest.mark.parametrize("page", PAGES, ids=NAME)
def test_notes_stand_before_what_they_can_be_about(page: Path) -> None:
    for block in blocks(page):
        if block.note == "output":
            assert block.language == "text", block
        elif block.note:
            assert block.language in COMMANDS, block
            assert block.about, block


@pytest.mark.parametrize("page", PAGES, ids=NAME)
def test_what_follows_commands_at_once_is_their_output_and_compared(page: Path) -> None:
    for before, block in pairwise(blocks(page)):
        if block.language == "text" and before.run and not block.gap.strip():
            pytest.fail(f"{block}: there is no <!-- output --> before it")
        if block.note == "output":
            assert before.run, f"{block}: what comes before it is not run"


def head(words: list[str]) -> tuple[str, ...]:
    """The words of a command that say what is to be done."""
    if words[:2] == ["jupyter", "daytona"]:
        return tuple(words[: 4 if words[2:3] == ["local"] else 3])
    if words[:2] == ["python", "-m"]:
        return tuple(words[:3])
    return tuple(words[:2] if words[0] in ("bash", "git", "jupyter", "pip", "ruff") else words[:1])


def deeds(words: list[str]) -> set[tuple[str, ...]]:
    """What a command does, and with which options: each of them is to be tried."""
    first = head(words)
    return {
        first,
        *((*first, word.partition("=")[0]) for word in words[len(first) :] if word.startswith("-")),
    }


def magics_of(block: Block) -> list[str]:
    """The lines of ``%daytona`` in a block."""
    return re.findall(r"^(?:\w+ = )?(%?%daytona.*)", block.text, re.MULTILINE)


def magic(line: str) -> tuple[str, ...]:
    """The command of a ``%daytona`` line."""
    sign, _, rest = line.partition("daytona")
    words = registry.words_of(rest)
    table = registry.commands(cell=sign == "%%")
    if not words or (sign == "%%" and words[0].startswith("-")):
        return ("%%daytona", "python") if sign == "%%" else ("%daytona", "help")
    return (f"{sign}daytona", registry.find(words, table)[0].name)


@cache
def tried() -> set[tuple[str, ...]]:
    """The commands that are run: in a block of a page, or where its note says."""
    shell = (words for block in BLOCKS if is_run(block, "bash") for words in commands_of(block.text))
    found = {deed for words in shell if words for deed in deeds(words)}
    return found | {magic(line) for block in BLOCKS if is_run(block, "python") for line in magics_of(block)}


def is_run(block: Block, language: str) -> bool:
    return block.language == language and block.note != "not run"


OTHERS = {
    "bash .ci/run": NOT_RUN["README.md"],
    "jupyter console": "tests/kernel/test_console.py",
    "jupyter console --kernel daytona": "tests/kernel/test_console.py",
    "pip install -e '.[dev]'": ".ci/run",
    "pip uninstall daytona-kernel": ".ci/run",
    'pytest -m "not slow"': ".ci/run",
    "pytest --nbval notebooks --nbval-sanitize-with .ci/nbval.cfg": ".ci/run",
    "python -m tests.benchmarks": NOT_RUN["performance.md"],
    "python -m tests.security.mutants": "tests/security/test_mutants.py",
    "ruff check": ".ci/run",
}
"""Commands in sentences that no block has: the file that does what they do, or why there is none."""


def system_packages() -> set[str]:
    """What CI installs with apt."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").replace("\\\n", " ")
    return {word for words in re.findall(r"apt_install ([^|\n]+)", script) for word in words.split()}


@pytest.mark.parametrize("page", PAGES, ids=NAME)
def test_commands_in_sentences_are_run_somewhere(page: Path) -> None:
    for text in whole_commands(page):
        if text in ("%daytona", "%%daytona") or text.startswith("%daytona works only"):
            continue  # the family, and a message
        if text.startswith("%"):
            assert magic(text) in tried(), text
        elif text.startswith("apt install "):
            assert set(text.split()[2:]) <= system_packages(), text
        elif text not in OTHERS:
            assert deeds(shlex.split(text)) <= tried(), text


def test_what_is_run_elsewhere_is_named_on_a_page_and_known_there() -> None:
    named = {text for page in PAGES for text in whole_commands(page)}
    assert set(OTHERS) <= named
    for text, where in OTHERS.items():
        if where not in NOT_RUN.values():
            source = (ROOT / where).read_text(encoding="utf-8")
            words = [re.escape(word) for word in shlex.split(text)[:2] if re.fullmatch(r"[a-z]+", word)]
            assert re.search(r"\b.*\b".join(words), source), f"{where} has nothing of: {text}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_commands_of_recipes_are_run_on_a_page(block: Block) -> None:
    """Word for word: where another program would run them, nobody can see them fail."""
    lines = re.findall(r"^ *-? *run: (.+)$", block.text, re.MULTILINE)
    assert lines
    shown = [words for one in BLOCKS if is_run(one, "bash") for words in commands_of(one.text)]
    for line in lines:
        assert shlex.split(line) in shown, line


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  b\n", "a b\n", True),
        ("a … c\n", "first\na lot of c\nlast\n", True),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nd\n", True),
        ("a\nb\n", "a\nx\nb\n", False),
        ("a\n", "ab\n", False),
        ("a b\n", "a\nb\n", False),
        ("3 files\n", "13 files\n", False),
        ("a … c\n", "a b\nc\n", False),
    ],
)
def test_outputs_are_compared_by_words_and_lines(shown: str, printed: str, same: bool) -> None:
    assert bool(pattern_of(shown).search(printed)) is same
