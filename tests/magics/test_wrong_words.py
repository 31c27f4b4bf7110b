"""Every command with every kind of wrong word: one sentence, the nearest right word, and nothing done."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

import pytest

from daytona_kernel.magics import registry
from daytona_kernel.magics.host import Host, UsageError
from daytona_kernel.magics.registry import Command

EVERY = [*registry.commands().values(), *registry.commands(cell=True).values()]


class UntouchedHost(Host):
    """A host that nothing may be asked of."""

    is_local = True

    def __init__(self) -> None:
        self.door = "ipython"
        self.state, self.namespace = {}, {}
        self._checked = False

    def _touched(self, *args: Any, **options: Any) -> NoReturn:
        raise AssertionError("something was done")

    write = display = publish = status = show_status = progress = ask_blocking = _touched
    sandbox = settled_sandbox = toolbox = client = _touched

    @property
    def session(self) -> NoReturn:
        """No command gets as far as this."""
        raise AssertionError("something was done")


async def refusal(command: Command, words: list[str]) -> str:
    """What a command says to words that are wrong."""

    async def run() -> None:
        arguments = command.parse(words)
        arguments.body = ""
        await command.run(UntouchedHost(), arguments)

    with pytest.raises(UsageError) as caught:
        await run()
    message = str(caught.value)
    assert "Traceback" not in message
    assert len(caught.value.message.splitlines()) == 1
    return message


def right_words(command: Command) -> list[str]:
    """The words of its first example, without the program at its end."""
    line = command.examples[0].partition("%daytona")[2]
    table = {command.name: command}
    words = registry.words_of(line) or [command.name]
    if command.cell and (not words or words[0].startswith("-")):
        words = [command.name, *words]
    _, rest = registry.find(words, table)
    return rest[: rest.index("--")] if "--" in rest else rest


def options(kind: str) -> list[Any]:
    """All options that take a kind of value, with their commands."""
    return [
        pytest.param(command, name, id=f"{command.name} {name}")
        for command in EVERY
        for action in command.parser()._actions
        for name in action.option_strings[-1:]
        if takes(action, kind)
    ]


def takes(action: argparse.Action, kind: str) -> bool:
    """Whether an option takes a number, one of several words, or a time."""
    if kind == "number":
        return action.type in (int, float)
    return bool(action.choices) if kind == "choice" else action.metavar == "TIME"


@pytest.mark.parametrize(("command", "option"), options("number"))
@pytest.mark.parametrize("value", ["many", "", "1e", "0x10"])
async def test_what_is_no_number_is_refused(command: Command, option: str, value: str) -> None:
    message = await refusal(command, [*right_words(command), f"{option}={value}"])
    assert option in message


@pytest.mark.parametrize(("command", "option"), options("choice"))
async def test_what_is_no_choice_is_refused(command: Command, option: str) -> None:
    message = await refusal(command, [*right_words(command), option, "nonsense"])
    assert "choose from" in message


@pytest.mark.parametrize(("command", "option"), options("time"))
@pytest.mark.parametrize("value", ["soon", "-5m", "5 minutes ago", "1y"])
async def test_what_is_no_time_is_refused(command: Command, option: str, value: str) -> None:
    program = ["--", "true"] if command.argv else []
    message = await refusal(command, [*right_words(command), f"{option}={value}", *program])
    assert "30m" in message


@pytest.mark.parametrize("command", EVERY, ids=lambda one: one.name)
async def test_a_misspelt_option_is_put_right(command: Command) -> None:
    for option in command.parser().options():
        misspelt = option[:-2] + option[-1] + option[-2] if option[-1] != option[-2] else option + "x"
        message = await refusal(command, [*right_words(command), misspelt])
        assert "Did you mean --" in message, misspelt


def wants_words(command: Command) -> bool:
    """Whether there is no right line without further words."""
    return any(one.required and one.nargs not in ("*", "?") for one in command.parser()._actions)


def takes_any_number(command: Command) -> bool:
    """Whether no word is one too many."""
    positionals = [one for one in command.parser()._actions if not one.option_strings]
    return command.argv or any(one.nargs in ("*", "+") for one in positionals)


@pytest.mark.parametrize("command", [one for one in EVERY if wants_words(one)], ids=lambda one: one.name)
async def test_a_missing_word_is_asked_for(command: Command) -> None:
    message = await refusal(command, [])
    assert "required" in message
    assert "Usage: %" in message or "--help explains it" in message


@pytest.mark.parametrize(
    "command", [one for one in EVERY if not takes_any_number(one)], ids=lambda one: one.name
)
async def test_a_word_too_many_is_refused(command: Command) -> None:
    words = [*right_words(command), "1", "2", "3", "4", "5", "6"]
    assert "is not understood" in await refusal(command, words)


@pytest.mark.parametrize("line", ["exec --cwd /tmp --", "bg", "bg --name x"])
async def test_a_program_with_nothing_to_run_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="no program to run"):
        await registry.run_line(UntouchedHost(), line)


@pytest.mark.parametrize("line", ["upload 'a", 'cat "', "ls \\"])
async def test_a_line_that_can_not_be_taken_apart_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="quotes"):
        await registry.run_line(UntouchedHost(), line)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("uplaod x", "Did you mean upload?"),
        ("vnc strat", "Did you mean start?"),
        ("snapshot", "It knows: activate, create, delete, list"),
        ("set auto_stop=soon", "30m"),
        ("set auto_stop", "name=value"),
        ("set =1h", "name=value"),
        ("set auto_stp=1h", "Did you mean auto_stop?"),
        ("set public=perhaps", "yes or no"),
        ("keepalive soon", "30m"),
        ("preview 70000", "from 1 to 65535"),
        ("preview http", "from 1 to 65535"),
        ("preview 8000 --height 1", "from 50 to 5000"),
        ("preview 22222", "--allow-reserved"),
        ("preview 8000 --expires 2d", "1s to 1d"),
        ("serve 0 -- x", "from 1 to 65535"),
        ("serve 2280 -- x", "the toolbox"),
        ("serve 8000 --wait 0 -- x", "from 1 up"),
        ("upload /no/such/file", "Nothing was uploaded"),
        ("upload a b --delete", "goes with --sync"),
        ("mkdir x --mode 9", "octal"),
        ("chmod rw x", "octal"),
        ("cat x --bytes 0", "from 1 up"),
        ("logs x --tail 0", "from 1 up"),
        ("logs x --tail 1 -f", "do not go together"),
        ("bg --name ../x -- true", "no name for a job"),
        ("exec --env =x -- true", "name=value"),
        ("exec --timeout 0s -- true", "at least 1s"),
        ("create --auto-stop 90s", "whole minutes"),
        ("create --cpu 2", "need --image"),
        ("create --volume data:relative", "data:/home/daytona/data"),
        ("create --allow 10.0.0.0/33", "no IPv4 network"),
        ("net allow 1.2.3.4", "10.0.0.0/8"),
        ("env set A-B=1", "no name for a variable"),
        ("ssh --expires 0s", "from 1m"),
        ("terminal", "--show-token"),
        ("resize", "to what"),
        ("resize --cpu 99", "from 1 to 4"),
        ("attach a --label k=v", "Which sandbox"),
        ("attach --label k", "name=value"),
        ("screenshot --quality 101", "from 1 to 100"),
        ("screenshot --scale 0.01", "from 0.1 to 1.0"),
        ("screenshot --region 1,2,3", "0,0,800,600"),
        ("scroll 1 1 down --amount 0", "from 1 up"),
        ("push 1x", "no name of a variable"),
        ("push class", "no name of a variable"),
        ("pull x --pickle", "--trust"),
        ("git clone https://u:p@example.org/x.git", "password in it"),
        ("git clone https://example.org/x.git --ask --token-env T", "exclude each other"),
        ("git push --token-env NO_SUCH_VARIABLE", "is not set"),
        ("snapshot create x --image python:latest", "no lasting tag"),
    ],
)
async def test_wrong_values_are_refused_before_anything_is_done(line: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        await registry.run_line(UntouchedHost(), line)
    assert words in str(caught.value)
