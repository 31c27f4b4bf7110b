"""``preview``, ``previews``, ``serve``: what listens on a port of the sandbox, in the person's browser."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..remote import run_script
from . import jobs
from .host import CommandFailed, Host, Result, UsageError
from .process import command_line, where
from .registry import Parser, command, seconds_of
from .sdk import translated
from .words import duration, escape, link, moment, now, printable, table_html, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox

RESERVED = {22222: "the web terminal", 2280: "the toolbox", 33333: "the recordings"}
"""Ports that give power over the whole sandbox; they ask for a key even when a sandbox is public."""
MIN_EXPIRES_S, MAX_EXPIRES_S = 1, 86_400
DEFAULT_EXPIRES = "1h"
"""The service's own default is a minute, which is over before most pages are looked at."""
WAIT_TRIES = 30
ANNOUNCED_TRY = 3
"""From this try on, the person is told what is waited for."""
SERVE_PREFIX = "serve-"


@dataclass(frozen=True)
class Link:
    """A signed link that works until it expires or is revoked."""

    port: int
    url: str
    token: str
    expires: datetime
    sandbox_id: str


def _links(host: Host) -> list[Link]:
    """The live signed links that this notebook has made."""
    links: list[Link] = host.state.setdefault("previews", [])
    links[:] = [one for one in links if one.expires > now()]
    return links


def port_number(text: str) -> int:
    """A port; for argparse."""
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a port is a number from 1 to 65535")
    return port


