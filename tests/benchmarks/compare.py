"""Kernel ``daytona`` on the local server beside ipykernel's: ``python -m tests.benchmarks.compare``.

Both kernels run the same cells, in turn, in one run, so that a busy machine slows both; the server is one of
this command's own. It measures and never asserts on a clock; that all output has come is checked. ``--json
FILE`` writes the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from daytona_kernel.local.launcher import ensure_running, stop
from daytona_kernel.local.paths import local_paths

from .kernels import Figures, Kernel, spread_of, summary

KERNELS = ("python3", "daytona")
FLOODS = (
    ("100,000 printed lines", "for i in range(100_000): print(i)", 588_890, 3),
    ("1,000,000 printed lines", "for i in range(1_000_000): print(i)", 6_888_890, 2),
    ("one print of 50 MB", "print('x' * 50_000_000)", 50_000_001, 3),
    (
        "20 MB of HTML",
        "from IPython.display import HTML\nHTML('<b>h</b>' * 2_500_000)",
        20_000_000 + len("<IPython.core.display.HTML object>"),
        3,
    ),
    (
        "a PNG of 5 MB",
        "import os, base64\nfrom IPython.display import publish_display_data\n"
        "publish_display_data({'image/png': base64.b64encode(os.urandom(5_000_000)).decode()})",
        6_666_668,
        9,
    ),
)

IDLE_S = 20.0
QUESTIONS: tuple[tuple[str, int, Callable[[Kernel], float]], ...] = (
    ("100 queued cells, s", 3, lambda kernel: kernel.queued_s(100)),
    ("completion, ms", 20, lambda kernel: 1000 * kernel.ask_s("complete", "import os; os.path.is")),
    ("inspection, ms", 20, lambda kernel: 1000 * kernel.ask_s("inspect", "print")),
    ("interrupt to reply, ms", 5, lambda kernel: 1000 * kernel.interrupt_s()),
    ("restart to first result, s", 3, lambda kernel: kernel.restart_s()),
)


def measure() -> Figures:
    """All figures, by what and kernel. About two minutes on a quiet machine."""
    figures: Figures = {}
    Kernel("daytona").close()  # what the first start of all leaves on the disk is there from here on
    paths = local_paths(os.environ)
    figures["start to first result, cold server, s"] = _starts(3, lambda: stop(paths))
    figures["start to first result, s"] = _starts(7, lambda: None)
    kernels = {name: Kernel(name) for name in KERNELS}
    try:
        figures["memory after start, MiB"] = {name: k.memory_mib() for name, k in kernels.items()}
        figures |= _latency(kernels)
        for what, rounds, measured in QUESTIONS:
            figures[what] = _in_turn(kernels, rounds, measured)
        figures["processor, idle, % of a core"] = _idle(kernels)
        figures["processor, idle, server and sandbox, % of a core"] = _idle_server()
        for what, code, chars, rounds in FLOODS:
            before = {name: k.memory_mib() for name, k in kernels.items()}
            figures[f"{what}, s"] = _flood(kernels, code, chars, rounds)
            growth = {name: k.memory_mib() - before[name] for name, k in kernels.items()}
            figures[f"{what}, growth of memory, MiB"] = growth
    finally:
        for kernel in kernels.values():
            kernel.close()
    return figures


def _starts(rounds: int, before: Callable[[], object]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in KERNELS}
    for _ in range(rounds):
        for name in KERNELS:
            before()
            kernel = Kernel(name)
            times[name].append(kernel.started_s)
            kernel.close()
    return summary(times)


def _latency(kernels: dict[str, Kernel]) -> Figures:
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(200):
        for name, kernel in kernels.items():
            times[name].append(kernel.run("pass")[0] * 1000)
    return {
        "cell `pass`, median, ms": summary(times),
        "cell `pass`, 95th percentile, ms": {name: sorted(v)[190] for name, v in times.items()},
    }


def _in_turn(
    kernels: dict[str, Kernel], rounds: int, measured: Callable[[Kernel], float]
) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(rounds):
        for name, kernel in kernels.items():
            times[name].append(measured(kernel))
    return summary(times)


def _idle(kernels: dict[str, Kernel]) -> dict[str, float]:
    before = {name: kernel.cpu_s() for name, kernel in kernels.items()}
    time.sleep(IDLE_S)
    return {name: 100 * (kernel.cpu_s() - before[name]) / IDLE_S for name, kernel in kernels.items()}


def _idle_server() -> dict[str, float]:
    """The server, the daemon and the Python of the one sandbox there is, together."""
    server = psutil.Process(ensure_running(local_paths(os.environ)).pid)

    def used() -> float:
        processes = [server, *server.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before = used()
    time.sleep(IDLE_S)
    return {"python3": 0.0, "daytona": 100 * (used() - before) / IDLE_S}


def _flood(kernels: dict[str, Kernel], code: str, chars: int, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(rounds):
        for name, kernel in kernels.items():
            seconds, came = kernel.run(code)
            assert came == chars, f"{name}: {came} characters instead of {chars}"
            times[name].append(seconds)
    return summary(times)


def table(figures: Figures) -> str:
    """The figures in Markdown, with their median absolute deviations where there are several of each."""
    lines = ["| what | python3 | daytona | ratio |", "|---|---|---|---|"]
    for what, values in figures.items():
        local, ours = values["python3"], values["daytona"]
        ratio = f"{ours / local:.2f}" if local else "-"
        shown = [f"{values[name]:.2f}{spread_of(values, name)}" for name in KERNELS]
        lines.append(f"| {what} | {shown[0]} | {shown[1]} | {ratio} |")
    return "\n".join(lines)


def run() -> Figures:
    """Measure with a server of its own, and end that."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        os.environ["DAYTONA_LOCAL_DIR"] = directory
        try:
            return measure()
        finally:
            stop(local_paths(os.environ))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    figures = run()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
