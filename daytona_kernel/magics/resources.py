"""What belongs to sandboxes: environment, network, SSH, terminal, snapshots and volumes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any

from ..config import parse_duration_s
from . import creation, preview
from .general import coloured
from .host import Host, Result, UsageError
from .process import checked_variable
from .registry import Parser, command
from .sdk import state_text, translated
from .variables import run_code
from .words import moment, printable, table_html, table_text

TERMINAL_PORT = 22222
MASK = "••••"


# -- environment -----------------------------------------------------------------------------------


def _env_set_arguments(parser: Parser) -> None:
    parser.add_argument(
        "variables",
        nargs="+",
        metavar="K[=V]",
        help="variable; without a value it is taken from this machine's environment, or asked for",
    )


@command(
    "env set",
    "Resources",
    _env_set_arguments,
    examples=("%daytona env set MODE=test", "%daytona env set TOKEN"),
)
async def env_set(host: Host, args: argparse.Namespace) -> Result:
    """Set environment variables for the cells and for programs started from now on. Values are not shown."""
    values: dict[str, str] = {}
    for word in args.variables:
        name, sign, value = word.partition("=")
        checked_variable(name)
        if not sign:
            value = os.environ.get(name) or await host.ask(f"{name}: ", password=True)
        values[name] = value
    return await _set_environment(host, values)


def _env_from_arguments(parser: Parser) -> None:
    parser.add_argument("file", help="file of K=V lines on this machine").completer = "local"  # type: ignore[attr-defined]


@command("env from", "Resources", _env_from_arguments, examples=("%daytona env from .env.sandbox",))
async def env_from(host: Host, args: argparse.Namespace) -> Result:
    """Set environment variables from a file of this machine, in the form of .env files."""
    values = await asyncio.to_thread(_values_of, args.file)
    for name in values:
        checked_variable(name)
    if not values:
        raise UsageError(f"There are no K=V lines in {args.file!r}.")
    return await _set_environment(host, values)


def _values_of(file: str) -> dict[str, str]:
    from dotenv import dotenv_values

    path = Path(file).expanduser()
    if not path.is_file():
        raise UsageError(f"There is no file {file!r} on this machine.")
    found = dotenv_values(path, interpolate=False)
    return {name: value for name, value in found.items() if value is not None}


async def _set_environment(host: Host, values: dict[str, str]) -> Result:
    """For the cells' process now, and for later ones where the sandbox's daemon can do that."""
    sandbox = await host.sandbox()
    code = f"__import__('os').environ.update(__import__('json').loads({json.dumps(values)!r}))"
    await run_code(host, code, silent=True)
    everywhere = True
    try:
        await sandbox.update_env(values)
    except Exception as exc:
        if getattr(exc, "status_code", None) != 404:
            with translated("env set"):
                raise
        everywhere = False  # daemons up to v0.190.0 do not have it
    names = ", ".join(sorted(values))
    return Result(sorted(values), f"Set {names}" + ("" if everywhere else " (for the cells only)"))


@command("env list", "Resources", examples=("%daytona env list",))
async def env_list(host: Host, args: argparse.Namespace) -> Result:
    """List the names of the sandbox's environment variables. Values are not shown."""
    toolbox = await host.toolbox()
    from ..remote import run_script

    names = sorted(str(name) for name in await run_script(toolbox, "say(list(os.environ))"))
    return Result(names, "\n".join(f"{printable(name)}={MASK}" for name in names))


# -- network and access ----------------------------------------------------------------------------


@command("net block", "Resources", examples=("%daytona net block",))
async def net_block(host: Host, args: argparse.Namespace) -> Result:
    """Cut the sandbox off from the network."""
    return await _network(host, "blocked", network_block_all=True)


@command("net open", "Resources", examples=("%daytona net open",))
async def net_open(host: Host, args: argparse.Namespace) -> Result:
    """Give the sandbox the whole network again."""
    return await _network(host, "open", network_block_all=False, network_allow_list="")


def _net_arguments(parser: Parser) -> None:
    parser.add_argument("networks", nargs="+", metavar="CIDR", help="IPv4 network, like 10.0.0.0/8; up to 10")


@command("net allow", "Resources", _net_arguments, examples=("%daytona net allow 10.0.0.0/8 1.2.3.4/32",))
async def net_allow(host: Host, args: argparse.Namespace) -> Result:
    """Allow the sandbox these networks only."""
    networks = creation.checked_networks(",".join(args.networks))
    return await _network(host, f"open to {networks} only", network_allow_list=networks)


async def _network(host: Host, words: str, **settings: Any) -> Result:
    sandbox = await host.sandbox()
    with translated("net"):
        await sandbox.update_network_settings(**settings)
    return Result(words, f"The network of {sandbox.name} is {words}")


def _ssh_arguments(parser: Parser) -> None:
    parser.add_argument("--expires", default="1h", metavar="TIME", help="how long it works (default 1h)")
    parser.add_argument("--show-token", action="store_true", help="show the command with its token")
    parser.add_argument("--revoke", action="store_true", help="end all SSH access to the sandbox")


@command("ssh", "Resources", _ssh_arguments, examples=("%daytona ssh --expires 2h --show-token",))
async def ssh(host: Host, args: argparse.Namespace) -> Result:
    """Give a command to log in to the sandbox with SSH. The token in it is as good as a password."""
    count = creation.minutes(args.expires, "--expires")
    if not 1 <= count <= 60 * 24 * 30:
        raise UsageError(f"--expires is from 1m to 30d, not {args.expires}.")
    sandbox = await host.sandbox()
    with translated("ssh"):
        if args.revoke:
            await sandbox.revoke_ssh_access("")
            return Result(None, "SSH access is revoked")
        if not args.show_token:
            raise UsageError(
                "The command has a token in it, which would be saved with the notebook.",
                hint="--show-token, if you mean it.",
            )
        access = await sandbox.create_ssh_access(count)
    line = str(access.ssh_command or f"ssh {access.token}@ssh.app.daytona.io")
    return Result(line, f"{line}\nworks until {moment(access.expires_at)}")


