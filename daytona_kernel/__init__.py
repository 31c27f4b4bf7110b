"""daytona-kernel: notebook cells that run in a Daytona sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["__version__", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(ipython: InteractiveShell) -> None:
    """``%load_ext daytona_kernel``: add ``%daytona`` to an IPython shell."""
    from .extension import load

    load(ipython)


def unload_ipython_extension(ipython: InteractiveShell) -> None:
    """``%unload_ext daytona_kernel``: take it away and end the sandbox's session."""
    from .extension import unload

    unload(ipython)
