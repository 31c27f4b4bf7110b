"""One WebSocket to the interpreter, and whether anything still comes from it.

Kept apart from the link so that the link can be imported without ``websockets``, which takes its time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidProxy, InvalidStatus
from websockets.protocol import State

from .controlplane import GATEWAY
from .errors import ConnectionFailed
from .proxies import proxy_for
from .toolbox import Endpoint

PATH = "/process/interpreter/execute"
OPEN_TIMEOUT_S = 10.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The daemon's frames are at most about 6 MiB: 1 MiB of worker line, escaped (v0.190.0)."""

TCP_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds without traffic until the first probe, seconds between probes, and how many may stay unanswered."""

_quiet = logging.getLogger(f"{__name__}.frames")
_quiet.setLevel(logging.INFO)  # below that, it writes the key and the cells' code into the log


PASSING = (401, 429, *GATEWAY)
"""Of the proxy before the sandbox: it is restarted, has its fill, wakes the sandbox, or could not ask whose
key this is (which it tells as 401). What stays refused is told by 400 and 404 (v0.190.0)."""


class Refused(ConnectionFailed):
    """Somebody answered, and it was no WebSocket. ``passing``: it may be one in a moment."""

    hint = "It may have stopped a moment ago, or not be quite there yet: run the cell again."
    internal = True
    passing = False


class Channel(ClientConnection):
    """A connection that tells when bytes have come: on a slow line, long before the message they are of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.spoke = asyncio.Event()
        """Set by anything that comes; whoever waits for it clears it first."""

    def data_received(self, data: bytes) -> None:
        """Note that the peer is there, and go on."""
        self.spoke.set()
        super().data_received(data)

    @property
    def is_open(self) -> bool:
        """Whether it is open as far as anybody here knows."""
        return self.state is State.OPEN

    async def is_silent(self, within_s: float) -> bool:
        """Send a ping; whether neither its answer nor anything else comes within that time.

        Raises :class:`websockets.exceptions.ConnectionClosed` if it is closed.
        """
        self.spoke.clear()
        # Its task may wait: the way out can be blocked. Without words of ours websockets draws some from
        # `random`, whose state belongs to whoever seeded it: in plain IPython that is the person.
        ping = asyncio.ensure_future(self.ping(secrets.token_bytes(4)))
        heard = asyncio.ensure_future(self.spoke.wait())
        try:
            await asyncio.wait({heard}, timeout=within_s)
            if ping.done():
                ping.result()
            return not heard.done()
        finally:
            for task in (ping, heard):
                task.cancel()
            await asyncio.gather(ping, heard, return_exceptions=True)


class _Straight(connect):
    """Connects where it was told to: whoever else a redirection names gets neither the key nor the cells."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Take a redirection as the refusal that it is."""
        return exc


async def open_channel(endpoint: Endpoint) -> Channel:
    """Open a socket for one execution. Raises :class:`ConnectionFailed`, :class:`Refused` for an answer."""
    headers = {**endpoint.headers, "X-Daytona-Skip-Last-Activity-Update": "true"}
    try:
        connection = await _Straight(
            endpoint.websocket_url + PATH,
            create_connection=Channel,
            logger=_quiet,
            additional_headers=headers,
            open_timeout=OPEN_TIMEOUT_S,
            ping_interval=None,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            proxy=proxy_for(endpoint.websocket_url),
            close_timeout=2,
        )
    except InvalidStatus as exc:
        status = exc.response.status_code
        refused = Refused(f"The sandbox refused the interpreter's socket with status {status}.")
        refused.passing = status in PASSING
        raise refused from exc
    except InvalidProxy:
        # without its words, which hold the proxy's address with its password
        raise ConnectionFailed("The proxy that the environment names takes no WebSockets.") from None
    except (OSError, TimeoutError, asyncio.TimeoutError, InvalidHandshake, EOFError) as exc:
        raise ConnectionFailed(f"The sandbox's interpreter could not be reached ({exc}).") from exc
    assert isinstance(connection, Channel)
    _keep_alive(connection)
    return connection


def _keep_alive(channel: Channel) -> None:
    """Have the system look after a socket that waits for its cell, perhaps for minutes.

    Its probes keep routers from forgetting the connection, and end one that has been forgotten. They go no
    further than to the next TCP peer: a sandbox that sleeps does not wake up, and does not count as used.
    """
    plain = channel.transport.get_extra_info("socket")
    options = ((name, value) for name, value in TCP_KEEPALIVE.items() if hasattr(socket, name))
    with suppress(OSError, AttributeError):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options:
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
