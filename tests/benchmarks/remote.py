"""Cells over a far or narrow line, beside `run_code`: ``python -m tests.benchmarks.remote``.

The line is the fault proxy, between both clients and a local server of this command's own: first with a round
trip of 100 ms, then with 20 MB/s. It measures and never asserts on a clock. Figures are in round trips, where
1.0 is the floor of anything that waits for an answer, and in the time that the line needs for the output as
Jupyter sends it, where below 1.0 is what compression gains.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from daytona import Daytona, DaytonaConfig

from daytona_kernel.local.launcher import ensure_running, stop
from daytona_kernel.local.paths import local_paths

from ..faults.conftest import ProxiedServer, free_port
from ..faults.proxy import FaultProxy, Plan
from .kernels import Figures, Kernel, spread_of, summary

FAR = "127.0.0.2"
"""On loopback, but not one of the names at which the kernel takes a sandbox for one on its own machine."""
ROUND_TRIP_S = 0.1
ROUNDS = 20
BYTES_PER_S = 20_000_000
BULKS = (
    ("one print of 50 MB of text", "print(('a line of words, number %d\\n' % 7) * 1_666_667)"),
    ("20 MB of HTML", "from IPython.display import HTML; HTML('<tr><td>cell</td></tr>\\n' * 800_000)"),
    (
        "a PNG of 5 MB",
        "import os; from IPython.display import publish_display_data; import base64\n"
        "publish_display_data({'image/png': base64.b64encode(os.urandom(5_000_000)).decode()})",
    ),
)
"""The PNG is noise, which is what no compression helps with; its 5 MB are 6.7 million base64 characters."""


def measure(server: ProxiedServer) -> Figures:
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
    return {
        what: summary({"daytona": [time / ROUND_TRIP_S for time in times]}) for what, times in figures.items()
    }


def measure_bulk(server: ProxiedServer) -> Figures:
    """Large outputs, in the time that the line needs for their characters."""
    kernel = Kernel("daytona", {**os.environ, **server.environment()})
    try:
        figures = {}
        for what, code in BULKS:
            runs = [kernel.run(code) for _ in range(5)]
            figures[what] = summary({"daytona": [seconds * BYTES_PER_S / chars for seconds, chars in runs]})
        return figures
    finally:
        kernel.close()


def _run_code(sandbox: object) -> float:
    began = time.perf_counter()
    sandbox.code_interpreter.run_code("pass")  # type: ignore[attr-defined]
    return time.perf_counter() - began


def table(round_trips: Figures, bulk: Figures) -> str:
    """Both in Markdown, with their median absolute deviations."""
    lines = ["| what | round trips of 100 ms |", "|---|---|", *map(_row, round_trips.items())]
    lines += ["", "| what | times of the line, at 20 MB/s |", "|---|---|", *map(_row, bulk.items())]
    return "\n".join(lines)


def _row(figure: tuple[str, dict[str, float]]) -> str:
    what, values = figure
    return f"| {what} | {values['daytona']:.2f}{spread_of(values, 'daytona')} |"


async def run() -> tuple[Figures, Figures]:
    """Measure both with a server of their own, and end that."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.environ["DAYTONA_LOCAL_DIR"] = directory  # the server's process reads it, too
        paths = local_paths(os.environ)
        port = free_port()
        server = ProxiedServer(
            ensure_running(paths, ["--advertise", f"http://{FAR}:{port}"]), port, Path(directory)
        )
        try:
            async with FaultProxy(server.port, port=port, host=FAR) as proxy:
                proxy.plan(Plan(delay=ROUND_TRIP_S / 2))
                round_trips = await asyncio.to_thread(measure, server)
                proxy.forget_rules()
                proxy.plan(Plan(bandwidth=BYTES_PER_S))
                return round_trips, await asyncio.to_thread(measure_bulk, server)
        finally:
            stop(paths)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    round_trips, bulk = asyncio.run(run())
    if options.json:
        options.json.write_text(json.dumps({**round_trips, **bulk}, indent=1) + "\n")
    print(table(round_trips, bulk))


if __name__ == "__main__":
    main()
