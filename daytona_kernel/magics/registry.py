"""The commands of ``%daytona``: their parsers, which are their manual, and how a line finds its command."""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ..config import parse_duration_s
from ..errors import ConfigurationError
from .host import Host, Result, UsageError
from .waiting import Waiting
from .words import did_you_mean

Run = Callable[[Host, argparse.Namespace], Awaitable[Result | None]]
Configure = Callable[["Parser"], None]

FAMILIES = (
    "general",
    "files",
    "transfers",
    "preview",
    "process",
    "jobs",
    "lifecycle",
    "creation",
    "upkeep",
    "contexts",
    "recovery",
    "resources",
    "storage",
    "desktop",
    "screenshots",
    "pointer",
    "recordings",
    "git",
    "cells",
    "variables",
)

_SHELL = frozenset(("|", ">", ">>", "<", "&", "&&", "||", ";", "2>&1"))
GROUPS = ("General", "Files", "Preview", "Processes", "Variables", "Sandbox", "Resources", "Desktop", "Git")
PROGRAM = "%daytona"
_LONG_USAGE = 200
"""Characters of a usage that are no help any more after an error."""


class HelpAsked(Exception):
    """Not an error: ``-h`` was among the arguments. ``str()`` is the help."""


class Parser(argparse.ArgumentParser):
    """argparse without its exits: help and mistakes are raised, and options are never guessed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raise :class:`UsageError` with argparse's sentence."""
        raise UsageError(f"{self.prog}: {message}.", hint=self._usage())

    def _usage(self) -> str:
        text = " ".join(self.format_usage()[7:].split())
        text = text.replace("[-h] ", "").replace(" [--json]", "")
        return f"Usage: {text}" if len(text) <= _LONG_USAGE else f"{self.prog} --help explains it."

    def print_help(self, file: Any = None) -> None:
        """Raise :class:`HelpAsked`."""
        raise HelpAsked(self.format_help())

    def options(self) -> list[str]:
        """All option strings, long ones."""
        return [name for name in self._option_string_actions if name.startswith("--")]

    def takes_value(self, option: str) -> bool:
        """Whether the next word belongs to this option."""
        action = self._option_string_actions.get(option)
        return action is not None and action.nargs != 0

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse all of the words. Raises :class:`UsageError` with the nearest option for a wrong one."""
        arguments, rest = self.parse_known_args(list(words))
        if rest:
            near = did_you_mean(rest[0], self.options()) if rest[0].startswith("-") else ""
            if rest[0] in _SHELL:
                near = "No shell reads this line: for pipes and the like, %%daytona bash."
            raise UsageError(
                f"{self.prog}: {rest[0]!r} is not understood.", hint=f"{near} {self._usage()}".strip()
            )
        return arguments


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of one width whatever the terminal, so that the reference page is the same everywhere."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, max_help_position=28, width=100)


@dataclass(frozen=True)
class Command:
    """One command. Its run's docstring is its description; the first line is its summary."""

    name: str
    group: str
    configure: Configure
    run: Run
    examples: tuple[str, ...] = ()
    argv: bool = False
    """Whether a command line for the sandbox follows, best after ``--``."""
    cell: bool = False
    """Whether it is a ``%%daytona`` command, which has a body, too."""
    doors: tuple[str, ...] = ("kernel", "ipython")

    @property
    def description(self) -> str:
        """What it does, in full."""
        lines = (self.run.__doc__ or "").strip().splitlines()
        return "\n".join(line.strip() for line in lines)

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return self.description.split("\n", 1)[0].rstrip(".")

    def parser(self) -> Parser:
        """A parser for its arguments."""
        program = ("%" if self.cell else "") + f"{PROGRAM} {self.name}"
        epilog = "examples:\n" + "\n".join(f"  {line}" for line in self.examples) if self.examples else None
        usage_tail = " -- COMMAND [ARGUMENT ...]" if self.argv else ""
        parser = Parser(prog=program, description=self.description, epilog=epilog)
        self.configure(parser)
        if not self.cell:
            parser.add_argument("--json", action="store_true", help="print the value as JSON")
        if usage_tail:
            usage = " ".join(parser.format_usage()[7:].split()) + usage_tail
            parser.usage = usage.replace("%", "%%")  # argparse formats it
        return parser

    def parse(self, words: list[str]) -> argparse.Namespace:
        """The arguments in these words; ``argv`` of the namespace is what follows ``--``."""
        parser = self.parser()
        argv: list[str] = []
        if self.argv:
            words, argv = _split_argv(parser, words)
        arguments = parser.parse(words)
        if self.argv:
            arguments.argv = argv
        return arguments


