"""``python -m tests.security.mutants [--only WORD] [--jobs N] [--list]``; see the package."""

from __future__ import annotations

import argparse
import os
import queue
import re
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .model import Mutant
from .table import MUTANTS, label
from .workshop import Results, Workshop, is_of, verdict


def chosen(words: Sequence[str], without: Sequence[str]) -> list[Mutant]:
    """The mutants whose labels, files or tests have one of the words, and none of the others."""

    def has(one: Mutant, wanted: Sequence[str]) -> bool:
        text = " ".join([label(one), *(edit.file for edit in one.edits), *one.fails])
        return any(re.search(word, text) for word in wanted)

    return [one for one in MUTANTS if (not words or has(one, words)) and not has(one, without)]


def run(mutants: list[Mutant], jobs: int, folder: Path) -> int:
    """See the tests pass, and fail with each mutant; how many are findings."""
    workshops: queue.SimpleQueue[Workshop] = queue.SimpleQueue()
    with ThreadPoolExecutor(jobs) as pool:
        for one in pool.map(Workshop, [folder / str(number) for number in range(jobs)]):
            workshops.put(one)
        unharmed = baseline(mutants, pool, workshops, jobs)
        findings = list(pool.map(lambda one: judged(one, unharmed, workshops), mutants))
    bad = sum(found is True for found in findings)
    skipped = sum(found is None for found in findings)
    print(f"{len(mutants)} mutants: {len(mutants) - bad - skipped} killed, {skipped} skipped, {bad} findings")
    return bad


def baseline(
    mutants: list[Mutant], pool: ThreadPoolExecutor, workshops: queue.SimpleQueue[Workshop], jobs: int
) -> Results:
    """What the tests say of the package as it is."""
    began = time.monotonic()
    tests = list(dict.fromkeys(test for one in mutants for test in one.fails))
    files = sorted({test.partition("::")[0] for test in tests})
    # Those of one file together, since they share servers and kernels.
    parts = [
        [test for test in tests if files.index(test.partition("::")[0]) % jobs == n] for n in range(jobs)
    ]

    def run(part: list[str]) -> Results:
        workshop = workshops.get()
        try:
            return workshop.run(part, "b") if part else Results()
        finally:
            workshops.put(workshop)

    results = Results()
    for one in pool.map(run, parts):
        results.passed |= one.passed
        results.failed |= one.failed
        results.skipped |= one.skipped
        results.broken += one.broken
    words = f"{len(results.passed)} pass, {len(results.failed)} fail, {len(results.skipped)} skipped"
    print(f"{time.monotonic() - began:6.1f} s  without any change: {words}", flush=True)
    for text in [*results.broken, *(f"{name}: {said[0][:500]}" for name, said in results.failed.items())]:
        print(text, flush=True)
    return results


def judged(one: Mutant, unharmed: Results, workshops: queue.SimpleQueue[Workshop]) -> bool | None:
    """Whether a mutant is a finding; ``None`` if its tests can not run here."""
    for test in one.fails:
        skipped = [why for name, why in unharmed.skipped.items() if is_of(name, test)]
        if skipped and not any(is_of(name, test) for name in unharmed.passed):
            print(f"skipped   {label(one)}: {skipped[0]}", flush=True)
            return None
        if not any(is_of(name, test) for name in unharmed.passed) or any(
            is_of(name, test) for name in unharmed.failed
        ):
            print(f"FINDING   {label(one)}: {test} does not pass as it is", flush=True)
            return True
    began = time.monotonic()
    workshop = workshops.get()
    try:
        workshop.change(one.edits)
        problem = verdict(one, workshop.run(one.fails, str(MUTANTS.index(one))))
    finally:
        workshop.restore()
        workshops.put(workshop)
    word = "FINDING" if problem else "killed"
    print(
        f"{time.monotonic() - began:6.1f} s  {word:8} {label(one)}{': ' + problem if problem else ''}",
        flush=True,
    )
    return bool(problem)


def interrupted(number: int, frame: Any) -> None:
    """End once: `timeout` passes a signal on that the whole group has had."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run a command."""
    parser = argparse.ArgumentParser(prog="python -m tests.security.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="mutants with this word")
    parser.add_argument("--without", action="append", default=[], metavar="WORD", help="not those with it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--list", action="store_true", help="list them")
    options = parser.parse_args()
    mutants = chosen(options.only, options.without)
    if options.list:
        print("\n".join(map(label, mutants)))
        return 0
    signal.signal(signal.SIGINT, interrupted)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mut-") as folder:
        bad = run(mutants, max(1, min(options.jobs, len(mutants))), Path(folder))
    print(f"in {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
