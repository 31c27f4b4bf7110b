"""``get_ipython().kernel.session``, as far as a kernel's session makes sense in a sandbox: ``send``."""

from __future__ import annotations

from typing import Any

from .outbox import Outbox


class Session:
    """Sends messages with the name and the arguments of jupyter_client's ``Session.send``.

    The kernel publishes what a cell may publish (displays, results, streams, errors, comms) as the output
    of the cell that runs, and nothing else.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def send(  # noqa: PLR0917 - the signature is that of jupyter_client
        self,
        stream: Any,
        msg_or_type: dict[str, Any] | str,
        content: dict[str, Any] | None = None,
        parent: dict[str, Any] | None = None,
        ident: Any = None,
        buffers: Any = None,
        track: bool = False,
        header: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send a message, unless ``stream`` is ``None``, and return it. There is one way out of the sandbox.

        Raises :class:`TypeError` for what is neither a message nor a type, :class:`ValueError` for no JSON.
        """
        if isinstance(msg_or_type, dict):
            message = msg_or_type
        elif isinstance(msg_or_type, str):
            message = {
                "header": {"msg_type": msg_or_type, **(header or {})},
                "msg_type": msg_or_type,
                "parent_header": parent or {},
                "content": content or {},
                "metadata": metadata or {},
            }
        else:
            raise TypeError(f"msg_or_type must be of type dict or str, not {type(msg_or_type).__name__}")
        if stream is None:
            return message
        packed = tuple(bytes(memoryview(buffer).cast("B")) for buffer in buffers or ())
        self._outbox.post(message["msg_type"], message["content"], message.get("metadata"), packed)
        return message
