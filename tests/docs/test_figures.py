"""Figures that the pages name are those of the code."""

from __future__ import annotations

import re

import pytest

from daytona_kernel import link, redaction, wire
from daytona_kernel.agent import outbox, spool
from daytona_kernel.config import DaytonaSettings
from daytona_kernel.local import options

from .pages import ROOT

KIB, MIB, GIB = 2**10, 2**20, 2**30
DAYS = 86400
FIGURES = [
    ("protocol.md", "A line has at most {} KiB", wire.MAX_LINE_BYTES / KIB),
    ("protocol.md", "Text is gathered for up to {} ms", outbox.FLUSH_DELAY_S * 1000),
    ("protocol.md", "ms or {} KiB, and passed on", outbox.FLUSH_CHARS / KIB),
    ("protocol.md", "one for each {} MiB", link.ACK_BYTES / MIB),
    ("protocol.md", "At most {} MiB are on their way", outbox.WINDOW_BYTES / MIB),
    ("protocol.md", "If none comes for {} seconds", outbox.ACK_PATIENCE_S),
    ("protocol.md", "it is deleted after {} days", DaytonaSettings.auto_delete.default_value / DAYS),
    ("faults.md", "Producers wait when {} MiB", outbox.WINDOW_BYTES / MIB),
    ("faults.md", "MiB or {} chunks are on their way", outbox.WINDOW_CHUNKS),
    ("faults.md", "If no kernel acknowledges for {} s", outbox.ACK_PATIENCE_S),
    ("faults.md", "keeps the last {} GiB", spool.LIMIT_BYTES / GIB),
    ("faults.md", "goes on in memory ({} MiB)", spool.MEMORY_BYTES / MIB),
    ("faults.md", "it waits up to {} s for the network", link.OPEN_PATIENCE_S),
    ("faults.md", "found by unanswered pings after some {} s", link.PING_INTERVAL_S + link.PING_TIMEOUT_S),
    ("security.md", "A single message is limited to {} MiB", wire.MAX_MESSAGE_BYTES / MIB),
    ("security.md", "values shorter than {} characters", redaction.MIN_CHARS),
    ("security.md", "of fewer than {} different ones", redaction.MIN_DIFFERENT),
    ("settings.md", "`DAYTONA_LOCAL_IDLE_MINUTES` | {} |", options.IDLE_MINUTES),
]


@pytest.mark.parametrize(("page", "sentence", "figure"), FIGURES, ids=lambda one: str(one)[:40])
def test_a_figure_of_the_pages_is_that_of_the_code(page: str, sentence: str, figure: float) -> None:
    text = re.sub(r"\s+", " ", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert sentence.format(f"{figure:g}") in text
