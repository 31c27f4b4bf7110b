"""Decisions about the sandbox: which one, what its state asks for, what is told when the service refuses."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from daytona.common import errors as sdk
from daytona_api_client_async.exceptions import ApiException

from daytona_kernel import sandbox as module
from daytona_kernel.config import DaytonaSettings
from daytona_kernel.controlplane import ControlPlaneError
from daytona_kernel.errors import (
    ConfigurationError,
    ConnectionFailed,
    CredentialsError,
    DaytonaKernelError,
    SandboxCreationFailed,
    SandboxError,
    SandboxGone,
    SandboxNotFound,
    SandboxStartFailed,
)
from daytona_kernel.labels import notebook_label, owner_label
from daytona_kernel.magics.sdk import explain
from daytona_kernel.sandbox import SandboxManager
from daytona_kernel.service import Service
from daytona_kernel.translation import one_line, translate

OURS = {"daytona-kernel": "1", "daytona-kernel.host": module.host_label()}


@dataclass
class FakeSandbox:
    """A sandbox of the fake service. ``states``: what the next looks at it find."""

    id: str = "s1"
    name: str = "box"
    state: Any = "started"
    labels: dict[str, str] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    error_reason: str | None = None
    recoverable: bool = False
    auto_stop_minutes: int | None = None
    start_error: Exception | None = None
    refresh_error: Exception | None = None
    calls: list[str] = field(default_factory=list)
    toolbox_proxy_url: str = "http://127.0.0.1:1/toolbox/"
    stop_error: Exception | None = None
    activity_error: Exception | None = None
    end_errors: list[Exception] = field(default_factory=list)
    service: FakeService | None = None

    async def refresh_data(self) -> None:
        if self.refresh_error is not None:
            raise self.refresh_error
        if self.states:
            self.state = self.states.pop(0)

    async def start(self, timeout: float | None = None) -> None:
        self.calls.append("start")
        if self.start_error is not None:
            raise self.start_error
        self.state = "started"

    async def recover(self, timeout: float | None = None) -> None:
        self.calls.append("recover")
        self.state = "started"

    async def delete(self, timeout: float | None = None) -> None:
        if self.end_errors:
            raise self.end_errors.pop(0)
        self.calls.append("delete")
        self.state = "destroyed"
        if self.service is not None:
            del self.service.sandboxes[self.id]

    async def stop(self) -> None:
        if self.end_errors:
            raise self.end_errors.pop(0)
        if self.stop_error is not None:
            raise self.stop_error
        self.calls.append("stop")

    async def set_labels(self, labels: dict[str, str]) -> None:
        self.labels = labels

    async def refresh_activity(self) -> None:
        if self.activity_error is not None:
            raise self.activity_error
        self.calls.append("refresh_activity")


class FakeService:
    """What the manager uses of the control plane."""

    def __init__(self, *sandboxes: FakeSandbox) -> None:
        self.sandboxes = {item.id: item for item in sandboxes}
        self.created: list[dict[str, Any]] = []
        self.create_error: BaseException | None = None
        self.create_makes_one_first = False
        self.creating = asyncio.Event()
        self.hold: asyncio.Event | None = None
        self.headers = {"Authorization": "Bearer k"}

    async def get(self, key: str) -> FakeSandbox:
        for item in self.sandboxes.values():
            if key in (item.id, item.name):
                return item
        raise ControlPlaneError(404, "no such sandbox")

    async def find(self, labels: dict[str, str]) -> list[FakeSandbox]:
        return [item for item in self.sandboxes.values() if labels.items() <= item.labels.items()]

    async def create(self, body: dict[str, Any], timeout: float | None = None) -> FakeSandbox:
        self.created.append(body)
        made = FakeSandbox(id="new", name=body["name"], labels=body["labels"], service=self)
        if self.create_makes_one_first:
            self.sandboxes["new"] = made
        self.creating.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.create_error is not None:
            raise self.create_error
        self.sandboxes["new"] = made
        return made

    async def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DAYTONA_") or name == "JPY_SESSION_NAME":
            monkeypatch.delenv(name)


def manager(service: FakeService, **settings: Any) -> SandboxManager:
    made = SandboxManager(DaytonaSettings(**settings))
    made._plane = service  # type: ignore[assignment]
    made.service = Service("http://x/api", "k", True)
    return made


# -- which one -----------------------------------------------------------------------------------------


async def test_without_any_other_a_new_sandbox_is_made_and_is_ours() -> None:
    service = FakeService()
    made = manager(service)
    assert (await made.acquire()).id == "new"
    assert made.owned
    (body,) = service.created
    assert body["labels"] == OURS | {"daytona-kernel.owner-pid": module.owner_label()}
    assert body["autoDeleteInterval"] == 7 * 24 * 60
    assert "snapshot" not in body


async def test_a_named_sandbox_is_used_and_is_not_ours() -> None:
    service = FakeService(FakeSandbox(name="mine"))
    made = manager(service, sandbox="mine")
    assert (await made.acquire("other")).name == "mine"
    assert not made.owned
    assert service.created == []


async def test_a_named_sandbox_that_does_not_exist_is_an_error_and_none_is_made() -> None:
    service = FakeService()
    with pytest.raises(SandboxNotFound, match="'mine'"):
        await manager(service, sandbox="mine").acquire()
    assert service.created == []


async def test_a_restarted_kernel_has_its_sandbox_again() -> None:
    made = manager(FakeService(FakeSandbox(id="s7")))
    assert (await made.acquire("s7")).id == "s7"
    assert made.owned
    assert made.notice == ""


async def test_a_restarted_kernel_whose_sandbox_is_gone_gets_a_new_one_and_hears_of_it() -> None:
    made = manager(FakeService())
    assert (await made.acquire("s7")).id == "new"
    assert "Variables and files are lost" in made.notice


async def test_a_notebook_finds_its_sandbox_of_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a.ipynb")
    mine = {module.LABEL_NOTEBOOK: notebook_label("/home/me/a.ipynb")}
    service = FakeService(
        FakeSandbox(id="other"),
        FakeSandbox(id="broken", labels=mine, state="error"),
        FakeSandbox(id="mine", labels=mine, state="stopped"),
    )
    made = manager(service)
    assert (await made.acquire()).id == "mine"
    assert service.sandboxes["mine"].calls == ["start"]
    assert "again" in made.notice


@pytest.mark.parametrize("state", ["stopping", "archiving", "restoring", "pausing", "made_up_tomorrow"])
async def test_a_notebook_that_is_opened_again_at_once_waits_for_its_sandbox(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """It would have another one without its files, and next time one of two."""
    monkeypatch.setattr(module, "STATE_POLL_S", 0.001)
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a.ipynb")
    mine = {module.LABEL_NOTEBOOK: notebook_label("/home/me/a.ipynb")}
    service = FakeService(FakeSandbox(labels=mine, state=state, states=[state, "stopped"]))
    made = manager(service)
    assert (await made.acquire()).id == "s1"
    assert (service.created, service.sandboxes["s1"].calls) == ([], ["start"])


async def test_a_sandbox_that_goes_while_it_is_waited_for_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STATE_POLL_S", 0.001)
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a.ipynb")
    mine = {module.LABEL_NOTEBOOK: notebook_label("/home/me/a.ipynb")}
    made = manager(FakeService(FakeSandbox(labels=mine, state="stopping", states=["destroyed"])))
    assert (await made.acquire()).id == "new"
    assert "gone" in made.notice


async def test_a_new_sandbox_of_a_notebook_can_be_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a.ipynb")
    service = FakeService()
    await manager(service).acquire()
    assert service.created[0]["labels"][module.LABEL_NOTEBOOK] == notebook_label("/home/me/a.ipynb")
    assert "a.ipynb" not in str(service.created[0]["labels"])


async def test_a_headless_sandbox_is_ephemeral_names_its_owner_and_is_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a.ipynb")
    mine = {module.LABEL_NOTEBOOK: notebook_label("/home/me/a.ipynb")}
    service = FakeService(FakeSandbox(id="mine", labels=mine))
    await manager(service, headless=True).acquire()
    (body,) = service.created
    assert body["autoDeleteInterval"] == 0  # deleted as soon as it stops
    assert body["labels"][module.LABEL_OWNER] == owner_label()
    assert module.LABEL_NOTEBOOK not in body["labels"]


def test_the_owner_label_names_this_process_and_its_start() -> None:
    pid, start, _ = owner_label().split(":")
    assert int(pid) == os.getpid()
    assert int(start) > 0


async def test_all_settings_reach_the_service_in_its_units() -> None:
    service = FakeService()
    await manager(
        service,
        snapshot="snap",
        env_vars={"A": 1},
        labels={"team": "x"},
        network_block_all=True,
        auto_stop="2h",
        auto_delete=None,
    ).acquire()
    (body,) = service.created
    assert (body["snapshot"], body["env"], body["networkBlockAll"]) == ("snap", {"A": "1"}, True)
    assert body["labels"].items() >= {"daytona-kernel": "1", "team": "x"}.items()
    assert body["autoStopInterval"] == 120
    assert "autoDeleteInterval" not in body


async def test_an_image_comes_with_its_sizes() -> None:
    service = FakeService()
    await manager(service, image="python:3.12", cpu=2, memory_gib=4).acquire()
    (body,) = service.created
    assert body["buildInfo"] == {"dockerfileContent": "FROM python:3.12\n"}
    assert (body["cpu"], body["memory"], body.get("disk")) == (2, 4, None)


async def test_a_wrong_combination_is_refused_before_anything_is_called() -> None:
    service = FakeService()
    with pytest.raises(ConfigurationError):
        await manager(service, snapshot="a", image="b").acquire()
    assert service.created == []


async def test_credentials_that_are_asked_for_but_missing_are_an_error() -> None:
    with pytest.raises(CredentialsError, match="DAYTONA_API_KEY"):
        await SandboxManager(DaytonaSettings(backend="daytona")).acquire()


# -- what its state asks for ---------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["stopped", "archived", "paused"])
async def test_a_sandbox_at_rest_is_started(state: str) -> None:
    service = FakeService(FakeSandbox(state=state))
    made = manager(service, sandbox="box")
    assert (await made.acquire()).state == "started"


@pytest.mark.parametrize("state", ["error", "build_failed"])
async def test_a_broken_sandbox_is_told_with_its_reason(state: str) -> None:
    service = FakeService(FakeSandbox(state=state, error_reason="disk full"))
    with pytest.raises(SandboxStartFailed, match=f"{state}: disk full"):
        await manager(service, sandbox="box").acquire()


async def test_a_recoverable_sandbox_is_recovered() -> None:
    box = FakeSandbox(state="error", error_reason="disk full", recoverable=True)
    await manager(FakeService(box), sandbox="box").acquire()
    assert (box.state, box.calls) == ("started", ["recover"])


@pytest.mark.parametrize("state", ["destroyed", "destroying"])
async def test_a_sandbox_that_is_going_is_gone(state: str) -> None:
    with pytest.raises(SandboxGone, match=state):
        await manager(FakeService(FakeSandbox(state=state)), sandbox="box").acquire()


async def test_a_sandbox_between_two_states_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATE_POLL_S", 0.001)
    said: list[str | None] = []
    service = FakeService(FakeSandbox(state="stopping", states=["stopping", "stopped"]))
    made = manager(service, sandbox="box")
    made._on_status = said.append
    await made.acquire()
    assert service.sandboxes["s1"].calls == ["start"]
    assert said[0] == "Waiting for the sandbox (stopping) …"
    assert said[-1] is None


async def test_a_state_that_stays_for_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATE_POLL_S", 0.001)
    made = manager(FakeService(FakeSandbox(state="resizing")), sandbox="box", create_timeout="0.01s")
    with pytest.raises(SandboxStartFailed, match="resizing still"):
        await made.acquire()


async def test_a_start_that_fails_is_an_error_of_ours() -> None:
    service = FakeService(FakeSandbox(state="stopped", start_error=ControlPlaneError(None, "no runner")))
    with pytest.raises(SandboxStartFailed, match="no runner"):
        await manager(service, sandbox="box").acquire()


async def acquired(sandbox: FakeSandbox, **settings: Any) -> SandboxManager:
    made = manager(FakeService(sandbox), **settings)
    await made.acquire(sandbox.id)
    return made


async def test_a_sandbox_that_still_runs_needs_nothing() -> None:
    made = await acquired(FakeSandbox())
    assert await made.ensure_started()


async def test_a_sandbox_that_has_stopped_is_started_and_its_processes_are_gone() -> None:
    box = FakeSandbox()
    made = await acquired(box)
    box.state = "stopped"
    assert not await made.ensure_started()
    assert box.calls == ["start"]


@pytest.mark.parametrize("state", ["resizing", "snapshotting", "forking"])
async def test_a_sandbox_that_was_only_busy_has_its_processes_still(
    monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(module, "STATE_POLL_S", 0.0)
    box = FakeSandbox()
    made = await acquired(box)
    box.states = [state, state, "started"]
    assert await made.ensure_started()
    assert "start" not in box.calls


async def test_a_deleted_sandbox_is_forgotten() -> None:
    box = FakeSandbox()
    made = await acquired(box)
    box.refresh_error = ControlPlaneError(404, "gone")
    with pytest.raises(SandboxGone):
        await made.ensure_started()
    assert made.sandbox is None


async def test_a_service_that_can_not_be_asked_is_no_verdict_on_the_sandbox() -> None:
    box = FakeSandbox()
    made = await acquired(box)
    box.refresh_error = ConnectionFailed("no route")
    with pytest.raises(ConnectionFailed):
        await made.ensure_started()
    assert made.sandbox is box  # type: ignore[comparison-overlap]
    assert await made.state() == ""
    box.refresh_error = ControlPlaneError(404, "gone")
    assert await made.state() == "destroyed"


# -- what is told --------------------------------------------------------------------------------------


def caused(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (sdk.DaytonaAuthenticationError("bad key", status_code=401), CredentialsError),
        (sdk.DaytonaAuthenticationError("Authentication credentials not found."), CredentialsError),
        (sdk.DaytonaForbiddenError("not yours", status_code=403), CredentialsError),
        (sdk.DaytonaRateLimitError("slow down", status_code=429), SandboxError),
        (sdk.DaytonaConnectionError("refused"), ConnectionFailed),
        (sdk.DaytonaConnectionTimeoutError("timed out"), ConnectionFailed),
        (OSError("no network"), ConnectionFailed),
        (asyncio.TimeoutError(), ConnectionFailed),
        (caused(sdk.DaytonaError("x"), aiohttp.ServerDisconnectedError()), ConnectionFailed),
        (caused(sdk.DaytonaError("garbage/x"), aiohttp.InvalidURL("garbage")), ConfigurationError),
        (sdk.DaytonaBadRequestError("must be positive"), ConfigurationError),
        (sdk.DaytonaError("it broke"), SandboxError),
        (sdk.DaytonaInternalServerError("oops", status_code=500), SandboxError),
        (sdk.DaytonaConflictError("busy", status_code=409), SandboxError),
        (RuntimeError("a bug"), SandboxError),
    ],
)
def test_each_error_of_the_sdk_has_one_of_ours_that_keeps_its_words(
    error: Exception, ours: type[DaytonaKernelError]
) -> None:
    found = translate(error)
    assert type(found) is ours
    assert str(error) in str(found)
    assert found.hint or ours is ConfigurationError


@pytest.mark.parametrize(
    ("body", "words"),
    [('{"message": "no such secret"}', "no such secret"), ("<html>", "Not Found"), ("[]", "Not Found")],
)
def test_an_error_that_the_sdk_leaks_is_told_by_its_message(body: str, words: str) -> None:
    """``code_run``, secrets and warm pools raise what the generated client raises: a dump of headers."""
    leaked = ApiException(status=404, reason="Not Found", body=body)
    leaked.headers = {"set-cookie": "session=1"}
    for told in (translate(leaked), explain(leaked, "secret x")):
        assert words in str(told)
        assert "header" not in str(told).lower()


def test_a_gateways_time_is_not_taken_for_the_commands() -> None:
    """It is the service that failed, also for the exit code of a run; no ``--timeout`` would help."""
    told = explain(sdk.DaytonaTimeoutError("Failed to execute: Gateway Time-out", status_code=504), "sh")
    assert type(told) is SandboxError
    assert "--timeout" in str(explain(sdk.DaytonaTimeoutError("too long"), "sh"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Failed: <html>\n<head><title>502 Bad Gateway</title></head>\n<body/>", "Failed: 502 Bad Gateway"),
        ("<!DOCTYPE html><p>Sorry", "a web page"),
        ("a <b> c", "a <b> c"),
    ],
)
def test_a_proxys_web_page_is_not_shown_in_a_cell(text: str, words: str) -> None:
    assert one_line(SandboxError(text)) == words


def test_an_error_without_words_is_told_by_its_name_and_a_long_one_is_cut() -> None:
    assert "TimeoutError" in str(translate(asyncio.TimeoutError()))
    assert len(str(translate(sdk.DaytonaError("x\n" * 5000)))) < 600


@pytest.mark.parametrize(
    ("error", "settings", "ours", "words"),
    [
        (asyncio.TimeoutError(), {}, SandboxCreationFailed, "within 120 s"),
        (ControlPlaneError(408, "late"), {}, SandboxCreationFailed, "DAYTONA_KERNEL_CREATE_TIMEOUT"),
        (ControlPlaneError(404, "nope"), {"snapshot": "sn"}, SandboxCreationFailed, "'sn'"),
        (ControlPlaneError(400, "nope"), {"snapshot": "sn"}, SandboxCreationFailed, "'sn'"),
        (ControlPlaneError(400, "cpu"), {}, ConfigurationError, "cpu"),
        (ControlPlaneError(401, "bad key"), {}, CredentialsError, "bad key"),
        (ControlPlaneError(403, "quota"), {}, CredentialsError, "quota"),
        (ControlPlaneError(429, "slow"), {}, SandboxError, "patience"),
        (ControlPlaneError(None, "its state is error: no runner"), {}, SandboxCreationFailed, "no runner"),
        (ControlPlaneError(500, "oops"), {}, SandboxCreationFailed, "oops"),
    ],
)
async def test_a_creation_that_fails_says_why(
    error: Exception, settings: dict[str, Any], ours: type[DaytonaKernelError], words: str
) -> None:
    service = FakeService()
    service.create_error = error
    with pytest.raises(DaytonaKernelError, match=words) as caught:
        await manager(service, **settings).acquire()
    assert type(caught.value) is ours
    assert caught.value.__cause__ is error


async def test_the_next_try_after_a_failed_creation_may_succeed() -> None:
    service = FakeService()
    service.create_error = ControlPlaneError(None, "x")
    made = manager(service)
    with pytest.raises(DaytonaKernelError):
        await made.acquire()
    service.create_error = None
    assert (await made.acquire()).id == "new"


async def test_a_creation_that_fails_half_way_leaves_no_sandbox_behind() -> None:
    service = FakeService()
    service.create_makes_one_first = True
    service.create_error = asyncio.TimeoutError()
    with pytest.raises(SandboxCreationFailed):
        await manager(service).acquire()
    assert service.sandboxes == {}


async def test_a_creation_that_is_given_up_leaves_no_sandbox_behind() -> None:
    service = FakeService()
    service.create_makes_one_first = True
    service.hold = asyncio.Event()
    creating = asyncio.ensure_future(manager(service).acquire())
    await service.creating.wait()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert service.sandboxes == {}


# -- the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "owned", "done", "calls"),
    [
        ({}, True, "stopped", ["stop"]),
        ({"headless": True}, True, "deleted", ["delete"]),
        ({"on_shutdown": "keep"}, True, "kept", []),
        ({"on_shutdown": "delete"}, True, "deleted", ["delete"]),
        ({"on_shutdown": "stop", "headless": True}, True, "stopped", ["stop"]),
        ({"on_shutdown": "delete"}, False, "kept", []),
        ({}, False, "kept", []),
    ],
)
async def test_what_becomes_of_the_sandbox(
    settings: dict[str, Any], owned: bool, done: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = FakeSandbox()
    made = await acquired(box, **settings)
    made.owned = owned
    monkeypatch.setenv("JPY_SESSION_NAME", "/notebooks/analysis.ipynb")
    assert await made.release() == done
    assert box.calls == calls


async def test_without_a_notebook_to_find_it_again_the_sandbox_is_deleted() -> None:
    box = FakeSandbox()
    assert await (await acquired(box)).release() == "deleted"
    assert box.calls == ["delete"]


async def test_a_restart_keeps_the_sandbox_whatever_the_settings_say() -> None:
    box = FakeSandbox()
    made = await acquired(box, on_shutdown="delete")
    assert await made.release(restarting=True) == "kept"
    assert box.calls == []


async def test_between_the_kernels_of_a_restart_the_sandbox_is_nobodys() -> None:
    """Else the local server would take it for one whose kernel was killed, and delete it."""
    service = FakeService()
    made = manager(service, labels={"team": "x"})
    box = await made.acquire()
    assert box.labels[module.LABEL_OWNER] == owner_label()
    await made.release(restarting=True)
    assert box.labels == OURS | {"team": "x"}
    await manager(service).acquire(box.id)
    assert box.labels == OURS | {"team": "x", module.LABEL_OWNER: owner_label()}


@pytest.mark.parametrize("policy", ["keep", "stop"])
async def test_a_sandbox_that_is_to_stay_does_not_die_with_its_kernel(policy: str) -> None:
    box = await manager(FakeService(), headless=True, on_shutdown=policy).acquire()
    assert module.LABEL_OWNER not in box.labels


async def test_the_end_raises_nothing_and_says_what_was_left(caplog: pytest.LogCaptureFixture) -> None:
    made = await acquired(FakeSandbox(stop_error=ControlPlaneError(500, "oops")), on_shutdown="stop")
    assert await made.release() == "kept"
    assert "sandbox s1 was left behind" in caplog.text


async def test_a_kernel_without_a_sandbox_has_nothing_to_release() -> None:
    assert await manager(FakeService()).release() == "kept"


async def test_while_a_cell_runs_the_service_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEPALIVE_S", 0.001)
    box = FakeSandbox()
    made = await acquired(box)
    keeping = asyncio.ensure_future(made.keep_alive())
    while box.calls.count("refresh_activity") < 3:
        await asyncio.sleep(0.001)
    keeping.cancel()


async def one_cell(made: SandboxManager) -> None:
    """What a session does around a cell that takes no time."""
    keeping = asyncio.ensure_future(made.keep_alive())
    await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.gather(keeping, *made._telling, return_exceptions=True)


async def test_a_short_cell_counts_as_use_once_a_minute() -> None:
    """Cells' sockets do not count: a notebook in use would be stopped, or as soon as its long cell begins."""
    box = FakeSandbox()
    made = await acquired(box)
    for _ in range(5):
        await one_cell(made)
    assert box.calls == ["refresh_activity"]
    made._told_at -= module.KEEPALIVE_S
    await one_cell(made)
    assert box.calls == ["refresh_activity"] * 2


