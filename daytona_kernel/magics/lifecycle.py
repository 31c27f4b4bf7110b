"""A sandbox's life: ``create``, ``attach``, ``start``, ``stop``, ``resize``, ``delete`` and more."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..controlplane import STARTED
from .contexts import SHARED
from .general import key_values
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .sdk import state_text, translated
from .words import did_you_mean, printable

if TYPE_CHECKING:
    from daytona import AsyncSandbox

WAIT_S = 120.0
EPHEMERAL = 0
"""The auto-delete interval of a sandbox that is deleted as soon as it stops."""


def sandbox_argument(parser: Parser, **options: Any) -> None:
    """Add an argument that names a sandbox."""
    parser.add_argument("sandbox", metavar="NAME", **options).completer = "sandbox"  # type: ignore[attr-defined]


async def leave(host: Host) -> str:
    """Part from the sandbox in use; words on what becomes of it."""
    manager = host.session.manager
    old, owned = manager.sandbox, manager.owned
    if old is None:
        return ""
    await host.session.forget_context()
    what = await manager.release()
    return f" The sandbox {old.name} was {what}." if owned else f" {old.name} is left as it is."


async def named(host: Host, name: str) -> AsyncSandbox:
    """A sandbox by name or id. Raises :class:`UsageError` with the nearest name."""
    client = await host.client()
    try:
        return await client.get(name)
    except Exception as exc:
        if getattr(exc, "status_code", None) != 404:
            with translated(name):
                raise
    with translated():
        names = [one.name async for one in client.list()]
    near = did_you_mean(name, names)
    raise UsageError(f"There is no sandbox {name!r}.", hint=f"{near} %daytona list shows them all.".strip())


async def current(host: Host) -> AsyncSandbox:
    """The notebook's sandbox as it is, without starting or making one."""
    sandbox = await host.settled_sandbox()
    if sandbox is None:
        raise UsageError(
            "This notebook has no sandbox yet.", hint="Run a cell, or %daytona create or attach."
        )
    with translated(sandbox.name):
        await sandbox.refresh_data()
    return sandbox


# -- which sandbox ---------------------------------------------------------------------------------


def _attach_arguments(parser: Parser) -> None:
    sandbox_argument(parser, nargs="?", help="name or id of the sandbox")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="the one with this label")
    parser.add_argument(
        "--shared-context",
        action="store_true",
        help="in the context of plain SDK clients: both see the same variables",
    )


@command(
    "attach",
    "Sandbox",
    _attach_arguments,
    examples=(
        "%daytona attach etl",
        "%daytona attach --label nb=etl",
        "%daytona attach agent --shared-context",
    ),
)
async def attach(host: Host, args: argparse.Namespace) -> Result:
    """Use an existing sandbox for the cells of this notebook from now on. It is started if need be.

    It is not yours to lose: it stays as it is when the kernel ends. Variables do not come along.
    """
    if bool(args.sandbox) == bool(args.label):
        raise UsageError("Which sandbox? Give its name or id, or --label.")
    sandbox = await (named(host, args.sandbox) if args.sandbox else _labelled(host, args.label))
    if host.session.manager.sandbox is not None and host.session.manager.sandbox.id == sandbox.id:
        text = f"Cells run in {sandbox.name} already."
        return Result(sandbox.name, text + await _share(host, args.shared_context))
    started = ""
    if state_text(sandbox.state) != STARTED:
        started = f" It was {state_text(sandbox.state)} and has been started."
        with translated(f"start {sandbox.name}"):
            await sandbox.start(timeout=WAIT_S)
    old = await leave(host)
    await host.session.use_sandbox(sandbox, owned=False)
    shared = await _share(host, args.shared_context)
    return Result(sandbox.name, f"Cells run in {printable(sandbox.name)} now.{started}{old}{shared}")


async def _share(host: Host, wanted: bool) -> str:
    """Go over to the context of plain SDK clients, if that is wanted; words on it."""
    if not wanted:
        return ""
    if host.session.context_id != SHARED:
        await host.session.join_context(SHARED)
    return " They share the variables of plain SDK clients."


async def _labelled(host: Host, words: list[str]) -> AsyncSandbox:
    from daytona import ListSandboxesQuery

    labels = key_values(words, "label")
    client = await host.client()
    with translated("attach"):
        found = [one async for one in client.list(ListSandboxesQuery(labels=labels, limit=2))]
        if len(found) != 1:
            count = "no sandbox has" if not found else "more than one sandbox has"
            raise UsageError(
                f"{count.capitalize()} the labels {', '.join(words)}.", hint="See %daytona list."
            )
        return await client.get(found[0].id)


@command("detach", "Sandbox", examples=("%daytona detach",))
async def detach(host: Host, args: argparse.Namespace) -> Result:
    """Part from the sandbox in use; the next cell gets a new one."""
    sandbox = await current(host)
    old = await leave(host)
    await host.session.use_sandbox(None, owned=False)
    return Result(sandbox.name, f"Parted from {sandbox.name}.{old} The next cell gets a new sandbox.")


