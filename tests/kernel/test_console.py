"""``jupyter console`` in a terminal: run, complete, answer, interrupt, quit."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import pytest

from .notebook import Place

pytestmark = pytest.mark.slow

PATIENCE_S = 60
#: The console gives up a question after a second and takes the late answer for that of its next one. A busy
#: machine needs longer, with `python3` as well.
PATIENT = (
    f"--ZMQTerminalInteractiveShell.kernel_is_complete_timeout={PATIENCE_S}",
    f"--ZMQTerminalInteractiveShell.kernel_timeout={PATIENCE_S}",
)
READS = r"\x1b\[\?2004h"
"""What the console writes when it reads a line: the terminal shall mark what is pasted."""


def plain(text: Any) -> str:
    """Text without what only a terminal understands."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", str(text))


def converse(console: Any) -> dict[str, str]:
    """Type lines, and wait for what they do; what the terminal showed after each."""
    shown: dict[str, str] = {}

    def say(keys: str, until: str = READS) -> None:
        console.send(keys)
        console.expect(until)
        shown[keys] = plain(console.before + console.after)

    say("", READS)
    say("6 * 7\r")
    say("long_name_of_a_number = 99\r")
    say("long_n\t", "ame_of_a_number")
    say("\r")
    say("name = input('who? ')\r", r"who\? $")
    say("Ada\r")
    say("import time; print('beg' + 'un'); time.sleep(1000)\r", "begun")
    console.sendintr()
    console.expect(READS)
    shown["Ctrl-C"] = plain(console.before)
    say("print('hello', name)\r")
    return shown


def console_session(environment: dict[str, str]) -> dict[str, str]:
    """A console's whole life."""
    pexpect = pytest.importorskip("pexpect", reason="pexpect is not installed (extra: test)")
    pytest.importorskip("jupyter_console", reason="jupyter_console is not installed (extra: test)")
    # Without asking the terminal where the cursor is: there is nobody to answer.
    environment = {**environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    console = pexpect.spawn(
        sys.executable,
        ["-m", "jupyter_console", "--kernel=daytona", *PATIENT],
        env=environment,
        timeout=PATIENCE_S,
        encoding="utf-8",
        dimensions=(40, 200),
    )
    try:
        shown = converse(console)
        console.send("quit\r")
        console.expect(pexpect.EOF)
        console.wait()
        assert (console.exitstatus, console.signalstatus) == (0, None)
    finally:
        console.close(force=True)
    return shown


async def test_a_console_runs_completes_asks_interrupts_and_ends(place: Place) -> None:
    place.start_server()
    shown = await asyncio.to_thread(console_session, place.environment)
    assert "42" in shown["6 * 7\r"]
    assert "99" in shown["\r"]
    assert "KeyboardInterrupt" in shown["Ctrl-C"]
    assert "hello Ada" in shown["print('hello', name)\r"].replace("print('hello', name)", "")