async def test_a_new_sandbox_is_not_told_at_once_that_it_is_in_use() -> None:
    service = FakeService()
    made = manager(service)
    await made.acquire()
    await one_cell(made)
    assert service.sandboxes["new"].calls == []


async def test_a_sandbox_that_stops_by_itself_soon_is_told_more_often() -> None:
    box = FakeSandbox(auto_stop_minutes=1)
    made = await acquired(box)
    await one_cell(made)
    made._told_at -= 21
    await one_cell(made)
    assert box.calls == ["refresh_activity"] * 2


async def test_what_the_service_did_not_hear_it_is_told_again_sooner() -> None:
    box = FakeSandbox(activity_error=ConnectionFailed("no route"))
    made = await acquired(box)
    await one_cell(made)
    box.activity_error = None
    made._told_at -= 16
    await one_cell(made)
    assert box.calls == ["refresh_activity"]


@pytest.mark.parametrize(("policy", "done"), [("stop", "stopped"), ("delete", "deleted")])
async def test_a_sandbox_whose_state_is_just_changing_is_ended_a_little_later(
    monkeypatch: pytest.MonkeyPatch, policy: str, done: str
) -> None:
    monkeypatch.setattr(module, "END_PAUSE_S", 0.001)
    busy = ControlPlaneError(409, "Sandbox state change in progress")
    box = FakeSandbox(end_errors=[busy, busy])
    made = await acquired(box, on_shutdown=policy)
    assert await made.release() == done
    assert box.calls == [policy]


@pytest.mark.parametrize("policy", ["stop", "delete"])
async def test_a_sandbox_that_is_gone_by_then_was_not_left_behind(
    policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Deleted by somebody else, or by a request of ours that was repeated since its answer was lost."""
    made = await acquired(FakeSandbox(end_errors=[ControlPlaneError(404, "not found")]), on_shutdown=policy)
    assert await made.release() == "deleted"
    assert not caplog.text


def test_a_service_does_not_show_its_key() -> None:
    assert "secret" not in repr(Service("http://x", "secret", False))
