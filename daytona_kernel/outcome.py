"""How the run of a notebook ended, and whose fault that was: the notebook's, or the sandbox's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from . import errors

EXIT_OK = 0
EXIT_CELL_FAILED = 1
EXIT_USAGE = 2
EXIT_INFRASTRUCTURE = 3
EXIT_INTERRUPTED = 130

# How errors of the SDK and of the local side are named, as opposed to those of the notebook's own code;
# besides the names in errors.py.
_INFRASTRUCTURE_PREFIXES = ("Sandbox", "Daytona")
# A second try meets the same: the settings are wrong, or what the cell did ended its process.
_NOT_WORTH_A_RETRY = (errors.ConfigurationError, errors.SandboxNotFound, errors.SandboxProcessDied)


@dataclass
class Outcome:
    """How a run ended: the exit code, and what to tell the person (``message`` is empty after success)."""

    code: int = EXIT_OK
    message: str = ""
    traceback: list[str] = field(default_factory=list)
    tolerated_errors: int = 0
    cell: int = 0
    """The code cell (from 1) in which it ended; 0: before the first, or all ran."""
    ename: str = ""
    evalue: str = ""
    retryable: bool = False
    """Whether the sandbox, or the way to it, failed and not the code: another try may go well."""

    @property
    def status(self) -> str:
        """``ok``, ``failed`` (the code), ``error`` (the sandbox or the kernel) or ``stopped``."""
        names = {EXIT_OK: "ok", EXIT_CELL_FAILED: "failed", EXIT_USAGE: "error", EXIT_INFRASTRUCTURE: "error"}
        return names.get(self.code, "stopped")


def is_infrastructure(ename: str) -> bool:
    """Tell whether an error of this name is the sandbox's (or the way to it), not that of the notebook's
    code.
    """
    return ename.startswith(_INFRASTRUCTURE_PREFIXES) or _of_our_tree(ename) is not None


def is_retryable(ename: str) -> bool:
    """Tell whether an error of this name may not happen again in a new sandbox.

    Only errors of our own tree. A process that died is not among them: what the code did (ran out of memory,
    crashed, ended it) is what ends processes, and failed code is not run again.
    """
    found = _of_our_tree(ename)
    return found is not None and not issubclass(found, _NOT_WORTH_A_RETRY)


def _of_our_tree(ename: str) -> type[errors.DaytonaKernelError] | None:
    found = getattr(errors, ename, None)
    if isinstance(found, type) and issubclass(found, errors.DaytonaKernelError):
        return found
    return None


def combined_code(codes: Sequence[int]) -> int:
    """The exit code of several runs: stopped by the user; a notebook failed; the sandbox failed; all well.

    A failed notebook weighs more than a failed sandbox: it fails the next time, too.
    """
    stopped = [code for code in codes if code > EXIT_INFRASTRUCTURE]
    if stopped:
        return stopped[0]
    for code in (EXIT_CELL_FAILED, EXIT_INFRASTRUCTURE, EXIT_USAGE):
        if code in codes:
            return code
    return EXIT_OK
