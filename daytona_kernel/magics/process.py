"""``exec``, and cells of other languages: programs in the sandbox, with their output as it comes."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shlex
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import DaytonaKernelError
from ..toolbox import shell_words
from .files import expanded
from .following import Writing, end_session, follow, may_pass, patiently, tidied
from .general import key_values
from .host import CommandFailed, Host, Result, UsageError
from .registry import Parser, command, seconds_of
from .sdk import translated
from .words import did_you_mean, printable

if TYPE_CHECKING:
    from daytona import AsyncSandbox

    from ..toolbox import Toolbox

AS_BASH = 'if [ -n "${ZSH_VERSION-}" ]; then emulate ksh; fi; '
"""The shell of sessions is zsh in the official image; this makes it split words, leave patterns that match
nothing alone, and count from 0, as scripts expect."""
SHELL_LOOK_S = 2.0
SHELL_GRACE_S = 1.0
MARKS = "/tmp/.daytona-shell-"  # noqa: S108 - in the sandbox
SHELL_PREFIX = "daytona-shell-"
"""Sessions of this prefix are shells of cells; those of one cell are gone after it."""
SHELL_ENDED = "The shell of the session has ended: exit was called in it."
SESSION_ENDED = 410
HAS_ENDED = (
    'read -r mark pid <{path} && [ "$mark" = {mark} ] || exit 1\n'
    "state=$(sed -n 's/^State:[[:space:]]*//p' \"/proc/$pid/status\" 2>/dev/null)\n"
    'case "$state" in ""|Z*) exit 0;; *) exit 1;; esac'
)
NOT_FOUND = 127
"""What a shell gives for a program that is not there."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


# -- what is typed ---------------------------------------------------------------------------------


def checked_name(name: str, what: str) -> str:
    """A name for a session of the sandbox. Raises :class:`UsageError` for what can be none."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a {what}.", hint="Use letters, digits, dots and dashes.")
    return name


def checked_variable(name: str) -> str:
    """A name for an environment variable. Raises :class:`UsageError` for what can be none."""
    if not _VARIABLE.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a variable.", hint="Use letters, digits and _.")
    return name


def checked_environment(words: list[str]) -> dict[str, str]:
    """The variables in ``K=V`` words."""
    return {checked_variable(name): value for name, value in key_values(words, "variable").items()}


def checked_argv(argv: list[str]) -> list[str]:
    """A command line that is not empty."""
    if not argv:
        raise UsageError("There is no program to run.", hint="Write it after --, like: exec -- ls -l")
    return argv


def checked_timeout(text: str | None) -> float | None:
    """Seconds of ``--timeout``; ``None`` is no limit."""
    if not text:
        return None
    seconds = seconds_of(text)
    if seconds < 1:
        raise UsageError(f"--timeout is at least 1s, not {text}.")
    return seconds


def where_arguments(parser: Parser) -> None:
    """Add ``--cwd`` and ``--env``."""
    parser.add_argument(
        "--cwd", metavar="DIR", help="directory of the sandbox to run in"
    ).completer = "remote"  # type: ignore[attr-defined]
    parser.add_argument("--env", action="append", default=[], metavar="K=V", help="environment variable")


async def where(host: Host, cwd: str | None) -> str:
    """Where a program starts: in ``--cwd``, or with the notebook's Python. Empty: where it would anyway."""
    path = await expanded(host, cwd or ".")
    return "" if path == "." else path


def _limit_arguments(parser: Parser) -> None:
    parser.add_argument("--timeout", metavar="TIME", help="kill it after this time, like 30s or 5m")
    parser.add_argument("--no-raise", action="store_true", help="no error for an exit code that is not 0")


# -- running -----------------------------------------------------------------------------------------


def command_line(argv: list[str], cwd: str | None = None, environment: dict[str, str] | None = None) -> str:
    """A program with its arguments as a line of shell; nothing in them is taken apart again."""
    assignments = [f"{name}={value}" for name, value in (environment or {}).items()]
    line = shell_words(["env", *assignments, *argv] if assignments else argv)
    return f"cd {shlex.quote(cwd)} && {line}" if cwd else line


class Written:
    """Keeps a program's output, for ``--json``."""

    def __init__(self) -> None:
        self.texts = {"stdout": "", "stderr": ""}

    def write(self, text: str, *, error: bool = False) -> None:
        """Keep a piece."""
        self.texts["stderr" if error else "stdout"] += text

    def status(self, text: str | None) -> None:
        """Nobody looks."""


