"""What of an execution's messages is shown: well formed, without known secrets, and harmless if so wished."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from . import trust
from .messages import well_formed
from .redaction import Secrets, StreamRedactor

Content = dict[str, Any]

HOLD_S = 0.25
"""How long a text that ends like the beginning of a secret may wait for what comes next."""


class Publishes(Protocol):
    """Where messages go."""

    def publish(self, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]) -> None:
        """Send a message."""


class Outflow:
    """The output of one execution on its way to the person. Use it on one event loop only.

    ``secrets``: to be taken out, ``None`` for none. ``isolated``: whether rich output is made harmless.
    """

    def __init__(self, secrets: Secrets | None, *, isolated: bool) -> None:
        self._secrets = secrets
        self._isolated = isolated
        self._streams: dict[tuple[int, str], StreamRedactor] = {}
        self._waiting: tuple[StreamRedactor, Callable[[str], None]] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def text(self, sink: Publishes, name: str, text: str) -> None:
        """Publish text of a stream, which may wait a moment if it ends like a secret begins."""
        if not self._secrets:
            _publish_text(sink, name, text)
            return
        stream = self._streams.setdefault((id(sink), name), StreamRedactor(self._secrets))
        if self._waiting is not None and self._waiting[0] is not stream:
            self.flush()
        shown = stream.feed(text)
        if shown:
            _publish_text(sink, name, shown)
        self._disarm()
        if stream.holds:
            self._waiting = stream, lambda text: _publish_text(sink, name, text)
            self._timer = asyncio.get_running_loop().call_later(HOLD_S, self.flush)

    def message(
        self, sink: Publishes, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]
    ) -> bool:
        """Publish a message; whether it was one."""
        shaped = well_formed(type, content)
        if shaped is None:
            return False
        if type == "stream":
            self.text(sink, shaped["name"], shaped["text"])
            return True
        self.flush()
        if self._isolated:
            kept = trust.isolated_message(type, shaped)
            if kept is None:
                return True
            shaped, metadata, buffers = kept, {}, ()
        if self._secrets:
            shaped = self._without_secrets(type, shaped)
        sink.publish(type, shaped, metadata, buffers)
        return True

    def reply(self, kind: str, reply: Content) -> Content:
        """An answer of the agent to a request of this kind."""
        self.flush()
        if self._isolated:
            reply = trust.isolated_reply(reply) if kind == "execute" else trust.isolated_answer(reply)
        return self._secrets.value(reply) if self._secrets and kind == "execute" else reply

    def flush(self) -> None:
        """Publish what waits."""
        waiting = self._waiting
        self._disarm()
        if waiting is not None and (text := waiting[0].flush()):
            waiting[1](text)

    def _disarm(self) -> None:
        self._waiting = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _without_secrets(self, type: str, content: Content) -> Content:
        assert self._secrets is not None
        if type in trust.DISPLAYS:
            return {**content, "data": self._secrets.bundle(content["data"])}
        return {name: self._secrets.value(item) for name, item in content.items()}


def _publish_text(sink: Publishes, name: str, text: str) -> None:
    sink.publish("stream", {"name": name, "text": text}, {}, ())
