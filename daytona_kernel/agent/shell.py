"""The IPython shell that runs the cells.

A subclass of IPython's own ``InteractiveShell``, made the way ipykernel makes its one, since libraries look
at that: its class name, ``config.IPKernelApp``, ``kernel.comm_manager`` and so on decide whether plots and
progress bars take the notebook form.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from IPython.core import page
from IPython.core.autocall import ZMQExitAutocall
from IPython.core.compilerop import CachingCompiler
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell, InteractiveShellABC
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from IPython.core.magics.code import CodeMagics, MacroToEdit
from IPython.core.usage import default_banner
from IPython.utils.process import system
from traitlets import Any as AnyTrait
from traitlets import CBool, Instance, Type, default, observe

from . import gui as event_loops
from .display import ZMQDisplayPublisher, ZMQShellDisplayHook
from .murmur import murmur2
from .outbox import Outbox
from .sender import Session

NAME_SEED = 0xC70F6907
"""The seed of ipykernel's hash: the same cell has the same name there and here."""
AGENT_FILES = "<_daytona_agent_"


class XCachingCompiler(CachingCompiler):
    """Names the code of a cell like ipykernel does, so that warnings and tracebacks read the same."""

    def get_code_name(self, raw_code: str, code: str, number: int) -> str:
        """A file name that no file has; IPython shows it as ``Cell In[n]``."""
        name = os.environ.get("IPYKERNEL_CELL_NAME")
        if name is None:
            digest = murmur2(raw_code.encode("utf-8", "surrogatepass"), NAME_SEED)
            name = os.path.join(tempfile.gettempdir(), f"ipykernel_{os.getpid()}", f"{digest}.py")
        return name


@magics_class
class KernelMagics(Magics):
    """The magics that ipykernel adds to IPython's, as far as they make sense in a sandbox."""

    @line_magic
    def edit(self, parameter_s: str = "", last_call: list[str] | None = None) -> None:
        """Ask the front end to open an editor. Options as in IPython: -n NUMBER, -p, -r."""
        opts, args = self.parse_options(parameter_s, "prn:")
        try:
            filename, lineno, _ = CodeMagics._find_edit_target(self.shell, args, opts, last_call or ["", ""])
        except MacroToEdit:
            print("Macro editing not yet implemented in 2-process model.")
            return
        payload = {"source": "edit_magic", "filename": str(Path(filename).resolve()), "line_number": lineno}
        self.shell.payload_manager.write_payload(payload)

    @line_magic
    def clear(self, arg_s: str) -> None:
        """Clear the terminal."""
        self.shell.system("clear")

    @line_magic
    def less(self, arg_s: str) -> None:
        """Show a file of the sandbox through the pager; Python files in colour."""
        if not arg_s:
            raise UsageError("Missing filename.")
        text = Path(arg_s).read_text()
        page.page(self.shell.pycolorize(text) if arg_s.endswith(".py") else text)

    more = line_magic("more")(less)

    @line_magic
    def man(self, arg_s: str) -> None:
        """Show a manual page through the pager."""
        page.page(self.shell.getoutput(f"man {arg_s} | col -b", split=False))

    @line_magic
    def autosave(self, arg_s: str) -> None:
        """Set the classic notebook's autosave interval, in seconds; 0 turns it off."""
        from IPython.display import Javascript, display

        try:
            interval = int(arg_s)
        except ValueError as exc:
            raise UsageError(f"%%autosave requires an integer, got {arg_s!r}") from exc
        script = f"IPython.notebook.set_autosave_interval({1000 * interval})"
        display(Javascript(script), include=["application/javascript"])
        print(f"Autosaving every {interval} seconds" if interval else "Autosave disabled")

    @line_magic
    def connect_info(self, arg_s: str) -> None:
        """Say where the connection file is: not in the sandbox."""
        warnings.warn(
            "The connection file is on the machine of the kernel, not in the sandbox.", stacklevel=2
        )

    @line_magic
    def qtconsole(self, arg_s: str) -> None:
        """Say that no window can be opened from the sandbox."""
        warnings.warn(
            "A qtconsole can be opened on the machine of the kernel, not in the sandbox.", stacklevel=2
        )

    @line_magic
    def subshell(self, arg_s: str) -> None:
        """Say that there are no subshells: the interpreter runs one execution at a time."""
        print("Kernel does not support subshells")


@magics_class
class RefusedMagics(Magics):
    """What only the kernel's side can do. Whoever meets these is not at the top level of a cell."""

    @no_var_expand
    @line_cell_magic
    def daytona(self, line: str, cell: str | None = None) -> None:
        """Files, previews, the desktop and the life of the sandbox; see ``%daytona help``.

        It runs on the kernel's machine, because of what is written at the top level of a cell.
        """
        raise UsageError(
            "%daytona works only as a line of its own at the top level of a cell, not in a loop, a function, "
            "an if or a string that is run: it acts on the user's machine, and code in the sandbox must not "
            "be able to ask for that. Put it in a cell, or a line, of its own."
        )


