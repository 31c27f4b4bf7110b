"""What ``%daytona create`` asks for besides the person's own words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from daytona_kernel.config import DaytonaSettings
from daytona_kernel.labels import LABEL, LABEL_HOST, LABEL_NOTEBOOK, host_label, notebook_label
from daytona_kernel.magics import creation as module


def host(**settings: Any) -> Any:
    return SimpleNamespace(session=SimpleNamespace(settings=DaytonaSettings(**settings)))


def test_a_notebook_finds_what_it_has_made_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a.ipynb")
    ours = {LABEL: "1", LABEL_HOST: host_label()}
    assert module._own_labels(host()) == ours | {LABEL_NOTEBOOK: notebook_label("/home/me/a.ipynb")}
    assert module._own_labels(host(headless=True)) == ours


class Volumes:
    """A service whose volume is ready at the fourth look."""

    def __init__(self, *states: str) -> None:
        self.volume = self
        self.states = [*states]

    async def get(self, name: str) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return SimpleNamespace(id="v1", name=name, state=state)


async def test_a_volume_that_was_just_made_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOLUME_LOOK_S", 0.0)
    volumes = Volumes("pending_create", "creating", "creating", "ready")
    mount = await module._mount(volumes, "data", "/mnt/data", None)  # type: ignore[arg-type]
    assert (mount.volume_id, volumes.states) == ("v1", ["ready"])


async def test_a_volume_that_never_gets_ready_is_the_services_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "VOLUME_WAIT_S", 0.0)
    volumes = Volumes("creating")
    assert (await module._mount(volumes, "data", "/mnt/data", None)).volume_id == "v1"  # type: ignore[arg-type]
