"""``jupyter daytona doctor``: look at everything a notebook needs and say what is missing and what to do
about it.

Nothing is changed and no key is shown. A sandbox is made, asked something and deleted, to tell how long that
takes; not with ``--quick``. With ``--offline`` the service is not asked at all.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import netrc
import os
import platform
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .account import user_settings
from .config import DaytonaSettings, find_credential
from .controlplane import DEFAULT_API_URL
from .errors import DaytonaKernelError
from .proxies import proxy_for
from .terminal import spelled

OK, NOTE, BAD = "ok", "note", "BAD"
_PACKAGES = ("daytona-kernel", "daytona", "ipykernel", "ipython", "jupyter-client", "websockets", "aiohttp")
_DESKTOP = ("Xvfb", "x11vnc", "websockify", "openbox")
# How long the service may take to answer, in seconds.
_ANSWER_SECONDS = 20
_SERVICE = "Daytona's service"
_ROUND_TRIPS = 5
# Tokens and signed links of services are good for minutes; a clock that is off by more makes them useless.
_CLOCK_SECONDS = 60
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``OK``, ``NOTE`` (works, but you may want more) or ``BAD``."""

    level: str
    text: str
    advice: str = ""


def run(*, offline: bool = False, quick: bool = False, as_json: bool = False) -> int:
    """Print all findings; 1 if something is bad."""
    checks: list[Callable[[], Iterable[Finding]]] = [
        check_python,
        check_kernelspec,
        check_service,
        check_proxy,
    ]
    checks += [check_netrc, check_local]
    if not offline:
        checks += [check_endpoint, check_connection]
        if not quick:
            checks.append(check_round_trip)
    findings = []
    for check in checks:
        for finding in check():
            findings.append(finding)
            if not as_json:
                _show(finding)
    worst = any(finding.level == BAD for finding in findings)
    if as_json:
        print(json.dumps({"ok": not worst, "findings": [asdict(one) for one in findings]}, indent=2))
    return int(worst)


def _show(finding: Finding) -> None:
    print(f"{finding.level:>4}  {spelled(finding.text)}", flush=True)
    if finding.advice:
        print(f"      -> {spelled(finding.advice)}", flush=True)


def check_python() -> Iterator[Finding]:
    """Which Python this is and what is installed in it."""
    yield Finding(OK, f"Python {platform.python_version()} at {sys.executable}")
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(BAD, f"the package {name} is not installed", f"pip install {name}")
    yield Finding(OK, ", ".join(found))


def check_kernelspec() -> Iterator[Finding]:
    """Whether Jupyter finds a kernel that starts this package, in this Python."""
    from jupyter_client.kernelspec import KernelSpecManager

    from .kernelspecs import is_ours

    found = KernelSpecManager().find_kernel_specs()
    ours = {name: path for name, path in found.items() if is_ours(Path(path))}
    if not ours:
        yield Finding(BAD, "Jupyter does not find the kernel", "jupyter daytona install")
    for name, path in sorted(ours.items()):
        program = json.loads(Path(path, "kernel.json").read_text(encoding="utf-8"))["argv"][0]
        if program.startswith("python") or shutil.which(program):
            yield Finding(OK, f"kernel {name!r} in {path}")
        else:
            again = f"jupyter daytona install --name {name}"
            yield Finding(BAD, f"kernel {name!r} in {path} starts {program}, which is not there", again)


def check_service() -> Iterator[Finding]:
    """Which service notebooks started here would use, and why."""
    try:
        settings = user_settings()
        settings.check()
    except DaytonaKernelError as exc:
        yield Finding(BAD, str(exc))
        settings = _settings()
    if settings.is_local:
        reason = "as the setting 'backend' says" if settings.backend == "local" else "no credentials are set"
        yield Finding(OK, f"notebooks run in the embedded local server ({reason})", _CREDENTIALS_ADVICE)
        return
    kind = "API key" if settings.api_key or find_credential("DAYTONA_API_KEY") else "JWT token"
    if settings.has_credentials:
        yield Finding(OK, f"notebooks run in Daytona's service; found credentials ({kind}, not shown)")
    else:
        yield Finding(
            BAD,
            "the setting 'backend' asks for the service, but there are no credentials",
            _CREDENTIALS_ADVICE,
        )


