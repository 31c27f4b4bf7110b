"""The daemon's application: one module per family of endpoints."""

from __future__ import annotations

from aiohttp import web

from . import (
    children,
    code_run,
    downloads,
    files,
    git,
    info,
    interpreter,
    lsp,
    ports,
    process,
    pty_api,
    session_api,
    system,
    uploads,
)
from .desktop import api as desktop
from .errors import error_middleware
from .settings import SETTINGS, SPAWN_ENV, ToolboxSettings

MODULES = (
    children,
    info,
    files,
    downloads,
    uploads,
    process,
    code_run,
    session_api,
    pty_api,
    git,
    lsp,
    ports,
    system,
    desktop,
    interpreter,
)


def create_app(settings: ToolboxSettings) -> web.Application:
    """Build the daemon's application; every module adds its own routes and clean-up."""
    # No limit on bodies: transfers stream, and the sandbox's own user sends the rest.
    app = web.Application(client_max_size=0, middlewares=[error_middleware])
    app[SETTINGS] = settings
    app[SPAWN_ENV] = dict(settings.env)
    for module in MODULES:
        module.setup(app)
    return app
