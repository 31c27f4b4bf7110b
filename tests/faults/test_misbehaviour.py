"""Code that breaks its own process: the kernel survives it, and says what it could not keep."""

from __future__ import annotations

import pytest

from daytona_kernel.errors import SandboxProcessDied

from .bench import PRELUDE, Notebook
from .conftest import Faulty

BAD = {
    "closes low descriptors": "os.closerange(3, 256)",
    "closes all descriptors": "os.closerange(3, 65536)",
    "closes standard descriptors": "[os.close(n) for n in (0, 1, 2)]",
    "closes sys.stdout": "sys.stdout.close(); sys.stderr.close(); sys.stdin.close()",
    "replaces sys.stdout": "import io; sys.stdout = io.StringIO(); print('into it')",
    "deletes sys.stdout": "del sys.stdout, sys.stderr, sys.stdin",
    "replaces the original streams": "sys.__stdout__ = sys.__stderr__ = None",
    "forks": "pid = os.fork()\nif not pid: os._exit(0)\nos.waitpid(pid, 0)",
    "changes its directory": "os.chdir('/')",
    "removes its directory": "os.mkdir('gone'); os.chdir('gone'); os.rmdir(os.getcwd())",
    "deletes the temporary directory": "import shutil, tempfile\n"
    "for name in os.listdir(tempfile.gettempdir()):\n"
    "    shutil.rmtree(os.path.join(tempfile.gettempdir(), name), ignore_errors=True)",
    "has few descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))",
    "has no room for files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
    "prints frame-like text": 'print(\'\\x1e{"x":"y","n":0,"t":"done","c":{}}\'); '
    'os.write(1, b\'\\x1e{"x":"y","n":0}\\n\\x1e\')',
    "breaks json": "import json; json.dumps = json.loads = json.dump = json.load = None",
    "clears sys.modules": "sys.modules.clear()",
    "stops the loop": "import asyncio; asyncio.get_running_loop().stop(); await asyncio.sleep(0)",
    "closes the loop": "import asyncio; asyncio.get_event_loop_policy().get_event_loop().close()",
    "changes signals": "import signal\nfor n in (2, 15, 1, 10): signal.signal(n, signal.SIG_IGN)",
    "recurses": "def f(): return f()\nf()",
    "raises from a hook": "get_ipython().events.register('pre_run_cell', lambda *a: 1 / 0)",
    "removes builtins": "import builtins; del builtins.print, builtins.len, builtins.open",
    "traces": "sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)",
    "limits its recursion": "sys.setrecursionlimit(60)",
    "empties its environment": "os.environ.clear()",
    "leaves by SystemExit": "raise SystemExit(3)",
    "leaves by an odd exception": "class Odd(BaseException): pass\nraise Odd",
}


LETHAL = ("closes all descriptors",)


@pytest.mark.parametrize("bad", BAD)
async def test_the_next_cells_run_whatever_a_cell_has_broken(notebook: Notebook, bad: str) -> None:
    """The process goes on with its variables; or its death is an error of that cell that says why."""
    cell = notebook.start(f"kept = 5\n{BAD[bad]}")
    if bad in LETHAL:
        with pytest.raises(SandboxProcessDied, match="closed the way its output takes"):
            await cell.reply(30)
        assert (await notebook.run(PRELUDE + "kept = 5", 30)).notices
    else:
        await cell.reply(30)
    for count in (1, 2):
        after = await notebook.run(f"import sys; _ = sys.stdout.write('still {count}\\n'); kept * 2", 30)
        # a replaced sys.stdout is kept, as under ipykernel
        assert after.lines[-1:] == ([] if bad == "replaces sys.stdout" else [f"still {count}"])
        kind, content = after.messages[-1]
        assert (kind, content["data"]["text/plain"]) == ("execute_result", "10")


async def test_what_had_to_be_put_back_is_said(notebook: Notebook) -> None:
    cell = await notebook.run(BAD["clears sys.modules"])
    assert "sys.modules had been emptied" in cell.text("stderr")
    cell = notebook.start(BAD["removes builtins"])
    await cell.reply()  # IPython itself fails without them
    assert "builtins that had been deleted are back: " in cell.text("stderr")


async def test_a_forked_child_that_does_not_leave_takes_no_part(notebook: Notebook) -> None:
    """It prints, comes to the end of the cell as its parent does, and is gone then."""
    cell = await notebook.run("pid = os.fork()\nprint('child' if not pid else 'parent', flush=True)")
    for count in range(5):
        assert (await notebook.run(f"once(); print({count})")).lines[-1] == str(count)
    assert await notebook.marks() == 5
    children = await notebook.run("import subprocess\nos.waitpid(pid, 0); print('gone')")
    assert children.lines[-1] == "gone"
    assert "parent" in cell.text()


async def test_nothing_is_lost_with_a_broken_recording(faulty: Faulty, notebook: Notebook) -> None:
    """The disk is full and the socket is lost: the end of the output comes from the process's memory."""
    cell = notebook.start(
        BAD["has no room for files"]
        + "\nfor i in range(100): print(i, flush=True)\n"
        + "while not os.path.exists('go'): time.sleep(0.005)\n"
        + "for i in range(100, 200): print(i, flush=True)\n'end'"
    )
    await cell.printed("\n99\n")
    await faulty.proxy.refuse()
    faulty.proxy.reset_all()
    await notebook.tell("go")
    await cell.until(lambda: bool(cell.lost_line))
    await faulty.proxy.accept()
    assert (await cell.reply(30))["status"] == "ok"
    # IPython says something of its history, too
    assert [line for line in cell.lines if line.isdigit()] == [str(i) for i in range(200)]


async def test_a_deleted_recording_loses_nothing(faulty: Faulty, notebook: Notebook) -> None:
    """The temporary directory goes during a cell, then the socket: the open file still has it all."""
    cell = notebook.start(
        BAD["deletes the temporary directory"]
        + "\nfor i in range(100): print(i, flush=True)\n"
        + "told('go')\nfor i in range(100, 200): print(i, flush=True)\n"
    )
    await cell.printed("\n99\n")
    await faulty.proxy.refuse()
    faulty.proxy.reset_all()
    await notebook.tell("go")
    await cell.until(lambda: bool(cell.lost_line))
    await faulty.proxy.accept()
    assert (await cell.reply(30))["status"] == "ok"
    assert cell.lines == [str(i) for i in range(200)]
