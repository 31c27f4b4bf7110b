"""Kernelspecs beyond the one in the wheel: write one, find one, remove one."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .sandboxwords import kind_variables

DEFAULT_NAME = "daytona"
DISPLAY_NAME = "Python 3 (Daytona)"
_LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")
# A kernelspec is a file that others may read, copy and commit; what opens an account does not belong in it.
_SECRETS = frozenset({"DAYTONA_API_KEY", "DAYTONA_JWT_TOKEN"})


def kernel_json(display_name: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Return ``kernel.json`` for this interpreter (absolute, since Jupyter may live elsewhere)."""
    spec: dict[str, Any] = {
        "argv": [sys.executable, "-m", "daytona_kernel", "-f", "{connection_file}"],
        "display_name": display_name,
        "language": "python",
        "interrupt_mode": "message",
        "metadata": {"debugger": False, "supported_encryption": ["curve"]},
    }
    if env:
        spec["env"] = dict(env)
    return spec


def install(name: str, display_name: str, env: Mapping[str, str], *, user: bool, prefix: str | None) -> Path:
    """Write the kernelspec *name*, replacing one of the same name, and return its folder.

    *user* and *prefix* mean what they mean to
    :meth:`jupyter_client.kernelspec.KernelSpecManager.install_kernel_spec`. Raises :exc:`OSError` where the
    folder cannot be written.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    with tempfile.TemporaryDirectory(prefix="daytona-kernelspec-") as folder:
        source = Path(folder, "spec")
        source.mkdir(mode=0o755)
        text = json.dumps(kernel_json(display_name, env), indent=2)
        Path(source, "kernel.json").write_text(text + "\n", encoding="utf-8")
        for logo in find_logos():
            shutil.copyfile(logo, source / logo.name)
        manager = KernelSpecManager()
        return Path(manager.install_kernel_spec(str(source), kernel_name=name, user=user, prefix=prefix))


def find_logos() -> list[Path]:
    """Return the logos that came with the package: beside the wheel's own kernelspec, or in a source tree."""
    places = (
        Path(sys.prefix, "share", "jupyter", "kernels", DEFAULT_NAME),
        Path(__file__).resolve().parent.parent / "kernelspec",
    )
    for place in places:
        found = [place / name for name in _LOGOS if (place / name).is_file()]
        if found:
            return found
    return []


def is_name(name: str) -> bool:
    """Tell whether *name* can name a kernelspec, which is also the name of its folder (so never ``..``)."""
    return re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", name) is not None


def is_ours(folder: Path) -> bool:
    """Tell whether the kernelspec in *folder* starts this package."""
    try:
        spec = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
        return "daytona_kernel" in spec["argv"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def install_command(args: argparse.Namespace) -> int:
    """``jupyter daytona install``: 0, 2 for impossible arguments, 1 where the place cannot be written."""
    env = kind_variables(args)
    for item in args.env:
        key, equals, value = item.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            return _refuse(f"--env {item!r}: write KEY=VALUE")
        if key in _SECRETS:
            return _refuse(
                f"--env {key}: a kernelspec is no place for a secret; set {key} in the environment or .env"
            )
        env[key] = value
    if args.sandbox:
        env["DAYTONA_SANDBOX"] = args.sandbox
    problem = _contradiction(args)
    if problem:
        return _refuse(problem)
    if not is_name(args.name):
        return _refuse(f"--name {args.name!r}: letters, digits, '.', '-' and '_' only")
    display_name = args.display_name or (
        DISPLAY_NAME if args.name == DEFAULT_NAME else f"{DISPLAY_NAME}: {args.name}"
    )
    user, prefix = _location(args)
    try:
        folder = install(args.name, display_name, env, user=user, prefix=prefix)
    except OSError as exc:
        print(f"cannot write the kernelspec: {exc}", file=sys.stderr)
        return 1
    print(f"installed kernelspec {args.name} in {folder}")
    return 0


def _contradiction(args: argparse.Namespace) -> str:
    """What of the words for a sandbox can not go together; a kernel would only say it at its first cell."""
    kind = kind_variables(args)
    if args.sandbox and kind:
        return "--sandbox names a sandbox that is there: it can not be given a kind as well"
    if args.snapshot and args.image:
        return "--snapshot and --image: a sandbox is made from one of them"
    if any((args.cpu, args.memory, args.disk, args.gpu)) and not args.image:
        return "--cpu, --memory, --disk and --gpu need --image: a snapshot brings its own resources"
    return ""


def uninstall_command(args: argparse.Namespace) -> int:
    """``jupyter daytona uninstall``: 0, or 1 where there is none of ours by that name in that place."""
    from jupyter_client.kernelspec import KernelSpecManager

    user, prefix = _location(args)
    base = (
        Path(KernelSpecManager().user_kernel_dir)
        if user
        else Path(str(prefix), "share", "jupyter", "kernels")
    )
    folder = base / args.name.lower()  # as Jupyter writes them
    if not is_name(args.name) or not folder.is_dir():
        return _refuse(f"there is no kernelspec {args.name!r} in {base}", code=1)
    if not is_ours(folder):
        return _refuse(f"{folder} is not a kernelspec of daytona-kernel; left alone", code=1)
    try:
        folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    except OSError as exc:
        return _refuse(f"cannot remove {folder}: {exc}", code=1)
    print(f"removed kernelspec {args.name} from {folder}")
    return 0


def _location(args: argparse.Namespace) -> tuple[bool, str | None]:
    if args.prefix is not None:
        return False, str(args.prefix)
    if args.sys_prefix:
        return False, sys.prefix
    return True, None


def _refuse(message: str, code: int = 2) -> int:
    print(message, file=sys.stderr)
    return code
