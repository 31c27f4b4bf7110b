"""What a mutant is."""

from __future__ import annotations

from dataclasses import dataclass

ASSERTED = r"AssertionError|assert |Failed: DID NOT RAISE"
"""How a failure begins whose test has seen what it should not see."""


@dataclass(frozen=True)
class Edit:
    """A change of one file."""

    file: str
    """Below ``daytona_kernel``."""
    old: str
    """Stands in it once."""
    new: str


@dataclass(frozen=True)
class Mutant:
    """A package without one defence."""

    threat: str
    """The row of the table in ``docs/security.md``: asset and path, with a colon between."""
    edits: tuple[Edit, ...]
    fails: tuple[str, ...]
    """Tests below ``tests`` that must fail with it: each of them, with at least one of its parameters."""
    why: str = ASSERTED
    """Regular expression for the beginning of each failure's message."""


def mutant(threat: str, file: str, old: str, new: str, *fails: str, why: str = ASSERTED) -> Mutant:
    """One with a single change."""
    return Mutant(threat, (Edit(file, old, new),), fails, why)
