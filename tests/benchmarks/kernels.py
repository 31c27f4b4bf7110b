"""A running kernel with a stopwatch: what both benchmarks measure with."""

from __future__ import annotations

import statistics
import time
from typing import Any

import psutil
from jupyter_client.manager import start_new_kernel
from jupyter_client.provisioning import LocalProvisioner

Figures = dict[str, dict[str, float]]
"""What was measured, by whom: seconds and the like, and their spread."""


def summary(times: dict[str, list[float]]) -> dict[str, float]:
    """Median by name, and as ``name ±`` the median distance from it, which one slow round does not move."""
    found = {name: statistics.median(values) for name, values in times.items()}
    return found | {
        f"{name} ±": statistics.median(abs(value - found[name]) for value in values)
        for name, values in times.items()
    }


def spread_of(figures: dict[str, float], name: str) -> str:
    """The spread of a figure of :func:`summary` for people; nothing if it has none."""
    spread = figures.get(f"{name} ±")
    return f" ±{spread:.2f}" if spread is not None else ""


class Kernel:
    """A kernel, started, whose first cell has run; ``started_s`` is how long that took."""

    def __init__(self, name: str, env: dict[str, str] | None = None) -> None:
        began = time.perf_counter()
        options: dict[str, Any] = {} if env is None else {"env": env}
        self.manager, self.client = start_new_kernel(kernel_name=name, startup_timeout=120, **options)
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

    def first_output_s(self) -> float:
        """Seconds from request to the first line of a cell that goes on after it."""
        came: list[float] = []

        def note(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                came.append(time.perf_counter())

        code = "import time\nprint('first', flush=True)\ntime.sleep(0.5)"
        began = time.perf_counter()
        self.client.execute_interactive(code, output_hook=note, timeout=60)
        return came[0] - began

    def queued_s(self, count: int) -> float:
        """Seconds from the first of ``count`` requests, sent at once, to the last reply."""
        began = time.perf_counter()
        waiting = {self.client.execute("pass") for _ in range(count)}
        while waiting:
            waiting.discard(self.client.get_shell_msg(timeout=60)["parent_header"]["msg_id"])
        took = time.perf_counter() - began
        self.run("pass")  # empties the IOPub channel
        return took

    def interrupt_s(self) -> float:
        """Seconds from the interrupt of a sleeping cell to its reply."""
        pressed: list[float] = []

        def press(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream" and not pressed:
                pressed.append(time.perf_counter())
                self.manager.interrupt_kernel()

        code = "import time\nprint('begun', flush=True)\ntime.sleep(60)"
        reply = self.client.execute_interactive(code, output_hook=press, timeout=90)
        assert reply["content"]["status"] == "error", reply["content"]
        return time.perf_counter() - pressed[0]

    def ask_s(self, kind: str, code: str) -> float:
        """Seconds of a ``complete`` or ``inspect`` request at the end of ``code``."""
        began = time.perf_counter()
        reply = getattr(self.client, kind)(code, len(code), reply=True, timeout=60)
        assert reply["content"]["status"] == "ok", reply["content"]
        return time.perf_counter() - began

    def restart_s(self) -> float:
        """Seconds from a restart to the first result after it."""
        began = time.perf_counter()
        self.manager.restart_kernel()
        self.client.wait_for_ready(timeout=120)
        self.run("1")
        return time.perf_counter() - began

    @property
    def _process(self) -> psutil.Process:
        provisioner = self.manager.provisioner
        assert isinstance(provisioner, LocalProvisioner)
        assert provisioner.process is not None
        return psutil.Process(provisioner.process.pid)

    def memory_mib(self) -> float:
        """Resident memory of the kernel's process."""
        return float(self._process.memory_info().rss / 2**20)

    def cpu_s(self) -> float:
        """Processor time that the kernel's process has used."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """Shut it down."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()
