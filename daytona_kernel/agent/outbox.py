"""Frames on their way out: one order for text and messages, numbered, spooled, with flow control.

Producers append to a deque, which needs no lock, so ``print`` stays cheap and may be interrupted anywhere. A
thread of its own drains it, joins neighbouring text, and writes lines to the spool and to the interpreter's
protocol stream; only the end of an execution is written by the main thread itself. So neither a signal nor a
recursion limit in user code can cut a line in two.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from .. import wire
from .bells import Alarm, Bell
from .interrupts import Interrupts
from .parents import Parents
from .spool import Recording, SpoolDirectory

FLUSH_CHARS = 64 * 1024
"""Characters of one stream that are passed on without the usual delay."""
FULL_CHARS = 1024 * 1024
"""Pending characters at which producers wait: bounds memory, and is the back-pressure for floods."""
FLUSH_DELAY_S = 0.15
"""Age of buffered text at which it is passed on. ipykernel takes 0.2 s; ours has a way to go."""
SETTLE_S = 0.2
"""How long a ``flush()`` waits for its text to be written, which takes some 0.1 ms."""
STREAM_CHARS = 64 * 1024
CHUNK_CHARS = 192 * 1024
"""Text per chunk of the interpreter; with escaping it stays well under its limit of 1 MiB."""
WINDOW_BYTES = 24 * 1024 * 1024
WINDOW_CHUNKS = 600
"""Most that may be on its way without the kernel's acknowledgement. The daemon queues 1024 chunks and cuts
off a
client that has more waiting (v0.190.0); what is in the window always fits."""
ACK_PATIENCE_S = 15.0
"""Without an acknowledgement for so long, the kernel is gone: the cell goes on, and its output is spooled
only.
"""
IDLE_CHARS = 16 * 1024 * 1024
"""Most text kept from background threads while no execution runs; then the oldest goes."""


Key = tuple[str, str]
"""Text is kept apart by stream and by the request that it belongs to (empty: the one that is served)."""


class StreamBuffer:
    """Text of one stream that waits to be passed on. Appending needs no lock and may be cut off anywhere."""

    def __init__(self, outbox: Outbox, key: Key) -> None:
        self._outbox = outbox
        self._key = key
        self._texts: deque[str] = deque()
        self._chars = 0
        self._lock = threading.RLock()
        self._moving = False
        """Whether text has been taken out, and is not among the outbox's entries yet."""
        self.due = 0.0

    def write(self, text: str) -> None:
        """Add ``text``."""
        self._texts.append(text)
        self._chars += len(text)
        if not self.due:
            with self._outbox.interrupts.hold():
                self.due = time.monotonic() + FLUSH_DELAY_S
                self._outbox.wake()
        if self._chars >= FLUSH_CHARS:
            self.flush()
            self._outbox.press()

    def flush(self) -> None:
        """Pass everything on to the outbox as one entry.

        What another thread is passing on just now is waited for: whatever the caller adds comes after it.
        """
        if not self._texts and not self._moving:
            return
        with self._outbox.interrupts.hold(), self._lock:
            self._moving = True
            self.due = 0.0
            texts = []
            # A signal handler that prints in here has its own flush() in the middle of this one.
            with suppress(IndexError):
                while self._texts:
                    texts.append(self._texts.popleft())
            self._chars = 0
            if text := "".join(texts):
                self._outbox.pending_chars += len(text)
                self._outbox.entries.append((self._key, text))
            self._moving = False


class _Track:
    """The lines of one execution: how many there are, and where they are kept."""

    def __init__(self, directory: SpoolDirectory, execution_id: str) -> None:
        self.id = execution_id
        self.number = 0
        self.recording = Recording(directory, execution_id)


