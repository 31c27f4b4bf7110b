"""What a kernel that ended abruptly has left: its process, its variables, and output that nobody has seen."""

from __future__ import annotations

import argparse
import asyncio

from .cells import HostSink
from .host import Host, Result
from .registry import command


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
    reply = await asyncio.wrap_future(session.missed(HostSink(host, errors=True)))
    how = "ended well" if reply.get("status") == "ok" else f"ended with {reply.get('ename') or 'an error'}"
    text = f"That cell {how}." + (" Its variables are there again." if back else "")
    return Result({"status": reply.get("status"), "back": back}, text)
