"""PURE: which names in a sandbox's list of files can be what a person asked for.

The list is made in the sandbox. Who asks for ``plot.png`` must not get an ``.ssh/rc``, a ``conftest.py`` or a
``numpy.py`` that the list names in its place: next to other files of a person, such names are programs.
"""

from __future__ import annotations

import fnmatch
import glob
import posixpath
from collections.abc import Sequence
from pathlib import PurePosixPath


def can_be_of(name: str, sources: Sequence[str]) -> bool:
    """Whether ``name``, which is to be written below a folder here, can come from one of these sources.

    A source is a path or a pattern of the sandbox. It gives files of its own last name, or below that.
    Only ``folder/``, with the slash, gives whatever there is in the folder.
    """
    top = _parts(name)[:1]
    return any(_is_open(source) or any(_fits(one, source) for one in top) for source in sources)


def can_be_below(name: str, patterns: Sequence[str]) -> bool:
    """The same for a name that begins in the working directory, for patterns that do: ``out/*.png``."""
    return any(_fits(one, pattern) for pattern in patterns for one in _parts(name))


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _is_open(source: str) -> bool:
    return source.endswith("/") and not glob.has_magic(source)


def _fits(name: str, source: str) -> bool:
    """Whether a file or folder of this name can be what ``source`` means."""
    last = posixpath.basename(posixpath.normpath(source))
    if last in ("", ".", "..") or (last.startswith("~") and last == posixpath.normpath(source)):
        return not name.startswith(".")  # a folder whose name only the sandbox knows
    if name == last:
        return True
    hidden = name.startswith(".") and not last.startswith(".")
    return glob.has_magic(last) and not hidden and fnmatch.fnmatchcase(name, last)
