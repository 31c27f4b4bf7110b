"""``jupyter daytona local ...`` and ``python -m daytona_kernel.local ...``."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

from . import launcher
from .paths import local_paths

NETWORKS = {"own": "each sandbox has its own", "shared": "shared with this machine"}


def add_parser(subparsers: Any) -> None:
    """Add ``local`` and what is below it to a command line."""
    parser = subparsers.add_parser(
        "local",
        help="the embedded local sandbox server",
        description="The embedded local sandbox server: speaks Daytona's API on this machine.",
    )
    add_commands(parser)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add ``start``, ``status``, ``stop``, ``env`` and ``logs`` to `parser`."""
    commands = parser.add_subparsers(dest="local_command", metavar="COMMAND", required=True)
    start = commands.add_parser("start", help="start the server if it does not run")
    _add_server_options(start)
    start.add_argument("--foreground", action="store_true", help="stay in the foreground and log to stderr")
    show = commands.add_parser("status", help="show the server and its sandboxes")
    show.add_argument("--json", action="store_true", help="as JSON")
    commands.add_parser("stop", help="stop the server and all its sandboxes")
    env = commands.add_parser("env", help="start the server and print the variables that make SDKs use it")
    env.add_argument(
        "--shell",
        choices=("sh", "fish", "powershell", "json"),
        default="sh",
        help="for which shell (default: sh)",
    )
    logs = commands.add_parser("logs", help="show the server's log")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing new lines")
    logs.add_argument("-n", "--lines", type=int, default=50, help="how many lines from the end (default: 50)")
    serve = commands.add_parser("serve")
    _add_server_options(serve)
    serve.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    serve.add_argument("--foreground", action="store_true", help=argparse.SUPPRESS)
    for parser_ in (start, show, env, logs, serve):
        parser_.set_defaults(command="local")


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=int, help="TCP port on 127.0.0.1 (default: the last one if free, else any)"
    )
    parser.add_argument("--advertise", metavar="URL", help="base URL that clients are told, behind a proxy")
    parser.add_argument(
        "--idle-minutes", type=float, help="end after so long without use; 0 never (default: 15)"
    )
    parser.add_argument(
        "--isolation",
        choices=("auto", "bubblewrap", "none"),
        help="how sandboxes are isolated (default: auto)",
    )


