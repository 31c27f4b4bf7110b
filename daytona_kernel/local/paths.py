"""Where the local server keeps its things. Standard library only: the launcher imports it.

Two directories, both mode 0700:

* the runtime directory: runtime file with the key, lock, log, sockets of running sandboxes
  (``$DAYTONA_LOCAL_DIR/run``, else ``$XDG_RUNTIME_DIR/daytona-kernel``, else ``run`` in the state directory);
* the state directory: files of sandboxes, volumes and snapshots, which outlive the server
  (``$DAYTONA_LOCAL_DIR/state``, else ``$XDG_DATA_HOME/daytona-kernel``, else
  ``~/.local/share/daytona-kernel``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STATE_VERSION = 1
"""Version of the on-disk state. A server refuses a state directory with a newer version."""


@dataclass(frozen=True)
class LocalPaths:
    """The two directories of one local server and the files in them."""

    runtime_dir: Path
    state_dir: Path

    @property
    def server_file(self) -> Path:
        """Runtime file (0600) with the URL, key, and pid of the running server."""
        return self.runtime_dir / "server.json"

    @property
    def lock_file(self) -> Path:
        """Held by whoever is starting the server."""
        return self.runtime_dir / "start.lock"

    @property
    def held_file(self) -> Path:
        """Locked by the running server; the kernel drops the lock however the server ends."""
        return self.runtime_dir / "server.lock"

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self.runtime_dir / "server.log"

    @property
    def socket_dir(self) -> Path:
        """One listening socket per running sandbox."""
        return self.runtime_dir / "sockets"

    def create(self) -> None:
        """Make the directories, readable by their owner alone."""
        for path in (self.runtime_dir, self.state_dir, self.socket_dir):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.chmod(0o700)


def local_paths(env: Mapping[str, str] | None = None) -> LocalPaths:
    """The directories for this user, as told by the environment."""
    env = os.environ if env is None else env
    root = env.get("DAYTONA_LOCAL_DIR")
    if root:
        base = Path(root).expanduser().absolute()
        return LocalPaths(base / "run", base / "state")
    data_home = env.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    state = Path(data_home) / "daytona-kernel"
    runtime = env.get("XDG_RUNTIME_DIR")
    return LocalPaths(Path(runtime) / "daytona-kernel" if runtime else state / "run", state)
