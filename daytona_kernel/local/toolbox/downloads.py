"""Giving file contents: download with ranges, and many files in one answer, in constant memory."""

from __future__ import annotations

import asyncio
import errno
import json
import mimetypes
import os
import re
import stat
from collections.abc import AsyncIterator
from urllib.parse import quote

from aiohttp import web

from .errors import ToolboxError, error_body, path_error
from .fields import body_fields, query_fields
from .paths import resolve

BLOCK_BYTES = 1024 * 1024
"""How much is read or written at once in a thread; two blocks are in memory per transfer."""
SMALL_BYTES = 64 * 1024
"""Up to here a switch to a thread costs more than the work."""
DOWNLOAD_BOUNDARY = "DAYTONA-FILE-BOUNDARY"


def open_regular(path: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading (a pipe would block, a device never end).

    :raises OSError: as the system says, EISDIR for a directory, EINVAL for what else is no file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(number, os.strerror(number), path)
    return fd, status


def content_disposition(kind: str, path: str) -> str:
    """Name a file in a header: a plain form for old clients and the exact name percent-encoded."""
    plain = re.sub(r"[\x00-\x1f\x7f]", "_", path).replace("\\", "\\\\").replace('"', '\\"')
    return f"{kind}; filename=\"{plain}\"; filename*=utf-8''{quote(path, safe='')}"


def part_disposition(name: str, path: str) -> str:
    """Name the form field and the file of one part."""
    return content_disposition(f'form-data; name="{name}"', path)


def wanted_range(request: web.Request, status: os.stat_result) -> tuple[int, int] | None:
    """Read the Range header: (start, end) in bytes, ``None`` for the whole file.

    Several ranges, other units and a stale If-Range get the whole file, which HTTP allows.

    :raises ToolboxError: 416 if the range lies outside the file.
    """
    size = status.st_size
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", "").replace(" ", ""))
    if not match or match.group() == "bytes=-":
        return None
    if (since := request.if_range) is not None and int(status.st_mtime) > since.timestamp():
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < start:
            return None
    else:
        start, end = max(size - int(last), 0), size
    if start >= size:
        raise ToolboxError(416, f"the file has only {size} bytes")
    return start, end


async def download(request: web.Request) -> web.StreamResponse:
    """Send one file, or the range of it that was asked for."""
    shown = query_fields(request).text("path")
    return await send_file(request, resolve(request.app, shown), shown)


async def send_file(
    request: web.Request, path: str, shown: str, kind: str = "application/octet-stream"
) -> web.StreamResponse:
    """Answer with the file at ``path`` or the wanted range of it; ``shown`` is its name in errors.

    :raises ToolboxError: if it cannot be read.
    """
    try:
        fd, status = open_regular(path)
    except (OSError, ValueError) as exc:
        raise path_error(exc, shown) from exc
    with os.fdopen(fd, "rb", buffering=0) as file:
        modified = int(status.st_mtime)
        headers = {
            "Content-Type": kind,
            "Content-Disposition": content_disposition("attachment", os.path.basename(path)),
            "Accept-Ranges": "bytes",
        }
        response = web.StreamResponse(headers=headers)
        response.last_modified = modified
        since = request.if_modified_since
        if since is not None and modified <= since.timestamp() and request.if_none_match is None:
            response.set_status(304)
            await response.prepare(request)
            return response
        try:
            part = wanted_range(request, status)
        except ToolboxError as exc:
            body = error_body(exc, path=request.path, method=request.method)
            unsatisfied = {"Content-Range": f"bytes */{status.st_size}"}
            return web.json_response(body, status=416, headers=unsatisfied)
        start, end = part or (0, status.st_size)
        if part:
            response.set_status(206)
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{status.st_size}"
        response.content_length = end - start
        await response.prepare(request)
        if request.method != "HEAD" and end > start:
            await _send(request, file.fileno(), response, start, end)
        return response


async def _send(request: web.Request, fd: int, response: web.StreamResponse, start: int, end: int) -> None:
    """Send bytes of an open file. If it has shrunk, the connection is cut: the length was promised."""
    sent = 0
    async for block in read_blocks(fd, start, end - start):
        await response.write(block)
        sent += len(block)
    if sent < end - start and request.transport is not None:
        request.transport.abort()


async def read_blocks(fd: int, start: int, count: int) -> AsyncIterator[bytes]:
    """Read ``count`` bytes from ``start``, the next block while the last one is being used.

    Ends early where the file does.

    :raises OSError: if reading fails.
    """
    if count <= SMALL_BYTES:
        if count and (data := os.pread(fd, count, start)):
            yield data
        return
    loop = asyncio.get_running_loop()

    def read(offset: int) -> asyncio.Future[bytes]:
        return loop.run_in_executor(None, os.pread, fd, min(BLOCK_BYTES, start + count - offset), offset)

    offset = start
    pending: asyncio.Future[bytes] | None = read(offset)
    try:
        while pending is not None:
            block = await asyncio.shield(pending)
            pending = None
            if not block:
                return
            offset += len(block)
            if offset < start + count:
                pending = read(offset)
            yield block
    finally:
        if pending is not None:  # the descriptor is about to be closed; nobody may read from its successor
            await asyncio.wait([pending])


async def bulk_download(request: web.Request) -> web.StreamResponse:
    """Send several files as parts; a file that cannot be read is a part that says why."""
    paths = (await body_fields(request)).texts("paths")
    if not paths:
        raise ToolboxError(400, "request body must be {paths: [string, ...]} and non-empty")
    response = web.StreamResponse(
        headers={"Content-Type": f"multipart/form-data; boundary={DOWNLOAD_BOUNDARY}"}
    )
    await response.prepare(request)
    out = Gather(response)
    for index, path in enumerate(paths):
        opening = f"{'' if index == 0 else chr(13) + chr(10)}--{DOWNLOAD_BOUNDARY}\r\n"
        if not await _send_part(request, out, opening, path):
            # Half a file has been sent. No closing boundary: clients take that for truncation.
            await out.flush()
            return response
    await out.write(f"\r\n--{DOWNLOAD_BOUNDARY}--\r\n".encode())
    await out.flush()
    return response


class Gather:
    """Joins small writes to a response, so that ten thousand small files are not as many packets."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._buffer = bytearray()

    async def write(self, data: bytes) -> None:
        """Write, now or a little later."""
        if len(data) < SMALL_BYTES:
            self._buffer += data
            if len(self._buffer) < 4 * SMALL_BYTES:
                return
            data = b""
        await self.flush()
        if data:
            await self._response.write(data)

    async def flush(self) -> None:
        """Write what has gathered."""
        if self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            await self._response.write(data)


async def _send_part(request: web.Request, out: Gather, opening: str, path: str) -> bool:
    """Send one file or the reason why not; ``False`` if it broke off in the middle."""
    try:
        fd, status = open_regular(resolve(request.app, path))
    except ToolboxError as exc:
        await out.write(_error_part(request, opening, path, exc))
        return True
    except (OSError, ValueError) as exc:
        await out.write(_error_part(request, opening, path, path_error(exc, path)))
        return True
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    try:
        header = (
            f"{opening}Content-Disposition: {part_disposition('file', path)}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {status.st_size}\r\n\r\n"
        )
        await out.write(header.encode("utf-8", "replace"))
        sent = 0
        try:
            async for block in read_blocks(fd, 0, status.st_size):
                await out.write(block)
                sent += len(block)
        except OSError:
            return False
        return sent == status.st_size
    finally:
        os.close(fd)


def _error_part(request: web.Request, opening: str, path: str, error: ToolboxError) -> bytes:
    header = (
        f"{opening}Content-Disposition: {part_disposition('error', path)}\r\n"
        f"Content-Type: application/json; charset=utf-8\r\n\r\n"
    )
    body = json.dumps(error_body(error, path=path, method=request.method))
    return header.encode("utf-8", "replace") + body.encode()


def setup(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/files/download", download)
    app.router.add_post("/files/bulk-download", bulk_download)
