"""Python processes of the sandbox: ``restart``, ``context new``, ``list``, ``use``, ``rm``."""

from __future__ import annotations

import argparse

from ..toolbox import Toolbox
from .host import Host, Result, UsageError
from .registry import Parser, command
from .words import did_you_mean, printable, table_html, table_text

SHARED = "default"
"""The context of plain SDK clients, which the service never lists."""


@command("restart", "Sandbox", examples=("%daytona restart",))
async def restart(host: Host, args: argparse.Namespace) -> Result:
    """Start Python in the sandbox anew: variables are lost, files and jobs stay."""
    await host.sandbox()
    await host.session.forget_context()
    return Result(None, "Python is started anew: variables are lost, files and jobs are there")


@command("context list", "Resources", examples=("%daytona context list",))
async def context_list(host: Host, args: argparse.Namespace) -> Result:
    """List the Python contexts in the sandbox, those of other notebooks, too.

    The one called default is that of plain SDK clients.
    """
    toolbox = await host.toolbox()
    mine = host.session.context_id
    value = [
        {"id": str(one.get("id")), "active": bool(one.get("active"))} for one in await toolbox.contexts()
    ]
    value.append({"id": SHARED, "active": True})
    rows = [
        ("→" if one["id"] == mine else "", printable(str(one["id"])), "alive" if one["active"] else "dead")
        for one in value
    ]
    header = ("", "context", "state")
    return Result(value, table_text(header, rows), table_html(header, rows))


@command("context new", "Resources", examples=("%daytona context new",))
async def context_new(host: Host, args: argparse.Namespace) -> Result:
    """Run the next cells in a new context, with no variables. The one before stays: context use goes back."""
    await host.sandbox()
    before = host.session.context_id
    await host.session.forget_context(keep=True)
    back = f"; %daytona context use {before[:8]} goes back" if before else ""
    return Result(before or None, f"The next cell begins in a new context, without variables{back}")


def _context_arguments(parser: Parser) -> None:
    parser.add_argument(
        "id", metavar="ID", help="id of the context, or how it begins; see context list"
    ).completer = "context"  # type: ignore[attr-defined]


@command(
    "context use",
    "Resources",
    _context_arguments,
    examples=("%daytona context use 1f0c", "%daytona context use default"),
)
async def context_use(host: Host, args: argparse.Namespace) -> Result:
    """Run the next cells in a context that is there already, with its variables.

    It may be another notebook's, or with the id default that of plain SDK clients: then both see the same
    variables, and one waits while the other's code runs. The context used before stays.
    """
    toolbox = await host.toolbox()
    context_id = await _found(toolbox, args.id)
    if context_id != host.session.context_id:
        await host.session.join_context(context_id)
    return Result(context_id, f"Cells run in context {printable(context_id)} now, with its variables")


async def known_contexts(toolbox: Toolbox) -> list[str]:
    """The ids of all contexts of the sandbox, with that of plain SDK clients."""
    return [str(one.get("id")) for one in await toolbox.contexts()] + [SHARED]


async def _found(toolbox: Toolbox, text: str) -> str:
    """The id that begins with ``text``. Raises :class:`UsageError` if none does, or several."""
    known = await known_contexts(toolbox)
    matches = [text] if text in known else [one for one in known if text and one.startswith(text)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"{len(matches)} contexts begin with {text!r}.", hint="Write more of the id.")
    near = did_you_mean(text, known)
    raise UsageError(
        f"There is no context {text!r}.", hint=f"{near} %daytona context list shows them.".strip()
    )


@command("context rm", "Resources", _context_arguments, examples=("%daytona context rm ID",))
async def context_rm(host: Host, args: argparse.Namespace) -> Result:
    """End a context of the sandbox with its variables."""
    toolbox = await host.toolbox()
    context_id = await _found(toolbox, args.id)
    if context_id == host.session.context_id:
        raise UsageError("That is this notebook's own context.", hint="%daytona restart gives it a new one.")
    if context_id == SHARED:
        raise UsageError("The default context is every client's and can not be ended.")
    await toolbox.delete_context(context_id)
    return Result(context_id, f"Ended context {printable(context_id)}")
