"""Errors of the toolbox API, and the one place where they become JSON answers.

::

    ToolboxError            a request that cannot be served; carries status, code and message

Everything else that escapes a handler is a defect of ours: it is logged with its traceback and answered 500.
Bodies have the shape of newer daemons (``source: DAYTONA_DAEMON``), from which SDK 0.226 builds typed errors;
v0.190.0 left some of them empty, which helps nobody.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

from aiohttp import web

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SOURCE = "DAYTONA_DAEMON"

_CODE_OF_STATUS = {
    400: "BAD_REQUEST",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    408: "REQUEST_TIMEOUT",
    409: "CONFLICT",
    410: "GONE",
    422: "UNPROCESSABLE_ENTITY",
}


class ToolboxError(Exception):
    """A request that cannot be served. ``code`` defaults to the general one of ``status``."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        general = "BAD_REQUEST" if status < 500 else "INTERNAL_SERVER_ERROR"
        self.code = code or _CODE_OF_STATUS.get(status, general)


def timestamp() -> str:
    """Give the present moment as RFC 3339 text in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def error_body(error: ToolboxError, *, path: str, method: str) -> dict[str, Any]:
    """Build the JSON object that describes ``error``."""
    return {
        "statusCode": error.status,
        "message": error.message,
        "code": error.code,
        "source": SOURCE,
        "timestamp": timestamp(),
        "path": path,
        "method": method,
    }


def path_error(exc: OSError | ValueError, path: str) -> ToolboxError:
    """Translate what the operating system said about ``path``. Pure."""
    if isinstance(exc, FileNotFoundError):
        return ToolboxError(404, f"file not found: {path}", "FILE_NOT_FOUND")
    if isinstance(exc, PermissionError):
        return ToolboxError(403, f"access denied: {path}", "FILE_ACCESS_DENIED")
    if isinstance(exc, FileExistsError):
        return ToolboxError(409, f"file exists: {path}")
    if isinstance(exc, ValueError):  # NUL or lone surrogate in the name
        return ToolboxError(400, f"invalid file path: {path!r}", "INVALID_FILE_PATH")
    if exc.errno == errno.EIO:
        return ToolboxError(500, f"cannot read {path}: {exc.strerror}", "FILE_READ_FAILED")
    return ToolboxError(400, f"{exc.strerror or exc}: {path}", "INVALID_FILE_PATH")


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every failure of a handler into an answer of the API's shape."""
    try:
        return await handler(request)
    except ToolboxError as exc:
        error = exc
    except web.HTTPException as exc:
        if exc.status < 400:
            raise
        error = ToolboxError(exc.status, f"{exc.reason}: {request.method} {request.path}")
    except ConnectionError:
        raise  # the client left; nobody is there to be answered
    except Exception:
        log.exception("%s %s failed", request.method, request.match_info.route.resource)
        error = ToolboxError(500, "internal error of the toolbox daemon; its log has the traceback")
    return web.json_response(error_body(error, path=request.path, method=request.method), status=error.status)
