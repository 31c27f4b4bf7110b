"""A sandbox on a bare Python: IPython comes from this side, or the cells are plain and the person is told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daytona_kernel import payload

from .conftest import MakePlace
from .notebook import Notebook, running_notebook

LOOK = """
import sys, socket, IPython
def online():
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=0.2).close()
    except OSError as exc:
        return type(exc).__name__, exc.errno
print(sys.version_info[:2], IPython.__version__, IPython.__file__)
"""
ENETUNREACH = 101


def pythons() -> list[str]:
    """The interpreters on this machine that sandboxes can be made from, one per version."""
    found = {}
    beside_ours = Path(sys.base_prefix).parent  # where pyenv has them, whatever HOME is in this run
    for minor in range(10, 15):
        candidates = [shutil.which(f"python3.{minor}")]
        for versions in (beside_ours, Path.home() / ".pyenv" / "versions"):
            candidates += map(str, sorted(versions.glob(f"3.{minor}.*/bin/python3.{minor}")))
        for candidate in filter(None, candidates):
            version = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if version.stdout.startswith(f"Python 3.{minor}."):
                found[minor] = candidate
    return list(found.values())


async def ordinary_work(notebook: Notebook) -> None:
    """What a notebook does all day."""
    cell = await notebook.run("x = 6 * 7\nx")
    assert cell.of_type("execute_result")[0]["content"]["data"]["text/plain"] == "42"
    assert (await notebook.run("print('a'); import os; os.system('echo b')")).text() == "a\nb\n"
    content = await notebook.fails("def f():\n    return 1 / 0\nf()")
    assert content["ename"] == "ZeroDivisionError"
    text = re.sub(r"\x1b\[[\d;]*m", "", "".join(content["traceback"]))
    assert "return 1 / 0" in text
    assert "_daytona_agent" not in text
    found = await notebook.request("complete_request", {"code": "os.path.joi", "cursor_pos": 11})
    assert any(match.endswith("join") for match in found.content["matches"])
    cell = notebook.send_execute("import time\nprint('begun')\ntime.sleep(3600)")
    await notebook.says(cell, "begun\n")
    await notebook.interrupt()
    await notebook.until(cell, lambda e: e.finished())
    assert cell.content["ename"] == "KeyboardInterrupt"
    assert (await notebook.run("print(x, input('? '))", answers=["yes"])).text() == "42 yes\n"


@pytest.mark.slow
@pytest.mark.bwrap
@pytest.mark.skipif(
    shutil.which("bwrap") is None, reason="without bubblewrap there is no sandbox without network"
)
async def test_ipython_is_brought_to_a_sandbox_without_it_and_without_network(make_place: MakePlace) -> None:
    place = make_place(DAYTONA_LOCAL_BARE="1")
    async with running_notebook(place, DAYTONA_KERNEL_NETWORK_BLOCK_ALL="1") as notebook:
        cell = await notebook.run(LOOK + "print(online())")
        version, module, online = (
            cell.text().rsplit(" ", 1)[0],
            cell.text().split()[3],
            cell.text().splitlines()[1],
        )
        assert str(sys.version_info[:2]) in version
        assert "/.cache/daytona-kernel/ipython-" in module
        assert online == f"('OSError', {ENETUNREACH})"
        await ordinary_work(notebook)
        assert (await notebook.run("%time print('timed')")).text().startswith("timed\n")
        # sent once per sandbox: a restart finds it there
        async with notebook.toolbox() as toolbox:
            _, before = await toolbox.shell("stat -c %Y.%i ~/.cache/daytona-kernel/ipython-*/complete")
        await notebook.manager.restart_kernel()
        answered = notebook.send("kernel_info_request", channel="control")
        await notebook.until(answered, lambda e: bool(e.replies))
        await notebook.run("1")
        async with notebook.toolbox() as toolbox:
            _, after = await toolbox.shell("stat -c %Y.%i ~/.cache/daytona-kernel/ipython-*/complete")
        assert before == after != ""


@pytest.mark.slow
@pytest.mark.parametrize("python", pythons())
async def test_each_python_of_a_sandbox_works(make_place: MakePlace, python: str) -> None:
    """With IPython where this side's suits it; else with plain cells, and a word about it."""
    place = make_place(DAYTONA_LOCAL_PYTHON=python, DAYTONA_LOCAL_BARE="1", DAYTONA_LOCAL_POOL="0")
    version = subprocess.run([python, "--version"], capture_output=True, text=True).stdout.split()[1]
    async with running_notebook(place, DAYTONA_KERNEL_NETWORK_BLOCK_ALL="1") as notebook:
        first = await notebook.run("import sys; print(sys.version.split()[0])")
        assert first.text() == f"{version}\n"
        await ordinary_work(notebook)
        info = await notebook.request("kernel_info_request")
        assert info.content["language_info"]["version"] == version
        if payload.python_suits(version):
            assert first.text("stderr") == ""
            assert "IPython" in info.content["banner"]
            await notebook.run("%time 1")
        else:
            assert "cells are plain Python" in first.text("stderr")


@pytest.mark.slow
@pytest.mark.parametrize("python", dict.fromkeys([*pythons()[:1], *pythons()[-1:]]))
async def test_oldest_and_newest_python_with_an_ipython_of_its_own_works(
    make_place: MakePlace, python: str, tmp_path: Path
) -> None:
    """The newest that is made for it, which may be older or newer than this side's."""
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    own = str(tmp_path / "env" / "bin" / "python")
    # By the pip of this side: making each environment one of its own takes longer than the rest of the test.
    pip = [sys.executable, "-m", "pip", "--python", own, "install", "-q", "--no-compile"]
    subprocess.run([*pip, "ipython", "comm"], check=True)
    place = make_place(DAYTONA_LOCAL_PYTHON=own, DAYTONA_LOCAL_POOL="0")
    async with running_notebook(place) as notebook:
        first = await notebook.run("import sys, IPython; print(sys.version_info[:2], IPython.__file__)")
        assert first.text("stderr") == ""
        assert "daytona-kernel" not in first.text()
        await ordinary_work(notebook)
        assert (await notebook.run("%time print('timed')")).text().startswith("timed\n")
        cell = await notebook.run("from IPython.display import HTML\nHTML('<b>1</b>')")
        assert cell.of_type("execute_result")[0]["content"]["data"]["text/html"] == "<b>1</b>"
