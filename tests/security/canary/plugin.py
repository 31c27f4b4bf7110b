"""Pytest plugin: as tests run, no process has a secret in its words, none of a sandbox in its environment.

``-p tests.security.canary.plugin``, with the file of findings in ``CANARY_FINDINGS``.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .marks import KEY, PERSON, hits, masked, without_marks
from .search import Finding

SECONDS = 0.25
"""Between two looks. New processes are read twice, since they may change what they run."""
IN_SANDBOX = b"DAYTONA_SANDBOX_ID="


class Watch:
    """A thread that looks at processes."""

    def __init__(self, findings: Path) -> None:
        self._findings = findings
        self._known: set[str] = set()
        self._fresh: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)
        self.looked_at = 0
        """Processes, some of them twice."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what there is now has been looked at."""
        self._end.set()
        self._thread.join()
        self.look()

    def _run(self) -> None:
        while not self._end.wait(SECONDS):
            self.look()

    def look(self) -> None:
        """Look at the processes that are new."""
        there = {name for name in os.listdir("/proc") if name.isdigit()}
        for pid in (there - self._known) | (there & self._fresh):
            self.looked_at += 1
            for what, data, offset, text in found_in_process(pid):
                self._tell(pid, what, data, offset, text)
        self._fresh, self._known = there - self._known, there

    def _tell(self, pid: str, what: str, words: str, offset: int, text: str) -> None:
        if (pid, what) in self._told:
            return
        self._told.add((pid, what))
        finding = Finding(f"process {words}", what, offset, "", "", text, 0, private=False)
        when = os.environ.get("PYTEST_CURRENT_TEST", "")
        with self._findings.open("a") as file:
            file.write(json.dumps({**finding.as_json(), "when": when}) + "\n")


def found_in_process(pid: str) -> Iterator[tuple[str, str, int, str]]:
    """What a process should not show: where, its words, the place, and what is around it."""
    words, environment = _read(pid, "cmdline"), _read(pid, "environ")
    said = without_marks(words.replace(b"\0", b" "))[:200]
    for hit in hits(words):
        yield "arguments", said, hit.offset, masked(words, hit)
    if any(one.startswith(IN_SANDBOX) for one in environment.split(b"\0")):
        for hit in hits(environment):
            if hit.kind in (KEY, PERSON):
                yield "environment", said, hit.offset, masked(environment, hit)


def _read(pid: str, what: str) -> bytes:
    try:
        return Path("/proc", pid, what).read_bytes()
    except OSError:
        return b""


def pytest_configure(config: Any) -> None:
    """Begin with the run."""
    watch = Watch(Path(os.environ["CANARY_FINDINGS"]))
    config.stash_of_canary = watch
    watch.start()


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Say that it was looked."""
    watch: Watch = config.stash_of_canary
    watch.stop()
    terminalreporter.write_line(f"canaries: looked at {watch.looked_at} processes")
