"""The outbox: one order, few and bounded chunks, nothing lost, nobody kept waiting for ever."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daytona_kernel.agent import outbox as module
from daytona_kernel.agent.outbox import Outbox
from daytona_kernel.agent.streams import Capture, OutStream

from .conftest import Bench


def test_text_and_messages_keep_their_order_and_neighbours_are_joined(bench: Bench) -> None:
    out = bench.outbox
    out.begin("e1")
    for text in ("a", "b", "c\n"):
        out.buffer("stdout").write(text)
    out.post("display_data", {"data": {}})
    out.buffer("stdout").write("d")
    out.flush()
    assert bench.said("e1") == [("stdout", "abc\n"), ("display_data", "{'data': {}}"), ("stdout", "d")]


def test_a_million_writes_are_few_chunks(bench: Bench) -> None:
    out = bench.outbox
    out.begin("e1")
    for number in range(100_000):
        out.buffer("stdout").write(f"{number}\n")
    out.flush()
    assert "".join(text for _, text in bench.said("e1")) == "".join(f"{n}\n" for n in range(100_000))
    assert len(bench.chunks()) < 200


def test_no_chunk_comes_near_the_limit_of_the_interpreter(bench: Bench) -> None:
    bench.outbox.begin("e1")
    bench.outbox.buffer("stdout").write("<\u20ac\U0001f600>" * 200_000)
    bench.outbox.post("display_data", {"data": {"text/html": "&" * 3_000_000}})
    bench.outbox.flush()
    assert max(len(line) for line in bench.protocol.read_bytes().splitlines()) < 1_048_575
    assert (
        "".join(text for name, text in bench.said("e1") if name == "stdout") == "<\u20ac\U0001f600>" * 200_000
    )


def test_many_small_messages_at_once_are_not_one_large_chunk(bench: Bench) -> None:
    bench.outbox.begin("e1")
    with bench.outbox._lock:  # nothing goes out meanwhile
        for _ in range(8):
            bench.outbox.post("display_data", {"x": '"' * 60_000})  # a quote takes four bytes in the end
    bench.outbox.flush()
    assert len(bench.frames("e1")) == 8
    assert max(len(line) for line in bench.protocol.read_bytes().splitlines()) < 1_048_575


def test_text_goes_out_by_itself_after_a_moment(bench: Bench) -> None:
    bench.outbox.begin("e1")
    bench.outbox.buffer("stderr").write("slow")
    while not bench.protocol.stat().st_size:
        threading.Event().wait(0.01)
    assert bench.said("e1") == [("stderr", "slow")]


def test_what_no_json_can_be_made_of_is_cleaned(bench: Bench) -> None:
    bench.outbox.begin("e1")
    bench.outbox.post("display_data", {"data": {"x": {1, 2}, "y": float("nan")}})
    bench.outbox.flush()
    (frame,) = bench.frames("e1")
    assert frame.content["data"] == {"x": [1, 2], "y": "nan"}


def test_output_between_executions_is_recorded_under_the_last_cell_and_sent_with_the_next(
    bench: Bench,
) -> None:
    out = bench.outbox
    out.begin("e1")
    out.buffer("stdout").write("in time")
    out.flush()
    out.end()
    have = bench.lines()[-1].number + 1
    out.buffer("stdout").write("late")
    out.flush()
    assert bench.said("e1") == [("stdout", "in time")]
    assert b"late" in bench.recorded()
    out.begin("e2", late_from=have)
    out.buffer("stdout").write("new")
    out.flush()
    assert bench.said("e1") == [("stdout", "in time"), ("stdout", "late")]
    assert bench.said("e2") == [("stdout", "new")]


def test_late_output_that_the_kernel_has_already_is_not_sent_again(bench: Bench) -> None:
    out = bench.outbox
    out.begin("e1")
    out.end()
    out.buffer("stdout").write("late")
    out.flush()
    out.begin("e2", late_from=1)
    out.flush()
    assert bench.said("e1") == []


def test_lines_are_sent_again_on_demand(bench: Bench) -> None:
    out = bench.outbox
    out.begin("e1")
    for number in range(3):
        out.post("display_data", {"n": number})
    out.flush()
    out.end()
    before = len(bench.lines())
    out.resend(1)
    assert [line.number for line in bench.lines()[before:]] == [1, 2]


def test_late_output_is_sent_again_with_what_it_came_before(bench: Bench) -> None:
    """It went out on the next cell's socket, which was lost: it is still there until the cell after."""
    out = bench.outbox
    out.begin("e1")
    out.flush()
    out.end()
    out.buffer("stdout").write("late")
    out.flush()
    out.begin("e2", late_from=0)
    out.post("display_data", {"n": 1})
    out.flush()
    before = len(bench.lines())
    out.resend(0, 0)
    assert [(line.execution_id, line.number) for line in bench.lines()[before:]] == [("e1", 0), ("e2", 0)]
    assert b"late" in bench.recorded()
    out.begin("e3")
    assert b"late" not in bench.recorded()


