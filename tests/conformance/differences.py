"""Writes docs/differences.md: what differs from ipykernel, and why.

python -m tests.conformance.differences
"""

from __future__ import annotations

from pathlib import Path

from .known_differences import IPYKERNEL_TESTS, KNOWN, PROTOCOL

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"

HEAD = """# What differs from ipykernel

<!-- Written by `python -m tests.conformance.differences` from tests/conformance/known_differences.py. -->

The kernel behaves as ipykernel's `python3` does, and the suite in `tests/conformance` holds it to that: it
runs the same small cells, more than a thousand, under both kernels and compares all that they say, message by
message. Those named here differ, in what is said here; a test fails if one of them differs in anything else,
or not any more, and if any other cell differs at all. The end of the suite's output counts them.
"""


def row(*columns: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(column.replace("|", "\\|") for column in columns) + " |"


def by_reason() -> dict[str, list[str]]:
    """The names of the cells that differ, by the reason."""
    found: dict[str, list[str]] = {}
    for name, known in KNOWN.items():
        found.setdefault(known.reason, []).append(name)
    return found


def page() -> str:
    """The text of docs/differences.md."""
    lines = [HEAD]
    lines += ["## Messages, timing and files", "", row("what", "how it differs, and why"), row("---", "---")]
    lines += [row(name, text) for name, text in PROTOCOL.items()]
    lines += ["", "## Cells", "", row("why", "cells of the suite"), row("---", "---")]
    lines += [row(reason, ", ".join(f"`{name}`" for name in names)) for reason, names in by_reason().items()]
    lines += [
        "",
        "## Tests of ipykernel and nbclient that do not pass",
        "",
        row("tests", "why"),
        row("---", "---"),
    ]
    lines += [row(f"`{name}`", why) for name, why in IPYKERNEL_TESTS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
