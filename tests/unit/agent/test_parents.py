"""Whose output it is: what a task or thread writes names the request it works for."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import pytest

from daytona_kernel.agent.parents import Parents, message_id
from daytona_kernel.agent.streams import Capture, OutStream

from .conftest import Bench


def request(number: int) -> dict[str, Any]:
    """A request as the agent knows it."""
    return {"header": {"msg_id": f"m{number}"}, "content": {}}


def frames(bench: Bench, execution_id: str) -> list[tuple[str, str, str]]:
    """(parent, type, text) of the frames of an execution."""
    return [(f.parent, f.type, f.content.get("text", "")) for f in bench.frames(execution_id)]


def test_a_task_keeps_the_request_it_was_made_in_and_a_thread_follows(bench: Bench) -> None:
    out, first, second = bench.outbox, request(1), request(2)
    stream = OutStream(out, Capture(out), "stdout", 1)
    out.begin("e1")
    out.parents.begin(first)
    task = contextvars.copy_context()
    task.run(out.parents.set_here, first)
    task.run(stream.write, "in time\n")
    out.begin("e2")
    out.parents.begin(second)
    stream.write("a")
    task.run(stream.write, "late")
    task.run(out.post, "display_data", {"data": {}})
    thread = threading.Thread(target=stream.write, args=("b",))
    thread.start()
    thread.join()
    out.flush()
    assert frames(bench, "e1") == [("", "stream", "in time\n")]
    assert frames(bench, "e2") == [
        ("", "stream", "a"),
        ("m1", "stream", "late"),
        ("m1", "display_data", ""),
        ("", "stream", "b"),
    ]


def test_a_flush_passes_on_the_text_of_the_caller_only_as_far_as_it_is_its_own(bench: Bench) -> None:
    out = bench.outbox
    stream = OutStream(out, Capture(out), "stdout", 1)
    out.begin("e1")
    out.parents.begin(request(2))
    token = stream.set_thread_parent(request(1))
    stream.write("elsewhere")
    stream.flush()
    stream.reset_thread_parent(token)
    stream.write("here")
    stream.flush()
    assert frames(bench, "e1") == [("m1", "stream", "elsewhere"), ("", "stream", "here")]


def test_parents_of_threads_and_of_everybody() -> None:
    parents = Parents()
    seen = []

    def look() -> None:
        seen.append((message_id(parents.get()), parents.other_id()))

    def ask() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    parents.begin(request(1))
    ask()
    parents.set(request(7))  # for everybody, until the next request
    ask()
    parents.begin(request(2))
    ask()
    look()  # this thread has said what it works for
    assert seen == [("m1", ""), ("m7", "m7"), ("m2", ""), ("m7", "m7")]


@pytest.mark.parametrize("nonsense", [None, 5, "m1", {}, {"header": None}, {"header": {"msg_id": 5}}])
def test_a_parent_that_is_no_message_names_nothing(nonsense: Any) -> None:
    parents = Parents()
    parents.begin(request(1))
    parents.set_here(nonsense)
    assert message_id(nonsense) == ""
    assert parents.other_id() == ""
