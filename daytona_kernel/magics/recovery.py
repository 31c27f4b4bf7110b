"""What a kernel that ended abruptly has left: its process, its variables, and output that nobody has seen."""

from __future__ import annotations

import argparse
import asyncio
import threading
from typing import Any

from .host import Host, Result
from .registry import command

Content = dict[str, Any]


class _HostSink:
    """Shows a recorded cell's output as output of the command."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def publish(self, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]) -> None:
        """Send the message as the command's own."""
        self._host.publish(type, content, metadata, buffers)

    def status(self, text: str | None) -> None:
        """Show what is being waited for."""
        self._host.status(text)

    def notice(self, text: str) -> None:
        """Tell the person something."""
        self._host.write(f"[daytona] {text}\n", error=True)

    def ask(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        """Pass a question of the recorded cell on, if it still runs."""
        return self._host.ask_blocking(prompt, password, cancelled)


@command("missed", "Sandbox", examples=("%daytona missed",), doors=("kernel",))
async def missed(host: Host, args: argparse.Namespace) -> Result:
    """Show the output of the last cell that nobody was there to see.

    After a kernel was killed, its Python process goes on in the sandbox. This goes back to it, with its
    variables, and shows what its last cell has printed; if that cell still runs, it is followed live and can
    be interrupted. Without such a process it shows the last cell's recorded output once more.
    """
    session = host.session
    back = bool(session.left_behind)
    if back:
        await asyncio.wrap_future(session.attach(session.left_behind))
    reply = await asyncio.wrap_future(session.missed(_HostSink(host)))
    how = "ended well" if reply.get("status") == "ok" else f"ended with {reply.get('ename') or 'an error'}"
    text = f"That cell {how}." + (" Its variables are there again." if back else "")
    return Result({"status": reply.get("status"), "back": back}, text)
