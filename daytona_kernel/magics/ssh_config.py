"""Entries for sandboxes in an SSH configuration of this machine: so their tokens stay out of notebooks."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .host import CommandFailed, UsageError
from .words import printable

HEAD = "# Made by %daytona ssh --config. Tokens in it are as good as passwords."
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")
"""What a service's answer may put into the file: nothing that would begin another line or option."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
"""What may be a token in an answer that is not understood."""


def check(file: str) -> None:
    """Raise :class:`UsageError` for a file that is not ours to write."""
    path = Path(file).expanduser()
    if path.is_dir():
        raise UsageError(f"{file!r} is a directory.", hint="Name a file, like ~/.ssh/daytona.")
    if not path.parent.is_dir():
        raise UsageError(
            f"There is no directory for {file!r}.", hint=f"mkdir -m 700 '{path.parent}' makes it."
        )
    if path.exists() and not _text(path).startswith(HEAD):
        raise UsageError(f"{file!r} is there, and not made by %daytona.", hint="Name a file of its own.")


def write(file: str, name: str, command: str, ports: Sequence[int] = ()) -> str:
    """Put an entry for a sandbox into the file, in place of its old one; the entry's name.

    ``command`` is the service's: ``ssh [-p PORT] USER@HOST``. Raises :class:`CommandFailed` for another.
    """
    user, host, port = _parts(command)
    if not all(map(_WORD.match, (user, host, name))):
        said = _TOKEN.sub("…", printable(command)[:200])  # the error is saved with the notebook
        raise CommandFailed(f"There is no SSH configuration for what the service says: {said}")
    lines = [f"Host {name}", f"    HostName {host}", f"    User {user}"]
    lines += [f"    Port {port}"] if port else []
    lines += [f"    LocalForward {one} localhost:{one}" for one in ports]
    path = Path(file).expanduser()
    kept = [entry for entry in _entries(_text(path)) if entry.split()[1] != name] if path.exists() else []
    _replace(path, "\n\n".join([HEAD, *kept, "\n".join(lines)]) + "\n")
    return name


def _parts(command: str) -> tuple[str, str, str]:
    """User, host and port (perhaps empty) of an ``ssh`` command line."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    port = ""
    if "-p" in words[:-1]:
        at = words.index("-p")
        port = words[at + 1] if words[at + 1].isdecimal() else ""
        del words[at : at + 2]
    user, _, host = words[1].rpartition("@") if len(words) == 2 and words[0] == "ssh" else ("", "", "")
    return user, host, port


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{str(path)!r} can not be read: {exc}.") from exc


def _entries(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?m)^(?=Host )", text)[1:]]


def _replace(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at once."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
