"""The harness itself: what it calls equal, what it does not, and what it finds wrong in a message."""

from __future__ import annotations

import base64
import io
from datetime import datetime, timezone
from typing import Any

import pytest
from PIL import Image

from .corpus import Cell, parse_family
from .driver import Exchange, Message
from .known_differences import KnownDifference
from .normalise import Normaliser, merge_streams, picture, streams_apart, visible
from .recording import Recording, difference, record
from .spec import faults, faults_of_exchange
from .test_corpus import check_known

FACTS = {
    "cwd": "/home/someone",
    "home": "/home/someone",
    "real home": "/home/someone",
    "tmp": "/tmp",
    "environment": "/opt/environment",
    "libraries": "/opt/environment",
    "python": "/usr/python",
}


def message(msg_type: str, content: Message, parent: str = "p1", **more: Any) -> Message:
    """A message as jupyter_client delivers it."""
    header = {
        "msg_id": "m1",
        "session": "s",
        "username": "u",
        "msg_type": msg_type,
        "version": "5.4",
        "date": datetime.now(timezone.utc),
    }
    parent_header = {"msg_id": parent, "msg_type": "execute_request"}
    return {
        "header": header,
        "msg_type": msg_type,
        "parent_header": parent_header,
        "metadata": {},
        "content": content,
        "buffers": [],
        "channel": "iopub",
        **more,
    }


def stream(text: str, name: str = "stdout") -> Message:
    """A piece of a stream."""
    return message("stream", {"name": name, "text": text})


def status(state: str) -> Message:
    """A status message."""
    return message("status", {"execution_state": state})


def exchange(*iopub: Message, reply: Message | None = None) -> Exchange:
    """A finished exchange."""
    content = reply or {"status": "ok", "execution_count": 1}
    replies = [message("execute_reply", content, channel="shell")]
    messages = [status("busy"), *iopub, status("idle")]
    return Exchange("p1", "execute_request", "shell", iopub=messages, replies=replies)


def recorded(*iopub: Message, flags: set[str] | None = None) -> Recording:
    """The recording of a cell that caused these messages."""
    cell = Cell("family", "cell", "code", flags=flags or set())
    return record(cell, exchange(*iopub), "", Normaliser(FACTS))


def differs(one: Recording, two: Recording) -> bool:
    """True if the harness sees a difference."""
    return bool(difference(one, two, ("one", "two")))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("<object object at 0x7f00deadbeef>", "<object object at 0x7fff12345678>"),
        ("/tmp/ipykernel_12/99.py:1: UserWarning", "/tmp/ipykernel_3456/99.py:1: UserWarning"),
        ("CPU times: user 5 μs, sys: 1e+03 ns, total: 6 μs", "CPU times: user 1.2 ms, sys: 3 μs, total: 2 s"),
        ("Wall time: 3.1 s", "Wall time: 12 μs"),
        ("Wall time: 3.1 s\nCompiler : 178 ms\nParser   : 123 ms\n", "Wall time: 3.1 s\n"),
        ("1 loop\nCompiler time: 0.16 s\n", "1 loop\n"),
        ("The slowest run took 22.71 times longer than the fastest. This could mean a lot.\n1", "1"),
        ("50%|# | 1/2 [00:01<00:01, 1.0s/it]", "50%|# | 1/2 [00:00<?, ?it/s]"),
        ("2024-01-02T03:04:05.678Z", "2026-11-21T00:00:00+00:00"),
        ("id 0123456789abcdef0123456789abcdef", "id ffffffffffffffffffffffffffffffff"),
        ("/home/someone/file", "/home/someone/file"),
        ('id="T_0a1b2_level0"', 'id="T_ffff0_level0"'),
    ],
)
def test_what_is_truly_variable_is_equal(one: str, two: str) -> None:
    """Addresses, process ids, times and random ids."""
    assert not differs(recorded(stream(one)), recorded(stream(two)))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("text", "Text"),
        ("text\n", "text"),
        ("a b", "a  b"),
        ("1.5", "1.50"),
        ("\x1b[31mred", "red"),
        ("/tmp/ipykernel_12/99.py:1", "/tmp/ipykernel_12/98.py:1"),
        ("line 3", "line 4"),
        ("50%|# | 1/2 [00:01<00:01, 1.0s/it]", "50%|# | 2/2 [00:01<00:01, 1.0s/it]"),
        ("0123456789abcdef 0123456789abcdef", "0123456789abcdef fedcba9876543210"),
        ("/home/someone/a", "/home/someone/b"),
        ("\udc80", "\udc81"),
        ("x" * 50_000 + "a" + "x" * 50_000, "x" * 50_000 + "b" + "x" * 50_000),
        ("\r", "\n"),
    ],
)
def test_what_differs_is_reported(one: str, two: str) -> None:
    """Nothing else is smoothed over."""
    assert differs(recorded(stream(one)), recorded(stream(two)))


