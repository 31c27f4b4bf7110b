"""``exec``, ``bg``, ``jobs``, ``logs``, ``send``, ``kill``: programs in the sandbox.

A job is a session of the sandbox's daemon with one command, so it outlives the kernel and is found again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import parse_duration_s
from .general import key_values
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command
from .sdk import translated
from .words import did_you_mean, printable, table_html, table_text

if TYPE_CHECKING:
    from daytona import AsyncSandbox

JOB_PREFIX = "daytona-job-"
"""Sessions of this prefix are jobs; others in the sandbox are left alone."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")


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


def _environment(words: list[str]) -> dict[str, str]:
    found = key_values(words, "variable")
    for name in found:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"{name!r} is no name for a variable.")
    return found


def _where_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--cwd", metavar="DIR", help="directory of the sandbox to run in"
    ).completer = "remote"  # type: ignore[attr-defined]
    parser.add_argument("--env", action="append", default=[], metavar="K=V", help="environment variable")


def _exec_arguments(parser: Parser) -> None:
    _where_arguments(parser)
    parser.add_argument("--timeout", metavar="TIME", help="kill it after this time, like 30s or 5m")
    parser.add_argument("--no-raise", action="store_true", help="no error for an exit code that is not 0")


@command(
    "exec",
    "Processes",
    _exec_arguments,
    argv=True,
    examples=("%daytona exec -- ls -la", "code = %daytona exec --no-raise --timeout 10s -- make test"),
)
async def execute(host: Host, args: argparse.Namespace) -> Result:
    """Run a program in the sandbox, wait for it and show its output. The value is its exit code.

    The words are the program's arguments; no shell takes them apart again. For pipes: exec -- sh -c '...'.
    """
    argv = _checked_argv(args.argv)
    environment = _environment(args.env)
    limit = _timeout(args.timeout)
    sandbox = await host.sandbox()
    with translated(f"exec {argv[0]}"):
        answer = await sandbox.process.exec(
            shlex.join(argv), cwd=args.cwd, env=environment or None, timeout=limit
        )
    code = int(answer.exit_code)
    failed = code != 0 and not args.no_raise
    error = CommandFailed(f"{printable(argv[0])} ended with exit code {code}.") if failed else None
    return Result(code, answer.result or "", error=error)


def _timeout(text: str | None) -> int | None:
    if not text:
        return None
    seconds = parse_duration_s(text)
    if seconds < 1:
        raise UsageError(f"--timeout is at least 1s, not {text}.")
    return int(seconds + 0.999)


def _checked_argv(argv: list[str]) -> list[str]:
    if not argv:
        raise UsageError("There is no program to run.", hint="Write it after --, like: exec -- ls -l")
    return argv


def _bg_arguments(parser: Parser) -> None:
    _where_arguments(parser)
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
    argv = _checked_argv(args.argv)
    environment = _environment(args.env)
    sandbox = await host.sandbox()
    jobs = await find_jobs(host)
    name = args.name or _free_name(argv[0], {job.name for job in jobs})
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a job.", hint="Use letters, digits, dots and dashes.")
    if any(job.name == name for job in jobs):
        raise UsageError(f"There is a job {name!r} already.", hint=f"%daytona kill {name} ends it.")
    await start_job(sandbox, name, argv, cwd=args.cwd, environment=environment)
    return Result(name, f"Job {name} runs: {printable(shlex.join(argv))}")


async def start_job(
    sandbox: AsyncSandbox,
    name: str,
    argv: list[str],
    *,
    cwd: str | None = None,
    environment: dict[str, str] | None = None,
) -> Job:
    """Start a job of this name, which must be free."""
    from daytona import SessionExecuteRequest

    session_id = JOB_PREFIX + name
    assignments = [f"{key}={value}" for key, value in (environment or {}).items()]
    words = ["env", *assignments, *argv] if assignments else argv
    line = shlex.join(words)
    if cwd:
        line = f"cd {shlex.quote(cwd)} && {line}"
    with translated(f"bg {argv[0]}"):
        await sandbox.process.create_session(session_id)
        try:
            request = SessionExecuteRequest(command=line, run_async=True)
            answer = await sandbox.process.execute_session_command(session_id, request)
        except BaseException:
            await asyncio.shield(sandbox.process.delete_session(session_id))
            raise
    return Job(name, session_id, str(answer.cmd_id), line, None)


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
        with translated(f"logs {job.name}"):
            await sandbox.process.get_session_command_logs_async(
                job.session_id,
                job.command_id,
                host.write,
                lambda text: host.write(text, error=True),
            )
        job = await one_job(host, args.job)
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
    return Result()


