"""The daemon's application: one module per family of endpoints."""

from __future__ import annotations

from aiohttp import web

from . import interpreter
from .settings import SETTINGS, SPAWN_ENV, ToolboxSettings


def create_app(settings: ToolboxSettings) -> web.Application:
    """Build the daemon's application; every module adds its own routes and clean-up."""
    app = web.Application(client_max_size=0)
    app[SETTINGS] = settings
    app[SPAWN_ENV] = dict(settings.env)
    interpreter.setup(app)
    return app
