"""Bulk upload and download: streaming, in parallel, in constant memory, and many small files in one go.

Big files go one by one, small ones in bundles. What comes down is from a place that is not trusted: names
are checked one by one, links are never followed out of the target folder, and a file appears under its name
only when it is complete.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from .answers import parsed
from .errors import ConnectionFailed, DaytonaKernelError, SandboxProtocolError
from .fetching import TRANSFER_TIMEOUT_S, blocks, gathered
from .remote import PACK, SETTLE, UNPACK, run_script
from .sending import PIECE_BYTES, SECOND, Pieces, calls_for_pieces, store
from .streaming import FileStream
from .toolbox import Toolbox

SMALL_BYTES = 1 << 20
"""Files up to this size travel together."""
BATCH_BYTES = 8 << 20
BATCH_FILES = 2000
MAX_GROWTH_BYTES = 16 << 20
"""A file may be larger by so much than when it was listed."""
PARALLEL = 4
TEMPORARY = "/tmp/.daytona-"  # noqa: S108 - in the sandbox, with a name that can not be guessed

log = logging.getLogger(__name__)

Count = Callable[[int], None]


@dataclass(frozen=True)
class Item:
    """One file to move. ``mtime`` in seconds since 1970; ``mode`` are its permission bits."""

    local: Path
    remote: str
    size: int
    mode: int
    mtime: float


@dataclass
class Outcome:
    """What became of the files: those moved with their SHA-256, and those that failed with the reason."""

    moved: list[tuple[Item, str]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def bytes(self) -> int:
        """Bytes moved."""
        return sum(item.size for item, _ in self.moved)


class UnsafeName(ValueError):
    """A name from the sandbox that leads out of the target folder."""


def safe_target(folder: Path, name: str, checked: dict[Path, bool] | None = None) -> Path:
    """Where ``name``, which the sandbox told, belongs below ``folder``.

    ``checked`` remembers the folders that were looked at, for lists of many files.

    Raises :class:`UnsafeName` for absolute names, ``..``, backslashes, NULs, and if a link on the way leads
    out of the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or any(part in ("..", ".") for part in parts):
        raise UnsafeName(f"{name!r} leads out of the target folder")
    if "\\" in name or "\0" in name or (os.name == "nt" and ":" in name):
        raise UnsafeName(f"{name!r} is no name for a file here")
    target = folder.joinpath(*parts)
    checked = {} if checked is None else checked
    if target.parent not in checked:
        checked[target.parent] = target.parent.resolve().is_relative_to(folder.resolve())
    if not checked[target.parent]:
        raise UnsafeName(f"{name!r} leads through a link out of the target folder")
    return target


def batches(items: Sequence[Item]) -> list[list[Item]]:
    """Small files in groups that fit in memory."""
    groups: list[list[Item]] = []
    total = 0
    for item in items:
        if not groups or total + item.size > BATCH_BYTES or len(groups[-1]) >= BATCH_FILES:
            groups.append([])
            total = 0
        groups[-1].append(item)
        total += item.size
    return groups


# -- up --------------------------------------------------------------------------------------------


async def upload(toolbox: Toolbox, items: Sequence[Item], count: Count) -> Outcome:
    """Upload files with their permissions and times. A file that fails is in the outcome's errors.

    ``count`` hears the bytes as they are sent.
    """
    outcome, started = Outcome(), time.monotonic()
    small = [item for item in items if item.size <= SMALL_BYTES]
    limit = asyncio.Semaphore(PARALLEL)

    async def guarded(group: Sequence[Item], work: Callable[..., Awaitable[None]], *words: Any) -> None:
        async with limit:
            try:
                await work(toolbox, *words, outcome, count)
            except DaytonaKernelError as exc:
                outcome.errors += [(str(item.local), str(exc)) for item in group]

    jobs = [guarded(group, _upload_small, group) for group in batches(small)]
    big = [item for item in items if item.size > SMALL_BYTES]
    jobs += [guarded([item], _upload_big, item) for item in big]
    await _all(jobs)
    outcome.seconds = time.monotonic() - started
    return outcome


