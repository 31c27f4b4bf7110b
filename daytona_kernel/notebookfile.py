"""Read and write ``.ipynb`` files so that a crash at any moment leaves a whole file."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode


class NotebookFileError(Exception):
    """A notebook cannot be read or written; the text is a sentence for the user."""


def read(path: Path) -> NotebookNode:
    """Return the notebook in *path*, upgraded to format 4 in memory if it is older.

    Raises :exc:`NotebookFileError` when there is no such file, or it is not a notebook.
    """
    import nbformat
    from nbformat.reader import NotJSONError
    from nbformat.validator import NotebookValidationError

    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            # Cells without ids (written by other tools) get some; nbformat warns that one day it will refuse.
            warnings.simplefilter("ignore")
            notebook: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
            nbformat.validate(notebook)
    except OSError as exc:
        raise NotebookFileError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except (NotJSONError, json.JSONDecodeError, UnicodeDecodeError) as exc:
        raise NotebookFileError(f"{path} is not a notebook: it holds no JSON") from exc
    except NotebookValidationError as exc:
        reason = str(exc).partition("\n")[0]
        raise NotebookFileError(f"{path} is not a valid notebook: {reason}") from exc
    except Exception as exc:
        # nbformat meets JSON that is no notebook with whatever its code happens to run into (KeyError,
        # TypeError...).
        raise NotebookFileError(f"{path} is not a notebook ({type(exc).__name__}: {exc})") from exc
    return notebook


def language(notebook: NotebookNode) -> str:
    """The programming language that *notebook* says it is in, in lower case or not; empty if it does not."""
    for part, name in (("kernelspec", "language"), ("language_info", "name")):
        found = notebook.metadata.get(part, {}).get(name)
        if isinstance(found, str) and found:
            return found
    return ""


def write(notebook: NotebookNode, path: Path) -> None:
    """Replace *path* by *notebook* in one step: a reader sees the old file or the new one, never a part.

    Follows a symbolic link instead of replacing it, and keeps the permissions of an existing file. Raises
    :exc:`NotebookFileError` when the folder cannot be written.
    """
    import nbformat

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in read()
        text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    if not text.endswith("\n"):
        text += "\n"
    final = path.resolve()
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".tmp", dir=final.parent)
        with open(descriptor, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
        os.chmod(temporary, _permissions(final))
        os.replace(temporary, final)
        temporary = None
    except OSError as exc:
        raise NotebookFileError(f"cannot write {path}: {exc.strerror or exc}") from exc
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _permissions(path: Path) -> int:
    """Return the mode of *path*, or what a new file would get (mkstemp alone would make it private)."""
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
