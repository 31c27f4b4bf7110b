"""Snapshots, volumes, secrets, SSH records, signed file URLs, builds, configuration."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from daytona_kernel.local.dockerfile import (
    BuildError,
    parse_dockerfile,
    parse_env,
    parse_words,
    split_root_commands,
)
from daytona_kernel.local.errors import ApiError
from daytona_kernel.local.history import FIELDS
from daytona_kernel.local.toolbox_proxy import file_signature
from daytona_kernel.local.volumes import make_subpath
from daytona_kernel.local.warm_pools import WarmPoolStore

from .conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="module")


# -- snapshots -----------------------------------------------------------------------------------------------


async def test_snapshot_of_a_sandbox_makes_new_ones_with_its_files(
    running: Running, sandbox: dict[str, Any]
) -> None:
    """Files and links are there in a sandbox made from the snapshot; the source goes on."""
    await running.run(sandbox, "mkdir -p d; echo one > d/f; ln -s d/f l")
    path = f"/sandbox/{sandbox['id']}/snapshot"
    status, answer = await running.call("POST", path, {"name": "mine"})
    assert (status, answer["state"]) == (200, "started")
    _, snapshot = await running.call("GET", "/snapshots/mine")
    assert (snapshot["state"], snapshot["sourceSandboxId"]) == ("active", sandbox["id"])
    assert (await running.call("POST", path, {"name": "mine"}))[0] == 409
    made = await running.create(snapshot="mine")
    assert await running.run(made, "cat l") == (0, "one\n")
    await running.delete(made)
    assert (await running.call("DELETE", f"/snapshots/{snapshot['id']}"))[0] == 200
    assert (await running.call("GET", "/snapshots/mine"))[0] == 404
    assert (await running.call("POST", "/sandbox", {"snapshot": "mine"}))[0] == 400


async def test_snapshots_are_listed_in_pages(running: Running) -> None:
    """The built-in ones are there from the start and can not be deleted."""
    _, body = await running.call("GET", "/snapshots?page=1&limit=1")
    assert (len(body["items"]), body["page"], body["total"] >= 2, body["totalPages"] >= 2) == (
        1,
        1,
        True,
        True,
    )
    assert (await running.call("GET", "/snapshots/local-python"))[1]["general"] is True
    assert (await running.call("DELETE", "/snapshots/local-python"))[0] == 403
    assert (await running.call("GET", "/snapshots?page=0"))[0] == 400


async def test_named_snapshot_has_its_own_resources(running: Running) -> None:
    """POST /snapshots gives a known one another name and other resources; it can be switched off and on."""
    body = {"name": "small", "imageName": "local-python", "cpu": 1, "memory": 1, "disk": 2}
    status, snapshot = await running.call("POST", "/snapshots", body)
    assert (status, snapshot["cpu"], snapshot["mem"], snapshot["disk"]) == (200, 1, 1, 2)
    made = await running.create(snapshot="small")
    assert (made["cpu"], made["memory"], made["disk"]) == (1, 1, 2)
    await running.delete(made)
    path = f"/snapshots/{snapshot['id']}"
    assert (await running.call("POST", f"{path}/activate"))[0] == 400
    assert (await running.call("POST", f"{path}/deactivate"))[0] == 204
    assert (await running.call("POST", "/sandbox", {"snapshot": "small"}))[0] == 400
    assert (await running.call("POST", f"{path}/activate"))[1]["state"] == "active"
    assert (await running.call("POST", "/snapshots", {"name": "x"}))[0] == 400


# -- volumes -------------------------------------------------------------------------------------------------


async def test_volume_is_shared_by_sandboxes_and_outlives_them(running: Running) -> None:
    """What one sandbox writes another reads; a subpath shows a part; a volume in use is not deleted."""
    status, volume = await running.call("POST", "/volumes", {"name": "shared"})
    assert (status, volume["state"]) == (200, "ready")
    assert (await running.call("POST", "/volumes", {"name": "shared"}))[0] == 400
    mount = "/home/daytona/data"
    first = await running.create(volumes=[{"volumeId": volume["id"], "mountPath": mount}])
    second = await running.create(volumes=[{"volumeId": "shared", "mountPath": mount, "subpath": "a/b"}])
    await running.run(first, "mkdir -p data/a/b; echo hello > data/a/b/f")
    assert await running.run(second, "cat data/f") == (0, "hello\n")
    assert (await running.call("DELETE", f"/volumes/{volume['id']}"))[0] == 409
    await running.delete(first)
    await running.delete(second)
    third = await running.create(volumes=[{"volumeId": volume["id"], "mountPath": mount}])
    assert await running.run(third, "cat data/a/b/f") == (0, "hello\n")
    await running.delete(third)
    assert (await running.call("GET", "/volumes/by-name/shared"))[1]["id"] == volume["id"]
    assert (await running.call("DELETE", f"/volumes/{volume['id']}"))[0] == 200
    assert (await running.call("GET", "/volumes/by-name/shared"))[0] == 404
    status, again = await running.call("POST", "/volumes", {"name": "shared"})
    assert (status, again["id"] != volume["id"]) == (200, True)


@pytest.mark.parametrize(
    ("mount", "subpath"),
    [
        ("relative", None),
        ("/", None),
        ("/etc/x", None),
        ("/usr", None),
        ("/home/../etc", None),
        ("/tmp", None),
        ("/opt/venv", None),
        ("/data", "../x"),
        ("/data", "/x"),
    ],
)
async def test_dangerous_mounts_are_refused(running: Running, mount: str, subpath: str | None) -> None:
    """A volume covers no part of the system and shows nothing outside itself."""
    await running.call("POST", "/volumes", {"name": "checked"})
    wish = {"volumeId": "checked", "mountPath": mount} | ({"subpath": subpath} if subpath else {})
    status, answer = await running.call("POST", "/sandbox", {"volumes": [wish]})
    assert (status, "invalid" in answer["message"]) == (400, True)


async def test_subpath_does_not_follow_a_sandbox_s_links(tmp_path: Any) -> None:
    """A link planted in the volume does not lead the next mount to the host."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "evil").symlink_to("/")
    with pytest.raises(ApiError, match="symbolic link"):
        make_subpath(tmp_path / "data", "evil/etc")