async def _all(jobs: Sequence[Any]) -> None:
    """Run jobs together; if one raises or we are cancelled, none goes on."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _upload_small(toolbox: Toolbox, group: list[Item], outcome: Outcome, count: Count) -> None:
    bundle, digests, errors = await asyncio.to_thread(_pack, group)
    outcome.errors += errors
    if not digests:
        return
    name = f"{TEMPORARY}upload-{uuid.uuid4().hex}"
    name = await store(toolbox, name, bundle, timeout_s=TRANSFER_TIMEOUT_S)
    del bundle
    answer = await run_script(toolbox, UNPACK, timeout_s=600, bundle=name)
    failed = {str(path): str(reason) for path, reason in answer["errors"]}
    for item in group:
        if item.remote in failed:
            outcome.errors.append((str(item.local), f"{item.remote}: {failed[item.remote]}"))
        elif item.size >= 0 and item.remote in digests:
            outcome.moved.append((item, digests[item.remote]))
            count(item.size)


def _pack(group: list[Item]) -> tuple[bytes, dict[str, str], list[tuple[str, str]]]:
    """Files in one piece: the length of an index in 8 bytes, the index (JSON), then the files.

    Also the SHA-256 by remote name, and the files that can not be read.
    """
    digests: dict[str, str] = {}
    errors: list[tuple[str, str]] = []
    index: list[Any] = []
    contents: list[bytes] = []
    for item in group:
        data = b""
        if item.size >= 0:
            try:
                with open(item.local, "rb") as file:
                    data = file.read()
            except OSError as exc:
                errors.append((str(item.local), exc.strerror or str(exc)))
                continue
        index.append([item.remote, len(data) if item.size >= 0 else -1, item.mode, item.mtime])
        contents.append(data)
        digests[item.remote] = hashlib.sha256(data).hexdigest()
    head = json.dumps(index).encode()
    return b"".join([len(head).to_bytes(8, "big"), head, *contents]), digests, errors


async def _upload_big(toolbox: Toolbox, item: Item, outcome: Outcome, count: Count) -> None:
    part = f"{item.remote}.{uuid.uuid4().hex[:8]}.part"
    try:
        file: IO[bytes] = await asyncio.to_thread(open, item.local, "rb")
    except OSError as exc:
        outcome.errors.append((str(item.local), exc.strerror or str(exc)))
        return
    complete, first = False, part
    try:
        with file:
            part, digest = await _send(toolbox, first, file, count)
        files = [[part, item.remote, item.mode, item.mtime]]
        answer = await run_script(toolbox, SETTLE, files=files)
        complete = not answer["errors"]
    except OSError as exc:
        outcome.errors.append((str(item.local), exc.strerror or str(exc)))
        return
    finally:
        if not complete or part != first:
            with suppress(DaytonaKernelError, asyncio.CancelledError):
                await asyncio.shield(toolbox.execute("rm", "-f", first, first + SECOND))
    for path, reason in answer["errors"]:
        outcome.errors.append((str(item.local), f"{path}: {reason}"))
    if not answer["errors"]:
        outcome.moved.append((item, digest))


async def _send(toolbox: Toolbox, path: str, file: IO[bytes], count: Count) -> tuple[str, str]:
    """Stream a file to the sandbox; where it is, and its SHA-256. If the line breaks, it goes in pieces.

    Raises :class:`OSError` if it can not be read.
    """
    from aiohttp import FormData

    sent = 0

    def counted(size: int) -> None:
        nonlocal sent
        sent += size
        count(size)

    stream = FileStream(file, counted)
    form = FormData(default_to_multipart=True)
    form.add_field("files[0].path", path)
    form.add_field("files[0].file", stream.body(path), filename=path)
    try:
        await toolbox._json("POST", "/files/bulk-upload", data=form, timeout_s=TRANSFER_TIMEOUT_S)
        return path, stream.sha256
    except DaytonaKernelError as exc:
        if stream.failure is not None:
            raise stream.failure from None
        if not calls_for_pieces(exc):
            raise
        log.info("%s is sent in pieces: %s", path, exc)
    finally:
        await stream.settle()
    return await _send_in_pieces(toolbox, path + SECOND, file, sent, count)


async def _send_in_pieces(
    toolbox: Toolbox, path: str, file: IO[bytes], counted: int, count: Count
) -> tuple[str, str]:
    """Send a file from its beginning. ``counted``: bytes of it that ``count`` has heard of already."""
    digest = hashlib.sha256()
    pieces = Pieces(toolbox, path)
    try:
        file.seek(0)
        while block := await asyncio.to_thread(file.read, PIECE_BYTES):
            digest.update(block)
            await pieces.add(block)
            count(max(0, pieces.size - counted))
            counted = max(counted, pieces.size)
        return path, digest.hexdigest()
    finally:
        await pieces.tidy()


# -- down ------------------------------------------------------------------------------------------


async def download(toolbox: Toolbox, items: Sequence[Item], *, force: bool, count: Count) -> Outcome:
    """Download files into place. A file that fails, or is there already, is in the outcome's errors.

    The caller has checked with :func:`safe_target` where ``item.local`` is.
    """
    outcome, started = Outcome(), time.monotonic()
    limit = asyncio.Semaphore(PARALLEL)
    files = []
    for item in items:
        if item.size < 0:
            await asyncio.to_thread(item.local.mkdir, parents=True, exist_ok=True)
        else:
            files.append(item)
    small = [item for item in files if item.size <= SMALL_BYTES]

    async def guarded(group: Sequence[Item], work: Callable[..., Awaitable[None]], *words: Any) -> None:
        async with limit:
            try:
                await work(toolbox, *words, outcome, count)
            except DaytonaKernelError as exc:
                known = {name for name, _ in outcome.errors}
                known.update(item.remote for item, _ in outcome.moved)
                outcome.errors += [(item.remote, str(exc)) for item in group if item.remote not in known]

    jobs = [guarded(group, _fetch_small, group, force) for group in batches(small)]
    big = [item for item in files if item.size > SMALL_BYTES]
    jobs += [guarded([item], _fetch_big, item, force) for item in big]
    await _all(jobs)
    outcome.seconds = time.monotonic() - started
    return outcome


async def _fetch_big(toolbox: Toolbox, item: Item, force: bool, outcome: Outcome, count: Count) -> None:
    target = _Target(item, force)
    received = 0
    try:
        if not await asyncio.to_thread(target.begin, outcome):
            return
        async for pieces in gathered(toolbox, item.remote):
            await target.write_behind(pieces)
            size = sum(map(len, pieces))
            count(size)
            received += size
            if received > item.size + MAX_GROWTH_BYTES:  # or the sandbox could fill this machine's disk
                raise SandboxProtocolError(f"{item.remote} has grown: more comes than it had.")
        await target.settle()
        digest = await asyncio.to_thread(target.finish)
        size = target.size
        outcome.moved.append((replace(item, size=size), digest))
    except OSError as exc:
        outcome.errors.append((item.remote, f"{item.local}: {exc.strerror or exc}"))
    finally:
        target.discard()


async def _fetch_small(
    toolbox: Toolbox, group: list[Item], force: bool, outcome: Outcome, count: Count
) -> None:
    """All files of the group in one piece, which the sandbox packs."""
    name = f"{TEMPORARY}download-{uuid.uuid4().hex}"
    data = bytearray()
    try:
        await run_script(
            toolbox,
            PACK,
            timeout_s=600,
            paths=[item.remote for item in group],
            bundle=name,
            limit=2 * BATCH_BYTES,
        )
        async for block in blocks(toolbox, name):
            data += block
            if len(data) > 4 * BATCH_BYTES:
                raise SandboxProtocolError("The sandbox sends more than the files have.")
    finally:
        with suppress(DaytonaKernelError):
            await asyncio.shield(toolbox.execute("rm", "-f", name))
    count(await asyncio.to_thread(_unpack, bytes(data), group, force, outcome))


def _unpack(data: bytes, group: list[Item], force: bool, outcome: Outcome) -> int:
    """Write the files of a bundle, which are in the order asked for; the bytes written.

    The index has a size for each, or the reason why it is not there.
    """
    length = int.from_bytes(data[:8], "big")
    position, written, view = 8 + length, 0, memoryview(data)
    try:
        index = parsed(data[8:position])
        fits = isinstance(index, list) and len(index) == len(group)
        total = sum(size for size in index if type(size) is int and size >= 0)
        fits = fits and all(type(one) is str or (type(one) is int and one >= 0) for one in index)
    except (ValueError, TypeError):
        fits = False
    if not fits or position + total != len(data):
        raise ConnectionFailed("The sandbox's answer ended before all files had come.", hint="Try again.")
    for item, size in zip(group, index, strict=True):
        if isinstance(size, str):
            outcome.errors.append((item.remote, size[:300]))
            continue
        body = view[position : position + size]
        position += size
        try:
            digest = _write_new(item, body)
        except FileExistsError:
            digest = _write_over(item, body, force, outcome)
        except OSError as exc:
            digest = ""
            outcome.errors.append((item.remote, f"{item.local}: {exc.strerror or exc}"))
        if digest:
            outcome.moved.append((replace(item, size=size), digest))
            written += size
    return written


def _write_new(item: Item, body: memoryview) -> str:
    """Write a small file that is not there yet, at once under its name. Its SHA-256."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(item.local, flags, 0o600)
    except FileNotFoundError:
        item.local.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(item.local, flags, 0o600)
    try:
        try:
            left = body
            while left:
                left = left[os.write(handle, left) :]
            if _BY_HANDLE:
                _set_facts(handle, item)
        finally:
            os.close(handle)
        if not _BY_HANDLE:
            _set_facts(item.local, item)
    except BaseException:
        os.unlink(item.local)
        raise
    return hashlib.sha256(body).hexdigest()


