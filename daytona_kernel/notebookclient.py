"""nbclient's client, made for long runs: streams are joined, outputs are saved while a cell runs."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode

from . import notebookfile

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # What goes wrong is reported by the runner, in its own words.

# How often the outputs of a running cell are saved, in seconds; a slow save waits longer, so that saving
# stays below a tenth of the time.
_SAVE_INTERVAL = 10.0
_SAVE_SHARE = 10
# nbclient gives up on a cell's last outputs this many seconds after its reply. Its own 4 s lose the end of
# a cell that printed a lot; outputs and reply travel on different sockets.
_IOPUB_SECONDS = 300


class RecordingClient(NotebookClient):
    """A :class:`nbclient.NotebookClient` that keeps outputs compact and can save them at any time.

    nbclient appends one output per stream *message*; front ends join neighbours of the same stream, and so
    does this. The pieces are joined on demand: adding each to a growing text would copy a large output over
    and over.
    """

    def __init__(self, notebook: NotebookNode, **settings: Any) -> None:
        settings.setdefault("iopub_timeout", _IOPUB_SECONDS)
        settings.setdefault("raise_on_iopub_timeout", True)
        settings.setdefault("record_timing", False)
        super().__init__(notebook, log=_log, **settings)
        self._stream: NotebookNode | None = None
        self._pieces: list[str] = []
        self._changed = False

    def process_message(
        self, msg: dict[str, Any], cell: NotebookNode, cell_index: int
    ) -> NotebookNode | None:
        """Handle one IOPub message of the running cell (called by nbclient for each)."""
        self._changed = True
        if msg["msg_type"] != "stream":
            self.join_streams()
        result: NotebookNode | None = super().process_message(msg, cell, cell_index)
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
