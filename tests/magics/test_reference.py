"""The commands' manual: complete, and the page made from it up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from daytona_kernel.magics import reference, registry
from daytona_kernel.magics.host import UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "magics.md"
EVERY = [*registry.commands().values(), *registry.commands(cell=True).values()]


def test_the_reference_page_is_what_the_parsers_say() -> None:
    wanted = PAGE.read_text(encoding="utf-8")
    assert reference.page() == wanted, "python -m daytona_kernel.magics.reference > docs/magics.md"


@pytest.mark.parametrize("command", EVERY, ids=lambda one: one.name)
def test_every_command_explains_itself(command: registry.Command) -> None:
    assert command.summary
    assert command.group in registry.GROUPS
    assert command.examples
    for action in command.parser()._actions:
        assert action.help, f"{command.name}: {action.dest}"
    with pytest.raises(registry.HelpAsked, match="usage: %"):
        command.parse(["--help"])


@pytest.mark.parametrize("command", [one for one in EVERY if not one.cell], ids=lambda one: one.name)
def test_every_example_is_understood(command: registry.Command) -> None:
    for example in command.examples:
        line = example.partition("%daytona")[2]
        found, rest = registry.find(registry.words_of(line), registry.commands())
        assert found is command
        found.parse(rest)


@pytest.mark.parametrize("command", EVERY, ids=lambda one: one.name)
def test_an_unknown_option_is_refused_by_every_command(command: registry.Command) -> None:
    with pytest.raises(UsageError):
        command.parse(["--no-such-option=1", "a", "b", "c", "d", "e", "f", "g"])
