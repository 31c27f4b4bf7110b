"""The sandbox's desktop: ``vnc`` starts, stops, shows and looks after it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DaytonaKernelError
from ..translation import one_line
from . import preview
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .sdk import explain, state_text
from .words import table_html, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox

NOVNC_PORT = 6080
PROCESSES = ("xvfb", "xfce4", "x11vnc", "novnc")
PACKAGES = "xvfb xfce4 xfce4-terminal x11vnc novnc dbus-x11"
"""What Daytona's documentation asks of an image for the desktop."""


async def started(host: Host) -> AsyncSandbox:
    """The sandbox with its desktop running. It is started if need be: it does not survive a stop."""
    sandbox = await host.sandbox()
    try:
        status = await sandbox.computer_use.get_status()
        if state_text(status.status) == "active":
            return sandbox
        host.status("Starting the desktop …")
        try:
            await sandbox.computer_use.start()
        finally:
            host.status(None)
    except DaytonaKernelError:
        raise
    except Exception as exc:
        raise _explained(exc) from exc
    return sandbox


def _explained(exc: Exception) -> DaytonaKernelError:
    """What is the matter with the desktop, and what to install where programs are missing."""
    status = getattr(exc, "status_code", None)
    text = one_line(exc)
    if status in (500, 502, 503) or status == 404:
        command = f"%daytona exec -- sudo apt-get install -y {PACKAGES}"
        hint = "" if "install" in text.lower() else f"What it needs, on Debian and Ubuntu: {command}"
        return CommandFailed(f"The desktop is not available in this sandbox: {text}", hint=hint)
    return explain(exc, "desktop")


class desktop:  # noqa: N801 - used like a function
    """Turns the SDK's errors into ours."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _type: Any, exc: BaseException | None, _traceback: Any) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, DaytonaKernelError):
            raise _explained(exc) from exc


def free_target(name: str, force: bool) -> Path:
    """A file of this machine that may be written. Raises :class:`UsageError` if it may not."""
    target = Path(name).expanduser().absolute()
    if target.is_dir() or not target.parent.is_dir():
        what = "is a directory" if target.is_dir() else "would be in a directory that is not there"
        raise UsageError(f"{target} {what}.", hint="Name a file.")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already.", hint="--force overwrites it.")
    return target


# -- vnc -------------------------------------------------------------------------------------------


@command("vnc start", "Desktop", examples=("%daytona vnc start",))
async def vnc_start(host: Host, args: argparse.Namespace) -> Result:
    """Start the desktop: X server, window manager, VNC and its page."""
    await started(host)
    return Result("active", "The desktop runs. %daytona vnc view shows it.")


@command("vnc stop", "Desktop", examples=("%daytona vnc stop",))
async def vnc_stop(host: Host, args: argparse.Namespace) -> Result:
    """Stop the desktop and what runs on it."""
    sandbox = await host.sandbox()
    with desktop():
        await sandbox.computer_use.stop()
    return Result("inactive", "The desktop is stopped")


@command("vnc status", "Desktop", examples=("%daytona vnc status",))
async def vnc_status(host: Host, args: argparse.Namespace) -> Result:
    """Show which parts of the desktop run."""
    sandbox = await host.sandbox()
    rows: list[tuple[str, str]] = []
    with desktop():
        status = state_text((await sandbox.computer_use.get_status()).status)
        for name in PROCESSES:
            one = await sandbox.computer_use.get_process_status(name)
            rows.append((name, "running" if one.running else "stopped"))
    value = {"status": status, **dict(rows)}
    return Result(
        value, f"The desktop is {status}\n{table_text((), rows)}", table_html((), rows, f"Desktop: {status}")
    )


def _view_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--expires", default="1h", metavar="TIME", help="how long the link works (default 1h)"
    )
    parser.add_argument("--iframe", action="store_true", help="show the desktop in the notebook")
    parser.add_argument(
        "--height", type=int, default=600, metavar="PX", help="height of the iframe (default 600)"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")


@command("vnc view", "Desktop", _view_arguments, examples=("%daytona vnc view --iframe",))
async def vnc_view(host: Host, args: argparse.Namespace) -> Result:
    """Link to the interactive desktop. Whoever has the link can use it until it expires."""
    expires_s = preview.checked_expiry(args.expires)
    preview._check_height(args.height)
    sandbox = await started(host)
    made = await preview.signed_link(host, sandbox, NOVNC_PORT, expires_s)
    page = preview.Link(
        made.port,
        f"{made.url.rstrip('/')}/vnc.html?autoconnect=true&resize=scale",
        made.token,
        made.expires,
        made.sandbox_id,
    )
    return await preview.show_link(page, args)


def _process_arguments(parser: Parser) -> None:
    parser.add_argument("process", choices=PROCESSES, help="part of the desktop")


def _process_log_arguments(parser: Parser) -> None:
    _process_arguments(parser)
    parser.add_argument("--errors", action="store_true", help="its error output")


@command("vnc logs", "Desktop", _process_log_arguments, examples=("%daytona vnc logs x11vnc --errors",))
async def vnc_logs(host: Host, args: argparse.Namespace) -> Result:
    """Show what a part of the desktop has written."""
    sandbox = await host.sandbox()
    with desktop():
        if args.errors:
            text = (await sandbox.computer_use.get_process_errors(args.process)).errors
        else:
            text = (await sandbox.computer_use.get_process_logs(args.process)).logs
    return Result(text, text or f"{args.process} has written nothing.")


@command("vnc restart", "Desktop", _process_arguments, examples=("%daytona vnc restart novnc",))
async def vnc_restart(host: Host, args: argparse.Namespace) -> Result:
    """Restart a part of the desktop."""
    sandbox = await host.sandbox()
    with desktop():
        await sandbox.computer_use.restart_process(args.process)
    return Result(args.process, f"Restarted {args.process}")
