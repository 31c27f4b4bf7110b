"""A private local server for all pages, and another for all examples."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A directory for home directories; its sandboxes and their server are gone in the end."""
    # Not pytest's own directory: paths of Unix sockets are short (108 bytes).
    base = Path(tempfile.mkdtemp(prefix="docs-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAYTONA_LOCAL_DIR", str(base / "local"))
        yield base
        subprocess.run(
            [sys.executable, "-m", "daytona_kernel.cli", "local", "stop"],
            env=dict(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
    shutil.rmtree(base, ignore_errors=True)
