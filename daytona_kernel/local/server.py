"""The local sandbox server: one aiohttp application on loopback that speaks Daytona's API.

Control plane under ``/api``, daemons under ``/toolbox/{sandboxId}``, previews by host name or under
``/preview``, ``/health`` for anybody. Everything else needs the bearer key. The Host header is checked, so
that no web page can reach the server through a name of its own (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from . import control, preview, resources, toolbox_proxy, warm_pools
from .access import SshAccessStore
from .builds import BuildRunner
from .clock import Clock, iso_now
from .errors import ApiError, api_error_response, proxy_error_response
from .events import EventHub
from .housekeeping import Housekeeper, process_start
from .isolation import choose_isolation
from .keyring import leave_session_keyring
from .options import ServerOptions
from .paths import STATE_VERSION
from .preview import PREVIEWS, PreviewProxy, target_of_host
from .preview_tokens import SignedPreviews
from .proxy import Relayed
from .rates import FAILED_AUTH, RateLimiter, Verdict, kinds_of
from .records import DAEMON_VERSION
from .sandboxes import SandboxManager
from .secrets_store import SecretStore
from .snapshots import SnapshotStore
from .state import STATE, ServerState
from .status import server_status
from .volumes import VolumeStore

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN_PREFIXES = ("/toolbox/", "/preview/", "/api/socket.io/")
"""Paths whose handlers check the caller themselves."""
MAX_BODY = 16 * 1024 * 1024
SHUTDOWN_SECONDS = 2.0
FIRST_REQUEST_SECONDS = 20.0
"""A new connection has once to twice this time for its first request's head."""


class StartError(Exception):
    """The server can not run here; the text says why."""


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Host check, previews by host name, the key, rates, and errors in the API's shape."""
    state = request.app[STATE]
    verdict = Verdict()
    try:
        target = target_of_host(request.host, state.advertised_host())
        if target is not None:
            response = await request.app[PREVIEWS].handle(request, target)
        else:
            refusal, verdict = admit(request, state)
            response = await handler(request) if refusal is None else refusal
    except ApiError as exc:
        response = api_error_response(request.path, exc.status, exc.message)
    except web.HTTPException as exc:
        if request.path.startswith("/toolbox/"):
            return proxy_error_response(request, exc.status, exc.reason)
        response = api_error_response(request.path, exc.status, f"Cannot {request.method} {request.path}")
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return api_error_response(
            request.path, 500, "internal error of the local sandbox server; see its log"
        )
    if response.prepared or isinstance(response, Relayed):
        return response
    if response.status == 401:
        response = count_failure(request, state, response)
    if request.path.startswith("/api/"):
        response.headers["X-Daytona-Api-Version"] = DAEMON_VERSION
        response.headers.update(verdict.headers)
    return response


def admit(request: web.Request, state: ServerState) -> tuple[web.Response | None, Verdict]:
    """The refusal of a request that is no preview's, if it is refused, and what was counted for it."""
    path = request.path
    if not host_allowed(request.host, state.advertised_host()):
        words = f"the local sandbox server is not {request.host[:100]}"
        return api_error_response(path, 403, words), Verdict()
    if path.startswith("/api/socket.io/") and not origin_allowed(request):
        words = "web pages can not listen to the local sandbox server"
        return api_error_response(path, 403, words), Verdict()
    if path == "/health" or path.startswith(OPEN_PREFIXES):
        return None, Verdict()
    if not state.authorized(request):
        return api_error_response(path, 401, "Invalid credentials"), Verdict()
    state.note_request()
    verdict = state.rates.take(*kinds_of(request.method, path))
    if verdict.retry_after_s:
        return api_error_response(path, 429, "Rate limit exceeded"), verdict
    return None, verdict


def count_failure(
    request: web.Request, state: ServerState, response: web.StreamResponse
) -> web.StreamResponse:
    """The answer to a request without the key: ``response``, or 429 and a closed connection after too many.

    Only what has failed is counted, and only its answer changes, so that nobody can lock out who has the key.
    """
    verdict = state.rates.take(FAILED_AUTH)
    if not verdict.retry_after_s:
        return response
    words = "Too many requests without valid credentials"
    if request.path.startswith("/api/"):
        refusal = api_error_response(request.path, 429, words)
    else:
        refusal = proxy_error_response(request, 429, words)
    refusal.headers.update(verdict.headers)
    refusal.force_close()
    return refusal


