"""Previews: web servers inside a sandbox, seen from the user's browser.

``http://{port}-{sandbox or signed token}.localhost:{server port}/...`` and, for clients that do not resolve
``*.localhost``, the path form ``/preview/{port}-{sandbox or signed token}/...``. Who may look is decided
here; the sandbox's daemon passes the request to the port.
"""

from __future__ import annotations

import hmac
import html
import logging
import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from aiohttp import web
from multidict import CIMultiDict

from .booting import Sandbox
from .errors import ApiError, bad_request, proxy_error_response
from .preview_tokens import DEFAULT_SECONDS
from .proxy import forward, is_upgrade, request_headers
from .state import STATE, ServerState

log = logging.getLogger(__name__)

RESERVED_PORTS = (22222, 2280, 33333)
"""Terminal, toolbox, recordings: never open without authentication, not even for public sandboxes."""
TOKEN_HEADER = "X-Daytona-Preview-Token"  # noqa: S105 - a header's name
TOKEN_QUERY = "DAYTONA_SANDBOX_AUTH_KEY"  # noqa: S105 - a parameter's name
SKIP_WARNING = "X-Daytona-Skip-Preview-Warning"
ACCEPTED_COOKIE = "daytona-preview-page-accepted"
COOKIE_SECONDS = 3600
OUR_COOKIES = "daytona-"
JUPYTER_COOKIES = ("_xsrf", "username-", "jupyter", "_jupyter")
"""Beginnings of the names of cookies by which Jupyter's servers know a person."""
LABEL = re.compile(r"(\d{1,5})-([A-Za-z0-9][A-Za-z0-9-]*)\Z")


@dataclass(frozen=True)
class PreviewTarget:
    """What a host name or path asks for."""

    port: int
    name: str
    """Id of a sandbox or a signed token."""
    prefix: str
    """Path that stands before the previewed server's own path; empty for the host form."""


def parse_label(label: str, prefix: str = "") -> PreviewTarget | None:
    """``8000-6b0c…`` split at its first dash; ``None`` for anything else."""
    match = LABEL.match(label)
    if match is None or not 1 <= int(match.group(1)) <= 65535:
        return None
    return PreviewTarget(int(match.group(1)), match.group(2), prefix)


