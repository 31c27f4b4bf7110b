"""`%daytona` and programs of the sandbox, through both doors."""

from __future__ import annotations

import shlex

import pytest

from .doors import Door, IPythonDoor, KernelDoor


def test_exec_shows_output_and_gives_the_exit_code(door: Door) -> None:
    outcome = door("code = %daytona exec -- true").ok()
    assert door.here("print(code)").stdout.strip() == "0"
    outcome = door("%daytona exec -- sh -c 'echo out; exit 3'")
    assert "exit code 3" in outcome.failed("CommandFailed")
    assert outcome.stdout == "out\n"
    door("%daytona exec --no-raise -- false").ok()


def test_exec_takes_words_as_they_are(door: Door) -> None:
    outcome = door(
        "%daytona exec --env 'A=b c' --cwd /tmp -- sh -c 'echo \"[$A]\" $(pwd) \"$0\"' '* ; x'"
    ).ok()
    assert outcome.stdout.strip() == "[b c] /tmp * ; x"
    assert door("%daytona exec echo -n no dashes").ok().stdout.strip() == "no dashes"


def test_exec_finds_programs_not_words_of_the_shell(door: Door) -> None:
    assert "exit code 127" in door("%daytona exec -- exit 3").failed("CommandFailed")
    assert door("%daytona exec -- cat").ok().stdout == ""
    assert door("%daytona exec -- printf 'é%.0s' 1 2 3").ok().stdout.strip() == "ééé"


def running(door: Door, program: str) -> int:
    """How many programs of the sandbox have this command line."""
    script = f"cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o '{program[:-1]}[{program[-1]}]' | wc -l"
    return int(door(f"%daytona exec -- sh -c {shlex.quote(script)}").ok().stdout)


def test_an_interrupt_ends_what_exec_has_started(door: Door) -> None:
    """Its output comes as it is written: else nobody could know when to interrupt."""
    program = {"kernel": "sleep 4321", "ipython": "sleep 4322"}[door.name]
    door(f"%daytona bg --name other -- {program}").ok()
    assert running(door, program) == 1
    outcome = door.interrupted(f"%daytona exec -- sh -c 'echo begun; exec {program}'", "begun")
    assert outcome.ename == "KeyboardInterrupt"
    outcome = door.interrupted(f"%%daytona bash\necho begun\n{program}", "begun")
    assert outcome.ename == "KeyboardInterrupt"
    assert running(door, program) == 1
    door("%daytona kill other").ok()


def test_an_interrupt_ends_following_and_leaves_the_job(door: Door) -> None:
    door("%daytona bg --name long -- sh -c 'echo begun; exec sleep 600'").ok()
    assert door.interrupted("%daytona logs long -f", "begun").ename == "KeyboardInterrupt"
    assert "running" in door("%daytona jobs").ok().text
    door("%daytona kill long").ok()


def test_exec_is_ended_by_its_timeout(door: Door) -> None:
    assert "timeout" in door("%daytona exec --timeout 1s -- sleep 60").failed("CommandFailed").lower()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("exec", "no program to run"),
        ("exec --env 1x=2 -- true", "no name for a variable"),
        ("exec --env x -- true", "name=value"),
        ("exec --timeout 0s -- true", "at least 1s"),
        ("bg --name ../x -- true", "no name for a job"),
        ("logs nothing", "no job 'nothing'"),
        ("kill nothing", "no job 'nothing'"),
        ("logs x --tail 0", "from 1 up"),
        ("exce -- true", "Did you mean exec?"),
    ],
)
def test_wrong_words_are_refused(door: Door, line: str, words: str) -> None:
    assert words in door(f"%daytona {line}").failed("UsageError")


def test_a_bad_duration_names_the_right_form(door: Door) -> None:
    assert "30m" in door("%daytona exec --timeout soon -- true").failed("UsageError")


def test_a_job_lives_on_and_can_be_talked_to(door: Door) -> None:
    name = f"talk-{door.name}"
    door(f"%daytona bg --name {name} -- sh -c 'echo out; echo err >&2; read x; echo got \"$x\"; exit 4'").ok()
    assert "running" in door("%daytona jobs").ok().text
    assert "already" in door(f"%daytona bg --name {name} -- true").failed("UsageError")
    door(f"%daytona send {name} a line").ok()
    outcome = door(f"%daytona logs {name} -f").ok()
    assert "got a line" in outcome.stdout
    assert "err" in outcome.stderr
    assert "exit 4" in outcome.stdout
    assert "has ended" in door(f"%daytona send {name} more").failed("CommandFailed")
    assert door(f"%daytona logs {name} --tail 1").ok().stdout.strip() == "got a line"
    door(f"%daytona kill {name}").ok()
    assert name not in door("%daytona jobs").text


def test_jobs_are_found_by_another_notebook(kernel: KernelDoor, ipython: IPythonDoor) -> None:
    sandbox = kernel("import json\nfacts = %daytona status\nprint(facts['name'])").stdout.strip()
    kernel("%daytona bg --name shared -- sleep 600").ok()
    ipython(f"%daytona attach {sandbox}").ok()
    try:
        assert "shared" in ipython("%daytona jobs").ok().text
    finally:
        ipython("%daytona detach").ok()
    kernel("%daytona kill shared").ok()


def test_a_bash_cell_streams_and_raises(door: Door) -> None:
    outcome = door("%%daytona bash\necho out\necho err >&2\nexit 5")
    assert "exit code 5" in outcome.failed("CommandFailed")
    assert outcome.stdout == "out\n"
    assert outcome.stderr == "err\n"
    door("%%daytona bash --no-raise\nexit 5").ok()


def test_a_bash_session_keeps_its_state(door: Door) -> None:
    door("%%daytona bash --session keep\nexport KEPT=yes\ncd /tmp").ok()
    assert door("%%daytona bash --session keep\necho $KEPT; pwd").ok().stdout.split() == ["yes", "/tmp"]
    assert door("%%daytona bash\necho ${KEPT:-gone}").ok().stdout.strip() == "gone"
    assert "exit code 3" in door("%%daytona bash --session keep\nexit 3").failed("CommandFailed")
    assert door("%%daytona bash --session keep\necho ${KEPT:-new}").ok().stdout.strip() == "new"


def test_shells_that_were_left_open_can_be_ended(door: Door) -> None:
    door("%%daytona bash --session open\nV=1").ok()
    assert "open" in door("%daytona session list").ok().text.split()
    assert "Did you mean open?" in door("%daytona session rm opne").failed("UsageError")
    door("%daytona session rm open").ok()
    assert "open" not in door("%daytona session list").ok().text.split()
    assert door("%%daytona bash --session open\necho [$V]").ok().stdout.strip() == "[]"
    door("%daytona session rm open").ok()


def test_javascript_cells_run_with_node(door: Door) -> None:
    assert door("%%daytona js\nconsole.log(6 * 7)").ok().stdout.strip() == "42"
    assert "exit code 1" in door("%%daytona js\nthrow new Error('x')").failed("CommandFailed")


def test_typescript_cells_run_where_something_can(door: Door) -> None:
    code = "%%daytona ts\nenum Answer { Yes = 42 }\nconst n: number = Answer.Yes\nconsole.log(n)"
    able = door("%daytona exec --no-raise -- node --experimental-transform-types -e 0").ok().stderr == ""
    if not able:
        pytest.skip("no TypeScript without a download here")
    assert door(code).ok().stdout.strip() == "42"


def test_unknown_languages_are_named(door: Door) -> None:
    assert "Did you mean bash?" in door("%%daytona bas\nls").failed("UsageError")
