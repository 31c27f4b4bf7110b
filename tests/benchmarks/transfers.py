"""Files up and down, beside bare aiohttp and the SDK: ``python -m tests.benchmarks.transfers``.

All on one machine, in turn: the big file goes to a sandbox of a local server of this command's own, by our
code and by plain aiohttp, and to the plainest aiohttp server there is, which has no proxy before it. The SDK
moves a part of the small files, one call each; its rate is compared. It measures and never asserts on a
clock; that the files came back whole is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import psutil
from daytona import Daytona, DaytonaConfig, Sandbox

from daytona_kernel import transfer
from daytona_kernel.local.launcher import ensure_running, stop
from daytona_kernel.local.paths import local_paths
from daytona_kernel.toolbox import Endpoint, Toolbox
from daytona_kernel.transfer import Item

from .kernels import Figures, spread_of, summary

BIG_MIB = 1024
SMALL_FILES, SMALL_BYTES, SDK_FILES = 10_000, 1024, 300
ROUNDS = 3

Work = Callable[[], Awaitable[None]]


class Files:
    """What is moved, in a directory of this machine, and where it goes in the sandbox."""

    def __init__(self, directory: Path, big_mib: int) -> None:
        self.directory = directory
        self.backs = 0
        self.big = directory / "big"
        block = os.urandom(1 << 20)
        with open(self.big, "wb") as file:
            for _ in range(big_mib):
                file.write(block)
        self.small = [directory / "small" / f"{number:05d}" for number in range(SMALL_FILES)]
        self.small[0].parent.mkdir()
        for path in self.small:
            path.write_bytes(os.urandom(SMALL_BYTES))

    def up(self, paths: list[Path]) -> list[Item]:
        """The files as items of an upload."""
        return [Item(path, self.remote(path), path.stat().st_size, 0o644, 0.0) for path in paths]

    def down(self, paths: list[Path]) -> list[Item]:
        """The same, on their way back, each time into a directory that is new."""
        self.backs += 1
        return [Item(self.copy(path), self.remote(path), path.stat().st_size, 0o644, 0.0) for path in paths]

    def remote(self, path: Path) -> str:
        """Its name in the sandbox."""
        return f"/tmp/bench/{path.relative_to(self.directory)}"

    def copy(self, path: Path) -> Path:
        """Where it comes back to."""
        return self.directory / f"back{self.backs}" / path.relative_to(self.directory)


async def ours(move: Awaitable[transfer.Outcome]) -> None:
    """Move files; all must arrive."""
    outcome = await move
    assert not outcome.errors, outcome.errors[:3]


@contextlib.asynccontextmanager
async def bare_server(directory: Path) -> AsyncIterator[str]:
    """The plain server's URL; its process ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.bare", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def bare_upload(session: aiohttp.ClientSession, url: str, source: Path) -> None:
    """What an aiohttp user would write."""
    with open(source, "rb") as file:
        async with session.put(url, data=file) as answer:
            answer.raise_for_status()


async def bare_form(session: aiohttp.ClientSession, endpoint: Endpoint, source: Path) -> None:
    """The same to a sandbox."""
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("files[0].path", "/tmp/bare")
    with open(source, "rb") as file:
        form.add_field("files[0].file", file, filename="bare")
        url = f"{endpoint.base_url}/files/bulk-upload"
        async with session.post(url, data=form, headers=endpoint.headers) as answer:
            answer.raise_for_status()


async def bare_download(
    session: aiohttp.ClientSession, url: str, target: Path, headers: Mapping[str, str] | None = None
) -> None:
    """What an aiohttp user would write."""
    async with session.get(url, headers=headers) as answer:
        answer.raise_for_status()
        with open(target, "wb") as file:
            async for block in answer.content.iter_chunked(1 << 20):
                file.write(block)


