"""A hostile agent: whatever comes out of the sandbox becomes output of its own cell, text, or nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import resource
import sys
import threading
import tracemalloc
from base64 import b64encode
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daytona_kernel import questions, wire
from daytona_kernel import session as session_module
from daytona_kernel.context import checked_info
from daytona_kernel.kernelstate import FAILED
from daytona_kernel.messages import well_formed_answer, well_formed_reply

from .hostile import ID, Victim, line, packed, victim

OUTPUT = {
    *("stream", "display_data", "update_display_data", "execute_result", "error", "clear_output"),
    *("comm_open", "comm_msg", "comm_close"),
}
MIB = 2**20


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


FORGED = {
    "a status": line(0, "status", {"execution_state": "idle"}),
    "a reply": line(0, "execute_reply", {"status": "ok"}),
    "an input": line(0, "execute_input", {"code": "%daytona upload /etc/passwd", "execution_count": 1}),
    "a shutdown": line(0, "shutdown_reply", {"restart": False}),
    "a debugger's event": line(0, "debug_event", {"event": "stopped"}),
    "an unknown type": line(0, "run_on_host", {"code": "1"}),
    "a type that is no text": f'{wire.RS}{{"x":"{ID}","n":0,"t":7,"c":{{}}}}\n',
    "a stream of another name": line(0, "stream", {"name": "stdlog", "text": "x"}),
    "a count that is none": line(0, "execute_result", {"data": {}, "execution_count": -1}),
    "a count beyond all cells": line(0, "execute_result", {"data": {}, "execution_count": 10**300}),
    "a display that is a list": line(0, "display_data", {"data": [1]}),
    "a comm without an id": line(0, "comm_open", {"target_name": "x"}),
    "nothing that unpacks": f'{wire.RS}{{"x":"{ID}","n":0,"p":[0,1],"d":"AAAA"}}\n',
    "a part of too many": f'{wire.RS}{{"x":"{ID}","n":0,"p":[0,99999999999],"d":"A"}}\n',
    "a buffer that is no base64": line(0, "display_data", {"data": {}}, b=["AAAAA"]),
    "invalid JSON": f'{wire.RS}{{"x":"{ID}","n":0,"t":\n',
    "a number too long to read": f'{wire.RS}{{"x":"{ID}","n":{"9" * 5000},"t":"stream","c":{{}}}}\n',
    "a negative number": line(-1, "stream", {"name": "stdout", "text": "x"}),
    "depth": f'{wire.RS}{{"x":"{ID}","n":0,"t":"display_data","c":{{"data":{"[" * 9**5}\n',
}


@pytest.mark.parametrize("forged", FORGED)
async def test_what_is_no_output_of_a_cell_is_text_or_nothing(forged: str) -> None:
    async with victim() as one:
        one.feed(FORGED[forged])
        one.reader.finish()
        assert all(
            kind == "stream" and content["name"] in ("stdout", "stderr") for kind, content in one.messages()
        )
        one.feed(line(1, "stream", {"name": "stdout", "text": "the next"}))
        assert ("stream", {"name": "stdout", "text": "the next"}) in one.messages()


STRANGE = {
    "numbers that JSON does not have": {"data": {"a": float("nan"), "b": [float("inf"), float("-inf")]}},
    "lone surrogates": {"data": {"\ud800": "\udfff"}, "metadata": {"\ud800": {"\udc00": "\ud800"}}},
    "as deep as allowed": {"data": {"application/json": deep(wire.MAX_DEPTH - 2)}},
    "large numbers": {"data": {"application/json": 10**4000}},
}


@pytest.mark.parametrize("strange", STRANGE)
async def test_strange_values_are_published_as_valid_messages(strange: str) -> None:
    """Warnings are errors here, and Jupyter warns of a message that is no JSON."""
    content = STRANGE[strange]
    async with victim() as one:
        one.feed(line(0, "display_data", content, m=content.get("metadata", {"n": float("nan")})))
        ((kind, _),) = one.messages()
        assert kind == "display_data"


@pytest.mark.parametrize("levels", [wire.MAX_DEPTH + 1, 400, 700, 950])
async def test_nesting_that_no_walk_survives_is_not_passed_on(levels: int) -> None:
    """Each place that walks through a message would raise RecursionError, the front end's included."""
    async with victim() as one:
        nested = "[" * levels + "]" * levels
        for number, content in enumerate(('{"data":{"a":%s}}', '{"data":{},"metadata":%s}')):
            one.feed(line(number, "display_data", {}).replace("{}", content % nested))
        assert {kind for kind, _ in one.messages()} <= {"stream"}


