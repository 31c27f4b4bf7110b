"""What belongs to sandboxes: environment, network, SSH, terminal, snapshots and volumes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any

from . import creation, preview, ssh_config
from .cells import run_code
from .host import Host, Result, UsageError
from .process import checked_variable
from .registry import Parser, command, seconds_of
from .sdk import translated
from .words import moment, printable

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
    host.session.secrets.add_environment(values)
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
    parser.add_argument(
        "--config", metavar="FILE", help="write it to an SSH configuration of this machine instead"
    ).completer = "local"  # type: ignore[attr-defined]
    parser.add_argument(
        "--forward",
        type=preview.port_number,
        action="append",
        default=[],
        metavar="PORT",
        help="bring this port of the sandbox to the same port here",
    )
    parser.add_argument("--revoke", action="store_true", help="end all SSH access to the sandbox")


@command(
    "ssh",
    "Resources",
    _ssh_arguments,
    examples=(
        "%daytona ssh --config ~/.ssh/daytona",
        "%daytona ssh --expires 2h --forward 5432 --show-token",
    ),
)
async def ssh(host: Host, args: argparse.Namespace) -> Result:
    """Give a command to log in to the sandbox with SSH. The token in it is as good as a password.

    With --config the token does not get into the notebook: FILE, which only you can read, gets an entry with
    the sandbox's name, for ssh NAME, VS Code and others. Once, write "Include FILE" atop ~/.ssh/config.
    """
    count = creation.minutes(args.expires, "--expires")
    if not 1 <= count <= 60 * 24 * 30:
        raise UsageError(f"--expires is from 1m to 30d, not {args.expires}.")
    if args.config:
        ssh_config.check(args.config)
    sandbox = await host.sandbox()
    with translated("ssh"):
        if args.revoke:
            await sandbox.revoke_ssh_access("")
            return Result(None, "SSH access is revoked")
        if not (args.show_token or args.config):
            raise UsageError(
                "The command has a token in it, which would be saved with the notebook.",
                hint="--show-token, if you mean it, or --config FILE to keep it out of the notebook.",
            )
        access = await sandbox.create_ssh_access(count)
    line = str(access.ssh_command or f"ssh {access.token}@ssh.app.daytona.io")
    until = f"works until {moment(access.expires_at)}"
    if args.config:
        name = ssh_config.write(args.config, sandbox.name, line, args.forward)
        return Result(f"ssh {name}", f"ssh {name} {until}, if ~/.ssh/config has: Include {args.config}")
    line += "".join(f" -L {port}:localhost:{port}" for port in args.forward)
    return Result(line, f"{line}\n{until}")


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
    seconds_of(args.expires)
    sandbox = await host.sandbox()
    made = await preview.signed_link(host, sandbox, TERMINAL_PORT, expires_s)
    args.iframe, args.height = False, 0
    result = await preview.show_link(made, args)
    return result if args.show_token else Result(None, "The terminal was opened in the browser")
