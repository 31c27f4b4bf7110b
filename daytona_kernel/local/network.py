"""A network of its own for each sandbox, by slirp4netns where that is installed.

A sandbox in its own network namespace has its own ports and its own loopback, can not reach the host's
loopback (so not this server either), and gets out through slirp4netns, an ordinary process of the user.
Ending that process takes the network away, starting it gives it back; nothing in the sandbox has to be
restarted. Without slirp4netns sandboxes share the host's network, or with ``networkBlockAll`` have none.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
from urllib.parse import urlsplit

NS_GET_USERNS = 0xB701
"""ioctl of a namespace's descriptor: the user namespace that owns it (Linux 4.9)."""
READY_SECONDS = 5.0
NAMESERVER = "10.0.2.3"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy")


class NetworkError(Exception):
    """The network of a sandbox could not be set up."""


class NetworkLink:
    """The running slirp4netns of one sandbox."""

    def __init__(self, process: asyncio.subprocess.Process, exit_fd: int) -> None:
        self._process = process
        self._exit_fd = exit_fd

    async def close(self) -> None:
        """Cut the sandbox off."""
        os.close(self._exit_fd)
        try:
            await asyncio.wait_for(self._process.wait(), 2)
        except asyncio.TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


def find_slirp() -> str | None:
    """Path of slirp4netns."""
    return shutil.which("slirp4netns", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin")


def uses_loopback_proxy() -> bool:
    """Whether the host gets out through a proxy on its own loopback, which sandboxes could not reach."""
    for name in PROXY_VARIABLES:
        host = urlsplit(os.environ.get(name, "")).hostname or ""
        if host == "localhost" or host.startswith("127.") or host == "::1":
            return True
    return False


async def connect_namespace(program: str, pid: int) -> NetworkLink:
    """Give the network namespace of a process a way out.

    slirp4netns ends when we close our end of a pipe, also because we die. ``NetworkError``: it does not work.
    """
    try:
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise NetworkError(f"the sandbox's network namespace can not be opened: {exc}") from exc
    ready_read, ready_write = os.pipe()
    exit_read, exit_write = os.pipe()
    inherited = [netns, ready_write, exit_read]
    try:
        owner = fcntl.ioctl(netns, NS_GET_USERNS)
        inherited.append(owner)
        command = [program, "--configure", "--mtu=65520", "--disable-host-loopback"]
        command += [f"--ready-fd={ready_write}", f"--exit-fd={exit_read}"]
        command += [
            f"--userns-path=/proc/self/fd/{owner}",
            "--netns-type=path",
            f"/proc/self/fd/{netns}",
            "tap0",
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=tuple(inherited),
            start_new_session=True,
        )
    except OSError as exc:
        os.close(ready_read)
        os.close(exit_write)
        raise NetworkError(f"slirp4netns can not be used: {exc}") from exc
    finally:
        for descriptor in inherited:
            os.close(descriptor)
    link = NetworkLink(process, exit_write)
    try:
        answer = await asyncio.wait_for(read_until(ready_read, b"1"), READY_SECONDS)
    except asyncio.TimeoutError:
        answer = b""
    finally:
        os.close(ready_read)
    if not answer:
        await link.close()
        raise NetworkError("slirp4netns did not set the sandbox's network up")
    return link


async def read_until(descriptor: int, end: bytes) -> bytes:
    """What arrives on a pipe up to and with `end`, or until its other end is closed."""
    loop = asyncio.get_running_loop()
    received = b""
    while end not in received:
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(descriptor, _settle, readable)
        try:
            await readable
        finally:
            loop.remove_reader(descriptor)
        data = os.read(descriptor, 4096)
        if not data:
            break
        received += data
    return received


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def read_child_pid(descriptor: int, seconds: float) -> int | None:
    """The process id in what bwrap writes to its ``--info-fd``; ``None`` if it fails.

    It writes in pieces, and dies of a pipe that is closed before the last one, leaving its child behind.
    """
    try:
        text = await asyncio.wait_for(read_until(descriptor, b"}"), seconds)
        return int(json.loads(text)["child-pid"])
    except (asyncio.TimeoutError, ValueError, KeyError):
        return None