def test_a_question_that_is_sent_again_brings_the_late_output_of_its_cell(bench: Bench) -> None:
    out = bench.outbox
    out.begin("e1")
    out.flush()
    out.end()
    out.buffer("stdout").write("late")
    out.flush()
    out.begin("q1", cell=False, late_from=0)
    out.post("reply", {})
    out.flush()
    out.end()
    before = len(bench.lines())
    out.resend(0, 0)
    assert [(line.execution_id, line.number) for line in bench.lines()[before:]] == [("e1", 0), ("q1", 0)]


def test_before_the_first_execution_only_the_newest_output_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_CHARS", 100)
    for number in range(50):
        bench.outbox.buffer("stdout").write(f"{number:02}" + "x" * 18)
        bench.outbox.flush()
    bench.outbox.begin("e1")
    bench.outbox.flush()
    text = "".join(text for _, text in bench.said("e1"))
    assert text.endswith("49" + "x" * 18)
    assert len(text) <= 100


def test_a_full_window_waits_for_the_kernel_and_its_acknowledgement_opens_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW_CHUNKS", 4)
    out = bench.outbox
    out.begin("e1")

    def produce() -> None:
        for number in range(8):
            out.post("display_data", {"n": number})
            out.flush()

    producer = threading.Thread(target=produce)
    producer.start()
    while len(bench.chunks()) < 4:
        threading.Event().wait(0.01)
    producer.join(0.2)
    assert producer.is_alive()
    assert len(bench.chunks()) == 4
    ack = Path(bench.directory.path) / "ack"
    while producer.is_alive():
        ack.write_text(f"e1 {bench.lines()[-1].number + 1} \n")
        producer.join(0.02)
    assert [frame.content["n"] for frame in bench.frames("e1")] == list(range(8))


def test_a_kernel_that_is_gone_does_not_hold_the_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW_CHUNKS", 2)
    monkeypatch.setattr(module, "ACK_PATIENCE_S", 0.05)
    out = bench.outbox
    out.begin("e1")
    for number in range(20):
        out.post("display_data", {"n": number})
        out.flush()
    assert bench.recorded().count(b'"n":') >= 20


