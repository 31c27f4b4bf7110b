"""Contexts and executions of the interpreter, on a real worker through real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from daytona_kernel.local.toolbox import chunks, clients, contexts, quirks
from daytona_kernel.local.toolbox.worker_process import SCRIPT_NAME

from .interpreter_client import PREFIX, Interpreter, daemon


@pytest.fixture
async def python(tmp_path: Path) -> AsyncIterator[Interpreter]:
    async with daemon(tmp_path) as running:
        yield running


def wait_for(gate: Path) -> str:
    """Code that prints a line and then runs until *gate* exists."""
    loop = f"while not os.path.exists({str(gate)!r}): time.sleep(0.005)"
    return f"import os, time; print('on')\n{loop}\n"


async def test_output_error_and_end_come_in_order_as_frames_of_five_keys(python: Interpreter) -> None:
    result = await python.run("import sys\nprint(1)\nprint('e', file=sys.stderr)\n1/0")
    assert result.kinds == ["stdout", "stderr", "error", "control"]
    assert all(list(frame) == ["type", "text", "name", "value", "traceback"] for frame in result.frames)
    assert result.text("stdout") + result.text("stderr") == "1\ne\n"
    assert result.error["name"] == "ZeroDivisionError"
    assert result.error["value"] == "division by zero"
    assert result.error["traceback"] == (
        'Traceback (most recent call last):\n  File "<stdin>", line 4\nZeroDivisionError: division by zero\n'
    )
    assert (result.control, result.code, result.reason) == (["completed"], 1000, "")


async def test_a_traceback_shows_the_lines_of_user_code_alone(python: Interpreter) -> None:
    result = await python.run("import json\ndef f():\n    json.loads('x')\n\nf()")
    assert result.error["traceback"].splitlines()[:-1] == [
        "Traceback (most recent call last):",
        '  File "<stdin>", line 5',
        '  File "<stdin>", line 3',
    ]


async def test_a_syntax_error_is_one_line(python: Interpreter) -> None:
    error = (await python.run("x = 1\ny = = 2")).error
    assert error["traceback"] == "SyntaxError: invalid syntax (<string>, line 2)\n"


async def test_system_exit_completes_without_error_and_keeps_the_state(python: Interpreter) -> None:
    assert (await python.run("x = 5; import sys; sys.exit(3)")).kinds == ["control"]
    assert (await python.run("print(x)")).text() == "5\n"


async def test_an_exception_that_cannot_be_shown_ends_the_execution_before_its_error(
    python: Interpreter,
) -> None:
    code = "class E(Exception):\n    def __str__(self): raise LookupError('no text')\nraise E"
    result = await python.run(code)
    assert result.kinds == ["control", "error"]
    assert (result.error["name"], result.error["value"], result.code) == ("LookupError", "no text", 1000)


async def test_the_world_of_a_cell_is_that_of_the_real_worker(python: Interpreter) -> None:
    result = await python.run(
        "import io, os, sys\n"
        "print(__name__, vars(sys.modules['__main__']) is globals(), '__file__' in globals())\n"
        "print(sys.path[0]); print(sys.argv); print(os.getcwd())\n"
        "print(sys.stdout.isatty(), sys.stdout.encoding, hasattr(sys.stdout, 'buffer'), sys.stdin.fileno())\n"
        "try: sys.stdout.fileno()\n"
        "except io.UnsupportedOperation: print('no fileno')\n"
        "print(os.getsid(0) == os.getpid())\n"
    )
    temp = python.home / "tmp"
    assert result.text().splitlines() == [
        "__main__ False False",
        str(temp),
        str([str(temp / SCRIPT_NAME)]),
        str(python.home),
        "False utf-8 False 0",
        "no fileno",
        "True",
    ]


async def test_text_is_sent_at_newlines_at_1024_characters_at_flush_and_at_the_end(
    python: Interpreter,
) -> None:
    result = await python.run(
        "import sys; w = sys.stdout.write\n"
        "w('a'); w('b\\nc'); w('d'); sys.stdout.flush(); sys.stdout.flush()\n"
        "for _ in range(1025): w('x')\n"
        "w('y' * 5000); w('end')"
    )
    assert [frame["text"] for frame in result.frames[:-1]] == [
        "ab\nc",
        "d",
        "x" * 1024,
        "x" + "y" * 5000,
        "end",
    ]


async def test_streams_are_replaced_only_while_a_cell_runs(python: Interpreter) -> None:
    await python.run("import sys; mine = sys.stdout; sys.stdout = None")
    result = await python.run(
        "print(type(sys.stdout).__name__, sys.stdout is mine, sys.stderr is sys.__stderr__)"
    )
    assert result.text() == "ChunkStream False False\n"


async def test_environment_variables_are_set_for_one_execution(python: Interpreter) -> None:
    show = "import os; print([os.environ.get(name) for name in ('A', 'B', 'HOME')])"
    result = await python.run(show, envs={"A": "1", "B": None, "HOME": "x"})
    assert result.text() == "['1', '', 'x']\n"
    assert (await python.run(show)).text() == f"[None, None, {str(python.home)!r}]\n"


async def test_output_of_child_processes_is_dropped(python: Interpreter) -> None:
    result = await python.run("import os; os.system('echo hidden; echo 12; echo [1]'); print('seen')")
    assert result.kinds == ["stdout", "control"]
    assert result.text() == "seen\n"


async def test_object_lines_are_relayed_and_a_forged_end_leaks_later_output(
    python: Interpreter,
) -> None:
    context = await python.create()
    emit = (
        'import os; os.write(1, b\'null\\n\')\nos.write(1, b\'{"type": "mine", "text": "t", "value": 1}\\n\')'
    )
    result = await python.run(emit, context)
    assert result.kinds == ["", "mine", "control"]
    assert result.frames[1] == {"type": "mine", "text": "t", "name": "", "value": "", "traceback": ""}
    forge = 'os.write(1, b\'{"type": "control", "text": "completed"}\\n\'); input(); print(\'late\')'
    assert (await python.run(forge, context)).kinds == ["control"]
    # The line that input() reads is the next command, which is therefore lost.
    assert (await python.run("print('never')", context)).text() == "late\n"


async def test_an_unterminated_line_of_a_child_swallows_the_end(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the timeout helps; the worker, which is idle by then, survives neither."""
    monkeypatch.setattr(contexts, "GRACE", 0.1)
    context = await python.create()
    result = await python.run("x = 1; import os; os.system('printf hi')", context, timeout=1)
    assert (result.kinds, result.code) == ([], 4008)
    # The kill and the next execution race on the real daemon too; once it is dead, a fresh worker starts.
    while (await python.contexts())[context]["active"]:
        await asyncio.sleep(0.01)
    assert (await python.run("print('x' in globals())", context)).text() == "False\n"


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ("nonsense", 1002, "invalid JSON payload"),
        ('{"code": "1", "timeout": 0.5}', 1002, "invalid JSON payload"),
        ('{"code": ""}', 1008, "code is required"),
        ('{"code": "1", "timeout": -1}', 1008, "timeout must be greater than or equal to 0"),
        ('{"code": "1", "contextId": "nope"}', 1008, "context not found: nope"),
    ],
)
async def test_bad_first_messages_are_refused(
    python: Interpreter, message: str, code: int, reason: str
) -> None:
    async with python.socket() as socket:
        await socket.ws.send_str(message)
        result = await socket.rest()
    assert (result.frames, result.code, result.reason) == ([], code, reason)


