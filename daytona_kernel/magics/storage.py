"""What sandboxes are made from and share: snapshots and volumes."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .creation import check_resources, resource_arguments
from .general import coloured
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command, seconds_of
from .sdk import state_text, translated
from .words import did_you_mean, printable, table_html, table_text

if TYPE_CHECKING:
    from daytona import AsyncDaytona

MOVING_TAGS = ("latest", "lts", "stable")
"""Tags that the service refuses: what they name changes."""
FAILED = ("error", "build_failed")
LOOK_S = 1.0


def _unknown(what: str, name: str, known: Sequence[str]) -> UsageError:
    near = did_you_mean(name, known)
    return UsageError(
        f"There is no {what} {name!r}.", hint=f"{near} %daytona {what} list shows them.".strip()
    )


def _yes_argument(parser: Parser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


async def _confirm(host: Host, args: argparse.Namespace, name: str) -> None:
    if not args.yes and (await host.ask(f"Delete {name}? Type its name: ")).strip() != name:
        raise UsageError("Nothing was deleted.")


# -- snapshots -------------------------------------------------------------------------------------


async def all_snapshots(client: AsyncDaytona) -> list[Any]:
    """The snapshots that sandboxes can be made from, active or not."""
    with translated("snapshot list"):
        page = await client.snapshot.list(limit=100)
        found = list(page.items)
        for number in range(2, int(page.total_pages) + 1):
            found += (await client.snapshot.list(page=number, limit=100)).items
    return found


async def _snapshot(client: AsyncDaytona, name: str) -> Any:
    """The snapshot of this name. Raises :class:`UsageError` with the nearest name."""
    found = await all_snapshots(client)
    for one in found:
        if name in (one.name, one.id):
            return one
    raise _unknown("snapshot", name, [one.name for one in found])


@command("snapshot list", "Resources", examples=("%daytona snapshot list",))
async def snapshot_list(host: Host, args: argparse.Namespace) -> Result:
    """List the snapshots that sandboxes can be made from."""
    found = await all_snapshots(await host.client())
    value = [{"name": one.name, "state": state_text(one.state)} for one in found]
    rows = [(printable(one.name), state_text(one.state), f"{one.cpu} vCPU, {one.mem} GiB") for one in found]
    rich = [(row[0], coloured(row[1]), row[2]) for row in rows]
    header = ("snapshot", "state", "resources")
    return Result(value, table_text(header, rows), table_html(header, rich)) if rows else Result([], "None.")


def _create_arguments(parser: Parser) -> None:
    parser.add_argument("name", help="name of the snapshot")
    parser.add_argument("--image", help="from this image instead of the sandbox, such as python:3.12-slim")
    resource_arguments(parser)
    parser.add_argument("--timeout", default="30m", metavar="TIME", help="how long it may take (default 30m)")


@command(
    "snapshot create",
    "Resources",
    _create_arguments,
    examples=(
        "%daytona snapshot create ready",
        "%daytona snapshot create py --image python:3.12-slim --cpu 2",
    ),
)
async def snapshot_create(host: Host, args: argparse.Namespace) -> Result:
    """Make a snapshot of the sandbox as it is, or of an image; other sandboxes can be made from it."""
    timeout_s = seconds_of(args.timeout)
    if args.image:
        return await _from_image(host, args, timeout_s)
    if args.cpu or args.memory or args.disk:
        raise UsageError("--cpu, --memory and --disk need --image: a sandbox brings its own resources.")
    sandbox = await host.sandbox()
    with translated(f"snapshot {args.name}"):
        await sandbox.create_snapshot(args.name, timeout=timeout_s)
    return Result(args.name, f"Made snapshot {args.name} of {sandbox.name}")


async def _from_image(host: Host, args: argparse.Namespace, timeout_s: float) -> Result:
    from daytona import CreateSnapshotParams, Resources

    _check_image(args.image)
    check_resources(host, args)
    sizes = {name: getattr(args, name) for name in ("cpu", "memory", "disk") if getattr(args, name)}
    client = await host.client()
    params = CreateSnapshotParams(
        name=args.name, image=args.image, resources=Resources(**sizes) if sizes else None
    )
    with translated(f"snapshot {args.name}"):
        await client.snapshot.create(
            params, on_logs=lambda line: host.write(f"{line.rstrip()}\n"), timeout=timeout_s
        )
    return Result(args.name, f"Made snapshot {args.name} of {args.image}")


def _check_image(image: str) -> None:
    """Refuse an image without a lasting tag, as the service does."""
    tag = image.rpartition("/")[2].partition(":")[2]
    if "@sha256:" not in image and (not tag or tag in MOVING_TAGS):
        raise UsageError(
            f"{image!r} has no lasting tag.",
            hint="Write it like python:3.12-slim, not latest, lts or stable.",
        )


def _snapshot_argument(parser: Parser) -> None:
    parser.add_argument("name", help="name of the snapshot").completer = "snapshot"  # type: ignore[attr-defined]


def _activate_arguments(parser: Parser) -> None:
    _snapshot_argument(parser)
    parser.add_argument("--timeout", default="10m", metavar="TIME", help="how long to wait (default 10m)")


@command(
    "snapshot activate", "Resources", _activate_arguments, examples=("%daytona snapshot activate ready",)
)
async def snapshot_activate(host: Host, args: argparse.Namespace) -> Result:
    """Make an inactive snapshot usable again, and wait until it is. One that nobody uses becomes inactive."""
    until = time.monotonic() + seconds_of(args.timeout)
    client = await host.client()
    snapshot = await _snapshot(client, args.name)
    if state_text(snapshot.state) == "active":
        return Result(snapshot.name, f"Snapshot {printable(snapshot.name)} is active already")
    with translated(f"snapshot {args.name}"):
        snapshot = await client.snapshot.activate(snapshot)
        while (state := state_text(snapshot.state)) != "active":
            if state in FAILED:
                raise CommandFailed(
                    f"Snapshot {args.name} could not be activated: {snapshot.error_reason or state}."
                )
            if time.monotonic() > until:
                raise CommandFailed(f"Snapshot {args.name} is {state} still.", hint="It goes on there.")
            host.status(f"The snapshot is {state} …")
            try:
                await asyncio.sleep(LOOK_S)
            finally:
                host.status(None)
            snapshot = await client.snapshot.get(args.name)
    return Result(snapshot.name, f"Snapshot {printable(snapshot.name)} is active")


def _snapshot_delete_arguments(parser: Parser) -> None:
    _snapshot_argument(parser)
    _yes_argument(parser)


@command(
    "snapshot delete",
    "Resources",
    _snapshot_delete_arguments,
    examples=("%daytona snapshot delete old --yes",),
)
async def snapshot_delete(host: Host, args: argparse.Namespace) -> Result:
    """Delete a snapshot."""
    client = await host.client()
    snapshot = await _snapshot(client, args.name)
    await _confirm(host, args, snapshot.name)
    with translated(f"snapshot {args.name}"):
        await client.snapshot.delete(snapshot)
    return Result(args.name, f"Deleted snapshot {args.name}")


# -- volumes ---------------------------------------------------------------------------------------


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
    parser.add_argument("name", help="name of the volume").completer = "volume"  # type: ignore[attr-defined]


@command("volume create", "Resources", _volume_arguments, examples=("%daytona volume create data",))
async def volume_create(host: Host, args: argparse.Namespace) -> Result:
    """Make a volume. It is mounted when a sandbox is made: create --volume NAME:PATH."""
    client = await host.client()
    with translated(f"volume {args.name}"):
        volume = await client.volume.create(args.name)
    return Result(volume.name, f"Made volume {volume.name}")


def _volume_delete_arguments(parser: Parser) -> None:
    _volume_arguments(parser)
    _yes_argument(parser)


@command(
    "volume delete", "Resources", _volume_delete_arguments, examples=("%daytona volume delete data --yes",)
)
async def volume_delete(host: Host, args: argparse.Namespace) -> Result:
    """Delete a volume with all that is on it."""
    client = await host.client()
    with translated(f"volume {args.name}"):
        known = await client.volume.list()
        volume = next((one for one in known if one.name == args.name), None)
        if volume is None:
            raise _unknown("volume", args.name, [one.name for one in known])
        await _confirm(host, args, volume.name)
        await client.volume.delete(volume)
    return Result(args.name, f"Deleted volume {args.name}")
