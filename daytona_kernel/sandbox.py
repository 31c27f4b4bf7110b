"""The sandbox behind a notebook: found, created, started, kept alive, and ended, with the real SDK."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import os
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .config import DaytonaSettings, find_credential
from .errors import (
    ConfigurationError,
    ConnectionFailed,
    CredentialsError,
    DaytonaKernelError,
    SandboxCreationFailed,
    SandboxError,
    SandboxGone,
    SandboxNotFound,
    SandboxStartFailed,
)
from .toolbox import Endpoint

if TYPE_CHECKING:
    from daytona import AsyncDaytona, AsyncSandbox

log = logging.getLogger(__name__)

LABEL = "daytona-kernel"
LABEL_NOTEBOOK = "daytona-kernel.notebook"
LABEL_OWNER = "daytona-kernel.owner-pid"
STARTED = "started"
RESTARTABLE = ("stopped", "archived", "paused")
TRANSITIONAL = (
    "creating",
    "starting",
    "restoring",
    "resuming",
    "stopping",
    "archiving",
    "pausing",
    "resizing",
    "snapshotting",
    "forking",
    "pulling_snapshot",
    "building_snapshot",
    "pending_build",
    "unknown",
)
KEEPALIVE_S = 60.0
STATE_POLL_S = 0.5
CLEAN_UP_ATTEMPTS = 5
CLEAN_UP_S = 3.0
"""Jupyter kills a kernel 5 s after it was asked to end."""


@dataclass(frozen=True)
class Service:
    """Where the control plane is. ``local``: the embedded server. The key is never shown."""

    api_url: str
    api_key: str
    local: bool

    def __repr__(self) -> str:
        return f"Service({self.api_url!r}, local={self.local})"


def notebook_label(path: str) -> str:
    """Label value that finds a notebook's sandbox again: a hash, for paths are nobody else's business."""
    return hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:24]


def owner_label() -> str:
    """``pid:start time`` of this process, by which the local server notices a killed owner."""
    try:
        with open("/proc/self/stat") as file:
            start = file.read().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        start = "0"
    return f"{os.getpid()}:{start}"


class SandboxManager:
    """One notebook's sandbox. Use it on one event loop only.

    ``on_status`` gets a line for the person whenever something takes its time; ``None`` when it is over.
    """

    def __init__(
        self, settings: DaytonaSettings, on_status: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self.sandbox: AsyncSandbox | None = None
        self.service: Service | None = None
        self.owned = False
        """Whether we created it, now or for this notebook earlier: only then may we delete or stop it."""
        self.notice = ""
        """What the person should know about where this sandbox comes from; shown once."""
        self._client: AsyncDaytona | None = None
        self._on_status = on_status

    # -- getting one -------------------------------------------------------------------------------

    async def acquire(self, remembered_id: str = "") -> AsyncSandbox:
        """The sandbox to use, started. Raises errors of our tree only.

        Order: the one named in the settings; ``remembered_id`` (a restarted kernel's); the one with the
        notebook's label; a new one.
        """
        self.settings.check()
        await self._connect()
        with _Translated():
            sandbox = await self._find(remembered_id)
            if sandbox is None:
                sandbox = await self._create()
            else:
                await self._make_started(sandbox)
        self.sandbox = sandbox
        return sandbox

    async def ensure_started(self) -> bool:
        """Check the sandbox; start it if it has stopped. Whether processes in it survived.

        Raises :class:`SandboxGone` if there is none any more, :class:`SandboxStartFailed` if it does not
        start.
        """
        assert self.sandbox is not None
        with _Translated():
            try:
                await self.sandbox.refresh_data()
            except Exception as exc:
                if _status(exc) == 404:
                    self.sandbox = None
                    raise SandboxGone("The sandbox was deleted.") from exc
                raise
            if self._state == STARTED:
                return True
            await self._make_started(self.sandbox)
        return False

    async def state(self) -> str:
        """The sandbox's state as the control plane has it; ``destroyed`` if it is gone, empty if unknown."""
        assert self.sandbox is not None
        try:
            await asyncio.wait_for(self.sandbox.refresh_data(), 20)
        except Exception as exc:
            return "destroyed" if _status(exc) == 404 else ""
        return self._state

    def endpoint(self) -> Endpoint:
        """Where the sandbox's toolbox is."""
        assert self.sandbox is not None
        assert self._client is not None
        headers = {
            name: value
            for name, value in self._client._api_client.default_headers.items()
            if name.lower() in ("authorization", "x-daytona-organization-id")
        }
        headers["X-Daytona-Source"] = "daytona-kernel"
        base = self.sandbox.toolbox_proxy_url.rstrip("/")
        return Endpoint(f"{base}/{self.sandbox.id}", headers)

    async def client(self) -> AsyncDaytona:
        """The SDK's client. Raises :class:`CredentialsError` and :class:`ConnectionFailed`."""
        await self._connect()
        assert self._client is not None
        return self._client

    async def _connect(self) -> None:
        if self._client is not None:
            return
        settings = self.settings
        if settings.is_local:
            self.service = await asyncio.to_thread(_local_service)
        elif not settings.has_credentials:
            raise CredentialsError("There are no credentials for Daytona's service.")
        else:
            api_url = settings.api_url or os.environ.get("DAYTONA_API_URL", "")
            self.service = Service(api_url, settings.api_key or find_credential("DAYTONA_API_KEY"), False)
        making = asyncio.ensure_future(asyncio.to_thread(_make_client, self.service, settings))
        with _Translated():
            try:
                self._client = await asyncio.shield(making)
            except asyncio.CancelledError:
                # its thread goes on, and somebody has to close the client that comes out of it
                self._client = await making
                raise

    async def _find(self, remembered_id: str) -> AsyncSandbox | None:
        assert self._client is not None
        if self.settings.sandbox:
            try:
                return await self._client.get(self.settings.sandbox)
            except Exception as exc:
                if _status(exc) == 404:
                    raise SandboxNotFound(f"There is no sandbox {self.settings.sandbox!r}.") from exc
                raise
        if remembered_id:
            try:
                sandbox = await self._client.get(remembered_id)
                await self._set_owner(sandbox, owner_label())
                self.owned = True
                return sandbox
            except Exception as exc:
                if _status(exc) != 404:
                    raise
                self.notice = (
                    "The sandbox of this notebook is gone; this is a new one. Variables and files are lost."
                )
                return None
        return await self._find_of_notebook()

    async def _find_of_notebook(self) -> AsyncSandbox | None:
        assert self._client is not None
        path = os.environ.get("JPY_SESSION_NAME", "")
        if not path or self.settings.headless:
            return None
        from daytona import ListSandboxesQuery

        query = ListSandboxesQuery(labels={LABEL_NOTEBOOK: notebook_label(path)}, limit=1)
        async for item in self._client.list(query):
            if _value(item.state) in (STARTED, *RESTARTABLE):
                self.owned = True
                self.notice = (
                    "This notebook has its sandbox of last time again. Files are there; variables are not."
                )
                return await self._client.get(item.id)
        return None

    async def _create(self) -> AsyncSandbox:
        assert self._client is not None
        params, timeout_s = self._parameters(), self.settings.create_timeout
        local = self.service is not None and self.service.local
        self._on_status(f"Creating a {'local ' if local else ''}sandbox …")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sandbox = await self._client.create(params, timeout=timeout_s)
        except asyncio.CancelledError as exc:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._clean_up_failed(exc, params.name), CLEAN_UP_S)
            raise
        except Exception as exc:
            await self._clean_up_failed(exc, params.name)
            raise _creation_error(exc, self.settings) from exc
        finally:
            self._on_status(None)
        self.owned = True
        log.info("created sandbox %s", sandbox.id)
        return sandbox

    def _parameters(self) -> Any:
        from daytona import CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams, Resources

        settings = self.settings
        headless = settings.headless
        labels = {LABEL: "1", **{str(k): str(v) for k, v in settings.labels.items()}}
        path = os.environ.get("JPY_SESSION_NAME", "")
        if path and not headless:
            labels[LABEL_NOTEBOOK] = notebook_label(path)
        if self._dies_with_its_kernel:
            labels[LABEL_OWNER] = owner_label()
        options: dict[str, Any] = {
            "name": f"nb-{uuid.uuid4().hex[:12]}",
            "labels": labels,
            "env_vars": {str(k): str(v) for k, v in settings.env_vars.items()} or None,
            "network_block_all": settings.network_block_all or None,
            "auto_stop_interval": _minutes(settings.auto_stop),
        }
        if headless:
            options["ephemeral"] = True
        else:
            options["auto_delete_interval"] = _minutes(settings.auto_delete)
        options = {name: value for name, value in options.items() if value is not None}
        if settings.image:
            cpu, memory, disk = settings.cpu or None, settings.memory_gib or None, settings.disk_gib or None
            resources = Resources(cpu=cpu, memory=memory, disk=disk) if cpu or memory or disk else None
            return CreateSandboxFromImageParams(image=settings.image, resources=resources, **options)
        return CreateSandboxFromSnapshotParams(snapshot=settings.snapshot or None, **options)

    async def _clean_up_failed(self, exc: BaseException, name: str | None) -> None:
        """A creation that failed half-way may have left a sandbox behind; nobody else would delete it."""
        assert self._client is not None
        key = getattr(exc, "sandbox_id", None) or (name if (_status(exc) or 500) >= 500 else None)
        if not key:
            return
        for attempt in range(CLEAN_UP_ATTEMPTS):
            try:
                sandbox = await asyncio.wait_for(self._client.get(key), 10)
                await self._client.delete(sandbox, timeout=20)
                return
            except Exception as error:
                if _status(error) != 404 or attempt == CLEAN_UP_ATTEMPTS - 1:
                    log.info("nothing to clean up after a failed creation (%s)", type(error).__name__)
                    return
            await asyncio.sleep(0.4)  # a request that was given up may still be on its way

    async def _make_started(self, sandbox: AsyncSandbox) -> None:
        """Bring a sandbox to ``started``, whatever state it is in."""
        deadline = time.monotonic() + (self.settings.create_timeout or math.inf)
        while (state := _value(sandbox.state)) in TRANSITIONAL and time.monotonic() < deadline:
            self._on_status(f"Waiting for the sandbox ({state}) …")
            await asyncio.sleep(STATE_POLL_S)
            await sandbox.refresh_data()
        if state == STARTED:
            self._on_status(None)
            return
        if state in ("error", "build_failed"):
            reason = sandbox.error_reason or "no reason given"
            raise SandboxStartFailed(
                f"The sandbox {sandbox.name!r} is in state {state}: {reason}.",
                hint="It may be recoverable: see its page in Daytona's dashboard, or use another sandbox.",
            )
        if state not in RESTARTABLE:
            raise SandboxGone(f"The sandbox {sandbox.name!r} is {state}.")
        self._on_status(f"Starting the sandbox ({state}) …")
        try:
            await sandbox.start(timeout=self.settings.create_timeout or 0)
        except Exception as exc:
            raise SandboxStartFailed(
                f"The sandbox {sandbox.name!r} did not start: {exc}",
                hint="Run the cell again to try once more.",
            ) from exc
        finally:
            self._on_status(None)

    # -- keeping and ending ------------------------------------------------------------------------

    async def keep_alive(self) -> None:
        """Tell the service, every minute until cancelled, that the sandbox is in use: a cell runs."""
        while True:
            await asyncio.sleep(KEEPALIVE_S)
            if self.sandbox is not None:
                try:
                    await self.sandbox.refresh_activity()
                except Exception as exc:
                    log.warning("the sandbox could not be told that it is in use: %s", type(exc).__name__)

    async def release(self, *, restarting: bool = False) -> str:
        """Do with the sandbox what the settings say. What was done: ``kept``, ``stopped`` or ``deleted``.

        Errors are logged with the sandbox's id and not raised: this is the end.
        """
        sandbox, policy = self.sandbox, self._policy()
        if sandbox is None or policy == "keep":
            return "kept"
        try:
            if restarting:
                await self._set_owner(sandbox, "")
                return "kept"
            if policy == "delete":
                await sandbox.delete(timeout=20)
                return "deleted"
            assert self._client is not None
            await self._client._sandbox_api.stop_sandbox(sandbox.id)
            return "stopped"
        except Exception as exc:
            log.warning("sandbox %s was left behind: %s", sandbox.id, exc)
            return "kept"

    async def _set_owner(self, sandbox: AsyncSandbox, owner: str) -> None:
        """Say whose process the sandbox dies with; between the two kernels of a restart, with nobody's."""
        if self._dies_with_its_kernel:
            labels = {name: value for name, value in sandbox.labels.items() if name != LABEL_OWNER}
            await sandbox.set_labels(labels | ({LABEL_OWNER: owner} if owner else {}))

    @property
    def _dies_with_its_kernel(self) -> bool:
        settings = self.settings
        return settings.on_shutdown in ("auto", "delete") and not settings.is_found_again

    def _policy(self) -> str:
        policy = str(self.settings.on_shutdown)
        if not self.owned:
            return "keep"
        if policy != "auto":
            return policy
        return "stop" if self.settings.is_found_again else "delete"

    async def close(self) -> None:
        """Close the SDK's connections."""
        if self._client is not None:
            try:
                await self._client.close()  # type: ignore[no-untyped-call]  # the SDK left it so
            except Exception as exc:
                log.debug("closing the SDK failed: %s", exc)
            self._client = None

    @property
    def _state(self) -> str:
        return _value(self.sandbox.state) if self.sandbox is not None else ""


