"""The words of ``jupyter daytona run``, and of what a new sandbox is to be like. Imports nothing heavy."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .sandboxwords import add_kind, byte_count, count, duration, kind_variables

if TYPE_CHECKING:
    # The private name is argparse's own; there is no public one for what add_subparsers returns.
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_JOBS = 4
DEFAULT_OUTPUT = 100_000_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXAMPLES = """\
examples:
  jupyter daytona run report.ipynb                      result in report.out.ipynb
  jupyter daytona run 'notebooks/**/*.ipynb' --jobs 8 --output-dir out --junit report.xml
  jupyter daytona run train.ipynb -p epochs 3 -p name small --upload data --collect '*.png'

exit codes: 0 all notebooks ran, 1 a notebook failed, 2 wrong usage (nothing was run), 3 a sandbox or a kernel
failed and no notebook did, 130 stopped by Ctrl-C
"""


def add_parser(commands: _Commands) -> None:
    """Add ``run`` to the commands."""
    parser = commands.add_parser(
        "run",
        help="run notebooks headlessly and save their outputs",
        description="Run all cells of notebooks, each notebook in a sandbox of its own, several at once. "
        "Outputs are saved after each cell. The sandboxes are deleted in the end.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "notebooks", metavar="NOTEBOOK", nargs="+", help="files, folders, or patterns in quotes ('**' too)"
    )
    _add_results(parser)
    _add_inputs(parser)
    _add_limits(parser)
    add_sandbox_options(parser)
    parser.set_defaults(run=_run)


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    target = group.add_mutually_exclusive_group()
    target.add_argument(
        "-o", "--output", metavar="OUT", type=Path, help="where to save (default: NAME.out.ipynb beside it)"
    )
    target.add_argument(
        "--output-dir", metavar="DIR", type=Path, help="save all there, in folders as the notebooks are"
    )
    target.add_argument("--inplace", action="store_true", help="save the outputs in the notebooks themselves")
    group.add_argument(
        "--collect",
        action="append",
        type=_pattern,
        default=[],
        metavar="PATTERN",
        help="download these files of the sandbox in the end, to NAME.files beside the result",
    )
    group.add_argument("--junit", metavar="FILE", type=Path, help="write a report for CI systems (JUnit XML)")
    group.add_argument("--json", metavar="FILE", type=Path, help="write a summary as JSON; - for stdout")
    group.add_argument("--no-progress", action="store_true", help="show nothing but failures")


def _pattern(text: str) -> str:
    """Argparse type: a pattern of files. A shell variable that is not set must not mean all there are."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a pattern is expected; '*' stands for all files")
    return text


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inputs")
    group.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter, as papermill does: numbers, True, False and None are recognized",
    )
    group.add_argument(
        "-r",
        "--parameter-raw",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "TEXT"),
        help="set a parameter to this text, whatever it looks like",
    )
    group.add_argument(
        "-f",
        "--parameter-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="set parameters from JSON (or YAML, with PyYAML)",
    )
    group.add_argument(
        "--upload",
        action="append",
        default=[],
        metavar="PATH[:WHERE]",
        help="upload this file or folder first; a relative path is the same in the working directory there",
    )
    group.add_argument(
        "--beside",
        action="store_true",
        help="upload what lies in each notebook's folder and below, but hidden files, caches, environments "
        "and results",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how")
    group.add_argument(
        "-j",
        "--jobs",
        type=count(1),
        metavar="N",
        help=f"run so many at once (default: {DEFAULT_JOBS}; with --share or --sandbox: 1)",
    )
    group.add_argument(
        "--timeout",
        type=duration,
        metavar="TIME",
        help="limit for each notebook, from its start, like 90s, 30m, 2h (default: none)",
    )
    group.add_argument(
        "--cell-timeout", type=duration, metavar="TIME", help="limit for each cell, like 5m (default: none)"
    )
    group.add_argument(
        "--max-output",
        type=byte_count,
        default=DEFAULT_OUTPUT,
        metavar="SIZE",
        help="keep so much output of each notebook, like 1GB; 0 for all (default: 100MB)",
    )
    group.add_argument(
        "--retries",
        type=count(0),
        default=0,
        metavar="N",
        help="run a notebook so many times again if its sandbox fails, never if its code does (default: 0)",
    )
    group.add_argument(
        "--fail-fast", action="store_true", help="stop everything when the first notebook fails"
    )
    group.add_argument(
        "--allow-errors", action="store_true", help="go on after a cell that fails; the exit code is then 0"
    )
    group.add_argument(
        "--keep-failed",
        action="store_true",
        help="keep the sandbox of a notebook that fails, with its variables, for 7 days",
    )


def add_sandbox_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which sandbox, of which kind; :func:`sandbox_variables` reads it."""
    group = parser.add_argument_group("sandboxes")
    group.add_argument("--kernel", default="daytona", metavar="NAME", help="kernel to use (default: daytona)")
    group.add_argument("--sandbox", metavar="NAME", help="use this existing sandbox (name or id) and keep it")
    group.add_argument("--share", action="store_true", help="one new sandbox for all notebooks")
    add_kind(group)
    group.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="variable of the sandbox; without a value that of this environment",
    )


_DASH = "\0-"
"""A dash at the beginning of a parameter's value, hidden from argparse, which would take it for an option."""


def shielded(words: Sequence[str]) -> list[str]:
    """*words* with values like ``-x`` and ``-1e-5`` after ``-p NAME`` made such that argparse takes them."""
    found = list(words)
    for place, word in enumerate(words[:-2]):
        if word in ("-p", "--parameter", "-r", "--parameter-raw") and words[place + 2][:1] == "-":
            found[place + 2] = _DASH + words[place + 2][1:]
    return found


def bare(pairs: list[list[str]]) -> list[tuple[str, str]]:
    """Names and values as they were before :func:`shielded`."""
    return [(name, value.replace(_DASH, "-", 1)) for name, value in pairs]


def sandbox_env(words: list[str]) -> dict[str, str]:
    """Read ``--env``. Raises :exc:`ValueError` for a word that is none, or a variable that is not set."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not _NAME.fullmatch(name):
            raise ValueError(f"--env {name!r}: write KEY=VALUE or KEY")
        if not equals and name not in os.environ:
            raise ValueError(f"--env {name}: there is no such variable here")
        found[name] = value if equals else os.environ[name]
    return found


def _run(args: argparse.Namespace) -> int:
    import sys

    from .outcome import EXIT_USAGE
    from .parameters import ParameterError, collect
    from .runner import RunOptions, run_notebooks

    try:
        variables = kind_variables(args)
        if args.env:
            variables["DAYTONA_KERNEL_ENV_VARS"] = json.dumps(sandbox_env(args.env))
        found = collect(bare(args.parameter), bare(args.parameter_raw), args.parameter_file)
        each = _each(args, variables)
    except (ValueError, ParameterError) as exc:
        print(exc, file=sys.stderr)
        return EXIT_USAGE
    return run_notebooks(
        RunOptions(
            notebooks=args.notebooks,
            output=args.output,
            output_dir=args.output_dir,
            inplace=args.inplace,
            each=each,
            parameters=found,
            uploads=args.upload,
            beside=args.beside,
            jobs=args.jobs or (1 if args.share or args.sandbox else DEFAULT_JOBS),
            retries=args.retries,
            fail_fast=args.fail_fast,
            share=args.share,
            junit=args.junit,
            json=args.json,
            progress=not args.no_progress,
        )
    )


if TYPE_CHECKING:
    from .notebookrun import NotebookOptions


def _each(args: argparse.Namespace, variables: dict[str, str]) -> NotebookOptions:
    """The options of each notebook. Raises :exc:`ValueError` for settings that can not go together."""
    from .config import DaytonaSettings
    from .errors import ConfigurationError
    from .notebookrun import NotebookOptions

    if variables:
        settings = DaytonaSettings(
            snapshot=args.snapshot or "",
            image=args.image or "",
            cpu=args.cpu or 0,
            memory_gib=args.memory or 0,
            disk_gib=args.disk or 0,
            gpu=args.gpu or 0,
            auto_stop=args.auto_stop,
        )
        try:
            settings.check()
        except ConfigurationError as exc:
            raise ValueError(str(exc)) from exc
    return NotebookOptions(
        kernel=args.kernel,
        sandbox=args.sandbox,
        timeout=args.timeout,
        cell_timeout=args.cell_timeout,
        allow_errors=args.allow_errors,
        max_output=args.max_output,
        collect=args.collect,
        environment=variables,
        keep_failed=args.keep_failed,
    )
