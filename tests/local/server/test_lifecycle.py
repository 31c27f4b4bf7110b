"""Sandboxes from creation to deletion, through the API as clients call it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from .conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_created_sandbox_is_started_and_runs_commands(
    running: Running, sandbox: dict[str, Any]
) -> None:
    """The first answer says started, and a command runs in the sandbox's home."""
    assert sandbox["toolboxProxyUrl"] == f"{running.base}/toolbox"
    assert sandbox["name"] == sandbox["id"]
    code, output = await running.run(sandbox, "echo $HOME; pwd; echo $DAYTONA_SANDBOX_ID")
    home, directory, marker = output.split()
    assert (code, directory, marker) == (0, home, sandbox["id"])


async def test_creation_parameters_come_back(running: Running) -> None:
    """What is asked for is what the sandbox says about itself, and its programs see the environment."""
    sandbox = await running.create(
        name="with parameters",
        env={"GREETING": "it's $HOME"},
        labels={"team": "a b"},
        autoStopInterval=7,
        autoArchiveInterval=0,
        autoDeleteInterval=30,
        public=True,
    )
    assert sandbox["labels"] == {"team": "a b"}
    assert (sandbox["autoStopInterval"], sandbox["autoArchiveInterval"]) == (7, 43200)
    assert (sandbox["autoDeleteInterval"], sandbox["public"]) == (30, True)
    assert await running.run(sandbox, 'printf %s "$GREETING"') == (0, "it's $HOME")
    status, found = await running.call("GET", "/sandbox/with%20parameters")
    assert (status, found["id"]) == (200, sandbox["id"])
    await running.delete(sandbox)


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"snapshot": "no-such"}, 400, "no-such"),
        ({"cpu": 2}, 400, "resources"),
        ({"env": {"A B": "x"}}, 400, "variable"),
        ({"env": {"A": 1}}, 400, "string"),
        ({"labels": {"code-toolbox-language": "cobol"}}, 400, "python"),
        ({"autoStopInterval": -1}, 400, "autoStopInterval"),
        ({"autoStopInterval": "soon"}, 400, "integer"),
        ({"networkAllowList": "10.0.0.0/8"}, 400, "allow lists"),
        ({"volumes": [{"volumeId": "none", "mountPath": "/data"}]}, 404, "none"),
        ({"snapshot": "python:/no/such/python"}, 400, "/no/such/python"),
        ({"secrets": [{"TOKEN": "none"}]}, 400, "none"),
    ],
)
async def test_bad_creation_is_refused(
    running: Running, body: dict[str, Any], status: int, word: str
) -> None:
    """A refusal has the documented status, names the culprit, and leaves nothing behind."""
    before = len(list(running.manager))
    got, answer = await running.call("POST", "/sandbox", body)
    assert got == status
    assert word in answer["message"]
    assert answer["statusCode"] == status
    assert len(list(running.manager)) == before


async def test_names_are_unique_until_deletion(running: Running) -> None:
    """A second sandbox of a name is a conflict; deleting frees the name at once."""
    first = await running.create(name="twin")
    status, answer = await running.call("POST", "/sandbox", {"name": "twin"})
    assert (status, "already exists" in answer["message"]) == (409, True)
    await running.delete(first)
    second = await running.create(name="twin")
    assert second["id"] != first["id"]
    await running.delete(second)


async def test_files_survive_stop_and_start_but_processes_do_not(running: Running) -> None:
    """Stop ends every process; start brings the files back and a new preview token."""
    sandbox = await running.create()
    path = f"/sandbox/{sandbox['id']}"
    _, before = await running.call("GET", f"{path}/ports/8000/preview-url")
    await running.run(
        sandbox, "echo kept > kept.txt; mkdir -p /app 2>/dev/null; sleep 1000 >/dev/null 2>&1 &"
    )
    status, stopped = await running.call("POST", f"{path}/stop", params={"force": "false"})
    assert (status, stopped["state"]) == (200, "stopped")
    async with running.http.post(
        f"{running.base}/toolbox/{sandbox['id']}/process/execute", json={}
    ) as answer:
        assert answer.status == 400
        assert "Is the Sandbox started?" in (await answer.json())["message"]
    status, started = await running.call("POST", f"{path}/start")
    assert (status, started["state"]) == (200, "started")
    assert await running.run(sandbox, "cat kept.txt; pgrep -c sleep || true") == (0, "kept\n0\n")
    _, after = await running.call("GET", f"{path}/ports/8000/preview-url")
    assert before["token"] != after["token"]
    await running.delete(sandbox)


