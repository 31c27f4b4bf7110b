"""The desktop's processes: started in order, watched, restarted, and their logs."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..children import Child, Children, PipeReader, pipe
from ..errors import ToolboxError
from ..shell import Outcome, run
from .keymap import LentKeys
from .programs import find_window_manager, need

NAMES = ("xvfb", "xfce4", "x11vnc", "novnc")
"""The API's names. ``xfce4`` stands for the window manager, whichever it is."""
DEFAULT_SIZE = (1024, 768)
VNC_PORT, NOVNC_PORT = 5901, 6080
"""The ports of the real desktop (observed on v0.190.0). Where one is taken, another is used; previews of 6080
lead there all the same."""
READY_SECONDS = 15.0
POLL_SECONDS = 0.02
END_SECONDS = 1.0
RESTARTS = 5
"""How often a process that ends by itself is started again."""
LOG_TAIL_BYTES = 256 * 1024


def parse_size(text: str) -> tuple[int, int]:
    """Parse a resolution such as ``1280x720``; anything else is the default."""
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})(?:x\d+)?", text.strip())
    return (int(match[1]), int(match[2])) if match else DEFAULT_SIZE


def authority(cookie: bytes) -> bytes:
    """Build an Xauthority file that gives ``cookie`` for every display (format of libXau)."""

    def counted(data: bytes) -> bytes:
        return struct.pack(">H", len(data)) + data

    any_family = struct.pack(">H", 0xFFFF)
    return any_family + counted(b"") + counted(b"") + counted(b"MIT-MAGIC-COOKIE-1") + counted(cookie)


