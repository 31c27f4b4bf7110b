"""Taking file contents: one file, and many in one request, in constant memory."""

from __future__ import annotations

import asyncio
import mimetypes
import os
import re
from typing import Any

from aiohttp import web

from .downloads import BLOCK_BYTES, SMALL_BYTES
from .errors import ToolboxError, error_body, path_error
from .fields import query_fields
from .multipart import MultipartError, MultipartParser, PartBegin, PartData, boundary_of
from .paths import printable, resolve

_BULK_FIELD = re.compile(r"files\[(\d+)\]\.(path|file)\Z")
MAX_PATH_FIELD_BYTES = 64 * 1024


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
    app.router.add_post("/files/upload", upload)
    app.router.add_post("/files/upload-v2", upload)
    app.router.add_post("/files/bulk-upload", bulk_upload)
