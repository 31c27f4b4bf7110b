"""One private local server for the whole suite, and the recordings, made once per family and kernel."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .corpus import Family
from .driver import REFERENCE, UNDER_TEST
from .recording import Recording, record_family

SERVER_DIRECTORIES = ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")


@pytest.fixture(scope="session", autouse=True)
def private_server() -> Iterator[None]:
    """The local server that kernels start on demand has its own directories, and ends with the test run."""
    with tempfile.TemporaryDirectory(prefix="conformance-server-", ignore_cleanup_errors=True) as directory:
        environment = {}
        for name in SERVER_DIRECTORIES:
            path = Path(directory) / name.lower()
            path.mkdir(mode=0o700)
            environment[name] = str(path)
            os.environ[f"CONFORMANCE_{name}"] = str(path)
        yield
        for name in SERVER_DIRECTORIES:
            del os.environ[f"CONFORMANCE_{name}"]
        if UNDER_TEST != REFERENCE:
            subprocess.run(
                [sys.executable, "-m", "daytona_kernel.cli", "local", "stop"],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )


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

        asyncio.run(record_missing())
        return [self._done[(family.name, kernel, take)] for kernel, take in wanted]


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    """The recordings of this test run."""
    return Recordings()
