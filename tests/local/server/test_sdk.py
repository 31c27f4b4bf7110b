"""The unmodified SDK, sync and async, against a server that was started on demand."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from daytona import (
    AsyncDaytona,
    CreateSandboxFromImageParams,
    CreateSandboxFromSnapshotParams,
    CreateSnapshotParams,
    Daytona,
    DaytonaConfig,
    FileUpload,
    Image,
    Sandbox,
    SessionExecuteRequest,
    VolumeMount,
)
from daytona.common.errors import DaytonaError, DaytonaNotFoundError

from daytona_kernel.local import launcher
from daytona_kernel.local.paths import local_paths

pytestmark = [
    # The SDK's own: a coroutine of its event client, and deprecations inside its generated models.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[launcher.LocalServer]:
    """A server of this module's own, in its own process."""
    paths = local_paths({"DAYTONA_LOCAL_DIR": str(tmp_path_factory.mktemp("local"))})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAYTONA_LOCAL_DIR", str(paths.runtime_dir.parent))
        yield launcher.ensure_running(paths)
        launcher.stop(paths)


@pytest.fixture(scope="module")
def config(server: launcher.LocalServer) -> DaytonaConfig:
    return DaytonaConfig(api_key=server.api_key, api_url=server.api_url, target="local")


@pytest.fixture(scope="module")
def daytona(config: DaytonaConfig) -> Iterator[Daytona]:
    client = Daytona(config)
    yield client
    # It has no method for that. Its thread would look for this server for as long as the tests run.
    client._event_dispatcher.disconnect()


@pytest.fixture(scope="module")
def box(daytona: Daytona) -> Iterator[Sandbox]:
    """The sandbox that most tests share."""
    box = daytona.create(CreateSandboxFromSnapshotParams(language="python"), timeout=120)
    yield box
    box.delete()


def test_sandbox_has_what_the_sdk_shows(box: Sandbox) -> None:
    """Identity, state, resources, times."""
    assert box.id
    assert box.name
    assert box.organization_id
    assert box.state == "started"
    assert min(box.cpu, box.memory, box.disk) > 0
    assert box.created_at
    assert box.updated_at
    assert (box.get_user_home_dir() or "").startswith("/")
    assert (box.get_work_dir() or "").startswith("/")


def test_settings_round_trip(box: Sandbox) -> None:
    """Labels and intervals are what was set, also after a refresh."""
    assert box.set_labels({"env": "test"})["env"] == "test"
    box.set_autostop_interval(30)
    box.set_auto_archive_interval(60)
    box.set_auto_delete_interval(90)
    box.refresh_data()
    assert (box.auto_stop_interval, box.auto_archive_interval, box.auto_delete_interval) == (30, 60, 90)
    box.set_auto_delete_interval(-1)
    box.refresh_activity()
    box.refresh_data()
    assert box.auto_delete_interval == -1


def test_sandboxes_are_found(daytona: Daytona, box: Sandbox) -> None:
    """By id, and in the list."""
    assert daytona.get(box.id).id == box.id
    assert box.id in [item.id for item in daytona.list()]
    with pytest.raises(DaytonaNotFoundError):
        daytona.get("no-such-sandbox")


def test_commands(box: Sandbox) -> None:
    """Output, cwd, environment, exit codes, merged stderr, timeout."""
    assert box.process.exec("echo hello").result.strip() == "hello"
    assert box.process.exec("pwd", cwd="/tmp").result.strip() == "/tmp"
    assert box.process.exec("echo $A", env={"A": "it's"}).result.strip() == "it's"
    assert box.process.exec("exit 42").exit_code == 42
    assert "oops" in box.process.exec("echo oops >&2").result
    assert box.process.exec("/nonexistent/program").exit_code != 0
    with pytest.raises(DaytonaError, match="timeout"):
        box.process.exec("sleep 10", timeout=1)
    assert box.process.exec("python - <<'EOF'\nprint(6 * 7)\nEOF").result.strip() == "42"
    assert box.process.code_run("print(6 * 7)").result.strip() == "42"


def test_files(box: Sandbox) -> None:
    """Upload, list, download, find, replace, permissions, move, delete; streams."""
    fs = box.fs
    fs.create_folder("work", "755")
    fs.upload_file(b"alpha beta", "work/a.txt")
    fs.upload_files([FileUpload(source=bytes(range(256)), destination="work/b.bin")])
    assert {item.name for item in fs.list_files("work")} == {"a.txt", "b.bin"}
    assert fs.get_file_info("work/a.txt").size == 10
    assert fs.download_file("work/b.bin") == bytes(range(256))
    assert b"".join(fs.download_file_stream("work/b.bin")) == bytes(range(256))
    fs.upload_file_stream(io.BytesIO(b"streamed"), "work/c.txt")
    assert fs.download_file("work/c.txt") == b"streamed"
    assert fs.find_files("work", "beta")[0].file.endswith("a.txt")
    assert [name.endswith("c.txt") for name in fs.search_files("work", "c.*").files] == [True]
    fs.replace_in_files(["work/a.txt"], "beta", "gamma")
    fs.set_file_permissions("work/a.txt", mode="600")
    fs.move_files("work/a.txt", "work/d.txt")
    assert fs.download_file("work/d.txt") == b"alpha gamma"
    fs.delete_file("work/d.txt")
    with pytest.raises(DaytonaError):
        fs.download_file("work/d.txt")


def test_signed_file_urls(box: Sandbox) -> None:
    """A URL made by the SDK downloads and uploads without a key, until the signing key is rotated."""
    box.fs.upload_file(b"signed", "signed.txt")
    url = box.download_url("signed.txt")
    assert httpx.get(url).content == b"signed"
    up = box.upload_url("signed-up.txt")
    assert httpx.post(up, files={"file": b"sent"}).status_code == 200
    assert box.fs.download_file("signed-up.txt") == b"sent"
    box.rotate_signing_key()
    assert httpx.get(url).status_code == 401
    assert httpx.get(box.download_url("signed.txt")).status_code == 200


