"""Output by the hundreds of megabytes: nothing is missing, and memory stays within a stated bound.

The bounds are those of docs/faults.md: what the agent may have on its way (24 MiB, in JSON and as Python
text several times that), and as much again in whoever passes it on.
"""

from __future__ import annotations

import psutil
import pytest

from .bench import Notebook
from .conftest import Faulty

MIB = 1024 * 1024
BOUND = 256 * MIB


pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class Memory:
    """Resident memory of this process (kernel's part and proxy), of the agent, and of the daemon."""

    def __init__(self, faulty: Faulty, notebook: Notebook) -> None:
        self.processes = [psutil.Process(), psutil.Process(faulty.server.server.pid)]
        self.before = [process.memory_info().rss for process in self.processes]

    def growth(self) -> int:
        """The most that one of them has grown, in bytes."""
        now = [process.memory_info().rss for process in self.processes]
        return max(after - before for before, after in zip(self.before, now, strict=True))


AGENT_PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"


async def test_half_a_gigabyte_of_prints(faulty: Faulty, notebook: Notebook) -> None:
    memory = Memory(faulty, notebook)
    peak_before = int((await notebook.run(AGENT_PEAK)).text())
    cell = notebook.start("line = 'x' * 999\nfor i in range(500_000): print(line)", keep=False)
    assert (await cell.reply(380))["status"] == "ok"
    assert cell.characters == 500_000_000
    peak = int((await notebook.run(AGENT_PEAK)).text())
    print(f"memory grew by {memory.growth() // MIB} MiB here, {peak - peak_before} MiB in the agent")
    assert memory.growth() < BOUND
    assert (peak - peak_before) * MIB < BOUND


async def test_a_child_process_writes_a_hundred_megabytes(notebook: Notebook) -> None:
    code = "import subprocess; subprocess.run('yes 0123456789 | head -c 100000000', shell=True)"
    cell = notebook.start(code, keep=False)
    assert (await cell.reply(200))["status"] == "ok"
    assert cell.characters == 100_000_000


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


async def test_very_many_display_updates(notebook: Notebook) -> None:
    code = """
from IPython.display import display, update_display
display(0, display_id="d")
for i in range(1, 20001): update_display(i, display_id="d")
"""
    cell = await notebook.run(code, 200)
    shown = [
        content["data"]["text/plain"] for kind, content in cell.messages if kind.endswith("display_data")
    ]
    assert shown == [str(i) for i in range(20001)]


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
