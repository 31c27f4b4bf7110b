"""The tree of errors: one root, a sentence for the user in each, and the tree that the docstring draws."""

from __future__ import annotations

import inspect
import re

import pytest

from daytona_kernel import errors
from daytona_kernel.channel import Refused
from daytona_kernel.errors import DaytonaKernelError, SandboxError, SandboxGone, public_name
from daytona_kernel.execution import ContextLost
from daytona_kernel.outcome import is_infrastructure
from daytona_kernel.toolbox import ToolboxError

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]


def drawn() -> dict[str, str]:
    """Name -> name of the class above it, as the module's docstring draws them."""
    above: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^(    [│├└─ ]*)([A-Z]\w+)  ", line)
        if match is None:
            continue
        depth = len(match[1])
        path = [(d, name) for d, name in path if d < depth]
        above[match[2]] = path[-1][1] if path else "Exception"
        path.append((depth, match[2]))
    return above


def test_the_tree_is_as_its_picture_shows_it() -> None:
    assert {cls.__name__: cls.__bases__[0].__name__ for cls in ALL} == drawn()


@pytest.mark.parametrize("cls", ALL)
def test_an_error_says_what_happened_and_then_what_to_do(cls: type[DaytonaKernelError]) -> None:
    assert str(cls("It broke.", hint="Mend it.")) == "It broke. Mend it."
    assert str(cls("It broke.")).startswith("It broke.")
    assert cls("It broke.").message == "It broke."


def test_a_hint_of_one_error_is_not_the_hint_of_the_next() -> None:
    SandboxError("a", hint="b")
    assert str(SandboxError("a")) == "a"


def test_the_sandbox_failed_is_never_a_builtin_error_of_the_cell() -> None:
    for cls in ALL:
        assert issubclass(cls, DaytonaKernelError)
        assert not issubclass(cls, (OSError, ValueError, RuntimeError))


def test_what_is_finer_inside_has_the_name_that_people_and_exit_codes_know() -> None:
    """Else ``jupyter daytona run`` would take it for an error of the notebook's own code."""
    assert public_name(Refused("")) == "ConnectionFailed"
    assert public_name(ToolboxError(502, "")) == "SandboxError"
    assert public_name(ContextLost("", started=True)) == "DaytonaKernelError"
    for cls in (Refused, ToolboxError, ContextLost):
        assert is_infrastructure(next(c.__name__ for c in cls.__mro__ if "internal" not in vars(c)))
    assert public_name(SandboxGone("")) == "SandboxGone"
    assert public_name(ValueError("")) == "ValueError"