async def run_line(
    host: Writing,
    sandbox: AsyncSandbox,
    line: str,
    *,
    what: str,
    limit_s: float | None = None,
    keep: str = "",
    toolbox: Toolbox | None = None,
) -> int | None:
    """Run a line of shell with its output as it comes. Its exit code; ``None`` if it has ended its shell.

    ``keep``: in the shell of this name, which lives on; ``toolbox`` tells whether it does. If we are
    cancelled, or the time is over, the shell is ended with all that runs in it. Raises
    :class:`CommandFailed` when the time is over, and when the line has ended the shell of that name.
    """
    mark = uuid.uuid4().hex
    if keep:
        line = f"{AS_BASH}echo {mark} $$ >{MARKS}{keep}; {line}"
    with translated(what):
        async with _shell(sandbox, keep) as session_id:
            command_id = await _begin(sandbox, session_id, line)
            following = asyncio.ensure_future(follow(host, sandbox, session_id, command_id))
            works = {following}
            if keep and toolbox is not None:
                works.add(asyncio.ensure_future(_until_shell_has_ended(toolbox, MARKS + keep, mark)))
            try:
                done, _ = await asyncio.wait(works, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    raise CommandFailed(f"{what} was ended: its timeout is over.")
                if following not in done:  # v0.190.0 never tells the end of a command that ends its shell
                    await asyncio.wait(works, timeout=SHELL_GRACE_S, return_when=asyncio.ALL_COMPLETED)
                if not following.done():
                    raise CommandFailed(SHELL_ENDED, hint="The next cell of that session gets a new one.")
                return following.result()
            finally:
                for task in works:
                    task.cancel()
                await asyncio.gather(*works, return_exceptions=True)


async def _begin(sandbox: AsyncSandbox, session_id: str, line: str) -> str:
    """Start a line in a session; the command's id. A session whose shell has ended gets a new one."""
    from daytona import SessionExecuteRequest

    request = SessionExecuteRequest(command=line, run_async=True)
    try:
        answer = await sandbox.process.execute_session_command(session_id, request)
    except Exception as exc:
        if getattr(exc, "status_code", None) != SESSION_ENDED:
            return await _begun_all_the_same(sandbox, session_id, line, exc)
        await sandbox.process.delete_session(session_id)
        await sandbox.process.create_session(session_id)
        answer = await sandbox.process.execute_session_command(session_id, request)
    return str(answer.cmd_id)


async def _begun_all_the_same(sandbox: AsyncSandbox, session_id: str, line: str, exc: Exception) -> str:
    """The id of a line whose answer was lost, if it has begun. It is not sent again: it may be on its way.

    Raises ``exc`` if it has not begun.
    """
    if may_pass(exc):
        session = await patiently(lambda: sandbox.process.get_session(session_id))
        for one in session.commands or []:
            if one.command == line:  # a kept session's line has a mark of its own
                return str(one.id)
    raise exc


async def _until_shell_has_ended(toolbox: Toolbox, path: str, mark: str) -> None:
    """Look again and again whether the shell that wrote ``mark`` and its number into a file is there."""
    while True:
        await asyncio.sleep(SHELL_LOOK_S)
        with suppress(DaytonaKernelError):
            status, _ = await toolbox.shell(HAS_ENDED.format(path=path, mark=mark), 10)
            if status == 0:
                return


@asynccontextmanager
async def _shell(sandbox: AsyncSandbox, keep: str) -> AsyncIterator[str]:
    """A session; ended afterwards, unless it has a name to keep and all went well."""
    session_id = SHELL_PREFIX + (keep or uuid.uuid4().hex)
    try:
        await patiently(lambda: sandbox.process.create_session(session_id))
    except Exception as exc:  # 409: it was kept, or made by a call whose answer was lost
        if getattr(exc, "status_code", None) != 409:
            raise
    well = False
    try:
        yield session_id
        well = True
    finally:
        if not (keep and well):
            await tidied(end_session(sandbox, session_id))


def _ended(code: int | None, what: str, args: argparse.Namespace) -> Result:
    """The exit code as a result, with an error for one that is not 0."""
    if code is None:
        raise CommandFailed(SHELL_ENDED)
    error = CommandFailed(
        f"{what} ended with exit code {code}.",
        hint="That is a shell's word for a program that is not there." if code == NOT_FOUND else "",
    )
    return Result(code, error=error if code != 0 and not args.no_raise else None)


def _exec_arguments(parser: Parser) -> None:
    where_arguments(parser)
    _limit_arguments(parser)


@command(
    "exec",
    "Processes",
    _exec_arguments,
    argv=True,
    examples=("%daytona exec -- ls -la", "code = %daytona exec --no-raise --timeout 10s -- make test"),
)
async def execute(host: Host, args: argparse.Namespace) -> Result:
    """Run a program in the sandbox and show its output as it comes. The value is its exit code.

    The words are the program's arguments; no shell takes them apart again. For pipes: exec -- sh -c '...'.
    Its standard input is empty. Interrupting the cell ends it. --json prints its output, too.
    """
    argv = checked_argv(args.argv)
    environment = checked_environment(args.env)
    limit_s = checked_timeout(args.timeout)
    sandbox = await host.sandbox()
    # With env, a word like exit or cd is a program that is not there instead of the shell's own.
    line = command_line(["env", *argv], await where(host, args.cwd), environment) + " </dev/null"
    program, written = printable(argv[0]), Written()
    out: Writing = written if args.json else host
    result = _ended(await run_line(out, sandbox, line, what=program, limit_s=limit_s), program, args)
    if args.json:
        result.value = {"exit_code": result.value, **written.texts}
    return result


# -- cells of other languages ----------------------------------------------------------------------


def _bash_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--session", metavar="NAME", help="in a shell of this name, which keeps cwd and variables"
    )
    _limit_arguments(parser)


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
    keep = checked_name(args.session, "session") if args.session else ""
    limit_s = checked_timeout(args.timeout)
    sandbox = await host.sandbox()
    # In a subshell of its own unless variables are to stay: exit would end the session's shell for good.
    script = f"{args.body}\n" if keep else command_line(["bash", "-c", args.body], await where(host, None))
    toolbox = await host.toolbox() if keep else None
    code = await run_line(
        host, sandbox, script, what="The script", limit_s=limit_s, keep=keep, toolbox=toolbox
    )
    return _ended(code, "The script", args)