# -- secrets, SSH, signing keys ------------------------------------------------------------------------------


async def test_secrets_reach_sandboxes_as_placeholders(running: Running) -> None:
    """The value is never shown, neither by the API nor in the sandbox."""
    body = {"name": "token", "value": "hush-hush", "hosts": ["api.example"]}
    status, secret = await running.call("POST", "/secret", body)
    assert (status, "hush" in str(secret)) == (201, False)
    assert (await running.call("POST", "/secret", body))[0] == 409
    sandbox = await running.create(secrets=[{"API_TOKEN": "token"}])
    assert await running.run(sandbox, "printf %s $API_TOKEN") == (0, secret["placeholder"])
    await running.delete(sandbox)
    _, page = await running.call("GET", "/secret/paginated")
    assert [item["name"] for item in page["items"]] == ["token"]
    path = f"/secret/{secret['id']}"
    assert (await running.call("PATCH", path, {"description": "d"}))[1]["description"] == "d"
    assert (await running.call("DELETE", path))[0] == 204
    assert (await running.call("GET", path))[0] == 404


async def test_ssh_access_is_recorded(running: Running, sandbox: dict[str, Any]) -> None:
    """Tokens are valid until they expire or are revoked; the command says that there is no gateway."""
    path = f"/sandbox/{sandbox['id']}/ssh-access"
    _, access = await running.call("POST", path, params={"expiresInMinutes": "5"})
    check = f"/sandbox/ssh-access/validate?token={access['token']}"
    assert (await running.call("GET", check))[1] == {"valid": True, "sandboxId": sandbox["id"]}
    assert "no SSH gateway" in access["sshCommand"]
    assert (await running.call("DELETE", path, params={"token": access["token"]}))[0] == 200
    assert (await running.call("GET", check))[1] == {"valid": False, "sandboxId": ""}
    assert (await running.call("POST", path, params={"expiresInMinutes": "0"}))[0] == 400
    assert (await running.call("POST", path, params={"expiresInMinutes": "-1"}))[0] == 400


async def test_signature_is_the_documented_one() -> None:
    """The reference's own example."""
    signature = file_signature(
        "testsigningkey1234567890abcdefgh", "GET", "/home/user/report.pdf", "1781234567"
    )
    assert signature == "v1_QXoy36mypac2FAv33L7jnN44GEUx8KrdwT0vuKgKiQg"


