"""The two doors of `%daytona`, driven the same way: a kernel behind its sockets, and an IPython shell."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import start_new_kernel

TIMEOUT = 60.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Outcome:
    """What running a cell gave."""

    stdout: str = ""
    stderr: str = ""
    shown: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    count: int = 0
    inputs: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text: stdout, and the plain form of what was displayed."""
        return self.stdout + "".join(str(one.get("text/plain", "")) + "\n" for one in self.shown)

    @property
    def html(self) -> str:
        """All HTML."""
        return "".join(str(one.get("text/html", "")) for one in self.shown)

    def ok(self) -> Outcome:
        """Itself, if there was no error."""
        assert not self.ename, f"{self.ename}: {self.evalue}\n{self.traceback}"
        return self

    def failed(self, ename: str) -> str:
        """The message of the error, which must be of this name."""
        assert self.ename == ename, (
            f"wanted {ename}, got {self.ename or 'no error'}: {self.evalue}\n{self.text}"
        )
        return self.evalue


class KernelDoor:
    """Cells of a notebook, with our kernel if no other is named."""

    name = "kernel"

    def __init__(self, kernel_name: str = "daytona") -> None:
        self.manager, self.client = start_new_kernel(kernel_name=kernel_name, startup_timeout=60)

    def close(self) -> None:
        """End the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()

    def __call__(
        self,
        code: str,
        answers: tuple[str, ...] = (),
        on_text: Callable[[str], None] = lambda text: None,
        **options: Any,
    ) -> Outcome:
        outcome, pending = Outcome(), list(answers)

        def on_output(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                name = content["name"]
                setattr(outcome, name, getattr(outcome, name) + content["text"])
                on_text(content["text"])
            elif message["msg_type"] in ("display_data", "update_display_data"):
                outcome.shown.append(content["data"])
                on_text(str(content["data"].get("text/plain", "")))
            elif message["msg_type"] == "execute_result":
                outcome.results.append(content["data"])
            elif message["msg_type"] == "execute_input":
                outcome.inputs.append(content["code"])

        def on_input(message: dict[str, Any]) -> None:
            self.client.input(pending.pop(0))

        options.setdefault("allow_stdin", bool(answers))
        reply = self.client.execute_interactive(
            code, timeout=TIMEOUT, output_hook=on_output, stdin_hook=on_input, **options
        )["content"]
        outcome.count = reply["execution_count"]
        if reply["status"] != "ok":
            outcome.ename, outcome.evalue = reply["ename"], reply["evalue"]
            outcome.traceback = _COLOURS.sub("", "\n".join(reply["traceback"]))
        return outcome

    def interrupted(self, code: str, when: str) -> Outcome:
        """Run a cell, and interrupt it as soon as its output has the words."""
        waiting = True

        def interrupt(text: str) -> None:
            nonlocal waiting
            if waiting and when in text:
                waiting = False
                self.manager.interrupt_kernel()

        outcome = self(code, on_text=interrupt, allow_stdin=True)  # somebody is there, so more is shown
        assert not waiting, f"never seen: {when!r} in {outcome}"
        return outcome

    def here(self, code: str) -> Outcome:
        """Run plain Python where `name = %daytona` leaves its value."""
        return self(code)

    def complete(self, text: str) -> list[str]:
        """The matches at the end of the text."""
        self.client.complete(text, len(text))
        while True:
            try:
                message = self.client.get_shell_msg(timeout=TIMEOUT)
            except Empty:
                raise AssertionError("no complete_reply") from None
            if message["msg_type"] == "complete_reply":
                content = message["content"]
                start = text[: content["cursor_start"]]
                return [start + match for match in content["matches"]]


class IPythonDoor:
    """Cells of a plain IPython with the extension."""

    name = "ipython"

    def __init__(self) -> None:
        from traitlets.config import Config

        config = Config()
        config.HistoryManager.enabled = False
        self.shell = InteractiveShell(config=config)
        self._traceback: list[str] = []
        self.shell._showtraceback = lambda kind, value, lines: self._traceback.extend(lines)
        self.shell.run_line_magic("load_ext", "daytona_kernel")

    def close(self) -> None:
        """Unload the extension."""
        self.shell.run_line_magic("unload_ext", "daytona_kernel")

    def __call__(self, code: str, answers: tuple[str, ...] = (), **options: Any) -> Outcome:
        from unittest import mock

        from IPython.core.displaypub import CapturingDisplayPublisher
        from IPython.utils.capture import capture_output

        publisher, saved = CapturingDisplayPublisher(), self.shell.display_pub
        pending = list(answers)

        def answer(prompt: str = "") -> str:
            if not pending:
                raise EOFError
            return pending.pop(0)

        with (
            capture_output(display=False) as captured,
            mock.patch("builtins.input", answer),
            mock.patch("getpass.getpass", answer),
        ):
            self.shell.display_pub = publisher
            try:
                result = self.shell.run_cell(code, store_history=False)
            finally:
                self.shell.display_pub = saved
        outcome = Outcome(captured.stdout, captured.stderr)
        outcome.shown = [one["data"] for one in publisher.outputs]
        error = result.error_before_exec or result.error_in_exec
        if error is not None:
            outcome.ename, outcome.evalue = type(error).__name__, str(error)
            outcome.traceback = _COLOURS.sub("", "\n".join(self._traceback))
        self._traceback.clear()
        return outcome

    here = __call__

    def interrupted(self, code: str, when: str) -> Outcome:
        """Run a cell, and interrupt it as soon as its output has the words."""
        host = self.shell._daytona_kernel_magics[0].host
        waiting = True

        def watched(show: Callable[..., None]) -> Callable[..., None]:
            def show_and_interrupt(text: str | None, **options: Any) -> None:
                nonlocal waiting
                show(text, **options)
                if waiting and when in (text or ""):
                    waiting = False
                    host._later(signal.raise_signal, signal.SIGINT)

            return show_and_interrupt

        ways = ("write", "progress", "show_status")
        for name in ways:
            setattr(host, name, watched(getattr(host, name)))
        try:
            outcome = self(code)
        finally:
            for name in ways:
                delattr(host, name)
        assert not waiting, f"never seen: {when!r} in {outcome}"
        return outcome

    def complete(self, text: str) -> list[str]:
        """The matches at the end of the text."""
        from IPython.core.completer import provisionalcompleter

        with provisionalcompleter():
            found = list(self.shell.Completer.completions(text, len(text)))
        return [text[: one.start] + one.text for one in found]


Door = KernelDoor | IPythonDoor