class ZMQInteractiveShell(InteractiveShell):
    """IPython's shell with frames for output. Named after ipykernel's, which libraries look for."""

    displayhook_class = Type(ZMQShellDisplayHook)
    display_pub_class = Type(ZMQDisplayPublisher)
    exiter = Instance(ZMQExitAutocall)
    kernel = AnyTrait()
    readline_use = CBool(False)
    autoindent = CBool(False)
    keepkernel_on_exit: bool | None = None

    _last_traceback: list[str] | None = None
    _last_traceback_during_displayhook = False

    def __init__(self, *args: Any, outbox: Outbox, **kwargs: Any) -> None:
        self._outbox = outbox
        super().__init__(*args, **kwargs)
        if "IPKernelApp" not in self.config:
            self.config.IPKernelApp.connection_file = ""  # tqdm and others ask for this key
        collided = ".*Trio's signal handling code might have collided.*"
        warnings.filterwarnings("ignore", message=collided, category=RuntimeWarning)
        self.show_rewritten_input = False
        self.extension_manager.load_extension("storemagic")

    @default("banner1")
    def _default_banner1(self) -> str:
        return str(default_banner)

    @default("exiter")
    def _default_exiter(self) -> ZMQExitAutocall:
        return ZMQExitAutocall(self)

    @observe("exit_now")
    def _update_exit_now(self, change: Any) -> None:
        """The kernel is told by the payload of :meth:`ask_exit`."""

    def init_display_pub(self) -> None:
        """Give the publisher its wire."""
        super().init_display_pub()
        self.display_pub.outbox = self._outbox

    def init_displayhook(self) -> None:
        """Give the display hook its wire."""
        super().init_displayhook()
        self.displayhook.outbox = self._outbox

    def init_environment(self) -> None:
        """Make child processes colourful and unpaged, as ipykernel does."""
        os.environ.update(TERM="xterm-color", CLICOLOR="1", FORCE_COLOR="1", CLICOLOR_FORCE="1")
        os.environ.update(PAGER="cat", GIT_PAGER="cat")

    def init_hooks(self) -> None:
        """Send what goes to the pager to the front end."""
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(self.payloadpage_page), 99)

    def init_magics(self) -> None:
        """Add the kernel's magics."""
        super().init_magics()
        self.register_magics(KernelMagics, RefusedMagics)
        self.magics_manager.register_alias("ed", "edit")

    def init_virtualenv(self) -> None:
        """A kernel runs in its own environment already."""

    def payloadpage_page(
        self, strg: Any, start: int = 0, screen_lines: int = 0, pager_cmd: str | None = None
    ) -> None:
        """Page ``strg`` (text or mime bundle) in the front end."""
        data = strg if isinstance(strg, dict) else {"text/plain": strg}
        self.payload_manager.write_payload({"source": "page", "data": data, "start": max(0, start)})

    def ask_exit(self) -> None:
        """``exit`` and ``quit``: the front end is asked to end the kernel."""
        self.exit_now = not self.keepkernel_on_exit
        payload = {"source": "ask_exit", "keepkernel": self.keepkernel_on_exit}
        self.payload_manager.write_payload(payload)

    def set_next_input(self, text: str, replace: bool = False) -> None:
        """Put ``text`` in the next cell, or with ``replace`` in this one."""
        self.payload_manager.write_payload({"source": "set_next_input", "text": text, "replace": replace})

    def run_cell(self, *args: Any, **kwargs: Any) -> Any:
        """Run a cell and forget the last one's traceback."""
        self._last_traceback = None
        self._last_traceback_during_displayhook = False
        return super().run_cell(*args, **kwargs)

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: list[str]) -> None:
        if self.displayhook.msg is not None:
            self._last_traceback_during_displayhook = True
        # An exception whose str() fails is replaced by that failure, as under ipykernel.
        content = {"traceback": stb, "ename": str(etype.__name__), "evalue": str(evalue)}
        self._outbox.post("error", content)
        self._last_traceback = stb

    def _get_exc_info(self, exc_tuple: Any = None) -> Any:
        """The exception to show, without the agent's own frames."""
        etype, evalue, traceback = super()._get_exc_info(exc_tuple)
        hide_agent_below(evalue)
        return etype, evalue, without_agent(traceback)

    def enable_gui(self, gui: Any = None) -> None:
        """Note which event loop figures want; there is no window in a sandbox for the others."""
        event_loops.check(gui)
        self.active_eventloop = gui

    def system_piped(self, cmd: str) -> None:
        """``!cmd`` with its output streamed; the exit status goes to ``_exit_code``."""
        if cmd.rstrip().endswith("&"):
            raise OSError("Background processes not supported.")
        exit_code = system(self.var_expand(cmd, depth=1))
        self.user_ns["_exit_code"] = exit_code
        if getattr(self, "system_raise_on_error", False) and exit_code != 0:
            raise CalledProcessError(exit_code, cmd)

    system = system_piped

    @property
    def parent_header(self) -> dict[str, Any]:
        """The request that the caller works for: its cell, in a task of an earlier cell that one."""
        return self._outbox.parents.get()

    @parent_header.setter
    def parent_header(self, value: dict[str, Any]) -> None:
        self._outbox.parents.set(value)

    def get_parent(self) -> dict[str, Any]:
        """The request that the caller works for."""
        return self.parent_header

    def set_parent(self, parent: dict[str, Any]) -> None:
        """Say which request output belongs to."""
        self._outbox.parents.set(parent)

    def set_thread_parent(self, parent: dict[str, Any]) -> Any:
        """Say it for this thread only; the result undoes it with :meth:`reset_thread_parent`."""
        return self._outbox.parents.set_here(parent)

    def reset_thread_parent(self, tokens: Any) -> None:
        """Undo :meth:`set_thread_parent`."""
        self._outbox.parents.reset_here(tokens)


