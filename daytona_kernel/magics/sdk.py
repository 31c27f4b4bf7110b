"""The SDK's words and errors in ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..controlplane import GATEWAY
from ..errors import DaytonaKernelError
from ..translation import one_line, translate
from .host import CommandFailed


@contextmanager
def translated(what: str = "") -> Iterator[None]:
    """Turn the SDK's errors into ours. ``what`` begins the sentence of one that the request itself caused."""
    try:
        yield
    except DaytonaKernelError:
        raise
    except Exception as exc:
        raise explain(exc, what) from exc


def explain(exc: Exception, what: str = "") -> DaytonaKernelError:
    """Our error for one of the SDK's."""
    status = getattr(exc, "status_code", None) or getattr(exc, "status", None)
    text = one_line(exc)
    lead = f"{what}: " if what else ""
    if status in (400, 404, 408, 409, 410, 422):
        return CommandFailed(f"{lead}{text}")
    if status in GATEWAY:  # the SDK takes 504 for the command's own time
        return translate(exc)
    if type(exc).__name__ == "DaytonaTimeoutError" or isinstance(exc, (TimeoutError, asyncio.TimeoutError)):
        return CommandFailed(
            f"{lead}not done in time ({text}).", hint="Allow more with --timeout, where there is one."
        )
    if status == 401 and lead and "git" in what.lower():
        return CommandFailed(f"{lead}{text}")
    return translate(exc)


def state_text(state: Any) -> str:
    """A state's text, whether it came as an enum or as a string."""
    return str(getattr(state, "value", state) or "")
