"""``bg``, ``jobs``, ``logs``, ``send``, ``kill``: programs that run on in the sandbox.

A job is a session of the sandbox's daemon with one command, so it outlives the kernel and is found again.
"""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .following import end_session, follow, make_session, tidied
from .host import CommandFailed, Host, Result, UsageError
from .process import (
    Written,
    checked_argv,
    checked_environment,
    checked_name,
    command_line,
    where,
    where_arguments,
)
from .registry import Parser, command
from .sdk import translated
from .words import did_you_mean, printable, table_html, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox

JOB_PREFIX = "daytona-job-"
"""Sessions of this prefix are jobs; others in the sandbox are left alone."""


@dataclass(frozen=True)
class Job:
    """A background program. ``exit_code`` is ``None`` while it runs."""

    name: str
    session_id: str
    command_id: str
    command: str
    exit_code: int | None

    @property
    def state(self) -> str:
        """``running`` or how it ended."""
        return "running" if self.exit_code is None else f"exit {self.exit_code}"


def _bg_arguments(parser: Parser) -> None:
    where_arguments(parser)
    parser.add_argument("--name", help="name of the job (default: the program's, with a number)")


@command(
    "bg",
    "Processes",
    _bg_arguments,
    argv=True,
    examples=("%daytona bg -- python train.py", "%daytona bg --name web -- python -m http.server 8000"),
)
async def background(host: Host, args: argparse.Namespace) -> Result:
    """Start a program in the background: a job, which outlives cell and kernel. The value is its name."""
    argv = checked_argv(args.argv)
    environment = checked_environment(args.env)
    if args.name:
        checked_name(args.name, "job")
    sandbox = await host.sandbox()
    jobs = await find_jobs(host)
    name = args.name or _free_name(argv[0], {job.name for job in jobs})
    if any(job.name == name for job in jobs):
        raise UsageError(f"There is a job {name!r} already.", hint=f"%daytona kill {name} ends it.")
    await start_job(sandbox, name, command_line(argv, await where(host, args.cwd), environment))
    return Result(name, f"Job {name} runs: {printable(shlex.join(argv))}")


async def start_job(sandbox: AsyncSandbox, name: str, line: str) -> Job:
    """Start a line of shell as a job of this name, which must be free."""
    from daytona import SessionExecuteRequest

    session_id = JOB_PREFIX + name
    with translated(f"job {name}"):
        await make_session(sandbox, session_id)
        try:
            request = SessionExecuteRequest(command=line, run_async=True)
            answer = await sandbox.process.execute_session_command(session_id, request)
        except BaseException:
            await tidied(end_session(sandbox, session_id))
            raise
    return Job(name, session_id, str(answer.cmd_id), line, None)


async def end_job(sandbox: AsyncSandbox, job: Job) -> None:
    """End a job with all its processes, and forget its logs."""
    with translated(f"job {job.name}"):
        await sandbox.process.delete_session(job.session_id)


def _free_name(program: str, taken: set[str]) -> str:
    base = re.sub(r"[^A-Za-z0-9_.-]", "-", program.rpartition("/")[2]).strip("-.") or "job"
    return next(name for number in range(1, 10_000) if (name := f"{base[:40]}-{number}") not in taken)


async def find_jobs(host: Host) -> list[Job]:
    """The jobs of the sandbox, also those that other kernels have started."""
    sandbox = await host.sandbox()
    with translated("jobs"):
        sessions = await sandbox.process.list_sessions()
    jobs = []
    for session in sessions:
        if not session.session_id.startswith(JOB_PREFIX) or not session.commands:
            continue
        last = session.commands[-1]
        code = None if last.exit_code is None else int(last.exit_code)
        name = session.session_id[len(JOB_PREFIX) :]
        jobs.append(Job(name, session.session_id, str(last.id), str(last.command), code))
    return sorted(jobs, key=lambda job: job.name)