def test_order_of_streams_and_displays_counts() -> None:
    """The same pieces in another order are another output."""
    shown = message("display_data", {"data": {"text/plain": "x"}, "metadata": {}, "transient": {}})
    assert differs(recorded(stream("a"), shown), recorded(shown, stream("a")))
    assert differs(recorded(stream("a"), stream("b", "stderr")), recorded(stream("b", "stderr"), stream("a")))


def test_where_a_stream_is_cut_does_not_count() -> None:
    """Adjacent pieces of one stream are one text, and the messages are left as they were."""
    pieces = [stream("a"), stream("b"), stream("c", "stderr"), stream("d")]
    assert [m["content"]["text"] for m in merge_streams(pieces)] == ["ab", "c", "d"]
    assert pieces[0]["content"]["text"] == "a"
    assert not differs(recorded(stream("a"), stream("b")), recorded(stream("ab")))


def test_metadata_types_and_transient_count() -> None:
    """A number is not its text; metadata and display ids are compared."""

    def shown(data: Any, metadata: Message, transient: Message) -> Recording:
        return recorded(message("display_data", {"data": data, "metadata": metadata, "transient": transient}))

    base = shown({"application/json": {"a": 1}}, {}, {})
    assert differs(base, shown({"application/json": {"a": "1"}}, {}, {}))
    assert differs(base, shown({"application/json": {"a": 1.0}}, {}, {}))
    assert differs(base, shown({"application/json": {"a": 1}}, {"b": 1}, {}))
    assert differs(base, shown({"application/json": {"a": 1}}, {}, {"display_id": "x"}))
    assert not differs(base, shown({"application/json": {"a": 1}}, {}, {}))


def test_buffers_count() -> None:
    """Binary buffers are compared byte by byte."""
    one = recorded(message("comm_msg", {"comm_id": "c", "data": {}}, buffers=[b"\x00\x01"]))
    two = recorded(message("comm_msg", {"comm_id": "c", "data": {}}, buffers=[b"\x00\x02"]))
    assert differs(one, two)


def png(colour: tuple[int, int, int], compression: int = 6) -> str:
    """A small picture."""
    file = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(file, "PNG", compress_level=compression)
    return base64.b64encode(file.getvalue()).decode()


def test_pictures_are_compared_by_pixels() -> None:
    """Another encoding of the same pixels is equal, another pixel is not."""

    def shown(data: str) -> Recording:
        return recorded(message("display_data", {"data": {"image/png": data}, "metadata": {}}))

    assert not differs(shown(png((1, 2, 3), 0)), shown(png((1, 2, 3), 9)))
    assert differs(shown(png((1, 2, 3))), shown(png((1, 2, 4))))
    assert picture("image/png", "no picture") == "no picture"


def test_ids_keep_their_identity_within_a_cell() -> None:
    """Random ids are numbered: the same id twice is not two ids."""
    one, two = "a" * 32, "b" * 32
    assert differs(recorded(stream(f"{one} {one}")), recorded(stream(f"{one} {two}")))
    assert not differs(recorded(stream(f"{one} {two}")), recorded(stream(f"{two} {one}")))


def test_streams_apart_forgets_only_the_order_of_streams() -> None:
    """For cells with pipes: text is still compared, and late output is on time."""
    pieces = [stream("a"), stream("b", "stderr"), stream("c")]
    assert [m["content"]["text"] for m in merge_streams(streams_apart(pieces))] == ["ac", "b"]
    flags = {"streams apart"}
    assert not differs(recorded(*pieces, flags=flags), recorded(pieces[1], pieces[0], pieces[2], flags=flags))
    assert differs(recorded(*pieces, flags=flags), recorded(*pieces[:2], flags=flags))


