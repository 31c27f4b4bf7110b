"""``jupyter daytona``: run notebooks headlessly, manage the local sandbox server and kernelspecs.

Jupyter finds the program as ``jupyter-daytona``. Every command imports what it needs when it runs, so that
``--help`` and ``version`` answer at once.

Exit codes, the same for all commands: 0 all well, 1 the thing asked for failed (for ``run``: a notebook
failed), 2 wrong usage, 3 a sandbox or a kernel failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import runcommand, sandboxwords
from .outcome import EXIT_CELL_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from .steady import discard


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code (argparse itself exits with 2 for usage errors)."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(with_local=words[:1] == ["local"])
    args = parser.parse_args(runcommand.shielded(words))
    if not words:
        parser.print_help()
        return EXIT_USAGE
    code = EXIT_OK
    try:
        code = _run_local(args) if words[0] == "local" else int(args.run(args))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe (`| head`) went away. The interpreter flushes stdout once more when it ends.
        discard(sys.stdout)
        return code
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT) or exc.filename is not None:
            raise
        discard(sys.stdout)
        print(f"cannot write: {exc.strerror}; make room, then run the command again", file=sys.stderr)
        return code or EXIT_CELL_FAILED


def build_parser(*, with_local: bool = False) -> argparse.ArgumentParser:
    """Return the parser of all commands.

    The commands under ``local`` belong to the local server's own module, which is imported only when
    *with_local*.
    """
    parser = argparse.ArgumentParser(
        prog="jupyter daytona",
        description="Notebooks that run in a Daytona sandbox.",
        epilog="exit codes: 0 ok, 1 a notebook failed, 2 wrong usage, 3 sandbox or kernel failed, 130 Ctrl-C",
    )
    commands = parser.add_subparsers(metavar="COMMAND")
    runcommand.add_parser(commands)
    _add_local(commands, load=with_local)
    _add_sandboxes(commands)
    _add_doctor(commands)
    _add_install(commands)
    _add_uninstall(commands)
    _add_version(commands)
    return parser


if TYPE_CHECKING:
    # The private name is argparse's own; there is no public one for what add_subparsers returns.
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def _add_local(commands: _Commands, *, load: bool) -> None:
    if not load:
        commands.add_parser("local", help="start, stop and inspect the embedded local sandbox server")
        return
    from .local import cli as local_cli

    local_cli.add_parser(commands)


def _run_local(args: argparse.Namespace) -> int:
    from .local import cli as local_cli

    return int(local_cli.run(args))


def _add_sandboxes(commands: _Commands) -> None:
    parser = commands.add_parser(
        "sandboxes",
        help="list, stop and delete the sandboxes of notebooks",
        description="List the sandboxes that notebooks and runs have made, or stop or delete some.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="list all sandboxes, also those of other programs")
    which.add_argument("--mine", action="store_true", help="list those that you made, on this machine")
    which.add_argument(
        "--prune",
        action="store_true",
        help="delete those of yours whose run or kernel on this machine was killed (they go by themselves "
        "when they are idle)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--stop", nargs="+", default=[], metavar="NAME", help="stop these; their files stay")
    parser.add_argument(
        "--delete", nargs="+", default=[], metavar="NAME", help="delete these, files included"
    )
    parser.set_defaults(run=_sandboxes)


def _sandboxes(args: argparse.Namespace) -> int:
    from . import inventory

    return inventory.run(args)


def _add_doctor(commands: _Commands) -> None:
    parser = commands.add_parser("doctor", help="check what notebooks need, and say what is missing")
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--offline", action="store_true", help="do not ask the service")
    how_much.add_argument("--quick", action="store_true", help="ask the service, but make no sandbox")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from . import doctor

    return doctor.run(offline=args.offline, quick=args.quick, as_json=args.json)


def _add_install(commands: _Commands) -> None:
    parser = commands.add_parser(
        "install",
        help="add another kernelspec, for example one per sandbox",
        description="Write a kernelspec that starts this Python's daytona_kernel. The one named 'daytona' "
        "comes with the package; more of them can carry a sandbox or settings of their own.",
    )
    parser.add_argument("--name", default="daytona", help="name of the kernelspec (default: daytona)")
    parser.add_argument("--display-name", help="what Jupyter's launcher shows (default: Python 3 (Daytona))")
    _add_location(parser)
    kind = parser.add_argument_group("sandboxes")
    kind.add_argument("--sandbox", metavar="NAME", help="sandbox (name or id) that this kernel uses")
    sandboxwords.add_kind(kind)
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="environment of this kernel; may be repeated",
    )
    parser.set_defaults(run=_install)


def _install(args: argparse.Namespace) -> int:
    from . import kernelspecs

    return kernelspecs.install_command(args)


def _add_uninstall(commands: _Commands) -> None:
    parser = commands.add_parser("uninstall", help="remove a kernelspec that 'install' wrote")
    parser.add_argument("--name", default="daytona", help="name of the kernelspec (default: daytona)")
    _add_location(parser)
    parser.set_defaults(run=_uninstall)


def _uninstall(args: argparse.Namespace) -> int:
    from . import kernelspecs

    return kernelspecs.uninstall_command(args)


def _add_location(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="for this user (the default)")
    where.add_argument("--sys-prefix", action="store_true", help="for this Python environment")
    where.add_argument("--prefix", type=Path, metavar="DIR", help="under DIR/share/jupyter/kernels")


def _add_version(commands: _Commands) -> None:
    parser = commands.add_parser("version", help="print the version")
    parser.set_defaults(run=_version)


def _version(args: argparse.Namespace) -> int:
    from ._version import __version__

    print(__version__)
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