async def test_ephemeral_sandbox_is_gone_when_stopped(running: Running) -> None:
    """Stopping a sandbox with autoDeleteInterval 0 destroys it and its files."""
    sandbox = await running.create(autoDeleteInterval=0)
    directory = running.manager.find(sandbox["id"]).directory
    status, answer = await running.call("POST", f"/sandbox/{sandbox['id']}/stop")
    assert (status, answer["state"]) == (200, "destroyed")
    assert (await running.call("GET", f"/sandbox/{sandbox['id']}"))[0] == 404
    assert not directory.exists()


async def test_deleted_sandbox_is_unknown_at_once(running: Running) -> None:
    """After DELETE the id and the toolbox are 404 and a second DELETE too."""
    sandbox = await running.create()
    status, answer = await running.call("DELETE", f"/sandbox/{sandbox['id']}")
    assert (status, answer["state"]) == (200, "destroyed")
    for method in ("GET", "DELETE"):
        status, answer = await running.call(method, f"/sandbox/{sandbox['id']}")
        assert (status, answer["error"]) == (404, "Not Found")
    async with running.http.get(f"{running.base}/toolbox/{sandbox['id']}/version") as answer:
        assert answer.status == 404


async def test_moves_during_a_move_are_conflicts(running: Running) -> None:
    """While one state change runs, another one gets 409."""
    sandbox = await running.create()
    path = f"/sandbox/{sandbox['id']}"
    running.manager.set_state(running.manager.find(sandbox["id"]), "stopping")
    for method, what in (("POST", "/stop"), ("POST", "/archive"), ("DELETE", ""), ("POST", "/fork")):
        status, answer = await running.call(method, path + what)
        assert (status, answer["message"]) == (409, "Sandbox state change in progress")
    running.manager.set_state(running.manager.find(sandbox["id"]), "started")
    await running.delete(sandbox)


async def test_wrong_states_are_refused(running: Running) -> None:
    """Each move has its precondition."""
    sandbox = await running.create()
    path = f"/sandbox/{sandbox['id']}"
    assert (await running.call("POST", f"{path}/start"))[0] == 200
    assert (await running.call("POST", f"{path}/archive"))[0] == 400
    assert (await running.call("POST", f"{path}/recover"))[0] == 400
    await running.call("POST", f"{path}/stop")
    for what in ("stop", "pause", "fork"):
        assert (await running.call("POST", f"{path}/{what}"))[0] == 400, what
    await running.delete(sandbox)


async def test_archived_sandbox_comes_back_with_its_files(running: Running) -> None:
    """stop, archive, start: the file is still there."""
    sandbox = await running.create()
    path = f"/sandbox/{sandbox['id']}"
    await running.run(sandbox, "echo old > note")
    await running.call("POST", f"{path}/stop")
    status, archived = await running.call("POST", f"{path}/archive")
    assert (status, archived["state"], archived["backupState"]) == (200, "archived", "Completed")
    _, started = await running.call("POST", f"{path}/start")
    assert started["state"] == "started"
    assert await running.run(sandbox, "cat note") == (0, "old\n")
    await running.delete(sandbox)


async def test_paused_processes_go_on_where_they_were(running: Running) -> None:
    """Pause freezes a running program, start thaws it: it is the same process."""
    sandbox = await running.create()
    path = f"/sandbox/{sandbox['id']}"
    _, pid = await running.run(sandbox, "sleep 1000 >/dev/null 2>&1 & echo $!")
    _, paused = await running.call("POST", f"{path}/pause")
    assert paused["state"] == "paused"
    async with running.http.get(f"{running.base}/toolbox/{sandbox['id']}/version") as answer:
        assert answer.status == 400
    _, resumed = await running.call("POST", f"{path}/start")
    assert resumed["state"] == "started"
    assert (await running.run(sandbox, f"kill -0 {pid.strip()}"))[0] == 0
    await running.delete(sandbox)


