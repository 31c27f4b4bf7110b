"""One run of one notebook: a kernel, its cells in order, what is brought before and taken after, the end.

The work is nbclient's, which drives the kernel as any front end does. What is added here: outputs that are on
disk before the run is over, limits on time, telling the notebook's failure from the sandbox's, and leaving
nothing behind however the run ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from . import kernelstate
from .account import account_folder, account_variables, kernel_settings
from .errors import DaytonaKernelError, public_name
from .outcome import (
    EXIT_CELL_FAILED,
    EXIT_INFRASTRUCTURE,
    Outcome,
    is_infrastructure,
    is_retryable,
)
from .progress import Progress, format_duration
from .selection import Job
from .supplies import SuppliesError, Taken, bring, take, workroom

if TYPE_CHECKING:
    from jupyter_client.manager import AsyncKernelManager
    from nbformat import NotebookNode

    from .config import DaytonaSettings
    from .notebookclient import RecordingClient

# The kernel reads these (daytona_kernel/config.py).
HEADLESS_VARIABLE = "DAYTONA_KERNEL_HEADLESS"
SANDBOX_VARIABLE = "DAYTONA_SANDBOX"

STARTUP_SECONDS = 120
INTERRUPT_GRACE_SECONDS = 5.0
# Jupyter asks the kernel to shut down, after half of this time sends SIGTERM, and after all of it SIGKILL.
SHUTDOWN_GRACE_SECONDS = 30.0
HURRIED_SHUTDOWN_SECONDS = 5.0
LOG_BYTES, LOG_LINES = 16_384, 10
"""The end of a kernel's log that is shown."""


@dataclass(frozen=True)
class NotebookOptions:
    """How a notebook is run. Times are in seconds; ``None`` is no limit."""

    kernel: str = "daytona"
    sandbox: str | None = None
    timeout: float | None = None
    cell_timeout: float | None = None
    allow_errors: bool = False
    max_output: int = 0
    """Characters of output that are kept of all cells together; 0 for all."""
    uploads: Sequence[tuple[Path, str]] = ()
    """Files of this machine, and their paths in the sandbox, to be there before the first cell."""
    collect: Sequence[str] = ()
    """Patterns of files in the sandbox that are wanted afterwards, also of a notebook that failed."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the kernel (not of the sandbox), besides those of this process."""
    account: Path | None = None
    """The folder whose ``.env`` has the credentials; without one, where the notebook is, or else here."""
    keep_failed: bool = False
    quiet: bool = False
    """Whether what the kernel logs is shown only where the run fails: several at once would mix it."""


@dataclass
class Facts:
    """What is known of a run besides its outcome."""

    cells: int = 0
    done: int = 0
    uploaded_files: int = 0
    uploaded_bytes: int = 0
    collected: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sandbox: str = ""
    context: str = ""
    """The Python process in the sandbox, with the notebook's variables; while it is there."""
    kept: bool = False
    saved: bool = False
    """Whether the outputs are in the result's file; else those of some cells may be, or none."""