async def test_signed_file_urls_work_without_a_key(running: Running, sandbox: dict[str, Any]) -> None:
    """For their path, method and time only, and not after the key was rotated."""
    await running.run(sandbox, "echo content > signed.txt")
    _, key = await running.call("GET", f"/sandbox/{sandbox['id']}/signing-key")
    base = f"{running.base}/toolbox/{sandbox['id']}/files"
    later = str(int(time.time()) + 60)

    def query(method: str, path: str, expires: str) -> dict[str, str]:
        return {"path": path, "expires": expires, "signature": file_signature(key, method, path, expires)}

    good = query("GET", "signed.txt", later)
    async with aiohttp.ClientSession() as stranger:
        for params, status in (
            (good, 200),
            (query("GET", "signed.txt", "0"), 200),
            (query("GET", "signed.txt", "1000"), 401),
            (query("POST", "signed.txt", later), 401),
            ({**good, "path": "other.txt"}, 401),
            ({**good, "expires": "0"}, 401),
            ({**good, "signature": "v1_x"}, 401),
        ):
            async with stranger.get(f"{base}/download", params=params) as answer:
                assert answer.status == status, params
        upload = query("POST", "up.txt", later)
        async with stranger.post(f"{base}/upload-v2", params=upload, data=b"uploaded") as answer:
            assert answer.status == 200
        async with stranger.get(f"{base}/info", params=good) as answer:
            assert answer.status == 401
        await running.call("POST", f"/sandbox/{sandbox['id']}/signing-key/rotate")
        async with stranger.get(f"{base}/download", params=good) as answer:
            assert answer.status == 401
    assert await running.run(sandbox, "cat up.txt") == (0, "uploaded")


# -- builds --------------------------------------------------------------------------------------------------

DOCKERFILE = """FROM python:3.12-slim
RUN apt-get update && apt-get install -y gcc
ENV GREETING="hello there" OTHER=1
WORKDIR /home/daytona/work
RUN echo built \\
    > built.txt
CMD ["bash"]
"""


async def wait_for_state(running: Running, sandbox_id: str, *states: str) -> dict[str, Any]:
    """Follow the state events of one sandbox."""
    live = running.manager.find(sandbox_id)
    assert live.move is not None
    await asyncio.wait_for(asyncio.shield(live.move), 60)
    _, body = await running.call("GET", f"/sandbox/{sandbox_id}")
    assert body["state"] in states, body
    return body


async def test_image_is_built_inside_the_sandbox_with_a_log(running: Running) -> None:
    """The first answer is pending_build, the log streams to its end, the steps took effect."""
    status, made = await running.call(
        "POST", "/sandbox", {"buildInfo": {"dockerfileContent": DOCKERFILE}, "cpu": 1}
    )
    assert (status, made["state"], made["cpu"]) == (200, "pending_build", 1)
    _, where = await running.call("GET", f"/sandbox/{made['id']}/build-logs-url")
    async with running.http.get(where["url"], params={"follow": "true"}) as answer:
        log = await answer.text()
    assert "Step 1/6 : FROM python:3.12-slim" in log
    assert "skipped, needs root: apt-get update" in log
    assert log.rstrip().endswith("Successfully built")
    await wait_for_state(running, made["id"], "started")
    assert await running.run(made, "cat built.txt; echo $GREETING") == (0, "built\nhello there\n")
    await running.delete(made)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("FROM python:3.11\nRUN echo why; exit 3", "ended with 3"),
        ("FROM python:3.11\nCOPY a b", "COPY is not supported"),
        ("RUN true", "FROM"),
        ("FROM python:3.11\nDANCE now", "unknown instruction"),
        ("", "FROM"),
    ],
)
async def test_failed_build_says_why(running: Running, text: str, word: str) -> None:
    """build_failed with the step in errorReason, and in the log."""
    _, made = await running.call("POST", "/sandbox", {"buildInfo": {"dockerfileContent": text}})
    failed = await wait_for_state(running, made["id"], "build_failed")
    assert word in failed["errorReason"]
    await running.delete(made)


async def built_snapshot(running: Running, name: str, steps: str) -> tuple[dict[str, Any], str]:
    """Build a snapshot; how it is then, and the log."""
    body = {"name": name, "buildInfo": {"dockerfileContent": steps}, "cpu": 1}
    status, made = await running.call("POST", "/snapshots", body)
    assert (status, made["state"]) == (200, "building"), made
    _, where = await running.call("GET", f"/snapshots/{made['id']}/build-logs-url")
    async with running.http.get(where["url"], params={"follow": "true"}) as answer:
        log = await answer.text()
    await running.server.state.builds.wait(made["id"])
    return (await running.call("GET", f"/snapshots/{made['id']}"))[1], log