async def rates(works: dict[str, tuple[float, Work]]) -> Figures:
    """How much of its amount each moves in a second; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, (amount, work) in works.items():
            began = time.perf_counter()
            await work()
            found[name].append(amount / (time.perf_counter() - began))
    return {name: summary({"daytona": values}) for name, values in found.items()}


async def measure_big(toolbox: Toolbox, files: Files, mib: int) -> Figures:
    """MiB/s of one big file, both ways, ours and bare; and the growth of our memory in MiB."""
    (files.directory / "bare").mkdir()
    process = psutil.Process()
    back = files.directory / "bare" / "back"
    endpoint = toolbox.endpoint
    from_sandbox = f"{endpoint.base_url}/files/download?path={files.remote(files.big)}"
    async with bare_server(files.directory / "bare") as url, aiohttp.ClientSession() as session:
        before = process.memory_info().rss
        figures = await rates(
            {
                f"{mib} MiB up, bare, MiB/s": (mib, lambda: bare_upload(session, f"{url}/big", files.big)),
                f"{mib} MiB up, bare, to the sandbox, MiB/s": (
                    mib,
                    lambda: bare_form(session, endpoint, files.big),
                ),
                f"{mib} MiB up, ours, MiB/s": (
                    mib,
                    lambda: ours(transfer.upload(toolbox, files.up([files.big]), lambda _: None)),
                ),
                f"{mib} MiB down, bare, MiB/s": (mib, lambda: bare_download(session, f"{url}/big", back)),
                f"{mib} MiB down, bare, from the sandbox, MiB/s": (
                    mib,
                    lambda: bare_download(session, from_sandbox, back, endpoint.headers),
                ),
                f"{mib} MiB down, ours, MiB/s": (
                    mib,
                    lambda: ours(
                        transfer.download(toolbox, files.down([files.big]), force=False, count=lambda _: None)
                    ),
                ),
            }
        )
        growth = (process.memory_info().rss - before) / 2**20
    assert filecmp.cmp(files.big, files.copy(files.big), shallow=False)
    return {**figures, "growth of memory meanwhile, MiB": {"daytona": growth}}


async def measure_small(toolbox: Toolbox, files: Files, sandbox: Sandbox) -> Figures:
    """Files a second, both ways, ours and with one call of the SDK each."""
    part = files.small[:SDK_FILES]

    def sdk_up() -> None:
        for path in part:
            sandbox.fs.upload_file(path.read_bytes(), files.remote(path))

    def sdk_down() -> None:
        for path in part:
            assert sandbox.fs.download_file(files.remote(path)) == path.read_bytes()

    up = files.up(files.small)
    figures = await rates(
        {
            "files of 1 KiB up, ours, files/s": (
                SMALL_FILES,
                lambda: ours(transfer.upload(toolbox, up, lambda _: None)),
            ),
            "files of 1 KiB up, SDK, files/s": (SDK_FILES, lambda: asyncio.to_thread(sdk_up)),
            "files of 1 KiB down, ours, files/s": (
                SMALL_FILES,
                lambda: ours(
                    transfer.download(toolbox, files.down(files.small), force=False, count=lambda _: None)
                ),
            ),
            "files of 1 KiB down, SDK, files/s": (SDK_FILES, lambda: asyncio.to_thread(sdk_down)),
        }
    )
    assert all(files.copy(path).read_bytes() == path.read_bytes() for path in files.small)
    return figures


async def measure(directory: Path, mib: int) -> Figures:
    """All figures. Some minutes, and four times the big file of disk."""
    server = ensure_running(local_paths(os.environ))
    files = await asyncio.to_thread(Files, directory, mib)
    client = Daytona(DaytonaConfig(api_key=server.api_key, api_url=server.api_url))
    sandbox = await asyncio.to_thread(client.create)
    base = f"{sandbox.toolbox_proxy_url.rstrip('/')}/{sandbox.id}"
    toolbox = Toolbox(Endpoint(base, {"Authorization": f"Bearer {server.api_key}"}))
    try:
        return {
            **await measure_small(toolbox, files, sandbox),
            **await measure_big(toolbox, files, mib),  # last: the disk is busy with it for a while
        }
    finally:
        await toolbox.close()
        await asyncio.to_thread(client.delete, sandbox)


def run(mib: int = BIG_MIB) -> Figures:
    """Measure with a server of its own, and end that."""
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    os.environ["DAYTONA_LOCAL_DIR"] = str(directory / "local")
    try:
        return asyncio.run(measure(directory, mib))
    finally:
        stop(local_paths(os.environ))
        shutil.rmtree(directory, ignore_errors=True)


def table(figures: Figures) -> str:
    """The figures in Markdown, with their median absolute deviations."""
    rows = [
        f"| {what} | {values['daytona']:.0f}{spread_of(values, 'daytona')} |"
        for what, values in figures.items()
    ]
    return "\n".join(["| what | |", "|---|---|", *rows])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--mib", type=int, default=BIG_MIB, help="size of the big file (default: %(default)s)"
    )
    options = parser.parse_args()
    figures = run(options.mib)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
