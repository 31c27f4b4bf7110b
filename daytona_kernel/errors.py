"""The errors of daytona-kernel. "The sandbox failed" is never shown as "your code failed".

::

    DaytonaKernelError                  root: has a hint that says what to do next
    ├── ConfigurationError              a setting that can not be right
    │   └── CredentialsError            a key that is missing or refused
    ├── ConnectionFailed                the service could not be reached; nothing was run
    ├── SandboxError                    something is the matter with the sandbox
    │   ├── SandboxNotFound             there is none of that name
    │   ├── SandboxCreationFailed       it could not be made (snapshot, quota, time)
    │   ├── SandboxStartFailed          it is there but does not start
    │   ├── SandboxGone                 it was deleted, stopped or failed while in use
    │   ├── SandboxProcessDied          the Python process of the cell is dead; variables are lost
    │   └── SandboxProtocolError        the interpreter there does not behave as expected
    └── ExecutionUnknown                contact was lost: whether the cell ran, or how it ended, is not known

Names of these classes are the ``ename`` of the cells that meet them (:func:`public_name`).
"""

from __future__ import annotations

from .terminal import spelled


class DaytonaKernelError(Exception):
    """Root of the tree.

    ``str()`` is the sentence for the user: what happened, to what, and what to do next.
    """

    hint = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        message = spelled(message)  # it may quote the sandbox, and goes to logs and terminals
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


def public_name(exc: BaseException) -> str:
    """The ``ename`` of a cell that ends with this error.

    Classes with an attribute ``internal`` of their own are finer than what a person, or the exit code of a
    run, has a use for: they have the name of what they are a kind of.
    """
    return next(cls.__name__ for cls in type(exc).__mro__ if "internal" not in vars(cls))


class ConfigurationError(DaytonaKernelError):
    """A setting that can not be right; found before anything is called."""


class CredentialsError(ConfigurationError):
    """No credentials, or the service refuses them."""

    hint = "Set DAYTONA_API_KEY to a valid key, or unset it to use the embedded local sandbox."


class ConnectionFailed(DaytonaKernelError):
    """The service could not be reached. Nothing was run."""

    hint = "Check DAYTONA_API_URL and the network, then run the cell again."


class SandboxError(DaytonaKernelError):
    """Something is the matter with the sandbox, not with the code of the cell."""


class SandboxNotFound(SandboxError):
    """There is no sandbox of the name or id that the user gave."""

    hint = "Check the name, or remove the setting to get a new sandbox."


class SandboxCreationFailed(SandboxError):
    """A sandbox could not be made."""


class SandboxStartFailed(SandboxError):
    """A sandbox is there but could not be started."""


class SandboxGone(SandboxError):
    """The sandbox was deleted, stopped or failed while it was in use."""

    hint = "Run the cell again: the sandbox is started or replaced then. Variables are lost."


class SandboxProcessDied(SandboxError):
    """The Python process that ran the cell is dead."""

    hint = "Variables are lost; the next cell starts with a new process in the same sandbox."


class SandboxProtocolError(SandboxError):
    """The interpreter in the sandbox does not behave as this version expects."""


class ExecutionUnknown(DaytonaKernelError):
    """Contact with the sandbox was lost: whether the cell ran, or how it ended, is not known."""

    hint = "It was not sent again. Look at the sandbox's files and variables before you run the cell again."