def _link_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--expires",
        default=DEFAULT_EXPIRES,
        metavar="TIME",
        help="how long the link works: 1s to 1d (default 1h)",
    )
    parser.add_argument("--iframe", action="store_true", help="show the page in the notebook")
    parser.add_argument(
        "--height", type=int, default=450, metavar="PX", help="height of the iframe (default 450)"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")


def _preview_arguments(parser: Parser) -> None:
    parser.add_argument("port", nargs="?", type=port_number, help="port; without one, list what listens")
    _link_arguments(parser)
    parser.add_argument(
        "--standard", action="store_true", help="the lasting link, which wants a token in a header"
    )
    parser.add_argument("--show-token", action="store_true", help="with --standard: show the token, too")
    parser.add_argument("--revoke", action="store_true", help="end the signed links of this port")
    parser.add_argument("--allow-reserved", action="store_true", help="also for 22222, 2280 and 33333")


@command(
    "preview",
    "Preview",
    _preview_arguments,
    examples=(
        "%daytona preview",
        "%daytona preview 8000 --expires 2h --iframe",
        "url = %daytona preview 8000",
        "%daytona preview 8000 --revoke",
    ),
)
async def preview(host: Host, args: argparse.Namespace) -> Result:
    """Link to a port of the sandbox. The value is the URL.

    The link is signed: whoever has it can open it until it expires. It is part of what the notebook shows, so
    it is saved with it. --standard gives a link that works only with a token. On its first visit to Daytona's
    cloud a browser is shown a page of Daytona's before, which asks whether to go on.
    """
    expires_s = checked_expiry(args.expires)
    _check_height(args.height)
    if args.port is None:
        return await _listening(host)
    _check_reserved(args.port, args.allow_reserved)
    if args.revoke:
        return await _revoke(host, args.port)
    if args.show_token and not args.standard:
        raise UsageError("--show-token goes with --standard: a signed link has its token in it.")
    sandbox = await host.sandbox()
    if args.standard:
        return await _standard(sandbox, args.port, show_token=args.show_token)
    made = await signed_link(host, sandbox, args.port, expires_s)
    return await show_link(made, args)


def _check_reserved(port: int, allowed: bool) -> None:
    if port in RESERVED and not allowed:
        raise UsageError(
            f"Port {port} is {RESERVED[port]} of the sandbox: a link to it gives control of the sandbox.",
            hint="--allow-reserved, if you mean it.",
        )


def _check_height(height: int) -> None:
    if not 50 <= height <= 5000:
        raise UsageError(f"--height is from 50 to 5000 pixels, not {height}.")


def checked_expiry(text: str) -> int:
    """Whole seconds of ``--expires``. Raises :class:`UsageError` out of the service's bounds."""
    seconds = seconds_of(text)
    if not MIN_EXPIRES_S <= seconds <= MAX_EXPIRES_S:
        raise UsageError(f"--expires is from 1s to 1d (86400 seconds), not {text}.")
    return int(seconds)


def checked_url(url: str) -> str:
    """An address that a browser of this machine may be sent to, and a page of Jupyter may frame.

    Raises :class:`CommandFailed` for another than a web page's: with ``javascript:`` the service would act in
    Jupyter's page, with ``file:`` a browser would show what is on this machine.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise CommandFailed("The service named an address for the preview that is no web page's.")
    return url


async def signed_link(host: Host, sandbox: AsyncSandbox, port: int, expires_s: int) -> Link:
    """Make a signed link and remember it."""
    with translated(f"preview {port}"):
        answer = await sandbox.create_signed_preview_url(port, expires_s)
    made = Link(port, checked_url(answer.url), answer.token, now() + timedelta(seconds=expires_s), sandbox.id)
    _links(host).append(made)
    return made


async def show_link(made: Link, args: argparse.Namespace) -> Result:
    """A link as a command's result."""
    left = duration(round((made.expires - now()).total_seconds()))
    when = f"works until {moment(made.expires)} ({left})"
    html = f"<div>{link(made.url)} <small>{escape(when)}</small></div>"
    if args.iframe:
        html += iframe(made.url, args.height)
    if args.open:
        import webbrowser

        if not await asyncio.to_thread(webbrowser.open, made.url):
            raise CommandFailed("There is no browser that could be opened on this machine.", hint=made.url)
    return Result(made.url, f"{made.url}\n{when}", html)


def iframe(url: str, height: int) -> str:
    """A page of the sandbox within the notebook, kept from touching it."""
    return (
        f'<iframe src="{escape(url)}" width="100%" height="{height}" style="border:1px solid #8884" '
        'sandbox="allow-scripts allow-forms allow-popups allow-same-origin allow-downloads"></iframe>'
    )


async def _standard(sandbox: AsyncSandbox, port: int, *, show_token: bool) -> Result:
    with translated(f"preview {port}"):
        answer = await sandbox.get_preview_link(port)
    checked_url(answer.url)
    value: dict[str, Any] = {"url": answer.url}
    text = f"{answer.url}\nwants the header x-daytona-preview-token"
    if show_token:
        value["token"] = answer.token
        text += f": {answer.token}"
    else:
        text += " (--show-token shows it)"
    html = f"<div>{link(answer.url)}<br><small>{escape(text.partition(chr(10))[2])}</small></div>"
    return Result(value if show_token else answer.url, text, html)


async def _revoke(host: Host, port: int) -> Result:
    sandbox = await host.sandbox()
    mine = [one for one in _links(host) if one.port == port and one.sandbox_id == sandbox.id]
    if not mine:
        raise UsageError(
            f"This notebook has no live link to port {port}.", hint="%daytona previews lists them."
        )
    for one in mine:
        with translated(f"revoke {port}"):
            await sandbox.expire_signed_preview_url(port, one.token)
        _links(host).remove(one)
    return Result(len(mine), f"Revoked {len(mine)} link{'' if len(mine) == 1 else 's'} to port {port}")


PORTS = r"""
found = {}
for name in ("/proc/net/tcp", "/proc/net/tcp6"):
    try: lines = open(name).read().splitlines()[1:]
    except OSError: continue
    for line in lines:
        words = line.split()
        if words[3] == "0A": found[int(words[1].rsplit(":", 1)[1], 16)] = words[9]
names = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("socket:["):
                command = open(f"/proc/{pid}/cmdline").read().replace("\0", " ").strip()
                names[link[8:-1]] = command[:120]
    except OSError: continue
say([[port, names.get(inode, "")] for port, inode in sorted(found.items())])
"""
"""Listening TCP ports with the command that listens, from ``/proc``: there may be no ``ss``."""


async def _listening(host: Host) -> Result:
    toolbox = await host.toolbox()
    found = await run_script(toolbox, PORTS)
    rows = [(int(port), printable(str(command))) for port, command in found]
    service = host.session.manager.service
    if service is not None and service.local:
        # A local sandbox may share this machine's network; what it can not see is not its own.
        rows = [row for row in rows if row[1]]
    rows = [row for row in rows if row[0] not in RESERVED]
    value = [{"port": port, "command": command} for port, command in rows]
    if not rows:
        return Result(value, "Nothing listens in the sandbox. %daytona serve starts something that does.")
    header = ("port", "command")
    return Result(value, table_text(header, rows), table_html(header, rows))


@command("previews", "Preview", examples=("%daytona previews",))
async def previews(host: Host, args: argparse.Namespace) -> Result:
    """List the live signed links that this notebook has made."""
    links = _links(host)
    rows = [(one.port, one.url, moment(one.expires)) for one in links]
    rich = [(one.port, link(one.url), moment(one.expires)) for one in links]
    value = [{**asdict(one), "expires": one.expires.isoformat()} for one in links]
    for facts in value:
        del facts["token"]
    if not rows:
        return Result(value, "There are no live links.")
    header = ("port", "link", "until")
    return Result(value, table_text(header, rows), table_html(header, rich))


def _serve_arguments(parser: Parser) -> None:
    parser.add_argument("port", type=port_number, help="port that the program listens on")
    _link_arguments(parser)
    parser.add_argument("--cwd", metavar="DIR", help="directory to run it in").completer = "remote"  # type: ignore[attr-defined]
    parser.add_argument(
        "--wait", type=int, default=WAIT_TRIES, metavar="N", help="seconds to wait (default 30)"
    )
    parser.add_argument("--restart", action="store_true", help="end what serves this port and start again")
    parser.add_argument("--stop", action="store_true", help="end what serves this port")


@command(
    "serve",
    "Preview",
    _serve_arguments,
    argv=True,
    examples=("%daytona serve 8000 -- python -m http.server 8000", "%daytona serve 8000 --stop"),
)
async def serve(host: Host, args: argparse.Namespace) -> Result:
    """Start a server as a job, wait until it answers, and link to it. The value is the URL.

    What serves this port already is used again, so that running the cell twice does no harm.
    """
    _check_reserved(args.port, False)
    expires_s = checked_expiry(args.expires)
    _check_height(args.height)
    if args.wait < 1:
        raise UsageError(f"--wait is a number of seconds from 1 up, not {args.wait}.")
    name = f"{SERVE_PREFIX}{args.port}"
    sandbox = await host.sandbox()
    line = command_line(args.argv, await where(host, args.cwd)) if args.argv else ""
    job = next((one for one in await jobs.find_jobs(host) if one.name == name), None)
    if args.stop:
        return await _stop(sandbox, job, args.port)
    if job is not None and (args.restart or job.exit_code is not None):
        await jobs.end_job(sandbox, job)
        line, job = line or job.command, None
    begun = job is None
    if job is None:
        if not line:
            raise UsageError(
                f"Nothing serves port {args.port} yet.",
                hint=f"Write how to start it: serve {args.port} -- COMMAND",
            )
        await _check_free(host, args.port)
        job = await jobs.start_job(sandbox, name, line)
    try:
        await _wait_until_it_answers(host, sandbox, job, args.port, args.wait)
    except asyncio.CancelledError:
        if begun:
            await asyncio.shield(jobs.end_job(sandbox, job))
        raise
    return await show_link(await signed_link(host, sandbox, args.port, expires_s), args)


async def _stop(sandbox: AsyncSandbox, job: jobs.Job | None, port: int) -> Result:
    if job is None:
        raise UsageError(f"No job of ours serves port {port}.", hint="%daytona jobs lists them.")
    await jobs.end_job(sandbox, job)
    return Result(port, f"Port {port} is no longer served")


async def _check_free(host: Host, port: int) -> None:
    for used, by in await run_script(await host.toolbox(), PORTS):
        if used == port:
            raise CommandFailed(
                f"Port {port} is in use in the sandbox, by: {printable(str(by)) or 'an unknown program'}.",
                hint=f"%daytona preview {port} links to it.",
            )


ANSWERS = r"""
import http.client
try:
    c = http.client.HTTPConnection("127.0.0.1", q["port"], timeout=5); c.request("GET", "/")
    say(c.getresponse().status)
except Exception: say(0)
"""
"""The HTTP status that a port answers with, whichever it is; 0 if it does not answer."""


async def _wait_until_it_answers(
    host: Host, sandbox: AsyncSandbox, job: jobs.Job, port: int, tries: int
) -> None:
    toolbox = await host.toolbox()
    try:
        for attempt in range(tries):
            if attempt == ANNOUNCED_TRY:
                host.status(f"Waiting for port {port} to answer …")
            if await run_script(toolbox, ANSWERS, port=port):
                return
            job = await jobs.one_job(host, job.name)
            if job.exit_code is not None:
                break
            # Most servers need less than a second; a page of patience afterwards.
            await asyncio.sleep(0.2 if attempt < ANNOUNCED_TRY else 1)
    finally:
        host.status(None)
    out, err = await jobs.job_logs(sandbox, job)
    last = "\n".join((out + err).splitlines()[-20:])
    what = f"ended ({job.state})" if job.exit_code is not None else f"did not answer within {tries} tries"
    raise CommandFailed(f"The server for port {port} {what}. Its last lines:\n{last or '(it wrote nothing)'}")
