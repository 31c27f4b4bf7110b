"""Moving file contents: download with ranges, upload, and many files in one request, in constant memory."""

from __future__ import annotations

import asyncio
import errno
import json
import mimetypes
import os
import re
import stat
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from aiohttp import web

from .errors import ToolboxError, error_body, path_error
from .fields import body_fields, query_fields
from .multipart import MultipartError, MultipartParser, PartBegin, PartData, boundary_of
from .paths import printable, resolve

BLOCK_BYTES = 1024 * 1024
"""How much is read or written at once in a thread; two blocks are in memory per transfer."""
SMALL_BYTES = 64 * 1024
"""Up to here a switch to a thread costs more than the work."""
DOWNLOAD_BOUNDARY = "DAYTONA-FILE-BOUNDARY"
_BULK_FIELD = re.compile(r"files\[(\d+)\]\.(path|file)\Z")
MAX_PATH_FIELD_BYTES = 64 * 1024


# --- reading ----------------------------------------------------------------------------------------------


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


# --- writing ----------------------------------------------------------------------------------------------


class FileSink:
    """Writes chunks to a file: gathered into blocks, written in a thread while the next ones come."""

    def __init__(self, path: str) -> None:
        """Create or truncate the file at ``path`` (links are followed) and make its parent directories.

        :raises OSError: if that fails.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not block
        try:
            self._fd = os.open(path, flags, 0o644)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            self._fd = os.open(path, flags, 0o644)
        self._chunks: list[bytes] = []
        self._gathered = 0
        self._job: asyncio.Future[None] | None = None
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """Take a chunk; waits while two blocks are on their way. :raises OSError: if the disk is full."""
        self._chunks.append(chunk)
        self._gathered += len(chunk)
        self.size += len(chunk)
        if self._gathered >= BLOCK_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        if self._job is not None:
            job, self._job = self._job, None
            await job
        chunks, self._chunks, self._gathered = self._chunks, [], 0
        if chunks:
            loop = asyncio.get_running_loop()
            self._job = loop.run_in_executor(None, self._write_all, chunks)

    def _write_all(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._fd, view) :]

    async def close(self) -> None:
        """Write what is left and close. :raises OSError: if writing fails."""
        try:
            if self._job is None and self._gathered <= SMALL_BYTES:
                self._write_all(self._chunks)
            else:
                await self._flush()
                await self._flush()
        finally:
            os.close(self._fd)

    async def abandon(self) -> None:
        """Close without the rest; the file keeps what has been written."""
        if self._job is not None:
            await asyncio.wait([self._job])
            self._job.exception()
        os.close(self._fd)


class BulkUpload:
    """Takes the parts of a bulk upload in the order they come. A failing file does not stop the others."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._paths: dict[str, str] = {}
        self._part: PartBegin | None = None
        self._index = ""
        self._text = bytearray()
        self._sink: FileSink | None = None
        self.files: list[dict[str, Any]] = []
        self.errors: list[str] = []

    async def begin(self, part: PartBegin) -> None:
        """Start a part."""
        self._part = part
        self._text.clear()
        match = _BULK_FIELD.match(part.name)
        if not match:
            self._fail(f"unexpected field: {part.name}")
            return
        self._index = match.group(1)
        if match.group(2) == "path":
            return
        path = self._paths.get(self._index)
        if path is None:
            self._fail(f"file {self._index}: missing .path metadata")
            return
        try:
            self._sink = FileSink(resolve(self._app, path))
        except ToolboxError as exc:
            self._fail(f"{path}: {exc.message}")
        except (OSError, ValueError) as exc:
            self._fail(path_error(exc, path).message)

    async def data(self, chunk: bytes) -> None:
        """Take content of the current part."""
        if self._sink is not None:
            try:
                await self._sink.write(chunk)
            except OSError as exc:
                await self._sink.abandon()
                self._sink = None
                self._fail(path_error(exc, self._paths[self._index]).message)
        elif self._part is not None and self._part.name.endswith(".path"):
            self._text += chunk
            if len(self._text) > MAX_PATH_FIELD_BYTES:
                self._fail(f"file {self._index}: the path is too long")

    async def end(self) -> None:
        """Finish the current part."""
        sink, self._sink = self._sink, None
        if sink is not None:
            path = self._paths[self._index]
            try:
                await sink.close()
            except OSError as exc:
                self._fail(path_error(exc, path).message)
            else:
                self.files.append({"path": path, "bytes": sink.size})
        elif self._part is not None and self._part.name.endswith(".path"):
            self._paths[self._index] = self._text.decode("utf-8", "replace").strip()
        self._part = None

    async def abandon(self) -> None:
        """Give up in the middle of a part."""
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.abandon()

    def _fail(self, message: str) -> None:
        self.errors.append(printable(message))
        self._part = None  # the rest of this part is read and dropped