# -- states ----------------------------------------------------------------------------------------


@command("start", "Sandbox", examples=("%daytona start",))
async def start(host: Host, args: argparse.Namespace) -> Result:
    """Start the sandbox, if it is stopped, paused or archived."""
    sandbox = await host.sandbox()
    return Result(sandbox.name, f"{sandbox.name} is started")


def _stop_arguments(parser: Parser) -> None:
    parser.add_argument("--force", action="store_true", help="kill at once, without cleaning up")


@command("stop", "Sandbox", _stop_arguments, examples=("%daytona stop",))
async def stop(host: Host, args: argparse.Namespace) -> Result:
    """Stop the sandbox: files stay, variables are lost. The next cell starts it again.

    One that is ephemeral, as that of a headless run, is deleted when it stops; set auto_delete=1h keeps it.
    """
    sandbox = await current(host)
    await host.session.forget_context(delete=False)
    ephemeral = sandbox.auto_delete_interval == EPHEMERAL
    with translated(f"stop {sandbox.name}"):
        await sandbox.stop(timeout=WAIT_S, force=args.force)
    if ephemeral:
        return Result(
            sandbox.name, f"Stopped {sandbox.name}, which was ephemeral: it is deleted, with its files"
        )
    return Result(sandbox.name, f"Stopped {sandbox.name}: files stay, variables are lost")


@command("pause", "Sandbox", examples=("%daytona pause",))
async def pause(host: Host, args: argparse.Namespace) -> Result:
    """Pause the sandbox with its memory, where its class can do that."""
    sandbox = await current(host)
    with translated(f"pause {sandbox.name}"):
        await sandbox.pause(timeout=WAIT_S)
    return Result(sandbox.name, f"Paused {sandbox.name}")


@command("archive", "Sandbox", examples=("%daytona archive",))
async def archive(host: Host, args: argparse.Namespace) -> Result:
    """Put the sandbox away: stopped first, kept cheaply, slower to start."""
    sandbox = await current(host)
    await host.session.forget_context(delete=False)
    with translated(f"archive {sandbox.name}"):
        if state_text(sandbox.state) == STARTED:
            await sandbox.stop(timeout=WAIT_S)
        await sandbox.archive()
    return Result(sandbox.name, f"Archived {sandbox.name}")


@command("recover", "Sandbox", examples=("%daytona recover",))
async def recover(host: Host, args: argparse.Namespace) -> Result:
    """Repair a sandbox that is in error, where the service can."""
    sandbox = await current(host)
    if state_text(sandbox.state) != "error":
        raise UsageError(f"{sandbox.name} is {state_text(sandbox.state)}: there is nothing to recover.")
    if not sandbox.recoverable:
        raise CommandFailed(
            f"{sandbox.name} can not be recovered: {sandbox.error_reason or 'no reason given'}."
        )
    with translated(f"recover {sandbox.name}"):
        await sandbox.recover(timeout=WAIT_S)
    return Result(sandbox.name, f"Recovered {sandbox.name}")


def _fork_arguments(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the copy")
    parser.add_argument("--use", action="store_true", help="go over to the copy")


@command("fork", "Sandbox", _fork_arguments, examples=("%daytona fork experiment --use",))
async def fork(host: Host, args: argparse.Namespace) -> Result:
    """Copy the sandbox as it is now."""
    sandbox = await host.sandbox()
    with translated(f"fork {sandbox.name}"):
        copy = await sandbox.fork(args.name, timeout=WAIT_S)
    text = f"Forked {sandbox.name} to {copy.name}"
    if args.use:
        await host.session.use_sandbox(copy, owned=True)
        text += "; cells run there now"
    return Result(copy.name, text)


def _delete_arguments(parser: Parser) -> None:
    sandbox_argument(parser, nargs="?", help="another sandbox than this notebook's")
    parser.add_argument("--yes", action="store_true", help="do not ask")


@command("delete", "Sandbox", _delete_arguments, examples=("%daytona delete --yes",))
async def delete(host: Host, args: argparse.Namespace) -> Result:
    """Delete a sandbox with all its files: this notebook's, or the one named."""
    sandbox = await (named(host, args.sandbox) if args.sandbox else current(host))
    if not args.yes:
        answer = await host.ask(f"Delete {sandbox.name} with all its files? Type its name: ")
        if answer.strip() != sandbox.name:
            raise UsageError("Nothing was deleted.")
    mine = host.session.manager.sandbox
    if mine is not None and mine.id == sandbox.id:
        await host.session.use_sandbox(None, owned=False)
    name = sandbox.name  # the service renames it when it is deleted
    with translated(f"delete {name}"):
        await sandbox.delete(timeout=WAIT_S)
    return Result(name, f"Deleted {printable(name)}")
