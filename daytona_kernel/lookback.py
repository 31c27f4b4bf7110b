"""What earlier kernels have left in a sandbox: Python processes with their variables, and recorded output.

Each agent says in ``agent.json`` beside its recordings who it is, and in ``last`` which cell it ran last. The
answers come from a place that is not trusted: what is used of them is checked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .answers import parsed
from .remote import run_script
from .toolbox import Toolbox

AGENTS = r"""
import glob, tempfile
out = []
for parent in (tempfile.gettempdir(), "/tmp", os.path.expanduser("~/.cache"), "/dev/shm"):
    for path in glob.glob(os.path.join(parent, ".daytona-kernel-%d" % os.getuid(), "*", "agent.json")):
        last = os.path.join(os.path.dirname(path), "last")
        try:
            info = json.load(open(path))
            os.kill(info["pid"], 0)
            info["changed"] = os.path.getmtime(path)
            info["last"] = json.load(open(last)); info["changed"] = os.path.getmtime(last)
        except (OSError, ValueError, KeyError, TypeError):
            if "changed" not in info: continue
        out.append(info)
say(out)
"""
"""Nothing -> what each living agent has written of itself, with ``last`` and the time it ``changed``."""


@dataclass(frozen=True)
class LeftBehind:
    """One Python process in the sandbox, with an agent of ours in it."""

    context_id: str
    pid: int
    spool: str
    info: dict[str, Any]
    last: dict[str, Any]
    """Of its last cell: ``id``, ``running``, ``execution_count``; empty if there was none."""
    changed: float

    @property
    def running(self) -> bool:
        """Whether a cell was still running there a moment ago."""
        return self.last.get("running") is True


async def left_behind(toolbox: Toolbox) -> list[LeftBehind]:
    """The living Python processes with an agent in this sandbox, the one used last first."""
    active = {str(item.get("id")) for item in await toolbox.contexts() if item.get("active")}
    answer = await run_script(toolbox, AGENTS)
    found = {}
    for info in answer if isinstance(answer, list) else []:
        one = _checked(info)
        if one is not None and one.context_id in active:
            found[one.context_id] = one
    return sorted(found.values(), key=lambda one: one.changed, reverse=True)


async def used_by_others(toolbox: Toolbox, own: Collection[str]) -> bool:
    """Whether a Python process of another notebook is alive in the sandbox.

    ``own``: contexts that do not count. A kernel that was killed has left its process behind, and nobody
    can tell that one from one in use.
    """
    active = {str(item.get("id")) for item in await toolbox.contexts() if item.get("active")}
    if active <= set(own):
        return False
    return any(one.context_id not in own for one in await left_behind(toolbox))


def _checked(info: Any) -> LeftBehind | None:
    if not isinstance(info, dict):
        return None
    context_id, pid, spool = info.get("context_id"), info.get("pid"), info.get("spool")
    last, changed = info.pop("last", {}), info.pop("changed", 0.0)
    if not isinstance(context_id, str) or type(pid) is not int or pid <= 1 or not isinstance(spool, str):
        return None
    if not isinstance(last, dict) or not isinstance(changed, (int, float)):
        return None
    return LeftBehind(context_id, pid, spool, info, last, float(changed))


async def last_cell(toolbox: Toolbox, spool: str) -> dict[str, Any]:
    """What the agent says of its last cell; empty if there was none."""
    data = await toolbox.download(f"{spool}/last") if spool else None
    try:
        found = parsed(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("id"), str) else {}
