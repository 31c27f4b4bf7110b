"""Stateful Python contexts over WebSocket (``/process/interpreter``)."""

from __future__ import annotations

from aiohttp import web


def setup(app: web.Application) -> None:
    """Add the interpreter's routes and clean-up."""
