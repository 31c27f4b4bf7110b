"""``upload`` and ``download``."""

from __future__ import annotations

import argparse
import glob
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import transfer
from ..asked import can_be_of
from ..errors import SandboxProtocolError
from ..remote import COMPARE, DESTINATION, MANIFEST, PRUNE, run_script
from ..toolbox import Toolbox
from ..transfer import Item, Outcome, UnsafeName, safe_target
from . import files
from .host import CommandFailed, Host, Result, UsageError
from .progress import Progress
from .registry import Parser, command
from .words import Markup, duration, escape, printable, size, table_html, table_text

LOCAL = "local"
"""Completer of arguments that name files of this machine."""
SHOWN_FILES = 20
EQUAL_MTIME_S = 2.0
"""File systems and archives round times; a difference up to this is none."""


def _sync_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--sync", action="store_true", help="skip files of equal size and time; implies --force"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _upload_arguments(parser: Parser) -> None:
    parser.add_argument(
        "sources", nargs="+", metavar="SRC", help="files, directories or patterns of this machine"
    ).completer = LOCAL  # type: ignore[attr-defined]
    files.remote_argument(
        parser, "--to", metavar="DEST", help="where to, in the sandbox; else the last of several words is it"
    )
    _sync_arguments(parser)
    parser.add_argument(
        "--delete", action="store_true", help="with --sync: delete what is only in the sandbox"
    )


@command(
    "upload",
    "Files",
    _upload_arguments,
    examples=(
        "%daytona upload data.csv",
        "%daytona upload data/*.csv input/",
        "%daytona upload project --to ~/work --sync",
    ),
)
async def upload(host: Host, args: argparse.Namespace) -> Result:
    """Copy files of this machine to the sandbox, with their permissions and times.

    SRC... [DEST]: the last of several words is the destination, unless --to is given or all of them are files
    here. A destination that ends in / or is a directory gets the files in it. Existing files are overwritten.
    A file appears under its name when all of it is there. After an interrupt or a lost connection, --sync
    sends the files that are missing, each from its beginning: the service takes no files in parts.
    """
    sources, destination = _split_destination(args.sources, args.to)
    if args.delete and not args.sync:
        raise UsageError("--delete goes with --sync only.")
    found, errors = _local_files(sources)
    if not found and not errors:
        raise UsageError("There is nothing to upload.")
    toolbox = await host.toolbox()
    place = await run_script(toolbox, DESTINATION, cwd=await host.directory(), path=destination)
    items = _upload_items(found, destination, str(place["path"]), into=bool(place["is_dir"]))
    skipped = 0
    if args.sync:
        items, skipped = await _changed_there(toolbox, items)
    if args.dry_run:
        return _plan("upload", items, skipped)
    total = sum(max(0, item.size) for item in items)
    with Progress(host, "upload", total) as progress:
        outcome = await transfer.upload(toolbox, items, progress.add)
    outcome.errors = errors + outcome.errors
    deleted = []
    if args.delete and not outcome.errors:
        keep = [
            item.remote
            for item in _upload_items(found, destination, str(place["path"]), bool(place["is_dir"]))
        ]
        for root in _upload_roots(found, destination, str(place["path"]), bool(place["is_dir"])):
            deleted += await run_script(toolbox, PRUNE, root=root, keep=keep, dry=False)
    return _report("Uploaded", outcome, skipped, deleted, lambda item: item.remote)


def _split_destination(words: list[str], option: str | None) -> tuple[list[str], str]:
    if option is not None:
        return words, option
    if len(words) == 1:
        return words, ""
    last = os.path.expanduser(words[-1])
    if len(words) > 1 and (not os.path.lexists(last) or words[-1].endswith("/")):
        return words[:-1], words[-1]
    if len(words) == 2:
        raise UsageError(
            f"{words[-1]!r} is a file here: to be uploaded, too, or the destination?",
            hint=f"Write: upload {words[0]} --to {words[-1]} (or --to . for both).",
        )
    return words, ""


Found = tuple[Path, str]
"""A local file, and its name below the destination."""


def _local_files(sources: Iterable[str]) -> tuple[list[Found], list[tuple[str, str]]]:
    """The files behind the sources. Raises :class:`UsageError` if a source is not there at all."""
    found: list[Found] = []
    errors: list[tuple[str, str]] = []
    for source in sources:
        path = os.path.expanduser(source)
        matches = [path] if os.path.lexists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            near = "" if glob.has_magic(path) else _near(path)
            raise UsageError(f"There is no {source!r} on this machine.", hint=near or "Nothing was uploaded.")
        for match in matches:
            _collect(Path(match), os.path.basename(os.path.abspath(match)), found, errors)
    return found, errors


def _near(path: str) -> str:
    from .words import did_you_mean

    parent = os.path.dirname(path) or "."
    try:
        return did_you_mean(os.path.basename(path), os.listdir(parent))
    except OSError:
        return ""