def _write_over(item: Item, body: memoryview, force: bool, outcome: Outcome) -> str:
    """Replace a small file, if that is allowed. Its SHA-256, or nothing with the reason in the outcome."""
    target = _Target(item, force)
    if not target.begin(outcome):
        return ""
    try:
        target.write(body)
        return target.finish()
    except OSError as exc:
        outcome.errors.append((item.remote, f"{item.local}: {exc.strerror or exc}"))
        return ""
    finally:
        target.discard()


_BY_HANDLE = os.chmod in os.supports_fd and os.utime in os.supports_fd
"""Whether an open file's facts can be set, which saves looking up its name."""


def _set_facts(path: str | Path | int, item: Item) -> None:
    """Permissions (no set-id bits, and always readable and writable for the owner) and time of a file."""
    os.chmod(path, (item.mode & 0o777) | stat.S_IRUSR | stat.S_IWUSR)
    with suppress(OverflowError):  # a time no file system here can hold
        os.utime(path, (item.mtime, item.mtime))


class _Target:
    """A file on the way down: written under another name in its folder, put in place at the end."""

    def __init__(self, item: Item, force: bool) -> None:
        self.item, self.force, self.size = item, force, 0
        self._path = ""
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._writing: asyncio.Future[None] | None = None
        self._lock = threading.Lock()
        """A step in a thread goes on when whoever waited for it is cancelled: discarding waits for it."""
        self._over = False

    def begin(self, outcome: Outcome) -> bool:
        """Make the file under its other name; if not, the reason is in the outcome."""
        item = self.item
        with self._lock:
            try:
                if not self.force and os.path.lexists(item.local):
                    raise FileExistsError(17, "is there already; --force overwrites it")
                if item.local.is_dir():
                    raise IsADirectoryError(21, "is a directory here")
                if self._over:
                    return False
                item.local.parent.mkdir(parents=True, exist_ok=True)
                handle, self._path = tempfile.mkstemp(
                    ".part", f".{item.local.name[:100]}.", item.local.parent
                )
                self._file = os.fdopen(handle, "wb")
                return True
            except OSError as exc:
                outcome.errors.append((item.remote, f"{item.local}: {exc.strerror or exc}"))
                return False

    def write(self, *pieces: bytes | memoryview) -> None:
        """Write on."""
        with self._lock:
            if self._over or self._file is None:
                return
            for piece in pieces:
                self._file.write(piece)
                self._digest.update(piece)
                self.size += len(piece)

    async def write_behind(self, pieces: list[bytes]) -> None:
        """Write on in a thread, while the next pieces come; waits for those before these."""
        await self.settle()
        self._writing = asyncio.get_running_loop().run_in_executor(None, self.write, *pieces)

    async def settle(self) -> None:
        """Wait until everything is written. :raises OSError: if a block could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def finish(self) -> str:
        """Put the file in place, with its times and permissions (no set-id bits). Its SHA-256."""
        with self._lock:
            if not self._over:
                self._put_in_place()
        return self._digest.hexdigest()

    def _put_in_place(self) -> None:
        assert self._file is not None
        self._file.close()
        _set_facts(self._path, self.item)
        if self.force:
            os.replace(self._path, self.item.local)
            self._path = ""
            return
        # A link, unlike a rename, never overwrites what has come there meanwhile.
        try:
            os.link(self._path, self.item.local)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(self.item.local):
                raise FileExistsError(17, "is there already; --force overwrites it") from None
            os.replace(self._path, self.item.local)

    def discard(self) -> None:
        """Remove what was not put in place, once a step that is under way in a thread has ended."""
        with self._lock:
            self._over = True
            if self._file is not None:
                self._file.close()
            if self._path:
                with suppress(OSError):
                    os.unlink(self._path)
