"""Python examples of Daytona's documentation run unchanged, where a copy of it is at hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daytona_kernel.local import launcher
from daytona_kernel.local.paths import local_paths
from daytona_kernel.local.toolbox.desktop import programs

from .example_runner import DOCUMENTATION

MISSING = [name for name in programs.PACKAGES if programs.find(name, os.environ) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DOCUMENTATION.exists(), reason="the documentation is not part of the repository"),
]

EXAMPLES = [
    "Create and run code in a sandbox",
    "Create an ephemeral sandbox",
    "Create a sandbox from a snapshot",
    "Create a sandbox with volumes",
    "Linked Sandboxes",
    "Pre-built snapshots",
    "Start Sandboxes",
    "Stop Sandboxes",
    "Fork Sandboxes",
    "Label Sandboxes",
    "Create Snapshot from Sandbox",
    "Delete Sandboxes",
    "Update sandbox last activity",
    "Auto-stop interval",
    "Configuration in code",
    "List Snapshots",
    "Create volumes",
    "Mount volumes",
    "Share data between sandboxes",
    "Multi-tenant isolation with subpaths",
    "Create directories",
    "File permissions",
    "Delete files",
    "Create branches",
    "Checkout branches",
    "Commit changes",
    "Create LSP servers",
    "Run code (stateless)",
    "Connect to PTY session",
    "Get PTY session info",
    "Start Computer Use",
    "Click",
    "Scroll",
    "Type",
    "Hotkey",
    "Access via URL",
    "Automating desktop interactions",
]
"""Headings of a good number of examples, in the order of the documentation."""
ON_A_DESKTOP = [
    "Start Computer Use",
    "Click",
    "Scroll",
    "Type",
    "Hotkey",
    "Automating desktop interactions",
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str | bool | None]]:
    """What became of each example, on a server of this module's own."""
    paths = local_paths({"DAYTONA_LOCAL_DIR": str(tmp_path_factory.mktemp("local"))})
    headings = [name for name in EXAMPLES if not (MISSING and name in ON_A_DESKTOP)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAYTONA_LOCAL_DIR", str(paths.runtime_dir.parent))
        server = launcher.ensure_running(paths)
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-m", "tests.local.server.example_runner", *headings],
                cwd=Path(__file__).resolve().parents[3],
                env={**os.environ, "DAYTONA_API_URL": server.api_url, "DAYTONA_API_KEY": server.api_key},
                capture_output=True,
                text=True,
                timeout=170,
            )
        finally:
            launcher.stop(paths)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["heading"]: line for line in lines}


@pytest.mark.parametrize("heading", EXAMPLES)
def test_documented_example_runs(outcomes: dict[str, dict[str, str | bool | None]], heading: str) -> None:
    """To its end, without an exception."""
    if MISSING and heading in ON_A_DESKTOP:
        pytest.skip(f"needs {', '.join(MISSING)}")
    if not outcomes[heading]["known"]:
        pytest.skip("this copy of the documentation has no such example")
    assert outcomes[heading]["error"] is None, outcomes[heading]["error"]
