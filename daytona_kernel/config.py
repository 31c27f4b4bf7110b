"""Settings: which service, which sandbox, and what becomes of it. Every trait's ``help`` is its manual.

Order of precedence: command line or configuration file, then ``DAYTONA_KERNEL_*`` and ``DAYTONA_*``
environment variables, then the default.
"""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any

from traitlets import (
    Bool,
    CaselessStrEnum,
    Dict,
    Float,
    Int,
    TraitError,
    TraitType,
    Unicode,
    default,
    validate,
)
from traitlets.config import LoggingConfigurable

from .errors import ConfigurationError

_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)", re.IGNORECASE | re.ASCII)

_DURATION_HINT = "Write it like 45s, 30m, 1h30m or 7d."
_ON_SHUTDOWN = ("auto", "stop", "delete", "keep")
_TRUST = ("full", "isolated")
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_BACKENDS = ("auto", "daytona", "local")
CREDENTIALS = ("DAYTONA_API_KEY", "DAYTONA_JWT_TOKEN", "DAYTONA_ORGANIZATION_ID", "DAYTONA_TARGET")
"""What a file ``.env`` may say of an account; the first two are what opens it."""


def parse_duration_s(text: object) -> float:
    """Seconds of a human duration: ``30m``, ``1h30m``, ``7d``; a bare number is seconds.

    Raises :class:`ConfigurationError` for anything else, negative numbers included.
    """
    if isinstance(text, (int, float)):
        if not 0 <= text < math.inf:
            raise ConfigurationError(f"A duration can not be {text}.")
        return float(text)
    if not isinstance(text, str):
        raise ConfigurationError(f"{text!r} is not a duration.", hint=_DURATION_HINT)
    position, total = 0, 0.0
    stripped = text.strip()
    while position < len(stripped):
        match = _DURATION.match(stripped, position)
        if match is None:
            break
        total += float(match[1]) * _UNITS_S[match[2].lower()]
        position = match.end()
    if not stripped or position < len(stripped):
        raise ConfigurationError(f"{text!r} is not a duration.", hint=_DURATION_HINT)
    return total


class Duration(TraitType):  # type: ignore[type-arg]
    """A trait that takes human durations and holds seconds."""

    info_text = "a duration such as 45s, 30m, 1h30m or 7d"

    def validate(self, obj: Any, value: Any) -> float | None:
        """Turn ``value`` into seconds. ``None`` passes where it is allowed."""
        if value is None:
            return None
        try:
            return parse_duration_s(value)
        except ConfigurationError as exc:
            raise TraitError(str(exc)) from exc


def _env(name: str, fallback: str = "") -> str:
    return os.environ.get(name, fallback)


