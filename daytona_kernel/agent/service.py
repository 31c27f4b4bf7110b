"""One request, from its JSON to its ``done``: the function that every execution of the context calls."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import platform
import sys
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from . import usage
from .aside import Aside
from .interrupts import Interrupts
from .obituary import Obituary
from .outbox import Outbox
from .parents import Request
from .plain import PlainBackend
from .spool import SpoolDirectory
from .stdin import InputBridge, main_thread
from .streams import Capture, OutStream
from .vitals import Vitals
from .world import MainModule

Content = dict[str, Any]
_loads = json.JSONDecoder().decode  # user code may break what is in the module
REMEMBERED = 4096
"""Execution ids kept to recognise one that is sent again; far more than can be in doubt at a time."""


@dataclass
class Parts:
    """What :func:`bootstrap.start` has put together."""

    user_ns: Content
    user_module: MainModule
    loop: asyncio.AbstractEventLoop
    interrupts: Interrupts
    outbox: Outbox
    capture: Capture
    spool: SpoolDirectory


class Agent:
    """Everything of one context. Its methods run in the worker's main thread."""

    def __init__(self, parts: Parts) -> None:
        self.user_ns = parts.user_ns
        self.user_module = parts.user_module
        self.loop = parts.loop
        self.interrupts = parts.interrupts
        self.outbox = parts.outbox
        self.capture = parts.capture
        self.spool = parts.spool
        self.vitals = Vitals()
        self.token = uuid.uuid4().hex
        self._pid = os.getpid()
        self.running = False
        self.stdin = InputBridge(self.outbox, self.spool.path)
        self.obituary = Obituary(self.spool.path, self.outbox)
        self.backend: Any = None
        self._comms: Any = None
        self._aside = Aside(self.outbox, self.spool.path, self._comm_aside)
        self._seen: dict[str, None] = {}
        self._streams: dict[str, Any] = {}
        self.fixed: dict[str, Any] = {}
        """What the worker needs to find in ``sys`` between executions, whatever user code did to it."""
        self._user_stdin: Any = None
        self._builtin_threads = 0

    def is_worker(self) -> bool:
        """Whether a read of ``sys.stdin`` here comes from the worker, waiting for its next command."""
        return not self.running and main_thread()

    def between_executions(self) -> None:
        """Called when the worker waits for a command: its streams must not be the ones threads print to."""
        sys.stdout, sys.stderr = self._stream("stdout"), self._stream("stderr")

    # -- one request -------------------------------------------------------------------------------

    def handle(self, text: str) -> None:
        """Serve the request in ``text``. Raises nothing: the worker dies of some exceptions."""
        request = _loads(text)
        execution_id = request["id"]
        saved = sys.stdout, sys.stderr
        self.running = True
        try:
            if execution_id in self._seen:
                self.outbox.resend(request.get("from", 0), request.get("late_from"))
            else:
                self._remember(execution_id)
                try:
                    self._serve(request)
                finally:
                    self._streams = {name: sys.__dict__.get(name) for name in ("stdout", "stderr")}
                    self._user_stdin = sys.__dict__.get("stdin")
        finally:
            sys.stdout, sys.stderr = saved
            self.vitals.put_back()
            self.restore_fixed()
            self.running = False

    def _remember(self, execution_id: str) -> None:
        self._seen[execution_id] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def _serve(self, request: Content) -> None:
        self._prepare()
        self.outbox.compress_over_chars = request.get("compress_over_chars", self.outbox.compress_over_chars)
        cell = request["type"] == "execute"
        self.outbox.begin(request["id"], cell=cell, late_from=request.get("late_from"))
        before = self.outbox.parents.served
        if cell or request["type"] == "comm":
            self.outbox.parents.begin(_whole_message(request))
        self.outbox.post("ready", {"token": self.token})
        if cell:
            self.spool.write("last", {"id": request["id"], "running": True})
            self.outbox.flush()
        try:
            reply = self._answer(request)
        finally:
            self.interrupts.disarm()
            self.capture.drain()
        if cell:
            count = self.backend.execution_count if self.backend else 1
            self.spool.write("last", {"id": request["id"], "running": False, "execution_count": count})
        try:
            self.outbox.post("done", {"reply": reply, "state": self._state()})
        except ValueError as exc:  # a payload or an expression's value that is no JSON
            failed = {"status": "error", "ename": "ValueError", "evalue": str(exc), "traceback": []}
            self.outbox.post("done", {"reply": failed, "state": self._state()})
        self.outbox.flush()
        self.outbox.end()
        if not cell:  # what threads print from now on is the last cell's again
            self.outbox.parents.begin(before)

    def _answer(self, request: Content) -> Content:
        task = self.loop.create_task(self._dispatch(request))
        for _ in range(100):
            # A signal may come between two steps of the loop, and user code may stop it.
            with suppress(BaseException):
                self.loop.run_forever()
            if task.done():
                break
        try:
            return task.result()
        except BaseException:
            return self._report()

    async def _dispatch(self, request: Content) -> Content:
        try:
            if request["type"] == "execute":
                self._before_cell(request)
                # From here, and not from below: under the cell lie as many calls as under ipykernel, so that
                # a recursion that never ends has the same traceback.
                reply = dict(await self.backend.execute(request["content"]))
            else:
                reply = await self._call(request)
        except BaseException:
            self._mend()
            return self._report()
        else:
            self._mend()
            return reply
        finally:
            # Here and not with run_until_complete(), under which a task that the cell has just made would
            # take its first step before the cell ends. Under ipykernel it does so afterwards.
            self.loop.stop()

    def _mend(self) -> None:
        """After user code: a forked child ends here; what the process needs is put back."""
        self.stdin.remove()
        if os.getpid() != self._pid:
            os._exit(0)
        for text in self.vitals.put_back():
            self.outbox.buffer("stderr").write(f"[daytona-kernel: {text}]\n")
        self.vitals.give_back()

    def _report(self) -> Content:
        if self.backend is not None:
            return dict(self.backend.report_error())
        name, value = sys.exc_info()[:2]
        ename = name.__name__ if name else "Exception"
        return {"status": "error", "ename": ename, "evalue": str(value), "traceback": []}

    def _before_cell(self, request: Content) -> None:
        self._count_and_control(request)
        self._aside.execution_id = request["id"]
        self.stdin.install(request["content"].get("allow_stdin", False))

    def _count_and_control(self, request: Content) -> None:
        if "control" in request:
            self.backend.set_control(_whole_message(request["control"]))
        if "execution_count" in request:
            # Never back: another notebook may count in here, too, and the history wants a number once only.
            self.backend.execution_count = max(request["execution_count"], self.backend.execution_count)

    async def _call(self, request: Content) -> Content:
        kind, content = request["type"], request["content"]
        if kind == "hello":
            return self._hello(content)
        self._count_and_control(request)
        if kind == "comm":
            return await self._comm(request)
        if kind == "comm_info":
            return self._comm_info(content)
        if kind == "usage":
            return usage.usage(os.getpid())
        if kind == "shutdown":
            return self._shutdown()
        with self.interrupts.raising():
            return dict(getattr(self.backend, kind)(content))

    def _state(self) -> Content:
        return {
            "execution_count": self.backend.execution_count if self.backend else 1,
            "background": self._has_background(),
            "position": self.outbox.position(),
            "cwd": _cwd(),
        }

    def _has_background(self) -> bool:
        """Whether threads or tasks of the user's may go on printing after the execution."""
        try:
            tasks = any(not task.done() for task in asyncio.all_tasks(self.loop))
        except RuntimeError:
            tasks = False
        return tasks or threading.active_count() > self._builtin_threads or _has_children()

    # -- the cell's surroundings -------------------------------------------------------------------

    def _prepare(self) -> None:
        """Put back what the last cell may have broken."""
        self.interrupts.install()
        self.vitals.give_back()
        self.capture.restore()
        self.obituary.renew()
        if self._comms is not None:
            from . import comms

            comms.take_over()
        sys.modules["__main__"] = self.user_module
        if not self.loop.is_closed() and _has_its_descriptors(self.loop):
            asyncio.set_event_loop(self.loop)
        else:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        sys.stdout, sys.stderr = self._stream("stdout"), self._stream("stderr")
        if self._user_stdin is not None:
            sys.stdin = self._user_stdin

    def restore_fixed(self) -> None:
        """Give the worker its own streams back."""
        for name, stream in self.fixed.items():
            setattr(sys, name, stream)

    def _stream(self, name: str) -> Any:
        """The stream user code last set, unless it is unusable."""
        stream = self._streams.get(name)
        if not callable(getattr(stream, "write", None)) or getattr(stream, "closed", False):
            stream = OutStream(self.outbox, self.capture, name, 1 if name == "stdout" else 2)
            self._streams[name] = stream
        return stream

    # -- requests that are no cells ----------------------------------------------------------------

    def _hello(self, content: Content) -> Content:
        """Start the shell; tell who we are. ``ipython_path``: where IPython was uploaded to, if it was."""
        path = content.get("ipython_path")
        if path and path not in sys.path:
            sys.path.append(path)
        for name, value in (content.get("environment") or {}).items():
            os.environ.setdefault(name, value)
        if self.backend is None or (path and isinstance(self.backend, PlainBackend)):
            self.backend = self._make_backend(content)
            for name, value in (content.get("variables") or {}).items():
                self.user_ns.setdefault(name, value)
        self._builtin_threads = threading.active_count()
        self.vitals.learn_modules()
        info = self._info()
        self.spool.write("agent.json", {**info, "context_id": content.get("context_id")})
        return info

    def _info(self) -> Content:
        return {
            "status": "ok",
            "pid": os.getpid(),
            "process_group": os.getpgid(0),
            "python": platform.python_version(),
            "executable": sys.executable,
            "shell": self.backend.name,
            "shell_version": self.backend.version,
            "banner": self.backend.banner,
            "token": self.token,
            "capture": self.capture.on,
            "spool": self.spool.path,
            "cwd": _cwd(),
            "home": os.path.expanduser("~"),
        }

    def _make_backend(self, content: Content) -> Any:
        arguments = (self.user_ns, self.user_module, self.outbox, self.interrupts)
        try:
            from .cells import IPythonBackend

            backend = IPythonBackend(*arguments)
        except Exception as exc:
            if not isinstance(exc, ImportError):
                print(f"IPython could not be started: {type(exc).__name__}: {exc}", file=sys.stderr)
            return PlainBackend(*arguments)
        from IPython.core.error import StdinNotImplementedError

        self.stdin.refusal = StdinNotImplementedError
        try:
            from . import comms, standins
        except ImportError:
            return backend
        self._comms = comms.install(self.outbox)
        backend.aside = self._aside
        shell = backend.shell
        shell.kernel.comm_manager = self._comms
        app = standins.install(shell, shell.kernel, comms.BaseComm, comms.CommManager)
        shell.configurables += [self._comms, app]
        return backend

    async def _comm(self, request: Content) -> Content:
        if self._comms is None:
            return {"status": "error"}
        with self.interrupts.raising():
            self._handle_comm(request)
        return {"status": "ok"}

    def _comm_aside(self, request: Content) -> None:
        """A comm message while a cell awaits. An interrupt that hits its handler ends only that."""
        try:
            self._handle_comm(request)
        except BaseException:
            self._report()

    def _handle_comm(self, request: Content) -> None:
        from base64 import b64decode

        from . import comms

        message = dict(request["parent"])
        message["content"] = request["content"]
        message["buffers"] = [memoryview(b64decode(item)) for item in request.get("buffers", [])]
        self.outbox.parents.set_here(_whole_message(request))
        comms.handle(self._comms, request["comm_type"], message)

    def _comm_info(self, content: Content) -> Content:
        if self._comms is None:
            return {"status": "ok", "comms": {}}
        from . import comms

        return comms.info(self._comms, content.get("target_name"))

    def _shutdown(self) -> Content:
        self.backend.shutdown()
        atexit._run_exitfuncs()
        return {"status": "ok"}


def _whole_message(request: Content) -> Content:
    """The request as the message it was, with the fields that ipykernel's ``get_parent()`` has."""
    parent = request.get("parent") or {}
    header = dict(parent.get("header") or {})
    if isinstance(header.get("date"), str):
        try:
            header["date"] = datetime.fromisoformat(header["date"].replace("Z", "+00:00"))
        except ValueError:
            pass
    whole = Request(
        header=header,
        msg_id=header.get("msg_id", ""),
        msg_type=header.get("msg_type", ""),
        parent_header=parent.get("parent_header") or {},
        metadata=parent.get("metadata") or {},
        content=request.get("content", {}),
        buffers=[],
    )
    whole.idents = tuple(ident.encode("latin-1") for ident in parent.get("idents") or ())
    return whole


def _has_children() -> bool:
    """Whether this process has children, which may print later."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return bool(file.read(1))
    except OSError:
        return False


def _has_its_descriptors(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether user code has left the loop's own descriptors open."""
    selector = getattr(loop, "_selector", None)
    try:
        if selector is not None:
            os.fstat(selector.fileno())
    except (OSError, ValueError):
        return False
    return True


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