async def one_job(host: Host, name: str) -> Job:
    """The job of this name. Raises :class:`UsageError` with the nearest name."""
    jobs = await find_jobs(host)
    for job in jobs:
        if job.name == name:
            return job
    near = did_you_mean(name, [job.name for job in jobs])
    raise UsageError(f"There is no job {name!r}.", hint=near or "%daytona jobs lists them.")


@command("jobs", "Processes", examples=("%daytona jobs",))
async def jobs(host: Host, args: argparse.Namespace) -> Result:
    """List the background programs of the sandbox."""
    found = await find_jobs(host)
    value = [{"name": job.name, "state": job.state, "command": job.command} for job in found]
    rows = [(job.name, job.state, printable(job.command)) for job in found]
    header = ("job", "state", "command")
    if not rows:
        return Result(value, "There are no jobs.")
    return Result(value, table_text(header, rows), table_html(header, rows))


def _job_argument(parser: Parser) -> None:
    parser.add_argument("job", metavar="JOB", help="name of a job").completer = "job"  # type: ignore[attr-defined]


def _logs_arguments(parser: Parser) -> None:
    _job_argument(parser)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the job ends or you interrupt"
    )
    parser.add_argument("--tail", type=int, metavar="N", help="only the last N lines")


@command("logs", "Processes", _logs_arguments, examples=("%daytona logs web", "%daytona logs train -f"))
async def logs(host: Host, args: argparse.Namespace) -> Result:
    """Show what a job has written. Stopping to follow does not stop the job."""
    if args.tail is not None and args.tail < 1:
        raise UsageError(f"--tail is a number of lines from 1 up, not {args.tail}.")
    if args.tail and args.follow:
        raise UsageError("--tail and --follow do not go together.")
    job = await one_job(host, args.job)
    sandbox = await host.sandbox()
    if args.follow:
        written = Written()
        with translated(f"logs {job.name}"):
            await follow(written if args.json else host, sandbox, job.session_id, job.command_id)
        job = await one_job(host, args.job)
        if args.json:
            return Result({**written.texts, "exit_code": job.exit_code})
        return Result({"exit_code": job.exit_code}, f"[{job.name}: {job.state}]")
    out, err = await job_logs(sandbox, job)
    if args.tail:
        out, err = ("".join(text.splitlines(True)[-args.tail :]) for text in (out, err))
    value = {"stdout": out, "stderr": err, "exit_code": job.exit_code}
    if args.json:
        return Result(value)
    if err:
        host.write(err if err.endswith("\n") else err + "\n", error=True)
    return Result(value, out or ("" if err else f"[{job.name}: {job.state}, no output]"))


async def job_logs(sandbox: AsyncSandbox, job: Job) -> tuple[str, str]:
    """stdout and stderr of a job until now."""
    with translated(f"logs {job.name}"):
        answer = await sandbox.process.get_session_command_logs(job.session_id, job.command_id)
    return answer.stdout or "", answer.stderr or ""


def _send_arguments(parser: Parser) -> None:
    _job_argument(parser)
    parser.add_argument("text", nargs="+", help="a line for the job's standard input")


@command("send", "Processes", _send_arguments, examples=("%daytona send install y",))
async def send(host: Host, args: argparse.Namespace) -> Result:
    """Write a line to a job's standard input."""
    job = await one_job(host, args.job)
    if job.exit_code is not None:
        raise CommandFailed(f"The job {job.name} has ended ({job.state}).")
    sandbox = await host.sandbox()
    with translated(f"send {job.name}"):
        await sandbox.process.send_session_command_input(
            job.session_id, job.command_id, " ".join(args.text) + "\n"
        )
    return Result(job.name)


@command("kill", "Processes", _job_argument, examples=("%daytona kill web",))
async def kill(host: Host, args: argparse.Namespace) -> Result:
    """End a job, with all its processes, and forget its logs."""
    job = await one_job(host, args.job)
    sandbox = await host.sandbox()
    await end_job(sandbox, job)
    text = f"Ended job {job.name}" if job.exit_code is None else f"Forgot job {job.name} ({job.state})"
    return Result(job.name, text)
