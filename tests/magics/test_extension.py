"""The extension of a plain IPython, and completion in both doors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .doors import Door, IPythonDoor


def test_a_cell_runs_in_the_sandbox_with_its_output_here(ipython: IPythonDoor) -> None:
    ipython("%%daytona\npass").ok()
    outcome = ipython(
        "%%daytona\nimport sys, os\nprint('out')\nprint('err', file=sys.stderr)\n"
        "from IPython.display import HTML\ndisplay(HTML('<b>x</b>'))\nkept = 41\nkept + 1"
    ).ok()
    assert outcome.stdout == "out\n"
    assert outcome.stderr == "err\n"
    assert [one["text/plain"] for one in outcome.shown][-1] == "42"
    assert outcome.shown[0]["text/html"] == "<b>x</b>"
    assert ipython("%%daytona\nprint(kept)").stdout == "41\n"
    assert "kept" not in ipython.shell.user_ns


def test_an_error_is_raised_here_with_the_remote_traceback(ipython: IPythonDoor) -> None:
    outcome = ipython("%%daytona\ndef inner():\n    return 1/0\ninner()")
    assert outcome.failed("RemoteError") == "ZeroDivisionError: division by zero"
    assert "in inner" in outcome.traceback
    assert "raised in the sandbox" in outcome.traceback
    assert "kerneldoor" not in outcome.traceback
    assert "extension.py" not in outcome.traceback


TITLE = "\\x1b]0;title\\x07"


def test_the_sandbox_does_not_steer_the_terminal(ipython: IPythonDoor) -> None:
    outcome = ipython(
        f"%%daytona\nprint('{TITLE}\\x1b[32m50%\\x1b[0m\\r100%\\x1b[6n')\n"
        f"display({{'text/plain': '{TITLE}shown'}}, raw=True)"
    ).ok()
    assert outcome.stdout == "\x1b[32m50%\x1b[0m\r100%\n"
    assert outcome.shown[0]["text/plain"] == "shown"
    failed = ipython(f"%%daytona\nraise ValueError('{TITLE}it')")
    assert "\x1b]" not in failed.traceback + failed.failed("RemoteError")
    ipython("%%daytona\nprint('\\x1b]0;', end='')")
    assert ipython("%%daytona\nprint('mine')").stdout == "mine\n"


def test_input_is_asked_for_here(ipython: IPythonDoor) -> None:
    outcome = ipython("%%daytona\nprint(input('name? ').upper())", answers=("ada",)).ok()
    assert outcome.stdout.endswith("ADA\n")


def test_a_cell_with_a_timeout_is_interrupted(ipython: IPythonDoor) -> None:
    message = ipython("%%daytona --timeout 1s\nimport time\ntime.sleep(600)").failed("CommandFailed")
    assert "interrupted after 1s" in message
    assert ipython("%%daytona\nprint('alive')").stdout == "alive\n"


def test_magics_work_in_loops_here(ipython: IPythonDoor) -> None:
    assert ipython("for word in ('a', 'b'):\n    %daytona exec -- echo {word}").ok().stdout.split() == [
        "a",
        "b",
    ]


SDK_SCRIPT = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
shell.run_cell("%load_ext daytona_kernel")
shell.run_cell("box = %daytona sdk")
shell.run_cell("print(box.process.exec('echo through the sdk').result)")
shell.run_cell("%unload_ext daytona_kernel")
"""