class DaytonaSettings(LoggingConfigurable):
    """Which service to use, which sandbox, and what to do with it."""

    backend = CaselessStrEnum(
        _BACKENDS,
        default_value="auto",
        help="Where sandboxes live: 'daytona' (the service; needs credentials), 'local' (the embedded server "
        "on this machine), or 'auto': the service if there are credentials, else local. "
        "Environment: DAYTONA_KERNEL_BACKEND.",
    ).tag(config=True)
    api_key = Unicode(
        help="API key. Default: DAYTONA_API_KEY from the environment, or from .env.local or .env in the "
        "working directory, as the SDK reads them."
    ).tag(config=True)
    api_url = Unicode(
        help="Base URL of the control plane, ending in /api. Default: DAYTONA_API_URL from the environment "
        "(never from .env), else the public service."
    ).tag(config=True)
    target = Unicode(help="Region for new sandboxes. Default: DAYTONA_TARGET, else the organization's.").tag(
        config=True
    )
    sandbox = Unicode(
        help="Name or id of an existing sandbox to use. It is started if it is stopped, and never deleted. "
        "Default: DAYTONA_SANDBOX; empty = the one this notebook had last time, else a new one."
    ).tag(config=True)
    snapshot = Unicode(
        help="Snapshot to create sandboxes from. Empty = the service's default. "
        "Environment: DAYTONA_KERNEL_SNAPSHOT."
    ).tag(config=True)
    image = Unicode(
        help="Image to create sandboxes from, such as python:3.12-slim; not with a snapshot. "
        "Environment: DAYTONA_KERNEL_IMAGE."
    ).tag(config=True)
    cpu = Int(
        min=0,
        help="vCPUs of a new sandbox; only with an image. 0 = default. Environment: DAYTONA_KERNEL_CPU.",
    ).tag(config=True)
    memory_gib = Int(
        min=0,
        help="Memory of a new sandbox in GiB; only with an image. 0 = default. "
        "Environment: DAYTONA_KERNEL_MEMORY_GIB.",
    ).tag(config=True)
    disk_gib = Int(
        min=0,
        help="Disk of a new sandbox in GiB; only with an image. 0 = default. "
        "Environment: DAYTONA_KERNEL_DISK_GIB.",
    ).tag(config=True)
    gpu = Int(
        min=0,
        help="GPUs of a new sandbox; only with an image, and where the service has them. 0 = none. "
        "Environment: DAYTONA_KERNEL_GPU.",
    ).tag(config=True)
    env_vars = Dict(
        help="Environment variables of a new sandbox. Values are never logged. "
        "Environment: DAYTONA_KERNEL_ENV_VARS, as a JSON object."
    ).tag(config=True)
    labels = Dict(
        help="Labels of a new sandbox, besides the kernel's own. "
        "Environment: DAYTONA_KERNEL_LABELS, as a JSON object."
    ).tag(config=True)
    network_block_all = Bool(
        False,
        help="Give a new sandbox no network at all. Environment: DAYTONA_KERNEL_NETWORK_BLOCK_ALL.",
    ).tag(config=True)
    auto_stop = Duration(
        default_value=None,
        allow_none=True,
        help="Idle time after which the service stops the sandbox: 30m, 2h; 0 = never. Whole minutes. "
        "None = the service's default of 15 minutes.",
    ).tag(config=True)
    auto_delete = Duration(
        default_value=7 * 86400.0,
        allow_none=True,
        help="Time a stopped sandbox of a notebook is kept before the service deletes it. None = for ever. "
        "Default 7d. Headless runs delete theirs at once.",
    ).tag(config=True)
    on_shutdown = CaselessStrEnum(
        _ON_SHUTDOWN,
        default_value="auto",
        help="What becomes of the sandbox when the kernel ends. auto: a notebook stops its own (files stay), "
        "a headless run, or a kernel without a notebook, deletes its own; one that was named is kept.",
    ).tag(config=True)
    headless = Bool(
        help="Whether this kernel serves a job and not a person: its sandbox is ephemeral. "
        "Default: DAYTONA_KERNEL_HEADLESS."
    ).tag(config=True)
    create_timeout = Duration(
        default_value=120.0,
        help="How long creating or starting a sandbox may take, as a duration. 0 = for ever.",
    ).tag(config=True)
    shelf = Unicode(
        help="Directory of this machine where %daytona push keeps variables for other notebooks. Default: "
        "DAYTONA_KERNEL_SHELF, else daytona-kernel/shelf in Jupyter's data directory."
    ).tag(config=True)
    output_trust = CaselessStrEnum(
        _TRUST,
        default_value="full",
        help="What rich output may do in the page that shows it. full: as under a local kernel, scripts and "
        "widgets included, which can do in Jupyter what you can. isolated: no script runs; HTML is shown in "
        "a closed frame, SVG as a picture, and widgets and JavaScript are left out. "
        "Environment: DAYTONA_KERNEL_OUTPUT_TRUST.",
    ).tag(config=True)
    redact_secrets = Bool(
        True,
        help="Replace the API key, and values of environment variables that were set from this side, by "
        "[redacted] where they turn up in a cell's output. Environment: DAYTONA_KERNEL_REDACT_SECRETS.",
    ).tag(config=True)
    status_after = Float(2.0, help="Seconds a first cell waits before it says what it waits for.").tag(
        config=True
    )

    def __init__(self, **kwargs: Any) -> None:
        self.env_folder = ""
        """Where ``.env`` files are looked for; empty: the working directory."""
        self._problems: list[str] = []
        super().__init__(**kwargs)

    @default("backend")
    def _default_backend(self) -> str:
        return self._choice("DAYTONA_KERNEL_BACKEND", _BACKENDS)

    @default("sandbox")
    def _default_sandbox(self) -> str:
        return _env("DAYTONA_SANDBOX")

    @default("snapshot")
    def _default_snapshot(self) -> str:
        return _env("DAYTONA_KERNEL_SNAPSHOT")

    @default("image")
    def _default_image(self) -> str:
        return _env("DAYTONA_KERNEL_IMAGE")

    @default("cpu")
    def _default_cpu(self) -> int:
        return self._number("DAYTONA_KERNEL_CPU")

    @default("memory_gib")
    def _default_memory_gib(self) -> int:
        return self._number("DAYTONA_KERNEL_MEMORY_GIB")

    @default("disk_gib")
    def _default_disk_gib(self) -> int:
        return self._number("DAYTONA_KERNEL_DISK_GIB")

    @default("gpu")
    def _default_gpu(self) -> int:
        return self._number("DAYTONA_KERNEL_GPU")

    @default("env_vars")
    def _default_env_vars(self) -> dict[str, str]:
        return self._texts("DAYTONA_KERNEL_ENV_VARS")

    @default("labels")
    def _default_labels(self) -> dict[str, str]:
        return self._texts("DAYTONA_KERNEL_LABELS")

    @default("shelf")
    def _default_shelf(self) -> str:
        return _env("DAYTONA_KERNEL_SHELF")

    @default("auto_stop")
    def _default_auto_stop(self) -> float | None:
        return self._duration("DAYTONA_KERNEL_AUTO_STOP", None)

    @default("on_shutdown")
    def _default_on_shutdown(self) -> str:
        return self._choice("DAYTONA_KERNEL_ON_SHUTDOWN", _ON_SHUTDOWN)

    @default("output_trust")
    def _default_output_trust(self) -> str:
        return self._choice("DAYTONA_KERNEL_OUTPUT_TRUST", _TRUST)

    @default("redact_secrets")
    def _default_redact_secrets(self) -> bool:
        return self._switch("DAYTONA_KERNEL_REDACT_SECRETS") or not _env("DAYTONA_KERNEL_REDACT_SECRETS")

    @default("headless")
    def _default_headless(self) -> bool:
        return self._switch("DAYTONA_KERNEL_HEADLESS")

    @default("network_block_all")
    def _default_network_block_all(self) -> bool:
        return self._switch("DAYTONA_KERNEL_NETWORK_BLOCK_ALL")

    @default("create_timeout")
    def _default_create_timeout(self) -> float | None:
        return self._duration("DAYTONA_KERNEL_CREATE_TIMEOUT", 120.0)

    # A value that can not be used is noted, and told by `check`: the kernel must live to say so.

    def _choice(self, variable: str, choices: tuple[str, ...]) -> str:
        """One of ``choices``, the first of which is the default."""
        text = _env(variable).strip().lower()
        if text and text not in choices:
            self._problems.append(f"{variable} is {text!r}; it can be {', '.join(choices)}.")
        return text if text in choices else choices[0]

    def _duration(self, variable: str, fallback: float | None) -> float | None:
        text = _env(variable)
        try:
            return parse_duration_s(text) if text else fallback
        except ConfigurationError as exc:
            self._problems.append(f"{variable}: {exc}")
            return fallback

    def _number(self, variable: str) -> int:
        text = _env(variable).strip()
        if text and not (text.isascii() and text.isdigit()):
            self._problems.append(f"{variable} is {text!r}; it can be a whole number.")
            return 0
        return int(text or 0)

    def _texts(self, variable: str) -> dict[str, str]:
        """A JSON object of names and texts. What is wrong with it is told without its values."""
        text = _env(variable)
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            self._problems.append(f"{variable} is not a JSON object of texts.")
            return {}
        return found

    def _switch(self, variable: str) -> bool:
        text = _env(variable).strip().lower()
        if text not in _YES and text not in _NO:
            self._problems.append(f"{variable} is {text!r}; it can be 1 or 0.")
        return text in _YES

    @validate("api_url")
    def _validate_api_url(self, proposal: Any) -> str:
        return str(proposal["value"]).rstrip("/")

    def check(self) -> None:
        """Refuse combinations that the service would refuse, before anything is called.

        Raises :class:`ConfigurationError` with the rule in its message.
        """
        for name in self.trait_names(config=True):
            getattr(self, name)
        if self._problems:
            raise ConfigurationError(self._problems[0])
        if self.snapshot and self.image:
            raise ConfigurationError("A sandbox is made from a snapshot or from an image, not from both.")
        if (self.cpu or self.memory_gib or self.disk_gib or self.gpu) and not self.image:
            raise ConfigurationError(
                "cpu, memory_gib, disk_gib and gpu need an image: a snapshot brings its own resources.",
                hint="Set image too, or choose a snapshot of that size.",
            )
        if self.auto_stop is not None and self.auto_stop % 60:
            raise ConfigurationError(
                f"auto_stop is counted in whole minutes, not {self.auto_stop:g} seconds."
            )

    @property
    def is_found_again(self) -> bool:
        """Whether a later kernel finds this sandbox: by the notebook's path, as Jupyter Server tells it."""
        return not self.headless and bool(os.environ.get("JPY_SESSION_NAME"))

    @property
    def has_credentials(self) -> bool:
        """Whether a key or token for the service is set anywhere the SDK would look."""
        return bool(
            self.api_key or self.credential("DAYTONA_API_KEY") or self.credential("DAYTONA_JWT_TOKEN")
        )

    def credential(self, name: str) -> str:
        """A ``DAYTONA_*`` credential as :func:`find_credential` finds it."""
        return find_credential(name, self.env_folder)

    @property
    def is_local(self) -> bool:
        """Whether the embedded server is to be used."""
        return self.backend == "local" or (self.backend == "auto" and not self.has_credentials)


def find_credential(name: str, folder: str = "") -> str:
    """A ``DAYTONA_*`` credential from the environment, ``.env.local`` or ``.env``, in the SDK's order."""
    if os.environ.get(name):
        return os.environ[name]
    for path in (os.path.join(folder, ".env.local"), os.path.join(folder, ".env")):
        if os.path.isfile(path):
            from dotenv import dotenv_values

            value = dotenv_values(path).get(name)
            if value:
                return value
    return ""