class _CellFailedError(Exception):
    """A cell's error ends the run; carries the :class:`Outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


class NotebookRun:
    """One run: the kernel, the client, and what happened so far. Lives on one event loop, and once."""

    def __init__(
        self,
        job: Job,
        notebook: NotebookNode,
        options: NotebookOptions,
        progress: Progress,
        keep: Callable[[DaytonaSettings], Awaitable[str]] | None = None,
    ) -> None:
        """*keep* sees to it that the sandbox of settings stays when the kernel is gone; it gives its name."""
        self.facts = Facts()
        self._job = job
        self._options = options
        self._folder = job.notebook.resolve().parent
        self._account = options.account or account_folder([self._folder, Path.cwd()])
        self._notebook = notebook
        self._progress = progress
        self._keep = keep
        self._manager: AsyncKernelManager | None = None
        self._client: RecordingClient | None = None
        self._task: asyncio.Task[Any] | None = None
        self._reason: tuple[int, str] | None = None
        self._over_time = False
        self._number = 0
        self._cell_began = 0.0
        self._cell_over_time = False
        self._timers: list[asyncio.TimerHandle] = []
        self._hurry = False
        self._ending = False
        self._interrupts: list[asyncio.Future[None]] = []
        self._tolerated = 0
        self._log: IO[bytes] | None = None

    async def execute(self) -> Outcome:
        """Start the kernel, run the cells, stop the kernel; what these do wrong is in the outcome."""
        deadline = None
        if self._options.timeout is not None:
            loop = asyncio.get_running_loop()
            deadline = loop.call_later(self._options.timeout, self._on_deadline)
        self._task = asyncio.ensure_future(self._work())
        outcome = Outcome(EXIT_INFRASTRUCTURE)
        try:
            outcome = await self._wait()
            if deadline is not None:
                deadline.cancel()
            await self._finish(outcome)
            return outcome
        finally:
            if deadline is not None:
                deadline.cancel()
            self._progress.run_ended()
            await self._stop_kernel()
            self._read_log(outcome)

    def stop(self, code: int, word: str = "interrupted") -> None:
        """End the run with this exit code. First call: interrupt the cell, so that its outputs end well.

        Second call, or 5 s later: drop the cell. While the kernel takes leave a second call kills it.
        """
        again = self._reason is not None
        self._reason = self._reason or (code, word)
        self._hurry = again
        if not self._ending:
            self._end_cell(at_once=again)
        elif again and self._manager is not None:
            self._interrupts.append(asyncio.ensure_future(_kill(self._manager)))

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
        except SuppliesError as exc:
            return self._stopped() or Outcome(EXIT_INFRASTRUCTURE, str(exc), retryable=True)
        except DaytonaKernelError as exc:
            name = public_name(exc)
            message = f"the sandbox failed before the first cell ({name}: {exc})"
            return self._stopped() or Outcome(
                EXIT_INFRASTRUCTURE, message, ename=name, evalue=str(exc), retryable=is_retryable(name)
            )
        except (asyncio.CancelledError, DeadKernelError) as exc:
            stopped = self._stopped() or self._late()
            if stopped is None and isinstance(exc, asyncio.CancelledError):
                raise
            message = f"the kernel died in cell {self._number}"
            return stopped or Outcome(EXIT_INFRASTRUCTURE, message, cell=self._number, retryable=True)
        except (RuntimeError, OSError) as exc:
            # jupyter_client has no narrower type for a kernel that did not come up.
            message = f"the kernel failed: {exc}"
            return self._stopped() or Outcome(EXIT_INFRASTRUCTURE, message, retryable=True)
        return self._stopped() or Outcome(tolerated_errors=self._tolerated)

    def _stopped(self, traceback: Sequence[str] = ()) -> Outcome | None:
        """Return the outcome of a run that was told to stop: the reason, whatever error it led to."""
        if self._reason is not None:
            code, word = self._reason
            message = f"{word} in cell {self._number}" if self._number else word
            return Outcome(code, message, cell=self._number)
        if self._over_time:
            limit = format_duration(self._options.timeout or 0)
            message = f"not done within {limit} (--timeout); stopped in cell {self._number}"
            return Outcome(EXIT_CELL_FAILED, message, list(traceback), cell=self._number, ename="Timeout")
        return None

    def _late(self, traceback: Sequence[str] = ()) -> Outcome | None:
        """Return the outcome of a cell that was over its own limit."""
        if not self._cell_over_time:
            return None
        limit = format_duration(self._options.cell_timeout or 0)
        message = f"cell {self._number} did not end within {limit} (--cell-timeout)"
        return Outcome(EXIT_CELL_FAILED, message, list(traceback), cell=self._number, ename="CellTimeout")

    async def _work(self) -> None:
        await self._start_kernel()
        client = self._client
        assert client is not None
        client.reset_execution_trackers()
        assert client.kc is not None
        info = await client.async_wait_for_reply(await _ensure(client.kc.kernel_info()))
        if info is not None and "language_info" in info["content"]:
            self._notebook.metadata["language_info"] = info["content"]["language_info"]
        self.facts.cells = sum(map(is_runnable, self._notebook.cells))
        await self._bring()
        self._progress.run_started(self.facts.cells)
        saver = asyncio.ensure_future(client.save_while_running(self._job.target))
        try:
            for index, cell in enumerate(self._notebook.cells):
                if self._stopped():
                    return
                await client.async_execute_cell(cell, index, execution_count=client.code_cells_executed + 1)
            client.set_widgets_metadata()
        finally:
            saver.cancel()
            client.join_streams()

    async def _bring(self) -> None:
        """Upload what is wanted, once the kernel has its sandbox. Raises errors of our tree, and
        :exc:`SuppliesError`.
        """
        if not self._options.uploads:
            return
        client = self._client
        assert client is not None
        assert client.kc is not None
        # A cell of no effect waits for the sandbox, and tells why if there is none.
        reply = await client.async_wait_for_reply(client.kc.execute("pass", silent=True, store_history=False))
        if reply is None or reply["content"].get("status") != "ok":
            raise _CellFailedError(self._failure(reply or {"content": {}}))
        sandbox = str(self._kernel_state().get("sandbox_id") or "")
        if not sandbox:
            raise SuppliesError("the kernel has no sandbox to upload to")
        async with workroom(self._settings(sandbox)) as toolbox:
            self.facts.uploaded_bytes = await bring(toolbox, self._options.uploads)
        self.facts.uploaded_files = len(self._options.uploads)

    async def _finish(self, outcome: Outcome) -> None:
        """Take home what was asked for, and keep a failed notebook's sandbox. Not after an interrupt."""
        self._note_what_was_cut()
        state = self._kernel_state()
        sandbox = str(state.get("sandbox_id") or self._options.sandbox or "")
        self.facts.sandbox, self.facts.context = sandbox, str(state.get("context_id") or "")
        if self._was_told_to_stop() or not sandbox:
            return
        if self._options.collect:
            self._task = asyncio.ensure_future(self._take(sandbox))
            try:
                await self._task
            except asyncio.CancelledError:
                if not self._was_told_to_stop():
                    raise
                self.facts.notes.append("interrupted while files were collected")
            except (DaytonaKernelError, OSError) as exc:
                self.facts.notes.append(f"nothing was collected: {exc}")
        if outcome.code and self._options.keep_failed and self._keep is not None:
            try:
                self.facts.sandbox = await self._keep(self._settings(sandbox))
                self.facts.kept = True
            except DaytonaKernelError as exc:
                self.facts.notes.append(f"the sandbox could not be kept: {exc}")

    def _note_what_was_cut(self) -> None:
        if self._client is None or not self._client.cut_cells:
            return
        runnable = [index for index, cell in enumerate(self._notebook.cells) if is_runnable(cell)]
        numbers = ", ".join(str(runnable.index(index) + 1) for index in self._client.cut_cells)
        limit = f"{self._options.max_output / 1e6:g} MB"
        self.facts.notes.append(
            f"over {limit} of output: the rest of cell {numbers} was not kept (--max-output)"
        )

    def _was_told_to_stop(self) -> bool:
        return self._reason is not None

    async def _take(self, sandbox: str) -> None:
        async with workroom(self._settings(sandbox)) as toolbox:
            taken: Taken = await take(toolbox, self._options.collect, self._job.files)
        self.facts.collected = taken.files
        self.facts.notes += [f"not collected: {problem}" for problem in taken.problems]

    def _kernel_state(self) -> dict[str, Any]:
        """What the kernel has noted of its sandbox; empty until it has one."""
        if self._manager is None:
            return {}
        return kernelstate.read_state(kernelstate.state_file(self._manager.connection_file))

    async def _start_kernel(self) -> None:
        from jupyter_client.manager import AsyncKernelManager

        from .notebookclient import RecordingClient

        self._manager = AsyncKernelManager(kernel_name=self._options.kernel)
        if self._manager.has_trait("transport_encryption"):
            # jupyter_client >= 8.10: other users of this machine cannot listen in on the kernel's TCP ports.
            self._manager.set_trait("transport_encryption", "auto")
        self._client = RecordingClient(
            self._notebook,
            max_output=self._options.max_output,
            km=self._manager,
            startup_timeout=STARTUP_SECONDS,
            allow_errors=self._options.allow_errors,
            on_cell_execute=self._on_cell_execute,
            on_cell_executed=self._on_cell_executed,
            on_cell_error=self._on_cell_error,
        )
        settings: dict[str, Any] = {"env": self._kernel_environment()}
        if self._options.quiet:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the kernel has ended
            settings["stderr"] = self._log
        spec = self._manager.kernel_spec
        if spec is not None:
            # What was asked for counts more than what the kernelspec brings along, which Jupyter puts above.
            spec.env = {name: value for name, value in spec.env.items() if name not in self._variables()}
        await self._manager.start_kernel(cwd=str(self._folder), **settings)
        await self._client.async_start_new_kernel_client()

    def _kernel_environment(self) -> dict[str, str]:
        env = {**os.environ, **self._variables()}
        # Set when this runs in a terminal or cell of JupyterLab, and then names another notebook.
        env.pop("JPY_SESSION_NAME", None)
        return env

    def _variables(self) -> dict[str, str]:
        """The kernel's variables, besides those of this process."""
        found = {**self._options.environment, HEADLESS_VARIABLE: "1"}
        if self._options.sandbox:
            found[SANDBOX_VARIABLE] = self._options.sandbox
        if self._account is not None and self._account != self._folder:
            found |= account_variables(self._account)
        return found

    def _settings(self, sandbox: str) -> DaytonaSettings:
        """Settings for what is done beside the kernel: its service and account, and its sandbox."""
        spec = self._manager.kernel_spec if self._manager is not None else None
        variables = {**(spec.env if spec is not None else {}), **self._options.environment}
        return kernel_settings(variables, self._account or self._folder, sandbox=sandbox)

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
        ok = (content["status"] != "error" or may_fail(cell)) and not self._cell_over_time
        self.facts.done += 1
        self._progress.cell_ended(self._number, time.monotonic() - self._cell_began, ok=ok)
        self._client.save(self._job.target)
        late = self._late(content.get("traceback") or ())
        if late is not None and not self._options.allow_errors:
            raise _CellFailedError(late)
        left = self.facts.cells - self.facts.done
        if left and any(_ends_kernel(item) for item in content.get("payload") or ()):
            message = f"cell {self._number} ended the kernel, as exit() does; {left} cell(s) did not run"
            raise _CellFailedError(Outcome(EXIT_CELL_FAILED, message, cell=self._number, ename="KernelEnded"))

    def _on_cell_error(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        if may_fail(cell):
            return
        if self._options.allow_errors and not self._is_infrastructure(execute_reply):
            self._tolerated += 1
            return
        raise _CellFailedError(self._failure(execute_reply))

    def _is_infrastructure(self, reply: dict[str, Any]) -> bool:
        """Whether the sandbox failed. Code may raise errors of these names: our kernel tells them apart."""
        own = kernelstate.FAILED in reply.get("metadata", {})
        return is_infrastructure(str(reply["content"].get("ename", ""))) and (own or not self._kernel_state())

    def _failure(self, reply: dict[str, Any]) -> Outcome:
        """The outcome of a cell whose reply is an error."""
        content, infrastructure = reply["content"], self._is_infrastructure(reply)
        name, value = str(content.get("ename", "")), str(content.get("evalue", ""))
        where = f"in cell {self._number}" if self._number else "before the first cell"
        return Outcome(
            EXIT_INFRASTRUCTURE if infrastructure else EXIT_CELL_FAILED,
            f"the sandbox failed {where} ({name})"
            if infrastructure
            else f"cell {self._number} failed ({name})",
            list(content.get("traceback") or [f"{name}: {value}"]),
            cell=self._number,
            ename=name,
            evalue=value,
            retryable=infrastructure and is_retryable(name),
        )

    def _on_deadline(self) -> None:
        self._over_time = True
        self._end_cell(at_once=False)

    def _on_cell_deadline(self) -> None:
        self._cell_over_time = True
        self._end_cell(at_once=False)

    def _end_cell(self, *, at_once: bool) -> None:
        if self._task is None:
            return
        if at_once or self._number == 0 or self._manager is None or self._task.done():
            self._task.cancel()
            return
        self._interrupts.append(asyncio.ensure_future(_interrupt(self._manager)))
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(INTERRUPT_GRACE_SECONDS, self._task.cancel))

    async def _stop_kernel(self) -> None:
        """Shut the kernel down and wait for it (it deletes its sandbox); kill it if it takes too long."""
        self._ending = True
        while self._timers:
            self._timers.pop().cancel()
        manager, client = self._manager, self._client
        if manager is None:
            return
        try:
            if manager.has_kernel and await manager.is_alive():
                manager.shutdown_wait_time = (
                    HURRIED_SHUTDOWN_SECONDS if self._hurry else SHUTDOWN_GRACE_SECONDS
                )
                # A kernel that is killed can not end its Python process in the sandbox: variables are kept.
                await manager.shutdown_kernel(now=self.facts.kept)
                if self.facts.kept:
                    kernelstate.state_file(manager.connection_file).unlink(missing_ok=True)
        finally:
            if client is not None and client.kc is not None:
                client.kc.stop_channels()
            await _ensure(manager.cleanup_resources())

    def _read_log(self, outcome: Outcome) -> None:
        """Note the last that the kernel logged, if it was the kernel or the sandbox that failed."""
        if self._log is None:
            return
        with self._log as log:
            if outcome.code == EXIT_INFRASTRUCTURE:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
                self.facts.notes += [f"kernel log: {line}" for line in lines[-LOG_LINES:]]