def target_of_host(host: str, base_host: str) -> PreviewTarget | None:
    """The preview that a Host header names: one label before ``localhost`` or before the advertised host."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    label, _, rest = name.lower().partition(".")
    return parse_label(label) if rest in ("localhost", base_host) and rest else None


def preview_url(state: ServerState, port: int, name: str) -> str:
    """The address of a preview, below the advertised host if there is one."""
    if not state.options.advertise:
        return f"http://{port}-{name}.localhost:{state.port}"
    parts = urlsplit(state.options.advertise)
    host = parts.hostname or "localhost"
    if re.match(r"[\d.]+\Z", host) or ":" in host:
        host = "localhost"  # an address takes no name before it
    place = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{port}-{name}.{host}{place}"


class PreviewProxy:
    """Decides who may see a preview and forwards."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._cookie_key = secrets.token_bytes(32)

    async def handle(self, request: web.Request, target: PreviewTarget) -> web.StreamResponse:
        """Answer a request to a preview."""
        path = request.rel_url.raw_path[len(target.prefix) :] or "/"
        if path == "/accept-daytona-preview-warning" and request.method == "POST":
            return accept_warning(request)
        signed = self._state.previews.find(target.name)
        if signed is not None and signed.port == target.port:
            sandbox = self._state.manager.get(signed.sandbox_id)
        else:
            signed, sandbox = None, self._state.manager.get(target.name)
        if sandbox is None:
            return self._refuse(request, 404, "There is no such sandbox, or the link has expired.")
        headers = request_headers(request, frozenset({"host"}))
        query = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
        allowed, set_cookie = self._authorize(request, target, sandbox, signed is not None, headers)
        if not allowed:
            return self._refuse(
                request, 401, "This preview needs a token. Use the link with a token or sign in."
            )
        if self._warn(request, target):
            return warning_page(request, target)
        had_token = any(name == TOKEN_QUERY for name, _ in query)
        raw_query = request.rel_url.raw_query_string
        if had_token:
            raw_query = urlencode([(name, value) for name, value in query if name != TOKEN_QUERY])
        return await self._forward(
            request, target, sandbox, path=path, raw_query=raw_query, headers=headers, set_cookie=set_cookie
        )

    async def _forward(
        self,
        request: web.Request,
        target: PreviewTarget,
        sandbox: Sandbox,
        *,
        path: str,
        raw_query: str,
        headers: CIMultiDict[str],
        set_cookie: bool,
    ) -> web.StreamResponse:
        if sandbox.record.state != "started":
            words = f"The sandbox is {sandbox.record.state}. Start it, then reload this page."
            return self._refuse(request, 502, words)
        headers.popall("Host", None)
        headers["Host"] = f"localhost:{target.port}"
        headers["X-Forwarded-Host"] = request.host
        headers.setdefault("X-Forwarded-Proto", request.scheme)
        where = f"/proxy/{target.port}{path}" + (f"?{raw_query}" if raw_query else "")
        extra = self._extra_headers(request, target, set_cookie)
        return await forward(self._state.manager, sandbox, request, where, headers, extra=extra)

    def _extra_headers(
        self, request: web.Request, target: PreviewTarget, set_cookie: bool
    ) -> CIMultiDict[str]:
        extra: CIMultiDict[str] = CIMultiDict()
        origin = request.headers.get("Origin")
        if origin and request.headers.get("X-Daytona-Disable-CORS", "").lower() != "true":
            extra["Access-Control-Allow-Origin"] = origin
            extra["Access-Control-Allow-Credentials"] = "true"
            extra["Vary"] = "Origin"
        if set_cookie:
            name, value = f"daytona-sandbox-auth-{target.name}", self._cookie_value(target.name, target.port)
            path = target.prefix or "/"
            how = f"Max-Age={COOKIE_SECONDS}; Path={path}; HttpOnly; SameSite=Lax"
            extra.add("Set-Cookie", f"{name}={value}; {how}")
        return extra

    def _authorize(
        self,
        request: web.Request,
        target: PreviewTarget,
        sandbox: Sandbox,
        signed: bool,
        headers: CIMultiDict[str],
    ) -> tuple[bool, bool]:
        """Whether the request may pass, and whether it gets a cookie; takes credentials out of `headers`."""
        bearer = request.headers.get("Authorization", "")
        key = self._state.api_key
        cookie = request.cookies.get(f"daytona-sandbox-auth-{target.name}", "")
        strip_cookies(headers, shared_host=bool(target.prefix))
        token = headers.pop(TOKEN_HEADER, "")
        if hmac.compare_digest(bearer.encode(), f"Bearer {key}".encode()):
            headers.popall("Authorization", None)
            return True, False
        if token and self._token_fits(token, target, sandbox):
            return True, False
        token = request.query.get(TOKEN_QUERY, "")
        if token and self._token_fits(token, target, sandbox):
            return True, True
        if cookie and hmac.compare_digest(
            cookie.encode(), self._cookie_value(target.name, target.port).encode()
        ):
            return True, False
        if signed:
            return True, True
        return sandbox.record.public and target.port not in RESERVED_PORTS, False

    def _token_fits(self, token: str, target: PreviewTarget, sandbox: Sandbox) -> bool:
        if hmac.compare_digest(token.encode(), sandbox.record.auth_token.encode()):
            return True
        signed = self._state.previews.find(token)
        return signed is not None and signed.sandbox_id == sandbox.record.id and signed.port == target.port

    def _cookie_value(self, name: str, port: int) -> str:
        return hmac.new(self._cookie_key, f"{name}:{port}".encode(), sha256).hexdigest()

    def _warn(self, request: web.Request, target: PreviewTarget) -> bool:
        if not self._state.options.preview_warning or target.port in RESERVED_PORTS or is_upgrade(request):
            return False
        if request.headers.get(SKIP_WARNING, "").lower() == "true":
            return False
        if request.cookies.get(ACCEPTED_COOKIE) == "true":
            return False
        return "mozilla" in request.headers.get("User-Agent", "").lower()

    def _refuse(self, request: web.Request, status: int, words: str) -> web.Response:
        if "text/html" not in request.headers.get("Accept", ""):
            return proxy_error_response(request, status, words)
        return error_page(status, words)