async def test_fork_copies_files_and_lives_on_its_own(running: Running) -> None:
    """A fork has the files of its moment; later changes stay apart."""
    sandbox = await running.create(labels={"who": "parent"})
    await running.run(sandbox, "echo one > f; ln -s f link; chmod 600 f")
    status, child = await running.call("POST", f"/sandbox/{sandbox['id']}/fork", {"name": "child"})
    assert (status, child["state"], child["name"]) == (200, "started", "child")
    assert (await running.call("GET", f"/sandbox/{sandbox['id']}"))[1]["state"] == "started"
    await running.run(sandbox, "echo two > f")
    assert await running.run(child, "cat link; stat -c %a f") == (0, "one\n600\n")
    _, parent = await running.call("GET", "/sandbox/child/parent")
    assert parent["id"] == sandbox["id"]
    _, forks = await running.call("GET", f"/sandbox/{sandbox['id']}/forks")
    assert [item["id"] for item in forks] == [child["id"]]
    await running.delete(child)
    await running.delete(sandbox)


@pytest.mark.parametrize(
    ("state", "body", "status"),
    [
        ("started", {"cpu": 3}, 200),
        ("started", {"cpu": 1}, 400),
        ("started", {"disk": 20}, 400),
        ("started", {}, 400),
        ("started", {"cpu": 0}, 400),
        ("stopped", {"cpu": 1, "memory": 1, "disk": 11}, 200),
        ("stopped", {"disk": 1}, 400),
        ("archived", {"cpu": 4}, 400),
    ],
)
async def test_resize_rules(running: Running, state: str, body: dict[str, int], status: int) -> None:
    """Disks never shrink; a started sandbox only grows, and not its disk."""
    from daytona_kernel.local.errors import ApiError
    from daytona_kernel.local.operations import check_resize
    from daytona_kernel.local.records import SandboxRecord

    record = SandboxRecord("id", "name", 0, 0, 0, state=state)
    if status == 200:
        check_resize(record, body)
        return
    with pytest.raises(ApiError) as caught:
        check_resize(record, body)
    assert caught.value.status == status


async def test_resize_changes_the_resources(running: Running, sandbox: dict[str, Any]) -> None:
    """The answer has the new values and the old state."""
    status, answer = await running.call("POST", f"/sandbox/{sandbox['id']}/resize", {"cpu": 3, "memory": 6})
    assert (status, answer["cpu"], answer["memory"], answer["state"]) == (200, 3, 6, "started")


async def test_daemon_death_is_noticed_and_recovered(running: Running) -> None:
    """If a sandbox's processes all die, it is in error with a reason, and recover starts it again."""
    sandbox = await running.create()
    path = f"/sandbox/{sandbox['id']}"
    await running.run(sandbox, "echo here > f")
    live = running.manager.find(sandbox["id"])
    assert live.daemon is not None
    inner = live.daemon.inner_pid()
    assert inner is not None
    import os
    import signal

    exited = live.daemon.exited
    os.kill(inner, signal.SIGKILL)
    await exited
    await asyncio.sleep(0)
    assert live.move is not None
    await live.move
    _, failed = await running.call("GET", path)
    assert (failed["state"], failed["recoverable"]) == ("error", True)
    assert "ended by themselves" in failed["errorReason"]
    _, recovered = await running.call("POST", f"{path}/recover")
    assert recovered["state"] == "started"
    assert await running.run(sandbox, "cat f") == (0, "here\n")
    await running.delete(sandbox)


async def test_settings_are_stored(running: Running, sandbox: dict[str, Any]) -> None:
    """Labels, public flag and intervals: every setter answers with the sandbox that has the new value."""
    path = f"/sandbox/{sandbox['id']}"
    _, answer = await running.call("PUT", f"{path}/labels", {"labels": {"a": "1"}})
    assert answer["labels"] == {"a": "1"}
    for what, field, value in (
        ("public/true", "public", True),
        ("public/false", "public", False),
        ("autostop/33", "autoStopInterval", 33),
        ("autopause/5", "autoPauseInterval", 5),
        ("autoarchive/44", "autoArchiveInterval", 44),
        ("autodelete/55", "autoDeleteInterval", 55),
        ("autodelete/-1", "autoDeleteInterval", -1),
    ):
        status, answer = await running.call("POST", f"{path}/{what}")
        assert (status, answer[field]) == (200, value), what
    status, answer = await running.call("POST", f"{path}/ttl/60")
    assert status == 200
    assert "autoDestroyAt" in answer
    assert (await running.call("POST", f"{path}/ttl/0"))[0] == 200
    for what in ("autostop/-1", "autostop/x", "autoarchive/99999", "ttl/-2"):
        assert (await running.call("POST", f"{path}/{what}"))[0] == 400, what
    assert (await running.call("POST", f"{path}/last-activity"))[0] == 201