async def test_snapshot_built_from_an_image_gives_sandboxes_what_its_steps_made(running: Running) -> None:
    """Files, environment, work directory, entrypoint and resources; again as the base of another image."""
    steps = DOCKERFILE.replace('CMD ["bash"]', 'ENTRYPOINT ["sh", "-c", "echo $GREETING from $PWD"]')
    made, log = await built_snapshot(running, "image", steps)
    assert (made["state"], made["cpu"], made["errorReason"]) == ("active", 1, None), log
    assert log.rstrip().endswith("Successfully built")
    box = await running.create(snapshot="image", env={"OTHER": "mine"})
    work_dir = running.manager.find(box["id"]).record.work_dir
    assert work_dir.endswith("/work")
    shown = await running.run(box, "pwd; cat built.txt; echo $GREETING $OTHER")
    assert shown == (0, f"{work_dir}\nbuilt\nhello there mine\n")
    url = f"{running.base}/toolbox/{box['id']}/process/session/entrypoint/logs?follow=true"
    async with running.http.ws_connect(url) as logs:
        said = b"".join([message.data async for message in logs])
    assert f"hello there from {work_dir}\n".encode() in said
    await running.delete(box)
    again, log = await built_snapshot(running, "again", "FROM image\nRUN cat built.txt")
    assert again["state"] == "active", log
    for snapshot in (made, again):
        assert (await running.call("DELETE", f"/snapshots/{snapshot['id']}"))[0] == 200
        assert not (running.server.options.paths.state_dir / "snapshots" / snapshot["id"]).exists()


async def test_snapshot_whose_build_fails_says_why_and_leaves_no_sandbox_behind(running: Running) -> None:
    """build_failed with the step, in the log too; no sandbox is made from it; its workshop is gone."""
    made, log = await built_snapshot(running, "bad", "FROM python:3.11\nRUN exit 4")
    assert made["state"] == "build_failed"
    assert "ended with 4" in made["errorReason"]
    assert "ERROR: RUN exit 4" in log
    assert (await running.call("POST", "/sandbox", {"snapshot": "bad"}))[0] == 400
    known = {sandbox.record.id for sandbox in running.manager}
    left = {path.name for path in running.server.options.paths.state_dir.glob("sandboxes/*")}
    assert not left - known - set(running.manager.pool.ids)
    assert (await running.call("DELETE", f"/snapshots/{made['id']}"))[0] == 200


async def test_snapshot_can_be_deleted_while_it_is_built(running: Running) -> None:
    """The build is broken off, with its processes, and its log ends."""
    body = {"name": "slow", "buildInfo": {"dockerfileContent": "FROM python:3.11\nRUN sleep 1000"}}
    _, made = await running.call("POST", "/snapshots", body)
    _, where = await running.call("GET", f"/snapshots/{made['id']}/build-logs-url")
    async with running.http.get(where["url"], params={"follow": "true"}) as answer:
        assert b"Step 1/2" in await answer.content.readany()
        assert (await running.call("DELETE", f"/snapshots/{made['id']}"))[0] == 200
        await answer.read()
    assert (await running.call("GET", "/snapshots/slow"))[0] == 404


async def test_snapshot_of_a_build_that_a_server_did_not_finish_has_failed(running: Running) -> None:
    """Read again, it says that it failed and why."""
    made, _ = await built_snapshot(running, "unfinished", "FROM python:3.11")
    snapshots = running.server.state.snapshots
    record = snapshots.find(made["id"])
    record.state = "building"
    snapshots.save(record)
    snapshots.load()
    _, seen = await running.call("GET", "/snapshots/unfinished")
    assert (seen["state"], seen["errorReason"]) == ("build_failed", "the server ended during the build")