def free_port(wanted: int) -> int:
    """Give ``wanted`` if nobody listens there, else a port that is free now."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ToolboxError(503, "no free port for the desktop")


@dataclass
class DesktopProcess:
    """One process of the desktop."""

    name: str
    priority: int
    auto_restart: bool
    directory: str
    argv: list[str] = field(default_factory=list)
    child: Child | None = None
    restarts: int = 0

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self.child is not None and self.child.returncode is None

    def path(self, stream: str) -> str:
        """Give the file of ``out`` or ``err``."""
        return os.path.join(self.directory, f"{self.name}.{stream}")

    def spawn(
        self, children: Children, env: Mapping[str, str], cwd: str, pass_fds: Sequence[int] = ()
    ) -> Child:
        """Start it, its output appended to its logs.

        :raises OSError: if that fails.
        """
        with open(self.path("out"), "ab") as out, open(self.path("err"), "ab") as err:
            self.child = children.spawn(
                self.argv, env=env, cwd=cwd, stdout=out, stderr=err, pass_fds=pass_fds
            )
        return self.child

    def log(self, stream: str) -> str:
        """Give the end of a log as text."""
        try:
            with open(self.path(stream), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                return file.read().decode("utf-8", "replace")
        except OSError:  # it has never been started
            return ""

    def describe(self) -> dict[str, Any]:
        """Give its status as the API shows it."""
        status: dict[str, Any] = {
            "running": self.running,
            "priority": self.priority,
            "autoRestart": self.auto_restart,
        }
        if self.child is not None and self.running:
            status["pid"] = self.child.pid
        return status


class Desktop:
    """The one desktop of a sandbox."""

    def __init__(self, children: Children, env: dict[str, str], home: str, aliases: dict[int, int]) -> None:
        self._children = children
        self._aliases = aliases
        self._env = env
        self._home = home
        self._directory = ""
        self._changing = asyncio.Lock()
        self._started = False
        self._restarting: set[asyncio.Task[None]] = set()
        # Xvfb is not started again by itself: the others end with it and cannot be saved by a new one.
        self.processes = {
            name: DesktopProcess(name, 100 * number, auto_restart=name != "xvfb", directory="")
            for number, name in enumerate(NAMES, 1)
        }
        self.display = ""
        self._cookie = b""
        self.lent_keys = LentKeys("", b"")
        self.size = DEFAULT_SIZE
        self.novnc_port = NOVNC_PORT

    # --- life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start what does not run yet, and wait until it can be used.

        :raises ToolboxError: 503 if a program is missing or does not come up.
        """
        async with self._changing:
            programs = need(("Xvfb", "x11vnc", "websockify", "noVNC", "xdotool", "xprop"), self._env)
            manager = find_window_manager(self._env)
            if not self._directory:
                self._directory = tempfile.mkdtemp(prefix="daytona-desktop-")
            for process in self.processes.values():
                process.directory = self._directory
                process.restarts = 0
            try:
                if not self.processes["xvfb"].running:
                    await self._start_server(programs["Xvfb"])
                await self._start_rest(programs, manager)
            except OSError as exc:
                raise ToolboxError(503, f"the desktop cannot be started: {exc}") from exc
            self._started = True

    async def _start_server(self, program: str) -> None:
        self.size = parse_size(self._env.get("VNC_RESOLUTION", ""))
        self._write_authority()
        process = self.processes["xvfb"]
        read_end, write_end = pipe()
        number = bytearray()
        reader = PipeReader(read_end, number.extend)
        geometry = f"{self.size[0]}x{self.size[1]}x24"
        process.argv = [program, "-displayfd", str(write_end), "-screen", "0", geometry]
        process.argv += [
            "-auth",
            self._authority_path(),
            "-nolisten",
            "tcp",
            "-noreset",
            "+extension",
            "RANDR",
        ]
        try:
            child = process.spawn(self._children, self._env, self._home, pass_fds=[write_end])
        finally:
            os.close(write_end)
        try:
            await self._until(process, lambda: number.endswith(b"\n"))
        finally:
            reader.close()
        self.display = f":{int(number)}"
        self.lent_keys = LentKeys(self.display, self._cookie)
        # What starts from now on finds the desktop by itself.
        self._env["DISPLAY"] = self.display
        child.on_end(lambda _: self._forget_display())

    def _forget_display(self) -> None:
        self._env.pop("DISPLAY", None)

    def _authority_path(self) -> str:
        return self._env.get("XAUTHORITY") or os.path.join(self._home, ".Xauthority")

    def _write_authority(self) -> None:
        fd = os.open(self._authority_path(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._cookie = secrets.token_bytes(16)
        with os.fdopen(fd, "wb") as file:
            file.write(authority(self._cookie))

    async def _start_rest(self, programs: Mapping[str, str], manager: str) -> None:
        wm, vnc, novnc = (self.processes[name] for name in NAMES[1:])
        if not wm.running:
            wm.argv = [manager]
            self._spawn(wm)
            await self._until_managed(wm)
        if not vnc.running:
            port = free_port(int(self._env.get("VNC_PORT", "") or VNC_PORT))
            vnc.argv = [programs["x11vnc"], "-display", self.display, "-auth", self._authority_path()]
            vnc.argv += [
                "-rfbport",
                str(port),
                "-localhost",
                "-forever",
                "-shared",
                "-nopw",
                "-norc",
                "-noipv6",
            ]
            vnc.argv += ["-nowf", "-noxdamage", "-wait", "30", "-q"]
            self._spawn(vnc)
            await self._until_listening(vnc, port)
        if not novnc.running:
            self.novnc_port = free_port(int(self._env.get("NO_VNC_PORT", "") or NOVNC_PORT))
            target = f"127.0.0.1:{vnc.argv[vnc.argv.index('-rfbport') + 1]}"
            novnc.argv = [programs["websockify"], "--web", programs["noVNC"]]
            novnc.argv += [f"127.0.0.1:{self.novnc_port}", target]
            self._spawn(novnc)
            await self._until_listening(novnc, self.novnc_port)
            self._aliases[NOVNC_PORT] = self.novnc_port

    def _spawn(self, process: DesktopProcess) -> None:
        child = process.spawn(self._children, self._env, self._home)
        child.on_end(lambda _: self._on_end(process, child))

    def _on_end(self, process: DesktopProcess, child: Child) -> None:
        """Start a process again that has ended by itself while the desktop is up."""
        if not self._started or process.child is not child or not self.processes["xvfb"].running:
            return
        if process.restarts >= RESTARTS:
            return
        process.restarts += 1
        task = asyncio.ensure_future(self._respawn(process, child))
        self._restarting.add(task)
        task.add_done_callback(self._restarting.discard)

    async def _respawn(self, process: DesktopProcess, ended: Child) -> None:
        async with self._changing:
            if self._started and process.child is ended:
                self._spawn(process)

    def abandon(self) -> None:
        """Restart nothing any more; the daemon is about to end."""
        self._started = False

    async def stop(self) -> None:
        """End all processes, the last started first."""
        async with self._changing:
            self._started = False
            self._aliases.pop(NOVNC_PORT, None)
            for process in reversed(self.processes.values()):
                if process.child is not None and process.running:
                    await process.child.end(END_SECONDS)

    async def restart(self, name: str) -> None:
        """End one process and start it again; all of them if it is the X server.

        :raises ToolboxError: 503 if the desktop is not up.
        """
        if name == "xvfb":
            await self.stop()
            await self.start()
            return
        process = self.process(name)
        self.need_running()
        async with self._changing:
            process.restarts = 0
            child, process.child = process.child, None
            if child is not None and child.returncode is None:
                await child.end(END_SECONDS)
            self._spawn(process)
            if name != "xfce4":
                flag = "-rfbport" if name == "x11vnc" else ""
                port = int(process.argv[process.argv.index(flag) + 1]) if flag else self.novnc_port
                await self._until_listening(process, port)
            else:
                await self._until_managed(process)

    # --- waiting ------------------------------------------------------------------------------------------

    async def _until(self, process: DesktopProcess, ready: Callable[[], bool]) -> None:
        """Wait until a process is ready.

        :raises ToolboxError: 503 with the end of its log if it ends or takes too long.
        """
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while not ready():
            if not process.running or asyncio.get_running_loop().time() > deadline:
                said = (process.log("err") or process.log("out")).strip()[-500:]
                raise ToolboxError(503, f"{process.argv[0]} did not come up: {said or 'it said nothing'}")
            await asyncio.sleep(POLL_SECONDS)

    async def _until_listening(self, process: DesktopProcess, port: int) -> None:
        def listening() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        await self._until(process, listening)

    async def _until_managed(self, process: DesktopProcess) -> None:
        """Wait until the window manager has announced itself; one that never does (twm) is taken as it is."""
        deadline = asyncio.get_running_loop().time() + 3
        while asyncio.get_running_loop().time() < deadline:
            answer = await self.attempt("xprop", "-root", "_NET_SUPPORTING_WM_CHECK")
            if b"window id" in answer.output or not process.running:
                break
            await asyncio.sleep(POLL_SECONDS)
        await self._until(process, lambda: True)

    # --- use ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether there is a screen."""
        return self._started and self.processes["xvfb"].running

    @property
    def summary(self) -> str:
        """One word for the whole desktop, as the API has it."""
        alive = [process.running for process in self.processes.values()]
        if alive and all(alive):
            return "active"
        return "partial" if any(alive) else "inactive"

    def process(self, name: str) -> DesktopProcess:
        """Find a process by the API's name.

        :raises ToolboxError: 404 if there is none of that name.
        """
        if name not in self.processes:
            raise ToolboxError(404, f"unknown process: {name!r} ({', '.join(NAMES)})")
        return self.processes[name]

    def need_running(self) -> None:
        """Insist on a screen.

        :raises ToolboxError: 503 if there is none.
        """
        if not self.running:
            raise ToolboxError(503, "the desktop is not running: start it first (computer_use.start())")

    async def attempt(self, program: str, *args: str, stdin: bytes = b"") -> Outcome:
        """Run a program on the desktop and give its outcome, whatever it is."""
        path = need([program], self._env)[program]
        env = {**self._env, "DISPLAY": self.display, "XAUTHORITY": self._authority_path()}
        argv = [path, *args]
        return await run(
            self._children,
            argv,
            env=env,
            cwd=self._home,
            stdin=stdin,
            timeout_seconds=60,
            separate_errors=True,
        )

    async def tool(self, program: str, *args: str, stdin: bytes = b"") -> bytes:
        """Run a program on the desktop and give what it printed.

        :raises ToolboxError: 503 if there is no desktop or no such program, 500 if it fails.
        """
        self.need_running()
        outcome = await self.attempt(program, *args, stdin=stdin)
        if outcome.exit_code != 0:
            said = (outcome.error_text or outcome.text).strip()[-500:]
            raise ToolboxError(500, f"{program} failed: {said or outcome.exit_code}")
        return outcome.output

    def describe(self) -> dict[str, Any]:
        """Give the status of all processes."""
        return {name: process.describe() for name, process in self.processes.items()}

    def environment(self) -> dict[str, str]:
        """Give the environment of the sandbox's processes."""
        return self._env
