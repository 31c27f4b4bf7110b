"""A sandbox's life: ``create``, ``attach``, ``start``, ``stop``, ``resize``, ``delete`` and more."""

from __future__ import annotations

import argparse
import asyncio
import re
from typing import TYPE_CHECKING, Any

from ..config import parse_duration_s
from ..sandbox import LABEL, STARTED
from .general import key_values
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .sdk import state_text, translated
from .words import did_you_mean, duration, printable

if TYPE_CHECKING:
    from daytona import AsyncDaytona, AsyncSandbox

SIZES = {"small": (1, 1, 3), "medium": (2, 4, 8), "large": (4, 8, 10)}
"""Daytona's general snapshots: vCPU, GiB of memory, GiB of disk."""
MAX_CPU, MAX_MEMORY, MAX_DISK = 4, 8, 10
FORBIDDEN_MOUNTS = ("/proc", "/sys", "/dev", "/boot", "/etc", "/bin", "/sbin", "/lib", "/lib64")
WAIT_S = 120.0


def sandbox_argument(parser: Parser, **options: Any) -> None:
    """Add an argument that names a sandbox."""
    parser.add_argument("sandbox", metavar="NAME", **options).completer = "sandbox"  # type: ignore[attr-defined]


def minutes(text: str, name: str) -> int:
    """Whole minutes of a duration; ``never`` and ``off`` are -1."""
    if text.lower() in ("never", "off"):
        return -1
    seconds = parse_duration_s(text)
    if seconds % 60:
        raise UsageError(
            f"{name} is counted in whole minutes, not {text}.", hint="Write it like 30m, 2h or 7d."
        )
    return int(seconds // 60)


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


def _create_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--name", help="name (default: one is made up)")
    add("--snapshot", help="snapshot to make it from")
    add("--image", help="image to make it from, such as python:3.12-slim")
    add("--size", choices=sorted(SIZES), help="one of Daytona's own snapshots")
    add("--cpu", type=int, metavar="N", help=f"vCPUs, 1 to {MAX_CPU}; only with --image")
    add("--memory", type=int, metavar="GIB", help=f"memory, 1 to {MAX_MEMORY} GiB; only with --image")
    add("--disk", type=int, metavar="GIB", help=f"disk, 1 to {MAX_DISK} GiB; only with --image")
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
    client = await host.client()
    params = await _parameters(client, args)
    with translated("create"):
        sandbox = await client.create(params, timeout=parse_duration_s(args.timeout))
    old = await _leave(host)
    await host.session.use_sandbox(sandbox, owned=True)
    warning = " Its previews are PUBLIC." if args.public else ""
    return Result(sandbox.name, f"Created {sandbox.name} ({sandbox.id}); cells run there now.{old}{warning}")


async def _parameters(client: AsyncDaytona, args: argparse.Namespace) -> Any:
    """The SDK's parameters; wrong combinations are refused before any sandbox is made."""
    from daytona import CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams, Resources

    _check_combinations(args)
    options: dict[str, Any] = {
        "name": args.name,
        "env_vars": key_values(args.env, "variable") or None,
        "labels": {LABEL: "1", **key_values(args.label, "label")},
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
    mounts = [parse_mount(text) for text in args.volume]
    if mounts:
        options["volumes"] = [await _mount(client, *one) for one in mounts]
    options = {name: value for name, value in options.items() if value is not None}
    if args.image:
        sizes = {name: getattr(args, name) for name in ("cpu", "memory", "disk") if getattr(args, name)}
        resources = Resources(**sizes) if sizes else None
        return CreateSandboxFromImageParams(image=args.image, resources=resources, **options)
    snapshot = f"daytona-{args.size}" if args.size else args.snapshot
    return CreateSandboxFromSnapshotParams(snapshot=snapshot, **options)


def _check_combinations(args: argparse.Namespace) -> None:
    if sum(bool(one) for one in (args.snapshot, args.image, args.size)) > 1:
        raise UsageError("A sandbox is made from one of --snapshot, --image and --size.")
    if (args.cpu or args.memory or args.disk) and not args.image:
        raise UsageError("--cpu, --memory and --disk need --image: a snapshot brings its own resources.")
    check_resources(args)
    if args.ephemeral and args.auto_delete is not None:
        raise UsageError("--ephemeral is --auto-delete 0: give only one of them.")
    if args.block_network and args.allow:
        raise UsageError("--block-network and --allow exclude each other.")


def check_resources(args: argparse.Namespace) -> None:
    """Refuse resources out of the service's bounds."""
    for name, most in (("cpu", MAX_CPU), ("memory", MAX_MEMORY), ("disk", MAX_DISK)):
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
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

    with translated(f"volume {name}"):
        volume = await client.volume.get(name)
    return VolumeMount(volume_id=volume.id, mount_path=path, subpath=subpath)


async def _leave(host: Host) -> str:
    """Part from the sandbox in use; words on what becomes of it."""
    manager = host.session.manager
    old, owned = manager.sandbox, manager.owned
    if old is None:
        return ""
    await host.session.forget_context()
    what = await manager.release()
    return f" The sandbox {old.name} was {what}." if owned else f" {old.name} is left as it is."


def _attach_arguments(parser: Parser) -> None:
    sandbox_argument(parser, nargs="?", help="name or id of the sandbox")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="the one with this label")


@command(
    "attach", "Sandbox", _attach_arguments, examples=("%daytona attach etl", "%daytona attach --label nb=etl")
)
async def attach(host: Host, args: argparse.Namespace) -> Result:
    """Use an existing sandbox for the cells of this notebook from now on. It is started if need be.

    It is not yours to lose: it stays as it is when the kernel ends. Variables do not come along.
    """
    if bool(args.sandbox) == bool(args.label):
        raise UsageError("Which sandbox? Give its name or id, or --label.")
    sandbox = await (named(host, args.sandbox) if args.sandbox else _labelled(host, args.label))
    if host.session.manager.sandbox is not None and host.session.manager.sandbox.id == sandbox.id:
        return Result(sandbox.name, f"Cells run in {sandbox.name} already.")
    started = ""
    if state_text(sandbox.state) != STARTED:
        started = f" It was {state_text(sandbox.state)} and has been started."
        with translated(f"start {sandbox.name}"):
            await sandbox.start(timeout=WAIT_S)
    old = await _leave(host)
    await host.session.use_sandbox(sandbox, owned=False)
    return Result(sandbox.name, f"Cells run in {printable(sandbox.name)} now.{started}{old}")


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
    old = await _leave(host)
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
    """Stop the sandbox: files stay, variables are lost. The next cell starts it again."""
    sandbox = await current(host)
    await host.session.forget_context(delete=False)
    with translated(f"stop {sandbox.name}"):
        await sandbox.stop(timeout=WAIT_S, force=args.force)
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


def _resize_arguments(parser: Parser) -> None:
    parser.add_argument("--cpu", type=int, metavar="N", help=f"vCPUs, 1 to {MAX_CPU}")
    parser.add_argument("--memory", type=int, metavar="GIB", help=f"memory, 1 to {MAX_MEMORY} GiB")
    parser.add_argument("--disk", type=int, metavar="GIB", help=f"disk, 1 to {MAX_DISK} GiB; only grows")
    parser.add_argument("--restart", action="store_true", help="stop and start it, if the change needs that")


@command("resize", "Sandbox", _resize_arguments, examples=("%daytona resize --cpu 2 --memory 4",))
async def resize(host: Host, args: argparse.Namespace) -> Result:
    """Change the resources. While it runs CPU and memory can only grow; the rest needs --restart."""
    from daytona import Resources

    wanted = {
        name: getattr(args, name) for name in ("cpu", "memory", "disk") if getattr(args, name) is not None
    }
    if not wanted:
        raise UsageError("Resize to what? Give --cpu, --memory or --disk.")
    check_resources(args)
    sandbox = await current(host)
    if args.disk is not None and args.disk < sandbox.disk:
        raise UsageError(f"A disk can not shrink: it has {sandbox.disk} GiB.")
    running = state_text(sandbox.state) == STARTED
    smaller = any(wanted[name] < getattr(sandbox, name) for name in wanted)
    if running and (smaller or args.disk is not None) and not args.restart:
        raise UsageError(
            "That needs a stopped sandbox: variables would be lost.", hint="--restart, if you mean it."
        )
    with translated(f"resize {sandbox.name}"):
        if running and args.restart:
            await host.session.forget_context(delete=False)
            await sandbox.stop(timeout=WAIT_S)
        await sandbox.resize(Resources(**wanted), timeout=WAIT_S)
        if running and args.restart:
            await sandbox.start(timeout=WAIT_S)
        await sandbox.refresh_data()
    text = f"{sandbox.name} has {sandbox.cpu} vCPU, {sandbox.memory} GiB memory, {sandbox.disk} GiB disk"
    return Result({"cpu": sandbox.cpu, "memory": sandbox.memory, "disk": sandbox.disk}, text)


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


# -- its settings ----------------------------------------------------------------------------------


def _label_arguments(parser: Parser) -> None:
    parser.add_argument("labels", nargs="*", metavar="K=V", help="label to set; K= removes it")


@command("label", "Sandbox", _label_arguments, examples=("%daytona label team=ml", "%daytona label team="))
async def label(host: Host, args: argparse.Namespace) -> Result:
    """Set labels of the sandbox, or show them. Labels that are not named stay."""
    changes = key_values(args.labels, "label")
    sandbox = await current(host)
    labels = dict(sandbox.labels or {})
    if changes:
        labels = {key: value for key, value in {**labels, **changes}.items() if value}
        with translated("label"):
            await sandbox.set_labels(labels)
    return Result(
        labels, "\n".join(f"{key}={value}" for key, value in sorted(labels.items())) or "No labels."
    )


SETTINGS = ("auto_stop", "auto_archive", "auto_delete", "public")


def _set_arguments(parser: Parser) -> None:
    parser.add_argument("settings", nargs="+", metavar="NAME=VALUE", help=f"one of {', '.join(SETTINGS)}")


@command("set", "Sandbox", _set_arguments, examples=("%daytona set auto_stop=2h auto_delete=never",))
async def change(host: Host, args: argparse.Namespace) -> Result:
    """Change when the sandbox stops, is archived and deleted by itself (30m, 2h, 7d, 0, never)."""
    wanted = key_values(args.settings, "setting")
    actions: list[tuple[str, Any]] = []
    for name, value in wanted.items():
        if name not in SETTINGS:
            raise UsageError(f"There is no setting {name!r}.", hint=did_you_mean(name, SETTINGS))
        if name == "public":
            if value not in ("yes", "no"):
                raise UsageError(f"public is yes or no, not {value!r}.")
            actions.append((name, value == "yes"))
            continue
        count = minutes(value, name)
        if count < 0 and name == "auto_stop":
            count = 0
        if count < 0 and name == "auto_archive":
            raise UsageError("auto_archive can not be never; 0 is the service's longest time.")
        actions.append((name, count))
    sandbox = await current(host)
    methods = {
        "auto_stop": sandbox.set_autostop_interval,
        "auto_archive": sandbox.set_auto_archive_interval,
        "auto_delete": sandbox.set_auto_delete_interval,
        "public": sandbox.set_public,
    }
    for name, number in actions:
        with translated(f"set {name}"):
            await methods[name](number)
    return Result(dict(actions), "Set " + ", ".join(f"{name}={value}" for name, value in wanted.items()))


def _keepalive_arguments(parser: Parser) -> None:
    parser.add_argument("time", help="how long, like 2h; off ends it")


@command("keepalive", "Sandbox", _keepalive_arguments, examples=("%daytona keepalive 2h",))
async def keepalive(host: Host, args: argparse.Namespace) -> Result:
    """Keep the sandbox from stopping by itself for a time, even while no cell runs."""
    seconds = 0.0 if args.time == "off" else parse_duration_s(args.time)
    await host.sandbox()
    old = host.state.pop("keepalive", None)
    if old is not None:
        old.cancel()
    if not seconds:
        return Result(None, "The sandbox may stop by itself again")
    beat = asyncio.ensure_future(_beat(host, seconds))
    host.state["keepalive"] = beat
    return Result(seconds, f"The sandbox is kept awake for {duration(seconds)}")


async def _beat(host: Host, seconds: float) -> None:
    try:
        await asyncio.wait_for(host.session.manager.keep_alive(), seconds)
    except (asyncio.TimeoutError, asyncio.CancelledError):
        pass


@command("restart", "Sandbox", examples=("%daytona restart",))
async def restart(host: Host, args: argparse.Namespace) -> Result:
    """Start Python in the sandbox anew: variables are lost, files and jobs stay."""
    await host.sandbox()
    await host.session.forget_context()
    return Result(None, "Python is started anew: variables are lost, files and jobs are there")
