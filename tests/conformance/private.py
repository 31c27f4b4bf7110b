"""A local server of one's own: kernels started under :func:`private_server` share it, and nobody else."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .driver import REFERENCE, UNDER_TEST

SERVER_DIRECTORIES = ("XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")


@contextlib.contextmanager
def private_server() -> Iterator[None]:
    """The local server that kernels start on demand has its own directories, and ends with the block."""
    with tempfile.TemporaryDirectory(prefix="conformance-server-", ignore_cleanup_errors=True) as directory:
        environment = {}
        for name in SERVER_DIRECTORIES:
            path = Path(directory) / name.lower()
            path.mkdir(mode=0o700)
            environment[name] = str(path)
            os.environ[f"CONFORMANCE_{name}"] = str(path)
        os.environ["CONFORMANCE_HOME"] = tempfile.mkdtemp(prefix="home-", dir=directory)
        try:
            yield
        finally:
            for name in (*SERVER_DIRECTORIES, "HOME"):
                del os.environ[f"CONFORMANCE_{name}"]
            if UNDER_TEST != REFERENCE:
                # The kernels see none of these, so the server that they started is not where they point to.
                kept = {key: value for key, value in os.environ.items() if not key.startswith("DAYTONA_")}
                subprocess.run(
                    [sys.executable, "-m", "daytona_kernel.cli", "local", "stop"],
                    env={**kept, **environment},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=60,
                    check=False,
                )
