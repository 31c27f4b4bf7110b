"""What cells ask the person (``input()``): one question at a time, and how the answers get to the cells."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

from .errors import DaytonaKernelError
from .link import Link
from .running import Running
from .toolbox import hedged

log = logging.getLogger(__name__)

Content = dict[str, Any]

ANSWER_MIN_S, ANSWER_MAX_S = 0.5, 4.0
"""Pauses before an answer that did not get through is sent again."""
MOST_QUESTIONS = 1000
"""Questions of a cell's threads that may wait for their turn; more come only from one that wants to harm."""
PROMPT_CHARS = 1024 * 1024


class Questions:
    """The questions of a session's cells. ``link`` tells the way to the sandbox; ``None``: there is none."""

    def __init__(self, link: Callable[[], Link | None]) -> None:
        self._link = link
        self._asking = asyncio.Lock()
        self.waiting = 0

    async def serve(self, content: Content, running: Running) -> None:
        """Have the person answer an ``input_request``, and bring the answer to the cell."""
        request_id = content.get("request_id")
        if not isinstance(request_id, str) or not request_id.isalnum() or self._link() is None:
            return
        if self.waiting >= MOST_QUESTIONS:
            return
        prompt, password = str(content.get("prompt", ""))[:PROMPT_CHARS], bool(content.get("password"))
        self.waiting += 1
        try:
            async with self._asking:  # one reader at a time on the stdin channel, the last cell's included
                if running.input_cancelled.is_set():
                    return
                value = await asyncio.to_thread(running.sink.ask, prompt, password, running.input_cancelled)
        finally:
            self.waiting -= 1
        if value is not None:
            await self._send(request_id, json.dumps({"value": value}) + "\n", running)

    async def _send(self, request_id: str, answer: str, running: Running) -> None:
        """Bring what was typed to the cell: for as long as that waits for it, however the network is."""
        delay = ANSWER_MIN_S
        while not running.input_cancelled.is_set() and (link := self._link()) is not None:
            path = f"{link.spool}/input-{request_id}"
            try:
                await hedged(lambda link=link, path=path: link.toolbox.upload(path, answer.encode()))  # type: ignore[misc]
                return
            except DaytonaKernelError as exc:
                log.warning("an answer to input() did not get through: %s", exc)
            await asyncio.sleep(delay)
            delay = min(delay * 2, ANSWER_MAX_S)
