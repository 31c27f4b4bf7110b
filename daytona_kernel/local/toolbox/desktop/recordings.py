"""Recordings of the screen: one ffmpeg each, mp4 files in a directory of the sandbox."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..children import Child, Children
from ..errors import ToolboxError
from .programs import need
from .session import Desktop

FRAMES_PER_SECOND = 15
FINISH_SECONDS = 10.0
BEGIN_SECONDS, POLL_SECONDS = 10.0, 0.02
"""How long ffmpeg may take to finish a file."""
_FILE_NAME = re.compile(r".+_(?P<id>[0-9a-f]{16})\.mp4")


def _moment(seconds: float) -> str:
    return (
        datetime.fromtimestamp(seconds, timezone.utc)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


@dataclass
class Recording:
    """One recording, running or finished."""

    id: str
    path: str
    started_at: float
    ended_at: float | None = None
    child: Child | None = None

    @property
    def active(self) -> bool:
        """Whether it is still being written."""
        return self.child is not None and self.child.returncode is None

    @property
    def written(self) -> bool:
        """Whether there is a file; what is stopped before leaves none."""
        return os.path.exists(self.path)

    def describe(self) -> dict[str, Any]:
        """Give it as the API shows it."""
        found: dict[str, Any] = {
            "id": self.id,
            "fileName": os.path.basename(self.path),
            "filePath": self.path,
            "startTime": _moment(self.started_at),
            "status": "recording" if self.active else "completed",
        }
        end = time.time() if self.active else self.ended_at
        if end is not None:
            found["durationSeconds"] = round(max(0.0, end - self.started_at), 3)
        if self.ended_at is not None and not self.active:
            found["endTime"] = _moment(self.ended_at)
        try:
            found["sizeBytes"] = os.path.getsize(self.path)
        except OSError:
            pass  # ffmpeg has not made it yet
        return found


class Recordings:
    """The recordings of one sandbox. Finished ones are found again by their file names."""

    def __init__(self, children: Children, desktop: Desktop, home: str) -> None:
        self._children = children
        self._desktop = desktop
        self._home = home
        self._known: dict[str, Recording] = {}

    @property
    def _directory(self) -> str:
        wanted = self._desktop.environment().get("DAYTONA_RECORDINGS_DIR") or ".daytona/recordings"
        return os.path.join(self._home, wanted)

    async def start(self, label: str) -> Recording:
        """Begin to record the screen, and return when ffmpeg does.

        :raises ToolboxError: 503 without a desktop or without ffmpeg, 500 if ffmpeg ends at once.
        """
        recording, child = self._begin(label)
        deadline = asyncio.get_running_loop().time() + BEGIN_SECONDS
        while not recording.written and asyncio.get_running_loop().time() < deadline:
            if child.returncode is not None:
                del self._known[recording.id]
                raise ToolboxError(500, f"ffmpeg ended at once, with {child.returncode}")
            await asyncio.sleep(POLL_SECONDS)
        return recording

    def _begin(self, label: str) -> tuple[Recording, Child]:
        env = self._desktop.environment()
        program = need(["ffmpeg"], env, code="RECORDING_FFMPEG_NOT_FOUND")["ffmpeg"]
        self._desktop.need_running()
        os.makedirs(self._directory, exist_ok=True)
        now = time.time()
        name = re.sub(r"[^\w.-]+", "_", label, flags=re.ASCII).strip("._")[:60] or "session"
        number = secrets.token_hex(8)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now))
        path = os.path.join(self._directory, f"{name}_{stamp}_{number}.mp4")
        width, height = self._desktop.size
        size = f"{width - width % 2}x{height - height % 2}"  # the pixel format wants even numbers
        argv = [program, "-nostdin", "-loglevel", "error", "-y", "-f", "x11grab"]
        argv += ["-framerate", str(FRAMES_PER_SECOND), "-video_size", size, "-i", self._desktop.display]
        argv += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", path]
        with open(os.path.join(self._directory, ".ffmpeg.log"), "ab") as log:
            child = self._children.spawn(argv, env=env, cwd=self._home, stdout=subprocess.DEVNULL, stderr=log)
        recording = Recording(number, path, now, child=child)
        child.on_end(lambda _: setattr(recording, "ended_at", time.time()))
        self._known[number] = recording
        return recording, child

    def find(self, number: str) -> Recording:
        """Find a recording.

        :raises ToolboxError: 404 if there is none.
        """
        for recording in self.all():
            if recording.id == number:
                return recording
        raise ToolboxError(404, f"recording not found: {number}")

    async def stop(self, number: str) -> Recording:
        """Finish a recording.

        :raises ToolboxError: 404 if there is none, 400 if it has been finished.
        """
        recording = self.find(number)
        if not recording.active or recording.child is None:
            raise ToolboxError(400, f"the recording is not active: {number}")
        recording.child.signal_group(signal.SIGINT)  # ffmpeg then completes the file
        try:
            await _within(recording.child, FINISH_SECONDS)
        except TimeoutError:
            await recording.child.end(0.5)
        return recording

    async def stop_all(self) -> None:
        """Finish all that run."""
        for recording in list(self._known.values()):
            if recording.active:
                await self.stop(recording.id)

    def all(self) -> list[Recording]:
        """List the recordings, the oldest first: those of this daemon and those whose files are there."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            names = []
        found = {number: one for number, one in self._known.items() if one.active or os.path.exists(one.path)}
        for name in names:
            match = _FILE_NAME.fullmatch(name)
            if match and match["id"] not in found:
                path = os.path.join(self._directory, name)
                ended = os.path.getmtime(path)
                found[match["id"]] = Recording(match["id"], path, _start_of(name, ended), ended)
        return sorted(found.values(), key=lambda one: one.started_at)

    def delete(self, number: str) -> None:
        """Delete a recording's file.

        :raises ToolboxError: 404 if there is none, 409 while it is being written.
        """
        recording = self.find(number)
        if recording.active:
            raise ToolboxError(409, "the recording is still active: stop it first", "RECORDING_STILL_ACTIVE")
        self._known.pop(number, None)
        os.unlink(recording.path)


def _start_of(name: str, default: float) -> float:
    """Read the start from a file's name."""
    match = re.search(r"_(\d{8}T\d{6})_[0-9a-f]{16}\.mp4$", name)
    if not match:
        return default
    return datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=timezone.utc).timestamp()


async def _within(child: Child, seconds: float) -> None:
    """Wait for a process.

    :raises TimeoutError: if it takes longer.
    """
    try:
        await asyncio.wait_for(child.wait(), seconds)
    except asyncio.TimeoutError as exc:  # another class before Python 3.11
        raise TimeoutError from exc