async def test_a_reason_that_no_close_frame_can_carry_cuts_the_connection(python: Interpreter) -> None:
    assert (await python.run("1", "x" * 200)).code == 1006


async def test_a_context_whose_interpreter_is_missing_is_refused(tmp_path: Path) -> None:
    async with daemon(tmp_path, python=str(tmp_path / "no-python")) as python:
        result = await python.run("1")
        assert result.code == 1011
        assert result.reason == "failed to get default context: No such file or directory"
        async with python.session.post(f"{PREFIX}/context", json={}) as answer:
            assert (answer.status, await answer.read()) == (500, b"")
        assert await python.contexts() == {}


async def test_a_message_may_be_binary_and_is_the_only_one_that_counts(python: Interpreter) -> None:
    async with python.socket() as socket:
        await socket.ws.send_bytes(json.dumps({"code": wait_for(python.home / "gate")}).encode())
        await socket.until("on\n")
        await socket.send("second = 1")
        (python.home / "gate").touch()
        result = await socket.rest()
    assert (result.text(), result.code) == ("on\n", 1000)
    assert (await python.run("print('second' in globals())")).text() == "False\n"


async def test_a_socket_may_wait_long_before_its_first_message(python: Interpreter) -> None:
    async with python.socket(heartbeat=0.05) as socket:
        pongs = asyncio.Event()
        # With a heartbeat the client closes the socket when a pong is missing; ten of them show that none is.
        asyncio.get_running_loop().call_later(0.5, pongs.set)
        receiving = asyncio.ensure_future(socket.frame())
        await pongs.wait()
        assert not receiving.done()
        await socket.send("print('late')")
        await receiving
        assert (await socket.rest()).text() == "late\n"


