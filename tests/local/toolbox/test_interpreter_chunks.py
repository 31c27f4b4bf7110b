"""The pure part of the interpreter: lines, chunks, frames, requests, quirks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel.local.toolbox import quirks
from daytona_kernel.local.toolbox.chunks import (
    KEYS,
    MAX_LINE,
    BadRequestError,
    LineSplitter,
    LineTooLongError,
    encode_frame,
    parse_line,
    parse_request,
    to_chunk,
)


@given(st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b""))), st.data())
def test_lines_do_not_depend_on_how_the_stream_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    splitter = LineSplitter()
    seen: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        seen += splitter.feed(stream[:size])
        stream = stream[size:]
    assert seen == lines
    assert splitter.rest() == b"rest"


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_line_of_a_mebibyte_with_its_newline_passes_and_one_more_byte_does_not(pieces: int) -> None:
    def feed(line: bytes) -> list[bytes]:
        splitter = LineSplitter()
        step = -(-len(line) // pieces)
        return [out for at in range(0, len(line), step) for out in splitter.feed(line[at : at + step])]

    longest = b"x" * (MAX_LINE - 1)
    assert feed(longest + b"\n") == [longest]
    with pytest.raises(LineTooLongError):
        feed(longest + b"x\n")


def test_lines_before_one_that_is_too_long_still_count() -> None:
    lines = LineSplitter().feed(b"one\n" + b"x" * MAX_LINE)
    assert next(lines) == b"one"
    with pytest.raises(LineTooLongError):
        next(lines)


@pytest.mark.parametrize(
    "line", [b"", b"hello", b"12", b"[1]", b'"x"', b"{", b"[" * 100_000, b'{"type": "a"} x']
)
def test_lines_that_are_no_object_are_dropped(line: bytes) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize("line", [b"null", b"{}"])
def test_null_and_an_empty_object_are_an_empty_chunk(line: bytes) -> None:
    fields = parse_line(line)
    assert fields is not None
    assert to_chunk(fields) == dict.fromkeys(KEYS, "")


def test_a_chunk_keeps_only_the_strings_of_the_five_keys() -> None:
    fields = parse_line(b'{"type": "custom", "text": 5, "value": null, "name": "n", "more": "x"}\r')
    assert fields is not None
    assert to_chunk(fields) == {"type": "custom", "text": "", "name": "n", "value": "", "traceback": ""}


def test_a_frame_escapes_what_go_escapes() -> None:
    frame = encode_frame(to_chunk({"type": "stdout", "text": '<é&>\u2028\u2029"\\\n\x01😀'}))
    assert '"text":"\\u003cé\\u0026\\u003e\\u2028\\u2029\\"\\\\\\n\\u0001😀"' in frame


@given(st.text(st.characters(), max_size=50))
def test_a_frame_holds_the_text_with_lone_surrogates_replaced(text: str) -> None:
    frame = encode_frame(to_chunk({"type": "stdout", "text": text})).encode()
    expected = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    assert json.loads(frame) == {"type": "stdout", "text": expected, "name": "", "value": "", "traceback": ""}


def test_a_request_without_a_timeout_has_600_seconds() -> None:
    request = parse_request('{"code": "x", "unknown": 1, "envs": null, "contextId": null, "timeout": null}')
    assert (request.code, request.context_id, request.envs, request.timeout) == ("x", "", {}, 600)


def test_a_request_may_be_binary_and_its_null_variables_are_empty() -> None:
    request = parse_request(b'{"code": "x", "timeout": 0, "contextId": "c", "envs": {"A": null, "B": "b"}}')
    assert (request.context_id, request.envs, request.timeout) == ("c", {"A": "", "B": "b"}, 0)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "x",
        "[]",
        '{"code": 1}',
        '{"code": "x", "timeout": 1.5}',
        '{"code": "x", "timeout": "1"}',
        '{"code": "x", "timeout": true}',
        '{"code": "x", "envs": {"A": 1}}',
        '{"code": "x", "envs": []}',
        '{"code": "x", "contextId": 7}',
        b"\xff\xfe\xfd",
    ],
)
def test_a_malformed_request_is_refused_with_1002(message: str | bytes) -> None:
    with pytest.raises(BadRequestError) as refusal:
        parse_request(message)
    assert (refusal.value.code, refusal.value.reason) == (1002, "invalid JSON payload")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("{}", "code is required"),
        ("null", "code is required"),
        ('{"code": ""}', "code is required"),
        ('{"code": "x", "timeout": -1}', "timeout must be greater than or equal to 0"),
    ],
)
def test_an_impossible_request_is_refused_with_1008(message: str, reason: str) -> None:
    with pytest.raises(BadRequestError) as refusal:
        parse_request(message)
    assert (refusal.value.code, refusal.value.reason) == (1008, reason)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, quirks.ALL),
        ("", quirks.ALL),
        ("all", quirks.ALL),
        ("none", frozenset()),
        ("none, Wedge", {"wedge"}),
        ("poll50,all", quirks.ALL | {"poll50"}),
        ("wedge,deaf-queue", {"wedge", "deaf-queue"}),
    ],
)
def test_quirks_are_chosen_by_a_list_of_names(text: str | None, expected: frozenset[str]) -> None:
    assert quirks.from_environment({} if text is None else {quirks.VARIABLE: text}) == expected


def test_an_unknown_quirk_is_named() -> None:
    with pytest.raises(ValueError, match="unknown sloth; known: all, none, deaf-queue"):
        quirks.parse("wedge,sloth")
