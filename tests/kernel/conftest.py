"""A local sandbox server of the kernel tests' own; a notebook per module, and fresh ones where needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio

from daytona_kernel.local.launcher import stop

from .notebook import AWAIT_SIGN, Notebook, Place, running_notebook

MakePlace = Callable[..., Place]


@pytest.fixture(scope="session")
def make_place() -> Iterator[MakePlace]:
    """Makes places; their servers are stopped and their directories removed at the end."""
    places: list[Place] = []

    def make(**variables: str) -> Place:
        # Not pytest's own directory: paths of Unix sockets are short (108 bytes).
        places.append(Place(Path(tempfile.mkdtemp(prefix="kernel-")), variables))
        return places[-1]

    yield make
    for place in places:
        stop(place.paths)
        shutil.rmtree(place.root, ignore_errors=True)


@pytest.fixture(scope="session")
def place(make_place: MakePlace) -> Place:
    return make_place()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def notebook(place: Place) -> AsyncIterator[Notebook]:
    """A notebook for all tests of a module, which must leave it usable."""
    async with running_notebook(place) as running:
        await running.run(AWAIT_SIGN)
        yield running


Open = Callable[..., AbstractAsyncContextManager[Notebook]]


@pytest.fixture
def open_notebook(place: Place) -> Open:
    """Opens further notebooks: ``async with open_notebook(VARIABLE="value") as notebook``."""
    return lambda **variables: running_notebook(place, **variables)