async def feed_parts(request: web.Request, boundary: bytes, target: BulkUpload | SingleUpload) -> None:
    """Read a multipart body into ``target``.

    :raises MultipartError: if the body is malformed or ends early.
    """
    parser = MultipartParser(boundary)
    try:
        async for chunk in request.content.iter_any():
            for event in parser.feed(chunk):
                if isinstance(event, PartData):
                    await target.data(event.data)
                elif isinstance(event, PartBegin):
                    await target.begin(event)
                else:
                    await target.end()
        if not parser.complete:
            raise MultipartError("the body ends before its closing boundary")
    except BaseException:
        await target.abandon()
        raise


async def bulk_upload(request: web.Request) -> web.Response:
    """Write the files of a multipart body; 400 with every problem if there was one, after reading it all."""
    boundary = boundary_of(request.headers.get("Content-Type", ""))
    if boundary is None:
        raise ToolboxError(400, "a multipart/form-data body is required")
    upload = BulkUpload(request.app)
    try:
        await feed_parts(request, boundary, upload)
    except MultipartError as exc:
        upload.errors.append(str(exc))
        await _drain(request)
    if not upload.errors:
        return web.json_response({"files": upload.files})
    error = ToolboxError(400, "; ".join(upload.errors))
    body = error_body(error, path=request.path, method=request.method)
    return web.json_response({**body, "errors": upload.errors, "files": upload.files}, status=400)


async def _drain(request: web.Request) -> None:
    async for _ in request.content.iter_any():
        pass


class SingleUpload:
    """Takes the part ``file`` of a multipart upload; other parts are ignored."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sink: FileSink | None = None
        self.received = False

    async def begin(self, part: PartBegin) -> None:
        """Start a part."""
        if part.name == "file" and not self.received:
            self._sink = FileSink(self._path)

    async def data(self, chunk: bytes) -> None:
        """Take content of the current part."""
        if self._sink is not None:
            await self._sink.write(chunk)

    async def end(self) -> None:
        """Finish the current part."""
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.close()
            self.received = True

    async def abandon(self) -> None:
        """Give up in the middle of a part."""
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.abandon()


async def upload(request: web.Request) -> web.Response:
    """Write one file from a multipart body's part ``file`` or from the raw body."""
    shown = query_fields(request).text("path")
    path = resolve(request.app, shown)
    target = SingleUpload(path)
    boundary = boundary_of(request.headers.get("Content-Type", ""))
    try:
        if boundary is not None:
            await feed_parts(request, boundary, target)
        else:
            await _feed_raw(request, target)
    except MultipartError as exc:
        await _drain(request)
        raise ToolboxError(400, str(exc)) from exc
    except (OSError, ValueError) as exc:
        if isinstance(exc, ConnectionError):
            raise
        await _drain(request)
        error = path_error(exc, shown)
        raise ToolboxError(400, error.message, error.code) from exc
    if not target.received:
        raise ToolboxError(400, "the body has no part named file")
    kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
    return web.json_response({"name": os.path.basename(path), "path": path, "type": kind})


async def _feed_raw(request: web.Request, target: SingleUpload) -> None:
    await target.begin(PartBegin("file", None))
    try:
        async for chunk in request.content.iter_any():
            await target.data(chunk)
        await target.end()
    except BaseException:
        await target.abandon()
        raise


def setup(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/files/download", download)
    app.router.add_post("/files/upload", upload)
    app.router.add_post("/files/upload-v2", upload)
    app.router.add_post("/files/bulk-upload", bulk_upload)
    app.router.add_post("/files/bulk-download", bulk_download)