async def test_allow_lists_are_refused(running: Running, sandbox: dict[str, Any]) -> None:
    """What can not be enforced is not accepted in silence."""
    for body in ({"domainAllowList": "example.com"}, {"networkAllowList": "10.0.0.0/8"}):
        status, answer = await running.call("POST", f"/sandbox/{sandbox['id']}/network-settings", body)
        assert (status, "can not be enforced" in answer["message"]) == (400, True)


async def test_state_changes_are_announced_over_socket_io(running: Running) -> None:
    """A listener hears of creation and of every state, in order, before the calls answer."""
    url = f"{running.base}/api/socket.io/?transport=websocket&EIO=4"
    async with running.http.ws_connect(url, headers={"Authorization": ""}) as socket:
        hello = json.loads((await socket.receive_str())[1:])
        assert hello["upgrades"] == []
        await socket.send_str(f'40{{"token":"{running.key}"}}')
        assert (await socket.receive_str()).startswith('40{"sid"')
        sandbox = await running.create()
        await running.call("POST", f"/sandbox/{sandbox['id']}/stop")
        seen = []
        while seen[-1:] != ["stopped"]:
            name, data = json.loads((await socket.receive_str())[2:])
            body = data.get("sandbox", data)
            if body["id"] == sandbox["id"]:
                seen.append(data.get("newState", name))
        assert seen == ["sandbox.created", "started", "stopping", "stopped"]
    await running.delete(sandbox)


async def test_socket_io_refuses_a_wrong_key(running: Running) -> None:
    """The key is in the CONNECT packet; a wrong one gets a connect error and the end."""
    url = f"{running.base}/api/socket.io/?transport=websocket&EIO=4"
    async with running.http.ws_connect(url) as socket:
        await socket.receive_str()
        await socket.send_str('40{"token":"wrong"}')
        assert (await socket.receive_str()).startswith("44")
        assert (await socket.receive()).type.name in ("CLOSE", "CLOSED", "CLOSING")


async def test_many_sandboxes_at_once(running: Running) -> None:
    """Concurrent creations all succeed and are different."""
    made = await asyncio.gather(*(running.create() for _ in range(5)))
    assert len({item["id"] for item in made}) == 5
    await asyncio.gather(*(running.delete(item) for item in made))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/sandbox/none", None, 404),
        ("GET", "/nothing/here", None, 404),
        ("PATCH", "/sandbox", None, 405),
        ("GET", "/sandbox?limit=0", None, 400),
        ("GET", "/sandbox?labels=x", None, 400),
        ("GET", "/sandbox?cursor=%21", None, 400),
        ("GET", "/sandbox?sort=colour", None, 400),
    ],
)
async def test_errors_have_the_api_shape(
    running: Running, method: str, path: str, body: Any, status: int
) -> None:
    """Every refusal is JSON with a message, a status code and the path."""
    got, answer = await running.call(method, path, body)
    assert got == status
    assert set(answer) == {"path", "timestamp", "statusCode", "error", "message"}


async def test_broken_json_is_a_bad_request(running: Running) -> None:
    """Bodies that are no JSON object are refused; an empty one with a JSON content type is fine."""
    for data, status in ((b"{", 400), (b"[1]", 400), (b"\xff", 400)):
        async with running.http.post(f"{running.base}/api/sandbox", data=data) as answer:
            assert answer.status == status
    headers = {"Content-Type": "application/json"}
    async with running.http.post(f"{running.base}/api/sandbox", data=b"", headers=headers) as answer:
        assert answer.status == 200
        sandbox = await answer.json()
    await running.delete(sandbox)
