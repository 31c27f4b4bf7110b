"""``jupyter daytona run`` with many notebooks, against real ``python3`` kernels: no sandboxes here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from daytona_kernel import cli, runner

Write = Callable[..., Path]
WAITS_FOR_THE_OTHER = """
import os, time
from pathlib import Path
Path("{mine}").touch()
while not Path("{other}").exists():
    time.sleep(0.02)
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write notebooks of these cells below the folder ``books`` of the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, *sources: str, defaults: str = "") -> Path:
        cells = [new_code_cell(source, id=f"cell-{index}") for index, source in enumerate(sources)]
        if defaults:
            cells.insert(0, new_code_cell(defaults, id="defaults", metadata={"tags": ["parameters"]}))
        path = tmp_path / "books" / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
        return path

    return make


def run(*options: str) -> int:
    return cli.main(["run", *options, "--kernel", "python3", "--output-dir", "out", "--json", "out.json"])


def summary() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("out.json").read_text())
    return found


def statuses() -> dict[str, str]:
    return {item["notebook"].removeprefix("books/"): item["status"] for item in summary()["notebooks"]}


def texts(path: str) -> list[str]:
    notebook = nbformat.read(path, as_version=4)
    return ["".join(o.text for o in cell.outputs if o.output_type == "stream") for cell in notebook.cells]


