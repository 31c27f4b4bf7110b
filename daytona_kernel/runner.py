"""Run a notebook headlessly: ``jupyter daytona run``.

The work is nbclient's, which drives the kernel as any front end does. What is added here: progress, outputs
that are on disk before the run is over, limits on time, exit codes that tell the notebook's failure from
the sandbox's, and leaving nothing behind however the run ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import errors
from .progress import Progress, format_duration, make_progress, readable_traceback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

    from .notebookclient import RecordingClient

EXIT_OK = 0
EXIT_CELL_FAILED = 1
EXIT_USAGE = 2
EXIT_INFRASTRUCTURE = 3
EXIT_INTERRUPTED = 130

# The kernel reads these (daytona_kernel/config.py).
HEADLESS_VARIABLE = "DAYTONA_KERNEL_HEADLESS"
SANDBOX_VARIABLE = "DAYTONA_SANDBOX"

# How errors of the SDK and of the local side are named, as opposed to those of the notebook's own code;
# besides the names in errors.py.
_INFRASTRUCTURE_PREFIXES = ("Sandbox", "Daytona")
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STARTUP_SECONDS = 120
_INTERRUPT_GRACE_SECONDS = 5.0
# Jupyter asks the kernel to shut down, after half of this time sends SIGTERM, and after all of it SIGKILL.
_SHUTDOWN_GRACE_SECONDS = 30.0
_HURRIED_SHUTDOWN_SECONDS = 5.0


@dataclass(frozen=True)
class RunOptions:
    """What to run and how. Times are in seconds; ``None`` is no limit."""

    notebook: Path
    output: Path | None = None
    kernel: str = "daytona"
    sandbox: str | None = None
    timeout: float | None = None
    cell_timeout: float | None = None
    progress: bool = True
    allow_errors: bool = False

    @property
    def target(self) -> Path:
        """Where the outputs go: *output*, or ``NAME.out.ipynb`` beside the notebook."""
        return self.output or self.notebook.with_name(f"{self.notebook.stem}.out.ipynb")


@dataclass
class Outcome:
    """How a run ended: the exit code, and what to tell the person (empty after success)."""

    code: int = EXIT_OK
    message: str = ""
    traceback: list[str] = field(default_factory=list)
    tolerated_errors: int = 0


def run_notebook(options: RunOptions, progress: Progress | None = None) -> int:
    """Run the notebook, print how it went on stderr, return the exit code.

    0: every cell ran (with ``allow_errors``: whatever they raised). 1: a cell raised or took too long. 2:
    the notebook cannot be read, the output not be written, or there is no such kernel. 3: the kernel died,
    or the sandbox failed. 130 (143): stopped by Ctrl-C (SIGTERM). The outputs so far are in
    :attr:`RunOptions.target` in every case but 2.
    """
    problem = _check(options)
    if problem:
        return _say(problem, EXIT_USAGE)
    from . import notebookfile

    try:
        notebook = notebookfile.read(options.notebook)
        notebookfile.write(notebook, options.target)
    except notebookfile.NotebookFileError as exc:
        return _say(str(exc), EXIT_USAGE)
    started = time.monotonic()
    run = _Run(options, notebook, progress or make_progress(options.progress))
    outcome = asyncio.run(run.execute())
    try:
        notebookfile.write(notebook, options.target)
    except notebookfile.NotebookFileError as exc:
        return _say(str(exc), outcome.code or EXIT_CELL_FAILED)
    _report(outcome, options, time.monotonic() - started)
    return outcome.code


def _check(options: RunOptions) -> str:
    """Return what is wrong with *options*, or nothing. Cheap, and before anything is started."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    if not options.notebook.is_file():
        return f"there is no notebook {options.notebook}"
    if not options.target.parent.is_dir():
        return f"there is no folder {options.target.parent} to save in"
    manager = KernelSpecManager()
    try:
        manager.get_kernel_spec(options.kernel)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        return f"there is no kernel {options.kernel!r} here (known: {known})"
    return ""


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _report(outcome: Outcome, options: RunOptions, seconds: float) -> None:
    if outcome.traceback:
        print(readable_traceback(outcome.traceback, sys.stderr), file=sys.stderr)
    if outcome.message:
        print(outcome.message, file=sys.stderr)
    if outcome.tolerated_errors:
        print(f"{outcome.tolerated_errors} cell(s) raised errors, as allowed", file=sys.stderr)
    if options.progress or outcome.code:
        what = "done" if outcome.code == EXIT_OK else "stopped"
        print(f"{what} after {format_duration(seconds)}; outputs saved in {options.target}", file=sys.stderr)


