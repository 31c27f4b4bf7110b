"""Many notebooks at a time: ``python -m tests.benchmarks.many``. About two minutes.

Sixteen notebooks, eight at a time (``jupyter daytona run --jobs 8``), with local servers of this command's
own: first as it is, then behind the fault proxy with a round trip of 100 ms, for a service that is far away.
Each notebook sleeps for some seconds, since what is measured is the runner and not the machine's cores. It
measures and never asserts on a clock; that notebooks do run at the same time is tested by events (tests/cli).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from daytona_kernel.local.launcher import ensure_running, status, stop
from daytona_kernel.local.paths import LocalPaths, local_paths

from ..faults.conftest import ProxiedServer, free_port
from ..faults.proxy import FaultProxy, Plan
from .kernels import Figures
from .remote import FAR, ROUND_TRIP_S

NOTEBOOKS, JOBS = 16, 8
SLEEP_S = 10


def write(folder: Path) -> None:
    """The notebooks: eleven cells each, a second of sleep in all but the first."""
    folder.mkdir()
    for number in range(NOTEBOOKS):
        sources = ["import time", *["time.sleep(1); print('slept')"] * SLEEP_S]
        cells = [new_code_cell(source, id=f"cell-{index}") for index, source in enumerate(sources)]
        book = new_notebook(cells=cells)
        nbformat.write(book, folder / f"{number:02}.ipynb")


def measure(work: Path, environment: dict[str, str]) -> dict[str, float]:
    """Seconds from the command's start to its end, of the longest notebook, and of all together."""
    command = [sys.executable, "-m", "daytona_kernel.cli", "run", "books", "--jobs", str(JOBS)]
    command += ["--output-dir", "out", "--json", "out.json", "--no-progress"]
    began = time.perf_counter()
    subprocess.run(command, cwd=work, env={**os.environ, **environment}, check=True, timeout=600)
    wall = time.perf_counter() - began
    seconds = [entry["seconds"] for entry in json.loads((work / "out.json").read_text())["notebooks"]]
    return {"wall": wall, "longest": max(seconds), "sum": sum(seconds)}


async def run() -> Figures:
    """Measure both, each with a server of its own. Raises :exc:`RuntimeError` if a sandbox is left."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        work = Path(directory)
        write(work / "books")
        os.environ["DAYTONA_LOCAL_DIR"] = str(work / "local")
        return {
            "local server": await asyncio.to_thread(near, work),
            "over a round trip of 100 ms": await far(work),
        }


def near(work: Path) -> dict[str, float]:
    """The figures with the local server."""
    paths = local_paths(os.environ)
    ensure_running(paths)
    try:
        figures = measure(work, {})
        check_nothing_is_left(paths)
        return figures
    finally:
        stop(paths)


async def far(work: Path) -> dict[str, float]:
    """The figures with the same server behind the proxy."""
    paths, port = local_paths(os.environ), free_port()
    running = ensure_running(paths, ["--advertise", f"http://{FAR}:{port}"])
    try:
        server = ProxiedServer(running, port, work)
        async with FaultProxy(server.port, port=port, host=FAR) as proxy:
            proxy.plan(Plan(delay=ROUND_TRIP_S / 2))
            figures = await asyncio.to_thread(measure, work, server.environment())
        check_nothing_is_left(paths)
        return figures
    finally:
        stop(paths)


def check_nothing_is_left(paths: LocalPaths) -> None:
    """Raises :exc:`RuntimeError` if a sandbox is still there."""
    left = (status(paths) or {}).get("sandboxes")
    if left:
        raise RuntimeError(f"sandboxes were left behind: {left}")


def table(figures: Figures) -> str:
    """The figures in Markdown. No command is faster than its rounds of sleeping one after the other."""
    floor = SLEEP_S * NOTEBOOKS / JOBS
    lines = [
        f"{NOTEBOOKS} notebooks, {JOBS} at a time, {SLEEP_S} s of sleep in each (floor: {floor:g} s)",
        "",
        "| where | wall | longest notebook | sum of all |",
        "|---|---|---|---|",
    ]
    for where, values in figures.items():
        lines.append(
            f"| {where} | {values['wall']:.1f} s | {values['longest']:.1f} s | {values['sum']:.1f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    print(table(asyncio.run(run())))


if __name__ == "__main__":
    main()
