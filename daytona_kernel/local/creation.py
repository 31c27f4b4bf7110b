"""What ``POST /sandbox`` may say: pure checks that turn the request's body into a record."""

from __future__ import annotations

import re
from typing import Any

from .errors import bad_request
from .records import LANGUAGE_LABEL, TARGET, SandboxRecord

LANGUAGES = ("", "python", "typescript", "javascript")
MAX_AUTO_ARCHIVE_MINUTES = 43200
NAME_RULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/ -]{0,252}\Z")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
ECHOED = ("spot", "kvm", "outboundProxyUrl", "otelEndpointOverride", "gpuType")


def text_map(value: Any, what: str) -> dict[str, str]:
    """A JSON object of strings; ``None`` counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise bad_request(f"{what} must be an object with string values")
    return dict(value)


def integer(body: dict[str, Any], name: str, lowest: int, default: int) -> int:
    """An optional whole number of the body."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_request(f"{name} must be an integer number")
    if value < lowest:
        raise bad_request(f"{name} must not be less than {lowest}")
    return value


def flag(body: dict[str, Any], name: str) -> bool:
    """An optional boolean of the body; absent is false."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise bad_request(f"{name} must be a boolean value")
    return value


def optional_text(body: dict[str, Any], name: str) -> str | None:
    """An optional string of the body; empty counts as absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_request(f"{name} must be a string")
    return value or None


def words(body: dict[str, Any], name: str) -> list[str] | None:
    """An optional array of strings of the body; empty counts as absent."""
    value = body.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
        raise bad_request(f"{name} must be an array of strings")
    return value or None


def check_labels(labels: dict[str, str]) -> dict[str, str]:
    """Labels that clients can parse: the SDK refuses a sandbox whose language label it does not know."""
    if labels.get(LANGUAGE_LABEL, "") not in LANGUAGES:
        raise bad_request(f"label {LANGUAGE_LABEL} must be python, typescript, or javascript")
    return labels


def check_network(allow_list: str | None, domains: str | None) -> None:
    """Refuse what this server can not enforce."""
    if allow_list or domains:
        raise bad_request(
            "network allow lists can not be enforced by the local sandbox server; "
            "use networkBlockAll, or leave the network open"
        )


def check_archive_interval(minutes: int) -> int:
    """``autoArchiveInterval`` with 0 standing for the longest possible."""
    if minutes < 0 or minutes > MAX_AUTO_ARCHIVE_MINUTES:
        raise bad_request(f"Auto-archive interval must be between 0 and {MAX_AUTO_ARCHIVE_MINUTES} minutes")
    return minutes or MAX_AUTO_ARCHIVE_MINUTES


def check_secrets(value: Any) -> list[dict[str, str]]:
    """``[{"ENV": "secretName"}, ...]``."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad_request("secrets must be an array")
    return [text_map(item, "each of secrets") for item in value]


def new_record(body: dict[str, Any], sandbox_id: str, now: float) -> SandboxRecord:
    """The record that a creation request asks for, without what its snapshot adds.

    ``ApiError`` 400: for values of the wrong type or range.
    """
    name = optional_text(body, "name") or sandbox_id
    if not NAME_RULE.match(name):
        raise bad_request("name must start with a letter or digit and have at most 253 simple characters")
    env = text_map(body.get("env"), "env")
    if wrong := [key for key in env if not ENV_NAME.match(key)]:
        raise bad_request(f"env has a name that is no variable name: {wrong[0]}")
    if any("\0" in value for value in env.values()):
        raise bad_request("env has a value with a NUL byte")
    record = SandboxRecord(
        id=sandbox_id,
        name=name,
        created_at=now,
        updated_at=now,
        last_activity_at=now,
        target=optional_text(body, "target") or TARGET,
        user=optional_text(body, "user") or "daytona",
        env=env,
        labels=check_labels(text_map(body.get("labels"), "labels")),
        public=flag(body, "public"),
        network_block_all=flag(body, "networkBlockAll"),
        network_allow_list=optional_text(body, "networkAllowList"),
        domain_allow_list=optional_text(body, "domainAllowList"),
        auto_stop_interval=integer(body, "autoStopInterval", 0, 15),
        auto_archive_interval=check_archive_interval(integer(body, "autoArchiveInterval", 0, 10080)),
        auto_delete_interval=integer(body, "autoDeleteInterval", -1, -1),
        linked_sandbox=optional_text(body, "linkedSandbox"),
        secrets=check_secrets(body.get("secrets")),
        extra={key: body[key] for key in ECHOED if body.get(key) is not None},
    )
    check_network(record.network_allow_list, record.domain_allow_list)
    if body.get("autoPauseInterval") is not None:
        record.auto_pause_interval = integer(body, "autoPauseInterval", 0, 0)
    if body.get("queueTimeout") is not None:
        record.queue_timeout = integer(body, "queueTimeout", 0, 0)
    if body.get("ttlMinutes") is not None:
        record.ttl_minutes = integer(body, "ttlMinutes", 0, 0) or None
    return record


def apply_resources(record: SandboxRecord, body: dict[str, Any]) -> None:
    """Take cpu, memory, disk and gpu from the body into the record."""
    record.cpu = integer(body, "cpu", 1, record.cpu)
    record.memory = integer(body, "memory", 1, record.memory)
    record.disk = integer(body, "disk", 1, record.disk)
    record.gpu = integer(body, "gpu", 0, record.gpu)
    if record.gpu:
        raise bad_request("the local sandbox server has no GPUs to give")
