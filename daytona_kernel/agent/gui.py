"""The event loops of ``%gui`` and ``%matplotlib``: those that need no window, named as ipykernel does."""

from __future__ import annotations

import importlib.util
import os

from IPython.core.error import UsageError

NEEDS_WINDOWS = {
    "inline": False,
    "nbagg": False,
    "webagg": False,
    "notebook": False,
    "ipympl": False,
    "widget": False,
    None: False,
    "qt": True,
    "qt5": True,
    "qt6": True,
    "wx": True,
    "tk": True,
    "gtk": True,
    "gtk3": True,
    "osx": True,
    "macosx": True,
    # The loop that runs already.
    "asyncio": False,
}
"""The names that ipykernel 7 knows, in its order: its error message lists them."""

QT_BINDINGS = {"qt5": ("PyQt5", "PySide2"), "qt6": ("PyQt6", "PySide6")}


def check(gui: str | None) -> None:
    """Refuse what a kernel would refuse, and what needs a window.

    ``ImportError``: there is no Qt, in IPython's words. ``UsageError``: no such loop, or none in a sandbox.
    """
    if gui not in NEEDS_WINDOWS:
        raise UsageError(f"Invalid GUI request {gui!r}, valid ones are:{NEEDS_WINDOWS.keys()}")
    if gui is None or not NEEDS_WINDOWS[gui]:
        return
    if gui.startswith("qt"):
        _import_qt(gui)
    raise UsageError(f"GUI event loops are not available in a sandbox (asked for {gui!r}).")


def _import_qt(gui: str) -> None:
    """Import the binding that ``gui`` stands for, the way IPython chooses it: by ``QT_API``."""
    os.environ.pop("QT_API", None)
    bindings = QT_BINDINGS.get(gui)
    if bindings:
        installed = [name for name in bindings if importlib.util.find_spec(name)]
        os.environ["QT_API"] = (installed or bindings)[0].lower()
    import IPython.external.qt_for_kernel  # noqa: F401
