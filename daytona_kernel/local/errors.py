"""Errors of the control plane and how they look on the wire.

``ApiError`` is the only exception that handlers raise on purpose; the server's middleware turns it into the
body that Daytona's control plane sends: ``{"path", "timestamp", "statusCode", "error", "message"}``.
"""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from .clock import iso_now


class ApiError(Exception):
    """A refusal with an HTTP status and a sentence for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def not_found(what: str, name: str) -> ApiError:
    """404 for a sandbox, snapshot, volume, or secret that does not exist."""
    return ApiError(404, f"{what} with ID or name {name} not found")


def bad_request(message: str) -> ApiError:
    """400 for a request that can not be carried out as it stands."""
    return ApiError(400, message)


def conflict(message: str) -> ApiError:
    """409 for a request that collides with another one or with something that exists."""
    return ApiError(409, message)


def api_error_response(path: str, status: int, message: str) -> web.Response:
    """The body of a control plane error."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    body = {"path": path, "timestamp": iso_now(), "statusCode": status, "error": phrase, "message": message}
    return web.json_response(body, status=status)


def proxy_error_response(request: web.BaseRequest, status: int, message: str, code: str = "") -> web.Response:
    """The body of an error that the proxy answers itself (the toolbox's shape, without a source)."""
    body = {
        "statusCode": status,
        "message": message,
        "code": code or HTTPStatus(status).name,
        "timestamp": iso_now(),
        "path": request.path,
        "method": request.method,
    }
    return web.json_response(body, status=status)
