"""Secrets: named values that sandboxes know by placeholders only.

In Daytona's cloud an outbound proxy puts the value in place of the placeholder for the hosts that a secret
names. There is no such proxy here, so a sandbox sees the placeholder and nothing ever sees the value. Values
are kept in memory only.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from .clock import to_iso
from .errors import bad_request, conflict, not_found
from .records import new_token


@dataclass
class SecretRecord:
    """One secret."""

    id: str
    name: str
    value: str
    created_at: float
    updated_at: float
    description: str | None = None
    hosts: list[str] = field(default_factory=list)
    placeholder: str = field(default_factory=lambda: f"dtn_secret_{new_token(24)}")

    def dto(self) -> dict[str, Any]:
        """The ``Secret`` of the API, without the value."""
        body: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "createdAt": to_iso(self.created_at),
            "updatedAt": to_iso(self.updated_at),
            "placeholder": self.placeholder,
            "hosts": self.hosts,
        }
        if self.description is not None:
            body["description"] = self.description
        return body


class SecretStore:
    """All secrets of this server process."""

    def __init__(self) -> None:
        self._records: dict[str, SecretRecord] = {}

    def all(self) -> list[SecretRecord]:
        """All secrets."""
        return list(self._records.values())

    def find(self, secret_id: str) -> SecretRecord:
        """Look up by id. ``ApiError`` 404."""
        if secret_id not in self._records:
            raise not_found("Secret", secret_id)
        return self._records[secret_id]

    def create(self, body: dict[str, Any], now: float) -> SecretRecord:
        """Make a secret. ``ApiError`` 400 or 409 (the name is taken)."""
        name, value = body.get("name"), body.get("value")
        if not isinstance(name, str) or not name or not isinstance(value, str):
            raise bad_request("a secret needs a name and a value")
        if any(record.name == name for record in self._records.values()):
            raise conflict(f"Secret with name {name} already exists")
        record = SecretRecord(str(uuid.uuid4()), name, value, now, now)
        self.update(record, body, now)
        self._records[record.id] = record
        return record

    def update(self, record: SecretRecord, body: dict[str, Any], now: float) -> None:
        """Change the fields that the body has."""
        hosts = body.get("hosts")
        if hosts is not None:
            if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
                raise bad_request("hosts must be an array of strings")
            record.hosts = list(hosts)
        if isinstance(body.get("description"), str):
            record.description = body["description"]
        if isinstance(body.get("value"), str):
            record.value = body["value"]
        record.updated_at = now

    def delete(self, secret_id: str) -> None:
        """Forget a secret. ``ApiError`` 404."""
        del self._records[self.find(secret_id).id]

    def check(self, wishes: list[dict[str, str]]) -> None:
        """Refuse names that do not exist. ``ApiError`` 400."""
        known = {record.name for record in self._records.values()}
        missing = [name for wish in wishes for name in wish.values() if name not in known]
        if missing:
            raise bad_request(f"Secret {missing[0]} not found")

    def environment(self, wishes: list[dict[str, str]]) -> dict[str, str]:
        """Environment variables with the placeholders."""
        by_name = {record.name: record.placeholder for record in self._records.values()}
        return {key: by_name[name] for wish in wishes for key, name in wish.items() if name in by_name}
