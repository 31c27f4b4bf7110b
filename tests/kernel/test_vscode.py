"""As VS Code's Jupyter extension does it: no Jupyter server, kernels started from the kernelspec by itself.

Observed in its source (``src/kernels/raw`` of microsoft/vscode-jupyter): it fills the connection file's path
into ``argv``, in the environment of the Python that was chosen, runs hidden cells of its own first,
interrupts with a message that was on the *shell* channel until December 2025 (issue 17143), and ends a kernel
with SIGTERM, also for a restart.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.connect import write_connection_file
from jupyter_client.kernelspec import KernelSpecManager

from .notebook import Place

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PATIENCE_S = 60.0
Message = dict[str, Any]


class Code:
    """One kernel of VS Code's."""

    def __init__(self, place: Place, folder: Path) -> None:
        folder.mkdir()
        self.place, self.others = place, set(place.sandboxes())
        self.file, _ = write_connection_file(str(folder / "kernel-v2-1 a.json"), kernel_name="daytona")
        spec = KernelSpecManager().get_kernel_spec("daytona")
        argv = [word.replace("{connection_file}", self.file) for word in spec.argv]
        activated = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**place.environment, **spec.env, "PATH": activated, "VSCODE_PID": str(os.getpid())}
        self.process = subprocess.Popen(argv, cwd=folder, env=environment)
        self.client = AsyncKernelClient()
        self.client.load_connection_file(self.file)
        self.client.start_channels()

    async def subscribed(self) -> None:
        """Wait until the kernel knows that we listen: what it says on IOPub before that is said to nobody."""
        while (await self.client.get_iopub_msg(timeout=PATIENCE_S))["msg_type"] != "iopub_welcome":
            pass

    async def answered(self, id: str) -> tuple[Message, list[Message]]:
        """The reply to a message of the shell channel, and what IOPub said of it until it was idle."""
        reply, said = None, []
        while reply is None:
            found = await self.client.get_shell_msg(timeout=PATIENCE_S)
            reply = found if found["parent_header"].get("msg_id") == id else None
        while not said or said[-1]["content"] != {"execution_state": "idle"}:
            found = await self.client.get_iopub_msg(timeout=PATIENCE_S)
            said += [found] if found["parent_header"].get("msg_id") == id else []
        return reply["content"], said

    def send(self, type: str, **content: Any) -> str:
        """A message on the shell channel; its id."""
        message = self.client.session.msg(type, content)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def execute(self, code: str, **more: Any) -> str:
        words = {"silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": True}
        return self.send("execute_request", code=code, **{**words, "stop_on_error": False, **more})

    def sandboxes(self) -> set[str]:
        """Ids of those that were made since this kernel was started."""
        return set(self.place.sandboxes()) - self.others

    async def dispose(self) -> int:
        """End the kernel as VS Code does; its exit code."""
        self.client.stop_channels()
        self.process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(asyncio.to_thread(self.process.wait), PATIENCE_S)
        Path(self.file).unlink(missing_ok=True)
        return code


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def code(place: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Code]:
    kernel = Code(place, tmp_path_factory.mktemp("vs code") / "work space")
    try:
        await kernel.subscribed()
        yield kernel
    finally:
        if kernel.process.poll() is None:
            await kernel.dispose()


async def test_a_kernel_that_nothing_else_manages_runs_hidden_cells_and_others(code: Code) -> None:
    reply, _ = await code.answered(code.send("kernel_info_request"))
    assert (reply["status"], reply["implementation"]) == ("ok", "ipython")
    hidden = "import os as _hidden\n__vsc_ipynb_file__ = r'/home/a person/a.ipynb'\nprint(_hidden.getcwd())"
    reply, said = await code.answered(code.execute(hidden, store_history=False))
    assert reply["status"] == "ok"
    (text,) = [m["content"]["text"] for m in said if m["msg_type"] == "stream"]
    assert text != f"{Path(code.file).parent}\n"
    reply, _ = await code.answered(code.execute("1 + 1"))
    assert (reply["status"], reply["execution_count"]) == ("ok", 1)  # the hidden one was not counted


async def test_an_interrupt_on_the_shell_channel_ends_the_cell(code: Code) -> None:
    cell = code.execute("import time\nprint('begun')\ntime.sleep(3600)")
    queued = code.execute("2 + 2")
    while True:
        found = await code.client.get_iopub_msg(timeout=PATIENCE_S)
        if found["parent_header"].get("msg_id") == cell and found["msg_type"] == "stream":
            break
    interrupt = code.send("interrupt_request")
    answers: dict[str, Message] = {}
    while len(answers) < 3:
        found = await code.client.get_shell_msg(timeout=PATIENCE_S)
        answers[found["parent_header"]["msg_id"]] = found
    assert answers[interrupt]["msg_type"] == "interrupt_reply"
    assert answers[interrupt]["content"]["status"] == "ok"
    assert answers[cell]["content"]["ename"] == "KeyboardInterrupt"
    assert answers[queued]["content"]["status"] == "ok"  # stop_on_error was false
    states: dict[str, list[str]] = {interrupt: [], cell: [], queued: []}
    while states[queued][-1:] != ["idle"]:
        found = await code.client.get_iopub_msg(timeout=PATIENCE_S)
        if found["msg_type"] == "status":
            states[found["parent_header"]["msg_id"]].append(found["content"]["execution_state"])
    assert states == {interrupt: ["busy", "idle"], cell: ["idle"], queued: ["busy", "idle"]}


async def test_an_interrupt_without_a_cell_is_answered_and_harms_nothing(code: Code) -> None:
    reply, said = await code.answered(code.send("interrupt_request"))
    assert reply["status"] == "ok"
    assert [m["msg_type"] for m in said] == ["status", "status"]
    reply, _ = await code.answered(code.execute("3 + 3"))
    assert reply["status"] == "ok"


async def test_the_end_of_the_kernel_is_the_end_of_its_sandbox(code: Code) -> None:
    assert len(code.sandboxes()) == 1
    assert await code.dispose() in (0, 143)
    assert code.sandboxes() == set()