def _minutes(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds / 60)


def _value(state: Any) -> str:
    """The text of a state, which is an enum, a string or nothing."""
    return str(getattr(state, "value", state) or "")


def _status(exc: BaseException) -> int | None:
    """HTTP status of an SDK error; ``None`` if there was no answer."""
    status = getattr(exc, "status_code", None) or getattr(exc, "status", None)
    return status if isinstance(status, int) else None


def _local_service() -> Service:
    from .local import launcher

    try:
        server = launcher.ensure_running()
    except Exception as exc:
        raise ConnectionFailed(
            f"There are no Daytona credentials, and the embedded local server could not be started: {exc}",
            hint="Set DAYTONA_API_KEY, or see: jupyter daytona local logs",
        ) from exc
    return Service(server.api_url, server.api_key, True)


def _make_client(service: Service, settings: DaytonaSettings) -> AsyncDaytona:
    from daytona import AsyncDaytona, DaytonaConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = DaytonaConfig(
            api_key=service.api_key or None,
            api_url=service.api_url or None,
            target=settings.target or None,
        )
        return AsyncDaytona(config)


class _Translated:
    """Turns the SDK's and the transport's errors into ours, in one place, with the cause kept."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _type: Any, exc: BaseException | None, _traceback: Any) -> None:
        if exc is None or isinstance(exc, DaytonaKernelError) or not isinstance(exc, Exception):
            return
        raise translate(exc) from exc


def translate(exc: Exception) -> DaytonaKernelError:
    """Our error for one of the SDK's: by HTTP status, or by what caused it where there was no answer."""
    status = _status(exc)
    text = _one_line(exc)
    if status == 401 or _is_a(exc, "DaytonaAuthenticationError"):
        return CredentialsError(f"Daytona refused the credentials ({text}).")
    if status == 403:
        return CredentialsError(
            f"These credentials do not allow that ({text}).", hint="Check the key's permissions."
        )
    if status == 429:
        return SandboxError(
            f"Daytona asks for patience ({text}).", hint="Wait a little and run the cell again."
        )
    if status is not None:
        return SandboxError(
            f"Daytona answered {status}: {text}",
            hint="Run the cell again; if it stays, see the service's status.",
        )
    if _is_a(exc, "InvalidURL"):
        return ConfigurationError(
            f"The API URL is not a URL ({text}).", hint="DAYTONA_API_URL looks like https://host/api."
        )
    if _is_a(exc, "DaytonaConnectionError", "ClientError", "OSError", "TimeoutError"):
        return ConnectionFailed(f"Daytona could not be reached ({text}).")
    if _is_a(exc, "DaytonaBadRequestError", "DaytonaUnprocessableEntityError"):
        return ConfigurationError(f"Daytona's SDK refuses that: {text}")
    return SandboxError(f"Daytona's SDK failed: {text}", hint="Run the cell again.")