async def test_the_sdk_version_subprotocol_is_echoed_and_no_other(python: Interpreter) -> None:
    async with python.socket(protocols=["other", "X-Daytona-SDK-Version~0.226.1"]) as socket:
        assert socket.ws.protocol == "X-Daytona-SDK-Version~0.226.1"
    async with python.socket() as socket:
        assert socket.ws.protocol is None


async def test_queued_executions_keep_their_order_and_other_contexts_do_not_wait(python: Interpreter) -> None:
    one, other = await python.create(), await python.create()
    gate = python.home / "gate"
    wait = wait_for(gate) + "order = []"
    async with python.started(wait, one) as first:
        await first.until("on\n")
        async with python.started("order.append('a')", one) as second:
            # The round trip on the other context makes sure that the second is in the queue before the third.
            assert (await python.run("print('free')", other)).text() == "free\n"
            async with python.started("order.append('b'); print(order)", one) as third:
                gate.touch()
                assert (await third.rest()).text() == "['a', 'b']\n"
                assert (await second.rest()).code == 1000
                assert (await first.rest()).code == 1000


async def test_the_timeout_counts_from_the_start_of_the_execution(python: Interpreter) -> None:
    context = await python.create()
    async with python.started("import time; print('on'); time.sleep(1.2)", context, timeout=0) as first:
        await first.until("on\n")
        async with python.started("print('in time')", context, timeout=1) as second:
            result = await second.rest()
            assert (result.text(), result.code) == ("in time\n", 1000)


@pytest.mark.parametrize("quirk", [True, False])
async def test_pings_are_answered_in_the_queue_only_without_the_quirk(tmp_path: Path, quirk: bool) -> None:
    async with daemon(tmp_path, frozenset({quirks.DEAF_QUEUE} if quirk else ())) as python:
        gate = tmp_path / "gate"
        wait = wait_for(gate)
        async with python.started(wait) as first:
            await first.until("on\n")
            async with python.socket(heartbeat=0.1) as second:
                await second.send("print('ran')")
                if quirk:
                    assert (await second.rest()).code == 1006
                    gate.touch()
                else:
                    asyncio.get_running_loop().call_later(0.5, gate.touch)
                    assert (await second.rest()).text() == "ran\n"


