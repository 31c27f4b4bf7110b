"""What the server knows about one sandbox, and how the API shows it."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .clock import to_iso

ORGANIZATION_ID = "local"
TARGET = "local"
USER = "daytona"
LANGUAGE_LABEL = "code-toolbox-language"
OWNER_LABEL = "daytona-kernel.owner-pid"
"""``<pid>:<start time>`` of a sandbox's owner; the sandbox is deleted when that process is gone."""

DAEMON_VERSION = "0.190.0"
TOKEN_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"  # noqa: S105 - an alphabet, not a token

TRANSITIONS = frozenset(
    [
        "creating",
        "restoring",
        "destroying",
        "starting",
        "stopping",
        "pending_build",
        "building_snapshot",
        "pulling_snapshot",
        "archiving",
        "resizing",
        "snapshotting",
        "forking",
        "pausing",
        "resuming",
    ]
)
"""States in which another state-changing call is refused with 409."""


def new_token(length: int = 32) -> str:
    """A random token of lower-case letters and digits, usable as a host name label."""
    return "".join(secrets.choice(TOKEN_ALPHABET) for _ in range(length))


@dataclass
class SandboxRecord:
    """One sandbox. Times are Unix seconds, intervals minutes, memory and disk GiB."""

    id: str
    name: str
    created_at: float
    updated_at: float
    last_activity_at: float
    snapshot: str | None = None
    user: str = USER
    target: str = TARGET
    env: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    public: bool = False
    network_block_all: bool = False
    network_allow_list: str | None = None
    domain_allow_list: str | None = None
    cpu: int = 2
    gpu: int = 0
    memory: int = 4
    disk: int = 10
    state: str = "creating"
    desired_state: str = "started"
    error_reason: str | None = None
    recoverable: bool = False
    backup_state: str = "None"
    backup_created_at: float | None = None
    auto_stop_interval: int = 15
    auto_pause_interval: int | None = None
    auto_archive_interval: int = 10080
    auto_delete_interval: int = -1
    ttl_minutes: int | None = None
    auto_destroy_at: float | None = None
    queue_timeout: int | None = None
    volumes: list[dict[str, str]] = field(default_factory=list)
    secrets: list[dict[str, str]] = field(default_factory=list)
    build_info: dict[str, Any] | None = None
    sandbox_class: str = "container"
    isolation: str = "none"
    python: str = ""
    """The interpreter that the sandbox's Python environment is made from; empty: the server's own."""
    bare: bool = False
    """Whether the Python environment has nothing of the host's packages."""
    auth_token: str = field(default_factory=new_token)
    signing_key: str = field(default_factory=new_token)
    work_dir: str = ""
    """Where commands start, as the sandbox sees it; empty: its home."""
    entrypoint: list[str] = field(default_factory=list)
    """What runs as the session ``entrypoint`` from each start on; empty: nothing."""
    parent_id: str | None = None
    linked_sandbox: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Creation parameters that are only echoed (spot, kvm, outboundProxyUrl, ...), by their wire names."""

    @property
    def ephemeral(self) -> bool:
        """Whether the sandbox is deleted as soon as it stops."""
        return self.auto_delete_interval == 0

    @property
    def busy(self) -> bool:
        """Whether a state transition is under way."""
        return self.state in TRANSITIONS

    def save(self, path: Path) -> None:
        """Write the record so that a crash leaves either the old or the new one."""
        temporary = path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump(asdict(self), stream)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> SandboxRecord:
        """Read a record; fields of a newer version are dropped.

        ``ValueError``, ``TypeError``: if the file is damaged. ``OSError``: if it can not be read.
        """
        data = json.loads(path.read_text())
        known = {item.name for item in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})

    def list_item(self, toolbox_url: str) -> dict[str, Any]:
        """The shape of ``GET /sandbox`` (a ``SandboxListItem``)."""
        item: dict[str, Any] = {
            "id": self.id,
            "organizationId": ORGANIZATION_ID,
            "name": self.name,
            "user": self.user,
            "labels": dict(self.labels),
            "public": self.public,
            "networkBlockAll": self.network_block_all,
            "target": self.target,
            "cpu": self.cpu,
            "gpu": self.gpu,
            "memory": self.memory,
            "disk": self.disk,
            "state": self.state,
            "desiredState": self.desired_state,
            "recoverable": self.recoverable,
            "backupState": self.backup_state,
            "autoStopInterval": self.auto_stop_interval,
            "autoArchiveInterval": self.auto_archive_interval,
            "autoDeleteInterval": self.auto_delete_interval,
            "createdAt": to_iso(self.created_at),
            "updatedAt": to_iso(self.updated_at),
            "lastActivityAt": to_iso(self.last_activity_at),
            "sandboxClass": self.sandbox_class,
            "daemonVersion": f"{DAEMON_VERSION}+local.{self.isolation}",
            "runnerId": f"local-{self.isolation}",
            "toolboxProxyUrl": toolbox_url,
        }
        optional = {
            "snapshot": self.snapshot,
            "errorReason": self.error_reason,
            "autoPauseInterval": self.auto_pause_interval,
            "autoDestroyAt": None if self.auto_destroy_at is None else to_iso(self.auto_destroy_at),
            "networkAllowList": self.network_allow_list,
            "domainAllowList": self.domain_allow_list,
        }
        item.update({key: value for key, value in optional.items() if value is not None})
        return item

    def dto(self, toolbox_url: str) -> dict[str, Any]:
        """The whole ``Sandbox`` object."""
        body = self.list_item(toolbox_url)
        body |= {"env": dict(self.env), "kvm": bool(self.extra.get("kvm", False)), "volumes": self.volumes}
        if self.backup_created_at is not None:
            body["backupCreatedAt"] = to_iso(self.backup_created_at)
        if self.build_info is not None:
            body["buildInfo"] = self.build_info
        if self.queue_timeout is not None:
            body["queueTimeout"] = self.queue_timeout
        if self.linked_sandbox is not None:
            body["linkedSandboxId"] = self.linked_sandbox
        body.update({key: value for key, value in self.extra.items() if key != "kvm"})
        return body