def _creation_error(exc: Exception, settings: DaytonaSettings) -> DaytonaKernelError:
    if isinstance(exc, DaytonaKernelError):
        return exc
    status, text = _status(exc), _one_line(exc)
    late = _is_a(exc, "DaytonaTimeoutError", "TimeoutError") and not _is_a(exc, "DaytonaConnectionError")
    if late and status in (None, 408):
        return SandboxCreationFailed(
            f"The sandbox was not ready within {settings.create_timeout or 0:g} s.",
            hint="Run the cell again, or raise create_timeout (DAYTONA_KERNEL_CREATE_TIMEOUT).",
        )
    if status in (400, 404) and settings.snapshot:
        return SandboxCreationFailed(
            f"No sandbox could be made from the snapshot {settings.snapshot!r}: {text}",
            hint="Check the snapshot's name and state.",
        )
    if status == 400:
        return ConfigurationError(f"Daytona refused to make the sandbox: {text}")
    error = translate(exc)
    if type(error) is SandboxError and status != 429:
        return SandboxCreationFailed(f"The sandbox could not be made: {text}", hint="Run the cell again.")
    return error


def _is_a(exc: BaseException, *names: str) -> bool:
    """Whether ``exc``, or what caused it, is of a class so named: the SDK wraps what it meets."""
    seen: BaseException | None = exc
    while seen is not None:
        if any(cls.__name__ in names for cls in type(seen).__mro__):
            return True
        seen = seen.__cause__
    return False


def _one_line(exc: BaseException) -> str:
    """The message of an exception as one line, at most 400 characters."""
    text = " ".join(str(exc).split()) or type(exc).__name__
    return text if len(text) <= 400 else text[:400] + "…"