async def test_lines_of_other_executions_are_not_taken() -> None:
    async with victim() as one:
        other = line(0, "stream", {"name": "stdout", "text": "as another cell"}).replace(ID, "e2")
        one.feed(other)
        one.feed(line(0, "display_data", {"data": {}}, h="a request of another kernel"))
        # `messages` looks at each message's parent: it is this cell's, whatever the frame says
        assert [kind for kind, _ in one.messages()] == ["display_data"]


async def test_nothing_comes_after_the_end_of_the_cell_but_its_own_output() -> None:
    async with victim() as one:
        one.feed(
            line(0, "done", {"reply": {"status": "ok"}}) + line(1, "done", {"reply": {"status": "error"}})
        )
        assert one.execution.done.is_set()
        one.feed(line(2, "status", {"execution_state": "busy"}))
        assert one.messages() == []


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2**32))
async def test_any_bytes_at_all_leave_the_kernel_as_it_was(data: bytes, seed: int) -> None:
    """Half of it in the places of good frames, so that it gets further than the first check."""
    rough = random.Random(seed)
    good = line(0, "display_data", {"data": {"text/plain": "x"}, "metadata": {}, "transient": {}})
    text = data.decode("latin-1")
    place = rough.randrange(len(good))
    async with victim() as one:
        for piece in (text, good[:place] + text + good[place:], wire.RS + text + "\n"):
            one.feed(piece)
        one.reader.feed(data)
        one.reader.finish()
        assert {kind for kind, _ in one.messages()} <= OUTPUT


# -- memory --------------------------------------------------------------------------------------------


def peak_of(text: str, one: Victim) -> float:
    """The most memory that was held while this was taken, in MiB."""
    tracemalloc.start()
    try:
        one.feed(text)
        peak = tracemalloc.get_traced_memory()[1] / MIB
        print(f"at most {peak:.1f} MiB")
        return peak
    finally:
        tracemalloc.stop()


async def test_a_bomb_of_zeros_is_defused_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 4 * MIB)
    bomb = packed(b'{"t":"stream","c":{"name":"stdout","text":"' + b"0" * (64 * MIB) + b'"}}')
    assert len(bomb) < MIB
    async with victim() as one:
        assert peak_of(bomb, one) < 20
        ((kind, content),) = one.messages()
        assert (kind, content["name"]) == ("stream", "stderr")
        assert "an output was left out" in content["text"]


