"""``record``: films of the sandbox's screen."""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .desktop import desktop, free_target, started
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .words import duration, size, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox

SHOWN_VIDEO_BYTES = 32 << 20
VIDEOS = (".mp4", ".webm", ".mkv")


def _record_start_arguments(parser: Parser) -> None:
    parser.add_argument("--label", help="words for the recording")


@command("record start", "Desktop", _record_start_arguments, examples=("%daytona record start --label demo",))
async def record_start(host: Host, args: argparse.Namespace) -> Result:
    """Begin to record the screen. The value is the recording's id."""
    sandbox = await started(host)
    with desktop():
        recording = await sandbox.computer_use.recording.start(args.label)
    return Result(recording.id, f"Recording {recording.id}; %daytona record stop ends it")


@command("record list", "Desktop", examples=("%daytona record list",))
async def record_list(host: Host, args: argparse.Namespace) -> Result:
    """List the recordings."""
    sandbox = await host.sandbox()
    with desktop():
        found = (await sandbox.computer_use.recording.list()).recordings or []
    value = [
        {"id": one.id, "file": one.file_name, "status": one.status, "bytes": one.size_bytes or 0}
        for one in found
    ]
    rows = [
        (one.id, one.status, duration(round(one.duration_seconds or 0)), size(one.size_bytes or 0))
        for one in found
    ]
    return Result(value, table_text(("recording", "state", "length", "size"), rows) if rows else "None yet.")


def _record_arguments(parser: Parser) -> None:
    parser.add_argument("id", nargs="?", help="id of the recording (default: the newest)")


@command("record stop", "Desktop", _record_arguments, examples=("%daytona record stop",))
async def record_stop(host: Host, args: argparse.Namespace) -> Result:
    """End a recording."""
    sandbox = await host.sandbox()
    recording_id = args.id or await _newest(sandbox, "recording")
    await _known(sandbox, recording_id)
    with desktop():
        recording = await sandbox.computer_use.recording.stop(recording_id)
        kept = (await sandbox.computer_use.recording.list()).recordings or []
    if all(one.id != recording.id for one in kept):
        raise CommandFailed("Nothing was recorded: it was ended before its first picture.")
    return Result(recording.id, f"Recorded {recording.id}; %daytona record download shows it")


async def _newest(sandbox: AsyncSandbox, status: str) -> str:
    with desktop():
        found = (await sandbox.computer_use.recording.list()).recordings or []
    found = [one for one in found if one.status == status]
    if not found:
        raise UsageError(
            "Nothing is being recorded." if status == "recording" else "There are no recordings."
        )
    return str(max(found, key=lambda one: str(one.start_time)).id)


def _record_download_arguments(parser: Parser) -> None:
    _record_arguments(parser)
    parser.add_argument("--save", metavar="FILE", help="name on this machine (default: the recording's)")
    parser.add_argument("--force", action="store_true", help="overwrite the file")


@command("record download", "Desktop", _record_download_arguments, examples=("%daytona record download",))
async def record_download(host: Host, args: argparse.Namespace) -> Result:
    """Copy a recording to this machine and show it."""
    sandbox = await host.sandbox()
    recording_id = args.id or await _newest(sandbox, "completed")
    recording = await _known(sandbox, recording_id)
    name = local_name(str(recording.file_name))
    target = await asyncio.to_thread(free_target, args.save or name, args.force)
    length = await _fetched(sandbox, recording_id, target)
    html = await asyncio.to_thread(_video, target) if length <= SHOWN_VIDEO_BYTES else ""
    return Result(str(target), f"Saved {target} ({size(length)})", html)


def local_name(file_name: str) -> str:
    """A name here for a recording: always a video's, since a ``numpy.py`` would be a program to others."""
    plain = re.sub(r"[^\w.-]", "_", Path(file_name).name).lstrip(".")
    return plain if plain.lower().endswith(VIDEOS) and not plain.startswith("-") else "recording.mp4"


async def _known(sandbox: AsyncSandbox, recording_id: str) -> Any:
    """A recording. Raises :class:`UsageError` if there is none of this id."""
    with desktop():
        try:
            return await sandbox.computer_use.recording.get(recording_id)
        except Exception as exc:
            if getattr(exc, "status_code", None) != 404:
                raise
            raise UsageError(
                f"There is no recording {recording_id!r}.", hint="%daytona record list shows them."
            ) from exc


async def _fetched(sandbox: AsyncSandbox, recording_id: str, target: Path) -> int:
    """Put a recording in its place when all of it is there. Its bytes."""
    handle, part = await asyncio.to_thread(tempfile.mkstemp, ".part", f".{target.name[:100]}.", target.parent)
    os.close(handle)
    try:
        with desktop():
            await sandbox.computer_use.recording.download(recording_id, part)
        return await asyncio.to_thread(_settle, part, target)
    except BaseException:
        os.unlink(part)
        raise


def _settle(part: str, target: Path) -> int:
    length = os.path.getsize(part)
    os.replace(part, target)
    return length


def _video(path: Path) -> str:
    source = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<video controls width="640" src="data:video/mp4;base64,{source}"></video>'
