"""Attempts to break out of a sandbox, one for each promise. They need bubblewrap."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from daytona_kernel.local import volumes
from daytona_kernel.local.isolation import has_password
from daytona_kernel.local.keyring import KEYCTL, leave_session_keyring
from daytona_kernel.local.volumes import make_subpath

from .conftest import Running, close_server, open_server

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.bwrap,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
]

SECRET = "secret-of-the-host"
ADD_KEY = KEYCTL.get(platform.machine(), 0) - 2
"""The system call before ``request_key`` and ``keyctl``, on every machine."""
SESSION_KEYRING = -3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A server with bubblewrap whose own environment has a secret, and whose session's keyring, too."""
    os.environ["HOST_SECRET"] = SECRET
    if leave_session_keyring():  # so that it is a keyring of this process alone
        libc = ctypes.CDLL(None)
        libc.syscall(ADD_KEY, b"user", b"name", SECRET.encode(), len(SECRET), SESSION_KEYRING)
    running = await open_server(tmp_path_factory.mktemp("local"), isolation="bubblewrap")
    yield running
    await close_server(running)
    del os.environ["HOST_SECRET"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbour(running: Running) -> dict[str, Any]:
    """Another sandbox of the same user."""
    return await running.create()


def own_network(running: Running) -> None:
    """Skip where sandboxes share the host's network."""
    if not running.manager.isolation.own_network:
        pytest.skip("sandboxes share the host's network here (slirp4netns is missing)")


async def test_sandbox_says_that_it_is_isolated(running: Running, sandbox: dict[str, Any]) -> None:
    """The SDK's object shows it (daemon_version), and the server's status."""
    assert sandbox["daemonVersion"].endswith("+local.bubblewrap")
    _, config = await running.call("GET", "/config")
    assert config["localIsolation"] == "bubblewrap"


async def test_files_of_the_user_are_not_there(
    running: Running, sandbox: dict[str, Any], tmp_path: Path
) -> None:
    """Neither the host's home, nor its temporary files, nor the server's key, nor shadow passwords."""
    (tmp_path / "note").write_text(SECRET)
    paths = running.server.options.paths
    for path in (
        tmp_path / "note",
        paths.server_file,
        paths.state_dir,
        Path("/etc/shadow"),
        Path("/etc/ssh"),
    ):
        assert path.exists() or str(path).startswith("/etc/"), path
        code, output = await running.run(sandbox, f"ls {path}; cat {path}")
        assert code != 0, path
        assert SECRET not in output
    home = Path.home()
    _, listing = await running.run(sandbox, f"ls -A {home} {home}/.ssh 2>/dev/null")
    assert ".ssh" not in listing
    assert ".bash_history" not in listing


async def test_environment_of_the_host_does_not_leak(running: Running, sandbox: dict[str, Any]) -> None:
    """Not into the programs, and not into anything that can be read through /proc."""
    _, output = await running.run(
        sandbox, "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'"
    )
    assert "DAYTONA_SANDBOX_ID" in output
    assert SECRET not in output
    assert running.key not in output
    assert str(running.server.options.paths.state_dir) not in output


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("[global]\nindex-url = https://ada:hush@index.example/simple\n", True),
        ("[global]\nindex-url = https://:hush@index.example/simple\n", True),
        ("proxy_password = hush\n", True),
        ("http_passwd=hush", True),
        ('[url "git@github.com:"]\n insteadOf = https://github.com/\n', False),
        ("[global]\nindex-url = https://index.example:8443/simple\ntimeout = 60\n", False),
        ("# password = \n[http]\nsslCAInfo = /etc/ssl/certs/ca.crt\n", False),
    ],
)
async def test_settings_with_a_password_are_not_shown(tmp_path: Path, text: str, secret: bool) -> None:
    (tmp_path / "pip.conf").write_text(text)
    assert has_password(str(tmp_path / "pip.conf")) is secret
    assert not has_password(str(tmp_path / "none"))


READ_KEYS = """
import ctypes, struct
libc, keyctl, text = ctypes.CDLL(None), NUMBER, ctypes.create_string_buffer(1000)
ring = libc.syscall(keyctl, 0, -3, 0)
print("keyring", ring)
size = libc.syscall(keyctl, 11, ring, text, 1000)
for key in struct.unpack(f"{size // 4}i", text.raw[:size]) if size > 0 else ():
    libc.syscall(keyctl, 11, key, text, 1000)
    print(text.value.decode("latin-1"))
"""