def _settings(**given: Any) -> DaytonaSettings:
    """What notebooks started here would have; without the configuration file if that can not be used."""
    try:
        return user_settings(**given)
    except DaytonaKernelError:
        return DaytonaSettings(**given)


_CREDENTIALS_ADVICE = "to use an account: export DAYTONA_API_KEY=..., or put it into .env beside the notebook"


def check_local() -> Iterator[Finding]:
    """What the local server needs from the system."""
    if shutil.which("bwrap"):
        yield Finding(OK, "bubblewrap is installed: local sandboxes are isolated")
    else:
        text = "bubblewrap is not installed: local sandboxes are plain processes, not isolated"
        yield Finding(NOTE, text, "apt install bubblewrap")
    missing = [name for name in _DESKTOP if shutil.which(name) is None]
    if missing:
        advice = "apt install xvfb x11vnc novnc websockify openbox"
        yield Finding(NOTE, f"no desktop in local sandboxes without {', '.join(missing)}", advice)
    else:
        yield Finding(OK, "the programs for a desktop in local sandboxes are installed")


def check_proxy() -> Iterator[Finding]:
    """Whether the environment sends connections through a proxy. Passwords in its address are not shown."""
    found = {name: os.environ.get(name) or os.environ.get(name.lower(), "") for name in _PROXIES}
    shown = [f"{name}={_without_password(value)}" for name, value in found.items() if value]
    if not shown:
        yield Finding(OK, "no proxy is set")
        return
    spared = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    hosts = {word.strip() for word in spared.split(",")}
    text = f"connections go through a proxy: {', '.join(shown)}"
    if _settings().is_local and not hosts & {"*", "127.0.0.1"}:
        yield Finding(
            NOTE,
            f"{text}; the local server must be reached without",
            f"export NO_PROXY={','.join(filter(None, [spared, '127.0.0.1,localhost']))}",
        )
    else:
        yield Finding(OK, text)


def check_netrc() -> Iterator[Finding]:
    """Whether ``~/.netrc`` is in the way of the SDK's client, and so of ``%daytona`` commands.

    aiohttp, as the SDK 0.226 uses it, takes a password of that file for every call that has a key already,
    and then refuses to send both.
    """
    settings = _settings()
    if settings.is_local:
        return
    name = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    host = urlsplit(settings.api_url or os.environ.get("DAYTONA_API_URL") or DEFAULT_API_URL).hostname or ""
    try:
        found = netrc.netrc(name).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return
    if found is not None:
        yield Finding(
            BAD,
            f"{name} has an entry for {host}, or a default one: commands of %daytona fail with it",
            "remove it, or export NETRC=/dev/null",
        )


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if parts.password is None:
        return address
    return address.replace(f":{parts.password}@", ":***@")


def check_endpoint() -> Iterator[Finding]:
    """Whether the service's address is one, its name is known (DNS), and its clock agrees with ours."""
    settings = _settings()
    if settings.is_local:
        return
    url = settings.api_url or os.environ.get("DAYTONA_API_URL") or DEFAULT_API_URL
    parts = urlsplit(url)
    advice = "DAYTONA_API_URL looks like https://host/api; unset it for the public service"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield Finding(BAD, f"the service's address {url!r} is no URL", advice)
        return
    loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme == "http" and not loopback:
        yield Finding(BAD, f"{url} is not https: the key would be sent for anybody to read", advice)
    began = time.perf_counter()
    try:
        addresses = {item[4][0] for item in socket.getaddrinfo(parts.hostname, parts.port or 443)}
    except OSError as exc:
        yield Finding(
            BAD,
            f"the name {parts.hostname} is not known to DNS ({exc.strerror or exc})",
            "is DAYTONA_API_URL right, and is there a network?",
        )
        return
    took = _milliseconds(time.perf_counter() - began)
    yield Finding(OK, f"{url} is at {', '.join(sorted(map(str, addresses))[:3])} (DNS: {took})")
    yield from _compare_clocks(url)


