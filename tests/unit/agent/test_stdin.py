"""The command pipe is the worker's alone, and ``input()`` waits for a whole answer."""

from __future__ import annotations

import asyncio
import builtins
import getpass
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daytona_kernel.agent.stdin import CommandStdin, InputBridge, StdinNotImplementedError

from .conftest import Bench


class Pipe:
    """A command pipe and the agent's end of it."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        self.loop = asyncio.new_event_loop()
        self.worker = True
        self.stdin = CommandStdin(self.read_end, self.loop, lambda: self.worker)

    def send(self, data: bytes) -> None:
        os.write(self.write_end, data)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.loop.close()
    os.close(made.read_end)
    os.close(made.write_end)


def test_the_worker_gets_its_commands_one_by_one(pipe: Pipe) -> None:
    pipe.send('{"a":"\u20ac"}\n{"b":2}\n'.encode())
    assert pipe.stdin.readline() == '{"a":"\u20ac"}\n'
    assert next(pipe.stdin) == '{"b":2}\n'


def test_a_command_that_comes_in_pieces_is_waited_for(pipe: Pipe) -> None:
    threading.Timer(0.02, pipe.send, [b'","end":1}\n']).start()
    pipe.send(b'{"code":"x')
    assert pipe.stdin.readline() == '{"code":"x","end":1}\n'


def test_anybody_else_finds_the_end_and_takes_nothing(pipe: Pipe) -> None:
    pipe.send(b"command\n")
    pipe.worker = False
    assert pipe.stdin.readline() == ""
    assert pipe.stdin.read() == ""
    assert list(pipe.stdin) == []
    pipe.worker = True
    assert pipe.stdin.readline() == "command\n"


def test_background_tasks_go_on_while_the_worker_waits(pipe: Pipe) -> None:
    async def task() -> None:
        await asyncio.sleep(0)
        pipe.send(b"sent by the task\n")

    background = pipe.loop.create_task(task())
    assert pipe.stdin.readline() == "sent by the task\n"
    assert background.done()


def test_a_loop_that_user_code_closed_does_not_stop_the_worker(pipe: Pipe) -> None:
    pipe.loop.close()
    pipe.send(b"command\n")
    assert pipe.stdin.readline() == "command\n"


def test_the_end_of_the_pipe_is_the_end(pipe: Pipe) -> None:
    os.close(pipe.write_end)
    assert pipe.stdin.readline() == ""
    pipe.write_end = os.dup(pipe.read_end)  # for the fixture to close


@pytest.fixture
def bridge(bench: Bench, tmp_path: Path) -> Iterator[InputBridge]:
    bench.outbox.begin("e1")
    made = InputBridge(bench.outbox, str(tmp_path))
    yield made
    made.remove()


def answer_with(bench: Bench, directory: Path, *contents: str) -> threading.Thread:
    """Answer the next question with these contents of its file, one after another; the last one is whole."""

    def answer() -> None:
        while not (asked := [f for f in bench.frames("e1") if f.type == "input_request"]):
            threading.Event().wait(0.01)
        path = directory / f"input-{asked[-1].content['request_id']}"
        for content in contents:
            path.write_text(content, "utf-8")
            threading.Event().wait(0.03)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_a_question_is_posted_and_its_answer_read(bench: Bench, bridge: InputBridge, tmp_path: Path) -> None:
    bridge.install(True)
    thread = answer_with(bench, tmp_path, json.dumps({"value": "J\u00f6rg"}) + "\n")
    assert builtins.input("name? ") == "J\u00f6rg"
    thread.join()
    (asked,) = [frame for frame in bench.frames("e1") if frame.type == "input_request"]
    assert (asked.content["prompt"], asked.content["password"]) == ("name? ", False)


def test_half_an_answer_is_not_taken_for_one(bench: Bench, bridge: InputBridge, tmp_path: Path) -> None:
    bridge.install(True)
    thread = answer_with(bench, tmp_path, "", '{"value": "ab', "[1]\n", '{"value": "abc"}\n')
    assert bridge.raw_input() == "abc"
    thread.join()


def test_a_password_is_asked_for_as_one(bench: Bench, bridge: InputBridge, tmp_path: Path) -> None:
    bridge.install(True)
    thread = answer_with(bench, tmp_path, '{"value": "s"}\n')
    assert getpass.getpass("secret? ") == "s"
    thread.join()
    assert bench.frames("e1")[-1].content["password"] is True


def test_parameters_that_have_no_effect_are_warned_of(
    bench: Bench, bridge: InputBridge, tmp_path: Path
) -> None:
    bridge.install(True)
    thread = answer_with(bench, tmp_path, '{"value": ""}\n')
    stream: Any = object()
    with pytest.warns(UserWarning, match="stream"):
        bridge.getpass("x", stream=stream)
    thread.join()


def test_the_end_of_input_is_an_eof_error(bench: Bench, bridge: InputBridge, tmp_path: Path) -> None:
    bridge.install(True)
    thread = answer_with(bench, tmp_path, '{"value": "\\u0004"}\n')
    with pytest.raises(EOFError):
        bridge.raw_input()
    thread.join()


def test_without_permission_nobody_is_asked(bench: Bench, bridge: InputBridge) -> None:
    bridge.install(False)
    with pytest.raises(StdinNotImplementedError):
        builtins.input()
    with pytest.raises(StdinNotImplementedError):
        getpass.getpass()
    bench.outbox.flush()
    assert bench.frames("e1") == []


def test_after_the_cell_everything_is_as_it_was(bridge: InputBridge) -> None:
    before = builtins.input, getpass.getpass
    bridge.install(True)
    assert builtins.input is not before[0]
    bridge.remove()
    assert (builtins.input, getpass.getpass) == before
