"""``jupyter daytona run``: one notebook or many, each in a sandbox of its own, several at once.

What happens to one notebook is :mod:`.notebookrun`'s. Here: which, how many at a time, again or not, what is
told, and the exit code.
"""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import notebookfile, parameters, reports
from .account import account_folder, kernel_settings
from .board import Board, make_board
from .errors import DaytonaKernelError
from .notebookrun import NotebookOptions, NotebookRun, heeded_signals
from .outcome import (
    EXIT_INFRASTRUCTURE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    Outcome,
    combined_code,
)
from .progress import format_duration, readable_traceback
from .reports import Report
from .selection import Job, SelectionError, select
from .sharing import SharedSandbox, keep, sweep
from .steady import discard, steady_stderr
from .supplies import SuppliesError, files_beside, files_to_upload, parse_upload
from .terminal import spelled

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec
    from nbformat import NotebookNode

    from .config import DaytonaSettings

_REFRESH_SECONDS = 1.0
_RETRY_SECONDS = (1.0, 5.0, 15.0, 30.0)
"""Waited before another attempt: a service that is short of something is not helped by haste."""


@dataclass(frozen=True)
class RunOptions:
    """What to run and how. Times are in seconds; ``None`` is no limit."""

    notebooks: Sequence[str]
    output: Path | None = None
    output_dir: Path | None = None
    inplace: bool = False
    each: NotebookOptions = field(default_factory=NotebookOptions)
    parameters: dict[str, Any] = field(default_factory=dict)
    uploads: Sequence[str] = ()
    beside: bool = False
    jobs: int = 1
    retries: int = 0
    fail_fast: bool = False
    share: bool = False
    junit: Path | None = None
    json: Path | None = None
    progress: bool = True


class _UsageError(Exception):
    """Nothing was run, for the reason in the text."""


def run_notebooks(options: RunOptions) -> int:
    """Run the notebooks, print how it went on stderr, return the exit code.

    0: every cell ran (with ``allow_errors``: whatever they raised). 1: a cell raised or took too long. 2: a
    notebook cannot be read, a result not be written, or there is no such kernel; nothing was run. 3: a
    kernel died, or a sandbox failed, and no notebook failed by itself. 130 (143): stopped by Ctrl-C
    (SIGTERM). The outputs so far are in the results in every case but 2.
    """
    with steady_stderr():
        return _run_notebooks(options)


def _run_notebooks(options: RunOptions) -> int:
    try:
        jobs = select(
            options.notebooks,
            output=options.output,
            output_dir=options.output_dir,
            inplace=options.inplace,
        )
        language = _check(options)
        books = {job: notebookfile.read(job.notebook) for job in jobs}
        notes = _prepare(options, jobs, books, language)
        each = _with_files(options, jobs)
    except (SelectionError, SuppliesError, notebookfile.NotebookFileError, _UsageError) as exc:
        print(exc, file=sys.stderr)
        return EXIT_USAGE
    began, started = time.time(), time.monotonic()
    board = make_board(options.progress, len(jobs), sys.stderr)
    run = _Run(options, board)
    results = asyncio.run(run.execute(jobs, books, each))
    seconds = time.monotonic() - started
    codes = [report.outcome.code for report in results if report.outcome is not None]
    code = run.code or combined_code(codes)
    _tell(options, results, code, seconds)
    for report in results:
        report.facts.notes[:0] = notes.get(report.job, [])
    return _write_reports(options, results, code, began, seconds)


def _check(options: RunOptions) -> str:
    """Refuse what can not be, before anything is started. The kernel's language."""
    from .kernelspecs import is_ours

    kernel = options.each.kernel
    spec = _spec(kernel)
    ours = is_ours(Path(spec.resource_dir))
    wanted = {
        "--upload": options.uploads,
        "--beside": options.beside,
        "--collect": options.each.collect,
        "--share": options.share,
        "--keep-failed": options.each.keep_failed,
    }
    for option, given in wanted.items():
        if given and not ours:
            raise _UsageError(f"{option} needs a kernel of daytona-kernel; {kernel!r} is none")
    if options.share and options.each.sandbox:
        raise _UsageError("--sandbox names the sandbox that all share already: leave --share out")
    for path in (options.junit, options.json):
        if path is not None and not os.path.isdir(path.absolute().parent):
            raise _UsageError(f"there is no folder {path.parent} to save {path.name} in")
        if path is not None and os.path.isdir(path):
            raise _UsageError(f"{path} is a folder; name the file for the report")
    return spec.language