ZMQInteractiveShell.__module__ = "ipykernel.zmqshell"
InteractiveShellABC.register(ZMQInteractiveShell)


def without_agent(traceback: Any) -> Any:
    """``traceback`` less the frames of the agent: they are no part of anybody's program."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename.startswith(AGENT_FILES):
        traceback = traceback.tb_next
    entry = traceback
    while entry is not None:
        following = entry.tb_next
        if following is not None and following.tb_frame.f_code.co_filename.startswith(AGENT_FILES):
            entry.tb_next = following.tb_next
        else:
            entry = following
    return traceback


def hide_agent_below(error: BaseException | None) -> None:
    """The same for all that an exception came from, such as a name that ``__main__`` does not have."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if one is not error:
            one.__traceback__ = without_agent(one.__traceback__)
        waiting += [one.__cause__, one.__context__]


def safe_str(value: object) -> str:
    """``str(value)``, or a word about why there is none: an exception's ``__str__`` may fail."""
    try:
        return str(value)
    except Exception as exc:
        return f"<exception str() failed: {type(exc).__name__}>"


class IPythonKernel:
    """What user code finds as ``get_ipython().kernel``: the little of a kernel that libraries use."""

    def __init__(self, outbox: Outbox) -> None:
        self.shell: ZMQInteractiveShell | None = None
        self.comm_manager: Any = None
        self.session = Session(outbox)
        self.iopub_socket = object()  # for Session.send, which sends nothing to None
        self.control: dict[str, Any] = {}
        """The last message of the control channel."""
        self._parents = outbox.parents

    def get_parent(self, channel: str | None = None) -> dict[str, Any]:
        """The request that the caller works for, or the last one on the control channel."""
        return self.control if channel == "control" else self._parents.get()

    def set_parent(self, ident: Any, parent: dict[str, Any], channel: str = "shell") -> None:
        """Say which request output belongs to."""
        if channel == "shell":
            self._parents.set(parent)

    @property
    def _parent_header(self) -> dict[str, Any]:
        return self._parents.get()

    @property
    def _parent_ident(self) -> dict[str, list[bytes]]:
        """Who sent the requests; JupyterLab's debugger and others look here."""
        messages = {"shell": self._parents.get(), "control": self.control}
        return {name: list(getattr(message, "idents", ())) for name, message in messages.items()}

    @property
    def execution_count(self) -> int:
        """The number of the next cell."""
        return self.shell.execution_count if self.shell is not None else 0


def init_pdb() -> None:
    """Make ``pdb`` interruptible, with the front end for input, as ipykernel does."""
    import pdb

    from IPython.core import debugger

    if hasattr(debugger, "InterruptiblePdb"):
        debugger.Pdb = debugger.InterruptiblePdb
        pdb.Pdb = debugger.Pdb  # type: ignore[misc]
        pdb.set_trace = debugger.set_trace


def make_shell(user_ns: dict[str, Any], user_module: Any, outbox: Outbox) -> ZMQInteractiveShell:
    """Start IPython around ``user_ns``, the context's own globals."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    sys.displayhook = sys.__displayhook__
    kernel = IPythonKernel(outbox)
    init_pdb()
    shell: ZMQInteractiveShell = ZMQInteractiveShell.instance(
        user_ns=user_ns,
        user_module=user_module,
        kernel=kernel,
        compiler_class=XCachingCompiler,
        outbox=outbox,
    )
    kernel.shell = shell
    return shell
