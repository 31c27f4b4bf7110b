"""One-off commands (``/process/execute``)."""

from __future__ import annotations

import os

from aiohttp import web

from .children import CHILDREN
from .errors import ToolboxError
from .fields import Fields, body_fields
from .settings import SETTINGS, SPAWN_ENV
from .shell import find_shell, run

MAX_TIMEOUT_SECONDS = 2**32 - 1


def timeout_field(fields: Fields) -> float | None:
    """Read ``timeout``: whole seconds, absent or 0 for none (observed on v0.190.0)."""
    return fields.integer("timeout", 0, low=0, high=MAX_TIMEOUT_SECONDS) or None


async def execute(request: web.Request) -> web.Response:
    """Run a command in a fresh shell and answer with its exit code and combined output.

    The shell reads the command from its standard input, as in the real daemon: a program that reads stdin
    eats the rest of the script.
    """
    fields = await body_fields(request)
    command = fields.text("command")
    if not command.strip():
        raise ToolboxError(400, "command must not be blank", "INVALID_REQUEST_BODY")
    env = request.app[SPAWN_ENV] | fields.environment("envs")
    cwd = os.path.join(request.app[SETTINGS].work_dir, fields.text("cwd", ""))
    outcome = await run(
        request.app[CHILDREN],
        [find_shell(env)],
        env=env,
        cwd=cwd,
        stdin=command.encode("utf-8", "replace") + b"\n",
        timeout_seconds=timeout_field(fields),
    )
    return web.json_response({"exitCode": outcome.exit_code, "result": outcome.text})


def setup(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_post("/process/execute", execute)
