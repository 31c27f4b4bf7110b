"""The kernel: Jupyter's messages on one side, a :class:`~daytona_kernel.session.Session` on the other.

No network code is here. What a cell does is decided in the sandbox; this class publishes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import zmq
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from IPython.core.release import version as ipython_version
from traitlets import Instance, List, Type

from . import beside
from .completeness import completeness
from .config import DaytonaSettings
from .errors import DaytonaKernelError, public_name
from .kernelstate import FAILED, read_state, state_file, write_state
from .messages import clean_text, well_formed_answer, well_formed_reply
from .session import Interrupted, Session
from .sink import KernelSink, sendable
from .terminal import PlainFormatter
from .usage import Usage

if TYPE_CHECKING:
    from .magics.kerneldoor import CellRunner

Content = dict[str, Any]

SHUTDOWN_TIMEOUT_S = 4.5
"""Jupyter kills a kernel 5 s after it was asked to end."""
PARENT_POLL_S = 1.0
HISTORY_PATIENCE_S = 0.7
"""jupyter_console waits a second."""
CONTROL_END_S = 2.0


class DaytonaKernel(Kernel):
    """Runs cells in a Daytona sandbox, and otherwise behaves as ipykernel's Python kernel does."""

    implementation = "ipython"
    settings = Instance(DaytonaSettings)
    ended = False
    """Whether the session is closed and the sandbox treated as the settings say."""
    help_links = List(
        [
            {
                "text": "Python Reference",
                "url": f"https://docs.python.org/{sys.version_info[0]}.{sys.version_info[1]}",
            },
            {"text": "IPython Reference", "url": "https://ipython.readthedocs.io/en/stable/"},
            {"text": "Daytona Documentation", "url": "https://www.daytona.io/docs"},
        ]
    )

    def __init__(self, **kwargs: Any) -> None:
        for name in ("user_ns", "debugpy_stream"):
            kwargs.pop(name, None)  # for IPython's own kernel; traitlets warns of names that it does not know
        super().__init__(**kwargs)
        self.settings = DaytonaSettings(parent=self)
        self._state_file = state_file(str(getattr(self.parent, "connection_file", "") or ""))
        self.link_session = Session(
            self.settings,
            name=self._state_file.stem,
            remembered=read_state(self._state_file),
            on_ready=self._remember,
        )
        self._usage = Usage()
        self._cell_runner: CellRunner | None = None
        for msg_type in beside.COMM_TYPES:
            self.shell_handlers[msg_type] = self.comm_message
        self.shell_handlers[beside.INTERRUPT] = self.interrupt_request

    def start(self) -> None:
        """Begin to serve messages; the sandbox is got ready in the background meanwhile."""
        self.link_session.start()
        super().start()

    async def shell_main(self, subshell_id: str | None, msg: Any) -> None:
        """Serve the shell channel's messages one after the other.

        Comm messages overtake a cell that awaits, since it may wait for just that, as under ipykernel 7.4. So
        do interrupts: they belong on the control channel, but VS Code sent them here until its Jupyter
        extension of December 2025 (issue 17143 there).
        """
        lock = self._main_asyncio_lock
        msg_type = beside.type_of(self.session, msg) if lock.locked() else ""
        if msg_type == beside.INTERRUPT:
            await beside.serve_interrupt(self, msg)
            return
        if msg_type in beside.COMM_TYPES:
            if await beside.turn_or_awaiting(lock, self.link_session):
                try:
                    await self.dispatch_shell(msg, subshell_id=subshell_id)
                finally:
                    lock.release()
            else:
                await beside.serve_comm(self, msg)
            return
        async with lock:
            await self.dispatch_shell(msg, subshell_id=subshell_id)

    # -- what the kernel says of itself ------------------------------------------------------------

    @property
    def execution_count(self) -> int:
        """The number of the next cell: the shell in the sandbox counts."""
        return self.link_session.execution_count

    @execution_count.setter
    def execution_count(self, value: int) -> None:
        """The base class counts up before a cell; the shell in the sandbox does it after."""

    @property
    def language_info(self) -> Content:  # type: ignore[override]
        """Python as it is in the sandbox, or as it is here until the sandbox has told."""
        version = str(self.link_session.info.get("python") or sys.version.split()[0])
        return {
            "name": "python",
            "version": version,
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        }

    @property
    def implementation_version(self) -> str:  # type: ignore[override]
        """IPython's version, in the sandbox or here until the sandbox has told."""
        return str(self.link_session.info.get("shell_version") or ipython_version)

    @property
    def banner(self) -> str:  # type: ignore[override]
        """IPython's banner from the sandbox, and where that is."""
        lines = [str(self.link_session.info.get("banner") or "Python in a Daytona sandbox\n").rstrip("\n")]
        if self.settings.is_local:
            lines.append("Cells run in a local sandbox on this machine: there are no Daytona credentials.")
        else:
            lines.append("Cells run in a Daytona sandbox.")
        return "\n".join(lines) + "\n"

    @property
    def kernel_info(self) -> Content:
        """The content of a ``kernel_info_reply``. Never waits for the sandbox."""
        return {
            "protocol_version": super().kernel_info["protocol_version"],
            "implementation": self.implementation,
            "implementation_version": self.implementation_version,
            "language_info": self.language_info,
            "banner": self.banner,
            "help_links": self.help_links,
            "supported_features": [],
        }

    # -- cells -------------------------------------------------------------------------------------

    def _publish_execute_input(self, code: Any, parent: Content, execution_count: int) -> None:
        """Show the cell to all front ends. With a lone surrogate, which fits in no message, it would hang."""
        super()._publish_execute_input(
            clean_text(code) if isinstance(code, str) else code, parent, execution_count
        )

    async def do_execute(
        self,
        code: str,
        silent: bool,
        store_history: bool = True,
        user_expressions: Content | None = None,
        allow_stdin: bool = False,
        *,
        cell_meta: Content | None = None,
        cell_id: str | None = None,
    ) -> Content:
        """Run a cell in the sandbox; a failure of the sandbox is an error of our own tree, never ``ok``."""
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": user_expressions,
            "allow_stdin": allow_stdin,
            "cell_id": cell_id,
            "cell_meta": cell_meta,
        }
        # Who can be asked something is there; nbclient, nbconvert and nbval can not.
        sink = KernelSink(self, silent=silent, attended=allow_stdin)
        count = self.execution_count
        try:
            reply = await self._run_cell(content, sink)
        except Interrupted as exc:
            return self._error_reply(sink, "KeyboardInterrupt", exc, count)
        except DaytonaKernelError as exc:
            return self._error_reply(sink, public_name(exc), exc, count)
        except Exception as exc:
            self.log.exception("the cell failed in the kernel itself")
            return self._error_reply(sink, type(exc).__name__, exc, count)
        return self._clean_reply(reply)

    async def _run_cell(self, content: Content, sink: KernelSink) -> Content:
        """Run a cell; the parts of it that are ``%daytona`` lines run on this side."""

        async def execute(part: Content) -> Content:
            return await asyncio.wrap_future(
                self.link_session.execute(part, sink.parent, sink, **self._control_message())
            )

        if "%daytona" in content["code"]:
            runner = self._commands()
            parts = runner.parts(content["code"])
            if parts is not None:
                return await runner.run(parts, content, sink, execute)
        if self._cell_runner is not None:
            content.update(self._cell_runner.earlier_cells())
        return await execute(content)

    def _control_message(self) -> Content:
        """The last message of the control channel, which code in the cell may ask for."""
        message = self.get_parent("control")
        return {"control": {"parent": sendable(message, [*self._control_parent_ident])}} if message else {}

    def _commands(self) -> CellRunner:
        """What runs ``%daytona``; made when it is first needed."""
        if self._cell_runner is None:
            from .magics.kerneldoor import CellRunner

            self._cell_runner = CellRunner(self.link_session)
        return self._cell_runner

    def _error_reply(self, sink: KernelSink, ename: str, exc: Exception, count: int) -> Content:
        evalue = clean_text(str(exc))
        lines = [f"\x1b[31m{ename}\x1b[39m: {evalue}"]
        if not sink.silent:
            sink.publish("error", {"ename": ename, "evalue": evalue, "traceback": lines}, {}, ())
        return {
            "status": "error",
            "ename": ename,
            "evalue": evalue,
            "traceback": lines,
            "execution_count": count,
            "user_expressions": {},
            "payload": [],
            FAILED: ename if isinstance(exc, DaytonaKernelError) and not isinstance(exc, Interrupted) else "",
            **self._engine_info(),
        }

    def _engine_info(self) -> Content:
        return {"engine_info": {"engine_uuid": self.ident, "engine_id": self.int_id, "method": "execute"}}

    def _clean_reply(self, reply: Content) -> Content:
        """Keep of a reply from the sandbox what a reply may hold."""
        clean = well_formed_reply(reply, self.execution_count - 1)
        if clean["status"] == "error":
            clean.update(self._engine_info())
        if any(item["source"] == "ask_exit" and not item.get("keepkernel") for item in clean["payload"]):
            self.io_loop.call_later(0.1, self.io_loop.stop)
        return clean

    def init_metadata(self, parent: Content) -> Content:
        """Fields of a reply's metadata, as ipykernel has them."""
        metadata: Content = super().init_metadata(parent)
        metadata.update(dependencies_met=True, engine=self.ident)
        return metadata

    def finish_metadata(self, parent: Content, metadata: Content, reply_content: Content) -> Content:
        """Say how the request ended in its metadata, as ipykernel does; and which failure was the sandbox's.

        Code may raise errors of any name, but what it replies has no say in the metadata.
        """
        metadata["status"] = reply_content["status"]
        failed = reply_content.pop(FAILED, "")
        if failed:
            metadata[FAILED] = failed
        return metadata

    # -- questions ---------------------------------------------------------------------------------

    async def _question(self, kind: str, content: Content, failed: Content, **extra: Any) -> Content:
        """Ask the agent; ``failed`` is the answer when the sandbox can not be asked."""
        sink = KernelSink(self)
        try:
            reply = await asyncio.wrap_future(
                self.link_session.request(kind, content, sink.parent, sink, **extra)
            )
        except DaytonaKernelError as exc:
            self.log.warning("%s was not answered: %s", kind, exc)
            return failed
        if reply.get("status") != "ok" and "found" not in reply:
            reply = {**failed, **reply}
        answer = well_formed_answer(kind, reply)
        if answer is None:
            self.log.warning("the sandbox's answer to %s is no such reply", kind)
        return failed if answer is None else answer

    async def do_complete(self, code: str, cursor_pos: int | None) -> Content:
        """Complete names in the sandbox."""
        cursor = len(code) if cursor_pos is None else cursor_pos
        if "%daytona" in code:
            found = await self._commands().complete(code, cursor)
            if found is not None:
                return found
        failed = {"matches": [], "cursor_start": cursor, "cursor_end": cursor, "metadata": {}, "status": "ok"}
        return await self._question("complete", {"code": code, "cursor_pos": cursor}, failed)

    async def do_inspect(
        self, code: str, cursor_pos: int, detail_level: int = 0, omit_sections: Any = ()
    ) -> Content:
        """Describe an object of the sandbox."""
        content = {"code": code, "cursor_pos": cursor_pos, "detail_level": detail_level}
        content["omit_sections"] = sorted(omit_sections)
        failed = {"status": "ok", "data": {}, "metadata": {}, "found": False}
        return await self._question("inspect", content, failed)

    async def do_history(  # noqa: PLR0917  # the base class passes them by position
        self,
        hist_access_type: str,
        output: bool,
        raw: bool,
        session: int = 0,
        start: int = 0,
        stop: int | None = None,
        n: int | None = None,
        pattern: str | None = None,
        unique: bool = False,
    ) -> Content:
        """Look into the history that the shell in the sandbox keeps.

        A console asks before its first prompt, and takes an answer that comes late for that to its next
        question: so there is none if the sandbox is not there soon.
        """
        if not self.link_session.info:
            ready = asyncio.wrap_future(self.link_session.run(self.link_session.settled()))
            await asyncio.wait([ready], timeout=HISTORY_PATIENCE_S)
            if not self.link_session.info:
                return {"status": "ok", "history": []}
        content = {"hist_access_type": hist_access_type, "output": output, "raw": raw, "session": session}
        content.update(start=start, stop=stop, n=n, pattern=pattern, unique=unique)
        return await self._question("history", content, {"status": "ok", "history": []})

    async def do_is_complete(self, code: str) -> Content:
        """Whether ``code`` is complete, by the sandbox's own Python; by this one until that is there.

        A console waits for the answer at its first line, for a second, and else never asks again.
        """
        if not self.link_session.info:
            return completeness(code)
        return await self._question("is_complete", {"code": code}, {"status": "unknown"})

    async def comm_info_request(self, stream: Any, ident: Any, parent: Content) -> None:
        """List the comms of the sandbox."""
        content = {"target_name": parent["content"].get("target_name")}
        reply = await self._question("comm_info", content, {"status": "ok", "comms": {}})
        self._send(stream, "comm_info_reply", reply, parent, ident)

    async def comm_message(self, stream: Any, ident: Any, msg: Content) -> None:
        """Pass a comm message (a widget was moved) on to the sandbox."""
        await self._question("comm", msg["content"], {}, **beside.request_of(msg))

    async def usage_request(self, stream: Any, ident: Any, parent: Content) -> None:
        """Answer with the sandbox's use of CPU and memory."""
        if self.link_session.busy:
            content = await asyncio.wrap_future(self.link_session.usage_while_busy())
        else:
            content = await self._question("usage", {}, {})
        self._send(stream, "usage_reply", self._usage.reply(content), parent, ident)

    async def do_debug_request(self, msg: Content) -> Content:
        """Say that there is no debugger."""
        return {
            "type": "response",
            "request_seq": msg.get("seq", 0),
            "seq": 0,
            "success": False,
            "command": msg.get("command", ""),
            "message": "The debugger is not available for cells that run in a sandbox.",
            "body": {},
        }

    async def create_subshell_request(self, socket: Any, ident: Any, parent: Content) -> None:
        """Refuse: the interpreter runs one execution at a time, so a subshell could only wait."""
        self._refuse_subshell(socket, "create_subshell_reply", parent, ident)

    async def delete_subshell_request(self, socket: Any, ident: Any, parent: Content) -> None:
        """Refuse: there are none."""
        self._refuse_subshell(socket, "delete_subshell_reply", parent, ident)

    async def list_subshell_request(self, socket: Any, ident: Any, parent: Content) -> None:
        """List the subshells: none."""
        content = {"status": "ok", "subshell_id": []}
        self._send(socket, "list_subshell_reply", content, parent, ident)

    def _send(self, socket: Any, msg_type: str, content: Content, parent: Content, ident: Any = None) -> None:
        assert self.session is not None
        self.session.send(socket, msg_type, content, parent, ident)

    def _refuse_subshell(self, socket: Any, reply: str, parent: Content, ident: Any) -> None:
        evalue = "Subshells are not supported: the sandbox runs one cell at a time."
        content = {"status": "error", "ename": "NotImplementedError", "evalue": evalue, "traceback": []}
        self._send(socket, reply, content, parent, ident)

    # -- interrupting and ending -------------------------------------------------------------------

    async def interrupt_request(self, stream: Any, ident: Any, parent: Content) -> None:
        """Interrupt the cell in the sandbox, or the command that runs here."""
        if self._cell_runner is None or not self._cell_runner.interrupt():
            self.link_session.interrupt()
        self._send(stream, "interrupt_reply", {"status": "ok"}, parent, ident=ident)

    async def do_shutdown(self, restart: bool) -> Content:
        """End the session; the sandbox is kept for a restart, and otherwise treated as the settings say."""
        ending = self.link_session.close(restarting=restart)
        try:
            released = await asyncio.wait_for(asyncio.wrap_future(ending), SHUTDOWN_TIMEOUT_S)
            self.log.info("sandbox %s", released)
        except Exception as exc:
            self.log.warning("the session did not end in order: %s", type(exc).__name__)
        self.link_session.stop_thread()
        self.ended = True
        if not restart:
            self._state_file.unlink(missing_ok=True)
        return {"status": "ok", "restart": restart}

    def _remember(self, info: Content) -> None:
        """Write down which sandbox this kernel has, so that a restarted kernel finds it again."""
        write_state(self._state_file, info)


