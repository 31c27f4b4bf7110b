"""A server whose user is not root isolates its sandboxes just as well."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env"]
"""``env`` in between, since setpriv itself still may what root may when it looks for the program."""
ROOT = Path(__file__).resolve().parents[3]
PACKAGES = f"{ROOT}:{sysconfig.get_path('purelib')}"
CODE = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from daytona_kernel.local import launcher
from daytona import CreateSandboxFromSnapshotParams, Daytona, DaytonaConfig, VolumeMount
secret = os.path.expanduser("~/secret")
open(secret, "w").write("secret")
server = launcher.ensure_running()
client = Daytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url))
volume = client.volume.create("shared")
mount = VolumeMount(volume_id=volume.id, mount_path="/home/daytona/shared", subpath="part")
box = client.create(CreateSandboxFromSnapshotParams(volumes=[mount]))
tries = {
    "user": "id -u",
    "secret": f"cat {secret} || echo gone",
    "server": f"kill -0 {server.pid} && echo reached || echo gone",
    "capabilities": "grep CapEff /proc/self/status",
    "volume": "touch ~/shared/x && echo written",
    "system": "touch /usr/x && echo written || echo refused",
}
seen = {name: box.process.exec(command).result.split()[-1] for name, command in tries.items()}
print(json.dumps(seen), flush=True)
box.delete()
launcher.stop()
os._exit(0)
"""


def works(command: list[str]) -> bool:
    """Whether a command succeeds for nobody, with our packages in reach."""
    env = {"PYTHONPATH": PACKAGES, "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return subprocess.run([*AS_NOBODY, *command], env=env, cwd="/", capture_output=True).returncode == 0


def python_for_nobody() -> str | None:
    """An interpreter of our version that somebody else may run; homes of root are closed to others."""
    for program in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        if os.path.exists(program) and works(
            [program, "-W", "ignore", "-c", "import daytona, daytona_kernel.local.server"]
        ):
            return program
    return None


@pytest.mark.slow
@pytest.mark.bwrap
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="can not become somebody else"
)
def test_server_of_an_unprivileged_user_isolates() -> None:
    """Nothing of the user's is there, nothing of the server can be reached, nothing of the system written."""
    python = python_for_nobody()
    if python is None:
        pytest.skip("no interpreter, or no packages, that an unprivileged user may read")
    if not works(["bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"]):
        pytest.skip("unprivileged users may not make namespaces here")
    # Not below pytest's or TMPDIR's directory: those may be closed to anybody but root.
    home = Path(tempfile.mkdtemp(prefix="nobody-", dir="/tmp"))
    os.chown(home, NOBODY, NOBODY)
    try:
        done = subprocess.run(
            [*AS_NOBODY, python, "-c", CODE, str(ROOT)],
            env={
                "HOME": str(home),
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "DAYTONA_LOCAL_DIR": str(home / "local"),
                "DAYTONA_LOCAL_ISOLATION": "bubblewrap",
                "DAYTONA_LOCAL_PYTHON": python,
                "PYTHONPATH": PACKAGES,
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONWARNINGS": "ignore",
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        log = home / "local" / "run" / "server.log"
        assert done.returncode == 0, done.stderr[-2000:] + (log.read_text()[-2000:] if log.exists() else "")
        assert json.loads(done.stdout.splitlines()[-1]) == {
            "user": "1000",
            "secret": "gone",
            "server": "gone",
            "capabilities": "0000000000000000",
            "volume": "written",
            "system": "refused",
        }
    finally:
        shutil.rmtree(home, ignore_errors=True)
