"""What a Dockerfile says: pure text, no Docker."""

from __future__ import annotations

import json
import re

ROOT_COMMAND = re.compile(
    r"^\s*(sudo\s+)?(apt-get|apt|dpkg|apk|yum|dnf|useradd|groupadd|adduser|usermod)\b|debconf-set"
)
INERT = frozenset(
    [
        "CMD",
        "ENTRYPOINT",
        "LABEL",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "SHELL",
        "MAINTAINER",
        "ONBUILD",
        "VOLUME",
        "USER",
    ]
)


class BuildError(Exception):
    """A step of the Dockerfile failed; the text names it."""


def parse_dockerfile(text: str) -> list[tuple[str, str]]:
    """Instructions in order, in capitals, with their arguments; continued lines are joined.

    ``BuildError``: if a line is no instruction or the first one is not ``FROM``.
    """
    joined = re.sub(r"\\[ \t]*\n", " ", text)
    steps = []
    for line in joined.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        word, _, rest = stripped.partition(" ")
        if not re.match(r"[A-Za-z]+\Z", word):
            raise BuildError(f"this line of the Dockerfile is no instruction: {stripped[:80]}")
        steps.append((word.upper(), rest.strip()))
    if not steps or next(word for word, _ in steps if word != "ARG") != "FROM":
        raise BuildError("the Dockerfile does not begin with FROM")
    return steps


def parse_env(arguments: str) -> dict[str, str]:
    """``ENV`` in both forms: ``A=1 B="two words"`` and ``A value``."""
    pairs = re.findall(r"""([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|'[^']*'|\S*)""", arguments)
    if not pairs:
        name, _, value = arguments.partition(" ")
        return {name: value.strip()} if name else {}
    return {name: value[1:-1] if value[:1] in "\"'" and len(value) > 1 else value for name, value in pairs}


def parse_words(arguments: str) -> list[str]:
    """``CMD`` and ``ENTRYPOINT`` in both forms: ``["a", "b"]``, and a line for the shell.

    ``BuildError``: if it begins like a list but is none of strings.
    """
    if not arguments.startswith("["):
        return ["/bin/sh", "-c", arguments] if arguments else []
    try:
        words = json.loads(arguments)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BuildError(f"this is no list of strings: {arguments[:80]}")
    return words


def split_root_commands(command: str) -> tuple[list[str], list[str]]:
    """The parts of an ``a && b`` line that a plain user can carry out, and those that need root."""
    parts = [part.strip() for part in command.split("&&")]
    needs_root = [part for part in parts if ROOT_COMMAND.match(part)]
    return [part for part in parts if part not in needs_root], needs_root
