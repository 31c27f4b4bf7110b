"""Recognisable secrets go through both doors; afterwards nothing that was written has one of them.

Written is: every message of the kernel, its log at the level DEBUG, all files of Jupyter, IPython and the
local server, and the words that processes were started with. Exempt are files that are there to hold them.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from tests.kernel.notebook import Notebook, Place, running_notebook

from .canary.marks import MARK, PLANTED

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

MARKED = f"{MARK}{PLANTED}"
"""So that CI's search of all that the suite has written finds them, too."""
ENV = f"canary-config-{MARKED}7hJ2kQ9x"
FILE = f"canary-file-{MARKED}Zp4mW8v1!"
ASKED = f"canary-asked-{MARKED}N6tR3yB5"
TOKEN = f"canary-git-{MARKED}Lc0sD9fG2"

CELLS = [
    "import os; print(os.environ['FROM_CONFIG'], flush=True)",
    f"for part in ({ENV[:10]!r}, {ENV[10:20]!r}, {ENV[20:]!r}): print(part, end='', flush=True)",
    "os.environ['FROM_CONFIG']",
    "from IPython.display import HTML; HTML('<b>' + os.environ['FROM_CONFIG'] + '</b>')",
    "raise ValueError('with ' + os.environ['FROM_CONFIG'])",
    "os.system('env'); !env",
    "%daytona env from FOLDER/.env.sandbox",
    "print(os.environ['FROM_FILE'])",
    "%daytona env list",
    "%daytona status",
    "%daytona config",
    "%daytona list",
    "%daytona exec -- env",
    "%daytona exec -- sh -c 'env; exit 3'",
    "%daytona preview 8000 --standard",
    "%daytona ssh",
    "%daytona terminal",
    "%daytona upload FOLDER/plain.txt there.txt",
    "%daytona download there.txt FOLDER/back.txt",
    "%daytona download /no/such/file FOLDER/x",
    "%daytona upload FOLDER/missing x",
    "%daytona git clone http://127.0.0.1:9/x.git --token-env GIT_CANARY",
    f"%daytona git clone http://user:{TOKEN}@127.0.0.1:9/x.git",
    "%daytona bg start job -- env",
    "%daytona attach no-such-sandbox",
    "%daytona create --env",
    "%daytona nonsense",
    "%history",
    "%daytona context new",
    "print(os.environ['FROM_CONFIG'])",
]
"""Commands that succeed, fail and are wrong. Which is which does not matter here."""
FOR_OWNERS = ("run/server.json", "state/sandboxes")
"""The key of the local server; and what a sandbox has and is, its variables among it."""


@pytest.fixture(scope="module")
def secret_place(make_place: Any) -> Iterator[Place]:
    place: Place = make_place(
        DAYTONA_KERNEL_LOG="DEBUG",
        DAYTONA_KERNEL_ENV_VARS=json.dumps({"FROM_CONFIG": ENV}),
        GIT_CANARY=TOKEN,
        IPYTHON_CANARY=ASKED,
    )
    folder = place.root / "folder"
    folder.mkdir()
    (folder / "plain.txt").write_text("plain")
    return place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secret_notebook(secret_place: Place) -> AsyncIterator[Notebook]:
    async with running_notebook(secret_place) as notebook:
        yield notebook


def cells(place: Place) -> list[str]:
    folder = place.root / "folder"
    (folder / ".env.sandbox").write_text(f"FROM_FILE={FILE}\n")
    return [cell.replace("FOLDER", str(folder)) for cell in CELLS]


def canaries(place: Place) -> dict[str, str]:
    return {
        "of the configuration": ENV,
        "of a file": FILE,
        "asked for": ASKED,
        "a token for git": TOKEN,
        "the server's key": place.server().api_key,
    }


def words_of_processes() -> str:
    """The command lines of all processes."""
    return "\n".join(" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"]))


def check(told: str, place: Place, where: str) -> None:
    for name, canary in canaries(place).items():
        found = told.find(canary)
        around = told[max(0, found - 200) : found + 100]
        assert found < 0, f"{name} is in {where}: {around}"


