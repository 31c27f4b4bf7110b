"""What a run of notebooks tells other programs: a summary in JSON, and JUnit's XML for CI systems."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ._version import __version__
from .notebookrun import Facts
from .outcome import Outcome
from .progress import strip_ansi
from .selection import Job

# Characters that XML 1.0 can not hold, not even escaped (section 2.2 there).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class Report:
    """One notebook's run; ``outcome`` is ``None`` if it was not begun. ``seconds`` counts all attempts."""

    job: Job
    outcome: Outcome | None = None
    facts: Facts = field(default_factory=Facts)
    seconds: float = 0.0
    attempts: int = 0

    @property
    def status(self) -> str:
        """``ok``, ``failed``, ``error``, ``stopped`` or ``not run``; see :class:`Outcome`."""
        return self.outcome.status if self.outcome is not None else "not run"


def summary(reports: Sequence[Report], *, code: int, began: float, seconds: float) -> dict[str, Any]:
    """The whole run as JSON can hold it. *began* is a time of day (seconds since 1970), as are none else."""
    counts = Counter(report.status for report in reports)
    return {
        "version": __version__,
        "started": _moment(began),
        "seconds": round(seconds, 3),
        "exit_code": code,
        "counts": {name: counts.get(name, 0) for name in ("ok", "failed", "error", "stopped", "not run")},
        "notebooks": [_entry(report) for report in reports],
    }


def _entry(report: Report) -> dict[str, Any]:
    facts, outcome = report.facts, report.outcome
    entry: dict[str, Any] = {
        "notebook": report.job.name,
        "output": str(report.job.target) if outcome is not None else None,
        "status": report.status,
        "seconds": round(report.seconds, 3),
        "attempts": report.attempts,
        "cells": facts.cells,
        "cells_run": facts.done,
        "sandbox": facts.sandbox or None,
        "sandbox_kept": facts.kept,
        "context": facts.context if facts.kept and facts.context else None,
        "uploaded_files": facts.uploaded_files,
        "uploaded_bytes": facts.uploaded_bytes,
        "collected": [str(path) for path in facts.collected],
        "notes": list(facts.notes),
        "error": None,
    }
    if outcome is not None and outcome.code:
        entry["error"] = {
            "message": outcome.message,
            "cell": outcome.cell or None,
            "ename": outcome.ename,
            "evalue": outcome.evalue,
            "traceback": strip_ansi("\n".join(outcome.traceback)),
        }
    return entry


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Write *found* to *path*, or to stdout for ``-``. Raises :exc:`OSError`."""
    text = json.dumps(found, indent=2) + "\n"
    if str(path) == "-":
        print(text, end="")
    else:
        path.write_text(text, encoding="utf-8")


def junit(reports: Sequence[Report], *, began: float, seconds: float) -> ElementTree.Element:
    """One suite with a test case for each notebook.

    A notebook that failed is a ``failure``, one whose sandbox failed or that was stopped an ``error``, one
    that was not begun is ``skipped``.
    """
    counts = Counter(report.status for report in reports)
    numbers = {
        "tests": str(len(reports)),
        "failures": str(counts["failed"]),
        "errors": str(counts["error"] + counts["stopped"]),
        "skipped": str(counts["not run"]),
        "time": f"{seconds:.3f}",
    }
    # Jenkins' schema (junit-10.xsd of its xunit plugin) knows the number of skipped ones of a suite only.
    of_all = {name: value for name, value in numbers.items() if name != "skipped"}
    root = ElementTree.Element("testsuites", {"name": "jupyter daytona run", **of_all})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": "notebooks", **numbers, "timestamp": _moment(began)[:19]}
    )
    for report in reports:
        suite.append(_case(report))
    return root


def _case(report: Report) -> ElementTree.Element:
    name = report.job.name
    folder = name.rpartition("/")[0].replace("/", ".").strip(".")
    case = ElementTree.Element(
        "testcase",
        {
            "name": _text(name),
            "classname": _text(f"notebooks.{folder}".rstrip(".")),
            "time": f"{report.seconds:.3f}",
        },
    )
    outcome = report.outcome
    if outcome is None:
        ElementTree.SubElement(case, "skipped", {"message": "not run: the run ended before"})
        return case
    if outcome.code:
        kind = "failure" if outcome.status == "failed" else "error"
        attributes = {"message": _text(outcome.message), "type": _text(outcome.ename or outcome.status)}
        found = ElementTree.SubElement(case, kind, attributes)
        found.text = _text(strip_ansi("\n".join(outcome.traceback)) or outcome.message)
    lines = [f"{report.facts.done} of {report.facts.cells} cells run", f"outputs: {report.job.target}"]
    if report.attempts > 1:
        lines.append(f"attempts: {report.attempts}")
    if report.facts.kept:
        lines.append(f"sandbox kept: {report.facts.sandbox}")
    ElementTree.SubElement(case, "system-out").text = _text("\n".join([*lines, *report.facts.notes]))
    return case


def write_junit(path: Path, root: ElementTree.Element) -> None:
    """Write the XML to *path*. Raises :exc:`OSError`."""
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _text(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
