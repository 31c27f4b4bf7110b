"""The sandbox behind a notebook: found, created, started, kept alive, and ended.

Notebooks need few calls for that (:mod:`.controlplane`); the SDK is imported when a command needs it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .config import DaytonaSettings
from .controlplane import LONG_PAUSES_S, STARTED, ControlPlane, SandboxHandle, is_away
from .errors import (
    DaytonaKernelError,
    SandboxGone,
    SandboxNotFound,
    SandboxProtocolError,
    SandboxStartFailed,
)
from .labels import LABEL, LABEL_HOST, LABEL_NOTEBOOK, LABEL_OWNER, host_label, notebook_label, owner_label
from .service import Service, find_service, make_client, open_plane
from .toolbox import Endpoint
from .translation import Translated, creation_error, status_of, translate

if TYPE_CHECKING:
    from daytona import AsyncDaytona, AsyncSandbox

log = logging.getLogger(__name__)

RESTARTABLE = ("stopped", "archived", "paused")
ENDED = ("destroyed", "destroying")
BROKEN = ("error", "build_failed")
"""Any other state is one on the way to something, also one that this version does not know."""
BUSY = ("resizing", "snapshotting", "forking")
"""On the way back to what it was: processes go on."""
KEEPALIVE_S = 60.0
"""Time between two signs of life of a sandbox that is in use; less if it stops by itself very soon."""
STATE_POLL_S = 0.5
CLEAN_UP_ATTEMPTS = 5
CLEAN_UP_S = 3.0
"""Jupyter kills a kernel 5 s after it was asked to end."""
END_ATTEMPTS = 5
END_PAUSE_S = 0.4
GONE_NOTICE = "The sandbox of this notebook is gone; this is a new one. Variables and files are lost."


class SandboxManager:
    """One notebook's sandbox. Use it on one event loop only.

    ``on_status`` gets a line for the person whenever something takes its time; ``None`` when it is over.
    """

    def __init__(
        self, settings: DaytonaSettings, on_status: Callable[[str | None], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self.sandbox: SandboxHandle | None = None
        self.service: Service | None = None
        self.owned = False
        """Whether we created it, now or for this notebook earlier: only then may we delete or stop it."""
        self.notice = ""
        """What the person should know about where this sandbox comes from; shown once."""
        self._plane: ControlPlane | None = None
        self._client: AsyncDaytona | None = None
        self._seen: AsyncSandbox | None = None
        self._on_status = on_status
        self._told_at = -math.inf
        """When the service last heard that the sandbox is in use."""
        self._telling: set[asyncio.Task[None]] = set()

    # -- getting one -------------------------------------------------------------------------------

    async def acquire(self, remembered_id: str = "") -> SandboxHandle:
        """The sandbox to use, started. Raises errors of our tree only.

        Order: the one named in the settings; ``remembered_id`` (a restarted kernel's); the one with the
        notebook's label; a new one.
        """
        self.settings.check()
        await self.connect()
        with Translated():
            sandbox = await self._find_patiently(remembered_id)
            if sandbox is not None and not await self._can_be_had(sandbox):
                sandbox, self.notice = None, GONE_NOTICE
            if sandbox is None:
                sandbox = await self._create()
        self.sandbox = sandbox
        return sandbox

    async def _can_be_had(self, sandbox: SandboxHandle) -> bool:
        """Start a sandbox that was found; ``False`` if it has gone meanwhile, and the person named none."""
        try:
            await self._make_started(sandbox)
        except Exception as exc:
            if self.settings.sandbox or not (isinstance(exc, SandboxGone) or status_of(exc) == 404):
                raise
            return False
        return True

    async def ensure_started(self) -> bool:
        """Check the sandbox; start it if it has stopped. Whether processes in it survived.

        Raises :class:`SandboxGone` if there is none any more, :class:`SandboxStartFailed` if it does not
        start.
        """
        assert self.sandbox is not None
        with Translated():
            try:
                await self.sandbox.refresh_data()
            except Exception as exc:
                if status_of(exc) == 404:
                    self.sandbox = None
                    raise SandboxGone("The sandbox was deleted.") from exc
                raise
            if (before := self._state) == STARTED:
                return True
            await self._make_started(self.sandbox)
        return before in BUSY

    async def state(self) -> str:
        """The sandbox's state as the control plane has it; ``destroyed`` if it is gone, empty if unknown.

        Raises :class:`CredentialsError` if the service does not accept the key any more.
        """
        assert self.sandbox is not None
        try:
            await asyncio.wait_for(self.sandbox.refresh_data(), 20)
        except Exception as exc:
            status = status_of(exc)
            if status == 404:
                return "destroyed"
            if status in (None, 401) and await self._find_server_again():
                return self._state
            if status == 401:
                raise translate(exc) from exc
            return ""
        return self._state

    async def _find_server_again(self) -> bool:
        """Whether the local server was another one: it had ended, and the next one has a key of its own."""
        if self.service is None or not self.service.local or self.sandbox is None:
            return False
        try:
            service = await find_service(self.settings)
            if service == self.service:
                return False
            log.warning("the local sandbox server has ended; another one takes its place")
            old, self.service, self._client, self._seen = self._plane, service, None, None
            self._plane = self.sandbox.plane = open_plane(service)
            if old is not None:
                await old.close()
            await self.sandbox.refresh_data()
        except Exception as exc:
            log.warning("the local sandbox server can not be found again: %s", type(exc).__name__)
            return False
        return True

    def endpoint(self) -> Endpoint:
        """Where the sandbox's toolbox is. Raises :class:`SandboxProtocolError` where the key must not go."""
        assert self.sandbox is not None
        base = self.sandbox.toolbox_proxy_url.rstrip("/")
        if self.sandbox.plane.api_url.startswith("https:") and not base.startswith("https:"):
            raise SandboxProtocolError(
                "Daytona named an address for the sandbox that is not https; the key is not sent there."
            )
        return Endpoint(f"{base}/{self.sandbox.id}", self.sandbox.plane.headers)

    async def client(self) -> AsyncDaytona:
        """The SDK's client, which takes a second to import. For commands, and for what they do for a person.

        Raises :class:`CredentialsError` and :class:`ConnectionFailed`.
        """
        if self._client is None:
            service = await self._find_service()
            making = asyncio.ensure_future(asyncio.to_thread(make_client, service, self.settings))
            with Translated():
                try:
                    self._client = await asyncio.shield(making)
                except asyncio.CancelledError:
                    # its thread goes on, and somebody has to close the client that comes out of it
                    self._client = await making
                    raise
        return self._client

    async def sdk_sandbox(self) -> AsyncSandbox:
        """The sandbox as an object of the SDK, as it was when it was last asked for.

        Raises :class:`SandboxGone` if it has been deleted.
        """
        assert self.sandbox is not None
        if self._seen is None or self._seen.id != self.sandbox.id:
            client = await self.client()
            with Translated():
                try:
                    self._seen = await client.get(self.sandbox.id)
                except Exception as exc:
                    if status_of(exc) == 404:
                        raise SandboxGone("The sandbox was deleted.") from exc
                    raise
        return self._seen

    async def adopt(self, sandbox: AsyncSandbox | None, *, owned: bool) -> None:
        """Go over to a sandbox of the SDK's, or to none. Raises :class:`CredentialsError`."""
        plane = await self.connect()
        self.sandbox, self.owned, self._seen = None, owned, sandbox
        if sandbox is not None:
            self.sandbox = SandboxHandle(
                plane,
                sandbox.id,
                sandbox.name,
                _value(sandbox.state),
                dict(sandbox.labels or {}),
                sandbox.toolbox_proxy_url,
                auto_stop_minutes=_whole(sandbox.auto_stop_interval),
            )
            self._told_at = -math.inf

    async def connect(self) -> ControlPlane:
        """The control plane, for what is not about one sandbox. Raises :class:`CredentialsError` and
        :class:`ConnectionFailed`.
        """
        if self._plane is None:
            self._plane = open_plane(await self._find_service())
        return self._plane

    async def _find_service(self) -> Service:
        if self.service is None:
            self.service = await find_service(self.settings)
        return self.service

    async def _find_patiently(self, remembered_id: str) -> SandboxHandle | None:
        """What :meth:`_find` finds, once network and service are there. Its calls wait a little, too."""
        for pause_s in LONG_PAUSES_S:
            try:
                return await self._find(remembered_id)
            except Exception as exc:
                if not is_away(exc):
                    raise
            await asyncio.sleep(pause_s)
        return await self._find(remembered_id)

    async def _find(self, remembered_id: str) -> SandboxHandle | None:
        assert self._plane is not None
        if self.settings.sandbox:
            try:
                return await self._plane.get(self.settings.sandbox)
            except Exception as exc:
                if status_of(exc) == 404:
                    raise SandboxNotFound(f"There is no sandbox {self.settings.sandbox!r}.") from exc
                raise
        if remembered_id:
            try:
                sandbox = await self._plane.get(remembered_id)
                await self._set_owner(sandbox, owner_label())
                self.owned = True
                return sandbox
            except Exception as exc:
                if status_of(exc) != 404:
                    raise
                self.notice = GONE_NOTICE
                return None
        return await self._find_of_notebook()

    async def _find_of_notebook(self) -> SandboxHandle | None:
        assert self._plane is not None
        path = os.environ.get("JPY_SESSION_NAME", "")
        if not path or self.settings.headless:
            return None
        for found in await self._plane.find({LABEL_NOTEBOOK: notebook_label(path)}):
            # One that is just being stopped belongs to it, too: a notebook that is opened again at once.
            if found.state not in (*ENDED, *BROKEN) or (found.state == "error" and found.recoverable):
                self.owned = True
                self.notice = (
                    "This notebook has its sandbox of last time again. Files are there; variables are not."
                )
                return found
        return None

    async def _create(self) -> SandboxHandle:
        assert self._plane is not None
        body = self._body()
        local = self.service is not None and self.service.local
        self._on_status(f"Creating a {'local ' if local else ''}sandbox …")
        try:
            sandbox = await self._plane.create(body, self.settings.create_timeout)
        except asyncio.CancelledError as exc:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._clean_up_failed(exc, body["name"]), CLEAN_UP_S)
            raise
        except Exception as exc:
            await self._clean_up_failed(exc, body["name"])
            if isinstance(exc, DaytonaKernelError):
                raise
            raise creation_error(exc, self.settings) from exc
        finally:
            self._on_status(None)
        self.owned = True
        self._told_at = time.monotonic()
        log.info("created sandbox %s", sandbox.id)
        return sandbox

    def _body(self) -> dict[str, Any]:
        """What to make: the fields of the API's ``CreateSandbox``; intervals in minutes, sizes in GiB."""
        settings = self.settings
        headless = settings.headless
        labels = {
            LABEL: "1",
            LABEL_HOST: host_label(),
            **{str(k): str(v) for k, v in settings.labels.items()},
        }
        path = os.environ.get("JPY_SESSION_NAME", "")
        if path and not headless:
            labels[LABEL_NOTEBOOK] = notebook_label(path)
        if self._dies_with_its_kernel:
            labels[LABEL_OWNER] = owner_label()
        body: dict[str, Any] = {
            "name": f"nb-{uuid.uuid4().hex[:12]}",
            "labels": labels,
            "env": {str(k): str(v) for k, v in settings.env_vars.items()},
            "target": settings.target or settings.credential("DAYTONA_TARGET") or None,
            "networkBlockAll": settings.network_block_all or None,
            "autoStopInterval": _minutes(settings.auto_stop),
            # An ephemeral sandbox is one that is deleted as soon as it stops.
            "autoDeleteInterval": 0 if headless else _minutes(settings.auto_delete),
        }
        if settings.image:
            body["buildInfo"] = {"dockerfileContent": f"FROM {settings.image}\n"}
            body["cpu"], body["memory"], body["disk"] = (
                settings.cpu or None,
                settings.memory_gib or None,
                settings.disk_gib or None,
            )
            body["gpu"] = settings.gpu or None
        else:
            body["snapshot"] = settings.snapshot or None
        return {name: value for name, value in body.items() if value is not None}

    async def _clean_up_failed(self, exc: BaseException, name: str) -> None:
        """A creation that failed half-way may have left a sandbox behind; nobody else would delete it."""
        assert self._plane is not None
        if (status_of(exc) or 500) < 500 and not getattr(exc, "made", False):
            return
        for attempt in range(CLEAN_UP_ATTEMPTS):
            try:
                sandbox = await asyncio.wait_for(self._plane.get(name), 10)
                await sandbox.delete(timeout=20)
                return
            except Exception as error:
                # A request that was given up may still be on its way (404), or just be carried out (409).
                if status_of(error) not in (404, 409) or attempt == CLEAN_UP_ATTEMPTS - 1:
                    log.info("nothing to clean up after a failed creation (%s)", type(error).__name__)
                    return
            await asyncio.sleep(0.4)

    async def _make_started(self, sandbox: SandboxHandle) -> None:
        """Bring a sandbox to ``started``, whatever state it is in."""
        await self._settle(sandbox)
        state = sandbox.state
        if state == STARTED:
            return
        recover = state == "error" and sandbox.recoverable
        if state in BROKEN and not recover:
            reason = sandbox.error_reason or "no reason given"
            raise SandboxStartFailed(
                f"The sandbox {sandbox.name!r} is in state {state}: {reason}.",
                hint="It is not recoverable: see its page in Daytona's dashboard, or use another one.",
            )
        if state in ENDED:
            raise SandboxGone(f"The sandbox {sandbox.name!r} is {state}.")
        self._on_status(
            f"Recovering the sandbox: {sandbox.error_reason} …"
            if recover
            else f"Starting the sandbox ({state}) …"
        )
        try:
            if recover:
                await sandbox.recover(self.settings.create_timeout)
            else:
                await sandbox.start(self.settings.create_timeout)
        except Exception as exc:
            raise SandboxStartFailed(
                f"The sandbox {sandbox.name!r} did not start: {exc}",
                hint="Run the cell again to try once more.",
            ) from exc
        finally:
            self._on_status(None)
        self._told_at = time.monotonic()

    async def _settle(self, sandbox: SandboxHandle) -> None:
        """Wait until a sandbox is in a state that something can be done from."""
        deadline = time.monotonic() + (self.settings.create_timeout or math.inf)
        try:
            while sandbox.state not in (STARTED, *RESTARTABLE, *BROKEN, *ENDED):
                if time.monotonic() > deadline:
                    raise SandboxStartFailed(
                        f"The sandbox {sandbox.name!r} is {sandbox.state} still, after "
                        f"{self.settings.create_timeout:g} s.",
                        hint="Run the cell again to go on waiting.",
                    )
                self._on_status(f"Waiting for the sandbox ({sandbox.state or 'no state'}) …")
                await asyncio.sleep(STATE_POLL_S)
                await sandbox.refresh_data()
        finally:
            self._on_status(None)

    # -- keeping and ending ------------------------------------------------------------------------

    async def keep_alive(self) -> None:
        """Tell the service again and again, until cancelled, that the sandbox is in use: a cell runs.

        The first time at once, unless it has heard so within the last minute: the sockets of cells do not
        count, and the sandbox of a notebook that was idle may be about to stop.
        """
        while True:
            wait_s = self._told_at + self._keepalive_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                continue
            self._told_at = time.monotonic()
            telling = asyncio.ensure_future(self._tell())
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
            await asyncio.shield(telling)  # most cells end before it has got through

    @property
    def _keepalive_s(self) -> float:
        minutes = self.sandbox.auto_stop_minutes if self.sandbox is not None else None
        return min(KEEPALIVE_S, minutes * 60 / 3) if minutes else KEEPALIVE_S

    async def _tell(self) -> None:
        if self.sandbox is None:
            return
        try:
            await self.sandbox.refresh_activity()
        except Exception as exc:
            log.warning("the sandbox could not be told that it is in use: %s", type(exc).__name__)
            self._told_at -= 0.75 * self._keepalive_s  # once more, sooner

    @property
    def may_be_shared(self) -> bool:
        """Whether another kernel of the same notebook may have found this sandbox, and ours is to end it."""
        return self.owned and self.settings.is_found_again

    async def release(self, *, restarting: bool = False, shared: bool = False) -> str:
        """Do with the sandbox what the settings say. What was done: ``kept``, ``stopped`` or ``deleted``.

        With ``shared`` somebody else still uses it, and does that later.

        Errors are logged with the sandbox's id and not raised: this is the end.
        """
        sandbox, policy = self.sandbox, self._policy()
        if sandbox is None or policy == "keep" or shared:
            return "kept"
        try:
            if restarting:
                await self._set_owner(sandbox, "")
                return "kept"
            for attempt in range(END_ATTEMPTS):
                try:
                    await (sandbox.delete(timeout=20) if policy == "delete" else sandbox.stop())
                    return "deleted" if policy == "delete" else "stopped"
                except Exception as exc:  # 409: its state is just being changed
                    if status_of(exc) == 404:
                        return "deleted"  # by somebody else, or by a request whose answer was lost
                    if status_of(exc) != 409 or attempt == END_ATTEMPTS - 1:
                        raise
                await asyncio.sleep(END_PAUSE_S)
        except Exception as exc:
            log.warning("sandbox %s was left behind: %s", sandbox.id, exc)
        return "kept"

    async def _set_owner(self, sandbox: SandboxHandle, owner: str) -> None:
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
        """Close the connections."""
        for task in [*self._telling]:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        if self._plane is not None:
            await self._plane.close()
            self._plane = None
        if self._client is not None:
            try:
                await self._client.close()  # type: ignore[no-untyped-call]  # the SDK left it so
            except Exception as exc:
                log.debug("closing the SDK failed: %s", exc)
            self._client = None

    @property
    def _state(self) -> str:
        return self.sandbox.state if self.sandbox is not None else ""


def _minutes(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds / 60)


def _whole(number: Any) -> int | None:
    """A number that is to be a whole one, and may be missing."""
    return int(number) if isinstance(number, (int, float)) else None


def _value(state: Any) -> str:
    """The text of a state, which is an enum, a string or nothing."""
    return str(getattr(state, "value", state) or "")
