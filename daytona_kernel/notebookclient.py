"""nbclient's client, made for long runs: streams are joined, outputs are saved while a cell runs."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_output

from . import notebookfile
from .outputlimit import OutputLimit, size_of_output

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # What goes wrong is reported by the runner, in its own words.

# How often the outputs of a running cell are saved, in seconds; a slow save waits longer, so that saving
# stays below a tenth of the time.
_SAVE_INTERVAL = 10.0
_SAVE_SHARE = 10
# nbclient gives up on a cell's last outputs this many seconds after its reply. Its own 4 s lose the end of
# a cell that printed a lot; outputs and reply travel on different sockets.
_IOPUB_SECONDS = 300
CUT = "[daytona] The outputs of this notebook are over the limit (--max-output); the rest is not kept.\n"


class RecordingClient(NotebookClient):
    """A :class:`nbclient.NotebookClient` that keeps outputs compact and can save them at any time.

    nbclient appends one output per stream *message*; front ends join neighbours of the same stream, and so
    does this. The pieces are joined on demand: adding each to a growing text would copy a large output over
    and over.
    """

    def __init__(self, notebook: NotebookNode, max_output: int = 0, **settings: Any) -> None:
        """*max_output*: how many characters of output are kept, 0 for all. *settings*: nbclient's."""
        settings.setdefault("iopub_timeout", _IOPUB_SECONDS)
        settings.setdefault("raise_on_iopub_timeout", True)
        settings.setdefault("record_timing", False)
        super().__init__(notebook, log=_log, **settings)
        self._stream: NotebookNode | None = None
        self._pieces: list[str] = []
        self._changed = False
        self._cell: NotebookNode | None = None
        self._earlier = 0
        self.limit = OutputLimit(max_output, self._kept)
        self.cut_cells: list[int] = []
        """Indices of the cells that lost output to the limit."""

    def process_message(
        self, msg: dict[str, Any], cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        """Handle one IOPub message of the running cell (called by nbclient for each)."""
        self._changed = True
        if cell is not self._cell:
            self._cell_begins(cell)
        kept = self.limit.take(msg)
        if msg["msg_type"] == "clear_output":
            self.limit.cleared()
        if msg["msg_type"] != "stream":
            self.join_streams()
        result = self._processed(kept, cell, cell_index) if kept else None
        if kept is not msg:
            self._say_that_it_is_cut(cell, cell_index)
        return result

    def _processed(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """nbclient's part. It fails over widgets that are none, which must not end the run."""
        try:
            result: NotebookNode | None = super().process_message(msg, cell, cell_index)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as exc:
            _log.warning("a message of the kernel is not understood (%s: %s)", msg["msg_type"], exc)
            return None
        return result

    def output(
        self, outs: list[NotebookNode], msg: dict[str, Any], display_id: str | None, cell_index: int
    ) -> NotebookNode | None:
        """Add the output of *msg* to *outs*, or its text to the stream that is already last there."""
        hooked = bool(self.output_hook_stack[msg["parent_header"].get("msg_id")])
        if msg["msg_type"] == "stream" and not hooked and not self.clear_before_next_output:
            last = outs[-1] if outs else None
            if last is not None and last.output_type == "stream" and last.name == msg["content"]["name"]:
                if last is not self._stream:
                    self.join_streams()
                    self._stream, self._pieces = last, [last.text]
                self._pieces.append(msg["content"]["text"])
                return None
        result: NotebookNode | None = super().output(outs, msg, display_id, cell_index)
        return result

    def _cell_begins(self, cell: NotebookNode) -> None:
        if self._cell is not None:
            self.join_streams()
            self._earlier += sum(map(size_of_output, self._cell.outputs))
        self._cell = cell
        self.limit.cell_begins()

    def _kept(self) -> int:
        """How much is kept by now, in characters."""
        self.join_streams()
        size = self._earlier + sum(map(size_of_output, self.widget_state.values()))
        if self._cell is not None and not self.clear_before_next_output:
            size += sum(map(size_of_output, self._cell.outputs))
        return size

    def _say_that_it_is_cut(self, cell: NotebookNode, cell_index: int) -> None:
        if self.limit.said:
            return
        self.limit.said = True
        self.cut_cells.append(cell_index)
        self.join_streams()
        line = new_output("stream", name="stderr", text=CUT)  # type: ignore[no-untyped-call]
        cell.outputs.append(line)

    def join_streams(self) -> None:
        """Put the text that arrived so far where it belongs. To be called before looking at outputs."""
        if self._stream is not None:
            text = "".join(self._pieces)
            self._stream["text"], self._pieces = text, [text]

    def save(self, path: Path) -> None:
        """Write the notebook as it is now. Raises :exc:`notebookfile.NotebookFileError`."""
        self.join_streams()
        self._changed = False
        notebookfile.write(self.nb, path)

    async def save_while_running(self, path: Path) -> None:
        """Save now and then, until cancelled; a failed save is logged and tried again."""
        interval = _SAVE_INTERVAL
        while True:
            await asyncio.sleep(interval)
            if not self._changed:
                continue
            began = time.monotonic()
            try:
                self.save(path)
            except notebookfile.NotebookFileError as exc:
                _log.warning("%s", exc)
            interval = max(_SAVE_INTERVAL, _SAVE_SHARE * (time.monotonic() - began))
