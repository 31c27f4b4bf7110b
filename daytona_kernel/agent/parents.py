"""Whose output it is: the request that a task or thread works for.

The rules are ipykernel's (7.4): a task keeps the request that it was created in, since it has a copy of that
context; a thread has none of its own, and follows the request that is being served, unless it is told with
``get_ipython().set_thread_parent``.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any

Message = dict[str, Any]


class Request(Message):
    """A request as the message that it was, which user code may look at, and who sent it."""

    idents: tuple[bytes, ...] = ()


class Parents:
    """The parents of output, by context."""

    def __init__(self) -> None:
        self._here: ContextVar[Message] = ContextVar("parent_header")
        self.served: Message = {}
        """The cell or comm message that is being served, or was last."""
        self._everywhere: Message = {}

    def begin(self, message: Message) -> None:
        """From now on ``message`` is served: output belongs to it wherever nothing else is said."""
        self.served = self._everywhere = message

    def get(self) -> Message:
        """The request that the caller works for."""
        return self._here.get(self._everywhere)

    def set(self, message: Message) -> None:
        """Say what the caller works for, and everybody who has not said anything, until the next request."""
        self._here.set(message)
        self._everywhere = message

    def set_here(self, message: Message) -> Token[Message]:
        """Say what this thread, or this task, works for."""
        return self._here.set(message)

    def reset_here(self, token: Token[Message]) -> None:
        """Undo :meth:`set_here`."""
        self._here.reset(token)

    def other_id(self) -> str:
        """The message id that output must name; empty when it belongs to the request that is served."""
        message = self._here.get(self._everywhere)
        if message is self.served:
            return ""
        own, served = message_id(message), message_id(self.served)
        return own if own != served else ""


def message_id(message: Any) -> str:
    """The id of a message, or of its header alone; empty for what is neither."""
    header = message.get("header", message) if isinstance(message, dict) else {}
    found = header.get("msg_id") if isinstance(header, dict) else None
    return found if isinstance(found, str) else ""
