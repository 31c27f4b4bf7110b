"""Names of files: as they come in requests, and as they go out in answers."""

from __future__ import annotations

import os

from aiohttp import web

from .errors import ToolboxError
from .settings import SETTINGS


def resolve(app: web.Application, path: str) -> str:
    """Make ``path`` absolute against the working directory; ``..`` and links mean what the system says.

    :raises ToolboxError: 400 INVALID_FILE_PATH if it is empty or holds a NUL.
    """
    if not path or "\0" in path:
        raise ToolboxError(400, f"invalid file path: {path!r}", "INVALID_FILE_PATH")
    return os.path.join(app[SETTINGS].work_dir, path)


def printable(name: str) -> str:
    """Replace what is not UTF-8 in a name from the system by U+FFFD: JSON clients want real text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
