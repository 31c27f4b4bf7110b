"""One private local server for the whole suite, and the recordings, made once per family and kernel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import pytest_asyncio

from .corpus import Family, load_families
from .differences import by_reason
from .driver import REFERENCE, UNDER_TEST
from .pair import Pair, running_pair
from .private import private_server
from .recording import Recording, record_family

FAMILIES = {family.name: family for family in load_families()}
KERNELS_AT_A_TIME = 4
#: Name of a family, name of a kernel, and which of the recordings of that kernel, from 0.
Wanted = tuple[str, str, int]
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
    """Recordings of families, each made once: in a thread, in the order of the tests, some kernels at a time.

    A kernel waits most of its time, so that the next families are recorded while earlier ones are compared.
    """

    def __init__(self, wanted: Iterable[Wanted]) -> None:
        self._wanted = list(dict.fromkeys(wanted))
        self._begun: dict[Wanted, Future[dict[str, Recording]]] = {}
        self._loop = asyncio.new_event_loop()
        self._places = asyncio.Semaphore(KERNELS_AT_A_TIME)
        self._thread = threading.Thread(target=self._loop.run_forever, name="recordings")
        self._thread.start()

    def get(self, family: Family, *wanted: tuple[str, int]) -> list[dict[str, Recording]]:
        """The recordings of (kernel, take); takes number repeated recordings of the same kernel."""
        ours = [(family.name, kernel, take) for kernel, take in wanted]
        for one in (*ours, *self._wanted):
            if one not in self._begun:
                self._begun[one] = asyncio.run_coroutine_threadsafe(self._record(one), self._loop)
        return [self._begun[one].result() for one in ours]

    async def _record(self, wanted: Wanted) -> dict[str, Recording]:
        name, kernel, _ = wanted
        async with self._places:
            return await record_family(kernel, FAMILIES[name])

    def close(self) -> None:
        """End what is still being recorded."""
        asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(scope="session")
def recordings(request: pytest.FixtureRequest) -> Iterator[Recordings]:
    """The recordings that the chosen tests need."""
    made = Recordings(wanted_by(request.session.items))
    yield made
    made.close()


def wanted_by(items: Iterable[pytest.Item]) -> Iterator[Wanted]:
    """What these tests are going to ask for, in their order."""
    for item in items:
        family = getattr(getattr(item, "callspec", None), "params", {}).get("family")
        if isinstance(family, Family) and not family.missing():
            against = (REFERENCE, 1) if item.path.stem == "test_reference" else (UNDER_TEST, 0)
            yield family.name, REFERENCE, 0
            yield family.name, *against


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