async def test_messages_have_none(secret_notebook: Notebook, secret_place: Place) -> None:
    told, processes = [], []
    for cell in cells(secret_place):
        exchange = await secret_notebook.execute(cell)
        said = [one for one in exchange.iopub if one["header"]["msg_type"] != "execute_input"]
        told += [json.dumps([one["content"], one["metadata"]]) for one in said]
        told.append(json.dumps(exchange.content))
        processes.append(words_of_processes())
    everything = "\n".join(told)
    assert "[redacted]" in everything
    # The cell with a password in its URL is refused; what was typed is in the history, where it was typed.
    check(everything.replace(f"user:{TOKEN}@", ""), secret_place, "the messages")
    check("\n".join(processes), secret_place, "the words of a process")


EXTENSION = """
import json, logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.captureWarnings(True)
import builtins, getpass, os
getpass.getpass = builtins.input = lambda *a: os.environ["IPYTHON_CANARY"]
from traitlets.config import Config
from IPython.core.interactiveshell import InteractiveShell
config = Config(); config.HistoryManager.enabled = False
shell = InteractiveShell(config=config)
shell.run_line_magic("load_ext", "daytona_kernel")
for cell in json.loads(sys.argv[1]):
    shell.run_cell(cell, store_history=False)
shell.run_cell("%daytona env set ASKED_FOR")
shell.run_cell("%%daytona\\nimport os; print(os.environ['ASKED_FOR'], os.environ['FROM_CONFIG'])")
magics = shell._daytona_kernel_magics[0]
session = magics.host.session
ours = [session, session.settings, session.secrets, session.manager, session.manager.service, session.toolbox]
print(repr([*ours, session.toolbox.endpoint, session.manager.sandbox, session.manager.sandbox.plane]))
shell.run_line_magic("unload_ext", "daytona_kernel")
"""


async def test_an_ipython_shows_none_even_while_everything_logs(secret_place: Place) -> None:
    """Root logger at DEBUG: what aiohttp, urllib3, websockets and the SDK have to say is in it, too."""
    found = [cell if cell.startswith("%daytona") else f"%%daytona\n{cell}" for cell in cells(secret_place)]
    argument = json.dumps([cell for cell in found if "canary-git" not in cell])
    environment = secret_place.environment
    done = subprocess.run(
        [sys.executable, "-c", EXTENSION, argument],
        env=environment,
        cwd=environment["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "[redacted] [redacted]" in done.stdout
    assert "DEBUG" in done.stderr
    check(done.stdout, secret_place, "what an IPython shows")
    check(done.stderr, secret_place, "a log of everything")


async def test_files_have_none_and_are_their_owner_s(secret_notebook: Notebook, secret_place: Place) -> None:
    """After all that; the kernel still runs, so its log and its runtime files are there."""
    await secret_notebook.run("pass")
    looked_at = 0
    for path in secret_place.root.rglob("*"):
        place = path.relative_to(secret_place.root).as_posix()
        if path.is_symlink() or not path.is_file() or place.startswith(("folder/", "home/x")):
            continue
        if place.startswith(tuple(f"local/{one}" for one in FOR_OWNERS)):
            continue
        looked_at += 1
        told = path.read_bytes().decode("utf-8", "replace")
        check(told, secret_place, place)
    assert looked_at >= 5
    for place in ("local/run", "local/state", "jupyter/daytona-kernel"):
        assert stat.S_IMODE((secret_place.root / place).stat().st_mode) == 0o700, place
    for path in (secret_place.root / "jupyter" / "daytona-kernel").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret_place.paths.server_file.stat().st_mode) == 0o600
    for record in (secret_place.root / "local" / "state" / "sandboxes").rglob("*.json"):
        if ENV.encode() in record.read_bytes() and record.stat().st_uid == os.getuid():
            reachable = [one for one in record.parents if stat.S_IMODE(one.stat().st_mode) & 0o077 == 0]
            assert reachable or stat.S_IMODE(record.stat().st_mode) == 0o600