def _split_argv(parser: Parser, words: list[str]) -> tuple[list[str], list[str]]:
    """Own words and the sandbox's: after ``--``, or from the first word that is no option of ours."""
    positionals = sum(1 for action in parser._actions if not action.option_strings)
    position = 0
    while position < len(words):
        word = words[position]
        if word == "--":
            return words[:position], words[position + 1 :]
        if word.startswith("-"):
            position += 2 if "=" not in word and parser.takes_value(word) else 1
            continue
        if positionals == 0:
            return words[:position], words[position:]
        position += 1
        positionals -= 1
    return words, []


_commands: dict[str, Command] = {}
_cell_commands: dict[str, Command] = {}


def command(
    name: str,
    group: str,
    configure: Configure = lambda parser: None,
    *,
    examples: tuple[str, ...] = (),
    argv: bool = False,
    cell: bool = False,
    doors: tuple[str, ...] = ("kernel", "ipython"),
) -> Callable[[Run], Run]:
    """Register a coroutine function as a command of this name, which may be of two words."""

    def register(run: Run) -> Run:
        table = _cell_commands if cell else _commands
        table[name] = Command(name, group, configure, run, examples, argv, cell, doors)
        return run

    return register


def load() -> None:
    """Import the families of commands."""
    for family in FAMILIES:
        importlib.import_module(f"{__package__}.{family}")


def commands(*, cell: bool = False) -> dict[str, Command]:
    """All commands by name, in the order of their groups."""
    load()
    table = _cell_commands if cell else _commands
    return dict(sorted(table.items(), key=lambda item: (GROUPS.index(item[1].group), item[0])))


def words_of(line: str) -> list[str]:
    """The words of a line, by the rules of a POSIX shell: quotes and backslashes; nothing is expanded."""
    try:
        return shlex.split(line)
    except ValueError as exc:
        raise UsageError(f"The line can not be taken apart: {exc}.", hint="Check its quotes.") from exc


def find(words: list[str], table: dict[str, Command]) -> tuple[Command, list[str]]:
    """The command at the head of the words, and the rest; :class:`UsageError` with the nearest name."""
    for count in (2, 1):
        name = " ".join(words[:count])
        if len(words) >= count and name in table:
            return table[name], words[count:]
    first = words[0]
    children = sorted(name.split()[1] for name in table if name.startswith(f"{first} "))
    if children:
        given = words[1] if len(words) > 1 else ""
        said = f"{PROGRAM} {first} has no {given!r}." if given else f"{PROGRAM} {first} wants one more word."
        near = did_you_mean(given, children) if given else ""
        raise UsageError(said, hint=f"{near} It knows: {', '.join(children)}.".strip())
    near = did_you_mean(first, {name.split()[0] for name in table} | set(table))
    raise UsageError(f"There is no command {first!r}.", hint=f"{near} {PROGRAM} help lists them.".strip())


def seconds_of(text: str) -> float:
    """Seconds in a time like ``30s``, ``5m`` or ``2h``. Raises :class:`UsageError` for what is none."""
    try:
        return parse_duration_s(text)
    except ConfigurationError as exc:
        raise UsageError(exc.message, hint=exc.hint) from None


async def run_line(host: Host, line: str) -> tuple[Result, bool]:
    """Run a ``%daytona`` line. The result, and whether it is to be shown as JSON.

    Raises :class:`UsageError` before anything is done, and what the command raises.
    """
    table = {name: one for name, one in commands().items() if host.door in one.doors}
    words = words_of(line) or ["help"]
    found, rest = find(words, table)
    try:
        arguments = found.parse(rest)
    except HelpAsked as asked:
        return Result(str(asked), str(asked)), False
    host.begin_command()
    host.as_json = bool(arguments.json)
    try:
        async with Waiting(host, f"{PROGRAM} {found.name}"):
            result = await found.run(host, arguments) or Result()
    finally:
        host.as_json = False
    return result, bool(arguments.json)


async def run_cell(host: Host, line: str, body: str) -> Result:
    """Run a ``%%daytona`` cell."""
    table = commands(cell=True)
    words = words_of(line)
    if not words or words[0].startswith("-"):
        words = ["python", *words]
    found, rest = find(words, table)
    try:
        arguments = found.parse(rest)
    except HelpAsked as asked:
        return Result(str(asked), str(asked))
    arguments.body = body
    host.begin_command()
    return await found.run(host, arguments) or Result()


def show(host: Host, result: Result, *, as_json: bool = False) -> None:
    """Show a result in the cell."""
    if as_json:
        host.write(json.dumps(result.value, indent=2) + "\n")
    elif result.html or result.data:
        host.display(result.bundle(), result.metadata)
    elif result.text:
        host.write(result.text.rstrip("\n") + "\n")
