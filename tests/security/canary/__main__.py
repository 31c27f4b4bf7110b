"""``python -m tests.security.canary install|remove|environment|search``; see the package."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .allowed import PLACES, allowed
from .marks import KINDS, PERSONAL
from .search import Finding, search_tree

HERE = Path(__file__).resolve().parent
NAME = "_canary_start"
SHOWN = 40
"""Findings that are printed."""


def installed() -> list[Path]:
    """The files that `install` makes in the environment of this Python."""
    packages = Path(sysconfig.get_path("purelib"))
    return [packages / f"{NAME}.py", packages / f"{NAME}.pth"]


def install(findings: Path, root: Path) -> None:
    """Have every Python of this environment mark its secrets from now on."""
    code, line = installed()
    constants = (str(findings.resolve()), str(root.resolve()), str(HERE))
    source = (HERE / "hook.py").read_text(encoding="utf-8")
    code.write_text(f"{source}\n\nFINDINGS, ROOT, HERE = {constants!r}\nstart()\n", encoding="utf-8")
    line.write_text(f"import {NAME}\n", encoding="utf-8")


def remove() -> None:
    """End it."""
    for path in installed():
        path.unlink(missing_ok=True)


def environment() -> Iterator[str]:
    """Shell commands that set what a person has in the environment."""
    for name, value in PERSONAL.items():
        yield f"export {name}={shlex.quote(value)}"


def noted(findings: Path) -> Iterator[tuple[Finding, str]]:
    """What was found while the tests ran, and when."""
    for line in findings.read_text(encoding="utf-8").splitlines() if findings.exists() else ():
        values: dict[str, Any] = json.loads(line)
        when = values.pop("when")
        yield Finding(**values), when


def report(found: list[tuple[Finding, str]]) -> list[str]:
    """The lines of a report on what nobody allowed."""
    lines = []
    for finding, when in found[:SHOWN]:
        where = f"{finding.path}{' ' + finding.member if finding.member else ''}, byte {finding.offset}"
        lines.append(f"FOUND {KINDS.get(finding.kind, 'a secret')}: {where}, mode {finding.mode:04o} {when}")
        lines.append(f"      {finding.around}")
    if len(found) > SHOWN:
        lines.append(f"... and {len(found) - SHOWN} more")
    return lines


def search(findings: Path, roots: list[Path]) -> int:
    """Search, report; the exit code."""
    left = [(one, "left behind") for root in roots for one in search_tree(str(root))]
    left = [(one, when) for one, when in left if Path(one.path) != findings.resolve()]
    everything = [*noted(findings), *left]
    bad = [(one, when) for one, when in everything if not allowed(one)]
    good = Counter(place.path for one, _ in everything for place in PLACES if place.covers(one))
    for place in PLACES:
        print(f"{good[place.path]:6} times where it may be: {place.path} ({place.why})")
    print("\n".join(report(bad) or ["no secret anywhere else"]))
    if not good:
        # The marks are what all of this rests on.
        print("not one secret had a mark: the canaries were not at work")
        return 2
    return 1 if bad else 0


def main() -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m tests.security.canary", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    begin = commands.add_parser("install", help="mark the secrets of all programs of this environment")
    begin.add_argument("findings", type=Path)
    begin.add_argument("root", type=Path)
    commands.add_parser("remove", help="no longer")
    commands.add_parser("environment", help="print marked variables of a person, for eval")
    look = commands.add_parser("search", help="search what was written")
    look.add_argument("findings", type=Path)
    look.add_argument("roots", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "install":
        install(options.findings, options.root)
    elif options.command == "remove":
        remove()
    elif options.command == "environment":
        print("\n".join(environment()))
    else:
        return search(options.findings, options.roots)
    return 0


if __name__ == "__main__":
    sys.exit(main())