def _collect(path: Path, name: str, found: list[Found], errors: list[tuple[str, str]]) -> None:
    if not path.is_dir():
        _collect_file(path, name, found, errors)
        return

    def unreadable(exc: OSError) -> None:
        errors.append((str(exc.filename), str(exc)))

    for root, folders, names in os.walk(path, onerror=unreadable):
        folders.sort()
        below = os.path.normpath(os.path.join(name, os.path.relpath(root, path)))
        links = filter(os.path.islink, (os.path.join(root, one) for one in folders))
        errors.extend((link, "a link to a directory is skipped") for link in links)
        if not folders and not names:
            found.append((Path(root), below))
        for one in sorted(names):
            _collect_file(Path(root, one), f"{below}/{one}", found, errors)


def _collect_file(path: Path, name: str, found: list[Found], errors: list[tuple[str, str]]) -> None:
    """Take a file up, or say why not: reading from a pipe or a device may never end."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as exc:
        errors.append((str(path), exc.strerror or str(exc)))
        return
    if regular:
        found.append((path, name))
    else:
        errors.append((str(path), "not a regular file"))


def _upload_items(found: list[Found], destination: str, resolved: str, into: bool) -> list[Item]:
    into = into or destination.endswith("/") or not destination or len(found) > 1
    items = []
    for path, name in found:
        remote = f"{resolved.rstrip('/')}/{name}" if into else resolved
        try:
            info = path.stat()
        except OSError:  # gone since; the transfer says so
            items.append(Item(path, remote, 0, 0o644, 0.0))
            continue
        length = -1 if stat.S_ISDIR(info.st_mode) else info.st_size
        items.append(Item(path, remote, length, stat.S_IMODE(info.st_mode) & 0o777, info.st_mtime))
    return items


def _upload_roots(found: list[Found], destination: str, resolved: str, into: bool) -> set[str]:
    """The directories of the sandbox that mirror directories of this machine."""
    tops = {name.split("/", 1)[0] for _, name in found if "/" in name}
    return {f"{resolved.rstrip('/')}/{top}" for top in tops}


async def _changed_there(toolbox: Toolbox, items: list[Item]) -> tuple[list[Item], int]:
    facts = await run_script(toolbox, COMPARE, paths=[item.remote for item in items])
    changed = [item for item, fact in zip(items, facts, strict=True) if not _equal(item, fact)]
    return changed, len(items) - len(changed)


def _equal(item: Item, fact: Any) -> bool:
    return bool(fact) and fact[0] == item.size and abs(fact[1] - item.mtime) <= EQUAL_MTIME_S


def _download_arguments(parser: Parser) -> None:
    files.remote_argument(
        parser, "sources", nargs="+", metavar="SRC", help="files, directories or patterns of the sandbox"
    )
    parser.add_argument(
        "--to", metavar="DEST", help="where to, on this machine; else the last of several words is it"
    ).completer = LOCAL  # type: ignore[attr-defined]
    parser.add_argument("--force", action="store_true", help="overwrite files that are there already")
    parser.add_argument("--show", action="store_true", help="show pictures and tables that came")
    _sync_arguments(parser)


@command(
    "download",
    "Files",
    _download_arguments,
    examples=(
        "%daytona download plot.png",
        "%daytona download 'results/*.csv' out/",
        "%daytona download model --to backup --sync",
    ),
)
async def download(host: Host, args: argparse.Namespace) -> Result:
    """Copy files of the sandbox to this machine, with their permissions and times.

    SRC... [DEST]: the last of several words is the destination. Nothing is written outside of it, and nothing
    is overwritten without --force (or --sync, for files that differ). A file appears under its name when
    all of it is there. If the connection is lost within a file, the rest comes over the next one, unless
    the file has changed; after an interrupt, --sync fetches the files that are missing.
    """
    sources, destination = (args.sources, args.to) if args.to else _last_is_destination(args.sources)
    toolbox = await host.toolbox()
    manifest = await run_script(toolbox, MANIFEST, cwd=await host.directory(), sources=sources)
    outcome = Outcome(errors=[(str(path), str(reason)) for path, reason in manifest["errors"]])
    items = _download_items(manifest["files"], sources, destination, outcome)
    skipped = 0
    if args.sync:
        changed = [item for item in items if not _equal(item, _local_fact(item.local))]
        skipped, items = len(items) - len(changed), changed
    if args.dry_run:
        return _plan("download", items, skipped, outcome.errors)
    with Progress(host, "download", sum(max(0, item.size) for item in items)) as progress:
        done = await transfer.download(toolbox, items, force=args.force or args.sync, count=progress.add)
    done.errors = outcome.errors + done.errors
    picture = len(done.moved) == 1 and files.picture_name(done.moved[0][0].remote)
    if (args.show or picture) and not args.json:
        _show_files(host, done)
    return _report("Downloaded", done, skipped, [], lambda item: str(item.local.absolute()))


def _last_is_destination(words: list[str]) -> tuple[list[str], str]:
    return (words[:-1], words[-1]) if len(words) > 1 else (words, "")


def _download_items(entries: Any, sources: list[str], destination: str, outcome: Outcome) -> list[Item]:
    """Where each file of the sandbox's list goes. Names that lead elsewhere are errors, not files."""
    target = Path(os.path.expanduser(destination or "."))
    entries = _checked_entries(entries)
    single = len(entries) == 1 and len(sources) == 1 and "/" not in entries[0][1]
    into = not destination or destination.endswith("/") or target.is_dir() or not single
    folder = target if into else target.parent
    items, taken = [], set()
    checked: dict[Path, bool] = {}
    for path, name, length, mode, mtime in entries:
        try:
            if not can_be_of(name, sources):
                raise UnsafeName(f"{name!r} is not what was asked for")
            local = safe_target(folder, name, checked) if into else target
            if local in taken:
                raise UnsafeName(f"a second file {name!r}")
        except (UnsafeName, OSError) as exc:
            outcome.errors.append((str(path), str(exc)))
            continue
        taken.add(local)
        items.append(Item(local, path, length, mode, mtime))
    return items


