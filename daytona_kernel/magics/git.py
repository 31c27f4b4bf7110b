"""``git clone``, ``status``, ``pull``, ``commit``, ``push`` in the sandbox, through the SDK's git module.

Credentials come from this machine's environment or are asked for; they are never words of the cell.
"""

from __future__ import annotations

import argparse
import os
from typing import Any
from urllib.parse import urlsplit

from .files import expanded, remote_argument
from .host import Host, Result, UsageError
from .registry import Parser, command
from .sdk import translated
from .words import printable, table_text


def _credential_arguments(parser: Parser) -> None:
    parser.add_argument("--username", metavar="NAME", help="user name (default: git)")
    parser.add_argument(
        "--token-env", metavar="VAR", help="variable of this machine that has the password or token"
    )
    parser.add_argument("--ask", action="store_true", help="ask for the password or token")


async def _credentials(host: Host, args: argparse.Namespace) -> dict[str, Any]:
    if args.token_env and args.ask:
        raise UsageError("--token-env and --ask exclude each other.")
    if args.token_env:
        token = os.environ.get(args.token_env)
        if not token:
            raise UsageError(f"The variable {args.token_env} is not set on this machine.")
    elif args.ask:
        token = await host.ask("Password or token: ", password=True)
    else:
        return {}
    return {"username": args.username or "git", "password": token}


def _clone_arguments(parser: Parser) -> None:
    parser.add_argument("url", help="https URL of the repository")
    remote_argument(parser, "path", nargs="?", help="where to (default: the repository's name)")
    parser.add_argument("--branch", metavar="NAME", help="branch to check out")
    parser.add_argument("--commit", metavar="ID", help="commit to check out")
    _credential_arguments(parser)


@command(
    "git clone",
    "Git",
    _clone_arguments,
    examples=("%daytona git clone https://example.org/project.git --token-env GIT_TOKEN",),
)
async def clone(host: Host, args: argparse.Namespace) -> Result:
    """Clone a repository into the sandbox."""
    if urlsplit(args.url).password:
        raise UsageError("The URL has a password in it.", hint="Use --token-env or --ask.")
    name = args.url.rstrip("/").rpartition("/")[2].removesuffix(".git") or "repository"
    credentials = await _credentials(host, args)
    sandbox = await host.sandbox()
    path = await expanded(host, args.path or name)
    options = {"branch": args.branch, "commit_id": args.commit, **credentials}
    with translated(f"git clone {args.url}"):
        await sandbox.git.clone(args.url, path, **options)
    return Result(path, f"Cloned {args.url} to {path}")


def _path_arguments(parser: Parser) -> None:
    remote_argument(
        parser, "path", nargs="?", default=".", help="the repository (default: the working directory)"
    )


@command("git status", "Git", _path_arguments, examples=("%daytona git status project",))
async def status(host: Host, args: argparse.Namespace) -> Result:
    """Show the branch and what has changed."""
    sandbox = await host.sandbox()
    path = await expanded(host, args.path)
    with translated(f"git status {path}"):
        found = await sandbox.git.status(path)
    files = [(one.name, _text(one.staging), _text(one.worktree)) for one in found.file_status or []]
    value = {
        "branch": found.current_branch,
        "ahead": found.ahead or 0,
        "behind": found.behind or 0,
        "files": [{"name": name, "staging": staging, "worktree": tree} for name, staging, tree in files],
    }
    head = f"On {found.current_branch}, {value['ahead']} ahead, {value['behind']} behind"
    rows = [(printable(name), staging, tree) for name, staging, tree in files]
    return Result(
        value, f"{head}\n{table_text(('file', 'staged', 'here'), rows) if rows else 'Nothing changed.'}"
    )


def _text(value: Any) -> str:
    return str(getattr(value, "value", value) or "")


def _remote_arguments(parser: Parser) -> None:
    _path_arguments(parser)
    _credential_arguments(parser)


@command("git pull", "Git", _remote_arguments, examples=("%daytona git pull project --token-env GIT_TOKEN",))
async def pull(host: Host, args: argparse.Namespace) -> Result:
    """Pull from the repository's remote."""
    credentials = await _credentials(host, args)
    sandbox = await host.sandbox()
    path = await expanded(host, args.path)
    with translated(f"git pull {path}"):
        await sandbox.git.pull(path, **credentials)
    return Result(path, f"Pulled {path}")


@command("git push", "Git", _remote_arguments, examples=("%daytona git push project --ask",))
async def push(host: Host, args: argparse.Namespace) -> Result:
    """Push to the repository's remote."""
    credentials = await _credentials(host, args)
    sandbox = await host.sandbox()
    path = await expanded(host, args.path)
    with translated(f"git push {path}"):
        await sandbox.git.push(path, **credentials)
    return Result(path, f"Pushed {path}")


def _commit_arguments(parser: Parser) -> None:
    _path_arguments(parser)
    parser.add_argument("-m", "--message", required=True, help="message of the commit")
    parser.add_argument(
        "--add", action="append", default=[], metavar="FILE", help="file to add first (default: all)"
    )
    parser.add_argument("--author", default="Daytona", help="author's name")
    parser.add_argument("--email", default="notebook@localhost", help="author's address")


@command("git commit", "Git", _commit_arguments, examples=("%daytona git commit project -m 'Fix it'",))
async def commit(host: Host, args: argparse.Namespace) -> Result:
    """Add what has changed and commit it. The value is the commit's id."""
    sandbox = await host.sandbox()
    path = await expanded(host, args.path)
    with translated(f"git commit {path}"):
        await sandbox.git.add(path, args.add or ["."])
        done = await sandbox.git.commit(path, args.message, args.author, args.email)
    return Result(done.sha, f"Committed {done.sha}")