def test_sessions(box: Sandbox) -> None:
    """A shell that remembers, its logs, and its end."""
    box.process.create_session("s1")
    box.process.execute_session_command("s1", SessionExecuteRequest(command="export X=5; cd /tmp"))
    answer = box.process.execute_session_command("s1", SessionExecuteRequest(command="echo $X $PWD"))
    assert (answer.stdout or "").strip() == "5 /tmp"
    assert "s1" in [item.session_id for item in box.process.list_sessions()]
    box.process.delete_session("s1")


def test_interpreter(box: Sandbox) -> None:
    """State persists in a context; contexts are apart; errors are reported."""
    run = box.code_interpreter.run_code
    run("x = 41")
    assert run("print(x + 1)").stdout.strip() == "42"
    context = box.code_interpreter.create_context()
    error = run("print(x)", context=context).error
    assert error is not None
    assert error.name == "NameError"
    assert context.id in [item.id for item in box.code_interpreter.list_contexts()]
    box.code_interpreter.delete_context(context)


def test_stop_start_archive_and_back(daytona: Daytona) -> None:
    """Files persist over stop, archive and start; each call returns when the state is reached."""
    box = daytona.create()
    box.fs.upload_file(b"kept", "kept.txt")
    box.stop()
    assert box.state == "stopped"
    box.archive()
    assert box.state in ("archived", "archiving")
    box.start()
    assert box.state == "started"
    assert box.fs.download_file("kept.txt") == b"kept"
    box.delete(wait=True)
    with pytest.raises(DaytonaNotFoundError):
        daytona.get(box.id)


def test_fork_and_snapshot(daytona: Daytona, box: Sandbox) -> None:
    """Experimental calls of the SDK: both give working sandboxes with the files."""
    box.fs.upload_file(b"seed", "seed.txt")
    box._experimental_create_snapshot("from-sdk")
    copy = daytona.create(CreateSandboxFromSnapshotParams(snapshot="from-sdk"))
    assert copy.fs.download_file("seed.txt") == b"seed"
    copy.delete()
    snapshot = daytona.snapshot.get("from-sdk")
    daytona.snapshot.delete(snapshot)
    fork = box._experimental_fork(name="forked")
    assert fork.fs.download_file("seed.txt") == b"seed"
    fork.delete()


def test_snapshots(daytona: Daytona) -> None:
    """Listed, found, created under another name."""
    assert daytona.snapshot.list(page=1, limit=1).items
    assert daytona.snapshot.get("local-python").name == "local-python"
    made = daytona.snapshot.create(CreateSnapshotParams(name="another", image="local-python"))
    assert made.state == "active"
    daytona.snapshot.delete(made)


def test_volumes(daytona: Daytona) -> None:
    """Created on demand, mounted, shared, deleted, name used again."""
    volume = daytona.volume.get("sdk-volume", create=True)
    assert volume.name in [item.name for item in daytona.volume.list()]
    mount = VolumeMount(volume_id=volume.id, mount_path="/home/daytona/v")
    box = daytona.create(CreateSandboxFromSnapshotParams(volumes=[mount]))
    box.fs.upload_file(b"on volume", "v/f")
    box.delete()
    daytona.volume.delete(volume)
    assert volume.name not in [item.name for item in daytona.volume.list()]
    assert daytona.volume.get("sdk-volume", create=True).id != volume.id


def test_declarative_image(daytona: Daytona) -> None:
    """A Dockerfile made by the SDK is carried out, its log is streamed, packages of the host are there."""
    lines: list[str] = []
    image = (
        Image.base("python:3.11-slim")
        .env({"FLAVOUR": "plain"})
        .run_commands("echo made > /home/daytona/made")
    )
    box = daytona.create(
        CreateSandboxFromImageParams(image=image), timeout=120, on_snapshot_create_logs=lines.append
    )
    assert any("RUN" in line for line in lines)
    assert box.process.exec("cat ~/made; echo $FLAVOUR").result.split() == ["made", "plain"]
    box.delete()


def test_preview_links(box: Sandbox) -> None:
    """Standard and signed links; a signed one can be expired."""
    assert str(box.get_preview_link(8000).url).startswith("http://8000-")
    signed = box.create_signed_preview_url(8000, expires_in_seconds=60)
    box.expire_signed_preview_url(8000, signed.token)


def test_ephemeral_sandbox_vanishes_when_stopped(daytona: Daytona) -> None:
    """stop() of an ephemeral sandbox returns and the sandbox is gone."""
    box = daytona.create(CreateSandboxFromSnapshotParams(ephemeral=True))
    box.stop()
    with pytest.raises(DaytonaNotFoundError):
        daytona.get(box.id)


async def test_async_client(config: DaytonaConfig) -> None:
    """The asynchronous SDK: many lookups at once, a sandbox's life, the interpreter."""
    async with AsyncDaytona(config) as daytona:
        found = await asyncio.gather(*(daytona.get(f"none-{i}") for i in range(50)), return_exceptions=True)
        assert {type(item) for item in found} == {DaytonaNotFoundError}
        box = await daytona.create()
        seen: list[Any] = []
        result = await box.code_interpreter.run_code("print('hello')", on_stdout=seen.append)
        assert result.stdout == "hello\n"
        assert (await box.process.exec("echo $((6 * 7))")).result == "42\n"
        await box.fs.upload_file(b"x" * 1_000_000, "big")
        assert len(await box.fs.download_file("big") or b"") == 1_000_000
        await box.delete()
