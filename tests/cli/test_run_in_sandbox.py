"""``jupyter daytona run`` with the ``daytona`` kernel and a local server of its own: nothing stays behind."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from daytona_kernel import cli
from daytona_kernel.local import launcher

from .conftest import MakeNotebook

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


@pytest.fixture(scope="module")
def local_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the server that the kernels of these tests start; it is stopped in the end."""
    folder = tmp_path_factory.mktemp("l")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAYTONA_LOCAL_DIR", str(folder))
        yield folder
        launcher.stop()


@pytest.fixture(autouse=True)
def _use_it(local_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DAYTONA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DAYTONA_LOCAL_DIR", str(local_folder))
    # No `.env` of the folder in which the tests were started is read.
    monkeypatch.chdir(local_folder)


def sandboxes() -> list[dict[str, Any]]:
    """Return what the server says about its sandboxes; none if no server was needed yet."""
    return list((launcher.status() or {}).get("sandboxes", []))


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for the server to notice; fail when a person would have lost patience."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}; sandboxes: {sandboxes()}"
        time.sleep(0.2)


def start(notebook: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "daytona_kernel.cli", "run", str(notebook), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def run(notebook: Path, *options: str) -> tuple[int, str]:
    """Return the exit code of a run and what it showed."""
    process = start(notebook, *options)
    _, shown = process.communicate(timeout=150)
    return process.returncode, shown


def started_cell(process: subprocess.Popen[str]) -> psutil.Process:
    """Return the kernel's process once the first cell is done, when the second is being run."""
    assert process.stderr is not None
    for line in process.stderr:
        if "] ok" in line:
            (kernel,) = psutil.Process(process.pid).children()
            return kernel
    raise AssertionError("the first cell did not end well")


def texts(path: Path) -> list[str]:
    notebook = nbformat.read(path, as_version=4)
    return ["".join(o.text for o in cell.outputs if o.output_type == "stream") for cell in notebook.cells]


def test_a_run_uses_a_sandbox_of_its_own_and_deletes_it(
    make_notebook: MakeNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel hands traitlets no words that it warns of now and will refuse."""
    monkeypatch.setenv("PYTHONWARNINGS", "error:Passing unrecognized arguments:DeprecationWarning")
    book = make_notebook("import os\nprint(os.path.expanduser('~'))", "print(2)")
    code, shown = run(book)
    assert code == 0, shown
    assert texts(tmp_path / "book.out.ipynb") == ["/home/daytona\n", "2\n"]
    assert sandboxes() == []


def test_a_process_that_dies_in_the_sandbox_is_the_sandboxs_failure(make_notebook: MakeNotebook) -> None:
    code, shown = run(make_notebook("import os\nprint('begun', flush=True)\nos._exit(3)"))
    assert code == 3, shown
    assert "SandboxProcessDied" in shown
    assert sandboxes() == []


def test_an_error_that_the_code_raises_is_the_codes_whatever_its_name(make_notebook: MakeNotebook) -> None:
    book = make_notebook("class SandboxGone(Exception): pass\nraise SandboxGone('not at all')")
    code, shown = run(book, "--retries", "1")
    assert code == 1, shown
    assert "cell 1 failed (SandboxGone)" in shown


def test_ctrl_c_stops_the_cell_and_deletes_the_sandbox(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    process = start(make_notebook("print(1)", "import time\ntime.sleep(600)"))
    kernel = started_cell(process)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "interrupted in cell 2" in shown
    assert texts(tmp_path / "book.out.ipynb") == ["1\n", ""]
    assert not kernel.is_running()
    assert sandboxes() == []


def collecting(folder: Path) -> bool:
    """Whether there are files or parts of some."""
    return folder.is_dir() and bool(os.listdir(folder))


def test_ctrl_c_while_files_are_collected_leaves_no_half_of_one(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    """The files are too large to have come before the signal does; none takes any of the sandbox's disk."""
    process = start(
        make_notebook(
            "for n in range(30):\n    with open(f'{n}.bin', 'wb') as file: file.truncate(2 * 2**30)"
        ),
        *("--collect", "*.bin", "--json", str(tmp_path / "report.json")),
    )
    folder = tmp_path / "book.files"
    eventually(lambda: process.poll() is not None or collecting(folder), "nothing is being collected")
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "interrupted while files were collected" in shown
    assert "Traceback" not in shown
    assert "Warning" not in shown
    (entry,) = json.loads((tmp_path / "report.json").read_text())["notebooks"]
    assert (entry["cells_run"], entry["collected"]) == (1, [])
    assert not collecting(folder)
    assert sandboxes() == []


def test_ctrl_c_while_the_sandbox_for_all_is_made_ends_the_run(
    make_notebook: MakeNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a service that takes requests and answers none."""
    asked = threading.Event()

    class Silent(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if self.rfile.readline().startswith(b"POST /api/sandbox "):
                asked.set()
            self.rfile.read()  # until the other side has had enough

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as service:
        threading.Thread(target=service.serve_forever, args=(0.05,)).start()
        monkeypatch.setenv("DAYTONA_API_URL", f"http://127.0.0.1:{service.server_address[1]}/api")
        monkeypatch.setenv("DAYTONA_API_KEY", "nobody-asks-for-it")
        process = start(make_notebook("print('never')"), "--share", "--json", str(tmp_path / "report.json"))
        assert asked.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
        service.shutdown()
    assert process.returncode == 130, shown
    assert "Traceback" not in shown
    assert json.loads((tmp_path / "report.json").read_text())["counts"]["not run"] == 1


@pytest.mark.parametrize("victim", ["run", "kernel"])
def test_kill_9_leaves_neither_kernel_nor_sandbox(make_notebook: MakeNotebook, victim: str) -> None:
    process = start(make_notebook("print(1)", "import time\ntime.sleep(600)"))
    kernel = started_cell(process)
    assert len(sandboxes()) == 1
    (process if victim == "run" else kernel).kill()
    process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if victim == "run" else 3)
    eventually(lambda: not kernel.is_running(), "the kernel is still there")
    eventually(lambda: sandboxes() == [], "the sandbox is still there")


async def test_a_named_sandbox_is_used_and_kept(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    from daytona import AsyncDaytona, CreateSandboxFromSnapshotParams, DaytonaConfig

    environment = launcher.environment(launcher.ensure_running())
    config = DaytonaConfig(api_key=environment["DAYTONA_API_KEY"], api_url=environment["DAYTONA_API_URL"])
    async with AsyncDaytona(config) as client:
        sandbox = await client.create(CreateSandboxFromSnapshotParams(name="kept"))
        await sandbox.fs.upload_file(b"brought along", "note.txt")
        book = make_notebook("print(open('note.txt').read())")
        code, shown = await asyncio.to_thread(run, book, "--sandbox", "kept")
        assert code == 0, shown
        assert texts(tmp_path / "book.out.ipynb") == ["brought along\n"]
        assert [item["name"] for item in sandboxes()] == ["kept"]
        await asyncio.to_thread(check_commands, "kept")


def check_commands(name: str) -> None:
    """``jupyter daytona sandboxes`` sees and ends what another program made only when asked to."""
    assert "no sandboxes of notebooks in the local server" in command("sandboxes")
    (entry,) = json.loads(command("sandboxes", "--all", "--json"))
    assert (entry["name"], entry["state"], entry["made_by"]) == (name, "started", "-")
    assert command("sandboxes", "--stop", name) == f"stopped {name}\n"
    assert re.search(rf"^{name} +stopped +- ", command("sandboxes", "--all"), re.MULTILINE)
    both = command("sandboxes", "--delete", "nobody", name, code=1)
    assert both == f"cannot delete nobody: there is no such sandbox\ndeleted {name}\n"
    eventually(lambda: sandboxes() == [], "the sandbox is still there")


def command(*words: str, code: int = 0) -> str:
    """Run ``jupyter daytona`` with *words*, in this process, and return what it printed."""
    shown = io.StringIO()
    with redirect_stdout(shown), redirect_stderr(shown):
        got = cli.main(words)
    assert got == code, shown.getvalue()
    return shown.getvalue()


def test_a_sandbox_that_does_not_exist_is_named_in_the_error(make_notebook: MakeNotebook) -> None:
    code, shown = run(make_notebook("1"), "--sandbox", "nowhere-to-be-found")
    assert code == 3, shown
    assert "SandboxNotFound" in shown
    assert "nowhere-to-be-found" in shown


OTHERS = {
    "jupyter execute": "jupyter execute --kernel_name=daytona --inplace book.ipynb",
    "nbconvert": "jupyter nbconvert --execute --inplace --to=notebook "
    "--ExecutePreprocessor.kernel_name=daytona book.ipynb",
    "nbval": f"pytest --nbval --nbval-kernel-name=daytona -p no:cacheprovider -c {os.devnull} book.ipynb",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_runners_work_too_and_leave_no_sandbox(
    make_notebook: MakeNotebook, tmp_path: Path, name: str
) -> None:
    book = make_notebook("import os\nprint(os.path.expanduser('~'))")
    notebook = nbformat.read(book, as_version=4)
    notebook.cells[0].execution_count = 1
    notebook.cells[0].outputs = [nbformat.v4.new_output("stream", text="/home/daytona\n")]
    nbformat.write(notebook, book)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        OTHERS[name].split(),
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
    )
    assert result.returncode == 0, result.stdout
    assert texts(book) == ["/home/daytona\n"]
    eventually(lambda: sandboxes() == [], "a sandbox is still there")


def test_the_quickstart_gives_the_same_outputs_in_a_sandbox_as_locally(tmp_path: Path) -> None:
    """Output by output, but for the cells that are tagged because they tell where and when they ran."""
    book = ROOT / "notebooks" / "quickstart.ipynb"
    recorded = []
    for kernel in ("daytona", "python3"):
        target = tmp_path / f"{kernel}.ipynb"
        code, shown = run(book, "--kernel", kernel, "-o", str(target))
        assert code == 0, shown
        cells = nbformat.read(target, as_version=4).cells
        recorded.append(
            [cell.outputs for cell in cells if cell.cell_type == "code" and not cell.metadata.get("tags")]
        )
    assert recorded[0] == recorded[1]
    assert sum(map(len, recorded[0])) >= 8


def test_files_are_brought_and_results_taken_home_also_of_a_notebook_that_failed(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "in.csv").write_text("1,2\n")
    (tmp_path / "helper.py").write_text("def double(x): return 2 * x\n")
    (tmp_path / ".env").write_text("SECRET=1")
    source = (
        "import helper, os\nfrom pathlib import Path\n"
        "print(helper.double(open('data/in.csv').read()), os.path.exists('.env'))\n"
        "Path('plots').mkdir()\nPath('plots/a.png').write_bytes(b'png')\nPath('b.txt').write_text('b')\n"
        "assert not os.environ['STAGE']"
    )
    make_notebook(source, name="a.ipynb")
    make_notebook("print(open('data/in.csv').read())", name="b.ipynb")
    options = [
        "--beside",
        "--collect",
        "**/*.png",
        "--collect",
        "b.txt",
        "--env",
        "STAGE=test",
        "--jobs",
        "2",
    ]
    options += ["--output-dir", str(tmp_path / "out"), "--json", str(tmp_path / "out.json")]
    code, shown = run(tmp_path, *options)
    assert code == 1, shown
    assert texts(tmp_path / "out" / "a.ipynb") == ["1,2\n1,2\n False\n"]
    assert texts(tmp_path / "out" / "b.ipynb") == ["1,2\n\n"]
    files = tmp_path / "out" / "a.files"
    found = {path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*.*")}
    assert found == {"plots/a.png": b"png", "b.txt": b"b"}
    failed, other = json.loads((tmp_path / "out.json").read_text())["notebooks"]
    assert (failed["error"]["ename"], failed["uploaded_files"], failed["attempts"]) == (
        "AssertionError",
        3,
        1,
    )
    assert "b.txt: no such file or directory" in " ".join(other["notes"])
    assert sandboxes() == []


def test_one_sandbox_for_all_is_deleted_in_the_end(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    make_notebook("open('left.txt', 'w').write(open('in.txt').read())", name="a.ipynb")
    make_notebook("print(open('left.txt').read())\nhere = 1", name="b.ipynb")
    (tmp_path / "in.txt").write_text("brought once")
    code, shown = run(tmp_path, "--share", "--upload", f"{tmp_path / 'in.txt'}:in.txt")
    assert code == 0, shown
    assert texts(tmp_path / "b.out.ipynb") == ["brought once\n"]
    assert sandboxes() == []


def test_kill_9_of_a_run_that_shares_a_sandbox_leaves_none(make_notebook: MakeNotebook) -> None:
    process = start(make_notebook("print(1)", "import time\ntime.sleep(600)"), "--share")
    kernel = started_cell(process)
    process.kill()
    process.communicate(timeout=60)
    eventually(lambda: not kernel.is_running(), "the kernel is still there")
    eventually(lambda: sandboxes() == [], "the sandbox is still there")


def test_the_sandbox_of_a_failed_notebook_is_kept_with_its_variables(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    code, shown = run(make_notebook("precious = 42", "1 / 0"), "--keep-failed")
    assert code == 1, shown
    (kept,) = sandboxes()
    words = re.search(rf"%daytona attach {kept['name']}, then (%daytona context use [-0-9a-f]+)", shown)
    assert words, shown
    (entry,) = json.loads(command("sandboxes", "--mine", "--json"))
    assert (entry["name"], entry["state"], entry["mine"], entry["left_behind"]) == (
        kept["name"],
        "started",
        True,
        False,
    )
    assert command("sandboxes", "--prune") == "nothing was left behind\n"
    look = make_notebook(words[1], "print(precious)", name="look.ipynb")
    code, shown = run(look, "--sandbox", kept["name"])
    assert code == 0, shown
    assert texts(tmp_path / "look.out.ipynb")[1] == "42\n"
    assert command("sandboxes", "--delete", kept["name"]) == f"deleted {kept['name']}\n"


async def test_what_a_killed_run_left_in_the_service_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The local server, taken for the service. It looks for dead owners itself, but not at this label."""
    from daytona_kernel import sharing
    from daytona_kernel.config import DaytonaSettings
    from daytona_kernel.controlplane import ControlPlane
    from daytona_kernel.labels import LABEL, LABEL_HOST, LABEL_OWNER, host_label, owner_label

    environment = launcher.environment(launcher.ensure_running())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert not DaytonaSettings().is_local
    monkeypatch.setattr(sharing, "LABEL_OWNER", "test.owner")
    plane = ControlPlane(environment["DAYTONA_API_URL"], environment["DAYTONA_API_KEY"])
    ours = {LABEL: "1", LABEL_HOST: host_label()}
    dead = "999999999:1"
    try:
        left = await plane.create({"labels": ours | {"test.owner": dead}})
        others = [
            await plane.create({"labels": ours | {"test.owner": owner_label()}}),
            await plane.create({"labels": ours}),
            await plane.create({"labels": {LABEL: "1", LABEL_HOST: "elsewhere", "test.owner": dead}}),
            await plane.create({"labels": {"test.owner": dead}}),
        ]
        assert LABEL_OWNER != "test.owner"
        assert await sharing.sweep() == [left.name]
        assert await sharing.sweep() == []
        for sandbox in others:
            await sandbox.delete()
        names = {sandbox.name for sandbox in others}
        eventually(lambda: not names & {item["name"] for item in sandboxes()}, "a sandbox is still there")
    finally:
        await plane.close()


def test_the_doctor_makes_a_sandbox_and_deletes_it() -> None:
    shown = command("doctor")
    assert re.search(r"a sandbox was there after [\d.]+ s; a command in it takes \d+ ms", shown)
    assert re.search(r"Python 3\.\d+\.\d+ is in it", shown)
    eventually(lambda: sandboxes() == [], "the sandbox is still there")
