"""``%load_ext daytona_kernel``: ``%daytona`` and ``%%daytona`` in any IPython.

Code of a ``%%daytona`` cell runs in a sandbox of its own session, which is made when it is first needed. The
commands are those of the kernel's ``%daytona``. Unloading ends the session and undoes what loading did.
"""

from __future__ import annotations

import ast
import asyncio
import atexit
import concurrent.futures
import getpass
import importlib
import linecache
import os
import sys
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.error import UsageError as IPythonUsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class

from .config import DaytonaSettings
from .errors import DaytonaKernelError, public_name
from .magics import registry
from .magics.cells import RemoteError
from .magics.host import Bundle, Host, Result, UsageError
from .magics.words import escape
from .session import Interrupted, Session
from .terminal import Painter, coloured, painted, without_sequences

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

CLOSE_TIMEOUT_S = 30.0
TIDY_S = 5.0
"""How long a command that is interrupted may take to remove what it has done half."""
SHOW = "daytona_shown"
"""What ``%daytona`` as a statement becomes: it shows its result and gives no value."""
_LOADED = "_daytona_kernel_magics"


async def _to_its_end(work: Coroutine[Any, Any, Any], ended: threading.Event) -> Any:
    """Do it, and tell when all of it is over: a future that is cancelled is done before that."""
    try:
        return await work
    finally:
        ended.set()