def is_runnable(cell: NotebookNode) -> bool:
    """Tell whether nbclient will send *cell* to the kernel."""
    return bool(
        cell.cell_type == "code"
        and cell.source.strip()
        and "skip-execution" not in cell.metadata.get("tags", [])
    )


def may_fail(cell: NotebookNode) -> bool:
    """Tell whether *cell* is tagged as one whose error does not end the run."""
    return "raises-exception" in cell.metadata.get("tags", [])


def _ends_kernel(payload: Any) -> bool:
    return isinstance(payload, dict) and payload.get("source") == "ask_exit" and not payload.get("keepkernel")


def heeded_signals() -> list[signal.Signals]:
    """Return the signals that stop a run: not those that its starter ignores, as nohup does SIGHUP."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


async def _interrupt(manager: AsyncKernelManager) -> None:
    if manager.has_kernel:
        await manager.interrupt_kernel()


async def _kill(manager: AsyncKernelManager) -> None:
    """End the kernel at once. Not by ``shutdown_kernel``: it may be at it, and can not be called twice."""
    if manager.has_kernel:
        with suppress(RuntimeError, OSError):
            await manager.signal_kernel(signal.SIGKILL)


async def _ensure(result: Any) -> Any:
    """Await *result* if it can be: jupyter_client's sync and async sides answer differently."""
    return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result