async def test_keys_of_the_session_stay_there(running: Running, sandbox: dict[str, Any]) -> None:
    """A process has the keyring that its parents had: not the one of whoever started the server."""
    code = READ_KEYS.replace("NUMBER", str(ADD_KEY + 2))
    _, output = await running.run(sandbox, f"python3 -c '{code}'")
    if "keyring -1" in output:
        pytest.skip("there are no keyrings here")
    assert "keyring" in output
    assert SECRET not in output


async def test_a_link_that_comes_before_the_mount_shows_nothing_of_the_host(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another sandbox with the volume may put it there at any time; a quick one won every third time."""
    (tmp_path / "note").write_text(SECRET)

    def looked_at(data: Path, subpath: str) -> tuple[int, int]:
        found = make_subpath(data, subpath)
        (data / subpath).rename(data / "old")
        (data / subpath).symlink_to(tmp_path)
        return found

    monkeypatch.setattr(volumes, "make_subpath", looked_at)
    _, volume = await running.call("POST", "/volumes", {})
    wish = {"volumeId": volume["id"], "mountPath": "/home/daytona/shared", "subpath": "part"}
    _, made = await running.call("POST", "/sandbox", {"volumes": [wish]})
    assert (made["state"], "is not the volume" in str(made.get("errorReason"))) == ("error", True)
    await running.delete(made)


async def test_processes_of_the_host_can_not_be_seen_or_signalled(
    running: Running, sandbox: dict[str, Any]
) -> None:
    """A host process survives kill -9 from inside, and is not in /proc."""
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        code, _ = await running.run(sandbox, f"kill -9 {victim.pid}")
        assert code != 0
        _, count = await running.run(sandbox, "ls -d /proc/[0-9]* | wc -l")
        assert int(count) < 20
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


async def test_system_is_read_only(running: Running, sandbox: dict[str, Any]) -> None:
    """Programs, the host's Python, kernel settings can not be written; namespaces can not be made."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    for command in (
        "touch /usr/bin/x",
        "touch /etc/passwd",
        "echo x >> /etc/passwd",
        "echo hacked > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo 1 > /sys/devices/system/cpu/cpu0/power/control",
        "mount -t tmpfs none /mnt",
        "unshare -U true",
        "chroot / true",
        "touch \"$(python -c 'import numpy; print(numpy.__path__[0])')/x\"",
        "cat /dev/mem /dev/vda /dev/sda",
        "dmesg",
    ):
        code, output = await running.run(sandbox, command)
        assert code != 0, (command, output)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


async def test_cores_of_the_machine_can_be_counted(running: Running, sandbox: dict[str, Any]) -> None:
    """joblib counts them, and shows a warning with the first model of scikit-learn if it finds none."""
    cores = "/sys/devices/system/cpu"
    if not os.path.isdir(cores):
        pytest.skip("this machine has no /sys")
    _, seen = await running.run(sandbox, f"ls {cores}")
    assert set(seen.split()) == set(os.listdir(cores))


