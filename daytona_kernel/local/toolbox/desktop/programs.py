"""The programs that the desktop is made of, and where they come from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping

from ..errors import ToolboxError

PACKAGES = {
    "Xvfb": "xvfb",
    "openbox": "openbox",
    "x11vnc": "x11vnc",
    "websockify": "websockify",
    "noVNC": "novnc",
    "xdotool": "xdotool",
    "xprop": "x11-utils",
    "xwininfo": "x11-utils",
    "scrot": "scrot",
    "convert": "imagemagick",
    "ffmpeg": "ffmpeg",
}
"""Program -> Debian package."""

WINDOW_MANAGERS = ("openbox", "xfwm4", "fluxbox", "icewm", "twm")
"""Window managers that will do; the first that is there is used."""
NOVNC_DIRECTORIES = ("/usr/share/novnc", "/usr/share/webapps/novnc", "/opt/novnc", "/opt/noVNC")


def find(name: str, env: Mapping[str, str]) -> str | None:
    """Find a program (or noVNC's directory), on the PATH or in the system's places; ``None`` if missing."""
    if name == "noVNC":
        return next((path for path in NOVNC_DIRECTORIES if os.path.isfile(f"{path}/vnc.html")), None)
    path = f"{env.get('PATH', os.defpath)}:/usr/local/bin:/usr/bin:/bin"
    return shutil.which(name, path=path)


def need(names: Iterable[str], env: Mapping[str, str], *, code: str | None = None) -> dict[str, str]:
    """Find several programs.

    :raises ToolboxError: 503 naming all that are missing, with the command that installs them on Debian.
    """
    found = {name: find(name, env) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        packages = " ".join(sorted({PACKAGES.get(name, name) for name in missing}))
        raise ToolboxError(
            503,
            f"computer use needs programs that are not installed here: {', '.join(missing)}. "
            f"On Debian or Ubuntu: apt-get install {packages}",
            code,
        )
    return {name: path for name, path in found.items() if path is not None}


def find_window_manager(env: Mapping[str, str]) -> str:
    """Find a window manager.

    :raises ToolboxError: 503 if there is none.
    """
    for name in WINDOW_MANAGERS:
        if path := find(name, env):
            return path
    return need(["openbox"], env)["openbox"]
