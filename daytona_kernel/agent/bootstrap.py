"""Entry: puts the agent together around a context's globals, once.

This leans on how the interpreter's worker works (observed on v0.190.0): it looks ``sys.__stdout__`` and
``sys.stdin`` up each time it writes a chunk or reads a command. If a worker should not, the kernel notices
that no ``done`` comes, and starts a new context with ``capture`` off.
"""

from __future__ import annotations

import asyncio
import builtins
import io
import os
import signal
from typing import Any

from .descriptors import move_high
from .interrupts import Interrupts
from .outbox import Outbox
from .service import Agent, Parts
from .spool import SpoolDirectory
from .stdin import CommandStdin, main_thread
from .streams import Capture, OutStream
from .world import put_right

ENTRY = "__daytona__"
"""Name of the entry among the builtins, where it survives a cleared namespace and a cleared
``sys.modules``.
"""


class _Bytes:
    """The binary side of the protocol stream, for a worker that writes bytes."""

    def __init__(self, stream: ProtocolStream) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        """Write UTF-8."""
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)

    def flush(self) -> None:
        """Nothing to do."""


class ProtocolStream(io.TextIOBase):
    """``sys.__stdout__``: the worker's protocol for the worker, ordinary output for user code."""

    encoding = "utf-8"
    errors = "strict"
    name = "<stdout>"

    def __init__(self, outbox: Outbox, user_stream: OutStream, is_worker: Any) -> None:
        self._outbox = outbox
        self._user_stream = user_stream
        self._is_worker = is_worker
        self._line = ""
        self.buffer = _Bytes(self)

    def write(self, string: str) -> int:
        """Whole lines of the worker go to the daemon; what anybody else writes is output of the cell."""
        if not self._is_worker():
            return self._user_stream.write(string)
        self._line += string
        if self._line.endswith("\n"):
            line, self._line = self._line, ""
            self._outbox.write_protocol(line.encode("utf-8", "surrogatepass"))
        return len(string)

    def fileno(self) -> int:
        """The captured descriptor."""
        return self._user_stream.fileno()

    def writable(self) -> bool:
        """Always."""
        return True


def start(user_ns: dict[str, Any], options: dict[str, Any]) -> None:
    """Make the agent and its entry. ``options``: ``name`` of the spool directory, ``capture`` (bool)."""
    if getattr(builtins, ENTRY, None) is not None:
        return
    module = put_right(user_ns)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    interrupts = Interrupts()
    interrupts.install()
    for number in (signal.SIGTERM, signal.SIGHUP):  # as in any Python of its own
        signal.signal(number, signal.SIG_DFL)
    spool = SpoolDirectory(options["name"])
    capturing = options.get("capture", True)
    protocol_fd = move_high(os.dup(1)) if capturing else 1
    outbox = Outbox(protocol_fd, interrupts, spool)
    capture = Capture(outbox)
    agent = Agent(Parts(user_ns, module, loop, interrupts, outbox, capture, spool))
    if capturing:
        _take_descriptors(agent)
    os.register_at_fork(after_in_child=lambda: _in_child(agent))
    setattr(builtins, ENTRY, agent.handle)


def _take_descriptors(agent: Agent) -> None:
    command_fd = move_high(os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    stdin = CommandStdin(command_fd, agent.loop, agent.is_worker)
    stdin.before_wait = agent.between_executions
    stdout = OutStream(agent.outbox, agent.capture, "stdout", 1, original=True)
    # The bootstrap itself is an execution: the worker's own output at its end must find the protocol.
    protocol = ProtocolStream(agent.outbox, stdout, lambda: not agent.running and main_thread())
    stderr = OutStream(agent.outbox, agent.capture, "stderr", 2, original=True)
    agent.fixed = {"__stdout__": protocol, "__stderr__": stderr, "__stdin__": stdin, "stdin": stdin}
    agent.restore_fixed()
    agent.capture.start()
    agent.outbox.before_message = agent.capture.drain


def _in_child(agent: Agent) -> None:
    """A forked child is no kernel: usual signals, output through the pipe, no commands."""
    agent.running = True
    agent.interrupts.release_in_child()
    agent.capture.forget_in_child()
    agent.outbox.forget_in_child()