def test_notebooks_run_at_the_same_time_each_with_its_own_result(
    write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each of the two waits for the other: run one after the other they would never end."""
    for mine, other in (("one", "two"), ("two", "one")):
        source = WAITS_FOR_THE_OTHER.format(mine=f"{mine}.sign", other=f"{other}.sign")
        write(mine, source, "print(word * n)", defaults="n, word = 1, 'x'")
    assert run("books", "--jobs", "2", "-p", "n", "2", "-r", "word", "3", "--timeout", "60s") == 0
    assert texts("out/one.ipynb") == texts("out/two.ipynb") == ["", "", "", "33\n"]
    assert [item["cells_run"] for item in summary()["notebooks"]] == [4, 4]
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "2 notebooks in" in shown.err
    assert "2 ok; outputs saved in out" in shown.err


def test_a_notebook_that_fails_does_not_keep_the_others_from_running(
    write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    write("a", "print(1)", "1 / 0", "print('never')")
    write("b", "print(2)")
    assert run("books", "--junit", "out.xml", "--retries", "2", "-p", "unused", "1") == 1
    assert statuses() == {"a.ipynb": "failed", "b.ipynb": "ok"}
    failed = summary()["notebooks"][0]
    assert (failed["attempts"], failed["cells_run"], failed["cells"]) == (1, 3, 4)
    assert (failed["error"]["ename"], failed["error"]["cell"]) == ("ZeroDivisionError", 3)
    assert texts("out/a.ipynb") == ["", "1\n", "", ""]
    cases = {
        case.get("name"): len(case.findall("failure"))
        for case in ElementTree.parse("out.xml").iter("testcase")
    }
    assert cases == {"books/a.ipynb": 1, "books/b.ipynb": 0}
    shown = capfd.readouterr().err
    assert "--- books/a.ipynb" in shown
    assert "cell 3 failed (ZeroDivisionError)" in shown
    assert "\x1b" not in shown


def test_a_kernel_that_dies_is_tried_again_and_failed_code_is_not(
    write: Write, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "_RETRY_SECONDS", (0.01,))
    dies_once = (
        "import os\nfrom pathlib import Path\nseen = Path('seen')\n"
        "if not seen.exists():\n    seen.touch()\n    os._exit(1)\nprint('well')"
    )
    write("a", dies_once)
    write("b", "import os; os._exit(1)")
    assert run("books", "--retries", "1") == 3
    assert statuses() == {"a.ipynb": "ok", "b.ipynb": "error"}
    assert [item["attempts"] for item in summary()["notebooks"]] == [2, 2]
    assert texts("out/a.ipynb") == ["well\n"]
    assert "books/a.ipynb: the kernel died in cell 1; trying again in a new sandbox" in capfd.readouterr().err


def test_fail_fast_stops_what_runs_and_begins_nothing_else(write: Write) -> None:
    write(
        "a", "import time\nfrom pathlib import Path\nwhile not Path('runs').exists(): time.sleep(0.02)\n1 / 0"
    )
    write("b", "import time\nfrom pathlib import Path\nprint('b')\nPath('runs').touch()\ntime.sleep(600)")
    write("c", "print('c')")
    assert run("books", "--fail-fast", "--jobs", "2") == 1
    assert statuses() == {"a.ipynb": "failed", "b.ipynb": "stopped", "c.ipynb": "not run"}
    assert texts("out/b.ipynb") == ["b\n"]
    assert not Path("out/c.ipynb").exists()
    assert "--fail-fast" in summary()["notebooks"][1]["error"]["message"]


def test_ctrl_c_stops_all_saves_their_outputs_and_reports(write: Write, tmp_path: Path) -> None:
    """The second of two kernels that run sends the signal, when it has seen that the first runs too."""
    cell = (
        "import os, time\nfrom pathlib import Path\nprint('partial', flush=True)\n"
        "Path('{name}.pid').write_text(str(os.getpid()))\n{signal}\ntime.sleep(600)"
    )
    wait = f"while not Path('a.pid').exists(): time.sleep(0.02)\nos.kill(os.getppid(), {int(signal.SIGINT)})"
    write("a", cell.format(name="a", signal=""))
    write("b", cell.format(name="b", signal=wait))
    write("c", "print('never')")
    command = [sys.executable, "-m", "daytona_kernel.cli", "run", "books", "--kernel", "python3"]
    command += ["--output-dir", "out", "--json", "out.json", "--junit", "out.xml", "--jobs", "2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 130, result.stderr
    assert "Traceback" not in result.stderr
    assert statuses() == {"a.ipynb": "stopped", "b.ipynb": "stopped", "c.ipynb": "not run"}
    assert texts("out/a.ipynb") == texts("out/b.ipynb") == ["partial\n"]
    assert len(ElementTree.parse("out.xml").findall(".//skipped")) == 1
    for name in ("a", "b"):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "books" / f"{name}.pid").read_text()), 0)


def test_advice_for_a_file_that_lies_beside_the_notebook(
    write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a sandbox it is not there; here the working directory is another one."""
    write("a", "import os\nos.mkdir('empty')\nos.chdir('empty')\nopen('data.csv')")
    Path("books/data.csv").write_text("1")
    assert run("books") == 1
    assert "data.csv lies beside the notebook, but not in its sandbox: --beside" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--upload", "books"], "--upload needs a kernel of daytona-kernel"),
        (["--beside"], "--beside needs a kernel"),
        (["--collect", "*.png"], "--collect needs a kernel"),
        (["--share"], "--share needs a kernel"),
        (["--keep-failed"], "--keep-failed needs a kernel"),
        (["--junit", "nowhere/x.xml"], "there is no folder nowhere"),
        (["--json", "books"], "books is a folder"),
        (["-p", "1a", "1"], "can not be named"),
        (["-f", "no.json"], "no.json"),
        (["--env", "A B=1"], "write KEY=VALUE"),
        (["--env", "DAYTONA_TEST_NOT_SET"], "there is no such variable"),
        (["--snapshot", "a", "--image", "b"], "not from both"),
        (["--gpu", "1"], "need an image"),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_run(
    write: Write, capfd: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    write("a", "1")
    assert cli.main(["run", "books", "--kernel", "python3", *options]) == 2
    shown = capfd.readouterr()
    assert words in shown.err
    assert shown.err.count("\n") == 1
    assert not list(Path("books").glob("*.out.ipynb"))
