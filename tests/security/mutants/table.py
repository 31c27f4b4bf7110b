"""All mutants."""

from __future__ import annotations

from . import bridge, kernel, secrets, server
from .model import Mutant

MUTANTS: tuple[Mutant, ...] = (*kernel.MUTANTS, *bridge.MUTANTS, *secrets.MUTANTS, *server.MUTANTS)


def label(one: Mutant) -> str:
    """What a mutant is called: its threat, and which of those with that."""
    same = [other for other in MUTANTS if other.threat == one.threat]
    return f"{one.threat} ({same.index(one) + 1} of {len(same)})"
