"""Where a request's output leaves the kernel: the words for a person who waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from daytona_kernel.sink import KernelSink

Sent = list[tuple[str, dict[str, Any]]]


def sink(sent: Sent, *, headless: bool = False, **options: bool) -> KernelSink:
    """A sink of a kernel that only notes what it is to send."""

    def send(_socket: Any, type: str, content: dict[str, Any], **_: Any) -> None:
        sent.append((type, content))

    kernel: Any = SimpleNamespace(
        session=SimpleNamespace(send=send),
        settings=SimpleNamespace(headless=headless),
        ident="k",
        iopub_socket=None,
        get_parent=lambda channel: {"header": {"msg_id": "m"}},
        _shell_parent_ident=None,
        _get_shell_context_var=lambda variable: b"",
    )
    return KernelSink(kernel, **options)


def test_a_person_reads_what_is_waited_for_and_nothing_of_it_stays() -> None:
    sent: Sent = []
    shown = sink(sent, attended=True)
    shown.status("Creating …")
    shown.status("Starting …")
    shown.status(None)
    assert [type for type, _ in sent] == ["display_data", "clear_output", "display_data", "clear_output"]
    assert sent[0][1]["data"] == {"text/plain": "Creating …"}
    assert [content["wait"] for type, content in sent if type == "clear_output"] == [True, False]


@pytest.mark.parametrize(
    "options",
    [{"attended": False}, {"attended": True, "silent": True}, {"attended": True, "headless": True}],
)
def test_a_program_that_runs_the_notebook_is_told_nothing(options: dict[str, bool]) -> None:
    """nbval takes the line for an output of the cell, for it does not know ``clear_output``."""
    sent: Sent = []
    quiet = sink(sent, **options)
    quiet.status("Creating …")
    quiet.status(None)
    assert sent == []
