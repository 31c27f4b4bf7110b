"""What overtakes the shell channel's queue: comm messages (of widgets) to a cell that awaits; interrupts."""

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
INTERRUPT = "interrupt_request"


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
    found = _read(kernel, msg)
    if found is None:
        return
    idents, message = found
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


async def serve_interrupt(kernel: DaytonaKernel, msg: Any) -> None:
    """Interrupt the cell that runs, without waiting for its end."""
    found = _read(kernel, msg)
    if found is None:
        return
    idents, message = found
    sink = KernelSink(kernel, request=(message, idents))
    sink.publish("status", {"execution_state": "busy"}, {}, ())
    await kernel.interrupt_request(kernel.shell_stream, idents, message)
    sink.publish("status", {"execution_state": "idle"}, {}, ())


def _read(kernel: DaytonaKernel, msg: Any) -> tuple[Any, Content] | None:
    """Routing prefixes and message; ``None``, and a line in the log, if it is none or not signed."""
    assert kernel.session is not None
    try:
        idents, parts = kernel.session.feed_identities(msg, copy=False)
        return idents, kernel.session.deserialize(parts, content=True, copy=False)
    except Exception:
        kernel.log.exception("Invalid Message")
        return None