def _terminal_arguments(parser: Parser) -> None:
    parser.add_argument("--expires", default="1h", metavar="TIME", help="how long it works (default 1h)")
    parser.add_argument(
        "--show-token", action="store_true", help="show the link; it is saved with the notebook"
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser of this machine")


@command("terminal", "Resources", _terminal_arguments, examples=("%daytona terminal --open",))
async def terminal(host: Host, args: argparse.Namespace) -> Result:
    """Open the sandbox's terminal in the browser. Its link is as good as a password."""
    if not (args.open or args.show_token):
        raise UsageError(
            "The link gives control of the sandbox.", hint="--open opens it, --show-token shows it."
        )
    expires_s = preview.checked_expiry(args.expires)
    parse_duration_s(args.expires)
    sandbox = await host.sandbox()
    made = await preview.signed_link(host, sandbox, TERMINAL_PORT, expires_s)
    args.iframe, args.height = False, 0
    result = await preview.show_link(made, args)
    return result if args.show_token else Result(None, "The terminal was opened in the browser")


# -- snapshots and volumes -------------------------------------------------------------------------


@command("snapshot list", "Resources", examples=("%daytona snapshot list",))
async def snapshot_list(host: Host, args: argparse.Namespace) -> Result:
    """List the snapshots that sandboxes can be made from."""
    client = await host.client()
    found: list[Any] = []
    with translated("snapshot list"):
        page = await client.snapshot.list(limit=100)
        found += page.items
        for number in range(2, int(page.total_pages) + 1):
            found += (await client.snapshot.list(page=number, limit=100)).items
    value = [{"name": one.name, "state": state_text(one.state)} for one in found]
    rows = [(printable(one.name), state_text(one.state), f"{one.cpu} vCPU, {one.mem} GiB") for one in found]
    rich = [(row[0], coloured(row[1]), row[2]) for row in rows]
    header = ("snapshot", "state", "resources")
    return Result(value, table_text(header, rows), table_html(header, rich)) if rows else Result([], "None.")


def _snapshot_arguments(parser: Parser) -> None:
    parser.add_argument("name", help="name of the snapshot")


@command("snapshot create", "Resources", _snapshot_arguments, examples=("%daytona snapshot create ready",))
async def snapshot_create(host: Host, args: argparse.Namespace) -> Result:
    """Make a snapshot of the sandbox as it is; other sandboxes can be made from it."""
    sandbox = await host.sandbox()
    with translated(f"snapshot {args.name}"):
        await sandbox.create_snapshot(args.name, timeout=600)
    return Result(args.name, f"Made snapshot {args.name} of {sandbox.name}")


def _snapshot_delete_arguments(parser: Parser) -> None:
    _snapshot_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


@command(
    "snapshot delete",
    "Resources",
    _snapshot_delete_arguments,
    examples=("%daytona snapshot delete old --yes",),
)
async def snapshot_delete(host: Host, args: argparse.Namespace) -> Result:
    """Delete a snapshot."""
    client = await host.client()
    with translated(f"snapshot {args.name}"):
        snapshot = await client.snapshot.get(args.name)
        await _confirm(host, args, snapshot.name)
        await client.snapshot.delete(snapshot)
    return Result(args.name, f"Deleted snapshot {args.name}")


async def _confirm(host: Host, args: argparse.Namespace, name: str) -> None:
    if not args.yes and (await host.ask(f"Delete {name}? Type its name: ")).strip() != name:
        raise UsageError("Nothing was deleted.")


@command("volume list", "Resources", examples=("%daytona volume list",))
async def volume_list(host: Host, args: argparse.Namespace) -> Result:
    """List the volumes, which several sandboxes can share."""
    client = await host.client()
    with translated("volume list"):
        found = await client.volume.list()
    value = [{"name": one.name, "state": state_text(one.state), "id": one.id} for one in found]
    rows = [(printable(one.name), state_text(one.state), one.id) for one in found]
    header = ("volume", "state", "id")
    return Result(value, table_text(header, rows) if rows else "There are no volumes.")


def _volume_arguments(parser: Parser) -> None:
    parser.add_argument("name", help="name of the volume")


@command("volume create", "Resources", _volume_arguments, examples=("%daytona volume create data",))
async def volume_create(host: Host, args: argparse.Namespace) -> Result:
    """Make a volume. It is mounted when a sandbox is made: create --volume NAME:PATH."""
    client = await host.client()
    with translated(f"volume {args.name}"):
        volume = await client.volume.create(args.name)
    return Result(volume.name, f"Made volume {volume.name}")


def _volume_delete_arguments(parser: Parser) -> None:
    _volume_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


@command(
    "volume delete", "Resources", _volume_delete_arguments, examples=("%daytona volume delete data --yes",)
)
async def volume_delete(host: Host, args: argparse.Namespace) -> Result:
    """Delete a volume with all that is on it."""
    client = await host.client()
    with translated(f"volume {args.name}"):
        volume = await client.volume.get(args.name)
        await _confirm(host, args, volume.name)
        await client.volume.delete(volume)
    return Result(args.name, f"Deleted volume {args.name}")
