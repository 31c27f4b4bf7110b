"""``%%daytona`` with Python: code in the sandbox, and what it shows, as this cell's own."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shlex
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from ..errors import DaytonaKernelError
from ..terminal import coloured
from .host import CommandFailed, Host, Result, UsageError
from .process import checked_environment, checked_timeout
from .registry import Parser, command, words_of
from .sdk import translated
from .words import printable

Content = dict[str, Any]


class RemoteError(DaytonaKernelError):
    """Code of a ``%%daytona`` cell raised an exception in the sandbox.

    ``ename`` and ``evalue`` name it; ``traceback`` are its lines as the sandbox's IPython wrote them.
    """

    def __init__(self, ename: str, evalue: str, traceback: list[str]) -> None:
        super().__init__(f"{ename}: {evalue}")
        self.ename, self.evalue, self.traceback = ename, evalue, [coloured(line) for line in traceback]

    def _render_traceback_(self, *_: Any) -> list[str]:
        """What IPython shows: the remote traceback, and where it is from."""
        return [*self.traceback, f"\x1b[31mRemoteError\x1b[39m: {self.message} (raised in the sandbox)"]


class HostSink:
    """Output of an execution, shown by a host. ``errors``: those, too; else they come as exceptions."""

    def __init__(self, host: Host, *, errors: bool = False) -> None:
        self._host = host
        self._errors = errors

    def publish(self, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]) -> None:
        """Show a message as the command's own."""
        if self._host.as_json:
            if type == "stream":
                self._host.write(str(content.get("text", "")), error=True)
            return
        if self._errors or type != "error":
            self._host.publish(type, content, metadata, buffers)

    def status(self, text: str | None) -> None:
        """Show what is being waited for."""
        self._host.status(text)

    def notice(self, text: str) -> None:
        """Tell the person something."""
        self._host.write(f"[daytona] {text}\n", error=True)

    def ask(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        """Ask the person."""
        return self._host.ask_blocking(prompt, password, cancelled)


async def run_code(
    host: Host, code: str, *, silent: bool = False, expressions: Content | None = None
) -> Content:
    """Run code in the notebook's context; its reply. Raises :class:`RemoteError` if it raises."""
    content = {
        "code": code,
        "silent": silent,
        "store_history": not silent and host.door != "kernel",  # which remembers the whole cell itself
        "user_expressions": expressions or {},
        "allow_stdin": True,
        "cell_id": None,
    }
    reply = await asyncio.wrap_future(host.session.execute(content, {"header": {}}, HostSink(host)))
    if reply.get("status") != "ok":
        traceback = [str(line) for line in reply.get("traceback") or []]
        raise RemoteError(str(reply.get("ename", "")), str(reply.get("evalue", "")), traceback)
    return reply


def _python_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("--timeout", metavar="TIME", help="interrupt it after this time, like 90s or 5m")
    add("--env", action="append", default=[], metavar="K=V", help="environment variable, for this cell only")
    add("--fresh", action="store_true", help="as a program of its own: no variables before or after it")
    add("--argv", metavar="WORDS", help="with --fresh: the program's arguments, as in a shell")
    add("--no-raise", action="store_true", help="with --fresh: no error for an exit code that is not 0")


@command(
    "python",
    "Processes",
    _python_arguments,
    cell=True,
    examples=("%%daytona", "%%daytona --timeout 5m --env MODE=test", "%%daytona --fresh --argv '--seed 1'"),
)
async def python(host: Host, args: argparse.Namespace) -> Result:
    """Run the cell in the sandbox, in the context of this notebook. The word python may be left out.

    With --fresh it is a program of its own instead, in the sandbox's language; its output comes at the end,
    with the charts that matplotlib showed. The value is then its exit code.
    """
    limit_s = checked_timeout(args.timeout)
    environment = checked_environment(args.env)
    if args.fresh:
        return await _program(host, args, environment, limit_s)
    if args.argv is not None or args.no_raise:
        raise UsageError("--argv and --no-raise go with --fresh.")
    async with _variables_set(host, environment):
        work = asyncio.ensure_future(run_code(host, args.body))
        try:
            done, _ = await asyncio.wait({work}, timeout=limit_s)
            if not done:
                host.session.interrupt()
                await asyncio.wait({work}, timeout=10)
                raise CommandFailed(f"The cell was interrupted after {args.timeout}.")
            work.result()
        finally:
            work.cancel()
    return Result()


_SET = """
import json, os, sys
values = json.loads(text)
sys._daytona_environ = {name: os.environ.get(name) for name in values}
os.environ.update(values)
"""
_PUT_BACK = """
import os, sys
for name, value in sys.__dict__.pop("_daytona_environ", {}).items():
    if value is None: os.environ.pop(name, None)
    else: os.environ[name] = value
"""


@asynccontextmanager
async def _variables_set(host: Host, environment: dict[str, str]) -> AsyncIterator[None]:
    """Environment variables of the notebook's Python, put back afterwards."""
    if not environment:
        yield
        return
    scope = f"{{'text': {json.dumps(environment)!r}}}"
    await run_code(host, f"__import__('builtins').exec({_SET!r}, {scope})", silent=True)
    try:
        yield
    finally:
        with suppress(DaytonaKernelError):
            await asyncio.shield(
                run_code(host, f"__import__('builtins').exec({_PUT_BACK!r}, {{}})", silent=True)
            )


async def _program(
    host: Host, args: argparse.Namespace, environment: dict[str, str], limit_s: float | None
) -> Result:
    """Run the body as a program of its own."""
    from daytona import CodeRunParams

    # The daemon's shell sees the words (v0.190.0); what they are is not up to it.
    argv = [shlex.quote(word) for word in words_of(args.argv or "")]
    params = CodeRunParams(argv=argv or None, env=environment or None)
    timeout_s = None if limit_s is None else math.ceil(limit_s)
    sandbox = await host.sandbox()
    with translated("The program"):
        answer = await sandbox.process.code_run(args.body, params, timeout=timeout_s)
    if answer.result:
        host.write(answer.result if answer.result.endswith("\n") else f"{answer.result}\n")
    for chart in answer.artifacts.charts or [] if answer.artifacts else []:
        if chart.png:
            host.display({"image/png": chart.png, "text/plain": f"<chart: {printable(chart.title or '')}>"})
    code = int(answer.exit_code)
    failed = code != 0 and not args.no_raise
    return Result(code, error=CommandFailed(f"The program ended with exit code {code}.") if failed else None)
