"""Looking at files of the sandbox, and ``mkdir``, ``rm``, ``mv``, ``chmod``, ``find``, ``grep``."""

from __future__ import annotations

import argparse
import csv
import io
import posixpath
import re
from base64 import b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import DaytonaKernelError
from ..toolbox import ToolboxError
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .sdk import translated
from .words import did_you_mean, escape, printable, size, table_html, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox

PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
TABLE_ROWS = 50
REMOTE = "remote"
"""Completer of arguments that name files of the sandbox."""


def remote_argument(parser: Parser, name: str, **options: Any) -> None:
    """Add an argument that is a path of the sandbox."""
    parser.add_argument(name, **options).completer = REMOTE  # type: ignore[attr-defined]


async def expanded(host: Host, path: str, sandbox: AsyncSandbox | None = None) -> str:
    """``path`` with ``~`` replaced by the home directory of the sandbox's user.

    A relative one begins where the notebook's Python is: what ``open`` finds there is found here. Without
    ``sandbox`` the notebook's is started if need be.
    """
    with translated():
        if path == "~" or path.startswith("~/"):
            sandbox = await host.sandbox() if sandbox is None else sandbox
            return (await sandbox.get_user_home_dir()) + path[1:]
        folder = await host.directory(sandbox)
    return posixpath.join(folder, path) if path != "." else folder or path


async def info_of(host: Host, path: str) -> Any:
    """What is known of a file of the sandbox. :class:`CommandFailed` has the nearest name for none."""
    sandbox = await host.sandbox()
    try:
        return await sandbox.fs.get_file_info(path)
    except Exception as exc:
        if getattr(exc, "status_code", None) != 404:
            raise
        full = path if path.startswith("/") else posixpath.join(await sandbox.get_work_dir(), path)
        folder, _, name = full.rstrip("/").rpartition("/")
        near = ""
        with suppress(Exception):  # the folder is not there either
            near = did_you_mean(name, [one.name for one in await sandbox.fs.list_files(folder or "/")])
        raise CommandFailed(f"There is no {printable(full)} in the sandbox.", hint=printable(near)) from exc


def _ls_arguments(parser: Parser) -> None:
    remote_argument(
        parser, "path", nargs="?", default=".", help="directory or file (default: the working one)"
    )
    parser.add_argument("-l", dest="long", action="store_true", help="with permissions, owner, size and time")


@command("ls", "Files", _ls_arguments, examples=("%daytona ls", "%daytona ls -l results"))
async def ls(host: Host, args: argparse.Namespace) -> Result:
    """List a directory of the sandbox."""
    sandbox = await host.sandbox()
    path = await expanded(host, args.path)
    with translated(f"ls {path}"):
        about = await info_of(host, path)
        files = await sandbox.fs.list_files(path) if about.is_dir else [about]
    value = [_facts(one) for one in files]
    if not args.long:
        names = [printable(one.name) + ("/" if one.is_dir else "") for one in files]
        return Result(value, "\n".join(names) or "(empty)")
    header = ("mode", "owner", "group", "size", "modified", "name")
    rows = [
        (one.mode, one.owner, one.group, size(one.size), (one.mod_time or "")[:19], printable(one.name))
        for one in files
    ]
    return Result(value, table_text(header, rows) if rows else "(empty)", table_html(header, rows, path))


def _facts(one: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "is_dir": one.is_dir,
        "size": one.size,
        "permissions": one.permissions,
        "owner": one.owner,
        "group": one.group,
        "modified": one.mod_time,
    }


def _path_arguments(parser: Parser) -> None:
    remote_argument(parser, "path", help="path in the sandbox")


@command("stat", "Files", _path_arguments, examples=("%daytona stat model.pkl",))
async def stat(host: Host, args: argparse.Namespace) -> Result:
    """Show what is known about a file or directory of the sandbox."""
    path = await expanded(host, args.path)
    with translated(f"stat {path}"):
        about = await info_of(host, path)
    facts = {"path": path, **_facts(about)}
    rows = [(name, printable(str(value))) for name, value in facts.items()]
    return Result(facts, table_text((), rows), table_html((), rows))


def _cat_arguments(parser: Parser) -> None:
    _path_arguments(parser)
    parser.add_argument(
        "--bytes", type=int, default=1 << 20, metavar="N", help="at most so many (default 1 MiB)"
    )
    parser.add_argument("--text", action="store_true", help="as text, even a picture or a table")