def _checked_entries(entries: Any) -> list[tuple[str, str, int, int, float]]:
    """The sandbox's list, whose form is not taken for granted."""
    try:
        checked = [
            (str(path), str(name), int(length), int(mode), float(mtime))
            for path, name, length, mode, mtime in entries
        ]
    except (TypeError, ValueError, OverflowError) as exc:
        raise SandboxProtocolError("The sandbox listed its files in an unknown form.") from exc
    if not all(math.isfinite(one[4]) for one in checked):
        raise SandboxProtocolError("The sandbox listed files of no real time.")
    return checked


def _local_fact(path: Path) -> Any:
    try:
        info = path.stat()
    except OSError:
        return None
    return (-1 if stat.S_ISDIR(info.st_mode) else info.st_size, info.st_mtime)


def _show_files(host: Host, outcome: Outcome) -> None:
    for item, _ in outcome.moved[:5]:
        if item.size > 16 << 20:
            continue
        result = files.shown(item.remote, item.local.read_bytes())
        if result.data or result.html:
            host.display(result.bundle())


def _plan(verb: str, items: list[Item], skipped: int, errors: list[tuple[str, str]] | None = None) -> Result:
    lines = [f"Would {verb} {len(items)} files, {size(sum(max(0, item.size) for item in items))}"]
    lines += [
        f"  {item.local} {'→' if verb == 'upload' else '←'} {item.remote}" for item in items[:SHOWN_FILES]
    ]
    if len(items) > SHOWN_FILES:
        lines.append(f"  … and {len(items) - SHOWN_FILES} more")
    if skipped:
        lines.append(f"{skipped} are equal already.")
    value = [{"local": str(item.local), "remote": item.remote, "size": item.size} for item in items]
    return Result(value, "\n".join(lines), error=_failure(errors or []))


def _report(verb: str, outcome: Outcome, skipped: int, deleted: list[str], name: Any) -> Result:
    moved = sorted(outcome.moved, key=lambda pair: pair[0].remote)
    value = [
        {
            "path": name(item),
            "size": item.size,
            "sha256": digest,
            "local": str(item.local),
            "remote": item.remote,
        }
        for item, digest in moved
    ]
    count = f"{len(moved)} file{'' if len(moved) == 1 else 's'}"
    head = f"{verb} {count}, {size(outcome.bytes)} in {duration(round(outcome.seconds, 1))}"
    if outcome.seconds > 1:
        head += f" ({size(outcome.bytes / outcome.seconds)}/s)"
    if skipped:
        head += f"; {skipped} equal already"
    if deleted:
        head += f"; {len(deleted)} deleted there"
    rows = [
        (printable(name(item)), size(item.size), f"sha256:{digest}") for item, digest in moved[:SHOWN_FILES]
    ]
    more = f"\n… and {len(moved) - SHOWN_FILES} more" if len(moved) > SHOWN_FILES else ""
    text = f"{head}\n{table_text((), rows)}{more}".rstrip() if moved or skipped or not outcome.errors else ""
    rich = [(*row[:2], _wrapping(row[2])) for row in rows]
    html = table_html((), rich, head) + more if rows else ""
    return Result(value, text, html, error=_failure(outcome.errors))


def _wrapping(text: str) -> Markup:
    """A long word that may be broken where the page is narrow."""
    return Markup(f'<small style="white-space:normal;overflow-wrap:anywhere">{escape(text)}</small>')


def _failure(errors: list[tuple[str, str]]) -> CommandFailed | None:
    """One error for all files that failed; each is named."""
    if not errors:
        return None
    shown = [f"{printable(path)}: {printable(reason)}" for path, reason in errors[:SHOWN_FILES]]
    if len(errors) > SHOWN_FILES:
        shown.append(f"… and {len(errors) - SHOWN_FILES} more")
    head = "1 file failed" if len(errors) == 1 else f"{len(errors)} files failed"
    return CommandFailed(f"{head}: " + ("; ".join(shown) if len(shown) == 1 else "\n  " + "\n  ".join(shown)))