async def test_dockerfile_is_read_as_docker_does() -> None:
    """Comments, continued lines, lower case; ENV in both forms."""
    steps = parse_dockerfile("# c\nARG X=1\nfrom a\nRUN one && \\\n  two\n\nenv A=1")
    assert [word for word, _ in steps] == ["ARG", "FROM", "RUN", "ENV"]
    assert steps[2][1].split() == ["one", "&&", "two"]
    assert parse_env("A=1 B='x y' C=\"z\"") == {"A": "1", "B": "x y", "C": "z"}
    assert parse_env("A some words") == {"A": "some words"}
    assert parse_words('["a", "b c"]') == ["a", "b c"]
    assert parse_words("a | b") == ["/bin/sh", "-c", "a | b"]
    assert split_root_commands("apt-get update && mkdir x && sudo apt install y") == (
        ["mkdir x"],
        ["apt-get update", "sudo apt install y"],
    )
    for wrong in ("FROM a\n!x y", "# nothing", "RUN x"):
        with pytest.raises(BuildError):
            parse_dockerfile(wrong)
    with pytest.raises(BuildError):
        parse_words("[1]")


# -- the rest ------------------------------------------------------------------------------------------------


async def test_config_has_what_clients_need(running: Running) -> None:
    """All required fields, with the way to the toolbox, and the isolation for those who look."""
    status, body = await running.call("GET", "/config")
    assert (status, body["proxyToolboxUrl"]) == (200, f"{running.base}/toolbox")
    assert body["localIsolation"] in ("bubblewrap", "none")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/object-storage/push-access", 503),
        ("GET", "/warm-pools", 200),
        ("POST", "/warm-pools", 400),
        ("PATCH", "/warm-pools/x", 404),
        ("DELETE", "/warm-pools/x", 404),
        ("GET", "/volumes/none", 404),
        ("GET", "/snapshots/none", 404),
    ],
)
async def test_what_is_not_here_is_said(running: Running, method: str, path: str, status: int) -> None:
    """Endpoints without a local meaning answer with a reason instead of pretending."""
    got, body = await running.call(method, path)
    assert got == status
    assert body is not None


async def test_warm_pool_keeps_spare_sandboxes_ready(running: Running) -> None:
    """Its size is the server's; what spares do not suit, too many, and a second one are refused."""
    refused = {"local-python-bare": 422, "none": 404}
    for snapshot, status in refused.items():
        assert (await running.call("POST", "/warm-pools", {"snapshot": snapshot, "pool": 2}))[0] == status
    wish = {"snapshot": "daytona-small", "pool": 2}
    assert (await running.call("POST", "/warm-pools", {**wish, "pool": 100}))[0] == 400
    status, made = await running.call("POST", "/warm-pools", wish)
    assert (status, made["pool"], made["cpu"]) == (201, 2, 1)
    assert (await running.call("POST", "/warm-pools", wish))[0] == 409
    while (await running.call("GET", "/warm-pools"))[1][0]["currentSize"] < 2:
        await asyncio.sleep(0.05)
    reread = WarmPoolStore(
        running.server.options.paths.state_dir / "warm-pools.json",
        running.server.state.snapshots,
        running.manager.pool,
        default_bare=False,
    )
    reread.load()
    assert [pool["id"] for pool in reread.all()] == [made["id"]]
    path = f"/warm-pools/{made['id']}"
    assert (await running.call("PATCH", path, {"pool": 0}))[1]["pool"] == 0
    assert (await running.call("DELETE", path))[0] == 204
    assert (await running.call("GET", "/warm-pools"))[1] == []


async def test_metrics_of_the_past_are_samples_of_a_started_sandbox(
    running: Running, sandbox: dict[str, Any]
) -> None:
    """All that the SDK asks for, at each sample's time; none outside the range; unknown names have none."""
    path = f"/sandbox/{sandbox['id']}/telemetry/metrics"
    while len(running.server.state.history.of(sandbox["id"])) < 1:
        await asyncio.sleep(0.05)
    await running.server.state.history.tick(running.manager, float("inf"))
    _, body = await running.call("GET", path)
    points = {one["metricName"]: one["dataPoints"] for one in body["series"]}
    assert set(points) == set(FIELDS)
    assert all(len(found) == 2 and found[1]["value"] >= 0 for found in points.values())
    assert points["daytona.sandbox.memory.limit"][0]["value"] > 2**20
    _, body = await running.call(
        "GET", f"{path}?to=2026-01-01T00:00:00Z&metricNames=x&metricNames={next(iter(FIELDS))}"
    )
    assert [one["dataPoints"] for one in body["series"]] == [[], []]
    assert (await running.call("GET", f"{path}?from=yesterday"))[0] == 400
