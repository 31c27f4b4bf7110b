"""Tab in a ``%daytona`` line: commands, options, names of files there and here, of sandboxes and of jobs."""

from __future__ import annotations

import argparse
import ast
import asyncio
import os
import re
import shlex
from typing import Any

from . import registry
from .host import Host, UsageError

Content = dict[str, Any]
LOOKUP_S = 3.0
"""How long a completion may look in the sandbox; a person is waiting."""
_LINE = re.compile(r"\s*(?:[\w.\[\]'\", ()]+?\s*=\s*)?(%%?daytona)(?:\s+|$)")


async def complete_cell(host: Host, code: str, cursor: int) -> Content | None:
    """A ``complete_reply``'s content; ``None`` if the cursor is not in a line of ours."""
    start = code.rfind("\n", 0, cursor) + 1
    line = code[start:cursor]
    match = _LINE.match(line)
    if (
        match is None
        or cursor < start + match.end()
        or (match.end() == len(line) and not line[-1:].isspace())
    ):
        return None
    matches, length = await complete_line(host, line[match.end() :], cell=match[1].startswith("%%"))
    return {
        "matches": matches,
        "cursor_start": cursor - length,
        "cursor_end": cursor,
        "metadata": {},
        "status": "ok",
    }


def is_ours(line: str) -> bool:
    """Whether a line, up to the cursor, is one of ``%daytona``."""
    return _LINE.match(line) is not None


async def complete_line(host: Host, text: str, *, cell: bool = False) -> tuple[list[str], int]:
    """What the last word of ``text`` may become, and how many characters of it that replaces."""
    words, word = _words(text)
    table = registry.commands(cell=cell)
    table = {name: one for name, one in table.items() if host.door in one.doors}
    candidates = await _candidates(host, table, words, word)
    quoted = [one if re.fullmatch(r"[\w@%+=:,./~-]*", one) else shlex.quote(one) for one in candidates]
    return quoted, len(text) - _word_start(text)


def _word_start(text: str) -> int:
    """Where the last word begins; spaces within quotes and after backslashes do not end one."""
    start, quote, escaped = 0, "", False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char.isspace():
            start = position + 1
    return start


def _words(text: str) -> tuple[list[str], str]:
    start = _word_start(text)
    word = text[start:].replace("\\ ", " ").strip("'\"")
    try:
        return shlex.split(text[:start]), word
    except ValueError:
        return text[:start].split(), word


async def _candidates(
    host: Host, table: dict[str, registry.Command], words: list[str], word: str
) -> list[str]:
    if "python" in table and (words or [word])[0].startswith("-"):
        words = ["python", *words]  # the word may be left out
    if not words or (words[0] == "help" and len(words) <= 2):
        words = words[1:]
        table = {name: one for name, one in table.items() if name.split()[: len(words)] == words}
        return _starting({name.split()[len(words)] for name in table if len(name.split()) > len(words)}, word)
    try:
        command, rest = registry.find(words, table)
    except UsageError:
        children = {name.split()[1] for name in table if name.startswith(f"{words[0]} ")}
        return _starting(children, word) if len(words) == 1 else []
    if command.argv and "--" in rest:
        return []
    parser = command.parser()
    if word.startswith("-"):
        return _starting(parser.options(), word)
    action = _expected(parser, rest)
    if action is None:
        return []
    if action.choices:
        return _starting([str(one) for one in action.choices], word)
    return await _values(host, getattr(action, "completer", ""), word)


def _starting(names: Any, word: str) -> list[str]:
    return sorted(name for name in names if name.startswith(word))


def _expected(parser: registry.Parser, rest: list[str]) -> argparse.Action | None:
    """Which argument the next word is for."""
    if rest and rest[-1].startswith("-") and parser.takes_value(rest[-1]):
        return parser._option_string_actions[rest[-1]]
    count, position = 0, 0
    while position < len(rest):
        if rest[position].startswith("-"):
            position += 2 if parser.takes_value(rest[position]) else 1
            continue
        count += 1
        position += 1
    for action in (one for one in parser._actions if not one.option_strings):
        if action.nargs in ("+", "*") or count == 0:
            return action
        count -= 1
    return None


