"""A sandbox whose home can not be written, that writes no byte code, and whose ``sitecustomize`` prints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .conftest import MakePlace
from .notebook import Notebook, running_notebook

pytestmark = [
    pytest.mark.slow,
    pytest.mark.bwrap,
    pytest.mark.skipif(
        shutil.which("bwrap") is None, reason="writes to /tmp of the sandbox, so it needs its own"
    ),
]

#: Nobody can make a directory below /proc, whatever their rights.
ENVIRONMENT = {"HOME": "/proc/nowhere", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/tmp/custom"}
CUSTOM = """
import os, sys
os.makedirs("/tmp/custom")
with open("/tmp/custom/sitecustomize.py", "w") as file:
    file.write("import sys\\nprint('custom out')\\nprint('custom err', file=sys.stderr)\\n")
"""


async def ordinary_work(notebook: Notebook) -> None:
    """What writes into the home otherwise, and what starts other Pythons."""
    result = await notebook.run("x = 6 * 7\nx")
    assert result.of_type("execute_result")[0]["content"]["data"]["text/plain"] == "42"
    assert (await notebook.run("%history -l 1")).text() == "x = 6 * 7\nx\n"
    assert (await notebook.run("!echo child")).text().split() == ["child"]
    assert (await notebook.run("%time print('timed')")).text().startswith("timed\n")
    found = await notebook.request("complete_request", {"code": "import calend", "cursor_pos": 13})
    assert "calendar" in found.content["matches"]
    assert (await notebook.run("print(input('? '))", answers=["yes"])).text() == "yes\n"


async def test_a_sandbox_without_a_home_and_with_a_sitecustomize_that_prints(make_place: MakePlace) -> None:
    place = make_place()
    profile = Path(place.environment["IPYTHONDIR"]) / "profile_default"
    profile.mkdir(parents=True)
    settings = f"c.DaytonaSettings.env_vars = {json.dumps(ENVIRONMENT)}\n"
    (profile / "daytona_kernel_config.py").write_text(settings)
    async with running_notebook(
        place, COLUMNS="77", LINES="33", IPYKERNEL_CELL_NAME="<the cell>"
    ) as notebook:
        first = await notebook.run("import os, sys; print(os.environ['HOME'], sys.dont_write_bytecode)")
        assert first.text() == "/proc/nowhere True\n"
        assert first.text("stderr") == ""
        assert await notebook.value("tuple(__import__('shutil').get_terminal_size())") == (77, 33)
        assert await notebook.value("(lambda: 0).__code__.co_filename") == "<the cell>"
        await ordinary_work(notebook)
        await notebook.run(CUSTOM)
        await notebook.manager.restart_kernel()
        answered = notebook.send("kernel_info_request", channel="control")
        await notebook.until(answered, lambda e: bool(e.replies))
        again = await notebook.run("import sys; print(sys.modules['sitecustomize'].__file__)")
        assert again.text() == "/tmp/custom/sitecustomize.py\n"
        await ordinary_work(notebook)
        child = await notebook.run(
            "import subprocess; _ = subprocess.run([sys.executable, '-c', 'print(1)'])"
        )
        assert (child.text(), child.text("stderr")) == ("custom out\n1\n", "custom err\n")