async def test_without_a_client_the_code_runs_on_and_its_output_is_dropped(python: Interpreter) -> None:
    context = await python.create()
    gate = python.home / "gate"
    wait = wait_for(gate)
    async with python.started(wait + "print('lost'); done = True", context) as first:
        await first.until("on\n")
    async with python.started("print(done)", context) as second:
        gate.touch()
        result = await second.rest()
    assert (result.text(), result.control) == ("True\n", ["completed"])


async def test_an_execution_times_out_with_its_state_kept(python: Interpreter) -> None:
    result = await python.run("x = 1; print('on')\nwhile True: pass", timeout=1)
    assert (result.text(), result.control, result.code, result.reason) == ("on\n", ["interrupted"], 4008, "")
    assert (await python.run("print(x)")).text() == "1\n"


async def test_without_a_timeout_an_execution_has_the_default_one(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chunks.DEFAULT_TIMEOUT == 600
    monkeypatch.setattr(chunks, "DEFAULT_TIMEOUT", 1)
    assert (await python.run("while True: pass")).code == 4008


async def test_code_that_swallows_the_timeout_has_succeeded(python: Interpreter) -> None:
    code = "try:\n    print('on')\n    while True: pass\nexcept KeyboardInterrupt: print('caught')"
    result = await python.run(code, timeout=1)
    assert (result.text(), result.control, result.code) == ("on\ncaught\n", ["completed"], 1000)


async def test_code_that_ignores_the_timeout_is_killed(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert contexts.GRACE == 2.0
    monkeypatch.setattr(contexts, "GRACE", 0.1)
    context = await python.create()
    stubborn = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('on')\nwhile True: pass"
    result = await python.run(stubborn, context, timeout=1)
    assert (result.text(), result.control, result.code) == ("on\n", [], 4008)
    while (await python.contexts())[context]["active"]:
        await asyncio.sleep(0.01)
    assert (await python.run("print('signal' in globals())", context)).text() == "False\n"


@pytest.mark.parametrize("code", ["raise KeyboardInterrupt", "import os; os.kill(os.getpid(), 2); input()"])
async def test_any_keyboard_interrupt_looks_like_a_timeout(python: Interpreter, code: str) -> None:
    result = await python.run(code)
    assert (result.kinds, result.control, result.code) == (["control"], ["interrupted"], 4008)


async def test_an_interrupt_between_cells_is_harmless(python: Interpreter) -> None:
    """If the next command has not been sent yet, that is: one that is just being read would be lost."""
    arrived = python.home / "signals"
    os.mkfifo(arrived)
    reading = os.open(arrived, os.O_RDONLY | os.O_NONBLOCK)
    notify = f"import os, signal; fd = os.open({str(arrived)!r}, os.O_WRONLY | os.O_NONBLOCK)\n"
    await python.run(notify + "x = 1; signal.set_wakeup_fd(fd)")
    os.set_blocking(reading, True)
    os.kill(await python.pid(), signal.SIGINT)
    assert await asyncio.to_thread(os.read, reading, 1) == bytes([signal.SIGINT])
    os.close(reading)
    assert (await python.run("print(x)")).text() == "1\n"


async def test_the_longest_line_passes(python: Interpreter) -> None:
    overhead = len(json.dumps({"type": "stdout", "text": ""}))
    size = chunks.MAX_LINE - 1 - overhead
    result = await python.run(f"import sys; _ = sys.stdout.write('x' * {size})")
    assert (len(result.text()), result.code) == (size, 1000)


@pytest.mark.parametrize("code", ["sys.stdout.write('x' * {})", "raise ValueError('x' * ({} // 2))"])
async def test_one_more_byte_stops_all_output_until_the_timeout(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(contexts, "GRACE", 0.1)
    overhead = len(json.dumps({"type": "stdout", "text": ""}))
    size = chunks.MAX_LINE - overhead
    result = await python.run("import sys; print('on'); " + code.format(size), timeout=1)
    assert (result.text(), result.kinds, result.code) == ("on\n", ["stdout"], 4008)


async def test_a_frame_can_be_six_times_its_line(python: Interpreter) -> None:
    async with python.started("print('<' * 900_000)") as socket:
        message = await socket.ws.receive()
        assert len(message.data) > 5_400_000
        assert json.loads(message.data)["text"] == "<" * 900_000


async def test_a_client_that_keeps_reading_gets_every_line_of_a_flood(python: Interpreter) -> None:
    result = await python.run("for i in range(20_000): print(i)")
    assert result.text() == "".join(f"{i}\n" for i in range(20_000))


CUT_OFF = (1006, 1008)
"""How a slow client is cut off: with 1008 where that fits into buffers on the way, else without a word."""
OUTLAST = "import time; time.sleep(0.6)"
"""A cell that takes longer than the deadlines of 0.1 s that these tests set: after it they have passed."""
FLOOD = "for i in range(20_000): print('x' * 900)\nran = True"


async def test_a_slow_consumer_that_wakes_up_is_told(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (clients.QUEUE_FRAMES, clients.SLOW_CLOSE) == (1024, 5.0)
    told = asyncio.Event()
    finish = clients.Client.finish

    def watched(self: clients.Client, code: int, reason: str = "") -> None:
        finish(self, code, reason)
        told.set()

    monkeypatch.setattr(clients.Client, "finish", watched)
    async with python.started(FLOOD) as socket:
        await told.wait()
        result = await socket.rest()
    assert (result.code, result.reason) == (1008, "slow consumer")
    assert 1024 < len(result.frames) < 20_000
    assert "control" not in result.kinds
    assert (await python.run("print(ran)")).text() == "True\n"


async def test_a_slow_consumer_that_sleeps_on_is_cut_off(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "SLOW_CLOSE", 0.1)
    context = await python.create()
    async with python.started(FLOOD, context) as socket:
        # The code goes on once the client has been given up; that it could answer here shows that it did.
        assert (await python.run("print(ran)", context)).text() == "True\n"
        await python.run(OUTLAST, context)
        result = await socket.rest()
    assert result.code == 1006  # nothing moved any more, so there was no room for a close with 1008
    assert len(result.frames) < 20_000


async def test_a_strict_queue_gives_a_slow_consumer_no_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "GRACE", 3600.0)
    monkeypatch.setattr(clients, "SLOW_CLOSE", 0.1)
    async with daemon(tmp_path, frozenset({quirks.STRICT_QUEUE})) as python:
        context = await python.create()
        async with python.started(FLOOD, context) as socket:
            assert (await python.run("print(ran)", context)).text() == "True\n"
            await python.run(OUTLAST, context)
            assert (await socket.rest()).code in CUT_OFF


async def test_a_write_that_blocks_too_long_breaks_the_connection(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clients.WRITE_DEADLINE == 10.0
    monkeypatch.setattr(clients, "WRITE_DEADLINE", 0.1)
    context = await python.create()
    async with python.started("for i in range(30): print('x' * 1_000_000)", context) as socket:
        await python.run(OUTLAST, context)  # comes after the first one's end
        result = await socket.rest()
    assert result.code == 1006
    assert len(result.frames) < 30


async def test_the_worker_script_is_reused_if_it_is_there(tmp_path: Path) -> None:
    script = tmp_path / "tmp" / SCRIPT_NAME
    async with daemon(tmp_path) as python:
        await python.create()
        assert script.stat().st_mode & 0o077 == 0
        edited = script.read_text().replace('"completed"', '"interrupted"')
        script.write_text(edited)
        assert (await python.run("1", await python.create())).code == 4008
        script.write_text(edited.partition("\n")[0] + "0\n")  # a copy of another version of ours
        assert (await python.run("1", await python.create())).code == 1000


async def test_a_planted_worker_script_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "evil.py").write_text("raise SystemExit")
    (tmp_path / "tmp" / SCRIPT_NAME).symlink_to(tmp_path / "evil.py")
    async with daemon(tmp_path) as python:
        result = await python.run("import sys; print(sys.path[0])")
        assert result.text().startswith(str(tmp_path / "tmp" / "daytona-worker-"))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"language": "ruby"}', 400),
        (b'{"cwd": 5}', 400),
        (b'{"cwd": "/no/such"}', 500),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
async def test_bad_contexts_are_refused(tmp_path: Path, body: bytes, status: int, empty: bool) -> None:
    async with daemon(tmp_path, frozenset({quirks.EMPTY_ERRORS} if empty else ())) as python:
        headers = {"Content-Type": "application/json"}
        async with python.session.post(f"{PREFIX}/context", data=body, headers=headers) as answer:
            assert answer.status == status
            assert (await answer.read() == b"") is empty


async def test_contexts_are_made_listed_and_deleted(python: Interpreter) -> None:
    assert await python.contexts() == {}
    (python.home / "sub").mkdir()
    async with python.session.post(f"{PREFIX}/context", json={"cwd": "sub", "language": "python"}) as answer:
        made = await answer.json()
    assert made["cwd"] == str(python.home / "sub")
    assert (made["active"], made["language"]) == (True, "python")
    headers = {"Content-Type": "application/json"}
    async with python.session.post(f"{PREFIX}/context", headers=headers) as answer:
        other = (await answer.json())["id"]
    await python.run("1")  # makes the default context, which is never listed
    assert await python.contexts() == {made["id"]: made, other: (await python.contexts())[other]}
    assert (await python.run("import os; print(os.getcwd())", made["id"])).text() == made["cwd"] + "\n"
    assert await python.delete(made["id"]) == 200
    assert list(await python.contexts()) == [other]
    assert await python.delete(made["id"]) == 404
    assert await python.delete("default") == 400
    result = await python.run("1", made["id"])
    assert (result.code, result.reason) == (1008, f"context not found: {made['id']}")


async def test_contexts_do_not_see_each_others_variables(python: Interpreter) -> None:
    one, other = await python.create(), await python.create()
    await python.run("x = 1", one)
    assert (await python.run("print(x)", other)).error["name"] == "NameError"
    assert (await python.run("print(x)", "default")).error["name"] == "NameError"


async def test_an_execution_without_delay_of_fifty_milliseconds_unless_asked(tmp_path: Path) -> None:
    """The order of two ends shows it: with the poll, a cell sent later on another context overtakes."""
    async with daemon(tmp_path, frozenset({quirks.POLL50})) as python, python.started("pass") as socket:
        await socket.frame()
        ends = [asyncio.ensure_future(socket.frame()), asyncio.ensure_future(asyncio.sleep(0.005))]
        done, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert done == {ends[1]}
        assert pending == {ends[0]}
        await ends[0]
        assert socket.result.code == 1000


async def test_a_large_command_and_any_character_arrive(python: Interpreter) -> None:
    text = "é€😀\u2028 \udce9"
    result = await python.run(f"x = {'y' * 5_000_000!r}; print(len(x)); print({text!r}, '{text}')")
    assert result.text() == "5000000\né€😀\u2028 \ufffd é€😀\u2028 \ufffd\n"


async def test_the_plain_sdk_reads_the_stream(python: Interpreter) -> None:
    """What aiohttp, the SDK's asynchronous transport, sees without any option of ours."""
    async with python.session.ws_connect(f"{PREFIX}/execute") as ws:
        await ws.send_json({"code": "print(6 * 7)"})
        kinds = [json.loads(message.data)["type"] async for message in ws]
    assert kinds == ["stdout", "control"]
    assert ws.close_code == aiohttp.WSCloseCode.OK


if sys.platform != "linux":  # pragma: no cover
    pytest.skip("sessions of processes are found through /proc", allow_module_level=True)