class DaytonaKernelApp(IPKernelApp):
    """ipykernel's application around our kernel."""

    name = "daytona-kernel"
    kernel_class = Type(DaytonaKernel, klass="ipykernel.kernelbase.Kernel").tag(config=True)  # type: ignore[assignment]
    classes = List([*IPKernelApp.classes, DaytonaSettings])
    capture_fd_output = False

    def init_kernel(self) -> None:
        """Have our own log written where the application's goes; ``DAYTONA_KERNEL_LOG`` is its level."""
        log = logging.getLogger("daytona_kernel")
        level = os.environ.get("DAYTONA_KERNEL_LOG", "").upper()
        log.setLevel(level if level in ("DEBUG", "INFO", "WARNING", "ERROR") else self.log_level)
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(PlainFormatter("[%(name)s] %(levelname)s | %(message)s"))
        log.handlers = [handler]
        log.propagate = False
        super().init_kernel()

    def init_signal(self) -> None:
        """End in order on SIGTERM: a killed kernel must not leave its sandbox running."""
        super().init_signal()
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def init_poller(self) -> None:
        """End in order, too, when whoever started the kernel is gone."""
        if self.parent_handle and os.getppid() != 1:
            threading.Thread(target=_follow_parent, name="daytona-parent", daemon=True).start()

    def start(self) -> None:
        """Serve until the end is asked for; let the control thread finish before its sockets are closed."""
        super().start()
        if self.control_thread is not None:
            self.control_thread.join(CONTROL_END_S)

    def _on_sigterm(self, _signum: int, _frame: Any) -> None:
        kernel = self.kernel
        if kernel is None or kernel.ended:
            os._exit(143)
        self.io_loop.add_callback_from_signal(self._end, kernel)

    async def _end(self, kernel: DaytonaKernel) -> None:
        await kernel.do_shutdown(restart=False)
        self.control_thread.io_loop.add_callback(self.control_thread.io_loop.stop)
        self.io_loop.stop()

    def init_iopub(self, context: Any) -> None:
        """Open the IOPub channel without ZMQ's limit of 1000 messages, beyond which it drops them unseen."""
        context.setsockopt(zmq.SNDHWM, 0)
        super().init_iopub(context)


def _follow_parent() -> None:
    """Send this process SIGTERM when its parent has changed, which means that the old one has ended."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
