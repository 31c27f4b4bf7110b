"""The note that a kernel keeps of its sandbox: for its own restart, and for the run that started it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Content = dict[str, Any]

FAILED = "daytona_failed"
"""In the metadata of an ``execute_reply``: the error's name, if it is the sandbox's and not the code's."""


def state_file(connection_file: str) -> Path:
    """Where a kernel of this connection file notes its sandbox: it is the same file after a restart."""
    from jupyter_core.paths import jupyter_runtime_dir

    connection = connection_file or f"kernel-{os.getpid()}-{time.time_ns()}"
    return Path(jupyter_runtime_dir()) / "daytona-kernel" / f"{Path(connection).stem}.json"


def read_state(path: Path) -> Content:
    """What is noted: ``sandbox_id``, ``context_id``, ``left_behind``, ``owned``. Empty without a note."""
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(path: Path, info: Content) -> None:
    """Note what of *info* belongs there, in one step. Raises :exc:`OSError`."""
    state = {name: info[name] for name in ("sandbox_id", "context_id", "left_behind", "owned")}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(state, file)
    temporary.replace(path)
