"""Sandboxes of headless runs that are not one kernel's own: one for all notebooks, kept, or left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .account import user_settings
from .controlplane import ControlPlaneError
from .errors import DaytonaKernelError
from .labels import LABEL, LABEL_HOST, LABEL_OWNER, host_label, owner_has_ended
from .sandbox import SandboxManager
from .supplies import Found, bring
from .toolbox import Toolbox
from .translation import Translated

if TYPE_CHECKING:
    from .config import DaytonaSettings
    from .controlplane import SandboxHandle

KEPT_MINUTES = 7 * 24 * 60
"""How long a kept sandbox is there after it has stopped: as long as that of a notebook."""


class SharedSandbox:
    """One sandbox for several notebooks. Ephemeral, and its owner is this process."""

    def __init__(self, settings: DaytonaSettings) -> None:
        """Raises :exc:`ConfigurationError` for *settings* that can not go together."""
        settings.check()
        self._manager = SandboxManager(settings)

    async def begin(self, files: Sequence[Found]) -> str:
        """Make it, with *files* in its working directory; its id. Raises errors of our tree, and
        :exc:`SuppliesError`.
        """
        sandbox = await self._manager.acquire()
        toolbox = Toolbox(self._manager.endpoint())
        try:
            await bring(toolbox, files)
        finally:
            await toolbox.close()
        return sandbox.id

    async def end(self, *, kept: bool = False) -> None:
        """Delete it, unless it is *kept*. Raises nothing."""
        try:
            if kept and self._manager.sandbox is not None:
                with Translated():
                    await _hold(self._manager.sandbox)
            else:
                await self._manager.release()
        except DaytonaKernelError:
            pass  # Ephemeral: it goes with its auto-stop.
        finally:
            await self._manager.close()


async def keep(settings: DaytonaSettings) -> str:
    """See to it that the run's sandbox that *settings* name stays without its owner; its name. Raises errors
    of our tree.
    """
    manager = SandboxManager(settings)
    try:
        sandbox = await manager.acquire()
        with Translated():
            await _hold(sandbox)
        return sandbox.name
    finally:
        await manager.close()


async def _hold(sandbox: SandboxHandle) -> None:
    await sandbox.set_labels({name: value for name, value in sandbox.labels.items() if name != LABEL_OWNER})
    await sandbox.plane.call("POST", f"/sandbox/{sandbox.id}/autodelete/{KEPT_MINUTES}")


async def sweep() -> list[str]:
    """Delete what earlier runs on this machine left in the service when they were killed; the names.

    They would go by themselves: ephemeral sandboxes are deleted when they stop, and they stop when they are
    idle. The local server notices dead owners itself. Raises nothing: this is a courtesy.
    """
    try:
        settings = user_settings()
    except DaytonaKernelError:
        return []
    if settings.is_local:
        return []
    manager = SandboxManager(settings)
    try:
        return await prune(manager)
    except DaytonaKernelError:
        return []
    finally:
        await manager.close()


async def prune(manager: SandboxManager) -> list[str]:
    """Delete this user's sandboxes whose owner on this machine is dead, or that could not be made.

    Those of notebooks and those that were kept have no owner and stay. Raises errors of our tree.
    """
    plane = await manager.connect()
    gone = []
    with Translated():
        for sandbox in await plane.find({LABEL: "1", LABEL_HOST: host_label()}):
            if is_left_behind(sandbox.labels, sandbox.state):
                try:
                    await sandbox.delete(timeout=20)
                except ControlPlaneError as exc:
                    if exc.status not in (404, 409):  # somebody else is at it
                        raise
                else:
                    gone.append(sandbox.name)
    return gone


def is_left_behind(labels: Mapping[str, str], state: str) -> bool:
    """Whether nobody can use this sandbox of this machine any more: its owner is gone, or it failed."""
    owner = labels.get(LABEL_OWNER, "")
    if state in ("destroyed", "destroying"):
        return False
    return state == "build_failed" or owner_has_ended(owner)
