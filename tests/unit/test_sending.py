"""Files sent in pieces: over a line that breaks, and past a proxy that takes no big bodies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from daytona_kernel import sending as module
from daytona_kernel.errors import ConnectionFailed
from daytona_kernel.sending import Pieces, store
from daytona_kernel.toolbox import ToolboxError

DATA = os.urandom(100_000)
Fault = Callable[[int, bytes], Exception | None]


class Box:
    """A sandbox in a directory of this machine; each upload and each answer of a script may fail."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.folder, self.fault = folder, fault
        self.lost_answers: set[int] = set()
        self.sizes: list[int] = []
        self.scripts = 0

    async def upload(self, path: str, data: bytes, timeout_s: float = 0) -> None:
        self.sizes.append(len(data))
        error = self.fault(len(self.sizes), data)
        Path(path).write_bytes(data if error is None else data[: len(data) // 2])
        if error is not None:
            raise error

    async def execute(self, *argv: str, timeout_s: int = 0) -> tuple[int, str]:
        done = subprocess.run(argv, capture_output=True, text=True, cwd=self.folder)
        self.scripts += 1
        if self.scripts in self.lost_answers:
            raise ConnectionFailed("the answer was lost")
        return done.returncode, done.stdout + done.stderr

    async def shell(self, script: str, timeout_s: int = 0) -> tuple[int, str]:
        return await self.execute("sh", "-c", script)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES_S", (0.0,) * 5)
    monkeypatch.setattr(module, "PIECE_BYTES", 40_000)
    monkeypatch.setattr(module, "SMALLEST_BYTES", 10_000)


async def stored(box: Box) -> str:
    path = await store(box, str(box.folder / "file"), DATA, timeout_s=1)  # type: ignore[arg-type]
    assert Path(path).read_bytes() == DATA
    assert os.listdir(box.folder) == [Path(path).name]
    return Path(path).name


async def test_what_gets_through_is_one_request(tmp_path: Path) -> None:
    box = Box(tmp_path, lambda number, data: None)
    assert await stored(box) == "file"
    assert (box.sizes, box.scripts) == ([len(DATA)], 0)


async def test_after_a_break_only_what_is_missing_is_sent_again(tmp_path: Path) -> None:
    box = Box(tmp_path, lambda number, data: ConnectionFailed("cut") if number in (1, 3) else None)
    assert await stored(box) == "file.2"
    assert box.sizes == [100_000, 40_000, 40_000, 40_000, 20_000]


async def test_an_answer_that_is_lost_does_not_double_a_piece(tmp_path: Path) -> None:
    box = Box(tmp_path, lambda number, data: ToolboxError(502, "") if number == 1 else None)
    box.lost_answers = {1, 3}
    assert await stored(box) == "file.2"


async def test_a_proxy_that_takes_no_big_bodies_gets_small_ones(tmp_path: Path) -> None:
    box = Box(tmp_path, lambda number, data: ToolboxError(413, "") if len(data) > 15_000 else None)
    await stored(box)
    assert box.sizes[:4] == [100_000, 40_000, 20_000, 10_000]


async def test_one_that_only_hangs_up_gets_smaller_ones_too(tmp_path: Path) -> None:
    box = Box(tmp_path, lambda number, data: ConnectionFailed("cut") if len(data) > 15_000 else None)
    await stored(box)


@pytest.mark.parametrize(
    "error", [ConnectionFailed("cut"), ToolboxError(413, ""), ToolboxError(403, "denied")]
)
async def test_what_never_gets_through_is_an_error_and_leaves_nothing(
    tmp_path: Path, error: Exception
) -> None:
    box = Box(tmp_path, lambda number, data: error)
    with pytest.raises(type(error)):
        await store(box, str(tmp_path / "file"), DATA, timeout_s=1)  # type: ignore[arg-type]
    left = [] if "403" not in str(error) else ["file"]  # a refusal at once is the caller's to tidy up
    assert os.listdir(tmp_path) == left


async def test_a_file_that_is_not_as_long_as_it_should_be_is_an_error(tmp_path: Path) -> None:
    box = Box(tmp_path, lambda number, data: None)
    pieces = Pieces(box, str(tmp_path / "file"))  # type: ignore[arg-type]
    await pieces.add(b"abc")
    (tmp_path / "file").unlink()
    with pytest.raises(module.SandboxProtocolError):
        await pieces._append(str(tmp_path / "gone"), 3)
