"""Words of the command line for what a new sandbox is to be like. Imports nothing heavy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable


def add_kind(group: argparse._ArgumentGroup) -> None:
    """Add what a new sandbox is made from."""
    group.add_argument("--snapshot", metavar="NAME", help="make sandboxes from this snapshot")
    group.add_argument("--image", metavar="IMAGE", help="or from this image, like python:3.12-slim")
    group.add_argument("--cpu", type=count(1), metavar="N", help="vCPUs; only with --image")
    group.add_argument("--memory", type=count(1), metavar="GIB", help="memory in GiB; only with --image")
    group.add_argument("--disk", type=count(1), metavar="GIB", help="disk in GiB; only with --image")
    group.add_argument("--gpu", type=count(1), metavar="N", help="GPUs; only with --image")
    group.add_argument("--target", metavar="REGION", help="region of the sandboxes")
    group.add_argument("--auto-stop", type=duration, metavar="TIME", help="stop when idle so long, like 30m")
    group.add_argument("--no-network", action="store_true", help="no network in the sandboxes")


def kind_variables(args: argparse.Namespace) -> dict[str, str]:
    """What :func:`add_kind` asked for, as the variables that a kernel reads (daytona_kernel/config.py)."""
    found = {
        "DAYTONA_KERNEL_SNAPSHOT": args.snapshot,
        "DAYTONA_KERNEL_IMAGE": args.image,
        "DAYTONA_KERNEL_CPU": args.cpu,
        "DAYTONA_KERNEL_MEMORY_GIB": args.memory,
        "DAYTONA_KERNEL_DISK_GIB": args.disk,
        "DAYTONA_KERNEL_GPU": args.gpu,
        "DAYTONA_TARGET": args.target,
        "DAYTONA_KERNEL_AUTO_STOP": None if args.auto_stop is None else f"{args.auto_stop:g}s",
        "DAYTONA_KERNEL_NETWORK_BLOCK_ALL": "1" if args.no_network else None,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


def duration(text: str) -> float:
    """Argparse type: a duration in seconds, more than zero."""
    from .config import parse_duration_s
    from .errors import ConfigurationError

    try:
        seconds = parse_duration_s(text)
    except ConfigurationError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    if seconds <= 0:
        raise argparse.ArgumentTypeError(
            "a time limit must be more than zero; leave the option out for no limit"
        )
    return seconds


def byte_count(text: str) -> int:
    """Argparse type: a size like ``500kB``, ``100MB``, ``1GiB``, or a plain number of bytes."""
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([kKMGT]?)(i?)B?", text)
    if match is None or (match[3] and not match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 500kB, 100MB or 1GiB")
    unit = 1024 if match[3] else 1000
    return int(float(match[1]) * unit ** " KMGT".index(match[2].upper() or " "))


def count(least: int) -> Callable[[str], int]:
    """Argparse type: a whole number, not below *least*."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return number
