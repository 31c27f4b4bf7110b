"""A whole kernel, and cells that have taken its agent over: the person's machine does not notice.

The attacker has what any code in the sandbox can have: the agent's objects, its descriptors and its files.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from tests.kernel.notebook import Notebook, Place, kernel_pid, running_notebook

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

TAKE_OVER = """
import gc, json, os, sys, time, zlib, base64
outbox = next(o for o in gc.get_objects() if type(o).__name__ == "Outbox")
def forge(type, content, **more):
    outbox.post(type, content, more.get("metadata") or {}, more.get("buffers") or ())
"""


@pytest.fixture(scope="module")
def own_place(make_place: Any) -> Place:
    place: Place = make_place()
    return place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def taken(own_place: Place) -> AsyncIterator[Notebook]:
    """A notebook in whose process hostile code runs."""
    async with running_notebook(own_place) as notebook:
        await notebook.run(TAKE_OVER)
        yield notebook


async def still_works(notebook: Notebook) -> None:
    """The next cell has its own output, and no other."""
    exchange = await notebook.run("print('mine')")
    assert [one["content"] for one in exchange.of_type("stream")] == [{"name": "stdout", "text": "mine\n"}]


FORGERIES = [
    ("status", {"execution_state": "idle"}),
    ("execute_reply", {"status": "ok", "execution_count": 9}),
    ("execute_input", {"code": "%daytona upload HERE/mine.txt stolen", "execution_count": 1}),
    ("shutdown_reply", {"restart": False}),
    ("kernel_info_reply", {"banner": "x"}),
    ("input_reply", {"value": "x"}),
    ("no such type", {"a": [1]}),
    ("execute_result", {"data": {"text/plain": 5}, "execution_count": "x"}),
    ("stream", {"name": "../../x", "text": "x"}),
    ("error", {"traceback": {"a": 1}}),
    ("comm_open", {"comm_id": 5}),
]


async def test_forged_messages_are_output_of_this_cell_or_nothing(taken: Notebook) -> None:
    code = f"for kind, content in {FORGERIES!r}: forge(kind, content)\nprint('end')"
    exchange = await taken.run(code)
    types = [one["msg_type"] for one in exchange.iopub]
    assert types == ["status", "execute_input", "error", "stream", "status"]
    assert exchange.states() == ["busy", "idle"]
    assert {one["msg_type"] for one in taken.orphans if one["channel"] == "iopub"} <= {"status"}
    await still_works(taken)


async def test_garbage_on_the_agent_s_own_descriptor_is_text_of_its_cell(taken: Notebook) -> None:
    """Frames for other cells, no text, half of everything: past the agent, to the daemon itself."""
    code = """
frame = lambda **k: b"\\x1e" + json.dumps({"x": "another", "t": "stream", **k}).encode() + b"\\n"
forged = {"name": "stdout", "text": "as another cell"}
text = b"".join(frame(n=n, c=forged) for n in range(50)).decode()  # one has the number that is next
say = lambda text: json.dumps({"type": "stdout", "text": text}).encode() + b"\\n"
for data in (b"\\xff\\xfe\\x00\\n", b"[" * 5000 + b"\\n", b"\\n" * 50, say(text),
             say("\\x1e{" + "[" * 9000 + "\\n"), say("\\x1e" * 100), say("\\ud800\\n"),
             b'{"type": "stdout", "text": 5}\\n', b'{"type": "error"}\\n'):
    os.write(outbox._protocol_fd, data)
print("end")
"""
    exchange = await taken.run(code)
    assert exchange.states() == ["busy", "idle"]
    assert "end" in exchange.text()
    shown = {one["msg_type"] for one in exchange.iopub} - {"status", "execute_input"}
    assert shown == {"stream"}
    assert "as another cell" not in exchange.text()  # it names an execution that is not this one
    await still_works(taken)


async def test_bombs_do_not_fill_the_kernel(taken: Notebook) -> None:
    kernel = psutil.Process(kernel_pid(taken))
    status = Path(f"/proc/{kernel.pid}/status")

    def peak() -> int:
        return int(status.read_text().split("VmHWM:")[1].split()[0]) // 1024

    before = peak()
    code = """
