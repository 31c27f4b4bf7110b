"""``jupyter daytona doctor``: look at everything a notebook needs and say what is missing and what to do
about it.

Nothing is changed, no sandbox is made, and no key is shown. With ``--offline`` the service is not asked
either.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .config import DaytonaSettings, find_credential
from .errors import DaytonaKernelError

OK, NOTE, BAD = "ok", "note", "BAD"
_PACKAGES = ("daytona-kernel", "daytona", "ipykernel", "ipython", "jupyter-client", "websockets", "aiohttp")
_DESKTOP = ("Xvfb", "x11vnc", "websockify", "openbox")
# How long the service may take to answer, in seconds.
_ANSWER_SECONDS = 20


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``OK``, ``NOTE`` (works, but you may want more) or ``BAD``."""

    level: str
    text: str
    advice: str = ""


def run(offline: bool) -> int:
    """Print all findings; 1 if something is bad."""
    checks: list[Callable[[], Iterable[Finding]]] = [check_python, check_kernelspec, check_service]
    checks.append(check_local)
    if not offline:
        checks.append(check_connection)
    worst = 0
    for check in checks:
        for finding in check():
            print(f"{finding.level:>4}  {finding.text}")
            if finding.advice:
                print(f"      -> {finding.advice}")
            worst |= finding.level == BAD
    return int(worst)


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
    settings = DaytonaSettings()
    try:
        settings.check()
    except DaytonaKernelError as exc:
        yield Finding(BAD, str(exc))
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


def check_connection() -> Iterator[Finding]:
    """Whether the service answers, with the credentials that are set. Starts the local server if that is
    used.
    """
    try:
        count, where = asyncio.run(asyncio.wait_for(_count_sandboxes(), _ANSWER_SECONDS))
    except asyncio.TimeoutError:
        yield Finding(
            BAD, f"the service did not answer within {_ANSWER_SECONDS} s", "is DAYTONA_API_URL right?"
        )
    except DaytonaKernelError as exc:
        yield Finding(BAD, f"{type(exc).__name__}: {exc}")
    else:
        yield Finding(OK, f"{where} answers; sandboxes of notebooks there: {count}")


async def _count_sandboxes() -> tuple[int, str]:
    from .inventory import find
    from .sandbox import SandboxManager

    manager = SandboxManager(DaytonaSettings())
    try:
        client = await manager.client()
        entries = await find(client, everything=False)
        assert manager.service is not None
        return len(entries), "the local server" if manager.service.local else "Daytona's service"
    finally:
        await manager.close()
