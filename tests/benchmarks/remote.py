"""Cells over a line with a round trip of 100 ms, beside `run_code`: ``python -m tests.benchmarks.remote``.

The line is the fault proxy, between both clients and a local server of this command's own. It measures and
never asserts on a clock. Figures are in round trips: 1.0 is the floor of anything that waits for an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from daytona import Daytona, DaytonaConfig

from daytona_kernel.local.launcher import ensure_running, stop
from daytona_kernel.local.paths import local_paths

from ..faults.conftest import ProxiedServer, free_port
from ..faults.proxy import FaultProxy, Plan
from .kernels import Kernel

ROUND_TRIP_S = 0.1
ROUNDS = 20


def measure(server: ProxiedServer) -> dict[str, float]:
    """All figures, in round trips; about half a minute. Blocking: run it beside the proxy's loop."""
    environment = server.environment()
    client = Daytona(DaytonaConfig(api_key=environment["DAYTONA_API_KEY"], api_url=server.api_url))
    sandbox = client.create()
    kernel = Kernel("daytona", {**os.environ, **environment})
    try:
        figures = {
            "cell `pass`, kernel": [kernel.run("pass")[0] for _ in range(ROUNDS)],
            "cell `pass`, the SDK's run_code": [_run_code(sandbox) for _ in range(ROUNDS)],
            "first output, kernel": [kernel.first_output_s() for _ in range(ROUNDS)],
            "interrupt to reply, kernel": [kernel.interrupt_s() for _ in range(5)],
            "completion, kernel": [kernel.ask_s("complete", "import os; os.path.is") for _ in range(ROUNDS)],
        }
    finally:
        kernel.close()
        client.delete(sandbox)
    return {what: statistics.median(times) / ROUND_TRIP_S for what, times in figures.items()}


def _run_code(sandbox: object) -> float:
    began = time.perf_counter()
    sandbox.code_interpreter.run_code("pass")  # type: ignore[attr-defined]
    return time.perf_counter() - began


async def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.environ["DAYTONA_LOCAL_DIR"] = directory  # the server's process reads it, too
        paths = local_paths(os.environ)
        port = free_port()
        server = ProxiedServer(
            ensure_running(paths, ["--advertise", f"http://127.0.0.1:{port}"]), port, Path(directory)
        )
        try:
            async with FaultProxy(server.port, port=port) as proxy:
                proxy.plan(Plan(delay=ROUND_TRIP_S / 2))
                figures = await asyncio.to_thread(measure, server)
        finally:
            stop(paths)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print("| what | round trips of 100 ms |\n|---|---|")
    for what, value in figures.items():
        print(f"| {what} | {value:.2f} |")


if __name__ == "__main__":
    asyncio.run(main())
