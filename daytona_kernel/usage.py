"""The sandbox's use of CPU and memory, for Jupyter's ``usage_request``: what the agent does not do itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from .answers import parsed
from .errors import DaytonaKernelError
from .messages import cleaned
from .toolbox import Toolbox

log = logging.getLogger(__name__)

Content = dict[str, Any]

TIMEOUT_S = 10
MAX_SECONDS = 1e12
PROGRAM = Path(__file__).parent / "agent" / "usage.py"


async def ask(toolbox: Toolbox, python: str, pid: int) -> Content:
    """What the process ``pid`` in the sandbox uses, while it is busy; empty if nobody can tell."""
    program = f"{PROGRAM.read_text('utf-8')}\nimport json\nprint(json.dumps(usage({pid})))"
    try:
        status, output = await toolbox.execute(python, "-IS", "-c", program, timeout_s=TIMEOUT_S)
        content = parsed(output) if status == 0 else {}
    except (DaytonaKernelError, ValueError) as exc:
        log.info("the use of CPU and memory is not known: %s", exc)
        return {}
    return content if isinstance(content, dict) else {}


class Usage:
    """Makes the percentage of CPU out of the seconds of two answers."""

    def __init__(self) -> None:
        self._at, self._seconds = 0.0, 0.0

    def reply(self, content: Content) -> Content:
        """The content of a ``usage_reply``. The first one says 0 percent, as psutil does."""
        at, seconds = _seconds(content.get("at")), _seconds(content.get("cpu_seconds"))
        told = {key: value for key, value in content.items() if key not in ("at", "cpu_seconds", "status")}
        reply: Content = cleaned(told)  # what was asked past the agent comes as it is
        if at is not None and seconds is not None:
            elapsed = at - self._at if self._at else 0.0
            used = max(0.0, seconds - self._seconds)
            reply["kernel_cpu"] = round(100.0 * used / elapsed, 1) if elapsed > 0 else 0.0
            self._at, self._seconds = at, seconds
        return reply


def _seconds(value: Any) -> float | None:
    """A time that can be reckoned with, whoever told it."""
    usable = type(value) in (int, float) and abs(value) < MAX_SECONDS  # NaN is not
    return float(value) if usable else None
