"""What is left where IPython can not be had: Python cells with results, tracebacks and completion, no
magics.
"""

from __future__ import annotations

import ast
import codeop
import inspect as inspect_module
import linecache
import sys
import traceback
from collections.abc import Callable
from typing import Any

from .interrupts import Interrupts
from .outbox import Outbox

Content = dict[str, Any]

REPRS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_svg_": "image/svg+xml",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
    "_repr_latex_": "text/latex",
    "_repr_json_": "application/json",
}


class PlainBackend:
    """The same interface as :class:`IPythonBackend`, with the standard library alone."""

    name = "plain"
    version = ""
    banner = "IPython is not available in this sandbox: plain Python cells, no magics."

    def __init__(self, user_ns: Content, user_module: Any, outbox: Outbox, interrupts: Interrupts) -> None:
        self._ns = user_ns
        self._outbox = outbox
        self._interrupts = interrupts
        self.execution_count = 1
        sys.modules["__main__"] = user_module
        user_ns["display"] = self._display

    def set_control(self, message: Content) -> None:
        """Nothing here needs it."""

    async def execute(self, content: Content) -> Content:
        """Run a cell; the content of its ``execute_reply``."""
        silent, store = content["silent"], content["store_history"]
        name = f"<cell {self.execution_count}>"
        code = content["code"]
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        reply: Content = {"status": "ok", "user_expressions": {}, "payload": []}
        try:
            with self._interrupts.raising():
                self._run(code, name, silent)
                for key, expression in (content.get("user_expressions") or {}).items():
                    reply["user_expressions"][key] = self._evaluate(expression)
        except BaseException as exc:
            reply.update(self._error(exc))
        if store:
            self.execution_count += 1
        reply["execution_count"] = self.execution_count - 1
        return reply

    def _run(self, code: str, name: str, silent: bool) -> None:
        tree = ast.parse(code, name)
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr):
            tree.body.pop()
        exec(compile(tree, name, "exec"), self._ns)  # noqa: S102
        if not isinstance(last, ast.Expr):
            return
        value = eval(compile(ast.Expression(last.value), name, "eval"), self._ns)  # noqa: S307
        if value is not None and not silent and not code.rstrip().endswith(";"):
            self._ns["_"] = value
            data, metadata = _bundle(value)
            result = {"execution_count": self.execution_count, "data": data, "metadata": metadata}
            self._outbox.post("execute_result", result)

    def _evaluate(self, expression: str) -> Content:
        try:
            value = eval(expression, self._ns)  # noqa: S307
            data, metadata = _bundle(value)
            return {"status": "ok", "data": data, "metadata": metadata}
        except Exception as exc:
            return {"status": "error", **_describe(exc)}

    def _error(self, exc: BaseException) -> Content:
        content = _describe(exc)
        self._outbox.post("error", content)
        return {"status": "error", "user_expressions": {}, **content}

    def _display(self, *objects: Any, **_: Any) -> None:
        for value in objects:
            data, metadata = _bundle(value)
            self._outbox.post("display_data", {"data": data, "metadata": metadata, "transient": {}})

    def complete(self, content: Content) -> Content:
        """The content of a ``complete_reply``."""
        import rlcompleter

        code, cursor = content["code"], content["cursor_pos"]
        if cursor is None:
            cursor = len(code)
        start = cursor
        while start and (code[start - 1].isalnum() or code[start - 1] in "._"):
            start -= 1
        completer = rlcompleter.Completer(self._ns)
        matches: list[str] = []
        while (match := completer.complete(code[start:cursor], len(matches))) is not None:
            matches.append(match)
        return {
            "matches": [match.rstrip("(") for match in matches],
            "cursor_start": start,
            "cursor_end": cursor,
            "metadata": {},
            "status": "ok",
        }

    def inspect(self, content: Content) -> Content:
        """The content of an ``inspect_reply``."""
        code, cursor = content["code"], content["cursor_pos"]
        start = end = cursor
        while start and (code[start - 1].isalnum() or code[start - 1] in "._"):
            start -= 1
        while end < len(code) and (code[end].isalnum() or code[end] == "_"):
            end += 1
        try:
            value = eval(code[start:end], self._ns)  # noqa: S307
        except Exception:
            return {"status": "ok", "found": False, "data": {}, "metadata": {}}
        text = f"{type(value).__name__}\n\n{inspect_module.getdoc(value) or ''}"
        return {"status": "ok", "found": True, "data": {"text/plain": text}, "metadata": {}}

    def history(self, content: Content) -> Content:
        """No history is kept without IPython."""
        return {"status": "ok", "history": []}

    def is_complete(self, content: Content) -> Content:
        """The content of an ``is_complete_reply``."""
        try:
            compiled = codeop.compile_command(content["code"], "<cell>", "exec")
        except (SyntaxError, ValueError, OverflowError):
            return {"status": "invalid"}
        return {"status": "complete"} if compiled else {"status": "incomplete", "indent": ""}

    def report_error(self) -> Content:
        """Show the exception being handled as the cell's error."""
        exc = sys.exc_info()[1]
        reply = self._error(exc if exc is not None else RuntimeError("unknown"))
        return {**reply, "execution_count": self.execution_count - 1, "payload": []}

    def shutdown(self) -> None:
        """Nothing to end."""


def _describe(exc: BaseException) -> Content:
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if "_daytona_agent" not in f.filename]
    lines = ["Traceback (most recent call last):", *"".join(traceback.format_list(frames)).splitlines()]
    try:
        lines += "".join(traceback.format_exception_only(type(exc), exc)).splitlines()
        evalue = str(exc)
    except Exception:
        evalue = "<exception str() failed>"
    return {"ename": type(exc).__name__, "evalue": evalue, "traceback": lines}


def _bundle(value: Any) -> tuple[Content, Content]:
    data: Content = {"text/plain": repr(value)}
    metadata: Content = {}
    for method, mime in REPRS.items():
        render: Callable[[], Any] | None = getattr(value, method, None)
        if render is None or inspect_module.isclass(value):
            continue
        try:
            found = render()
        except Exception:
            continue
        if isinstance(found, tuple):
            found, metadata[mime] = found
        if found is not None:
            data[mime] = found
    return data, metadata