def test_known_differences_are_strict() -> None:
    """A known difference that is gone fails, and so does one that grows."""
    known = KnownDifference("for a test", (r"^    \| old$", r"^    \| new$"))
    diff = ["--- a", "+++ b", "@@ @@", "-    | old", "+    | new"]
    check_known(known, diff)
    with pytest.raises(AssertionError, match="no longer differs"):
        check_known(known, [])
    with pytest.raises(AssertionError, match="differs in more than is known"):
        check_known(known, [*diff, "+    | more"])


def test_families_are_parsed() -> None:
    """Title, directives, code and requirements; blank lines around the code are left out."""
    family = parse_family(
        "f",
        "# About.\n# requires: a, b\n\n"
        "# %% first\n#: stdin yes\n#: stdin \n#: interrupt-on go\n\nx = 1\n\ny\n\n"
        "# %% second\n#: streams apart\n# a comment of the cell\n",
    )
    first, second = family.cells
    assert family.requires == ["a", "b"]
    assert (first.id, first.code, first.answers, first.interrupt_on) == (
        "f/first",
        "x = 1\n\ny",
        ["yes", ""],
        "go",
    )
    assert (second.code, second.flags) == ("# a comment of the cell", {"streams apart"})


@pytest.mark.parametrize("text", ["# %% a\n1\n# %% a\n2\n", "# %% a\n#: nonsense\n1\n"])
def test_mistakes_in_the_corpus_are_errors(text: str) -> None:
    """A name used twice would hide a cell; an unknown directive would do nothing."""
    with pytest.raises(ValueError, match="used twice|unknown directive"):
        parse_family("f", text)


def test_visible_shows_what_cannot_be_seen() -> None:
    """Control characters and lone surrogates are escaped, letters of all planes are not."""
    assert visible("\x1b[0m\udc80ü🎉") == "\\x1b[0m\\udc80ü🎉"


@pytest.mark.parametrize(
    ("faulty", "fault"),
    [
        (message("stream", {"name": "stdin", "text": "x"}), "name 'stdin'"),
        (message("stream", {"name": "stdout"}), "no text"),
        (message("stream", {"name": "stdout", "text": ""}), "empty text"),
        (message("status", {"execution_state": "tired"}), "tired"),
        (message("execute_reply", {"status": "fine", "execution_count": 1}), "status 'fine'"),
        (message("execute_reply", {"status": "ok", "execution_count": True}), "not int"),
        (message("execute_reply", {"status": "error", "ename": "E", "evalue": "v"}), "no traceback"),
        (message("display_data", {"data": {"text": "x"}, "metadata": {}}), "mime type 'text'"),
        (message("update_display_data", {"data": {}, "metadata": {}, "transient": {}}), "no display_id"),
        (message("error", {"ename": "E", "evalue": "v", "traceback": [1]}), "no text"),
        (message("invented", {}), "does not have"),
        (message("stream", {"name": "stdout", "text": "x", "more": float("nan")}), "not JSON"),
        (message("stream", {"name": "stdout", "text": "x"}, metadata=None), "no metadata"),
    ],
)
def test_validator_finds(faulty: Message, fault: str) -> None:
    """Messages against the specification."""
    assert any(fault in one for one in faults(faulty)), faults(faulty)


def test_validator_accepts_what_is_right() -> None:
    """A whole exchange without a fault."""
    shown = message("display_data", {"data": {"text/plain": "x"}, "metadata": {}})
    assert faults_of_exchange(exchange(stream("x"), shown)) == []


def test_validator_checks_the_order_and_the_parents() -> None:
    """Busy first, idle once, one reply, and all of them children of the request."""
    twice = exchange(status("idle"))
    assert any("states" in fault for fault in faults_of_exchange(twice))
    early = exchange()
    early.iopub.insert(0, stream("x"))
    assert any("before busy" in fault for fault in faults_of_exchange(early))
    stray = exchange(message("stream", {"name": "stdout", "text": "x"}, parent="other"))
    assert any("parent" in fault for fault in faults_of_exchange(stray))
    silent = exchange()
    silent.replies.clear()
    assert "0 replies" in faults_of_exchange(silent)
