"""``python -m daytona_kernel.local.toolbox --fd N | --port N``: run the daemon of one sandbox.

The settings (:class:`~.settings.ToolboxSettings` as one line of JSON) come on standard input, which is
replaced by ``/dev/null`` afterwards. A line ``ready`` (with ``--port``: ``ready PORT``) on standard output
says that the daemon listens. SIGTERM ends it, and every process that it started, in less than a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys

from aiohttp import web

from .app import create_app
from .children import own_process
from .settings import ToolboxSettings

log = logging.getLogger(__name__)

HEADER_LIMIT = 512 * 1024
"""Bytes per header and request line: long paths travel in the query, PTY environments in a header."""
SHUTDOWN_GRACE_SECONDS = 0.2


def read_settings() -> ToolboxSettings:
    """Take the settings from standard input and point that at ``/dev/null``.

    :raises ValueError: if the line is no JSON object or lacks a field.
    """
    line = sys.stdin.readline()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    data = json.loads(line)
    if not isinstance(data, dict):
        raise ValueError("the settings must be a JSON object")
    return ToolboxSettings.from_json(data)


def listening_socket(fd: int | None, port: int | None) -> socket.socket:
    """Take over the inherited listening socket, or listen on loopback."""
    if fd is not None:
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)  # it was inheritable only to get here; user processes must not have it
        return sock
    return socket.create_server(("127.0.0.1", port or 0))


async def serve(settings: ToolboxSettings, sock: socket.socket) -> None:
    """Serve on ``sock`` until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = create_app(settings)
    own_process(app)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=SHUTDOWN_GRACE_SECONDS,
        max_line_size=HEADER_LIMIT,
        max_field_size=HEADER_LIMIT,
        read_bufsize=256 * 1024,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, sock, backlog=1024).start()
        print("ready" if sock.family == socket.AF_UNIX else f"ready {sock.getsockname()[1]}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


def main() -> int:
    """Run the daemon; the exit code is 2 for settings that cannot be read."""
    parser = argparse.ArgumentParser(prog="daytona-toolbox", description="Daemon of one local sandbox.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="inherited descriptor of a listening socket")
    where.add_argument("--port", type=int, help="TCP port on loopback; 0 picks a free one")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = read_settings()
    except ValueError as exc:
        print(f"daytona-toolbox: bad settings: {exc}", file=sys.stderr)
        return 2
    os.umask(0o022)  # files that the API makes are 0644, directories 0755, whatever the server's own umask
    asyncio.run(serve(settings, listening_socket(options.fd, options.port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