class _CellFailedError(Exception):
    """A cell's error ends the run; carries the :class:`Outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


class _Run:
    """One run: the kernel, the client, and what happened so far. Lives on one event loop."""

    def __init__(self, options: RunOptions, notebook: NotebookNode, progress: Progress) -> None:
        self._options = options
        self._notebook = notebook
        self._progress = progress
        self._manager: AsyncKernelManager | None = None
        self._client: RecordingClient | None = None
        self._task: asyncio.Task[None] | None = None
        self._signal: signal.Signals | None = None
        self._over_time = False
        self._number = 0
        self._cell_began = 0.0
        self._cell_over_time = False
        self._timers: list[asyncio.TimerHandle] = []
        self._hurry = False
        self._interrupts: list[asyncio.Future[None]] = []
        self._tolerated = 0

    async def execute(self) -> Outcome:
        """Start the kernel, run the cells, stop the kernel; what these do wrong is in the outcome."""
        loop = asyncio.get_running_loop()
        for number in _heeded_signals():
            loop.add_signal_handler(number, self._on_signal, number)
        deadline = None
        if self._options.timeout is not None:
            deadline = loop.call_later(self._options.timeout, self._on_deadline)
        self._task = asyncio.ensure_future(self._work())
        try:
            return await self._wait()
        finally:
            if deadline is not None:
                deadline.cancel()
            self._progress.run_ended()
            await self._stop_kernel()

    async def _wait(self) -> Outcome:
        """Wait for the work and translate how it ended. The one place that knows nbclient's exceptions."""
        from nbclient.exceptions import DeadKernelError

        from .notebookfile import NotebookFileError

        assert self._task is not None
        try:
            await self._task
        except _CellFailedError as exc:
            return self._stopped(exc.outcome.traceback) or exc.outcome
        except NotebookFileError as exc:
            return Outcome(EXIT_INFRASTRUCTURE, str(exc))
        except (asyncio.CancelledError, DeadKernelError) as exc:
            stopped = self._stopped() or self._late()
            if stopped is None and isinstance(exc, asyncio.CancelledError):
                raise
            return stopped or Outcome(EXIT_INFRASTRUCTURE, f"the kernel died in cell {self._number}")
        except (RuntimeError, OSError) as exc:
            # jupyter_client has no narrower type for a kernel that did not come up.
            return self._stopped() or Outcome(EXIT_INFRASTRUCTURE, f"the kernel failed: {exc}")
        return self._stopped() or Outcome(tolerated_errors=self._tolerated)

    def _stopped(self, traceback: Sequence[str] = ()) -> Outcome | None:
        """Return the outcome of a run that was told to stop: the reason, whatever error it led to."""
        if self._signal is not None:
            return Outcome(
                128 + self._signal, f"interrupted in cell {self._number}" if self._number else "interrupted"
            )
        if self._over_time:
            limit = format_duration(self._options.timeout or 0)
            message = f"not done within {limit} (--timeout); stopped in cell {self._number}"
            return Outcome(EXIT_CELL_FAILED, message, list(traceback))
        return None

    def _late(self, traceback: Sequence[str] = ()) -> Outcome | None:
        """Return the outcome of a cell that was over its own limit."""
        if not self._cell_over_time:
            return None
        limit = format_duration(self._options.cell_timeout or 0)
        message = f"cell {self._number} did not end within {limit} (--cell-timeout)"
        return Outcome(EXIT_CELL_FAILED, message, list(traceback))

    async def _work(self) -> None:
        await self._start_kernel()
        client = self._client
        assert client is not None
        client.reset_execution_trackers()
        assert client.kc is not None
        info = await client.async_wait_for_reply(await _ensure(client.kc.kernel_info()))
        if info is not None and "language_info" in info["content"]:
            self._notebook.metadata["language_info"] = info["content"]["language_info"]
        self._progress.run_started(sum(map(is_runnable, self._notebook.cells)))
        saver = asyncio.ensure_future(client.save_while_running(self._options.target))
        try:
            for index, cell in enumerate(self._notebook.cells):
                if self._stopped():
                    return
                await client.async_execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
            client.set_widgets_metadata()
        finally:
            saver.cancel()
            client.join_streams()

    async def _start_kernel(self) -> None:
        from jupyter_client.manager import AsyncKernelManager

        from .notebookclient import RecordingClient

        self._manager = AsyncKernelManager(kernel_name=self._options.kernel)
        if self._manager.has_trait("transport_encryption"):
            # jupyter_client >= 8.10: other users of this machine cannot listen in on the kernel's TCP ports.
            self._manager.set_trait("transport_encryption", "auto")
        self._client = RecordingClient(
            self._notebook,
            km=self._manager,
            startup_timeout=_STARTUP_SECONDS,
            allow_errors=self._options.allow_errors,
            on_cell_execute=self._on_cell_execute,
            on_cell_executed=self._on_cell_executed,
            on_cell_error=self._on_cell_error,
        )
        folder = self._options.notebook.resolve().parent
        await self._manager.start_kernel(cwd=str(folder), env=self._kernel_environment())
        await self._client.async_start_new_kernel_client()

    def _kernel_environment(self) -> dict[str, str]:
        env = dict(os.environ, **{HEADLESS_VARIABLE: "1"})
        # Set when this runs in a terminal or cell of JupyterLab, and then names another notebook.
        env.pop("JPY_SESSION_NAME", None)
        if self._options.sandbox:
            env[SANDBOX_VARIABLE] = self._options.sandbox
        return env

    def _on_cell_execute(self, cell: NotebookNode, cell_index: int) -> None:
        self._number += 1
        self._cell_began = time.monotonic()
        self._cell_over_time = False
        if self._options.cell_timeout is not None:
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(self._options.cell_timeout, self._on_cell_deadline))
        # A cell that never ends must not be saved with the outputs of an earlier run.
        cell.outputs = []
        cell.execution_count = None
        self._progress.cell_started(self._number, cell.source)

    def _on_cell_executed(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        """Called for every cell that ended, before :meth:`_on_cell_error`."""
        assert self._client is not None
        while self._timers:
            self._timers.pop().cancel()
        content = execute_reply["content"]
        ok = content["status"] != "error" and not self._cell_over_time
        self._progress.cell_ended(self._number, time.monotonic() - self._cell_began, ok=ok)
        self._client.save(self._options.target)
        late = self._late(content.get("traceback") or ())
        if late is not None and not self._options.allow_errors:
            raise _CellFailedError(late)

    def _on_cell_error(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        content = execute_reply["content"]
        name = str(content.get("ename", ""))
        tagged = "raises-exception" in cell.metadata.get("tags", [])
        if tagged:
            return
        infrastructure = is_infrastructure(name)
        if self._options.allow_errors and not infrastructure:
            self._tolerated += 1
            return
        traceback = list(content.get("traceback") or [f"{name}: {content.get('evalue', '')}"])
        if infrastructure:
            outcome = Outcome(
                EXIT_INFRASTRUCTURE, f"the sandbox failed in cell {self._number} ({name})", traceback
            )
        else:
            outcome = Outcome(EXIT_CELL_FAILED, f"cell {self._number} failed ({name})", traceback)
        raise _CellFailedError(outcome)

    def _on_signal(self, number: signal.Signals) -> None:
        """First signal: interrupt the cell, so that its outputs end well. Second, or 5 s later: drop it."""
        again = self._signal is not None
        self._signal = self._signal or number
        self._hurry = again
        self._end_cell(at_once=again)

    def _on_deadline(self) -> None:
        self._over_time = True
        self._end_cell(at_once=False)

    def _on_cell_deadline(self) -> None:
        self._cell_over_time = True
        self._end_cell(at_once=False)

    def _end_cell(self, *, at_once: bool) -> None:
        assert self._task is not None
        if at_once or self._number == 0 or self._manager is None:
            self._task.cancel()
            return
        self._interrupts.append(asyncio.ensure_future(_interrupt(self._manager)))
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(_INTERRUPT_GRACE_SECONDS, self._task.cancel))

    async def _stop_kernel(self) -> None:
        """Shut the kernel down and wait for it (it deletes its sandbox); kill it if it takes too long."""
        manager, client = self._manager, self._client
        if manager is None:
            return
        self._signal_kills(manager)
        try:
            if manager.has_kernel and await manager.is_alive():
                manager.shutdown_wait_time = (
                    _HURRIED_SHUTDOWN_SECONDS if self._hurry else _SHUTDOWN_GRACE_SECONDS
                )
                await manager.shutdown_kernel(now=False)
        finally:
            if client is not None and client.kc is not None:
                client.kc.stop_channels()
            await _ensure(manager.cleanup_resources())

    def _signal_kills(self, manager: AsyncKernelManager) -> None:
        """From here on a signal means: do not wait for the kernel's farewell."""
        loop = asyncio.get_running_loop()

        def kill() -> None:
            self._interrupts.append(asyncio.ensure_future(manager.shutdown_kernel(now=True)))

        for number in _heeded_signals():
            loop.add_signal_handler(number, kill)


def is_infrastructure(ename: str) -> bool:
    """Tell whether an error of this name is the sandbox's (or the way to it), not that of the notebook's
    code."""
    if ename.startswith(_INFRASTRUCTURE_PREFIXES):
        return True
    ours = getattr(errors, ename, None)
    return isinstance(ours, type) and issubclass(ours, errors.DaytonaKernelError)


def is_runnable(cell: NotebookNode) -> bool:
    """Tell whether nbclient will send *cell* to the kernel."""
    return bool(
        cell.cell_type == "code"
        and cell.source.strip()
        and "skip-execution" not in cell.metadata.get("tags", [])
    )


def _heeded_signals() -> list[signal.Signals]:
    """Return the signals that stop a run: not those that its starter ignores, as nohup does SIGHUP."""
    return [number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


async def _interrupt(manager: AsyncKernelManager) -> None:
    if manager.has_kernel:
        await manager.interrupt_kernel()


async def _ensure(result: Any) -> Any:
    """Await *result* if it can be: jupyter_client's sync and async sides answer differently."""
    return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result
