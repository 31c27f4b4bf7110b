"""What differs from ipykernel by intention or by nature, by cell, each with its reason.

The list is strict in both directions: a cell that no longer differs fails, and so does a cell that
differs in a line that none of its patterns matches.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownDifference:
    """Why a cell differs, and regular expressions for the lines of the diff that may."""

    reason: str
    lines: tuple[str, ...]


KNOWN: dict[str, KnownDifference] = {}
