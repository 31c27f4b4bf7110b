"""Signed preview links: a token in the host name that opens one port of one sandbox for a while."""

from __future__ import annotations

from dataclasses import dataclass

from .clock import Clock
from .errors import ApiError, bad_request
from .records import new_token

DEFAULT_SECONDS = 60
MAX_SECONDS = 86400


@dataclass(frozen=True)
class SignedPreview:
    """One token."""

    token: str
    sandbox_id: str
    port: int
    expires_at: float


class SignedPreviews:
    """All tokens of this server process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_token: dict[str, SignedPreview] = {}

    def create(self, sandbox_id: str, port: int, seconds: int) -> SignedPreview:
        """A new token. ``ApiError`` 400: the life time is out of range."""
        if not 1 <= seconds <= MAX_SECONDS:
            raise bad_request(f"expiresInSeconds must be between 1 and {MAX_SECONDS}")
        self._forget_old()
        preview = SignedPreview(new_token(16), sandbox_id, port, self._clock.now() + seconds)
        self._by_token[preview.token] = preview
        return preview

    def expire(self, sandbox_id: str, port: int, token: str) -> None:
        """Take a token back. ``ApiError`` 404: there is no such token."""
        preview = self._by_token.get(token)
        if preview is None or preview.sandbox_id != sandbox_id or preview.port != port:
            raise ApiError(404, "Signed preview URL token not found")
        del self._by_token[token]

    def find(self, token: str) -> SignedPreview | None:
        """The token's facts while it is valid."""
        preview = self._by_token.get(token)
        return preview if preview is not None and preview.expires_at > self._clock.now() else None

    def _forget_old(self) -> None:
        now = self._clock.now()
        for preview in [item for item in self._by_token.values() if item.expires_at <= now]:
            del self._by_token[preview.token]