class Outbox:
    """All output of the context.

    Producers may be in any thread, in ``__del__`` methods and in signal handlers: also in the middle of what
    another producer in the same thread does here.
    """

    def __init__(self, protocol_fd: int, interrupts: Interrupts, directory: SpoolDirectory) -> None:
        self.entries: deque[tuple[Key | None, str]] = deque()
        self.pending_chars = 0
        self.compress_over_chars = wire.NO_COMPRESSION
        self._protocol_fd = protocol_fd
        self.interrupts = interrupts
        self.on_broken: Callable[[OSError], None] = lambda exc: None
        """Called when nothing can be written any more: nobody would ever hear of this context again."""
        self.before_message: Callable[[], None] = lambda: None
        """Called before a message that comes after all text so far, to fetch what is on its way as text."""
        self._directory = directory
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._track: _Track | None = None
        self._cell: _Track | None = None
        self._cell_before: _Track | None = None
        self._old: list[_Track] = []
        self._live = False
        self.parents = Parents()
        self._buffers = {key: StreamBuffer(self, key) for key in (("stdout", ""), ("stderr", ""))}
        self._wanted, self._space, self._idle = Alarm(), Bell(), Bell()
        self._sent: deque[tuple[int, int]] = deque()  # (line number after the chunk, bytes) not acknowledged
        self._sent_bytes = 0
        self._detached = False
        self._flusher = threading.Thread(target=self._flush_forever, name="daytona-outbox", daemon=True)
        self._flusher.start()

    # -- producers ---------------------------------------------------------------------------------

    def buffer(self, name: str, parent: str = "") -> StreamBuffer:
        """Where the text of the stream ``name`` (``stdout`` or ``stderr``) goes.

        ``parent``: the message id of the request that it belongs to, if that is not the one that is served.
        """
        key = (name, parent)
        found = self._buffers.get(key)
        if found is None:
            found = self._buffers.setdefault(key, StreamBuffer(self, key))
        return found

    def flush_streams(self) -> None:
        """Pass on what is buffered: standard output first."""
        for buffer in [*self._buffers.values()]:
            buffer.flush()

    def post(
        self,
        type: str,
        content: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        buffers: tuple[bytes, ...] = (),
        *,
        flush: bool = True,
    ) -> None:
        """Add a message, with ``flush`` after all text so far. It goes out at once.

        Raises :class:`ValueError` for what no JSON can be made of, in the caller's own code.
        """
        body = wire.encode_body(type, content, metadata or {}, buffers, self.parents.other_id())
        if flush:
            self.before_message()
            self.flush_streams()
        with self.interrupts.hold():
            self.pending_chars += len(body)
            self.entries.append((None, body))
        self.press()

    def wake(self) -> None:
        """Have the flusher look at the clock: text has begun to wait."""
        self._wanted.set()

    def hurry(self) -> None:
        """Have what was passed on written now, and wait for it a little: the process may die next."""
        if not (self._live and self.entries and self._waits()):
            self._wanted.set()
            return
        with self.interrupts.hold():
            ringing = self._idle.listen()
            self._wanted.set()
            ringing.wait(SETTLE_S)

    def press(self) -> None:
        """Have what was passed on written now; wait if there is too much of it."""
        self.wake()
        while self.pending_chars >= FULL_CHARS and self._live and self._waits():
            with self.interrupts.hold():
                ringing = self._space.listen()
                if self.pending_chars >= FULL_CHARS:
                    ringing.wait(0.1)

    def _waits(self) -> bool:
        """Whether somebody else writes: not in the flusher itself, and in a forked child there is none."""
        return threading.current_thread() is not self._flusher and os.getpid() == self._pid

    def forget_in_child(self) -> None:
        """In a forked child: locks may be held by threads that are not here."""
        self._lock = threading.Lock()
        self._buffers = {key: StreamBuffer(self, key) for key in (("stdout", ""), ("stderr", ""))}

    # -- executions --------------------------------------------------------------------------------

    def begin(self, execution_id: str, *, cell: bool = True, late_from: int | None = None) -> None:
        """From now on, output belongs to this execution.

        What came between executions belongs to the last cell, and goes out first: its lines from
        ``late_from`` on, the first that the kernel does not have. A request that is no ``cell`` only
        interrupts the cell's time. The recording of the cell before is kept until the cell after this one:
        what has just been sent of it may be lost with the socket.
        """
        self.flush_streams()
        with self.interrupts.hold(), self._lock:
            self._drain()
            for track in self._old:
                track.recording.discard()
            self._old.clear()
            if self._cell is not None:
                if late_from is not None and self._cell.number > late_from:
                    self._resend(self._cell, late_from)
                if cell:
                    if self._cell_before is not None:
                        self._cell_before.recording.discard()
                    self._cell_before = self._cell
                    self._cell_before.recording.close()
            self._track = _Track(self._directory, execution_id)
            if cell:
                self._cell = self._track
            self._sent.clear()
            self._sent_bytes = 0
            self._detached = False
            self._live = True

    def end(self) -> None:
        """The execution is over: output from now on is late output of the last cell, and only recorded."""
        with self.interrupts.hold(), self._lock:
            self._live = False
            if self._track is not self._cell and self._track is not None:
                self._old.append(self._track)
                self._track = self._cell

    def resend(self, number: int, late_from: int | None = None) -> None:
        """Send the lines of the last execution again, from ``number`` on: its client lost the connection.

        With it may have gone what came before them, as in :meth:`begin`.
        """
        with self.interrupts.hold(), self._lock:
            track = self._old[-1] if self._old else self._track
            if track is not None:
                late = self._cell_before if track is self._cell else self._cell
                if late is not None and late_from is not None:
                    self._resend(late, late_from)
                self._resend(track, number)

    def position(self) -> tuple[int, int]:
        """Segment and byte at which the last cell's recording ends just now."""
        return self._cell.recording.position() if self._cell is not None else (0, 0)

    def flush(self) -> None:
        """Write out all that is pending. Does nothing before the first execution, or in a forked child."""
        if os.getpid() != self._pid:
            return
        self.flush_streams()
        self._write_out()

    def _write_out(self) -> None:
        with self.interrupts.hold():
            with self._lock:
                self._drain()
            self._space.ring()

    def write_protocol(self, data: bytes) -> None:
        """Write the worker's own protocol lines, never in the middle of one of ours."""
        with self.interrupts.hold(), self._lock:
            self._write_all(data)

    # -- below: with the lock held -----------------------------------------------------------------

    def _drain(self) -> None:
        track = self._track
        if track is None:
            self._drop_excess()
            return
        lines: list[str] = []
        chars = 0
        first = track.number
        for body in self._bodies():
            for line in wire.encode_lines(track.id, body, track.number, self.compress_over_chars):
                if lines and chars + len(line) > CHUNK_CHARS:
                    self._send(track, first, lines)
                    lines, chars, first = [], 0, track.number
                lines.append(line)
                chars += len(line)
                track.number += 1
        if lines:
            self._send(track, first, lines)

    def _bodies(self) -> Iterator[str]:
        """Yield the pending messages as JSON, neighbouring text of one stream joined and long text cut."""
        entries = self.entries
        key: Key | None = None
        texts: list[str] = []
        chars = 0
        while True:
            entry = entries.popleft() if entries else None
            if texts and (entry is None or entry[0] != key or chars >= STREAM_CHARS):
                yield from _stream_bodies(key, "".join(texts))
                texts, chars = [], 0
            if entry is None:
                return
            key, text = entry
            self.pending_chars -= len(text)
            if key is None:
                yield text
            else:
                texts.append(text)
                chars += len(text)

    def _send(self, track: _Track, first: int, lines: list[str]) -> None:
        text = "".join(lines)
        track.recording.append(first, text.encode("ascii"))
        if not self._live:
            track.recording.shrink()
            return
        chunk = wire.dumps({"type": "stdout", "text": text})
        self._await_window(track)
        self._sent.append((first + len(lines), len(chunk)))
        self._sent_bytes += len(chunk)
        self._write_all(chunk.encode("ascii") + b"\n")

    def _resend(self, track: _Track, number: int) -> None:
        lines: list[str] = []
        for line in track.recording.read(number):
            if lines and sum(map(len, lines)) + len(line) > CHUNK_CHARS:
                self._write_chunk(lines)
                lines = []
            lines.append(line)
        if lines:
            self._write_chunk(lines)

    def _write_chunk(self, lines: list[str]) -> None:
        self._write_all(wire.dumps({"type": "stdout", "text": "".join(lines)}).encode("ascii") + b"\n")

    def _await_window(self, track: _Track) -> None:
        if self._sent_bytes < WINDOW_BYTES and len(self._sent) < WINDOW_CHUNKS:
            return
        give_up_at = time.monotonic() + ACK_PATIENCE_S
        while True:
            self._take_acknowledgement(track)
            if self._sent_bytes < WINDOW_BYTES // 2 and len(self._sent) < WINDOW_CHUNKS // 2:
                self._detached = False
                return
            if self._detached or self.interrupts.pending:
                track.recording.shrink()
                return
            if time.monotonic() > give_up_at:
                self._detached = True
            else:
                time.sleep(0.005)

    def _take_acknowledgement(self, track: _Track) -> None:
        number = track.recording.acknowledged()
        while self._sent and self._sent[0][0] <= number:
            self._sent_bytes -= self._sent.popleft()[1]
        track.recording.trim(number)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._protocol_fd, view) :]
        except OSError as exc:
            self.on_broken(exc)
            raise

    def _drop_excess(self) -> None:
        while self.pending_chars > IDLE_CHARS and self.entries:
            self.pending_chars -= len(self.entries.popleft()[1])

    def _flush_forever(self) -> None:
        while True:
            try:
                self._flush_once()
            except Exception:  # user code may have taken anything away, and may bring it back
                time.sleep(FLUSH_DELAY_S)

    def _flush_once(self) -> None:
        buffers = [*self._buffers.values()]
        due = min((buffer.due for buffer in buffers if buffer.due), default=0.0)
        self._wanted.wait(max(0.0, due - time.monotonic()) if due else None)
        now = time.monotonic()
        for buffer in buffers:
            if buffer.due and buffer.due <= now:
                buffer.flush()
        if self.entries:
            self._write_out()
        if not self.entries:
            self._idle.ring()


def _stream_bodies(key: Key | None, text: str) -> Iterator[str]:
    name, parent = key or ("", "")
    for start in range(0, len(text), STREAM_CHARS):
        content = {"name": name, "text": text[start : start + STREAM_CHARS]}
        yield wire.encode_body("stream", content, {}, (), parent)