async def test_neighbours_do_not_see_each_other(
    running: Running, sandbox: dict[str, Any], neighbour: dict[str, Any]
) -> None:
    """Files with the same names are different files, and processes are invisible."""
    await running.run(sandbox, "echo mine > /tmp/f; echo mine > ~/f; sleep 4321 >/dev/null 2>&1 &")
    _, output = await running.run(neighbour, "cat /tmp/f ~/f; ls -A ~ /tmp; pgrep -f 'sleep 4321'")
    assert "mine" not in output
    _, processes = await running.run(neighbour, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "4321" not in processes
    state = running.server.options.paths.state_dir
    code, _ = await running.run(neighbour, f"ls {state}/sandboxes/{sandbox['id']}")
    assert code != 0


async def test_ports_are_each_sandbox_s_own(
    running: Running, sandbox: dict[str, Any], neighbour: dict[str, Any]
) -> None:
    """Two sandboxes serve on the same port, and neither reaches the other's."""
    own_network(running)
    listen = "import socket, time; s = socket.create_server(('0.0.0.0', 8123))"
    listen += "; print('up', flush=True); time.sleep(999)"
    for each in (sandbox, neighbour):
        await running.run(each, f'python -c "{listen}" > ~/up 2>&1 &')
        code, _ = await running.run(
            each, "for i in $(seq 200); do grep -q up ~/up && exit 0; sleep 0.05; done; exit 1"
        )
        assert code == 0
    await running.run(neighbour, "pkill -f 8123")
    code, _ = await running.run(neighbour, "exec 3<>/dev/tcp/127.0.0.1/8123")
    assert code != 0
    code, _ = await running.run(sandbox, "bash -c 'exec 3<>/dev/tcp/127.0.0.1/8123'")
    assert code == 0
    await running.run(sandbox, "pkill -f 8123")


async def test_server_is_out_of_reach_from_inside(running: Running, sandbox: dict[str, Any]) -> None:
    """With a network of its own a sandbox can not even connect; otherwise it has no key."""
    port = running.server.state.port
    url = f"http://127.0.0.1:{port}/api/sandbox"
    probe = f"python -c \"import urllib.request as u; u.urlopen('{url}', timeout=5)\""
    code, output = await running.run(sandbox, probe)
    assert code != 0
    assert ("refused" if running.manager.isolation.own_network else "401") in output


async def test_host_services_on_loopback_are_out_of_reach(running: Running, sandbox: dict[str, Any]) -> None:
    """A server on the host's 127.0.0.1 can be reached neither there nor through the gateway."""
    own_network(running)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "10.0.2.2"):
            code, _ = await running.run(sandbox, f"timeout 5 bash -c 'exec 3<>/dev/tcp/{host}/{port}'")
            assert code != 0


@pytest.mark.parametrize("network", ["auto", "shared"])
async def test_blocked_network_is_blocked(tmp_path: Path, network: str) -> None:
    """No route leads out, names do not resolve, and loopback still works inside."""
    running = await open_server(tmp_path, isolation="bubblewrap", network=network, pool_size=0)
    try:
        sandbox = await running.create(networkBlockAll=True)
        assert sandbox["networkBlockAll"] is True
        _, interfaces = await running.run(sandbox, "cat /proc/net/route; ls /sys/class/net 2>/dev/null")
        assert len(interfaces.splitlines()) <= 1
        for address in ("1.1.1.1/53", "10.0.2.3/53", "10.0.2.2/80"):
            _, output = await running.run(sandbox, f"bash -c 'exec 3<>/dev/tcp/{address}'")
            assert "unreachable" in output, output
        script = (
            "import socket as s; l = s.create_server(('127.0.0.1', 0)); s.create_connection(l.getsockname())"
        )
        assert (await running.run(sandbox, f'python -c "{script}"'))[0] == 0
    finally:
        await close_server(running)


async def test_network_can_be_cut_and_restored_while_running(running: Running) -> None:
    """networkBlockAll works on a started sandbox when it has a network of its own; its processes stay."""
    own_network(running)
    sandbox = await running.create()
    path = f"/sandbox/{sandbox['id']}/network-settings"
    _, route = await running.run(sandbox, "wc -l < /proc/net/route")
    assert int(route) > 1
    status, answer = await running.call("POST", path, {"networkBlockAll": True})
    assert (status, answer["networkBlockAll"]) == (200, True)
    code, _ = await running.run(sandbox, "timeout 3 bash -c 'exec 3<>/dev/tcp/10.0.2.3/53'")
    assert code != 0
    await running.call("POST", path, {"networkBlockAll": False})
    code, _ = await running.run(sandbox, "timeout 3 bash -c 'exec 3<>/dev/tcp/10.0.2.3/53'")
    assert code == 0
    await running.delete(sandbox)


async def test_fork_bomb_stays_small(running: Running, neighbour: dict[str, Any]) -> None:
    """A sandbox can not make more than its share of processes, and others go on working."""
    if os.geteuid() == 0 and "pids" not in running.manager.limiter.enforced:
        pytest.skip("neither the pids control group nor RLIMIT_NPROC (ignored for root) is usable here")
    sandbox = await running.create()
    script = (
        "import os, time\nmade = 0\ntry:\n for _ in range(4000):\n"
        "  if os.fork() == 0: time.sleep(60); os._exit(0)\n  made += 1\n"
        "except BlockingIOError: print('stopped', made, flush=True)\nos.killpg(0, 9)"
    )
    await running.run(sandbox, f"cat > bomb.py <<'EOF'\n{script}\nEOF")
    _, output = await running.run(sandbox, "setsid python bomb.py 2>&1 || true", timeout=60)
    assert output.startswith("stopped"), output
    assert int(output.split()[1]) < 2100
    assert (await running.run(neighbour, "true"))[0] == 0
    await running.delete(sandbox)


