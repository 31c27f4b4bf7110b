"""Kernel ``daytona`` on the local server beside ipykernel's: ``python -m tests.benchmarks.compare``.

Both kernels run the same cells, in turn, in one run, so that a busy machine slows both. It measures and never
asserts on a clock; that all output has come is checked. ``--json FILE`` writes the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import psutil
from jupyter_client.manager import start_new_kernel

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
)

Figures = dict[str, dict[str, float]]


class Kernel:
    """A kernel, started, whose first cell has run; ``started_s`` is how long that took."""

    def __init__(self, name: str) -> None:
        began = time.perf_counter()
        self.manager, self.client = start_new_kernel(kernel_name=name, startup_timeout=120)
        self.run("1")
        self.started_s = time.perf_counter() - began

    def run(self, code: str) -> tuple[float, int]:
        """Seconds from request to idle, and characters of output."""
        chars = 0

        def count(message: dict[str, Any]) -> None:
            nonlocal chars
            content = message["content"]
            chars += len(content.get("text", "")) + sum(len(v) for v in content.get("data", {}).values())

        began = time.perf_counter()
        reply = self.client.execute_interactive(code, output_hook=count, timeout=600, allow_stdin=False)
        assert reply["content"]["status"] == "ok", reply["content"]
        return time.perf_counter() - began, chars

    def memory_mib(self) -> float:
        """Resident memory of the kernel's process."""
        return float(psutil.Process(self.manager.provisioner.process.pid).memory_info().rss / 2**20)

    def close(self) -> None:
        """Shut it down."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()


def measure() -> Figures:
    """All figures, by what and kernel. About a minute on a quiet machine."""
    figures: Figures = {}
    Kernel("daytona").close()  # the local server is running from here on
    starts: dict[str, list[float]] = {name: [] for name in KERNELS}
    for _ in range(5):
        for name in KERNELS:
            kernel = Kernel(name)
            starts[name].append(kernel.started_s)
            kernel.close()
    figures["start to first result, s"] = {name: statistics.median(v) for name, v in starts.items()}
    kernels = {name: Kernel(name) for name in KERNELS}
    try:
        figures["memory after start, MiB"] = {name: k.memory_mib() for name, k in kernels.items()}
        figures |= _latency(kernels)
        for what, code, chars, rounds in FLOODS:
            figures[f"{what}, s"] = _flood(kernels, code, chars, rounds)
        figures["memory at the end, MiB"] = {name: k.memory_mib() for name, k in kernels.items()}
    finally:
        for kernel in kernels.values():
            kernel.close()
    return figures


def _latency(kernels: dict[str, Kernel]) -> Figures:
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(200):
        for name, kernel in kernels.items():
            times[name].append(kernel.run("pass")[0] * 1000)
    return {
        "cell `pass`, median, ms": {name: statistics.median(v) for name, v in times.items()},
        "cell `pass`, 95th percentile, ms": {name: sorted(v)[190] for name, v in times.items()},
    }


def _flood(kernels: dict[str, Kernel], code: str, chars: int, rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(rounds):
        for name, kernel in kernels.items():
            seconds, came = kernel.run(code)
            assert came == chars, f"{name}: {came} characters instead of {chars}"
            times[name].append(seconds)
    return {name: statistics.median(v) for name, v in times.items()}


def table(figures: Figures) -> str:
    """The figures in Markdown."""
    lines = ["| what | python3 | daytona | ratio |", "|---|---|---|---|"]
    for what, values in figures.items():
        local, ours = values["python3"], values["daytona"]
        lines.append(f"| {what} | {local:.2f} | {ours:.2f} | {ours / local:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    figures = measure()
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