def test_the_sdk_object_is_live(private_server: Path) -> None:
    """In a process of its own: the SDK's synchronous client (0.226.1) has no way to close its sockets."""
    done = subprocess.run(
        [sys.executable, "-c", SDK_SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    assert "through the sdk" in done.stdout


def test_unloading_undoes_what_loading_did(private_server: Path) -> None:
    door = IPythonDoor()
    shell = door.shell
    door("%daytona ls").ok()
    door("%load_ext daytona_kernel").ok()
    assert len(shell.ast_transformers) == 1
    door("%unload_ext daytona_kernel").ok()
    assert not shell.ast_transformers
    assert "daytona" not in shell.magics_manager.magics["line"]
    assert not hasattr(shell, "_daytona_kernel_magics")
    assert not shell.Completer.custom_matchers
    door("%load_ext daytona_kernel").ok()
    assert "none yet" in door("%daytona status").ok().text
    door.close()


def test_commands_in_the_cell_that_loads_us_are_shown_too(private_server: Path) -> None:
    """A whole ``script.ipy`` is such a cell."""
    door = IPythonDoor()
    door("%unload_ext daytona_kernel").ok()
    outcome = door("%load_ext daytona_kernel\n%daytona help\nx = %daytona help\n%daytona help upload").ok()
    door.close()
    assert len(outcome.shown) == 1
    assert "usage: %daytona upload" in outcome.stdout
    assert "upload" in door.shell.user_ns["x"]


def test_commands_and_options_are_completed(door: Door) -> None:
    assert "%daytona upload" in door.complete("%daytona upl")
    assert "%daytona previews" in door.complete("%daytona previ")
    assert "%daytona ls --json" in door.complete("%daytona ls --js")
    assert "x = %daytona status" in door.complete("x = %daytona stat")
    assert "%%daytona bash" in door.complete("%%daytona ba")
    assert "%daytona help upload" in door.complete("%daytona help uplo")


def test_files_of_both_sides_are_completed(door: Door, place: str, tmp_path: Path) -> None:
    door(f"%daytona exec -- touch {place}/remote-one {place}/remote-two").ok()
    assert f"%daytona cat {place}/remote-two" in door.complete(f"%daytona cat {place}/remote-t")
    (tmp_path / "local-one").touch()
    assert f"%daytona upload {tmp_path}/local-one" in door.complete(f"%daytona upload {tmp_path}/loc")


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("%daytona snapshot ", ["activate", "create", "delete", "list"]),
        ("%daytona screenshot --format ", ["jpeg", "png", "webp"]),
        ("%daytona set auto_s", ["auto_stop="]),
        ("%daytona snapshot activate daytona-sm", ["daytona-small"]),
        ("%daytona context use defau", ["default"]),
        ("%%daytona --fr", ["--fresh"]),
        ("%%daytona bash --sess", ["--session"]),
    ],
)
def test_words_of_ours_are_completed_alone(door: Door, text: str, matches: list[str]) -> None:
    door("%daytona start").ok()
    kept = text[: text.rindex(" ") + 1]
    assert door.complete(text) == [kept + match for match in matches]


def test_names_of_sandboxes_and_jobs_are_completed(door: Door) -> None:
    door("%daytona bg --name completed -- true").ok()
    assert door.complete("%daytona logs complet") == ["%daytona logs completed"]
    door("%daytona kill completed").ok()
    name = json.loads(door("%daytona status --json").ok().stdout)["name"]
    assert f"%daytona attach {name}" in door.complete(f"%daytona attach {name[:4]}")


def test_paths_with_spaces_are_completed_quoted(door: Door, place: str) -> None:
    door(f"%daytona mkdir {place}/'a dir'").ok()
    assert door.complete(f"%daytona ls {place}/a") == [f"%daytona ls '{place}/a dir/'"]
    assert door.complete(f"%daytona ls '{place}/a d") == [f"%daytona ls '{place}/a dir/'"]


def test_other_lines_are_completed_by_python(door: Door) -> None:
    assert any("zip" in one for one in door.complete("# %daytona\nzi"))


def test_ctrl_c_interrupts_a_cell_in_the_sandbox(ipython: IPythonDoor) -> None:
    ipython("%%daytona\nsurvivor = 1").ok()
    code = "%%daytona\nimport time\nprint('begun', flush=True)\ntime.sleep(600)"
    assert ipython.interrupted(code, "begun").ename == "KeyboardInterrupt"
    assert ipython("%%daytona\nprint(survivor)").ok().stdout == "1\n"


def test_the_end_of_ipython_leaves_no_sandbox_running(private_server: Path, tmp_path: Path) -> None:
    """At the interpreter's end executors are shut down early; the session must have ended before."""
    from daytona_kernel.local import launcher

    before = {one["id"] for one in (launcher.status() or {})["sandboxes"]}
    script = tmp_path / "script.ipy"
    script.write_text("%load_ext daytona_kernel\n%daytona exec -- echo ran\n")
    done = subprocess.run(
        [sys.executable, "-m", "IPython", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "ran\n" in done.stdout
    assert "left behind" not in done.stderr
    assert {one["id"] for one in (launcher.status() or {})["sandboxes"]} <= before
