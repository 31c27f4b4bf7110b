"""Every command in README and docs is understood by the program that would get it; links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from IPython.core.inputtransformer2 import TransformerManager

from daytona_kernel import cli
from daytona_kernel.cellsplit import Local, split
from daytona_kernel.magics import registry

from .pages import PAGES, ROOT, Block, anchors, blocks, cells_of, commands_of, inline_commands, links
from .settings import PAGE as SETTINGS_PAGE
from .settings import page as settings_page

BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "bash"]
CELLS = [block for block in BLOCKS if block.language == "python"]
NEITHER = {"", "dockerfile", "ini", "json", "mermaid", "text", "toml", "yaml"}
PACKAGES = {"apt", "conda", "pip", "pipx", "uv"}
SHELL_WORDS = {"cat", "cd", "cp", "echo", "eval", "export", "head", "ls", "mkdir", "rm", "tail"}
OTHERS = PACKAGES | SHELL_WORDS
OTHERS |= {"bash", "curl", "docker", "git", "papermill", "pytest", "python", "sudo", "systemctl"}
"""Programs that are not ours, and may stand in a block."""
JUPYTER = {"console", "execute", "kernelspec", "lab", "nbconvert", "notebook", "server"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def check_shell(words: list[str]) -> None:
    """Refuse a command that its program would refuse, or a program that nobody knows."""
    while words and re.fullmatch(r"[A-Za-z_]+=.*", words[0]):
        words = words[1:]
    for end, word in enumerate(words):
        if re.match(r"\d?[<>]", word):
            words = words[:end]
            break
    if not words:
        return
    if words[:2] == ["jupyter", "daytona"]:
        parser = cli.build_parser(with_local=words[2:3] == ["local"])
        try:
            parser.parse_args(words[2:])
        except SystemExit as exc:
            if exc.code:
                pytest.fail(f"not understood: {shlex.join(words)}")
    elif words[0] == "jupyter":
        assert words[1] in JUPYTER, shlex.join(words)
    else:
        assert words[0] in OTHERS, shlex.join(words)


def check_line(line: str, *, cell: bool = False) -> None:
    """Refuse a ``%daytona`` line that its command would refuse."""
    words = registry.words_of(line)
    table = registry.commands(cell=cell)
    command, rest = registry.find(words, table)
    try:
        command.parse(rest)
    except registry.HelpAsked:
        pass


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_of_the_shell_is_understood(block: Block) -> None:
    for words in commands_of(block.text):
        check_shell(words)


@pytest.mark.parametrize("block", CELLS, ids=str)
def test_every_cell_is_understood(block: Block) -> None:
    for cell in cells_of(block):
        parts = split(cell)
        if parts is None:
            ast.parse(TransformerManager().transform_cell(cell))
            continue
        for part in parts:
            if isinstance(part, Local):
                check_local(part)


def check_local(part: Local) -> None:
    """One ``%daytona`` of a cell."""
    if part.body is None:
        check_line(part.line)
        return
    words = registry.words_of(part.line)
    first = words[0] if words else ""
    known = {name.split()[0] for name in registry.commands(cell=True)}
    check_line(part.line if first in known else f"python {part.line}", cell=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_its_language(page: Path) -> None:
    for block in blocks(page):
        assert block.language in {"bash", "python"} | NEITHER, block


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_named_exists(page: Path) -> None:
    for text in inline_commands(page):
        sign, _, rest = text.partition("daytona ")
        if sign == "jupyter ":
            word = rest.split()[0]
            assert word in cli.build_parser().format_help(), text
            continue
        words = rest.replace("…", "").replace("...", "").split()
        if words and words[0] != words[0].upper() and not words[0].startswith("-"):
            registry.find(words, registry.commands(cell=sign == "%%"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{link} in {name_of(page)}"
        assert not anchor or anchor in anchors(target), f"{link} in {name_of(page)}"


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    reached = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in PAGES if page.parent.name == "docs"} - {index} <= reached


def test_the_settings_page_is_what_the_traits_say() -> None:
    assert SETTINGS_PAGE.read_text(encoding="utf-8") == settings_page(), "python -m tests.docs.settings"
