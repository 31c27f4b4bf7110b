"""``create``: making a sandbox, and what its parameters may be."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import time
from typing import TYPE_CHECKING, Any

from ..labels import LABEL, LABEL_HOST, LABEL_NOTEBOOK, host_label, notebook_label
from .general import key_values
from .host import CommandFailed, Host, Result, UsageError
from .lifecycle import leave
from .registry import Parser, command, seconds_of
from .sdk import state_text, translated

if TYPE_CHECKING:
    from daytona import AsyncDaytona, AsyncSandbox

SIZES = {"small": (1, 1, 3), "medium": (2, 4, 8), "large": (4, 8, 10)}
"""Daytona's general snapshots: vCPU, GiB of memory, GiB of disk."""
MAX_CPU, MAX_MEMORY, MAX_DISK = 4, 8, 10
"""An organization's limits for a sandbox, unless Daytona has raised them. The local server's are these."""
OR_MORE = "more if your organization may"
VOLUME_WAIT_S, VOLUME_LOOK_S = 60.0, 0.5
FORBIDDEN_MOUNTS = ("/proc", "/sys", "/dev", "/boot", "/etc", "/bin", "/sbin", "/lib", "/lib64")


def minutes(text: str, name: str) -> int:
    """Whole minutes of a duration; ``never`` and ``off`` are -1."""
    if text.lower() in ("never", "off"):
        return -1
    seconds = seconds_of(text)
    if seconds % 60:
        raise UsageError(
            f"{name} is counted in whole minutes, not {text}.", hint="Write it like 30m, 2h or 7d."
        )
    return int(seconds // 60)


def resource_arguments(parser: Parser) -> None:
    """Add ``--cpu``, ``--memory`` and ``--disk``."""
    add = parser.add_argument
    add("--cpu", type=int, metavar="N", help=f"vCPUs, 1 to {MAX_CPU}, {OR_MORE}; only with --image")
    add(
        "--memory",
        type=int,
        metavar="GIB",
        help=f"memory, 1 to {MAX_MEMORY} GiB, {OR_MORE}; only with --image",
    )
    add("--disk", type=int, metavar="GIB", help=f"disk, 1 to {MAX_DISK} GiB, {OR_MORE}; only with --image")


def _create_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--name", help="name (default: one is made up)")
    add("--snapshot", help="snapshot to make it from")
    add("--image", help="image to make it from, such as python:3.12-slim")
    add("--size", choices=sorted(SIZES), help="one of Daytona's own snapshots")
    resource_arguments(parser)
    add("--env", action="append", default=[], metavar="K=V", help="environment variable")
    add("--label", action="append", default=[], metavar="K=V", help="label")
    add("--volume", action="append", default=[], metavar="NAME:PATH[:SUB]", help="volume to mount")
    add("--secret", action="append", default=[], metavar="ENV=NAME", help="secret of the service as variable")
    add("--auto-stop", metavar="TIME", help="stop after so long without activity; 0 = never")
    add("--auto-archive", metavar="TIME", help="archive after so long stopped")
    add("--auto-delete", metavar="TIME", help="delete after so long stopped; never")
    add("--ephemeral", action="store_true", help="delete it as soon as it is stopped")
    add("--public", action="store_true", help="anybody may open its previews")
    add("--block-network", action="store_true", help="no network")
    add("--allow", metavar="CIDR,...", help="network to these addresses only")
    add("--user", metavar="NAME", help="user in the sandbox")
    add("--target", metavar="REGION", help="region, like us or eu")
    add("--timeout", default="60s", metavar="TIME", help="how long it may take (default 60s)")


@command(
    "create",
    "Sandbox",
    _create_arguments,
    examples=(
        "%daytona create --name etl --auto-stop 2h",
        "%daytona create --image python:3.12-slim --memory 4",
    ),
)
async def create(host: Host, args: argparse.Namespace) -> Result:
    """Make a sandbox and use it for the cells of this notebook from now on. Variables do not come along."""
    timeout_s = seconds_of(args.timeout)
    mounts = [parse_mount(text) for text in args.volume]
    options = _options(host, args)
    host.session.secrets.add_environment(options.get("env_vars") or {})
    client = await host.client()
    if mounts:
        options["volumes"] = [await _mount(client, *one) for one in mounts]
    params = _parameters(args, options)
    with translated("create"):
        sandbox = await _made(host, client, params, timeout_s)
    old = await leave(host)
    await host.session.use_sandbox(sandbox, owned=True)
    warning = " Its previews are PUBLIC." if args.public else ""
    called = sandbox.name if sandbox.name == sandbox.id else f"{sandbox.name} ({sandbox.id})"
    return Result(sandbox.name, f"Created {called}; cells run there now.{old}{warning}")


async def _made(host: Host, client: AsyncDaytona, params: Any, timeout_s: float) -> AsyncSandbox:
    """Make it; what a build writes is shown."""
    try:
        return await client.create(
            params,
            timeout=timeout_s,
            on_snapshot_create_logs=lambda line: host.write(f"{line.rstrip()}\n", error=True),
        )
    except Exception as exc:
        if getattr(exc, "status_code", None) == 400 and "inactive" in str(exc).lower():
            hint = f"%daytona snapshot activate {params.snapshot} makes it usable again."
            raise CommandFailed(f"create: {exc}.", hint=hint) from exc
        raise


def _own_labels(host: Host) -> dict[str, str]:
    """By which the notebook finds it next time, as one that the kernel makes itself."""
    labels = {LABEL: "1", LABEL_HOST: host_label()}
    path = os.environ.get("JPY_SESSION_NAME", "")
    if path and host.session.settings.is_found_again:
        labels[LABEL_NOTEBOOK] = notebook_label(path)
    return labels


def _options(host: Host, args: argparse.Namespace) -> dict[str, Any]:
    """What all sandboxes can be given. Raises :class:`UsageError` for wrong values and combinations."""
    _check_combinations(host, args)
    options: dict[str, Any] = {
        "name": args.name,
        "env_vars": key_values(args.env, "variable") or None,
        "labels": {**_own_labels(host), **key_values(args.label, "label")},
        "public": args.public or None,
        "ephemeral": args.ephemeral or None,
        "network_block_all": args.block_network or None,
        "network_allow_list": args.allow and checked_networks(args.allow),
        "os_user": args.user,
        "target": args.target,
        "secrets": key_values(args.secret, "secret") or None,
    }
    for name in ("auto_stop", "auto_archive", "auto_delete"):
        if getattr(args, name) is not None:
            options[f"{name}_interval"] = minutes(getattr(args, name), f"--{name.replace('_', '-')}")
    return {name: value for name, value in options.items() if value is not None}


def _parameters(args: argparse.Namespace, options: dict[str, Any]) -> Any:
    """The SDK's parameters."""
    from daytona import CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams, Resources

    if args.image:
        sizes = {name: getattr(args, name) for name in ("cpu", "memory", "disk") if getattr(args, name)}
        resources = Resources(**sizes) if sizes else None
        return CreateSandboxFromImageParams(image=args.image, resources=resources, **options)
    snapshot = f"daytona-{args.size}" if args.size else args.snapshot
    return CreateSandboxFromSnapshotParams(snapshot=snapshot, **options)


def _check_combinations(host: Host, args: argparse.Namespace) -> None:
    if sum(bool(one) for one in (args.snapshot, args.image, args.size)) > 1:
        raise UsageError("A sandbox is made from one of --snapshot, --image and --size.")
    if (args.cpu or args.memory or args.disk) and not args.image:
        raise UsageError("--cpu, --memory and --disk need --image: a snapshot brings its own resources.")
    check_resources(host, args)
    if args.ephemeral and args.auto_delete is not None:
        raise UsageError("--ephemeral is --auto-delete 0: give only one of them.")
    if args.block_network and args.allow:
        raise UsageError("--block-network and --allow exclude each other.")


def check_resources(host: Host, args: argparse.Namespace) -> None:
    """Refuse resources out of bounds. How much is too much in the cloud, only the service knows."""
    for name, most in (("cpu", MAX_CPU), ("memory", MAX_MEMORY), ("disk", MAX_DISK)):
        value = getattr(args, name)
        if value is not None and (value < 1 or (value > most and host.is_local)):
            raise UsageError(f"--{name} is a whole number from 1 to {most}, not {value}.")


def checked_networks(text: str) -> str:
    """A list of IPv4 networks as the service takes it. Raises :class:`UsageError` with the rule."""
    import ipaddress

    words = [word for word in re.split(r"[,\s]+", text) if word]
    if not 1 <= len(words) <= 10:
        raise UsageError(f"Up to 10 networks can be allowed, not {len(words)}.")
    for word in words:
        try:
            if "/" not in word:
                raise ValueError
            ipaddress.IPv4Network(word, strict=False)
        except ValueError:
            raise UsageError(
                f"{word!r} is no IPv4 network.", hint="Write it like 10.0.0.0/8 or 1.2.3.4/32."
            ) from None
    return ",".join(words)


def parse_mount(text: str) -> tuple[str, str, str | None]:
    """Volume, path and part of the volume in ``NAME:PATH[:SUB]``."""
    name, _, rest = text.partition(":")
    path, _, subpath = rest.partition(":")
    parts = path.split("/")
    if not name or not path.startswith("/") or path == "/" or "" in parts[1:-1] or {".", ".."} & set(parts):
        raise UsageError(f"{text!r} is no volume to mount.", hint="Write it like data:/home/daytona/data.")
    if any(path == one or path.startswith(one + "/") for one in FORBIDDEN_MOUNTS):
        raise UsageError(f"A volume can not be mounted at {path}.", hint="Choose a path below /home or /mnt.")
    return name, path, subpath or None


async def _mount(client: AsyncDaytona, name: str, path: str, subpath: str | None) -> Any:
    from daytona import VolumeMount

    until = time.monotonic() + VOLUME_WAIT_S
    with translated(f"volume {name}"):
        volume = await client.volume.get(name)
        # One that was just made takes the service some seconds, and can not be mounted before.
        while state_text(volume.state) in ("pending_create", "creating") and time.monotonic() < until:
            await asyncio.sleep(VOLUME_LOOK_S)
            volume = await client.volume.get(name)
    return VolumeMount(volume_id=volume.id, mount_path=path, subpath=subpath)
