"""Requests answered by IPython: cells, completion, inspection, history.

The rules (what a reply holds, when the count goes up, which cells run as coroutines) are those of ipykernel's
``IPythonKernel``, so that no front end can tell the difference.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from typing import Any

import IPython
from IPython.core.completer import provisionalcompleter, rectify_completions
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.tokenutil import token_at_cursor

from .aside import Aside
from .interrupts import Interrupts
from .outbox import Outbox
from .shell import ZMQInteractiveShell, make_shell, safe_str

Content = dict[str, Any]


class IPythonBackend:
    """Answers requests with an IPython shell around the context's globals. Runs in the main thread."""

    name = "IPython"
    version = IPython.__version__

    def __init__(self, user_ns: Content, user_module: Any, outbox: Outbox, interrupts: Interrupts) -> None:
        self.shell: ZMQInteractiveShell = make_shell(user_ns, user_module, outbox)
        self._interrupts = interrupts
        self._context = contextvars.copy_context()
        self._parents = outbox.parents
        self.aside: Aside | None = None
        # One context for all cells: a context variable set in one is there in the next.
        self._takes_meta = "cell_meta" in inspect.signature(InteractiveShell.run_cell).parameters

    @property
    def banner(self) -> str:
        """IPython's banner, for consoles."""
        return str(self.shell.banner)

    @property
    def execution_count(self) -> int:
        """The number that the next cell gets."""
        return int(self.shell.execution_count)

    @execution_count.setter
    def execution_count(self, value: int) -> None:
        self.shell.execution_count = value

    def set_control(self, message: Content) -> None:
        """Say which message was the last on the control channel."""
        self.shell.kernel.control = message

    # -- cells -------------------------------------------------------------------------------------

    async def execute(self, content: Content) -> Content:
        """Run a cell; the content of its ``execute_reply``."""
        code = content["code"]
        options, prepared = self._prepare(content)
        if self.shell.should_run_async(code, **prepared):
            result = await self._run_async(code, options, prepared)
        else:
            with self._interrupts.raising():
                result = self._context.run(self.shell.run_cell, code, **options)
        return self._reply(content, result)

    def _prepare(self, content: Content) -> tuple[Content, Content]:
        """The options of ``run_cell``, and what ``run_cell_async`` wants besides them."""
        shell = self.shell
        for count, text in content.get("earlier_cells") or ():
            # Cells with %daytona lines, which the kernel ran in parts without history.
            self._number_from(count)
            shell.history_manager.store_inputs(count, shell.transform_cell(text), text)
        self._number_from(shell.execution_count)
        options = {
            "silent": content["silent"],
            "store_history": content["store_history"],
            "cell_id": content.get("cell_id"),
        }
        if self._takes_meta:
            options["cell_meta"] = content.get("cell_meta")
        self._context.run(self._parents.set_here, self._parents.served)
        code = content["code"]
        try:
            return options, {"transformed_cell": shell.transform_cell(code), "preprocessing_exc_tuple": None}
        except Exception:
            return options, {"transformed_cell": code, "preprocessing_exc_tuple": sys.exc_info()}

    def _reply(self, content: Content, result: Any) -> Content:
        shell = self.shell
        error = result.error_before_exec if result.error_before_exec is not None else result.error_in_exec
        if result.success and not shell._last_traceback_during_displayhook:
            reply: Content = {"status": "ok", "user_expressions": {}}
            expressions = content.get("user_expressions") or {}
            if expressions:
                with self._interrupts.raising():
                    reply["user_expressions"] = shell.user_expressions(expressions)
        else:
            traceback = shell._last_traceback or []
            ename, evalue = str(type(error).__name__), safe_str(error)
            reply = {"status": "error", "traceback": traceback, "ename": ename, "evalue": evalue}
            reply["user_expressions"] = {}
        reply["execution_count"] = shell.execution_count - 1
        reply["payload"] = shell.payload_manager.read_payload()
        shell.payload_manager.clear_payload()
        return reply

    def _number_from(self, count: int) -> None:
        """Make ``In[count]`` the next cell, also where the cells before ran in another process."""
        manager = self.shell.history_manager
        for inputs in (manager.input_hist_parsed, manager.input_hist_raw):
            inputs.extend([""] * (count - len(inputs)))

    async def _run_async(self, code: str, options: Content, prepared: Content) -> Any:
        shell = self.shell
        shell._last_traceback = None
        shell._last_traceback_during_displayhook = False
        loop = asyncio.get_running_loop()
        coroutine = shell.run_cell_async(code, **options, **prepared)
        if sys.version_info >= (3, 11):
            task = loop.create_task(coroutine, context=self._context)
        else:  # what the cell sets in context variables is lost there
            task = self._context.run(loop.create_task, coroutine)
        result = None
        if self.aside is not None:
            self.aside.open(loop)
        with self._interrupts.cancelling(lambda: _cancel_soon(loop, task)):
            try:
                result = await task
            finally:
                if self.aside is not None:
                    self.aside.close()
                shell.events.trigger("post_execute")
                if not options["silent"]:
                    shell.events.trigger("post_run_cell", result)
        return result

    # -- questions ---------------------------------------------------------------------------------

    def complete(self, content: Content) -> Content:
        """The content of a ``complete_reply``, with jedi's types where there is jedi."""
        code, cursor = content["code"], content["cursor_pos"]
        if cursor is None:
            cursor = len(code)
        with provisionalcompleter():
            found = list(rectify_completions(code, self.shell.Completer.completions(code, cursor)))
        types = [
            {"start": c.start, "end": c.end, "text": c.text, "type": c.type, "signature": c.signature}
            for c in found
        ]
        return {
            "matches": [c.text for c in found],
            "cursor_start": found[0].start if found else cursor,
            "cursor_end": found[0].end if found else cursor,
            "metadata": {"_jupyter_types_experimental": types},
            "status": "ok",
        }

    def inspect(self, content: Content) -> Content:
        """The content of an ``inspect_reply``."""
        name = token_at_cursor(content["code"], content["cursor_pos"])
        reply: Content = {"status": "ok", "data": {}, "metadata": {}}
        try:
            bundle = self.shell.object_inspect_mime(
                name, detail_level=content["detail_level"], omit_sections=set(content["omit_sections"])
            )
        except KeyError:
            reply["found"] = False
            return reply
        reply["data"].update(bundle)
        if not self.shell.enable_html_pager:
            reply["data"].pop("text/html", None)
        reply["found"] = True
        return reply

    def history(self, content: Content) -> Content:
        """The content of a ``history_reply``."""
        manager = self.shell.history_manager
        kind, raw, output = content["hist_access_type"], content["raw"], content["output"]
        found: Any = []
        if kind == "tail":
            found = manager.get_tail(content["n"], raw=raw, output=output, include_latest=True)
        elif kind == "range":
            start, stop = content["start"], content["stop"]
            found = manager.get_range(content["session"], start, stop, raw=raw, output=output)
        elif kind == "search":
            unique = content["unique"]
            found = manager.search(content["pattern"], raw=raw, output=output, n=content["n"], unique=unique)
        return {"status": "ok", "history": list(found)}

    def is_complete(self, content: Content) -> Content:
        """The content of an ``is_complete_reply``, by this Python's own grammar."""
        status, indent = self.shell.input_transformer_manager.check_complete(content["code"])
        reply: Content = {"status": status}
        if status == "incomplete":
            reply["indent"] = " " * (indent or 0)
        return reply

    def report_error(self) -> Content:
        """Show the exception being handled as the cell's error; the content of the reply."""
        self.shell.showtraceback()
        etype, evalue, _ = sys.exc_info()
        return {
            "status": "error",
            "ename": etype.__name__ if etype else "Exception",
            "evalue": safe_str(evalue),
            "traceback": self.shell._last_traceback or [],
            "execution_count": self.execution_count - 1,
            "user_expressions": {},
            "payload": [],
        }

    def shutdown(self) -> None:
        """End the shell as a process exit would: history saved, handlers run."""
        self.shell.atexit_operations()


def _cancel_soon(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    """Cancel ``task`` from a signal handler."""
    loop.call_soon_threadsafe(lambda: task.done() or task.cancel())