def _compare_clocks(url: str) -> Iterator[Finding]:
    try:
        date = asyncio.run(asyncio.wait_for(_date(url), _ANSWER_SECONDS))
        seconds = parsedate_to_datetime(date).timestamp() - time.time()
    except Exception as exc:
        # Whether the service answers is for check_connection to say.
        yield Finding(NOTE, f"the clock could not be compared with the service's ({type(exc).__name__})")
        return
    if abs(seconds) > _CLOCK_SECONDS:
        how = "behind" if seconds > 0 else "ahead of"
        text = f"this machine's clock is {abs(seconds):.0f} s {how} the service's"
        yield Finding(BAD, text, "set the clock (timedatectl set-ntp true): tokens and signed links fail")
    else:
        yield Finding(OK, "the clock agrees with the service's")


async def _date(url: str) -> str:
    """The time as the service has it. Any answer has it; no key is sent."""
    import aiohttp

    async with (
        aiohttp.ClientSession(proxy=proxy_for(url)) as session,
        session.get(f"{url.rstrip('/')}/config", allow_redirects=False) as answer,
    ):
        return answer.headers["Date"]


def check_connection() -> Iterator[Finding]:
    """Whether the service answers, with the credentials that are set. Starts the local server if that is
    used.
    """
    try:
        count, where = asyncio.run(_count_sandboxes())
    except DaytonaKernelError as exc:
        yield Finding(BAD, f"{type(exc).__name__}: {exc}")
    else:
        if count is None:
            advice = "is DAYTONA_API_URL right?" if where == _SERVICE else "run: jupyter daytona local stop"
            yield Finding(BAD, f"{where} did not answer within {_ANSWER_SECONDS} s", advice)
        else:
            yield Finding(OK, f"{where} answers; sandboxes of notebooks there: {count}")


def check_round_trip() -> Iterator[Finding]:
    """Make a sandbox, ask it something, delete it; how long each took."""
    try:
        created, trip, python = asyncio.run(_time_a_sandbox())
    except DaytonaKernelError as exc:
        yield Finding(BAD, f"no sandbox could be used: {type(exc).__name__}: {exc}")
        return
    yield Finding(
        OK, f"a sandbox was there after {created:.2f} s; a command in it takes {_milliseconds(trip)}"
    )
    if python:
        yield Finding(OK, f"Python {python} is in it")
    else:
        yield Finding(
            BAD, "there is no Python 3 in it", "use another snapshot or image: cells need Python 3.10"
        )


async def _time_a_sandbox() -> tuple[float, float, str]:
    """Seconds until a sandbox is there, seconds of a command, and its Python's version."""
    from .sandbox import SandboxManager
    from .toolbox import Toolbox

    settings = _settings(headless=True, sandbox="", on_shutdown="delete")
    manager = SandboxManager(settings)
    began = time.perf_counter()
    try:
        await manager.acquire()
        created = time.perf_counter() - began
        toolbox = Toolbox(manager.endpoint())
        try:
            code, output = await toolbox.execute("sh", "-c", "python3 --version || python --version")
            trips = []
            for _ in range(_ROUND_TRIPS):
                began = time.perf_counter()
                await toolbox.execute("true")
                trips.append(time.perf_counter() - began)
        finally:
            await toolbox.close()
        version = output.strip().removeprefix("Python ") if code == 0 and "Python 3" in output else ""
        return created, statistics.median(trips), version
    finally:
        await manager.release()
        await manager.close()


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


async def _count_sandboxes() -> tuple[int | None, str]:
    """How many there are, ``None`` if there was no answer in time; and who was asked.

    The time is the answer's: importing the SDK for the first time takes long on a slow machine, and starting
    the local server has a limit of its own.
    """
    from .inventory import find
    from .sandbox import SandboxManager

    manager = SandboxManager(_settings())
    try:
        client = await manager.client()
        assert manager.service is not None
        where = "the local server" if manager.service.local else _SERVICE
        try:
            entries = await asyncio.wait_for(find(client, everything=False), _ANSWER_SECONDS)
        except asyncio.TimeoutError:
            return None, where
        return len(entries), where
    finally:
        await manager.close()
