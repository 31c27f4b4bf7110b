"""Where a request's output leaves the kernel: IOPub messages, and questions on the stdin channel."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import zmq

from .messages import clean_text, cleaned

if TYPE_CHECKING:
    from .kernel import DaytonaKernel

Content = dict[str, Any]

STDIN_POLL_MS = 50


class KernelSink:
    """Publishes one request's output with that request's parent header, from the session's thread."""

    def __init__(
        self,
        kernel: DaytonaKernel,
        *,
        silent: bool = False,
        attended: bool = False,
        request: tuple[Content, Any] | None = None,
    ) -> None:
        """``attended``: whether a person is likely to be there to read a status line.

        ``request``: the message and its routing prefixes, if it is not the one that the kernel serves.
        """
        self._kernel = kernel
        # Annotated as bytes there, but it is the list of a message's routing prefixes.
        self._ident: Any
        if request is None:
            self._ident = kernel._get_shell_context_var(kernel._shell_parent_ident)
            self.parent: Content = sendable(kernel.get_parent("shell"), self._ident)
        else:
            self._ident, self.parent = request[1], sendable(*request)
        self.silent = silent
        self._attended = attended and not silent and not kernel.settings.headless
        self._status_shown = False

    @property
    def attended(self) -> bool:
        """Whether a person is likely to be there to read what is only for them."""
        return self._attended

    def publish(self, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]) -> None:
        """Send an IOPub message."""
        kernel = self._kernel
        if kernel.session is None:
            return
        topic = f"stream.{content.get('name')}" if type == "stream" else f"kernel.{kernel.ident}.{type}"
        kernel.session.send(
            kernel.iopub_socket,
            type,
            cleaned(content),
            parent=self.parent,
            ident=topic.encode(),
            metadata=cleaned(metadata) or None,
            buffers=list(buffers) or None,
        )

    def status(self, text: str | None) -> None:
        """Show what the cell waits for, and remove it without a trace before its first output.

        Not all programs that run notebooks know ``clear_output`` (nbval does not), and nobody watches them.
        """
        if not self._attended:
            return
        if text is None:
            self.publish("clear_output", {"wait": False}, {}, ())
        else:
            if self._status_shown:
                self.publish("clear_output", {"wait": True}, {}, ())
            self._status_shown = True
            data = {"data": {"text/plain": text}, "metadata": {}, "transient": {}}
            self.publish("display_data", data, {}, ())

    def notice(self, text: str) -> None:
        """Tell the person something, as a line of stderr."""
        self.publish("stream", {"name": "stderr", "text": f"[daytona] {text}\n"}, {}, ())

    def ask(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        """Send an ``input_request`` and wait for its reply; earlier, stale replies are thrown away."""
        kernel = self._kernel
        socket = kernel.stdin_socket
        while True:
            try:
                socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
        content = {"prompt": clean_text(prompt), "password": password}
        assert kernel.session is not None
        kernel.session.send(socket, "input_request", content, self.parent, ident=self._ident)
        while not cancelled.is_set():
            if not socket.poll(STDIN_POLL_MS):
                continue
            try:
                _, reply = kernel.session.recv(socket)
                if reply is not None:
                    return str(reply["content"]["value"])
            except Exception:
                kernel.log.warning("an input_reply was not understood", exc_info=True)
        return None


def sendable(message: Content, idents: Any) -> Content:
    """What the sandbox may know of a request: its headers, and who sent it (text of Latin-1)."""
    found: Content = {key: message.get(key, {}) for key in ("header", "parent_header", "metadata")}
    return {**found, "idents": [bytes(ident).decode("latin-1") for ident in idents or ()]}