class IPythonHost(Host):
    """Shows a command's output with IPython's own display and streams."""

    door = "ipython"

    def __init__(self, session: Session, shell: InteractiveShell) -> None:
        super().__init__(session)
        self.shell = shell
        self.namespace = shell.user_ns
        self._lines: list[Any] = []
        self._output = threading.Condition()
        self._overwritten = Overwritten(shell)
        self._painters: dict[bool, Painter] = {}

    # What is shown is handed to the thread of the cell: display hooks and streams of IPython belong to it.

    def _later(self, action: Any, *args: Any, **options: Any) -> None:
        with self._output:
            self._lines.append((action, args, options))
            self._output.notify_all()

    def pump(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Have the session's thread do this; its result. Shows output meanwhile. Ctrl-C cancels it."""
        ended = threading.Event()
        # Not what a cell left open: the next one's output would count as the rest of that.
        self._painters = {False: Painter(), True: Painter()}
        future = self.session.run(_to_its_end(work, ended))
        future.add_done_callback(lambda _: self._later(lambda: None))
        try:
            while not future.done():
                with self._output:
                    self._output.wait_for(lambda: self._lines, 0.2)
                self._show_pending()
        except KeyboardInterrupt:
            self._cancel(future)
            ended.wait(TIDY_S)
            raise
        finally:
            self._show_pending()
            self._overwritten.erase()
        return future.result()

    def _cancel(self, future: concurrent.futures.Future[Any]) -> None:
        """Interrupt what runs in the sandbox; what runs only here is cancelled."""
        if self.session.busy:
            self.session.interrupt()
            try:
                future.result(5)
                return
            except (Exception, concurrent.futures.CancelledError):
                pass
        future.cancel()

    def _show_pending(self) -> None:
        while True:
            with self._output:
                if not self._lines:
                    return
                lines, self._lines = self._lines, []
            for action, args, options in lines:
                action(*args, **options)

    def _show(self, action: Any, *args: Any) -> None:
        """Show something that stays, after the line that does not is gone."""
        self.said += 1
        self._later(self._overwritten.erase)
        self._later(action, *args)

    def write(self, text: str, *, error: bool = False) -> None:
        """Write to ``sys.stdout`` or ``sys.stderr`` as they are in the cell."""
        to_stderr = error or self.as_json
        shown = self.without_secrets(text)
        if not _in_a_kernel(self.shell):  # a terminal would obey it
            shown = self._painters.setdefault(to_stderr, Painter()).feed(shown)
        self._show(_write, shown, to_stderr)

    def display(self, data: Bundle, metadata: Bundle | None = None) -> None:
        """Use IPython's display publisher."""
        self._show(_publish, self.shell, self.bundle_without_secrets(data), dict(metadata or {}))

    def publish(
        self, type: str, content: dict[str, Any], metadata: Bundle, buffers: tuple[bytes, ...]
    ) -> None:
        """Show a message of the sandbox as if its code ran here. Comms are not passed on."""
        if type == "stream":
            self.write(str(content.get("text", "")), error=content.get("name") == "stderr")
        elif type in ("display_data", "update_display_data", "execute_result"):
            display_id = (content.get("transient") or {}).get("display_id")
            transient = {"display_id": f"daytona-{display_id}"} if display_id else {}
            data, about = content.get("data") or {}, content.get("metadata") or {}
            self._show(_publish, self.shell, data, about, transient, type == "update_display_data")
        elif type == "clear_output":
            self._show(self.shell.display_pub.clear_output, bool(content.get("wait")))

    def show_status(self, text: str | None) -> None:
        """Show it in a line that is written over."""
        if text is None:
            self._later(self._overwritten.erase)
        else:
            self._later(self._overwritten.show, text)

    def progress(self, line: str | None) -> None:
        """Show it in a line that is written over, and stays in the end."""
        self.said += 1
        if line is None:
            self._later(self._overwritten.keep)
        else:
            self._later(self._overwritten.show, line)

    def ask_blocking(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        """Ask with ``input`` or ``getpass``, in the thread of the cell."""
        answer: concurrent.futures.Future[str | None] = concurrent.futures.Future()

        def ask() -> None:
            try:
                shown = coloured(prompt)
                answer.set_result(getpass.getpass(shown) if password else input(shown))
            except (EOFError, RuntimeError, NotImplementedError):
                answer.set_result(None)

        self._show(ask)
        while not cancelled.is_set():
            try:
                return answer.result(0.1)
            except concurrent.futures.TimeoutError:
                continue
        return None


class Overwritten:
    """A line for whoever looks on, which is written over: on a terminal, or as a display of a notebook.

    Programs that run notebooks and scripts, which answer no questions, get nothing. Use it in the thread of
    the cell.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._display_id = ""
        self._on_terminal = False

    def show(self, text: str) -> None:
        """Show a text in place of the one before."""
        kernel = getattr(self._shell, "kernel", None)
        text = without_sequences(text)
        if kernel is None and sys.stderr.isatty():
            self._on_terminal = True
            _write(f"\r{text}\x1b[K", True)
        elif kernel is not None and getattr(kernel, "_allow_stdin", False):
            self._display(text, f'<code style="white-space:pre">{escape(text)}</code>')

    def _display(self, text: str, html: str) -> None:
        update, self._display_id = bool(self._display_id), self._display_id or uuid.uuid4().hex
        data, transient = {"text/plain": text, "text/html": html}, {"display_id": self._display_id}
        _publish(self._shell, data, {}, transient, update)

    def erase(self) -> None:
        """Take the line away."""
        if self._on_terminal:
            _write("\r\x1b[K", True)
        if self._display_id:
            self._display("", "")
        self._forget()

    def keep(self) -> None:
        """Leave the line where it is."""
        if self._on_terminal:
            _write("\n", True)
        self._forget()

    def _forget(self) -> None:
        self._on_terminal, self._display_id = False, ""


def _write(text: str, error: bool) -> None:
    stream = sys.stderr if error else sys.stdout
    stream.write(text)
    stream.flush()


def _publish(
    shell: InteractiveShell, data: Any, metadata: Any, transient: Any = None, update: bool = False
) -> None:
    options: dict[str, Any] = {"transient": transient or {}, "update": update}
    if not _in_a_kernel(shell) and isinstance(data.get("text/plain"), str):
        data = {**data, "text/plain": painted(data["text/plain"])}
    shell.display_pub.publish(data, metadata, **options)


def _in_a_kernel(shell: InteractiveShell) -> bool:
    """Whether output goes to a page, and not to a terminal."""
    return getattr(shell, "kernel", None) is not None


class ShowStatements(ast.NodeTransformer):
    """Makes ``%daytona`` as a statement show its result, and in ``x = %daytona`` give it."""

    def __init__(self) -> None:
        self.lines: set[int] = set()
        """Where such statements were found."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        """Rename the magic in ``get_ipython().run_line_magic('daytona', ...)`` as a statement."""
        self.generic_visit(node)
        call = node.value
        if (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and call.func.attr in ("run_line_magic", "run_cell_magic")
            and call.args
            and isinstance(call.args[0], ast.Constant)
            and call.args[0].value == "daytona"
        ):
            call.args[0].value = SHOW
            self.lines.add(node.lineno)
        return node


def _loading_cell(shell: InteractiveShell) -> tuple[str, set[int]]:
    """The cell that loads us: the name of its code, and the lines that are ``%daytona`` statements.

    It, or a whole ``script.ipy``, was compiled before :class:`ShowStatements` was there.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals is not shell.user_ns:
        frame = frame.f_back
    if frame is None:
        return "", set()
    name = frame.f_code.co_filename
    finder = ShowStatements()
    try:
        finder.visit(ast.parse("".join(linecache.getlines(name))))
    except (SyntaxError, ValueError):  # no cell, or one with top-level await, which is run in parts
        return "", set()
    return name, finder.lines


@magics_class
class DaytonaMagics(Magics):  # type: ignore[misc]
    """``%daytona`` of one IPython shell, and its session."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.settings = DaytonaSettings(parent=shell)
        self._loading = _loading_cell(shell)
        self._session: Session | None = None
        self._host: IPythonHost | None = None

    @property
    def host(self) -> IPythonHost:
        """The door, with its session; made when it is first needed."""
        if self._host is None:
            self._session = Session(self.settings, name=f"ipython-{os.getpid()}")
            self._session.start(prepare=False)
            self._host = IPythonHost(self._session, self.shell)
            _before_exit(self.close)
        return self._host

    @line_cell_magic  # type: ignore[untyped-decorator]
    def daytona(self, line: str, cell: str | None = None) -> Any:
        """Run a command, or with a cell body the cell in the sandbox; see ``%daytona help``."""
        if self._is_statement_of_loading_cell(sys._getframe(1)):
            self._run(line, cell, show=True)
            return None
        return self._run(line, cell, show=False).value

    @line_cell_magic  # type: ignore[untyped-decorator]
    def daytona_shown(self, line: str, cell: str | None = None) -> None:
        """The same as ``%daytona``, which becomes this where its value is not used."""
        self._run(line, cell, show=True)

    def _is_statement_of_loading_cell(self, frame: FrameType | None) -> bool:
        """Whether a call comes from a statement that :class:`ShowStatements` came too late for."""
        name, lines = self._loading
        while frame is not None and lines:
            if frame.f_code.co_filename == name:
                return frame.f_lineno in lines
            frame = frame.f_back
        return False

    def _run(self, line: str, cell: str | None, *, show: bool) -> Result:
        host = self.host
        with _ipython_errors():
            result: Result = host.pump(self._command(line, cell, show))
            if result.error is not None:
                raise result.error
        return result

    async def _command(self, line: str, cell: str | None, show: bool) -> Result:
        host, as_json = self.host, False
        if cell is None:
            result, as_json = await registry.run_line(host, line)
        else:
            result = await registry.run_cell(host, line, cell)
        if show:
            registry.show(host, result, as_json=as_json)
        return result

    # Above all of IPython's own.
    @context_matcher(identifier="daytona", priority=200)  # type: ignore[untyped-decorator]
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """Answer Tab in a ``%daytona`` line, and let no words of Python in between."""
        from .magics.completion import complete_cell, is_ours

        line = context.text_until_cursor
        reply = None
        if is_ours(line):
            with suppress(Exception):
                reply = self.host.session.run(complete_cell(self.host, line, len(line))).result(5)
        if reply is None:
            return {"completions": []}
        return {
            "completions": [SimpleCompletion(one) for one in reply["matches"]],
            "matched_fragment": line[reply["cursor_start"] :],
            "ordered": True,
            "suppress": True,
        }

    def close(self) -> None:
        """End the session; its sandbox is treated as the settings say."""
        session, self._session, self._host = self._session, None, None
        if session is None:
            return
        try:
            session.close().result(CLOSE_TIMEOUT_S)
        except (Exception, concurrent.futures.CancelledError):
            session_log().warning("the session did not end in order", exc_info=True)
        session.stop_thread()


def _before_exit(close: Callable[[], None]) -> None:
    """Call ``close`` at the end of the interpreter, before executors are shut down: atexit comes after."""
    # The last to register is the first to be called, so the executors' own hook must be there already.
    importlib.import_module("concurrent.futures.thread")
    register = getattr(threading, "_register_atexit", atexit.register)
    register(close)


def session_log() -> Any:
    """This module's logger."""
    import logging

    return logging.getLogger(__name__)


@contextmanager
def _ipython_errors() -> Iterator[None]:
    """Raise what IPython shows in few words: an error of ours needs no traceback of our own insides."""
    try:
        yield
    except UsageError as exc:
        raise IPythonUsageError(str(exc)) from None
    except RemoteError:
        raise
    except (asyncio.CancelledError, concurrent.futures.CancelledError, Interrupted):
        raise KeyboardInterrupt from None
    except DaytonaKernelError as exc:
        name, text = public_name(exc), str(exc)
        exc._render_traceback_ = lambda *_: [f"\x1b[31m{name}\x1b[39m: {text}"]  # type: ignore[attr-defined]
        raise


def load(shell: InteractiveShell) -> None:
    """Add the magics to a shell; once."""
    if getattr(shell, _LOADED, None) is not None:
        return
    magics = DaytonaMagics(shell)
    shell.register_magics(magics)
    transformer = ShowStatements()
    shell.ast_transformers.append(transformer)
    shell.Completer.custom_matchers.append(magics.match)
    setattr(shell, _LOADED, (magics, transformer))


def unload(shell: InteractiveShell) -> None:
    """Take the magics away again and end their session."""
    loaded = getattr(shell, _LOADED, None)
    if loaded is None:
        return
    magics, transformer = loaded
    delattr(shell, _LOADED)
    magics.close()
    if transformer in shell.ast_transformers:
        shell.ast_transformers.remove(transformer)
    for name in ("daytona", SHOW):
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(DaytonaMagics.__name__, None)
    if magics.match in shell.Completer.custom_matchers:
        shell.Completer.custom_matchers.remove(magics.match)
