"""Which weaknesses of the real interpreter daemon the local one reproduces.

All of them are facts of daemon v0.190.0 that a client has to survive, so they are on by default. Set the
environment variable ``DAYTONA_LOCAL_QUIRKS`` of the server to a comma-separated list of names, ``all`` or
``none``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

WEDGE = "wedge"
"""A worker that dies leaves its execution "running", and the context's queue stuck, until that one's
timeout."""
DEAF_QUEUE = "deaf-queue"
"""No pong and no notice of a closed client while an execution waits in the queue."""
GLOBAL_LOCK = "global-lock"
"""Deleting a busy context holds up creating, finding and listing any context (2.1 s at most)."""
EMPTY_ERRORS = "empty-errors"
"""REST errors of the interpreter have a status and no body."""
POLL50 = "poll50"
"""The end of an execution is looked for every 50 ms. Not part of ``all``: it costs time and shows nothing
new."""
STRICT_QUEUE = "strict-queue"
"""A client is slow as soon as 1024 frames wait for it, without a moment's grace. Not part of ``all``: on a
machine
that clients and sandboxes share it would strike clients that do read."""

ALL = frozenset({WEDGE, DEAF_QUEUE, GLOBAL_LOCK, EMPTY_ERRORS})
KNOWN = ALL | {POLL50, STRICT_QUEUE}
VARIABLE = "DAYTONA_LOCAL_QUIRKS"


def parse(text: str | None) -> frozenset[str]:
    """Read the setting's text; ``None`` and an empty text mean ``all``.

    Raises ``ValueError`` for a name that does not exist.
    """
    names = {name.strip().lower() for name in (text or "all").split(",")} - {""}
    chosen = names - {"all", "none"}
    if unknown := sorted(chosen - KNOWN):
        raise ValueError(
            f"{VARIABLE}: unknown {', '.join(unknown)}; known: all, none, {', '.join(sorted(KNOWN))}"
        )
    return frozenset(chosen | (ALL if "all" in names else set()))


def from_environment(environ: Mapping[str, str] = os.environ) -> frozenset[str]:
    """The quirks that this process was told to have."""
    return parse(environ.get(VARIABLE))
