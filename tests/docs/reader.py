"""Somebody who follows a page from top to bottom, in an otherwise empty home directory.

Blocks of the shell run in bash, those of Python as cells of a notebook beside them. Servers that a block
starts stay until the end of the page, as they would in a terminal of their own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ..magics.doors import KernelDoor, Outcome
from .pages import Block, blocks, cells_of, commands_of
from .supplies import BEFORE, PROGRAM_OF_CELLS, STANDS_FOR, VARIABLES, furnish

SERVERS = {"lab", "notebook", "server"}
"""Commands of ``jupyter`` that go on until somebody ends them."""
EXTRAS = {"curl", "git", "jupyter-lab", "jupyter-nbconvert", "papermill"}
DESKTOP = ("Xvfb", "openbox", "x11vnc", "websockify", "ffmpeg")
TIMEOUT_S = 300.0
KEPT = ("DAYTONA_LOCAL_DIR", "DAYTONA_LOCAL_ISOLATION", "HOME", "PATH")
CLEARED = re.compile(r"(DAYTONA|JPY|JUPYTER|IPYTHON|PYTEST_ADDOPTS|XDG_(DATA|CONFIG|CACHE|STATE))")


class Reader:
    """Follows one page, and knows what it has seen so far."""

    def __init__(self, page: Path, home: Path) -> None:
        self.page = page
        self.work = home / "work"
        self.home = home
        self._patch = pytest.MonkeyPatch()
        self._kernel: KernelDoor | None = None
        self._servers: list[subprocess.Popen[bytes]] = []
        self._followed: dict[int, str] = {}
        """What the blocks printed, by their lines."""

    def begin(self) -> None:
        """Enter the home directory, with the files that the page takes for granted."""
        self.work.mkdir(parents=True)
        for name in [name for name in os.environ if CLEARED.match(name) and name not in KEPT]:
            self._patch.delenv(name)
        self._patch.setenv("HOME", str(self.home))
        self._patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        for name, value in VARIABLES.items():
            self._patch.setenv(name, value)
        self._patch.chdir(self.work)
        furnish(self.page.name, self.home)

    def end(self) -> None:
        """Leave: the kernel and the servers end."""
        try:
            if self._kernel is not None:
                self._kernel.close()
            for server in self._servers:
                os.killpg(server.pid, signal.SIGTERM)
            for server in self._servers:
                server.wait(120)
        finally:
            for server in self._servers:
                if server.poll() is None:
                    os.killpg(server.pid, signal.SIGKILL)
                    server.wait()
            self._patch.undo()

    def follow(self, block: Block) -> str:
        """Do what a block says, after all that come before it on the page. What it prints.

        Raises AssertionError if something fails.
        """
        for earlier in blocks(self.page):
            if not earlier.run or earlier.line > block.line or missing(earlier):
                continue
            if earlier.line not in self._followed:
                self._followed[earlier.line] = ""  # one that fails is not tried again for each after it
                self._followed[earlier.line] = self._do(earlier)
        return self._followed[block.line]

    def _do(self, block: Block) -> str:
        for cell in BEFORE.get((block.page.name, block.text.splitlines()[0]), ()):
            self.kernel(cell).ok()
        if block.language == "python":
            if PROGRAM_OF_CELLS.get(block.page.name) == "python":
                return self.shell(f"python - <<'END'\n{block.text}END\n")
            return "".join(seen(self.kernel(self.filled_in(cell)).ok()) for cell in cells_of(block))
        if any(words[:1] == ["jupyter"] and words[1] in SERVERS for words in commands_of(block.text)):
            return self._start(block.text)
        return self.shell(block.text)

    @property
    def kernel(self) -> KernelDoor:
        """The notebook that the cells are typed into."""
        if self._kernel is None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("JPY_SESSION_NAME", str(self.work / "analysis.ipynb"))
                self._kernel = KernelDoor(PROGRAM_OF_CELLS.get(self.page.name, "daytona"))
        return self._kernel

    def filled_in(self, cell: str) -> str:
        """The cell, with ids of this run for those that the page shows."""
        for shown, question in STANDS_FOR.items():
            if re.search(rf"(?<= ){shown}\b", cell):
                cell = re.sub(rf"(?<= ){shown}\b", self.kernel(question).ok().stdout.strip(), cell)
        return cell

    def shell(self, script: str) -> str:
        """Run a script as bash would for a person, but stop at the first command that fails."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            check=False,
        )
        text = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"exit code {done.returncode}: {text[-3000:]}"
        return text

    def _start(self, script: str) -> str:
        """Start a server of Jupyter's, and wait until it answers. What it says about itself."""
        log = self.work.parent / f"server-{len(self._servers)}.log"
        with log.open("wb") as file:
            server = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._servers.append(server)
        deadline = time.monotonic() + TIMEOUT_S
        while (status := self._status()) is None:
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        return status

    def _status(self) -> str | None:
        """What the newest server answers, if one does."""
        found = sorted(self.home.rglob("jpserver-*.json"), key=lambda path: path.stat().st_mtime)
        if len(found) < len(self._servers):
            return None
        try:
            about = json.loads(found[-1].read_text())
            url = f"{about['url']}api/kernelspecs?token={about['token']}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                specs = json.loads(answer.read())["kernelspecs"]
        except urllib.error.HTTPError as exc:
            exc.close()
            return None
        except (OSError, ValueError):
            return None  # it writes its file before it listens
        assert "daytona" in specs
        # curl of this home directory goes there, whatever port a page names.
        (self.home / ".curlrc").write_text(
            f'silent\nshow-error\nfail\nconnect-to = "127.0.0.1:8888:127.0.0.1:{about["port"]}"\n'
        )
        return f"{about['url']}\n"


def missing(block: Block) -> str:
    """A program that the block needs and that is not installed here, if there is one."""
    if block.language == "python":
        wanted = DESKTOP if "%daytona vnc" in block.text else ()
        return next((program for program in wanted if not shutil.which(program)), "")
    for words in commands_of(block.text):
        program = f"jupyter-{words[1]}" if words[:1] == ["jupyter"] else "".join(words[:1])
        if program in EXTRAS and not shutil.which(program):
            return program
        if "--nbval" in words and not importlib.util.find_spec("nbval"):
            return "nbval"
    return ""


def seen(outcome: Outcome) -> str:
    """All text that a cell shows."""
    return (
        outcome.stdout
        + outcome.text.removeprefix(outcome.stdout)
        + "".join(str(one.get("text/plain", "")) + "\n" for one in outcome.results)
    )


def pattern_of(shown: str) -> re.Pattern[str]:
    """What a page says a command prints. ``…`` stands for what differs: in a line, or as one for any lines.

    Blanks that align may be fewer or more.
    """
    wanted = ""
    for line in shown.strip().splitlines():
        if line.strip() == "…":
            wanted += r"(?:.*\n)*?"
            continue
        pieces = [
            r"[ \t]+".join(map(re.escape, re.split(r"\s+", piece))) for piece in line.strip().split("…")
        ]
        wanted += r"[ \t]*" + ".*?".join(pieces) + r"[ \t]*(?:\n|\Z)"
    return re.compile(rf"^{wanted}", re.MULTILINE)
