"""What all handlers of the server share."""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from .events import EventHub
from .history import MetricsHistory
from .options import ServerOptions
from .rates import RateLimiter
from .sandboxes import SandboxManager
from .secrets_store import SecretStore
from .snapshots import SnapshotStore
from .volumes import VolumeStore

if TYPE_CHECKING:
    from .access import SshAccessStore
    from .builds import BuildRunner
    from .preview_tokens import SignedPreviews
    from .warm_pools import WarmPoolStore


@dataclass
class ServerState:
    """The parts of one server."""

    options: ServerOptions
    api_key: str
    instance: str
    manager: SandboxManager
    snapshots: SnapshotStore
    volumes: VolumeStore
    secrets: SecretStore
    events: EventHub
    builds: BuildRunner
    ssh: SshAccessStore
    previews: SignedPreviews
    warm_pools: WarmPoolStore
    rates: RateLimiter
    history: MetricsHistory = field(default_factory=MetricsHistory)
    port: int = 0
    started_at: float = field(default_factory=time.time)
    last_request: float = field(default_factory=time.monotonic)
    """Monotonic time of the last authenticated request."""

    def authorized(self, request: web.BaseRequest) -> bool:
        """Whether a request carries the server's key."""
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.api_key}".encode())

    def note_request(self) -> None:
        """Somebody uses the server: it is not idle."""
        self.last_request = time.monotonic()

    def advertised_host(self) -> str:
        """The host name of the advertised URL; empty without one."""
        advertise = self.options.advertise
        return (urlsplit(advertise).hostname or "").lower() if advertise else ""

    def base_url(self) -> str:
        """What clients are told: the advertised URL, else loopback."""
        return self.options.advertise.rstrip("/") or f"http://127.0.0.1:{self.port}"

    def toolbox_url(self) -> str:
        """``toolboxProxyUrl`` of all sandboxes; the SDK appends ``/{id}/...``."""
        return f"{self.base_url()}/toolbox"


STATE = web.AppKey("state", ServerState)