def strip_cookies(headers: CIMultiDict[str], *, shared_host: bool) -> None:
    """Leave no cookies in `headers` but those that may be the previewed server's.

    `shared_host`: whether it has no host name of its own. Browsers send a host's cookies to all of its ports:
    here come those of the Jupyter at 127.0.0.1, too.
    """
    others = (OUR_COOKIES, *(JUPYTER_COOKIES if shared_host else ()))
    cookies = [part.strip() for part in ";".join(headers.popall("Cookie", [])).split(";")]
    kept = [part for part in cookies if part and not part.lower().startswith(others)]
    if kept:
        headers["Cookie"] = "; ".join(kept)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body{{font-family:system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;color:#222}}
button{{font-size:1rem;padding:.5rem 1rem}}
</style></head>
<body><h1>{title}</h1><p>{text}</p>{more}</body></html>
"""


def error_page(status: int, words: str) -> web.Response:
    """A page that says what is wrong and what to do."""
    titles = {401: "Not signed in", 404: "Not found", 502: "Nothing to show yet", 504: "No answer"}
    text = PAGE.format(title=titles.get(status, "Error"), text=html.escape(words), more="")
    return web.Response(status=status, text=text, content_type="text/html")


def warning_page(request: web.Request, target: PreviewTarget) -> web.Response:
    """Asks before a browser shows what a sandbox serves."""
    here = quote(str(request.rel_url.path_qs), safe="")
    action = f"{html.escape(target.prefix)}/accept-daytona-preview-warning?redirect={here}"
    more = f'<form method="post" action="{action}"><button>Show the page</button></form>'
    words = (
        f"You are about to see port {target.port} of a sandbox. What it shows was made by code in the "
        "sandbox; do not enter passwords that you use elsewhere."
    )
    text = PAGE.format(title="Preview of a sandbox", text=words, more=more)
    return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})


def accept_warning(request: web.Request) -> web.Response:
    """``POST /accept-daytona-preview-warning?redirect=``: remembers the answer for a day."""
    wanted = request.query.get("redirect", "/")
    parts = urlsplit(wanted)
    local = not parts.scheme and not parts.netloc and wanted.startswith("/") and "\\" not in wanted
    local = local and wanted.isprintable()
    response = web.Response(status=302, headers={"Location": wanted if local else "/"})
    response.set_cookie(ACCEPTED_COOKIE, "true", max_age=86400, httponly=True, samesite="Lax")
    return response


def checked_port(request: web.Request) -> int:
    """The port of the path. ``ApiError`` 400: no TCP port."""
    text = request.match_info["port"]
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise bad_request("Port must be a number between 1 and 65535")
    return int(text)


def _found(request: web.Request) -> tuple[ServerState, Sandbox, int]:
    state = request.app[STATE]
    return state, state.manager.find(request.match_info["sandbox"]), checked_port(request)


async def preview_link(request: web.Request) -> web.Response:
    """``GET …/ports/{port}/preview-url``."""
    state, sandbox, port = _found(request)
    url = preview_url(state, port, sandbox.record.id)
    return web.json_response({"sandboxId": sandbox.record.id, "url": url, "token": sandbox.record.auth_token})


async def signed_link(request: web.Request) -> web.Response:
    """``GET …/ports/{port}/signed-preview-url``."""
    state, sandbox, port = _found(request)
    text = request.query.get("expiresInSeconds") or DEFAULT_SECONDS
    try:
        seconds = int(float(text))
    except (ValueError, OverflowError):
        raise bad_request("expiresInSeconds must be a number") from None
    signed = state.previews.create(sandbox.record.id, port, seconds)
    url = preview_url(state, port, signed.token)
    return web.json_response(
        {"sandboxId": sandbox.record.id, "port": port, "token": signed.token, "url": url}
    )


async def expire_link(request: web.Request) -> web.Response:
    """``POST …/ports/{port}/signed-preview-url/{token}/expire``."""
    state, sandbox, port = _found(request)
    state.previews.expire(sandbox.record.id, port, request.match_info["token"])
    return web.Response(status=200)


async def path_form(request: web.Request) -> web.StreamResponse:
    """``ANY /preview/{port}-{name}/…``."""
    label = request.match_info["label"]
    target = parse_label(label, f"/preview/{label}")
    if target is None:
        raise ApiError(404, "no such preview; the form is /preview/PORT-SANDBOX/")
    return await request.app[PREVIEWS].handle(request, target)


PREVIEWS = web.AppKey("previews", PreviewProxy)


def routes() -> list[web.RouteDef]:
    """All routes of this module."""
    one = "/api/sandbox/{sandbox}/ports/{port}"
    return [
        web.get(f"{one}/preview-url", preview_link),
        web.get(f"{one}/signed-preview-url", signed_link),
        web.post(f"{one}/signed-preview-url/{{token}}/expire", expire_link),
        web.route("*", "/preview/{label}", path_form),
        web.route("*", "/preview/{label}/{tail:.*}", path_form),
    ]
