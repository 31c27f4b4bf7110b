"""A notebook without a front end: a session against the server behind the proxy, and what its cells say.

Nothing here sleeps. A test waits for what a cell has published (:meth:`Cell.printed`, :meth:`Cell.until`) or
for what the proxy has seen, and tells the cell to go on by making a file that it waits for
(:meth:`Notebook.tell`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

from daytona_kernel.config import DaytonaSettings
from daytona_kernel.session import Session
from daytona_kernel.toolbox import Endpoint, Toolbox

from .conftest import Faulty
from .proxy import Connection

Content = dict[str, Any]

EXECUTE = "process/interpreter/execute"
PRELUDE = """
import os, sys, time
def once(name="runs"):
    'Leave a mark for each time that this is called.'
    with open(name, "ab", 0) as f: f.write(b"x")
def told(name):
    'Wait until the test has made this file.'
    while not os.path.exists(name): time.sleep(0.005)
"""


class Cell:
    """One request on its way; also the sink that records what it publishes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.messages: list[tuple[str, Content]] = []
        self.notices: list[str] = []
        self.statuses: list[str | None] = []
        self.answer: Callable[[str], str] | None = None
        """What a person types at ``input()``; ``None``: nobody is there."""
        self.asked = asyncio.Event()
        self.future: concurrent.futures.Future[Content] | None = None
        self.keep = True
        """Whether messages are kept; floods only count."""
        self.characters = 0
        self._loop = loop
        self._changed = asyncio.Event()

    # The sink; called on the session's thread.

    def publish(self, type: str, content: Content, metadata: Content, buffers: tuple[bytes, ...]) -> None:
        self.characters += len(content.get("text", ""))
        if self.keep:
            self.messages.append((type, content))
        self._wake()

    def status(self, text: str | None) -> None:
        self.statuses.append(text)
        self._wake()

    def notice(self, text: str) -> None:
        self.notices.append(text)
        self._wake()

    def ask(self, prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        self._loop.call_soon_threadsafe(self.asked.set)
        if self.answer is None:
            cancelled.wait()
            return None
        return self.answer(prompt)

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._changed.set)

    # For tests.

    def text(self, name: str = "stdout") -> str:
        """All text of a stream so far."""
        return "".join(
            content["text"]
            for kind, content in list(self.messages)
            if kind == "stream" and content["name"] == name
        )

    @property
    def lines(self) -> list[str]:
        """The lines of stdout so far."""
        return self.text().splitlines()

    @property
    def lost_line(self) -> list[str]:
        """What the lost connection's status line has shown, one after the other."""
        return [
            content["data"]["text/plain"]
            for kind, content in list(self.messages)
            if kind.endswith("display_data")
            and "daytona" in content.get("transient", {}).get("display_id", "")
        ]

    async def until(self, condition: Callable[[], bool], limit_s: float = 60) -> None:
        """Wait until what was published fulfils the condition. The limit only says that it hangs."""

        async def wait() -> None:
            while not condition():
                self._changed.clear()
                if condition():
                    return
                await self._changed.wait()

        try:
            await asyncio.wait_for(wait(), limit_s)
        except asyncio.TimeoutError:
            seen = repr(self.messages[-3:])[-600:]
            raise AssertionError(f"it did not come; the last messages are {seen}") from None

    async def printed(self, text: str, limit_s: float = 60) -> None:
        """Wait until this text is in stdout."""
        await self.until(lambda: text in self.text(), limit_s)

    async def reply(self, limit_s: float = 60) -> Content:
        """The reply's content; raises what the session raises. The limit only says that it hangs."""
        assert self.future is not None
        return await asyncio.wait_for(asyncio.wrap_future(self.future), limit_s)


class Notebook:
    """A session and a way around the proxy into its sandbox."""

    def __init__(self, faulty: Faulty, session: Session) -> None:
        self.server = faulty.server
        self.proxy = faulty.proxy
        self.session = session
        self._direct: Toolbox | None = None

    @classmethod
    def open(cls, faulty: Faulty, remembered: Content | None = None, **options: Any) -> Notebook:
        """Start a session. ``options``: settings that differ, and ``name``."""
        name = options.pop("name", "")
        settings = DaytonaSettings(
            **{
                "backend": "daytona",
                "api_key": faulty.server.server.api_key,
                "api_url": faulty.server.api_url,
                "target": "local",
                "on_shutdown": "delete",
                "sandbox": "",
                **options,
            }
        )
        session = Session(settings, name=name, remembered=remembered)
        session.start()
        return cls(faulty, session)

    def start(self, code: str, *, kind: str = "execute", allow_stdin: bool = False, **options: Any) -> Cell:
        """Begin to run a cell."""
        cell = Cell(asyncio.get_running_loop())
        cell.keep = options.pop("keep", True)
        cell.answer = options.pop("answer", None)
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": allow_stdin or cell.answer is not None,
            "cell_id": None,
            "cell_meta": None,
        }
        cell.future = self.session.execute(content, {}, cell)
        return cell

    async def run(self, code: str, limit_s: float = 60, **options: Any) -> Cell:
        """Run a cell to its end, which must be good."""
        cell = self.start(code, **options)
        reply = await cell.reply(limit_s)
        assert reply["status"] == "ok", (reply, cell.text("stderr"))
        return cell

    async def prepared(self) -> Notebook:
        """Run the prelude's cell, so that there is a sandbox with a context."""
        await self.run(PRELUDE)
        return self

    async def warm(self) -> Connection:
        """The proxy's connection that the next cell will use: it is open already."""

        async def wait() -> None:
            link = self.session._link
            assert link is not None
            await asyncio.shield(link._warm[0][0])

        await asyncio.wait_for(asyncio.wrap_future(self.session.run(wait())), 30)
        return await self.proxy.opened(self.proxy.count(EXECUTE), EXECUTE)

    async def interrupt(self) -> None:
        """Interrupt what runs."""
        await asyncio.wait_for(asyncio.wrap_future(self.session.interrupt()), 30)

    # Around the proxy.

    @property
    def direct(self) -> Toolbox:
        """The sandbox's toolbox, not through the proxy."""
        if self._direct is None:
            endpoint = self.session.manager.endpoint()
            path = endpoint.base_url.split("/", 3)[3]
            self._direct = Toolbox(
                Endpoint(f"http://127.0.0.1:{self.server.port}/{path}", dict(endpoint.headers))
            )
        return self._direct

    @property
    def home(self) -> str:
        """The sandbox's home directory: where cells run."""
        return str(self.session.info["cwd"])

    async def tell(self, name: str) -> None:
        """Make the file that the cell waits for."""
        await self.direct.upload(f"{self.home}/{name}", b"")

    async def marks(self, name: str = "runs") -> int:
        """How often ``once()`` has been called in the sandbox."""
        return len(await self.direct.download(f"{self.home}/{name}") or b"")

    async def close(self) -> None:
        """End the session and delete its sandbox."""
        if self._direct is not None:
            await self._direct.close()
        try:
            await asyncio.wait_for(asyncio.wrap_future(self.session.close()), 60)
        finally:
            await asyncio.to_thread(self.session.stop_thread)