@command("cat", "Files", _cat_arguments, examples=("%daytona cat notes.md", "%daytona cat plot.png"))
async def cat(host: Host, args: argparse.Namespace) -> Result:
    """Show a file of the sandbox: text, a picture, or a CSV as a table."""
    if args.bytes < 1:
        raise UsageError(f"--bytes is a number of bytes from 1 up, not {args.bytes}.")
    path = await expanded(host, args.path)
    with translated(f"cat {path}"):
        about = await info_of(host, path)
        if about.is_dir:
            raise CommandFailed(f"{path} is a directory.", hint=f"See %daytona ls {path}.")
    limit = 64 << 20 if picture_name(path) and not args.text else args.bytes
    data = await _head(host, path, limit)
    return shown(path, data, cut=about.size > len(data), as_text=args.text)


async def _head(host: Host, path: str, limit: int) -> bytes:
    from ..fetching import blocks

    toolbox, data = await host.toolbox(), bytearray()
    async for block in blocks(toolbox, path):
        data += block
        if len(data) >= limit:
            break
    return bytes(data[:limit])


def picture_name(path: str) -> bool:
    """Whether a file's name says that it is a picture."""
    return path.lower().endswith((".png", ".jpg", ".jpeg", ".gif"))


def shown(path: str, data: bytes, *, cut: bool = False, as_text: bool = False) -> Result:
    """A file's content as people like to see it."""
    kind = next((kind for magic, kind in PICTURES.items() if data.startswith(magic)), "")
    if kind and not as_text and not cut:
        encoded = b64encode(data).decode("ascii")
        label = f"<{kind}, {size(len(data))}: {printable(path)}>"
        return Result({"type": kind, "bytes": len(data)}, label, data={kind: encoded})
    if b"\0" in data[:8192]:
        return Result(None, f"{printable(path)} is not text ({size(len(data))}{' or more' if cut else ''}).")
    text = data.decode("utf-8", "replace")
    tail = f"\n… (cut after {size(len(data))})" if cut else ""
    html = "" if as_text else _table_of(path, text)
    return Result(text, text + tail, html)


def _table_of(path: str, text: str) -> str:
    """HTML of a CSV or TSV file; empty if it is none."""
    if not re.search(r"\.(csv|tsv)$", path, re.IGNORECASE):
        return ""
    delimiter = "\t" if path.lower().endswith("tsv") else ","
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    except csv.Error:
        return ""
    if len(rows) < 2 or len({len(row) for row in rows[:TABLE_ROWS]}) != 1:
        return ""
    rest = len(rows) - 1 - TABLE_ROWS
    more = f"<p>… and {rest} rows more</p>" if rest > 0 else ""
    return table_html(rows[0], rows[1 : TABLE_ROWS + 1], path) + more


def _write_arguments(parser: Parser) -> None:
    remote_argument(parser, "path", help="file in the sandbox")
    parser.add_argument("-a", "--append", action="store_true", help="add to its end")


@command("write", "Files", _write_arguments, cell=True, examples=("%%daytona write app/server.py",))
async def write(host: Host, args: argparse.Namespace) -> Result:
    """Write the cell's text to a file of the sandbox, with the directories above it. It is overwritten."""
    toolbox = await host.toolbox()
    path = await expanded(host, args.path)
    data = args.body.encode()
    if args.append:
        data = (await toolbox.download(path) or b"") + data
    try:
        await toolbox.upload(path, data)
    except ToolboxError as exc:
        raise CommandFailed(f"write {printable(path)}: {exc}") from exc
    return Result(path, f"Wrote {size(len(data))} to {printable(path)}")


def _mkdir_arguments(parser: Parser) -> None:
    remote_argument(parser, "paths", nargs="+", metavar="path", help="directory to make, with those above it")
    parser.add_argument("--mode", default="755", help="permissions, octal (default 755)")


def _checked_mode(mode: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3,4}", mode):
        raise UsageError(f"{mode!r} are no permissions.", hint="Write them in octal, like 644 or 0755.")
    return mode


@command("mkdir", "Files", _mkdir_arguments, examples=("%daytona mkdir data/raw",))
async def mkdir(host: Host, args: argparse.Namespace) -> Result:
    """Make directories in the sandbox."""
    mode = _checked_mode(args.mode)
    sandbox = await host.sandbox()
    made = []
    for path in args.paths:
        full = await expanded(host, path)
        with translated(f"mkdir {full}"):
            await sandbox.fs.create_folder(full, mode)
        made.append(full)
    return Result(made, f"Made {', '.join(made)}")


def _rm_arguments(parser: Parser) -> None:
    remote_argument(parser, "paths", nargs="+", metavar="path", help="file or directory to delete")
    parser.add_argument(
        "-r", dest="recursive", action="store_true", help="directories, too, with all in them"
    )
    parser.add_argument("-f", dest="force", action="store_true", help="no error for what is not there")