async def test_memory_is_limited(running: Running, neighbour: dict[str, Any]) -> None:
    """A process that takes more than the sandbox's memory fails or is killed; others live on."""
    sandbox = await running.create()
    path = f"/sandbox/{sandbox['id']}"
    await running.call("POST", f"{path}/stop")
    _, resized = await running.call("POST", f"{path}/resize", {"memory": 1})
    assert resized["memory"] == 1
    await running.call("POST", f"{path}/start")
    code, output = await running.run(sandbox, 'python -c "b = bytearray(1500 << 20); print(6 * 7)"')
    assert "42" not in output
    assert code != 0
    assert (await running.run(sandbox, "echo alive"))[1] == "alive\n"
    assert (await running.run(neighbour, "true"))[0] == 0
    await running.delete(sandbox)


async def test_file_can_not_be_larger_than_the_disk(running: Running, sandbox: dict[str, Any]) -> None:
    """One file over the sandbox's disk size is refused by the kernel."""
    code, _ = await running.run(sandbox, "truncate -s 11G huge")
    assert code != 0
    assert await running.run(sandbox, "stat -c %s huge") == (0, "0\n")


async def test_links_left_behind_do_not_lead_the_server_out(running: Running, tmp_path: Path) -> None:
    """What a sandbox plants where the server writes at the next start never touches the host's files."""
    victim, absent = tmp_path / "victim", tmp_path / "absent"
    victim.write_text("untouched")
    sandbox = await running.create()
    await running.run(
        sandbox,
        f"cd /opt/venv; ln -sf {victim} pyvenv.cfg; ln -sf {victim} bin/pip; ln -sf {absent} bin/pip3; "
        f"rm -rf lib bin/python; ln -s {tmp_path} lib; ln -s {victim} bin/python; "
        f"rm -f /lib64; ln -s {tmp_path} /lib64; rm -rf /bin; ln -s {tmp_path} /bin; ln -s {tmp_path} /opt/x",
    )
    path = f"/sandbox/{sandbox['id']}"
    await running.call("POST", f"{path}/stop", params={"force": "true"})
    _, started = await running.call("POST", f"{path}/start")
    assert started["state"] == "started"
    assert (await running.run(sandbox, "python -c 'print(1)'")) == (0, "1\n")
    assert victim.read_text() == "untouched"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["victim"]
    await running.delete(sandbox)


async def test_link_in_place_of_a_mount_point_stops_the_start(running: Running, tmp_path: Path) -> None:
    """A volume is not mounted through a link that the sandbox planted."""
    _, volume = await running.call("POST", "/volumes", {"name": "planted"})
    sandbox = await running.create(volumes=[{"volumeId": volume["id"], "mountPath": "/data/v"}])
    assert (await running.run(sandbox, "echo x > /data/v/f"))[0] == 0
    path = f"/sandbox/{sandbox['id']}"
    live = running.manager.find(sandbox["id"])
    await running.call("POST", f"{path}/stop")
    shutil.rmtree(live.files / "root" / "data")
    (live.files / "root" / "data").symlink_to(tmp_path)
    _, failed = await running.call("POST", f"{path}/start")
    assert failed["state"] == "error"
    assert "link" in failed["errorReason"]
    assert list(tmp_path.iterdir()) == []
    await running.delete(sandbox)


async def test_removal_follows_no_links(running: Running, tmp_path: Path) -> None:
    """Deleting a sandbox with links to the host and locked directories removes its own files only."""
    (tmp_path / "keep").write_text("kept")
    tmp_path.chmod(0o755)
    sandbox = await running.create()
    await running.run(
        sandbox, f"ln -s {tmp_path} link; mkdir -p a/b; touch a/b/c; chmod 000 a/b; chmod 500 a"
    )
    directory = running.manager.find(sandbox["id"]).directory
    await running.delete(sandbox)
    assert not directory.exists()
    assert (tmp_path / "keep").read_text() == "kept"
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def write_wheel(path: Path) -> None:
    """A tiny package."""
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinypkg.py", "ANSWER = 42\n")
        info = "tinypkg-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


