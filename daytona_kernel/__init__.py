"""daytona-kernel: notebook cells that run in a Daytona sandbox."""

from ._version import __version__

__all__ = ["__version__"]