@command("kill", "Processes", _job_argument, examples=("%daytona kill web",))
async def kill(host: Host, args: argparse.Namespace) -> Result:
    """End a job, with all its processes, and forget its logs."""
    job = await one_job(host, args.job)
    sandbox = await host.sandbox()
    with translated(f"kill {job.name}"):
        await sandbox.process.delete_session(job.session_id)
    text = f"Ended job {job.name}" if job.exit_code is None else f"Forgot job {job.name} ({job.state})"
    return Result(job.name, text)


# -- cells of other languages ----------------------------------------------------------------------


def _bash_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--session", metavar="NAME", help="in a shell of this name, which keeps cwd and variables"
    )
    parser.add_argument("--no-raise", action="store_true", help="no error for an exit code that is not 0")


@command(
    "bash",
    "Processes",
    _bash_arguments,
    cell=True,
    examples=("%%daytona bash", "%%daytona bash --session work"),
)
async def bash(host: Host, args: argparse.Namespace) -> Result:
    """Run the cell as a shell script in the sandbox, with its output as it comes.

    Without --session each cell has a shell of its own. The value is the exit code.
    """
    import uuid

    from daytona import SessionExecuteRequest

    if args.session and not _NAME.fullmatch(args.session):
        raise UsageError(f"{args.session!r} is no name for a session.")
    sandbox = await host.sandbox()
    keep = bool(args.session)
    session_id = f"daytona-shell-{args.session or uuid.uuid4().hex}"
    # In a subshell of its own unless variables are to stay: exit would end the session's shell for good.
    script = f"{args.body}\n" if keep else f"bash -c {shlex.quote(args.body)}"
    with translated("bash"):
        await _open_session(sandbox, session_id, reuse=keep)
        try:
            request = SessionExecuteRequest(command=script, run_async=True)
            answer = await sandbox.process.execute_session_command(session_id, request)
            await sandbox.process.get_session_command_logs_async(
                session_id,
                str(answer.cmd_id),
                host.write,
                lambda text: host.write(text, error=True),
            )
            done = await sandbox.process.get_session_command(session_id, str(answer.cmd_id))
        except asyncio.CancelledError:
            await asyncio.shield(sandbox.process.delete_session(session_id))
            keep = True
            raise
        finally:
            if not keep:
                await sandbox.process.delete_session(session_id)
    code = None if done.exit_code is None else int(done.exit_code)
    if code is None:
        raise CommandFailed(
            "The shell of the session has ended: exit was called in it.", hint="Use another --session."
        )
    error = CommandFailed(f"The script ended with exit code {code}.") if code and not args.no_raise else None
    return Result(code, error=error)


async def _open_session(sandbox: AsyncSandbox, session_id: str, *, reuse: bool) -> None:
    try:
        await sandbox.process.create_session(session_id)
    except Exception as exc:
        if not (reuse and getattr(exc, "status_code", None) == 409):
            raise


def _script_arguments(parser: Parser) -> None:
    parser.add_argument("--timeout", metavar="TIME", help="kill it after this time, like 30s or 5m")
    parser.add_argument("--no-raise", action="store_true", help="no error for an exit code that is not 0")


@command("js", "Processes", _script_arguments, cell=True, examples=("%%daytona js",))
async def javascript(host: Host, args: argparse.Namespace) -> Result:
    """Run the cell with Node in the sandbox. Stateless: each cell is a program of its own."""
    return await _script(host, args, "js", ["node", "-"])


@command("ts", "Processes", _script_arguments, cell=True, examples=("%%daytona ts",))
async def typescript(host: Host, args: argparse.Namespace) -> Result:
    """Run the cell with TypeScript (ts-node) in the sandbox. Stateless, like js."""
    options = json.dumps({"module": "commonjs", "moduleResolution": "node"})
    runner = ["npx", "--yes", "ts-node", "--transpile-only", "--skipProject", "--compilerOptions", options]
    return await _script(host, args, "ts", runner)


async def _script(host: Host, args: argparse.Namespace, suffix: str, argv: list[str]) -> Result:
    """Run the cell's body from a file, which is deleted afterwards."""
    import uuid

    limit = _timeout(args.timeout)
    toolbox, sandbox = await host.toolbox(), await host.sandbox()
    path = f"/tmp/.daytona-cell-{uuid.uuid4().hex}.{suffix}"  # noqa: S108 - in the sandbox
    await toolbox.upload(path, args.body.encode())
    program = argv[0]
    words = [*argv[:-1], path] if argv[-1] == "-" else [*argv, path]
    try:
        with translated(suffix):
            answer = await sandbox.process.exec(f"{shlex.join(words)} 2>&1", timeout=limit)
    finally:
        await asyncio.shield(toolbox.execute("rm", "-f", path))
    code = int(answer.exit_code)
    if code == 127:
        raise CommandFailed(
            f"There is no {program} in the sandbox.", hint="Use a snapshot or image that has it."
        )
    error = CommandFailed(f"The program ended with exit code {code}.") if code and not args.no_raise else None
    return Result(code, answer.result or "", error=error)
