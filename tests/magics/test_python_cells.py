"""`%%daytona` with Python and its options, through both doors."""

from __future__ import annotations

import pytest

from .doors import Door, KernelDoor
from .test_lifecycle import python


def test_a_fresh_program_shares_no_variables(door: Door) -> None:
    python(door, "before = 1")
    code = "import os, sys\nprint('before' in globals(), os.environ['MODE'], sys.argv[1:])\nafter = 1"
    outcome = door(f"%%daytona --fresh --env MODE=test --argv \"a 'b; c'\"\n{code}").ok()
    assert outcome.stdout == "False test ['a', 'b; c']\n"
    assert python(door, "print('after' in globals())") == "False"


def test_a_fresh_program_that_fails_is_an_error(door: Door) -> None:
    outcome = door("%%daytona --fresh\nprint('first')\nraise SystemExit(3)")
    assert "exit code 3" in outcome.failed("CommandFailed")
    assert outcome.stdout == "first\n"
    door("%%daytona --fresh --no-raise\n1/0").ok()
    assert "time" in door("%%daytona --fresh --timeout 1s\nimport time; time.sleep(60)").failed(
        "CommandFailed"
    )


def test_variables_for_one_cell_are_put_back(door: Door) -> None:
    python(door, "import os; os.environ['KEPT'] = 'old'")
    code = "import os; print(os.environ['KEPT'], os.environ['ONCE'])"
    assert door(f"%%daytona --env KEPT=new --env 'ONCE=a b'\n{code}").ok().stdout == "new a b\n"
    assert door("%%daytona --env KEPT=new\n1/0").ename in ("RemoteError", "ZeroDivisionError")
    assert python(door, "print(os.environ['KEPT'], 'ONCE' in os.environ)") == "old False"


def test_an_error_in_the_kernel_is_that_of_any_cell(kernel: KernelDoor) -> None:
    before = kernel("0").count
    outcome = kernel("%%daytona\ndef inner():\n    return 1/0\ninner()")
    assert outcome.failed("ZeroDivisionError") == "division by zero"
    assert "in inner" in outcome.traceback
    assert "RemoteError" not in outcome.traceback
    assert kernel("0").count == before + 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--env 1=2", "no name for a variable"),
        ("--env NAME", "name=value"),
        ("--timeout 0s", "at least 1s"),
        ("--argv x", "go with --fresh"),
        ("--no-raise", "go with --fresh"),
        ('--fresh --argv "\'"', "can not be taken apart"),
        ("--frehs", "Did you mean --fresh?"),
        ("js --env A=1", "is not understood"),
    ],
)
def test_wrong_words_are_refused_and_nothing_runs(door: Door, line: str, words: str) -> None:
    outcome = door(f"%%daytona {line}\nopen('ran', 'w')")
    assert words in outcome.failed("UsageError")
    assert "ran" not in door("%daytona ls").text.split()