@command("session list", "Processes", examples=("%daytona session list",))
async def session_list(host: Host, args: argparse.Namespace) -> Result:
    """List the shells that %%daytona bash --session has left open."""
    sandbox = await host.sandbox()
    found = await _kept_shells(sandbox)
    return Result(found, "\n".join(found) or "There are no sessions.")


async def _kept_shells(sandbox: AsyncSandbox) -> list[str]:
    with translated("session list"):
        sessions = await sandbox.process.list_sessions()
    names = (one.session_id for one in sessions)
    return sorted(name[len(SHELL_PREFIX) :] for name in names if name.startswith(SHELL_PREFIX))


def _session_argument(parser: Parser) -> None:
    parser.add_argument("name", help="name of the session")


@command("session rm", "Processes", _session_argument, examples=("%daytona session rm work",))
async def session_rm(host: Host, args: argparse.Namespace) -> Result:
    """End the shell of %%daytona bash --session NAME, with all that runs in it."""
    sandbox = await host.sandbox()
    known = await _kept_shells(sandbox)
    if args.name not in known:
        hint = did_you_mean(args.name, known) or "%daytona session list shows them."
        raise UsageError(f"There is no session {args.name!r}.", hint=hint)
    with translated(f"session {args.name}"):
        await sandbox.process.delete_session(SHELL_PREFIX + args.name)
    return Result(args.name, f"Ended session {args.name}")


JAVASCRIPT = 'exec node "$1"'
TYPESCRIPT = (
    "options='" + json.dumps({"module": "commonjs", "moduleResolution": "node"}) + "'\n"
    "ts='ts-node --transpile-only --skipProject --compilerOptions'\n"
    'if command -v ts-node >/dev/null; then exec $ts "$options" "$1"; fi\n'
    "node='node --no-warnings --experimental-transform-types'\n"
    'if $node -e 0 2>/dev/null; then exec $node "$1"; fi\n'
    # ts-node brings no compiler along, and can not use one that has no JavaScript API (TypeScript 7).
    'if command -v npx >/dev/null; then exec npx --yes -p typescript@5 -p ts-node $ts "$options" "$1"; fi\n'
    "exit 127"
)
"""With ts-node if it is there, else with a Node that knows types (22.7 on), else with a downloaded one."""


@command("js", "Processes", _limit_arguments, cell=True, examples=("%%daytona js",))
async def javascript(host: Host, args: argparse.Namespace) -> Result:
    """Run the cell with Node in the sandbox. Stateless: each cell is a program of its own."""
    return await _script(host, args, "js", JAVASCRIPT)


@command("ts", "Processes", _limit_arguments, cell=True, examples=("%%daytona ts",))
async def typescript(host: Host, args: argparse.Namespace) -> Result:
    """Run the cell as TypeScript in the sandbox (ts-node, or Node from 22.7 on). Stateless, like js."""
    return await _script(host, args, "ts", TYPESCRIPT)


async def _script(host: Host, args: argparse.Namespace, suffix: str, runner: str) -> Result:
    """Run the cell's body from a file, which is deleted afterwards."""
    limit_s = checked_timeout(args.timeout)
    toolbox, sandbox = await host.toolbox(), await host.sandbox()
    path = f"/tmp/.daytona-cell-{uuid.uuid4().hex}.{suffix}"  # noqa: S108 - in the sandbox
    await toolbox.upload(path, args.body.encode())
    try:
        line = command_line(["sh", "-c", runner, "sh", path], await where(host, None)) + " </dev/null"
        code = await run_line(host, sandbox, line, what="The program", limit_s=limit_s)
    finally:
        await tidied(toolbox.execute("rm", "-f", path))
    if code == NOT_FOUND:
        raise CommandFailed("There is no Node in the sandbox.", hint="Use a snapshot or image that has it.")
    return _ended(code, "The program", args)