def host_allowed(host: str, advertised: str) -> bool:
    """Whether a Host header is one that this server answers to."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name.lower() in ("localhost", "127.0.0.1", "[::1]") or bool(
        advertised and name.lower() == advertised
    )


def origin_allowed(request: web.Request) -> bool:
    """Whether a request comes from no web page, or from one of this very server."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host


async def health(request: web.Request) -> web.Response:
    """``GET /health``."""
    return web.json_response({"status": "ok", "version": DAEMON_VERSION})


class LocalServer:
    """One server process: opens, serves until told to stop, closes."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.stop_reason = ""
        self._stop = asyncio.Event()
        self._state: ServerState | None = None
        self._runner: web.AppRunner | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._patience: asyncio.Task[None] | None = None
        self._held: int | None = None

    @property
    def state(self) -> ServerState:
        """The parts of the running server."""
        assert self._state is not None
        return self._state

    def request_stop(self, reason: str) -> None:
        """Make :meth:`wait` return."""
        self.stop_reason = self.stop_reason or reason
        self._stop.set()

    async def wait(self) -> None:
        """Until somebody asks the server to stop."""
        await self._stop.wait()

    async def open(self) -> None:
        """Take the lock, load the state, listen, and write the runtime file.

        ``StartError``: another server runs, the state is of a newer version, the port is taken, or the
        default interpreter does not work.
        """
        paths = self.options.paths
        paths.create()
        leave_session_keyring()
        self._hold(paths.held_file)
        check_state_version(paths.state_dir)
        try:
            self._state = await self._build()
            app = self._application(self._state)
            self._runner = web.AppRunner(
                app,
                access_log=None,
                shutdown_timeout=SHUTDOWN_SECONDS,
                max_line_size=512 * 1024,
                max_field_size=512 * 1024,
                read_bufsize=256 * 1024,
            )
            await self._runner.setup()
            sock = self._bind()
            self._state.port = sock.getsockname()[1]
            await self._state.manager.open()
            self._state.warm_pools.load()
            await web.SockSite(self._runner, sock).start()
            self._patience = asyncio.create_task(self._end_silent_connections())
        except BaseException:
            await self.close()
            raise
        self._housekeeping = asyncio.create_task(Housekeeper(self._state, self.request_stop).run())
        self._write_runtime_file()
        log.info("listening on %s, isolation %s", self._state.base_url(), self._state.manager.isolation.name)

    def _hold(self, path: Path) -> None:
        """Take the lock by a bare descriptor: no object's end may let go of it before the process is gone."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StartError("another local sandbox server of this user is running") from None
        owner = {"pid": os.getpid(), "start_time": process_start(os.getpid()) or ""}
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())
        self._held = descriptor

    async def _build(self) -> ServerState:
        options, state_dir = self.options, self.options.paths.state_dir
        clock = Clock(options.time_scale)
        api_key = "dtn_local_" + secrets.token_hex(24)
        events = EventHub(api_key)
        snapshots = SnapshotStore(state_dir / "snapshots", clock.now(), options.bare)
        snapshots.load()
        volumes = VolumeStore(state_dir / "volumes", lambda: manager.used_volumes())  # noqa: PLW0108 - it comes later
        volumes.load()
        store = SecretStore()
        try:
            isolation = await choose_isolation(options.isolation, options.network)
        except (ValueError, RuntimeError) as exc:
            raise StartError(str(exc)) from exc
        if isolation.reason:
            log.warning("sandboxes are NOT ISOLATED: %s", isolation.reason)
        manager = SandboxManager(
            options=options,
            isolation=isolation,
            clock=clock,
            events=events,
            snapshots=snapshots,
            volumes=volumes,
            secrets=store,
            toolbox_url=lambda: self.state.toolbox_url(),  # noqa: PLW0108 - the state comes later
        )
        return ServerState(
            options=options,
            api_key=api_key,
            instance=secrets.token_hex(8),
            manager=manager,
            snapshots=snapshots,
            volumes=volumes,
            secrets=store,
            events=events,
            builds=BuildRunner(manager, volumes, snapshots),
            ssh=SshAccessStore(clock),
            previews=SignedPreviews(clock),
            rates=RateLimiter(options.rates),
            warm_pools=warm_pools.WarmPoolStore(
                state_dir / "warm-pools.json", snapshots, manager.pool, options.bare
            ),
        )

    def _application(self, state: ServerState) -> web.Application:
        app = web.Application(middlewares=[guard], client_max_size=MAX_BODY)
        app[STATE] = state
        app[PREVIEWS] = PreviewProxy(state)
        app.router.add_get("/health", health)
        app.router.add_get("/api/socket.io/", state.events.handle)
        app.router.add_get("/api/local/status", self._status)
        app.router.add_post("/api/local/stop", self._stop_request)
        for module in (toolbox_proxy, resources, control, preview, warm_pools):
            app.router.add_routes(module.routes())
        return app

    def _bind(self) -> socket.socket:
        """The wished port; else the last one, so that URLs survive a restart; else any."""
        last = self.options.paths.state_dir / "port"
        wishes = [self.options.port] if self.options.port else []
        if not wishes:
            with contextlib.suppress(OSError, ValueError):
                wishes.append(int(last.read_text()))
            wishes.append(0)
        for wish in wishes:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", wish))
            except OSError:
                sock.close()
                continue
            sock.listen(1024)
            sock.setblocking(False)
            last.write_text(str(sock.getsockname()[1]))
            return sock
        raise StartError(f"port {self.options.port} on 127.0.0.1 is in use or not allowed")

    def _write_runtime_file(self) -> None:
        state = self.state
        facts = {
            "version": 1,
            "pid": os.getpid(),
            "start_time": process_start(os.getpid()) or "",
            "instance": state.instance,
            "port": state.port,
            "api_url": f"http://127.0.0.1:{state.port}/api",
            "api_key": state.api_key,
            "advertise": self.options.advertise,
            "isolation": state.manager.isolation.name,
            "started_at": iso_now(),
        }
        path = self.options.paths.server_file
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(facts, stream)
        os.replace(temporary, path)

    async def _end_silent_connections(self) -> None:
        """Look now and then for connections that have not sent a whole request."""
        known: set[int] = set()
        while True:
            await asyncio.sleep(FIRST_REQUEST_SECONDS)
            known = self.close_silent(known)

    def close_silent(self, known: set[int]) -> set[int]:
        """Close connections without a first request that are ``known`` already; all such that are left.

        They would take all descriptors.
        """
        server = self._runner.server if self._runner is not None else None
        silent = {id(one): one for one in (server.connections if server else []) if not one._request_count}
        for number in known & silent.keys():
            silent.pop(number).force_close()
        return set(silent)

    async def close(self) -> None:
        """Stop serving, end all sandboxes, remove the runtime file."""
        if self._patience is not None:
            self._patience.cancel()
            await asyncio.wait([self._patience])
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.wait([self._housekeeping])
        if self._held is not None:
            self.options.paths.server_file.unlink(missing_ok=True)
        if self._state is not None:
            await self._state.events.close()
            await self._state.builds.close()
            await self._state.manager.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def release(self) -> None:
        """Let go of the lock, after :meth:`close`. A server process holds it to its very end instead."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    async def _status(self, request: web.Request) -> web.Response:
        """``GET /api/local/status``: for the launcher and the command line."""
        return web.json_response(await server_status(self.state))

    async def _stop_request(self, request: web.Request) -> web.Response:
        """``POST /api/local/stop``."""
        self.request_stop("asked to stop")
        return web.json_response({"pid": os.getpid()})


def check_state_version(state_dir: Path) -> None:
    """Write the version of the on-disk state, or refuse one that is newer than this code."""
    path = state_dir / "VERSION"
    try:
        version = int(path.read_text())
    except FileNotFoundError:
        path.write_text(f"{STATE_VERSION}\n")
        return
    except (OSError, ValueError) as exc:
        raise StartError(f"{path} can not be read: {exc}") from exc
    if version > STATE_VERSION:
        raise StartError(
            f"{state_dir} was written by a newer daytona-kernel (format {version}); update this one"
        )


def setup_logging(options: ServerOptions, *, foreground: bool) -> None:
    """Log to the log file, or to stderr in the foreground. Keys, user code and output are never logged."""
    handler: logging.Handler
    if foreground:
        handler = logging.StreamHandler()
    else:
        handler = RotatingFileHandler(options.paths.log_file, maxBytes=5_000_000, backupCount=2)
    formatter = _OneLine("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _OneLine(logging.Formatter):
    """Spells out what would steer a terminal that shows the log."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


async def serve(options: ServerOptions, ready: Callable[[LocalServer], None]) -> None:
    """Run a server until SIGTERM, SIGINT, a stop request, or idleness. `ready` is called once it listens."""
    server = LocalServer(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.request_stop, f"signal {number.name}")
    await server.open()
    try:
        ready(server)
        await server.wait()
        log.info("stopping: %s", server.stop_reason)
    finally:
        await server.close()
        log.info("stopped")