@command("rm", "Files", _rm_arguments, examples=("%daytona rm old.csv", "%daytona rm -r build"))
async def rm(host: Host, args: argparse.Namespace) -> Result:
    """Delete files of the sandbox."""
    sandbox = await host.sandbox()
    gone, errors = [], []
    for path in args.paths:
        full = await expanded(host, path)
        try:
            with translated(full):
                about = await info_of(host, full)
                if about.is_dir and not args.recursive:
                    raise CommandFailed(f"{full} is a directory.", hint="-r deletes it with all in it.")
                await sandbox.fs.delete_file(full, recursive=args.recursive)
            gone.append(full)
        except DaytonaKernelError as exc:
            missing = getattr(exc.__cause__, "status_code", None) == 404
            if not (missing and args.force):
                errors.append(str(exc))
    text = f"Deleted {', '.join(printable(one) for one in gone)}" if gone else ""
    return Result(gone, text, error=CommandFailed("\n".join(errors)) if errors else None)


def _mv_arguments(parser: Parser) -> None:
    remote_argument(parser, "source", help="what to move")
    remote_argument(parser, "destination", help="its new name, or a directory to move it into")


@command("mv", "Files", _mv_arguments, examples=("%daytona mv draft.csv data/final.csv",))
async def mv(host: Host, args: argparse.Namespace) -> Result:
    """Move or rename a file of the sandbox. Nothing is overwritten."""
    sandbox = await host.sandbox()
    source, target = await expanded(host, args.source), await expanded(host, args.destination)
    with translated(f"mv {source}"):
        await info_of(host, source)
        try:
            inside = (await sandbox.fs.get_file_info(target)).is_dir
        except Exception as exc:
            if getattr(exc, "status_code", None) != 404:
                raise
            inside = False
        if inside:
            target = f"{target.rstrip('/')}/{source.rstrip('/').rpartition('/')[2]}"
        await sandbox.fs.move_files(source, target)
    return Result(target, f"Moved {printable(source)} to {printable(target)}")


def _chmod_arguments(parser: Parser) -> None:
    parser.add_argument("mode", help="permissions, octal: 644, 755")
    remote_argument(parser, "paths", nargs="+", metavar="path", help="files")
    parser.add_argument("--owner", help="user name or id")
    parser.add_argument("--group", help="group name or id")


@command("chmod", "Files", _chmod_arguments, examples=("%daytona chmod 755 run.sh",))
async def chmod(host: Host, args: argparse.Namespace) -> Result:
    """Set permissions, and owner and group, of files of the sandbox."""
    mode = _checked_mode(args.mode)
    sandbox = await host.sandbox()
    done = []
    for path in args.paths:
        full = await expanded(host, path)
        with translated(f"chmod {full}"):
            await info_of(host, full)
            await sandbox.fs.set_file_permissions(full, mode, args.owner, args.group)
        done.append(full)
    return Result(done, f"{mode}: {', '.join(printable(one) for one in done)}")


def _search_arguments(parser: Parser) -> None:
    parser.add_argument("pattern", help="what to look for")
    remote_argument(parser, "path", nargs="?", default=".", help="where (default: the working directory)")


@command("find", "Files", _search_arguments, examples=("%daytona find '*.csv' data",))
async def find(host: Host, args: argparse.Namespace) -> Result:
    """Find files of the sandbox by name, with a shell pattern."""
    sandbox = await host.sandbox()
    path = await expanded(host, args.path)
    with translated(f"find {path}"):
        await info_of(host, path)
        found = list((await sandbox.fs.search_files(path, args.pattern)).files or [])
    return Result(found, "\n".join(printable(one) for one in found) or "Nothing matches.")


@command("grep", "Files", _search_arguments, examples=("%daytona grep TODO src",))
async def grep(host: Host, args: argparse.Namespace) -> Result:
    """Find text in files of the sandbox: this very text, no regular expression."""
    sandbox = await host.sandbox()
    path = await expanded(host, args.path)
    with translated(f"grep {path}"):
        await info_of(host, path)
        matches = await sandbox.fs.find_files(path, args.pattern)
    value = [{"file": one.file, "line": one.line, "content": one.content} for one in matches]
    lines = [f"{printable(one.file)}:{one.line}: {printable(one.content.strip())}" for one in matches]
    rows = [(f"{one.file}:{one.line}", one.content.strip()) for one in matches]
    html = table_html((), rows) if rows else ""
    return Result(value, "\n".join(lines) or "Nothing matches.", html)


__all__ = ["escape", "expanded", "picture_name", "remote_argument", "shown"]