def run(args: argparse.Namespace) -> int:
    """Carry a parsed command out; the exit code is 0, 1 for a failure, 3 for a server that does not run."""
    commands = {
        "start": _start,
        "status": _status,
        "stop": _stop,
        "env": _env,
        "logs": _logs,
        "serve": _serve,
    }
    try:
        return commands[args.local_command](args)
    except launcher.LauncherError as exc:
        print(f"jupyter daytona local: {exc}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe went away (head); without this Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _server_arguments(args: argparse.Namespace) -> list[str]:
    found: list[str] = []
    for name in ("port", "advertise", "idle_minutes", "isolation"):
        value = getattr(args, name)
        if value is not None:
            found += [f"--{name.replace('_', '-')}", str(value)]
    return found


def _start(args: argparse.Namespace) -> int:
    if args.foreground:
        return _serve(args)
    server = launcher.ensure_running(arguments=_server_arguments(args))
    if not server.started:
        print(f"The local sandbox server runs already (process {server.pid}) at {server.api_url}")
        if _server_arguments(args):
            print("Its options were not changed; stop it first to start it with others.", file=sys.stderr)
        return 0
    print(f"The local sandbox server runs (process {server.pid}) at {server.api_url}")
    if server.isolation == "none":
        print("Sandboxes are NOT ISOLATED: see 'jupyter daytona local status'.", file=sys.stderr)
    return 0


def _stop(args: argparse.Namespace) -> int:
    stopped = launcher.stop()
    print("The local sandbox server has stopped." if stopped else "No local sandbox server was running.")
    return 0


def _env(args: argparse.Namespace) -> int:
    server = launcher.ensure_running()
    print(format_environment(server.environment(), args.shell))
    if sys.stdout.isatty() and args.shell == "sh":
        print('# Use it with: eval "$(jupyter daytona local env)"')
    return 0


def format_environment(variables: dict[str, str], shell: str) -> str:
    """Lines that set variables in a shell, or a JSON object."""
    if shell == "json":
        return json.dumps(variables)
    if shell == "fish":
        return "\n".join(f"set -gx {name} {shlex.quote(value)};" for name, value in variables.items())
    if shell == "powershell":
        return "\n".join(f"$Env:{name} = '{value}'" for name, value in variables.items())
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def _status(args: argparse.Namespace) -> int:
    facts = launcher.status()
    if args.json:
        print(json.dumps(facts, indent=2) if facts else json.dumps({"running": False}))
    elif facts is None:
        print("The local sandbox server does not run. It starts by itself when it is needed.")
    else:
        print(format_status(facts))
    return 0 if facts else 3


def format_status(facts: dict[str, Any]) -> str:
    """The status for a person."""
    isolation = facts["isolation"]
    if facts["isolation_reason"]:
        isolation = f"NOT ISOLATED: {facts['isolation_reason']}"
    lines = [
        f"Server     process {facts['pid']} at {facts['base_url']}, up {_duration(facts['uptime_seconds'])}",
        f"Isolation  {isolation}",
        f"Network    {NETWORKS[facts['network']]}",
        f"Limits     {', '.join(facts['limits']) or 'of single processes only'}",
        f"Log        {facts['log_file']}",
        f"Files      {facts['state_dir']}",
    ]
    sandboxes = facts["sandboxes"]
    if not sandboxes:
        return "\n".join([*lines, "Sandboxes  none"])
    lines.append("")
    lines.append(f"{'SANDBOX':<38}{'STATE':<12}{'PROCESSES':>9}{'MEMORY':>10}{'CPU':>9}  NAME")
    for sandbox in sandboxes:
        memory = sandbox.get("memory_bytes")
        name = sandbox["name"] if sandbox["name"] != sandbox["id"] else ""
        if sandbox["isolation"] == "none":
            name += " (not isolated)"
        lines.append(
            f"{sandbox['id']:<38}{sandbox['state']:<12}{sandbox.get('processes', '-'):>9}"
            f"{f'{memory / 2**20:.0f} MiB' if memory is not None else '-':>10}"
            f"{_seconds(sandbox.get('cpu_seconds')):>9}  {name.strip()}"
        )
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _duration(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"


def _logs(args: argparse.Namespace) -> int:
    path = local_paths().log_file
    try:
        stream = path.open(errors="replace")
    except OSError:
        print(f"There is no log yet ({path}).", file=sys.stderr)
        return 1
    with stream:
        lines = stream.readlines()
        print("".join(lines[-args.lines :] if args.lines > 0 else []), end="", flush=True)
        while args.follow:
            line = stream.readline()
            if line:
                print(line, end="", flush=True)
            else:
                time.sleep(0.2)  # a log file has no event to wait for
    return 0


def _serve(args: argparse.Namespace) -> int:
    """Run the server in this process, or detached in a child of it if somebody waits at ``--ready-fd``."""
    descriptor = getattr(args, "ready_fd", None)
    if descriptor is not None and os.fork():
        # Whoever started us gets a child that ends at once, and never one to be waited for.
        os._exit(0)
    import asyncio
    from dataclasses import replace

    from .options import options_from_env
    from .server import LocalServer, StartError, serve, setup_logging

    def tell(text: str) -> None:
        if descriptor is not None:
            os.write(descriptor, text.encode() + b"\n")
            os.close(descriptor)

    def ready(server: LocalServer) -> None:
        tell("ready")
        if args.foreground:
            print(
                f"The local sandbox server listens at {server.state.base_url()}/api; Ctrl-C ends it.",
                flush=True,
            )

    try:
        options = options_from_env()
        given = {name: getattr(args, name) for name in ("port", "advertise", "idle_minutes", "isolation")}
        options = replace(options, **{name: value for name, value in given.items() if value is not None})
        options.paths.create()
        setup_logging(options, foreground=args.foreground)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.umask(0o077)
        asyncio.run(serve(options, ready))
    except (StartError, ValueError, OSError) as exc:
        tell(str(exc))
        print(f"jupyter daytona local: {exc}", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m daytona_kernel.local``."""
    parser = argparse.ArgumentParser(prog="python -m daytona_kernel.local", description=__doc__)
    add_commands(parser)
    return run(parser.parse_args(argv))
