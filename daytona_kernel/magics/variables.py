"""``%%daytona`` with Python, ``push`` and ``pull``: code and values between this IPython and the sandbox."""

from __future__ import annotations

import argparse
import asyncio
import threading
from typing import Any

from ..errors import DaytonaKernelError
from .host import Host, Result
from .registry import Parser, command

Content = dict[str, Any]


class RemoteError(DaytonaKernelError):
    """Code of a ``%%daytona`` cell raised an exception in the sandbox.

    ``ename`` and ``evalue`` name it; ``traceback`` are its lines as the sandbox's IPython wrote them.
    """

    def __init__(self, ename: str, evalue: str, traceback: list[str]) -> None:
        super().__init__(f"{ename}: {evalue}")
        self.ename, self.evalue, self.traceback = ename, evalue, traceback

    def _render_traceback_(self, *_: Any) -> list[str]:
        """What IPython shows: the remote traceback, and where it is from."""
        return [*self.traceback, f"\x1b[31mRemoteError\x1b[39m: {self.message} (raised in the sandbox)"]


class HostSink:
    """Output of an execution, shown by a host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._status_shown = False

    def publish(self, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]) -> None:
        """Show a message; the error comes as the exception."""
        if type != "error":
            self._host.publish(type, content, metadata, buffers)

    def status(self, text: str | None) -> None:
        """Say on stderr what is waited for."""
        if text is not None and not self._status_shown:
            self._status_shown = True
            self._host.write(f"[daytona] {text}\n", error=True)

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
        "store_history": not silent,
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
    parser.add_argument("--timeout", metavar="TIME", help="interrupt it after this time, like 90s or 5m")


@command(
    "python", "Variables", _python_arguments, cell=True, examples=("%%daytona", "%%daytona --timeout 5m")
)
async def python(host: Host, args: argparse.Namespace) -> Result:
    """Run the cell in the sandbox, in the context of this notebook. The word python may be left out."""
    from ..config import parse_duration_s
    from .host import CommandFailed

    limit = parse_duration_s(args.timeout) if args.timeout else None
    work = asyncio.ensure_future(run_code(host, args.body))
    try:
        done, _ = await asyncio.wait({work}, timeout=limit)
        if not done:
            host.session.interrupt()
            await asyncio.wait({work}, timeout=10)
            raise CommandFailed(f"The cell was interrupted after {args.timeout}.")
        work.result()
    finally:
        work.cancel()
    return Result()