def _spec(kernel: str) -> KernelSpec:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    manager = KernelSpecManager()
    try:
        found: KernelSpec = manager.get_kernel_spec(kernel)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise _UsageError(f"there is no kernel {kernel!r} here (known: {known})") from None
    return found


def _prepare(
    options: RunOptions, jobs: Sequence[Job], books: dict[Job, NotebookNode], language: str
) -> dict[Job, list[str]]:
    """Set the parameters, try whether results can be written; what the user should know of each."""
    notes: dict[Job, list[str]] = {}
    for job in jobs:
        other = notebookfile.language(books[job])
        if other and language and other.casefold() != language.casefold():
            kernel = options.each.kernel
            notes[job] = [f"the notebook says that it is in {other}; the kernel {kernel!r} runs {language}"]
        unknown = parameters.inject(books[job], options.parameters)
        if unknown:
            found = f"parameters that the notebook does not have: {', '.join(unknown)}"
            notes[job] = [*notes.get(job, []), found]
        for note in notes.get(job, []):
            _say(f"{job.name}: {note}")
        if not job.target.exists():
            notebookfile.write(books[job], job.target)
            if len(jobs) > 1:  # others run before it; a result that is not there yet should not be seen
                job.target.unlink()
    return notes


def _with_files(options: RunOptions, jobs: Sequence[Job]) -> dict[Job, NotebookOptions]:
    """The options of each notebook, with the files it is to have."""
    named = files_to_upload([parse_upload(word) for word in options.uploads], _say)
    each = {}
    for job in jobs:
        files = [] if options.share else list(named)
        if options.beside:
            folders = (options.output_dir,) if options.output_dir is not None else ()
            files = [*files_beside(job.notebook, [*folders, job.target]), *files]
            files = [*{where: (path, where) for path, where in files}.values()]  # what is named counts more
        each[job] = replace(options.each, uploads=files, quiet=len(jobs) > 1)
    return each


def _say(text: str) -> None:
    print(spelled(text), file=sys.stderr)


