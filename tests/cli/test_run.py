"""``jupyter daytona run``, against a real ``python3`` kernel: the kernel is not what is tested here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_client.manager import AsyncKernelManager

from daytona_kernel import (
    cli,
    notebookclient,
    notebookfile,
    notebookrun,
    outcome,
    progress,
    sandboxwords,
    selection,
)

from .conftest import MakeNotebook


def run(notebook: Path, *options: str) -> int:
    """Run *notebook* in this process, as the program would."""
    return cli.main(["run", str(notebook), "--kernel", "python3", *options])


def texts(path: Path) -> list[str]:
    """Return the stream text of each cell."""
    notebook = nbformat.read(path, as_version=4)
    return ["".join(o.text for o in cell.outputs if o.output_type == "stream") for cell in notebook.cells]


def test_outputs_are_saved_in_the_named_file_and_the_notebook_stays_as_it_was(
    make_notebook: MakeNotebook, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    book = make_notebook("x = 20", "print(x + 1)", "x + 2")
    before = book.read_bytes()
    assert run(book, "-o", str(tmp_path / "result.ipynb")) == 0
    result = nbformat.read(tmp_path / "result.ipynb", as_version=4)
    assert texts(tmp_path / "result.ipynb") == ["", "21\n", ""]
    assert result.cells[2].outputs[0].data["text/plain"] == "22"
    assert [cell.execution_count for cell in result.cells] == [1, 2, 3]
    assert book.read_bytes() == before
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "[2/3] ok" in shown.err
    assert "print(x + 1)" in shown.err


def test_a_result_that_can_not_be_saved_at_the_end_is_no_success(
    make_notebook: MakeNotebook, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The notebook also says that it is in another language, which is told."""
    book = make_notebook()
    raw = nbformat.read(book, as_version=4)
    raw.metadata["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    nbformat.write(raw, book)
    before, written = notebookfile.write, []

    def write(notebook: nbformat.NotebookNode, path: Path) -> None:
        written.append(path)
        if len(written) == 3:  # tried out, begun, ended
            raise notebookfile.NotebookFileError("the disk is full")
        before(notebook, path)

    monkeypatch.setattr(notebookfile, "write", write)
    assert run(book) == 3
    shown = capfd.readouterr().err
    assert "the disk is full" in shown
    assert "saved" not in shown
    assert "says that it is in R; the kernel 'python3' runs python" in shown


def test_without_a_name_the_result_is_beside_the_notebook(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    assert run(make_notebook("print(1)"), "--no-progress") == 0
    assert texts(tmp_path / "book.out.ipynb") == ["1\n"]


def test_inplace_replaces_the_notebook(
    make_notebook: MakeNotebook, capfd: pytest.CaptureFixture[str]
) -> None:
    book = make_notebook("print(1)")
    assert run(book, "--inplace", "--no-progress") == 0
    assert texts(book) == ["1\n"]
    assert capfd.readouterr().err == ""


def test_a_failing_cell_ends_the_run_with_1_and_its_traceback(
    make_notebook: MakeNotebook, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    book = make_notebook("print('before')", "def share(n):\n    return 1 / n\nshare(0)", "print('after')")
    assert run(book) == 1
    assert texts(tmp_path / "book.out.ipynb") == ["before\n", "", ""]
    saved = nbformat.read(tmp_path / "book.out.ipynb", as_version=4)
    assert saved.cells[1].outputs[0].ename == "ZeroDivisionError"
    shown = capfd.readouterr().err
    assert "return 1 / n" in shown
    assert "cell 2 failed (ZeroDivisionError)" in shown
    assert "[2/3] FAILED" in shown
    assert "\x1b" not in shown


def test_stale_outputs_of_cells_that_did_not_run_stay_but_those_of_the_failed_one_go(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    book = make_notebook("1 / 0", "print('never')")
    notebook = nbformat.read(book, as_version=4)
    for cell in notebook.cells:
        cell.outputs = [nbformat.v4.new_output("stream", text="old\n")]
    nbformat.write(notebook, book)
    assert run(book, "--no-progress") == 1
    assert texts(tmp_path / "book.out.ipynb") == ["", "old\n"]


def test_allow_errors_goes_on_and_says_how_many(
    make_notebook: MakeNotebook, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(make_notebook("1 / 0", "print('after')"), "--allow-errors") == 0
    assert texts(tmp_path / "book.out.ipynb") == ["", "after\n"]
    assert "1 cell(s) raised errors" in capfd.readouterr().err


def test_a_cell_that_ends_the_kernel_ends_the_run(
    make_notebook: MakeNotebook, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The kernel dies when it likes: without this, the next cell may still run, or not."""
    assert run(make_notebook("print(1)\nexit()", "print(2)")) == 1
    assert "cell 1 ended the kernel, as exit() does; 1 cell(s) did not run" in capfd.readouterr().err
    assert texts(tmp_path / "book.out.ipynb") == ["1\n", ""]
    assert run(make_notebook("print(1)\nquit()")) == 0


def test_a_cell_tagged_raises_exception_may_fail(
    make_notebook: MakeNotebook, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(make_notebook("1 / 0", "print(2)", tags={0: ["raises-exception"]})) == 0
    assert "FAILED" not in capfd.readouterr().err


def test_a_cell_that_prints_for_ever_fills_no_disk(
    make_notebook: MakeNotebook, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Until its time is over. Not as fast as it can: the local kernel drops messages, its error too, then."""
    book = make_notebook(
        "1",
        "",
        "import time\nprint('x' * 5000)\nwhile True: print('y' * 1000, flush=True); time.sleep(0.005)",
    )
    report = tmp_path / "report.json"
    options = ("--max-output", "20kB", "--cell-timeout", "2s", "--json", str(report))
    assert run(book, *options) == 1
    result = tmp_path / "book.out.ipynb"
    assert 18_000 < result.stat().st_size < 60_000  # of some 400,000 characters that were printed
    assert texts(result)[2].endswith(notebookclient.CUT)
    assert nbformat.read(result, as_version=4).cells[2].outputs[-1].ename == "KeyboardInterrupt"
    words = "over 0.02 MB of output: the rest of cell 2 was not kept (--max-output)"
    assert words in capfd.readouterr().err
    assert json.loads(report.read_text())["notebooks"][0]["notes"] == [words]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("500", 500), ("500kB", 500_000), ("1.5 MB", 1_500_000), ("1GiB", 2**30), ("2K", 2000)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert sandboxwords.byte_count(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1iB", "1 PB", "1e9", "1MBB"])
def test_sizes_that_are_none_are_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "book.ipynb", f"--max-output={text}"])
    assert ended.value.code == 2
    assert "no size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SandboxGone", True),
        ("DaytonaRateLimitError", True),
        ("ConnectionFailed", True),
        ("ExecutionUnknown", True),
        ("CredentialsError", True),
        ("ValueError", False),
        ("annotations", False),
        ("", False),
    ],
)
def test_which_errors_are_the_sandboxs(name: str, expected: bool) -> None:
    assert outcome.is_infrastructure(name) is expected


@pytest.mark.parametrize("options", [[], ["--allow-errors"]])
def test_an_error_of_the_sandbox_is_told_from_one_of_the_notebook(
    make_notebook: MakeNotebook, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    book = make_notebook(
        "class SandboxGone(Exception): pass\nraise SandboxGone('it was deleted')", "print(2)"
    )
    assert run(book, *options) == 3
    shown = capfd.readouterr().err
    assert "the sandbox failed in cell 1 (SandboxGone)" in shown
    assert "it was deleted" in shown


def test_a_kernel_that_dies_ends_the_run_with_3_and_outputs_so_far(
    make_notebook: MakeNotebook, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(make_notebook("print('first')", "import os; os._exit(7)")) == 3
    assert texts(tmp_path / "book.out.ipynb") == ["first\n", ""]
    assert "the kernel died in cell 2" in capfd.readouterr().err


def test_the_kernel_is_told_what_it_is_run_for(
    make_notebook: MakeNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its account is that of the folder in which the run was started, if that of the notebook has none."""
    monkeypatch.setenv("JPY_SESSION_NAME", "/somebody/elses.ipynb")
    for name in ("DAYTONA_API_KEY", "DAYTONA_JWT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / ".env").write_text("DAYTONA_API_KEY=dtn_of_here\n")
    monkeypatch.chdir(tmp_path / "here")
    names = "('DAYTONA_KERNEL_HEADLESS', 'DAYTONA_SANDBOX', 'JPY_SESSION_NAME', 'DAYTONA_API_KEY')"
    book = make_notebook(f"import os\nprint([os.environ.get(name) for name in {names}], os.getcwd())")
    assert run(book, "--sandbox", "lab 1") == 0
    assert texts(tmp_path / "book.out.ipynb") == [f"['1', 'lab 1', None, 'dtn_of_here'] {tmp_path}\n"]


def test_a_cell_over_its_limit_is_interrupted_and_shows_where_it_was(
    make_notebook: MakeNotebook, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    book = make_notebook("import time\nprint('begun')\ntime.sleep(600)", "print('next')")
    assert run(book, "--cell-timeout", "0.5s") == 1
    assert texts(tmp_path / "book.out.ipynb") == ["begun\n", ""]
    shown = capfd.readouterr().err
    assert "cell 1 did not end within 0.5s" in shown
    assert "time.sleep(600)" in shown


def test_a_cell_that_ignores_the_interrupt_is_left_after_a_while(
    make_notebook: MakeNotebook, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebookrun, "INTERRUPT_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(notebookrun, "SHUTDOWN_GRACE_SECONDS", 1.0)
    stubborn = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(600)"
    assert run(make_notebook(stubborn), "--cell-timeout", "0.5s") == 1
    assert "cell 1 did not end" in capfd.readouterr().err


def test_with_allow_errors_a_cell_over_its_limit_does_not_end_the_run(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    book = make_notebook("import time; time.sleep(600)", "print('next')")
    assert run(book, "--cell-timeout", "0.5s", "--allow-errors") == 0
    assert texts(tmp_path / "book.out.ipynb") == ["", "next\n"]


def test_a_run_over_its_limit_stops(
    make_notebook: MakeNotebook, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    book = make_notebook("print(1)", "import time; time.sleep(600)", "print(3)")
    assert run(book, "--timeout", "5s", "--allow-errors") == 1
    assert texts(tmp_path / "book.out.ipynb")[1:] == ["", ""]
    assert "not done within 5.0s (--timeout); stopped in cell" in capfd.readouterr().err


def test_neighbouring_pieces_of_a_stream_become_one_output(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    source = (
        "import sys\n"
        "for i in range(3000):\n    print(i, flush=True)\n"
        "print('aside', file=sys.stderr, flush=True)\nprint('end')"
    )
    assert run(make_notebook(source), "--no-progress") == 0
    outputs = nbformat.read(tmp_path / "book.out.ipynb", as_version=4).cells[0].outputs
    assert [o.name for o in outputs] == ["stdout", "stderr", "stdout"]
    assert outputs[0].text == "".join(f"{i}\n" for i in range(3000))


def test_clear_output_clears_text_that_was_joined(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    source = (
        "from IPython.display import clear_output\n"
        "for i in range(3):\n    print('a', flush=True)\n    print(i, flush=True)\n"
        "    clear_output(wait=True)\n"
        "print('last')"
    )
    assert run(make_notebook(source), "--no-progress") == 0
    assert texts(tmp_path / "book.out.ipynb") == ["last\n"]


def test_outputs_are_on_disk_while_the_cell_still_runs(
    make_notebook: MakeNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebookclient, "_SAVE_INTERVAL", 0.1)
    source = (
        "import json\nfrom pathlib import Path\nprint('early', flush=True)\nprint('bird', flush=True)\n"
        "def saved():\n"
        "    outputs = json.loads(Path('book.out.ipynb').read_text())['cells'][0]['outputs']\n"
        "    return ''.join(outputs[0]['text']) if outputs else ''\n"
        "while saved() != 'early\\nbird\\n': pass"
    )
    assert run(make_notebook(source), "--no-progress", "--timeout", "60s") == 0
    assert texts(tmp_path / "book.out.ipynb") == ["early\nbird\n"]


class TestUsage:
    """What cannot be run is refused with one line and exit code 2, before a kernel is started."""

    def refused(self, capfd: pytest.CaptureFixture[str], *argv: str) -> str:
        assert cli.main(["run", *argv]) == 2
        shown = capfd.readouterr()
        assert shown.out == ""
        assert shown.err.count("\n") == 1
        return shown.err

    def test_no_such_notebook(self, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert "there is no notebook" in self.refused(capfd, str(tmp_path / "no.ipynb"))

    @pytest.mark.parametrize("content", ["", "hello", "[]", "{}", '{"cells": 3}', "\udcff"])
    def test_not_a_notebook(self, capfd: pytest.CaptureFixture[str], tmp_path: Path, content: str) -> None:
        path = tmp_path / "bad.ipynb"
        path.write_bytes(content.encode(errors="surrogateescape"))
        assert "bad.ipynb is not a" in self.refused(capfd, str(path), "--kernel", "python3")
        assert not (tmp_path / "bad.out.ipynb").exists()

    def test_no_such_kernel(self, capfd: pytest.CaptureFixture[str], make_notebook: MakeNotebook) -> None:
        text = self.refused(capfd, str(make_notebook("1")), "--kernel", "fortran77")
        assert "there is no kernel 'fortran77'" in text
        assert "python3" in text

    def test_no_folder_for_the_result(
        self, capfd: pytest.CaptureFixture[str], make_notebook: MakeNotebook, tmp_path: Path
    ) -> None:
        target = tmp_path / "nowhere" / "out.ipynb"
        text = self.refused(capfd, str(make_notebook("1")), "--kernel", "python3", "-o", str(target))
        assert "there is no folder" in text

    @pytest.mark.parametrize("value", ["soon", "0", "5x", "-3"])
    def test_not_a_duration(
        self, capfd: pytest.CaptureFixture[str], make_notebook: MakeNotebook, value: str
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            cli.main(["run", str(make_notebook("1")), f"--timeout={value}"])
        assert caught.value.code == 2
        assert "--timeout" in capfd.readouterr().err


def start(notebook: Path, ignore: int = 0) -> subprocess.Popen[str]:
    """Start the program on *notebook*, with the signal *ignore* ignored and all else as in a terminal."""
    code = (
        "import signal, sys\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):\n"
        f"    signal.signal(number, signal.SIG_IGN if number == {int(ignore)} else signal.SIG_DFL)\n"
        "if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from daytona_kernel.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "run", str(notebook), "--kernel", "python3"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


# A cell that tells its own process id, then has the runner (its parent) get a signal, then waits for ever.
SIGNAL_CELL = """
import os, time
from pathlib import Path
Path("pid").write_text(str(os.getpid()))
print("partial", flush=True)
os.kill(os.getppid(), {number})
time.sleep(600)
"""


def wait_until_gone(pid: int) -> None:
    """Wait for a process that is not ours to end; fail after half a minute."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    if process.status() != psutil.STATUS_ZOMBIE:
        process.wait(timeout=30)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_the_cell_saves_its_output_and_leaves_no_kernel(
    make_notebook: MakeNotebook, tmp_path: Path, number: int, code: int
) -> None:
    book = make_notebook(SIGNAL_CELL.format(number=int(number)), "print('next')")
    process = start(book)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == code, shown
    assert "interrupted in cell 1" in shown
    assert "Traceback" not in shown
    assert texts(tmp_path / "book.out.ipynb") == ["partial\n", ""]
    wait_until_gone(int((tmp_path / "pid").read_text()))


def test_a_run_under_nohup_survives_the_end_of_its_terminal(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    source = f"import os\nos.kill(os.getppid(), {int(signal.SIGHUP)})\nprint('still here')"
    process = start(make_notebook(source), ignore=signal.SIGHUP)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 0, shown
    assert texts(tmp_path / "book.out.ipynb") == ["still here\n"]


def test_a_second_signal_does_not_wait_for_a_cell_that_will_not_stop(
    make_notebook: MakeNotebook, tmp_path: Path
) -> None:
    cell = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SIGNAL_CELL.replace(
        "time.sleep(600)", "time.sleep(0.3)\nos.kill(os.getppid(), 2)\ntime.sleep(600)"
    )
    process = start(make_notebook(cell.format(number=2)))
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    wait_until_gone(int((tmp_path / "pid").read_text()))


async def test_a_second_signal_while_the_kernel_takes_leave_ends_it(
    make_notebook: MakeNotebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By killing it: jupyter_client's manager fails when it is asked twice at a time to end its kernel."""
    book = make_notebook("import atexit, time\natexit.register(time.sleep, 600)")
    run = notebookrun.NotebookRun(
        selection.Job(book, book, "book"),
        notebookfile.read(book),
        notebookrun.NotebookOptions(kernel="python3"),
        progress.Progress(),
    )
    end, asked = AsyncKernelManager.shutdown_kernel, []

    async def shutdown_kernel(self: AsyncKernelManager, now: bool = False) -> None:
        asked.append(now)
        if len(asked) == 1:
            run.stop(130)
            run.stop(130)
        await end(self, now=now)

    monkeypatch.setattr(AsyncKernelManager, "shutdown_kernel", shutdown_kernel)
    assert (await run.execute()).code == 0
    assert asked == [False]


def test_a_killed_run_leaves_no_kernel_and_a_whole_file(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    book = make_notebook("print('first')", SIGNAL_CELL.format(number=9))
    process = start(book)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    wait_until_gone(int((tmp_path / "pid").read_text()))
    assert texts(tmp_path / "book.out.ipynb")[0] == "first\n"


def test_an_interrupt_before_the_first_cell_ends_the_run(make_notebook: MakeNotebook, tmp_path: Path) -> None:
    """The kernel here never answers; the run is interrupted while it waits for it."""
    spec = tmp_path / "kernels" / "mute"
    spec.mkdir(parents=True)
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(600)"
    spec.joinpath("kernel.json").write_text(
        json.dumps({"argv": [sys.executable, "-c", code], "display_name": "Mute", "language": "python"})
    )
    command = [sys.executable, "-m", "daytona_kernel.cli", "run", str(make_notebook("1")), "--kernel", "mute"]
    result = subprocess.run(
        command, env={**os.environ, "JUPYTER_PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 130, result.stderr
    assert "interrupted" in result.stderr


class TestNotebookFile:
    """Reading and writing the files themselves."""

    def test_a_write_that_fails_leaves_the_old_file_alone(
        self, make_notebook: MakeNotebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        book = make_notebook("print(1)")
        before = book.read_bytes()

        def full(source: str, target: str) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(notebookfile.os, "replace", full)
        with pytest.raises(notebookfile.NotebookFileError, match="No space left"):
            notebookfile.write(notebookfile.read(book), book)
        assert book.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["book.ipynb"]

    def test_a_link_is_followed_and_the_mode_is_kept(
        self, make_notebook: MakeNotebook, tmp_path: Path
    ) -> None:
        book = make_notebook("print(1)")
        book.chmod(0o640)
        link = tmp_path / "link.ipynb"
        link.symlink_to(book)
        notebook = notebookfile.read(link)
        notebook.cells[0].source = "print(2)"
        notebookfile.write(notebook, link)
        assert link.is_symlink()
        assert notebookfile.read(book).cells[0].source == "print(2)"
        assert book.stat().st_mode & 0o777 == 0o640

    def test_a_notebook_may_say_what_language_it_is_in(self, make_notebook: MakeNotebook) -> None:
        book = notebookfile.read(make_notebook("1"))
        assert notebookfile.language(book) == ""
        book.metadata["language_info"] = {"name": "python"}
        assert notebookfile.language(book) == "python"
        book.metadata["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
        assert notebookfile.language(book) == "R"

    def test_a_notebook_without_cell_ids_is_read_without_complaint(
        self, make_notebook: MakeNotebook, tmp_path: Path
    ) -> None:
        raw = nbformat.read(make_notebook("print(1)"), as_version=4)
        del raw.cells[0]["id"]
        (tmp_path / "old.ipynb").write_text(json.dumps(raw))
        assert notebookfile.read(tmp_path / "old.ipynb").cells[0].id
