"""Settings of the sandbox in use: ``resize``, ``label``, ``set``, ``keepalive``."""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from ..controlplane import STARTED
from .creation import MAX_CPU, MAX_DISK, MAX_MEMORY, OR_MORE, check_resources, minutes
from .general import key_values
from .host import Host, Result, UsageError
from .lifecycle import WAIT_S, current
from .registry import Parser, command, seconds_of
from .sdk import state_text, translated
from .words import did_you_mean, duration

if TYPE_CHECKING:
    from daytona import AsyncSandbox


def _resize_arguments(parser: Parser) -> None:
    parser.add_argument("--cpu", type=int, metavar="N", help=f"vCPUs, 1 to {MAX_CPU}, {OR_MORE}")
    parser.add_argument("--memory", type=int, metavar="GIB", help=f"memory, 1 to {MAX_MEMORY} GiB, {OR_MORE}")
    parser.add_argument(
        "--disk", type=int, metavar="GIB", help=f"disk, 1 to {MAX_DISK} GiB, {OR_MORE}; only grows"
    )
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
    check_resources(host, args)
    sandbox = await current(host)
    if args.disk is not None and args.disk < sandbox.disk:
        raise UsageError(f"A disk can not shrink: it has {sandbox.disk} GiB.")
    if all(wanted[name] == getattr(sandbox, name) for name in wanted):
        return _resized(sandbox, "already")
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
    return _resized(sandbox, "now")


def _resized(sandbox: AsyncSandbox, when: str) -> Result:
    text = (
        f"{sandbox.name} has {sandbox.cpu} vCPU, {sandbox.memory} GiB memory, {sandbox.disk} GiB disk {when}"
    )
    return Result({"cpu": sandbox.cpu, "memory": sandbox.memory, "disk": sandbox.disk}, text)


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
    parser.add_argument(
        "settings", nargs="+", metavar="NAME=VALUE", help=f"one of {', '.join(SETTINGS)}"
    ).completer = "setting"  # type: ignore[attr-defined]


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
    seconds = 0.0 if args.time == "off" else seconds_of(args.time)
    await host.sandbox()
    old = host.state.pop("keepalive", None)
    if old is not None:
        old.cancel()
    if not seconds:
        return Result(0, "The sandbox may stop by itself again")
    beat = asyncio.ensure_future(_beat(host, seconds))
    host.state["keepalive"] = beat
    return Result(seconds, f"The sandbox is kept awake for {duration(seconds)}")


async def _beat(host: Host, seconds: float) -> None:
    try:
        await asyncio.wait_for(host.session.manager.keep_alive(), seconds)
    except (asyncio.TimeoutError, asyncio.CancelledError):
        pass
