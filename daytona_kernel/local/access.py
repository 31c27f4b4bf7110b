"""SSH access tokens: real records, but there is no SSH gateway here, and the command says so."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from .clock import Clock, to_iso
from .errors import bad_request
from .records import new_token

DEFAULT_MINUTES = 60.0


@dataclass(frozen=True)
class SshAccess:
    """One token."""

    id: str
    sandbox_id: str
    token: str
    created_at: float
    expires_at: float

    def dto(self) -> dict[str, Any]:
        """The ``SshAccessDto`` of the API."""
        return {
            "id": self.id,
            "sandboxId": self.sandbox_id,
            "token": self.token,
            "expiresAt": to_iso(self.expires_at),
            "createdAt": to_iso(self.created_at),
            "updatedAt": to_iso(self.created_at),
            "sshCommand": f"echo 'the local sandbox server has no SSH gateway (token {self.token[:4]}...)'",
        }


class SshAccessStore:
    """All tokens of this server process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_token: dict[str, SshAccess] = {}

    def create(self, sandbox_id: str, minutes: float) -> SshAccess:
        """A new token. ``ApiError`` 400: the time is not positive."""
        if not 0 < minutes <= 10 * 365 * 24 * 60:
            raise bad_request("expiresInMinutes must be greater than 0")
        now = self._clock.now()
        expires = now + self._clock.minutes(minutes)
        access = SshAccess(str(uuid.uuid4()), sandbox_id, new_token(), now, expires)
        self._by_token[access.token] = access
        return access

    def revoke(self, sandbox_id: str, token: str | None) -> None:
        """Forget a token of a sandbox, or all of them."""
        for access in list(self._by_token.values()):
            if access.sandbox_id == sandbox_id and token in (None, "", access.token):
                del self._by_token[access.token]

    def validate(self, token: str) -> str | None:
        """The sandbox that a token opens; ``None`` if it opens none (any more)."""
        access = self._by_token.get(token)
        if access is None or access.expires_at <= self._clock.now():
            return None
        return access.sandbox_id