class _Run:
    """The notebooks of one command, on one event loop."""

    def __init__(self, options: RunOptions, board: Board) -> None:
        self.code = EXIT_OK
        """What a signal, or ``--fail-fast``, or a sandbox for all that failed, makes the exit code."""
        self._options = options
        self._board = board
        self._running: set[NotebookRun] = set()
        self._stopping: tuple[int, str] | None = None
        self._stopped = asyncio.Event()
        self._shared: SharedSandbox | None = None

    async def execute(
        self, jobs: Sequence[Job], books: dict[Job, NotebookNode], each: dict[Job, NotebookOptions]
    ) -> list[Report]:
        """Run all; a report for each, in the order of *jobs*. Stops by itself at a signal."""
        loop = asyncio.get_running_loop()
        for number in heeded_signals():
            loop.add_signal_handler(number, self._on_signal, number)
        results = {job: Report(job) for job in jobs}
        waiting = deque(jobs)
        ticker = asyncio.ensure_future(self._tick())
        sweeping = asyncio.ensure_future(sweep())
        try:
            if self._options.share:
                each = await self._share(each)
            workers = [
                self._work(waiting, results, books, each) for _ in range(min(self._options.jobs, len(jobs)))
            ]
            await asyncio.gather(*workers)
        except (DaytonaKernelError, SuppliesError) as exc:
            self.code = EXIT_INFRASTRUCTURE
            print(f"no sandbox for the notebooks ({type(exc).__name__}: {exc})", file=sys.stderr)
        finally:
            for task in (ticker, sweeping):
                task.cancel()
            await asyncio.gather(ticker, sweeping, return_exceptions=True)
            self._board.close()
            if self._shared is not None:
                failed = any(report.status in ("failed", "error") for report in results.values())
                await self._shared.end(kept=failed and self._options.each.keep_failed)
        return [*results.values()]

    async def _share(self, each: dict[Job, NotebookOptions]) -> dict[Job, NotebookOptions]:
        """Make the one sandbox for all, with the files for all. Raises errors of our tree."""
        folders = [Path.cwd(), *(job.notebook.resolve().parent for job in each)]
        account = account_folder(folders) or Path.cwd()
        variables = {**_spec(self._options.each.kernel).env, **self._options.each.environment}
        self._shared = SharedSandbox(kernel_settings(variables, account, headless=True, sandbox=""))
        files = files_to_upload([parse_upload(word) for word in self._options.uploads])
        making = asyncio.ensure_future(self._shared.begin(files))
        stopped = asyncio.ensure_future(self._stopped.wait())
        await asyncio.wait({making, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not making.done():
            making.cancel()
            with suppress(asyncio.CancelledError):
                await making
            return each
        name = await making
        return {
            job: replace(options, sandbox=name, account=account, keep_failed=False)
            for job, options in each.items()
        }

    async def _work(
        self,
        waiting: deque[Job],
        results: dict[Job, Report],
        books: dict[Job, NotebookNode],
        each: dict[Job, NotebookOptions],
    ) -> None:
        """Take one notebook after the other, until none waits or all is to stop."""
        while waiting and self._stopping is None:
            job = waiting.popleft()
            await self._one(results[job], books[job], each[job])
            self._board.ended(results[job])
            outcome = results[job].outcome
            if self._options.fail_fast and outcome is not None and outcome.code and self._stopping is None:
                self._stop(outcome.code, "stopped: another notebook failed (--fail-fast)")
                self.code = combined_code([outcome.code])

    async def _one(self, report: Report, book: NotebookNode, options: NotebookOptions) -> None:
        """Run a notebook, again if its sandbox fails and there are attempts left."""
        started = time.monotonic()
        job = report.job
        while True:
            report.attempts += 1
            outcome = await self._attempt(report, copy.deepcopy(book), options)
            report.outcome, report.seconds = outcome, time.monotonic() - started
            if not outcome.retryable or report.attempts > self._options.retries or self._stopping:
                return
            self._board.retried(job, outcome.message)
            with suppress(asyncio.TimeoutError):
                pause = _RETRY_SECONDS[min(report.attempts, len(_RETRY_SECONDS)) - 1]
                await asyncio.wait_for(self._stopped.wait(), pause)
                return

    async def _attempt(self, report: Report, book: NotebookNode, options: NotebookOptions) -> Outcome:
        job = report.job
        try:
            notebookfile.write(book, job.target)
        except notebookfile.NotebookFileError as exc:
            return Outcome(EXIT_INFRASTRUCTURE, str(exc))
        run = NotebookRun(job, book, options, self._board.begun(job), _keeper(options))
        self._running.add(run)
        try:
            outcome = await run.execute()
        finally:
            self._running.discard(run)
            report.facts = run.facts
        try:
            notebookfile.write(book, job.target)
        except notebookfile.NotebookFileError as exc:
            if not outcome.code:
                return Outcome(EXIT_INFRASTRUCTURE, str(exc))
            if str(exc) != outcome.message:
                report.facts.notes.append(str(exc))
        else:
            report.facts.saved = True
        return outcome

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            self._board.refresh()

    def _on_signal(self, number: signal.Signals) -> None:
        code = 128 + number
        self.code = code
        self._stop(code, "interrupted")

    def _stop(self, code: int, word: str) -> None:
        """Begin no other notebook, and end those that run; called again, in haste."""
        self._stopping = self._stopping or (code, word)
        self._stopped.set()
        for run in [*self._running]:
            run.stop(EXIT_INTERRUPTED if code < EXIT_INTERRUPTED - 2 else code, word)


def _keeper(options: NotebookOptions) -> Callable[[DaytonaSettings], Awaitable[str]] | None:
    return keep if options.keep_failed and not options.sandbox else None


def _tell(options: RunOptions, results: Sequence[Report], code: int, seconds: float) -> None:
    """Say on stderr how it went: what failed and why, and where the results are."""
    for report in results:
        if report.outcome is None:
            continue
        outcome, many, more = report.outcome, len(results) > 1, _more(report)
        if many and (more or (outcome.code and outcome.status != "stopped")):
            _say(f"\n--- {report.job.name}")
        if outcome.traceback:
            print(readable_traceback(outcome.traceback, sys.stderr), file=sys.stderr)
        if outcome.message and (not many or outcome.status != "stopped"):
            print(spelled(outcome.message), file=sys.stderr)
        for line in more:
            _say(line)
    if len(results) == 1:
        if options.progress or code:
            what = "done" if code == EXIT_OK else "stopped"
            where = f"; outputs saved in {results[0].job.target}" if results[0].facts.saved else ""
            _say(f"{what} after {format_duration(seconds)}{where}")
    elif options.progress or code:
        _say(_last_line(options, results, seconds))


def _more(report: Report) -> list[str]:
    """What there is to say of a notebook besides how it ended."""
    outcome, facts = report.outcome, report.facts
    assert outcome is not None
    lines = []
    if outcome.tolerated_errors:
        lines.append(f"{outcome.tolerated_errors} cell(s) raised errors, as allowed")
    lines += facts.notes
    if facts.collected:
        lines.append(f"{len(facts.collected)} file(s) collected in {report.job.files}")
    if facts.kept:
        there = f"%daytona attach {facts.sandbox}"
        if facts.context:
            there += f", then %daytona context use {facts.context}"
        lines.append(f"its sandbox is kept, with its variables: {there}")
    return [*lines, *filter(None, [_missing_file(report)])]


def _missing_file(report: Report) -> str:
    """Advice for a cell that did not find a file that lies beside the notebook."""
    outcome = report.outcome
    if outcome is None or outcome.ename not in ("FileNotFoundError", "ModuleNotFoundError"):
        return ""
    if report.facts.uploaded_files:
        return ""
    quoted = outcome.evalue.split("'")
    if len(quoted) < 3 or not quoted[-2]:
        return ""
    name = quoted[-2]
    folder = report.job.notebook.resolve().parent
    tries = (
        [name] if outcome.ename == "FileNotFoundError" else [f"{name.split('.')[0]}.py", name.split(".")[0]]
    )
    for one in tries:
        with suppress(OSError, ValueError):
            if not Path(one).is_absolute() and (folder / one).exists():
                return (
                    f"{one} lies beside the notebook, but not in its sandbox: --beside sends such files along"
                )
    return ""


def _last_line(options: RunOptions, results: Sequence[Report], seconds: float) -> str:
    statuses = [report.status for report in results]
    names = ("ok", "failed", "error", "stopped", "not run")
    counts = ", ".join(f"{statuses.count(name)} {name}" for name in names if name in statuses)
    where = f"; outputs saved in {options.output_dir}" if options.output_dir is not None else ""
    return f"{len(results)} notebooks in {format_duration(seconds)}: {counts}{where}"


def _write_reports(
    options: RunOptions, results: Sequence[Report], code: int, began: float, seconds: float
) -> int:
    try:
        if options.junit is not None:
            reports.write_junit(options.junit, reports.junit(results, began=began, seconds=seconds))
        if options.json is not None:
            found = reports.summary(results, code=code, began=began, seconds=seconds)
            reports.write_json(options.json, found)
    except BrokenPipeError:
        discard(sys.stdout)  # nobody reads the summary any more
    except OSError as exc:
        print(f"cannot write the report: {exc}", file=sys.stderr)
        return code or EXIT_INFRASTRUCTURE
    return code
