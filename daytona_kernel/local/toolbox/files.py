"""File operations that move no bulk data (``/files``, ``/files/info``, ``/files/find``, ...).

The work is blocking, so it runs in threads; the handlers only read fields and translate errors.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, TypeVar

from aiohttp import web

from .errors import ToolboxError, path_error
from .fields import body_fields, query_fields
from .paths import printable, resolve
from .settings import SETTINGS

T = TypeVar("T")

BINARY_PROBE_BYTES = 512
MAX_LINE_BYTES = 64 * 1024
"""A file is searched up to its first longer line (the real daemon's scanner gives up there)."""


async def _in_thread(path: str, work: Callable[[], T]) -> T:
    """Run blocking ``work``; what the system says about ``path`` becomes an answer."""
    try:
        return await asyncio.to_thread(work)
    except (OSError, ValueError) as exc:
        raise path_error(exc, printable(path)) from exc


# --- what a file looks like -------------------------------------------------------------------------------


def file_info(path: str, name: str | None = None) -> dict[str, Any]:
    """Describe a file, following links. Times are given as Go prints them and as RFC 3339, in UTC."""
    status = os.stat(path)
    seconds, nanos = divmod(status.st_mtime_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return {
        "name": printable(name if name is not None else os.path.basename(os.path.normpath(path))),
        "path": printable(os.path.normpath(path)),
        "size": status.st_size,
        "mode": stat.filemode(status.st_mode),
        "modTime": f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC",
        "modifiedAt": f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z",
        "isDir": stat.S_ISDIR(status.st_mode),
        "owner": str(status.st_uid),
        "group": str(status.st_gid),
        "permissions": f"{stat.S_IMODE(status.st_mode):04o}",
    }


def listing(path: str, depth: int) -> list[dict[str, Any]]:
    """Describe the entries of a directory by name, each directory followed by its own down to ``depth``.

    Links are followed for what they are but not walked into; broken ones are left out (observed on v0.190.0).
    """
    found = []
    for name in sorted(os.listdir(path)):
        full = os.path.join(path, name)
        try:
            entry = file_info(full, name)
        except OSError:
            continue  # a broken link, or gone since
        found.append(entry)
        if depth > 1 and entry["isDir"] and not os.path.islink(full):
            try:
                found += listing(full, depth - 1)
            except OSError:
                continue  # no permission to look inside
    return found


async def list_files(request: web.Request) -> web.Response:
    """List a directory (the working directory by default)."""
    fields = query_fields(request)
    path = resolve(request.app, fields.text("path", "") or ".")
    depth = fields.integer("depth", 1, low=1, high=10_000)
    return web.json_response(await _in_thread(path, lambda: listing(path, depth)))


async def get_info(request: web.Request) -> web.Response:
    """Describe one file or directory."""
    path = resolve(request.app, query_fields(request).text("path"))
    return web.json_response(await _in_thread(path, lambda: file_info(path)))


# --- changes ----------------------------------------------------------------------------------------------


def parse_mode(text: str) -> int:
    """Parse octal permissions such as ``755`` or ``0o644``.

    :raises ToolboxError: 400 for anything else.
    """
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise ToolboxError(400, f"invalid mode: {text!r} (octal digits wanted)")
    return mode


async def create_folder(request: web.Request) -> web.Response:
    """Make a directory and its parents; one that exists already is left as it is."""
    fields = query_fields(request)
    path = resolve(request.app, fields.text("path"))
    mode = parse_mode(fields.text("mode", "") or "0755")

    def work() -> None:
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)
            os.chmod(path, mode)  # mkdir's own mode would pass through the umask

    try:
        await _in_thread(path, work)
    except ToolboxError as exc:  # the API knows only 201 and 400 here; the code still tells what it was
        raise ToolboxError(400, exc.message, exc.code) from exc
    return web.Response(status=201)


async def delete_file(request: web.Request) -> web.Response:
    """Delete a file or link, or with ``recursive`` a directory."""
    fields = query_fields(request)
    path = resolve(request.app, fields.text("path"))
    recursive = fields.flag("recursive")

    def work() -> None:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
        elif recursive:
            shutil.rmtree(path)
        else:
            raise ToolboxError(400, f"cannot delete a directory without recursive: {printable(path)}")

    await _in_thread(path, work)
    return web.Response(status=204)


async def move_file(request: web.Request) -> web.Response:
    """Move or rename; copies where the destination is on another file system. Never overwrites."""
    fields = query_fields(request)
    source = resolve(request.app, fields.text("source"))
    destination = resolve(request.app, fields.text("destination"))

    def work() -> None:
        os.lstat(source)
        parent = os.path.dirname(os.path.normpath(destination))
        if not os.path.isdir(parent):
            raise FileNotFoundError(parent)
        if os.path.lexists(destination):
            raise ToolboxError(409, f"destination already exists: {printable(destination)}")
        shutil.move(source, destination)

    try:
        await _in_thread(source, work)
    except shutil.Error as exc:
        raise ToolboxError(400, str(exc)) from exc
    return web.Response()


def _owner_id(text: str, module_name: str) -> int:
    """Find the number of a user or group given by number or name; -1 (unchanged) for none."""
    if not text or text.isdigit():
        return int(text or -1)
    import grp
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid if module_name == "owner" else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ToolboxError(400, f"unknown {module_name}: {text!r}") from None


async def set_permissions(request: web.Request) -> web.Response:
    """Change mode, owner and group, as far as they are given."""
    fields = query_fields(request)
    path = resolve(request.app, fields.text("path"))
    mode = fields.optional_text("mode")
    bits = parse_mode(mode) if mode else None
    owner = _owner_id(fields.text("owner", ""), "owner")
    group = _owner_id(fields.text("group", ""), "group")

    def work() -> None:
        os.stat(path)
        if owner >= 0 or group >= 0:
            os.chown(path, owner, group)
        if bits is not None:
            os.chmod(path, bits)

    await _in_thread(path, work)
    return web.Response()


# --- search -----------------------------------------------------------------------------------------------


def walk(root: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Go through everything below ``root`` in order of names: (path below root, entry). Follows no links."""
    try:
        with os.scandir(root) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return  # no permission, or gone since
    for entry in ordered:
        yield entry.name, entry
        if entry.is_dir(follow_symlinks=False):
            for below, inner in walk(entry.path):
                yield os.path.join(entry.name, below), inner


def matches_in_file(path: str, shown: str, pattern: bytes) -> Iterator[dict[str, Any]]:
    """Find the lines of one text file that contain ``pattern`` literally."""
    with open(path, "rb") as file:
        if b"\0" in file.read(BINARY_PROBE_BYTES):
            return
        file.seek(0)
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                return
            if pattern in line:
                content = line.rstrip(b"\r\n").decode("utf-8", "replace")
                yield {"file": printable(shown), "line": number, "content": content}


def find_text(root: str, shown_root: str, pattern: bytes) -> list[dict[str, Any]]:
    """Search the text files below ``root``, or ``root`` itself, for ``pattern``."""
    if not stat.S_ISDIR(os.stat(root).st_mode):
        return list(matches_in_file(root, shown_root, pattern))
    found: list[dict[str, Any]] = []
    for below, entry in walk(root):
        try:
            if entry.is_file():
                found += matches_in_file(
                    entry.path, os.path.normpath(os.path.join(shown_root, below)), pattern
                )
        except OSError:
            continue  # unreadable files are passed over
    return found


async def find_in_files(request: web.Request) -> web.Response:
    """Search file contents for a literal text."""
    fields = query_fields(request)
    shown = fields.text("path")
    path = resolve(request.app, shown)
    pattern = fields.text("pattern").encode("utf-8", "replace")
    try:
        return web.json_response(await _in_thread(path, lambda: find_text(path, shown, pattern)))
    except ToolboxError as exc:
        raise ToolboxError(400, exc.message, exc.code) from exc


def find_names(root: str, shown_root: str, pattern: str) -> list[str]:
    """Find files and directories whose name fits a shell pattern; ``[^x]`` negates as in Go."""
    pattern = pattern.replace("[^", "[!")
    os.stat(root)
    return [
        printable(os.path.normpath(os.path.join(shown_root, below)))
        for below, entry in walk(root)
        if fnmatch.fnmatchcase(entry.name, pattern)
    ]


async def search_files(request: web.Request) -> web.Response:
    """Search names for a shell pattern."""
    fields = query_fields(request)
    shown = fields.text("path")
    path = resolve(request.app, shown)
    pattern = fields.text("pattern")
    try:
        return web.json_response({"files": await _in_thread(path, lambda: find_names(path, shown, pattern))})
    except ToolboxError as exc:
        raise ToolboxError(400, exc.message, exc.code) from exc


def replace_in_file(path: str, old: bytes, new: bytes) -> None:
    """Replace every ``old`` in a file; its mode and inode stay."""
    with open(path, "r+b") as file:
        content = file.read()
        if old in content:
            file.seek(0)
            file.write(content.replace(old, new))
            file.truncate()


async def replace_in_files(request: web.Request) -> web.Response:
    """Replace a literal text in several files; a file that fails does not stop the others."""
    fields = await body_fields(request)
    names = fields.texts("files")
    if not names:
        raise ToolboxError(400, "files is required", "INVALID_REQUEST_BODY")
    old = fields.text("pattern").encode("utf-8", "replace")
    new = fields.text("newValue", "").encode("utf-8", "replace")
    work_dir = request.app[SETTINGS].work_dir
    results: list[dict[str, Any]] = []
    for name in names:
        try:
            await asyncio.to_thread(replace_in_file, os.path.join(work_dir, name), old, new)
        except (OSError, ValueError) as exc:
            results.append({"file": name, "success": False, "error": path_error(exc, name).message})
        else:
            results.append({"file": name, "success": True})
    return web.json_response(results)


def setup(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/files", list_files)
    app.router.add_delete("/files", delete_file)
    app.router.add_get("/files/info", get_info)
    app.router.add_post("/files/folder", create_folder)
    app.router.add_post("/files/move", move_file)
    app.router.add_post("/files/permissions", set_permissions)
    app.router.add_get("/files/find", find_in_files)
    app.router.add_get("/files/search", search_files)
    app.router.add_post("/files/replace", replace_in_files)
