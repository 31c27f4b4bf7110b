"""Facts about the sandbox: version and directories (``/version``, ``/work-dir``, ...)."""

from __future__ import annotations

from aiohttp import web

from .settings import SETTINGS


async def version(request: web.Request) -> web.Response:
    """Tell the version of the daemon whose behaviour this one follows."""
    return web.json_response({"version": request.app[SETTINGS].version})


async def work_dir(request: web.Request) -> web.Response:
    """Tell the directory against which relative paths resolve."""
    return web.json_response({"dir": request.app[SETTINGS].work_dir})


async def home_dir(request: web.Request) -> web.Response:
    """Tell the home directory of the sandbox's user."""
    return web.json_response({"dir": request.app[SETTINGS].home_dir})


def setup(app: web.Application) -> None:
    """Add the routes."""
    app.router.add_get("/version", version)
    app.router.add_get("/work-dir", work_dir)
    app.router.add_get("/user-home-dir", home_dir)
    app.router.add_get("/project-dir", home_dir)