async def test_a_bomb_of_empty_lists_is_defused(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 bytes of JSON are 64 bytes of Python objects: 1.5 MB would take 33 MB."""
    monkeypatch.setattr(wire, "MAX_VALUES", MIB // 4)
    monkeypatch.setattr(wire, "COUNTED_OVER_BYTES", MIB)
    bomb = packed(b'{"t":"display_data","c":{"data":{"a":[' + b"[]," * (MIB // 2) + b"[]]}}}")
    assert len(bomb) < MIB
    async with victim() as one:
        assert peak_of(bomb, one) < 15
        assert [kind for kind, _ in one.messages()] == ["stream"]


def test_commas_in_texts_and_tables_of_numbers_are_no_bomb() -> None:
    text = json.dumps(
        {"t": "display_data", "c": {"data": {"text/csv": "1,[{" * (3 * MIB) + '\\",'}}}
    ).encode()
    assert text.count(b",") + text.count(b"[") + text.count(b"{") > wire.MAX_VALUES
    assert not wire.is_heavy(text)
    assert not wire.is_heavy(b'{"z":[' + b"1.25," * (2 * MIB) + b"1]}")
    assert wire.is_heavy(b'{"z":[' + b"{}," * (9 * MIB) + b"1]}")


async def test_parts_without_content_do_not_pile_up() -> None:
    async with victim() as one:
        for number in range(100):
            one.feed(f'{wire.RS}{{"x":"{ID}","n":{number},"p":[{number},1000],"d":""}}\n')
        assert one.execution.receiver._parts == []


async def test_a_line_without_end_is_given_up() -> None:
    async with victim() as one:
        piece = "a" * MIB
        one.feed(wire.RS)
        for _ in range(12):
            one.feed(piece)
            assert one.reader._splitter._open_chars <= wire.MAX_OPEN_LINE_CHARS + MIB
        one.reader.finish()
        shown = "".join(content["text"] for _, content in one.messages())
        assert len(shown) == 12 * MIB + 1


async def test_the_process_s_memory_does_not_grow_with_what_is_refused() -> None:
    """Resident memory, so that what C code takes counts, too."""
    bombs = [
        packed(b"[" * (32 * MIB), n) + line(n + 1, "nonsense", {"a": "b" * 10000}) for n in range(0, 12, 2)
    ]
    async with victim() as one:
        one.feed(bombs[0])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for bomb in bombs[1:]:
            one.feed(bomb)
            one.messages()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert grown < 100


# -- floods --------------------------------------------------------------------------------------------


async def test_a_flood_of_questions_asks_a_person_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "MOST_QUESTIONS", 5)
    asked: list[str] = []
    entered, answered = threading.Event(), threading.Event()

    def ask(prompt: str, password: bool, cancelled: threading.Event) -> str | None:
        asked.append(prompt)
        entered.set()
        answered.wait(30)
        return None

    async with victim() as one:
        monkeypatch.setattr(one.sink, "ask", ask)
        one.session._link = object()  # type: ignore[assignment]
        for number in range(500):
            one.feed(
                line(
                    number,
                    "input_request",
                    {"prompt": "p" * (2 * MIB) if not number else "p", "request_id": "a1"},
                )
            )
        await one.settle()
        assert one.session._questions.waiting == 5
        assert len(one.session._background) == 5
        while not entered.is_set():
            await one.settle()
        assert [len(prompt) for prompt in asked] == [questions.PROMPT_CHARS]
        one.running.input_cancelled.set()
        answered.set()
        while one.session._background:
            await one.settle()
        assert (len(asked), one.session._questions.waiting) == (1, 0)
        one.session._link = None


@pytest.mark.parametrize("request_id", ["../../x", "a/b", "", "a b", 7, None, "a\x00"])
async def test_an_answer_goes_only_to_the_file_of_its_question(
    request_id: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    async with victim() as one:
        monkeypatch.setattr(one.sink, "ask", lambda prompt, *_: asked.append(prompt))
        one.session._link = object()  # type: ignore[assignment]
        one.feed(line(0, "input_request", {"prompt": "p", "request_id": request_id}))
        await asyncio.gather(*one.session._background)
        assert asked == []
        one.session._link = None


async def test_a_flood_of_nonsense_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with victim() as one:
        with caplog.at_level(logging.DEBUG, "daytona_kernel"):
            for number in range(1000):
                one.feed(line(number, "\x1b]0;title\x07" + "x" * 5000, {}))
        assert len(caplog.records) <= session_module.REPORTED
        text = caplog.text
        assert len(text) < 5000
        assert not set(text) & {"\x1b", "\x07"}


async def test_a_forged_invitation_leaves_nobody_waiting() -> None:
    """`aside` says that the cell takes comm messages; a second one must not orphan the first."""
    async with victim() as one:
        one.feed(line(0, "aside", {}))
        first = one.running.aside
        assert first is not None
        waiting = one.session._loop.create_future()
        first._waiting[0] = waiting
        for number in range(1, 50):
            one.feed(line(number, "aside", {}))
        assert waiting.result() is False
        one.feed(line(50, "aside_done", {"number": "0"}) + line(51, "aside_done", {"number": [1]}))


COUNTS = [-5, True, 2**40, 10**30, "7", 1.5, [1]]


@pytest.mark.parametrize("count", COUNTS)
async def test_a_forged_count_is_not_the_next_cell_s_number(count: Any) -> None:
    """Front ends write it into the notebook, which is no valid file with such a number."""
    async with victim() as one:
        one.session.execution_count = 4
        one.session._finish({"reply": {"status": "ok"}, "state": {"execution_count": count}}, one.running)
        assert one.session.execution_count == 4
        one.session._finish({"reply": {"status": "ok"}, "state": {"execution_count": 6}}, one.running)
        assert one.session.execution_count == 6


async def test_what_keeps_a_cell_from_beginning_can_be_interrupted() -> None:
    """Code that sits in the agent's place hears of it the second time."""
    async with victim() as one:
        session, sent = one.session, []

        class Box:
            async def shell(self, script: str, timeout_s: int) -> tuple[int, str]:
                sent.append(script)
                return 0, ""

        link: Any = SimpleNamespace(context_id="c")
        box: Any = Box()
        session._running, session._link, session._toolbox, session.info = one.running, link, box, {"pid": 7}
        one.running.execution = one.execution
        for _ in range(3):  # this process is not ours to interrupt
            await session._interrupt()
        assert sent == []
        session._own.add("c")
        await session._interrupt()
        assert sent == ["kill -s INT 7"]
        session._link = None


def test_what_an_agent_says_of_itself_can_be_told() -> None:
    """A kernel whose ``kernel_info_reply`` can not be sent is dead to its front ends."""
    lie = "\ud800\x1b]0;title\x07" * 10_000
    info = checked_info({"python": lie, "banner": lie, "shell_version": [1], "pid": "7"})
    for name in ("python", "banner", "shell_version"):
        json.dumps(info[name], ensure_ascii=False).encode()
        assert "\x1b" not in info[name]
        assert len(info[name]) < 10_000
    assert checked_info({"python": "3.12.1", "banner": "a\nb"})["banner"] == "a\nb"


async def test_messages_hold_nothing_that_programs_running_notebooks_fail_over() -> None:
    async with victim() as one:
        data = {"text/plain": "x"}
        one.feed(line(0, "display_data", {"data": data, "transient": {"display_id": {"a": 1}, "b": 2}}))
        one.feed(line(1, "display_data", {"data": data, "transient": {"display_id": "mine"}}))
        one.feed(line(2, "comm_msg", {"comm_id": "c", "data": {}, "execution_count": "x", "status": "idle"}))
        contents = [content for _, content in one.messages()]
        assert [content.get("transient") for content in contents[:2]] == [{"b": 2}, {"display_id": "mine"}]
        assert contents[2] == {"comm_id": "c", "data": {}}


async def test_comms_reach_the_front_end_and_nothing_here() -> None:
    async with victim() as one:
        modules = set(sys.modules)
        for number in range(200):
            content = {
                "comm_id": f"c{number}",
                "target_name": "t",
                "target_module": "antigravity",
                "data": {},
            }
            one.feed(line(number, "comm_open", content))
        assert len(one.messages()) == 200
        assert set(sys.modules) == modules


# -- replies -------------------------------------------------------------------------------------------

REPLIES: list[dict[str, Any]] = [
    {},
    {"status": {"a": 1}},
    {"status": "ok", "payload": 7, "user_expressions": [1], "execution_count": "x"},
    {"status": "ok", "payload": [7, None, {"source": ["page"]}, {"source": {}}], "execution_count": True},
    {"status": "error", "traceback": 5, "ename": {"a": 1}, "evalue": None, "execution_count": -3},
    {"status": "error", "ename": "SandboxGone", FAILED: "SandboxGone", "engine_info": {"engine_uuid": "x"}},
    {"status": "aborted", "traceback": [None, {"a": "\ud800"}], "execution_count": 2**70},
]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_forged_reply_is_a_valid_reply(reply: dict[str, Any]) -> None:
    clean = well_formed_reply(reply, 4)
    assert set(clean) <= {
        "status",
        "ename",
        "evalue",
        "traceback",
        "execution_count",
        "user_expressions",
        "payload",
    }
    assert clean["status"] in ("ok", "error")
    assert clean["execution_count"] == 4
    assert isinstance(clean["user_expressions"], dict)
    assert clean["payload"] == []
    if clean["status"] == "error":
        assert isinstance(clean["ename"], str)
        assert all(isinstance(item, str) for item in clean["traceback"])
    json.dumps(clean).encode()


def test_payloads_open_no_file_and_come_once_each() -> None:
    spam = [{"source": "set_next_input", "text": f"{n}", "replace": False} for n in range(1000)]
    others = [{"source": "edit_magic", "filename": "/etc/passwd"}, {"source": "run_on_host"}, {"text": "x"}]
    clean = well_formed_reply({"status": "ok", "payload": [*spam, *others]}, 1)
    assert clean["payload"] == [spam[-1]]


ANSWERS: list[tuple[str, dict[str, Any]]] = [
    ("complete", {"status": "ok", "matches": "abc", "cursor_start": 0, "cursor_end": 1}),
    ("complete", {"status": "ok", "matches": ["a"], "cursor_start": "0", "cursor_end": 1}),
    ("complete", {"status": "ok"}),
    ("inspect", {"status": "ok", "found": True, "data": "<script>"}),
    ("history", {"status": "ok", "history": {"a": 1}}),
    ("is_complete", {"status": 5}),
    ("comm_info", {"status": "ok", "comms": None}),
]


@pytest.mark.parametrize(("kind", "answer"), ANSWERS)
def test_a_forged_answer_to_a_question_is_not_passed_on(kind: str, answer: dict[str, Any]) -> None:
    assert well_formed_answer(kind, answer) is None


def test_a_frame_s_buffers_come_as_bytes() -> None:
    """The way of a good frame, so that the tests above fail for the reason they name."""
    receiver = wire.Receiver(ID)
    splitter = wire.Splitter()
    text = line(0, "display_data", {"data": {}}, b=[b64encode(b"\x00\xff").decode()])
    (item,) = splitter.feed(text)
    assert isinstance(item, wire.Line)
    frame = receiver.feed(item)
    assert frame is not None
    assert frame.buffers == (b"\x00\xff",)
