"""Comm messages (of widgets) on their way to a cell that awaits, past the queue of the shell channel."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from .errors import DaytonaKernelError
from .session import Session
from .sink import KernelSink

if TYPE_CHECKING:
    from .kernel import DaytonaKernel

Content = dict[str, Any]

COMM_TYPES = ("comm_open", "comm_msg", "comm_close")


def type_of(session: Any, msg: Any) -> str:
    """The type of a message as it came from the socket; empty if it can not be read."""
    try:
        _, parts = session.feed_identities(msg, copy=False)
        return str(session.unpack(parts[1].bytes)["msg_type"])
    except Exception:  # whoever serves it says what is wrong with it
        return ""


def request_of(message: Content) -> Content:
    """What the agent needs of a comm message beside its content."""
    buffers = [b64encode(bytes(buffer)).decode("ascii") for buffer in message.get("buffers") or []]
    return {"comm_type": message["header"]["msg_type"], "buffers": buffers}


async def turn_or_awaiting(lock: asyncio.Lock, session: Session) -> bool:
    """Wait for one's turn, and then hold the lock: true. False, without the lock, if a cell awaits before."""
    turn: asyncio.Future[Any] = asyncio.ensure_future(lock.acquire())
    awaiting: asyncio.Future[Any] = asyncio.wrap_future(session.awaiting())
    try:
        await asyncio.wait([turn, awaiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        awaiting.cancel()
        if not turn.done():
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
    return not turn.cancelled()


async def serve_comm(kernel: DaytonaKernel, msg: Any) -> None:
    """Have the cell that awaits serve a comm message; if it ends before that, it is served after it."""
    assert kernel.session is not None
    try:
        idents, parts = kernel.session.feed_identities(msg, copy=False)
        message = kernel.session.deserialize(parts, content=True, copy=False)
    except Exception:
        kernel.log.exception("Invalid Message")
        return
    sink, extra = KernelSink(kernel, request=(message, idents)), request_of(message)
    asked = message["content"], sink.parent, sink
    sink.publish("status", {"execution_state": "busy"}, {}, ())
    try:
        if not await asyncio.wrap_future(kernel.link_session.comm_beside(*asked, **extra)):
            async with kernel._main_asyncio_lock:
                await asyncio.wrap_future(kernel.link_session.request("comm", *asked, **extra))
    except DaytonaKernelError as exc:
        kernel.log.warning("a comm message was not served: %s", exc)
    finally:
        sink.publish("status", {"execution_state": "idle"}, {}, ())
