"""Output by the hundreds of megabytes: nothing is missing, and memory stays within a stated bound.

The bounds are those of docs/faults.md: what the agent may have on its way (24 MiB, in JSON and as Python
text several times that), and as much again in whoever passes it on.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .bench import Notebook
from .conftest import Faulty

BOUND_MIB = 256
UPDATES = int(os.environ.get("DAYTONA_FAULTS_UPDATES") or 20_000)


pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Memory:
    """Peak memory of this process (kernel's part and proxy), of the server, and of all that it has started.

    The agent is among those, and the daemon that reads from it.
    """

    def __init__(self, faulty: Faulty) -> None:
        server = psutil.Process(faulty.server.server.pid)
        self.processes = [psutil.Process(), server, *server.children(recursive=True)]
        for process in self.processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = [_peak(process.pid) for process in self.processes]

    def growth(self) -> dict[str, int]:
        """How far each has gone beyond what it had, in MiB, by its name and number."""
        grown: dict[str, int] = {}
        for process, before in zip(self.processes, self.before, strict=True):
            with suppress(OSError, psutil.Error):  # a shell of the cell's that has ended
                name = f"{process.name()} {process.pid}"
                grown[name] = _peak(process.pid) - before
        return grown


def _peak(pid: int) -> int:
    """Most memory that a process has had at a time, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def check_memory(memory: Memory) -> None:
    grown = memory.growth()
    print(f"peaks of memory grew by {sorted(grown.values())[-5:]} MiB")
    assert len(grown) >= 4
    assert max(grown.values()) < BOUND_MIB, grown


async def test_half_a_gigabyte_of_prints(faulty: Faulty, notebook: Notebook) -> None:
    memory = Memory(faulty)
    cell = notebook.start("line = 'x' * 999\nfor i in range(500_000): print(line)", keep=False)
    assert (await cell.reply(380))["status"] == "ok"
    assert cell.characters == 500_000_000
    check_memory(memory)


async def test_a_child_process_writes_a_hundred_megabytes(faulty: Faulty, notebook: Notebook) -> None:
    memory = Memory(faulty)
    code = "import subprocess; subprocess.run('yes 0123456789 | head -c 100000000', shell=True)"
    cell = notebook.start(code, keep=False)
    assert (await cell.reply(200))["status"] == "ok"
    assert cell.characters == 100_000_000
    check_memory(memory)


async def test_many_threads_print_at_once(notebook: Notebook) -> None:
    code = """
import threading
def talk(n):
    for i in range(200): print(f"{n}:{i}\\n", end="")
threads = [threading.Thread(target=talk, args=(n,)) for n in range(200)]
for t in threads: t.start()
for t in threads: t.join()
"""
    cell = await notebook.run(code, 120)
    assert sorted(cell.lines) == sorted(f"{n}:{i}" for n in range(200) for i in range(200))
    for n in (0, 199):
        assert [line for line in cell.lines if line.startswith(f"{n}:")] == [f"{n}:{i}" for i in range(200)]


async def test_very_many_display_updates(faulty: Faulty, notebook: Notebook) -> None:
    memory = Memory(faulty)
    code = f"""
from IPython.display import display, update_display
began = time.monotonic()
display(0, display_id="d")
for i in range(1, {UPDATES} + 1): update_display(i, display_id="d")
rate = int({UPDATES} / (time.monotonic() - began))
"""
    cell = await notebook.run(code, 200)
    shown = [
        content["data"]["text/plain"] for kind, content in cell.messages if kind.endswith("display_data")
    ]
    assert shown == [str(i) for i in range(UPDATES + 1)]
    rate = (await notebook.run("print(rate)")).text().strip()
    print(f"{rate} updates a second")
    check_memory(memory)


async def test_every_plane_of_unicode_and_lone_surrogates(notebook: Notebook) -> None:
    code = """
for plane in range(17):
    codes = (plane * 65536 + c for c in range(32, 65534, 97))
    print("".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000))
print("\\ud800|\\udfff")
"""
    cell = await notebook.run(code)
    expected = [
        "".join(
            chr(plane * 65536 + c) for c in range(32, 65534, 97) if not 0xD800 <= c + plane * 65536 < 0xE000
        )
        for plane in range(17)
    ]
    text = cell.text()
    for line in expected:
        assert line in text
    assert text.endswith("\ud800|\udfff\n")
