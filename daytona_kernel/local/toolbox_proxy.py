"""``/toolbox/{sandboxId}/...``: the way to the daemons, with the key or with a signed file URL."""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from hashlib import sha256

from aiohttp import web

from .errors import proxy_error_response
from .proxy import forward, request_headers
from .records import SandboxRecord
from .state import STATE

SIGNED_PATHS = {"/files/download": ("GET", "HEAD"), "/files/upload-v2": ("POST",)}
DROPPED = frozenset({"authorization", "x-daytona-preview-token", "host", "cookie"})


def file_signature(key: str, method: str, path: str, expires: str) -> str:
    """The signature of a file URL, as the SDK makes it."""
    text = f"v1:files:{method}:{path}:{expires}"
    digest = hmac.new(key.encode(), text.encode(), sha256).digest()
    return "v1_" + urlsafe_b64encode(digest).decode().rstrip("=")


def signature_problem(record: SandboxRecord, method: str, query: dict[str, str]) -> str:
    """Why a signed request is refused; empty if it is fine. `query` has path, expires, and signature."""
    expires = query.get("expires", "")
    wanted = "GET" if method == "HEAD" else method
    good = file_signature(record.signing_key, wanted, query.get("path", ""), expires)
    if not hmac.compare_digest(good.encode(), query.get("signature", "").encode()):
        return "invalid signature"
    if not expires.isdigit():
        return "invalid expiry"
    if expires != "0" and int(expires) < time.time():
        return "the signed URL has expired"
    return ""


async def handle(request: web.Request) -> web.StreamResponse:
    """Check the caller, take his credentials out, forward the rest."""
    state = request.app[STATE]
    raw = request.rel_url.raw_path[len("/toolbox/") :]
    sandbox_id, slash, rest = raw.partition("/")
    path = slash + rest or "/"
    sandbox = state.manager.get(sandbox_id)
    target = path
    if request.rel_url.raw_query_string:
        target = f"{path}?{request.rel_url.raw_query_string}"
    if not state.authorized(request):
        query = dict(request.query)
        if request.method not in SIGNED_PATHS.get(path, ()) or "signature" not in query:
            return proxy_error_response(request, 401, "unauthorized: authentication failed")
        if sandbox is None:
            return proxy_error_response(request, 401, "unauthorized: invalid signature")
        problem = signature_problem(sandbox.record, request.method, query)
        if problem:
            return proxy_error_response(request, 401, f"unauthorized: {problem}")
    if sandbox is None or sandbox.record.state == "destroyed":
        return proxy_error_response(request, 404, f"sandbox {sandbox_id[:64]} not found")
    state.note_request()
    headers = request_headers(request, DROPPED)
    headers["Host"] = "localhost"
    return await forward(state.manager, sandbox, request, target, headers)


def routes() -> list[web.RouteDef]:
    """All routes of this module."""
    return [
        web.route("*", "/toolbox/{sandbox}", handle),
        web.route("*", "/toolbox/{sandbox}/{tail:.*}", handle),
    ]
