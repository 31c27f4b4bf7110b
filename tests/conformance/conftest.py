"""One private local server for the whole suite, and the recordings, made once per family and kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from .corpus import Family
from .differences import by_reason
from .pair import Pair, running_pair
from .private import private_server
from .recording import Recording, record_family

COMPARED = "test_corpus.py::test_cell_gives_the_same["


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cells were compared, and name the differences that are known."""
    reports = {
        word: [one for one in terminalreporter.getreports(word) if COMPARED in one.nodeid]
        for word in ("passed", "failed")
    }
    count = sum(map(len, reports.values()))
    if not count:
        return
    passed = {one.nodeid.partition("[")[2].removesuffix("]") for one in reports["passed"]}
    known = {reason: len(passed.intersection(names)) for reason, names in by_reason().items()}
    differing, unexplained = sum(known.values()), len(reports["failed"])
    terminalreporter.section("cells compared with python3")
    terminalreporter.line(
        f"{count} cells: {len(passed) - differing} equal, {differing} differ as known, {unexplained} more"
    )
    for reason, number in known.items():
        if number:
            terminalreporter.line(f"{number:4}: {reason}")


@pytest.fixture(scope="session", autouse=True)
def own_server() -> Iterator[None]:
    """The kernels of a test run share a local server of their own."""
    with private_server():
        yield


class Recordings:
    """Recordings of families, cached. `take` numbers repeated recordings of the same kernel."""

    def __init__(self) -> None:
        self._done: dict[tuple[str, str, int], dict[str, Recording]] = {}

    def get(self, family: Family, *wanted: tuple[str, int]) -> list[dict[str, Recording]]:
        """The recordings of (kernel, take), made at the same time, at most two."""

        async def record_missing() -> None:
            missing = [one for one in wanted if (family.name, *one) not in self._done]
            made = await asyncio.gather(*(record_family(kernel, family) for kernel, _ in missing))
            for (kernel, take), recording in zip(missing, made, strict=True):
                self._done[(family.name, kernel, take)] = recording

        if any((family.name, *one) not in self._done for one in wanted):
            asyncio.run(record_missing())
        return [self._done[(family.name, kernel, take)] for kernel, take in wanted]


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    """The recordings of this test run."""
    return Recordings()


#: What the tests of messages ask about.
SETUP = '''
import math, json, os, collections
class Thing:
    """A thing."""
    colour = "red"
    def method(self, first, second=2):
        """What the method does."""
        return first
    @property
    def prop(self): return 1
thing = Thing()
def documented(a: int, b="x", *args, **kwargs) -> str:
    """The docstring.

    More of it.
    """
    return "body"
words = {"alpha": 1, "beta": 2, "gamma ray": 3, 5: 4}
text, number, items = "text", 5, [1, 2]
for name in ("one_file.txt", "two_file.csv"): open(name, "w").close()
os.makedirs("a_directory", exist_ok=True)
# Types of completions are looked up for so long; with the usual 400 ms a busy machine leaves some unknown.
get_ipython().Completer.jedi_compute_type_timeout = 20_000
'''


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Both kernels, with the same things defined in them."""
    async with running_pair(tmp_path_factory.mktemp("pair")) as running:
        await running.same_cell(SETUP)
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path: Path) -> AsyncIterator[Pair]:
    """Both kernels, fresh, for tests that end or change them."""
    async with running_pair(tmp_path) as running:
        yield running