async def test_pip_install_works_and_stays_private(
    running: Running, sandbox: dict[str, Any], neighbour: dict[str, Any]
) -> None:
    """A package installed in one sandbox is there, survives a restart, and is nowhere else."""
    live = running.manager.find(sandbox["id"])
    write_wheel(live.files / "home" / "tinypkg-1.0-py3-none-any.whl")
    code, output = await running.run(
        sandbox, "pip install --no-index --no-deps ./tinypkg-1.0-py3-none-any.whl"
    )
    assert code == 0, output
    show = "python -c 'import tinypkg; print(tinypkg.ANSWER)'"
    assert await running.run(sandbox, show) == (0, "42\n")
    assert (await running.run(neighbour, show))[0] != 0
    await running.call("POST", f"/sandbox/{sandbox['id']}/stop")
    await running.call("POST", f"/sandbox/{sandbox['id']}/start")
    assert await running.run(sandbox, show) == (0, "42\n")


async def test_python_has_the_host_s_packages_unless_bare(running: Running) -> None:
    """The default sandbox imports what the host has; the bare one does not, but has pip."""
    default, bare = await running.create(), await running.create(snapshot="local-python-bare")
    find = "python3 -c 'import aiohttp, sys; print(sys.prefix)'"
    assert await running.run(default, find) == (0, "/opt/venv\n")
    assert (await running.run(bare, find))[0] != 0
    # A program that runs in the sandbox finds nbconvert's templates below sys.prefix.
    templates = "python3 -c 'from nbconvert import HTMLExporter; HTMLExporter(); print(5)'"
    assert await running.run(default, templates) == (0, "5\n")
    code, output = await running.run(bare, "python -m pip --version; which python python3 pip bash")
    assert (code, "/opt/venv/bin/pip" in output) == (0, True)
    for each in (default, bare):
        await running.delete(each)


def other_pythons() -> list[str]:
    """Interpreters of other versions that this machine has; pyenv's wherever HOME is in this run."""
    places = {Path(sys.base_prefix).parent, Path.home() / ".pyenv" / "versions"}
    candidates = [path for place in places for path in place.glob("3.1[0-9].*/bin/python")]
    candidates += Path("/usr/bin").glob("python3.1[0-9]")
    return sorted(map(str, candidates)) or [os.path.realpath(sys.executable)]


@pytest.mark.parametrize("python", other_pythons())
async def test_sandbox_from_another_interpreter(running: Running, python: str) -> None:
    """``python:PATH`` makes the user's Python that one, whatever the server runs on; contexts work."""
    wanted = subprocess.check_output([python, "-c", "import sys; print(sys.version.split()[0])"], text=True)
    sandbox = await running.create(snapshot=f"python:{python}")
    assert await running.run(sandbox, "python -c 'import sys; print(sys.version.split()[0])'") == (0, wanted)
    url = f"{running.base}/toolbox/{sandbox['id']}/process/interpreter/execute"
    async with running.http.ws_connect(url) as ws:
        await ws.send_json({"code": "import sys; print(sys.version.split()[0])"})
        assert (await ws.receive_json())["text"] == wanted
    await running.delete(sandbox)


async def test_daemon_and_everything_below_ends_with_the_sandbox(running: Running) -> None:
    """Deleting leaves no process, not even one that ignores signals and has its own session."""
    sandbox = await running.create()
    live = running.manager.find(sandbox["id"])
    await running.run(
        sandbox, "setsid nohup bash -c 'trap \"\" TERM HUP INT; while :; do sleep 1; done' >/dev/null 2>&1 &"
    )
    assert live.daemon is not None
    pids = live.daemon.pids()
    assert len(pids) >= 3
    await running.delete(sandbox)
    for pid in pids:
        for _ in range(100):
            if not Path(f"/proc/{pid}").exists():
                break
            await asyncio.sleep(0.02)
        assert not Path(f"/proc/{pid}").exists()