def test_many_threads_at_once_lose_nothing(bench: Bench) -> None:
    out = bench.outbox
    out.begin("e1")

    def produce(name: int) -> None:
        for number in range(500):
            out.buffer("stdout").write(f"{name}.{number}\n")
            if number % 50 == 0:
                out.post("display_data", {"who": name})

    threads = [threading.Thread(target=produce, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.flush()
    text = "".join(text for name, text in bench.said("e1") if name == "stdout")
    for name in range(4):
        mine = [line for line in text.splitlines() if line.startswith(f"{name}.")]
        assert mine == [f"{name}.{number}" for number in range(500)]
    assert sum(frame.type == "display_data" for frame in bench.frames("e1")) == 40


def test_lines_of_the_worker_never_land_in_the_middle_of_one_of_ours(bench: Bench) -> None:
    out = bench.outbox
    out.begin("e1")
    stop = threading.Event()

    def worker() -> None:
        while not stop.is_set():
            out.write_protocol(b'{"type":"control","text":""}\n')

    thread = threading.Thread(target=worker)
    thread.start()
    for _ in range(200):
        out.post("display_data", {"x": "y" * 5000})
    out.flush()
    stop.set()
    thread.join()
    assert {chunk["type"] for chunk in bench.chunks()} == {"stdout", "control"}


def test_a_protocol_stream_that_is_gone_is_reported(bench: Bench) -> None:
    broken: list[OSError] = []
    read_end, write_end = os.pipe()
    os.close(read_end)
    out = Outbox(write_end, bench.interrupts, bench.directory)
    out.on_broken = broken.append
    out.begin("e1")
    out.buffer("stdout").write("x")
    with pytest.raises(BrokenPipeError):
        out.flush()
    assert broken
    os.close(write_end)


def test_a_forked_child_writes_nothing_to_the_protocol(bench: Bench) -> None:
    bench.outbox.begin("e1")
    bench.outbox._pid = -1  # as in a child, whose process is another
    bench.outbox.buffer("stdout").write("from the child")
    bench.outbox.flush()
    assert bench.chunks() == []


def test_a_forked_child_does_not_wait_for_what_nobody_takes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large display in a worker of a pool would hold the pool for ever."""
    monkeypatch.setattr(module, "FULL_CHARS", 10)
    bench.outbox.begin("e1")
    bench.outbox._pid = -1  # as in a child, where the flusher is not
    with bench.outbox._lock:
        shown = threading.Thread(target=lambda: bench.outbox.post("display_data", {}), daemon=True)
        shown.start()
        shown.join(10)
        assert not shown.is_alive()


actions = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=20)),
        st.tuples(st.just("post"), st.text(max_size=20)),
        st.tuples(st.just("flush"), st.just("")),
    ),
    max_size=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(actions, st.integers(0, 400))
def test_whatever_is_written_arrives_in_order(
    bench: Bench, written: list[tuple[str, str]], limit: int
) -> None:
    """Text of one stream in its order, and each message after all text that came before it."""
    out = bench.outbox
    execution_id = os.urandom(8).hex()
    out.compress_over_chars = limit
    out.begin(execution_id)
    for kind, text in written:
        if kind == "post":
            out.post("display_data", {"data": {"t": text}})
        elif kind == "flush":
            out.flush()
        else:
            out.buffer(kind).write(text)
    out.flush()
    out.end()
    seen = {"stdout": "", "stderr": ""}
    messages = []
    for frame in bench.frames(execution_id):
        if frame.type == "stream":
            seen[frame.content["name"]] += frame.content["text"]
        else:
            messages.append((dict(seen), frame.content["data"]["t"]))
    assert messages == _with_positions(written)
    assert seen == {name: "".join(t for kind, t in written if kind == name) for name in ("stdout", "stderr")}


def _with_positions(written: list[tuple[str, str]]) -> list[tuple[dict[str, str], str]]:
    """Each posted message with the text of both streams that came before it."""
    seen, messages = {"stdout": "", "stderr": ""}, []
    for kind, text in written:
        if kind == "post":
            messages.append((dict(seen), text))
        elif kind in seen:
            seen[kind] += text
    return messages


OURS = ("outbox.py", "interrupts.py", "streams.py", "threading.py")


def _interrupted_at(step: int, bench: Bench, produce: Callable[[], None]) -> bool:
    """Run ``produce`` with a signal before instruction number ``step`` of our code; whether it came to it."""
    left = step

    def before_instruction(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(
            ("outbox.py", "interrupts.py", "streams.py", "threading.py")
        ):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                bench.interrupts._on_signal(signal.SIGINT, frame)
        return before_instruction

    before = sys.gettrace()
    with suppress(KeyboardInterrupt), bench.interrupts.raising():
        sys.settrace(before_instruction)
        produce()
    sys.settrace(before)
    return left < 0


@pytest.mark.parametrize("how", ["a first line", "a full buffer", "a flush", "a display"])
def test_a_signal_at_any_instruction_leaves_the_outbox_at_work(
    bench: Bench, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event whose ``set()`` is cut off keeps its inner lock: then nobody writes anything, for ever."""
    monkeypatch.setattr(module, "FLUSH_CHARS", 100)
    out = bench.outbox
    stream = OutStream(out, Capture(out), "stdout", 1)
    produce: dict[str, Callable[[], object]] = {
        "a first line": lambda: stream.write("line\n"),
        "a full buffer": lambda: stream.write("x" * 100),
        "a flush": lambda: (stream.write("line\n"), stream.flush()),
        "a display": lambda: out.post("display_data", {}),
    }
    step = 0
    while True:
        out.begin(f"e{step}")
        met = _interrupted_at(step, bench, lambda: (produce[how](), None)[1])
        after = threading.Thread(target=lambda: (stream.write("after\n"), stream.flush()), daemon=True)
        after.start()
        after.join(10)
        assert not after.is_alive(), f"nothing goes out after a signal before instruction {step}"
        out.flush()
        assert bench.said(f"e{step}")[-1][1].endswith("after\n")
        out.end()
        if not met:
            break
        os.truncate(out._protocol_fd, 0)
        os.lseek(out._protocol_fd, 0, os.SEEK_SET)
        step += 1
    assert step > 30
