"""Which of Daytona's services a notebook uses, the cloud's or the embedded one, and who it is there."""

from __future__ import annotations

import asyncio
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import DaytonaSettings
from .controlplane import ControlPlane
from .errors import ConnectionFailed, CredentialsError
from .patience import make_patient

if TYPE_CHECKING:
    from daytona import AsyncDaytona


@dataclass(frozen=True)
class Service:
    """Where the control plane is. ``local``: the embedded server. The key is never shown."""

    api_url: str
    api_key: str
    local: bool
    jwt_token: str = ""
    organization_id: str = ""

    def __repr__(self) -> str:
        return f"Service({self.api_url!r}, local={self.local})"


async def find_service(settings: DaytonaSettings) -> Service:
    """The service that the settings mean; the embedded one is started if it does not run.

    Raises :class:`CredentialsError` and :class:`ConnectionFailed`.
    """
    if settings.is_local:
        return await asyncio.to_thread(_local_service)
    if not settings.has_credentials:
        raise CredentialsError("There are no credentials for Daytona's service.")
    # From the process's environment only: a notebook's folder must not say where the key goes.
    api_url = os.environ.get("DAYTONA_API_URL", "") or os.environ.get("DAYTONA_SERVER_URL", "")
    key = settings.api_key or settings.credential("DAYTONA_API_KEY")
    token, organization = map(settings.credential, ("DAYTONA_JWT_TOKEN", "DAYTONA_ORGANIZATION_ID"))
    return Service(settings.api_url or api_url, key, False, token, organization)


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


def open_plane(service: Service) -> ControlPlane:
    """Its control plane, without the SDK. Raises :class:`CredentialsError` for half a credential."""
    if service.api_key:
        return ControlPlane(service.api_url, service.api_key)
    if not service.organization_id:
        raise CredentialsError(
            "DAYTONA_JWT_TOKEN is set without DAYTONA_ORGANIZATION_ID.",
            hint="Set both, or DAYTONA_API_KEY.",
        )
    return ControlPlane(service.api_url, service.jwt_token, service.organization_id)


def make_client(service: Service, settings: DaytonaSettings) -> AsyncDaytona:
    """The SDK's client. Blocking: the import takes a second. Raises what the SDK raises."""
    from daytona import AsyncDaytona, DaytonaConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = DaytonaConfig(
            api_key=service.api_key or None,
            api_url=service.api_url or None,
            target=settings.target or None,
        )
        client = AsyncDaytona(config)
    make_patient(client)
    return client
