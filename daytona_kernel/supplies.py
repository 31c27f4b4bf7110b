"""What a headless run brings into a sandbox before the first cell, and takes home after the last."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from . import remote, transfer
from .asked import can_be_below

if TYPE_CHECKING:
    from .config import DaytonaSettings
    from .toolbox import Toolbox

_LEFT_OUT = frozenset({"__pycache__", "node_modules"})
_ENVIRONMENT_MARK = "pyvenv.cfg"
BESIDE_LIMIT = 1 << 30
"""Bytes that ``--beside`` sends at most: more is rather a mistake than a wish. ``--upload`` has no limit."""


class SuppliesError(Exception):
    """A file that can not be brought or taken; the text is a sentence for the user."""


@dataclass(frozen=True)
class Upload:
    """A file or folder of this machine, and its path in the sandbox (relative: in the working directory)."""

    local: Path
    remote: str


@dataclass
class Taken:
    """What came home, and what did not, in words for the user."""

    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


Found = tuple[Path, str]
"""A file of this machine, and its path in the sandbox."""


def parse_upload(word: str) -> Upload:
    """Read ``PATH`` or ``PATH:WHERE``. A relative path is the same in the sandbox, ``..`` aside.

    Raises :exc:`SuppliesError` if it is not there.
    """
    path, where = word, ""
    if ":" in word and not os.path.lexists(os.path.expanduser(word)):
        path, _, where = word.rpartition(":")
    local = Path(os.path.expanduser(path))
    if not path or not os.path.exists(local):
        # An empty word (a shell variable that is not set) must not send all that is here.
        raise SuppliesError(f"there is no {path!r} to upload")
    if not where:
        parts = PurePosixPath(local.as_posix()).parts
        inside = not local.is_absolute() and ".." not in parts
        where = "/".join(parts) if inside else local.resolve().name
    elif where.endswith("/") and local.is_file():
        where += local.name
    return Upload(local, where)


def files_to_upload(uploads: Iterable[Upload], tell: Callable[[str], object] = lambda _: None) -> list[Found]:
    """All files that *uploads* name. Raises :exc:`SuppliesError` for what can not be read or is no file.

    What lies in a folder and can not be sent (pipes, links to nothing or to other folders) is left out, and
    *tell* hears of it.
    """
    found: list[Found] = []
    for upload in uploads:
        if upload.local.is_dir():
            base = upload.remote.rstrip("/")
            for path, name in _walk(upload.local, tell=tell):
                if os.path.isfile(path):
                    found.append((path, f"{base}/{name}" if base else name))
                else:
                    tell(f"{path} is not uploaded: {'a broken link' if path.is_symlink() else 'no file'}")
        elif os.path.isfile(upload.local):
            found.append((upload.local, upload.remote))
        else:
            raise SuppliesError(f"{upload.local} can not be uploaded: it is not a regular file")
    return found


def files_beside(notebook: Path, results: Iterable[Path] = ()) -> list[Found]:
    """The files in the notebook's folder and below, as ``--beside`` sends them.

    Left out: hidden files and folders (``.git``, ``.env`` ...), caches, Python environments, links, results
    of runs (``*.out.ipynb``, ``*.files``, and *results*) and the notebook itself. Raises
    :exc:`SuppliesError` for more than :data:`BESIDE_LIMIT`.
    """
    skipped = {path.resolve() for path in (*results, notebook)}
    found, total = [], 0
    for path, name in _walk(notebook.resolve().parent, skipped, tidy=True):
        total += path.stat().st_size
        if total > BESIDE_LIMIT:
            limit = f"{BESIDE_LIMIT >> 30} GiB"
            raise SuppliesError(
                f"the folder of {notebook} has more than {limit}: name what it needs with --upload"
            )
        found.append((path, name))
    return found


def _walk(
    top: Path,
    skipped: set[Path] | frozenset[Path] = frozenset(),
    *,
    tidy: bool = False,
    tell: Callable[[str], object] = lambda _: None,
) -> Iterator[Found]:
    """Yield the files below *top* and their names from there, sorted; *tidy* as :func:`files_beside` says.

    Links to folders are not followed, since they may lead round in a circle; *tell* hears of them.
    """

    def refuse(exc: OSError) -> None:
        raise SuppliesError(f"{exc.filename} can not be uploaded: {exc.strerror}")

    for root, folders, names in os.walk(top, onerror=refuse):
        here = Path(root)
        folders.sort()
        if tidy:
            folders[:] = [one for one in folders if _is_wanted(here / one, skipped)]
        for one in folders:
            if (here / one).is_symlink():
                tell(f"{here / one} is not uploaded: a link to a folder; name it with --upload")
        for name in sorted(names):
            path = here / name
            if not tidy or (_is_wanted(path, skipped) and path.is_file()):
                yield path, path.relative_to(top).as_posix()


def _is_wanted(path: Path, skipped: set[Path] | frozenset[Path]) -> bool:
    name = path.name
    if name.startswith(".") or name in _LEFT_OUT or path.is_symlink() or path.resolve() in skipped:
        return False
    if path.is_dir():
        return not name.endswith(".files") and not (path / _ENVIRONMENT_MARK).exists()
    return not name.endswith(".out.ipynb")


@asynccontextmanager
async def workroom(settings: DaytonaSettings) -> AsyncIterator[Toolbox]:
    """Give the toolbox of the sandbox that *settings* name, which runs. Raises errors of our tree."""
    from .sandbox import SandboxManager
    from .toolbox import Toolbox

    manager = SandboxManager(settings)
    try:
        await manager.acquire()
        toolbox = Toolbox(manager.endpoint())
        try:
            yield toolbox
        finally:
            await toolbox.close()
    finally:
        await manager.close()


async def bring(toolbox: Toolbox, files: Sequence[Found]) -> int:
    """Upload *files*; relative names into the working directory. The bytes sent.

    Raises :exc:`SuppliesError` if one could not be brought: cells would fail for want of it.
    """
    if not files:
        return 0
    top = await _working_directory(toolbox)
    items = []
    for path, name in files:
        try:
            info = path.stat()
        except OSError as exc:
            raise SuppliesError(f"{path} could not be uploaded: {exc.strerror or exc}") from exc
        mode = stat.S_IMODE(info.st_mode) & 0o777
        where = name if name.startswith("/") else f"{top}/{name}"
        items.append(transfer.Item(path, where, info.st_size, mode, info.st_mtime))
    outcome = await transfer.upload(toolbox, items, lambda count: None)
    if outcome.errors:
        path_, reason = outcome.errors[0]
        more = f" (and {len(outcome.errors) - 1} more)" if len(outcome.errors) > 1 else ""
        raise SuppliesError(f"{path_} could not be uploaded: {reason}{more}")
    return outcome.bytes


async def take(toolbox: Toolbox, patterns: Sequence[str], folder: Path) -> Taken:
    """Download what matches *patterns* (relative ones from the working directory) into *folder*.

    Files keep their path below the working directory; others come by their name. What is there already is
    overwritten. What fails is in the answer; nothing is written outside of *folder*.
    """
    taken = Taken()
    top = await _working_directory(toolbox)
    sources = [f"{top}/{one}" if one[:1] not in "/~" else one for one in patterns]
    manifest = await remote.run_script(toolbox, remote.MANIFEST, sources=sources)
    taken.problems += [f"{path}: {reason}" for path, reason in manifest["errors"]]
    items: dict[Path, transfer.Item] = {}
    for entry in manifest["files"]:
        try:
            path, name, size, mode, mtime = entry
            below = path.removeprefix(f"{top}/") if path.startswith(f"{top}/") else name
            if not can_be_below(below, patterns):
                raise transfer.UnsafeName(f"{below!r} is not what was asked for")
            local = transfer.safe_target(folder, below)
            item = transfer.Item(local, path, int(size), int(mode), float(mtime))
        except (ValueError, TypeError, AttributeError, OverflowError, OSError) as exc:
            # UnsafeName is a ValueError; the rest is a list that is not what our script makes.
            taken.problems.append(f"not taken: {exc}")
            continue
        if item.size >= 0:  # else an empty directory
            other = items.setdefault(local, item)
            if other.remote != item.remote:
                taken.problems.append(f"{item.remote}: {other.remote} has the same name here")
    outcome = await transfer.download(toolbox, [*items.values()], force=True, count=lambda count: None)
    taken.problems += [f"{path}: {reason}" for path, reason in outcome.errors]
    taken.files = sorted(item.local for item, _ in outcome.moved)
    return taken


async def _working_directory(toolbox: Toolbox) -> str:
    place = await remote.run_script(toolbox, remote.DESTINATION, path="")
    return str(place["path"]).rstrip("/")