for text in ('{"t":"display_data","c":{"data":{"a":[' + "[]," * (9 << 20) + "[]]}}}", "{" + "[" * (10 << 20)):
    outbox.entries.append((None, text))  # as messages of this very cell, past the agent's own checks
    outbox.press()
for n in range(30): forge("display_data", {"data": {"application/json": [[]] * 20000}})
print("survived")
"""
    exchange = await taken.run(code)
    assert "survived" in exchange.text()
    grown = peak() - before
    print(f"the kernel's peak grew by {grown} MiB")
    assert grown < 200
    await still_works(taken)


async def test_floods_of_questions_comms_and_payloads_end_with_the_cell(taken: Notebook) -> None:
    code = """
for n in range(3000):
    forge("input_request", {"prompt": f"password {n}", "password": True, "request_id": f"a{n}"})
    forge("comm_open", {"comm_id": f"c{n}", "target_name": "t", "data": {}})
    forge("aside", {}); forge("aside_done", {"number": n})
ip = get_ipython()
for n in range(500): ip.payload_manager.write_payload(
    {"source": "set_next_input", "text": "%daytona upload /etc/passwd x", "replace": False}, single=False)
ip.payload_manager.write_payload({"source": "edit_magic", "filename": "/etc/passwd", "line_number": 1})
"""
    exchange = await taken.run(code, allow_stdin=True)
    assert len(exchange.content["payload"]) == 1
    assert exchange.content["payload"][0]["source"] == "set_next_input"
    await still_works(taken)


LOCAL = [
    "get_ipython().run_line_magic('daytona', 'upload HERE/mine.txt stolen.txt')",
    "get_ipython().run_cell('%daytona upload HERE/mine.txt stolen.txt')",
    "for _ in (1,):\n    %daytona upload HERE/mine.txt stolen.txt",
    'exec(\'get_ipython().run_line_magic("daytona", "download /etc/hostname HERE/new")\')',
    "print('%daytona upload HERE/mine.txt stolen.txt')",
    "get_ipython().set_next_input('%daytona upload HERE/mine.txt stolen.txt')",
    "get_ipython().run_cell_magic('daytona', 'bash', 'true')",
]


@pytest.mark.parametrize("code", LOCAL)
async def test_code_in_the_sandbox_runs_no_command_of_this_machine(
    taken: Notebook, own_place: Place, code: str
) -> None:
    """`%daytona` acts on this machine only where it stands in the text that the person has sent."""
    here = own_place.root / "here"
    here.mkdir(exist_ok=True)
    (here / "mine.txt").write_text("mine")
    await taken.execute(code.replace("HERE", str(here)))
    assert [path.name for path in here.iterdir()] == ["mine.txt"]
    found = await taken.run("import os; print(os.path.exists('stolen.txt'))")
    assert found.text() == "False\n"


async def test_an_agent_that_lies_to_the_front_end_s_questions_gets_its_words_nowhere(
    taken: Notebook,
) -> None:
    """Completion, inspection and the rest: a reply comes to each, and it is one."""
    await taken.run(
        "backend = next(o for o in gc.get_objects() if type(o).__name__ == 'IPythonBackend')\n"
        "lie = {'status': 'ok', 'matches': 5, 'data': 'x', 'history': 1, 'found': 'yes', 'comms': []}\n"
        "for name in ('complete', 'inspect', 'history', 'is_complete'):\n"
        "    setattr(backend, name, lambda *a, **k: lie)"
    )
    for kind, content in QUESTIONS.items():
        reply = (await taken.request(f"{kind}_request", content)).content
        assert isinstance(reply["status"], str)
        name, of_type = ANSWERS.get(kind, ("status", str))
        assert isinstance(reply[name], of_type), kind
    await taken.run("for name in ('complete', 'inspect', 'history', 'is_complete'): delattr(backend, name)")
    await still_works(taken)


ANSWERS = {"complete": ("matches", list), "inspect": ("data", dict), "history": ("history", list)}
QUESTIONS = {
    "complete": {"code": "a", "cursor_pos": 1},
    "inspect": {"code": "a", "cursor_pos": 1, "detail_level": 0},
    "is_complete": {"code": "a"},
    "history": {"hist_access_type": "tail", "n": 3, "output": False, "raw": True},
    "comm_info": {},
}
