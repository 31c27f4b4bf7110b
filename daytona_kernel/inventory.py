"""``jupyter daytona sandboxes``: which sandboxes notebooks have left, and to stop or delete them.

By default only those that this package made (label ``daytona-kernel``); what else lives in the account is
nobody's business here unless it is asked for, and is never touched unless it is named.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .account import user_settings
from .errors import DaytonaKernelError
from .labels import LABEL, LABEL_HOST, LABEL_NOTEBOOK, host_label
from .sandbox import SandboxManager
from .sharing import is_left_behind, prune
from .terminal import spelled
from .translation import translate

if TYPE_CHECKING:
    from daytona import AsyncDaytona

_COLUMNS = ("NAME", "STATE", "MADE BY", "LAST USED", "ID")


@dataclass(frozen=True)
class Entry:
    """One sandbox as the list shows it. Times are as the service gives them (ISO 8601, UTC)."""

    id: str
    name: str
    state: str
    made_by: str
    last_activity_at: str
    mine: bool = False
    """Whether this user made it, on this machine."""
    left_behind: bool = False
    """Whether the process that it belonged to is gone: ``--prune`` deletes it."""

    @classmethod
    def of(cls, item: Any) -> Entry:
        """Read an SDK sandbox (full or from a list)."""
        labels = item.labels or {}
        made_by = "notebook" if LABEL_NOTEBOOK in labels else "run" if LABEL in labels else "-"
        state = str(getattr(item.state, "value", item.state) or "unknown")
        when = str(getattr(item, "last_activity_at", "") or getattr(item, "updated_at", "") or "-")
        mine = labels.get(LABEL_HOST) == host_label()
        gone = mine and is_left_behind(labels, state)
        return cls(str(item.id), str(item.name), state, made_by, when, mine, gone)


def run(args: argparse.Namespace) -> int:
    """Carry the command out; 0, 1 if a sandbox that was named could not be stopped or deleted, 3 if no
    service.
    """
    try:
        return asyncio.run(_run(args))
    except DaytonaKernelError as exc:
        print(f"jupyter daytona sandboxes: {exc}", file=sys.stderr)
        return 3


async def _run(args: argparse.Namespace) -> int:
    manager = SandboxManager(user_settings())
    try:
        if args.prune:
            gone = await prune(manager)
            print("\n".join(f"deleted {spelled(name)}" for name in gone) or "nothing was left behind")
            return 0
        client = await manager.client()
        if args.stop or args.delete:
            return await _end(client, args.stop, args.delete)
        entries = await find(client, everything=args.all)
        if args.mine:
            entries = [entry for entry in entries if entry.mine]
        if args.json:
            print(json.dumps([asdict(entry) for entry in entries], indent=2))
        else:
            assert manager.service is not None
            where = "the local server" if manager.service.local else "your Daytona account"
            print(table(entries) if entries else f"no sandboxes of notebooks in {where}")
        return 0
    finally:
        await manager.close()


async def find(client: AsyncDaytona, *, everything: bool) -> list[Entry]:
    """Return the sandboxes there are: those of notebooks, or all. Raises errors of our tree."""
    from daytona import ListSandboxesQuery

    query = ListSandboxesQuery(labels=None if everything else {LABEL: "1"})
    try:
        return [Entry.of(item) async for item in client.list(query)]
    except Exception as exc:
        raise translate(exc) from exc


async def _end(client: AsyncDaytona, to_stop: list[str], to_delete: list[str]) -> int:
    """Stop and delete what is named, each on its own: one that fails does not keep the others."""
    code = 0
    for name, verb in [*((name, "stop") for name in to_stop), *((name, "delete") for name in to_delete)]:
        try:
            sandbox = await client.get(name)
            await getattr(sandbox, verb)()
        except Exception as exc:
            missing = getattr(exc, "status_code", None) == 404
            reason = "there is no such sandbox" if missing else translate(exc)
            print(spelled(f"cannot {verb} {name}: {reason}"), file=sys.stderr)
            code = 1
        else:
            print(f"{'stopped' if verb == 'stop' else 'deleted'} {name}")
    return code


def _maker(entry: Entry) -> str:
    return f"{entry.made_by}, left behind" if entry.left_behind else entry.made_by


def table(entries: list[Entry]) -> str:
    """Return *entries* as columns, as wide as they need to be."""
    found = [(e.name, e.state, _maker(e), e.last_activity_at[:19], e.id) for e in entries]
    # What the service says of others' sandboxes is whatever they were called.
    rows = [_COLUMNS, *(tuple(spelled(word).replace("\n", "\\n") for word in row) for row in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