async def _values(host: Host, kind: str, word: str) -> list[str]:
    if kind == "local":
        return await asyncio.to_thread(_local_names, word)
    if kind == "setting":
        from .upkeep import SETTINGS

        return _starting([f"{name}=" for name in SETTINGS], word)
    everywhere = {
        "sandbox": _sandbox_names,
        "snapshot": _snapshot_names,
        "volume": _volume_names,
        "shelf": _shelf_names,
    }
    if host.door == "ipython":
        everywhere["variable"] = _own_variables
    inside = {
        "remote": _remote_names,
        "job": _job_names,
        "context": _context_ids,
        "variable": everywhere.get("variable", _sandbox_variables),
    }
    lookups = everywhere if host.session.manager.sandbox is None else {**everywhere, **inside}
    if kind not in lookups:
        return []
    try:
        return await asyncio.wait_for(lookups[kind](host, word), LOOKUP_S)
    except Exception:
        return []


def _local_names(word: str) -> list[str]:
    folder, _, start = word.rpartition("/")
    base = os.path.expanduser(folder + "/") if "/" in word else "."
    prefix = folder + "/" if "/" in word else ""
    try:
        entries = sorted(os.scandir(base), key=lambda one: one.name)
    except OSError:
        return []
    return [
        prefix + one.name + ("/" if one.is_dir() else "")
        for one in entries
        if one.name.startswith(start) and (start or not one.name.startswith("."))
    ]


async def _remote_names(host: Host, word: str) -> list[str]:
    from .files import expanded

    sandbox = await host.session.manager.sdk_sandbox()
    folder, _, start = word.rpartition("/")
    prefix = folder + "/" if "/" in word else ""
    base = await expanded(host, folder + "/" if "/" in word else ".", sandbox)
    entries = await sandbox.fs.list_files(base)
    return [
        prefix + one.name + ("/" if one.is_dir else "")
        for one in entries
        if one.name.startswith(start) and one.name.isprintable() and (start or not one.name.startswith("."))
    ]


async def _sandbox_names(host: Host, word: str) -> list[str]:
    client = await host.client()
    return _starting([one.name async for one in client.list()], word)


async def _job_names(host: Host, word: str) -> list[str]:
    from .jobs import find_jobs

    return _starting([job.name for job in await find_jobs(host)], word)


async def _context_ids(host: Host, word: str) -> list[str]:
    from .contexts import known_contexts

    return _starting(await known_contexts(await host.toolbox()), word)


async def _snapshot_names(host: Host, word: str) -> list[str]:
    from .storage import all_snapshots

    return _starting([one.name for one in await all_snapshots(await host.client())], word)


async def _volume_names(host: Host, word: str) -> list[str]:
    client = await host.client()
    return _starting([one.name for one in await client.volume.list()], word)


async def _shelf_names(host: Host, word: str) -> list[str]:
    from ..shelf import Shelf

    return _starting(await asyncio.to_thread(Shelf(host.session.settings.shelf).keys), word)


async def _own_variables(host: Host, word: str) -> list[str]:
    names = [name for name in host.namespace if isinstance(name, str)]
    return _starting([name for name in names if word or not name.startswith("_")], word)


async def _sandbox_variables(host: Host, word: str) -> list[str]:
    """Variables of the sandbox's Python, by its own completer of expressions."""
    from .cells import run_code

    if host.session.busy:
        return []
    names = f"[n for n in list(globals()) if n[:{len(word)}] == {word!r}]"
    reply = await run_code(host, "", silent=True, expressions={"names": names})
    text = reply["user_expressions"]["names"]["data"]["text/plain"]
    found = [name for name in ast.literal_eval(text) if isinstance(name, str) and name.isidentifier()]
    return _starting([name for name in found if word or not name.startswith("_")], word)
