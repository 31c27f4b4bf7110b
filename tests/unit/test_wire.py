"""The wire: what the agent writes comes back whole, once and in order, however it was cut."""

from __future__ import annotations

import base64
import itertools
import json
import math
import random
import zlib
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel import wire
from daytona_kernel.wire import RS, Frame, Gap, Line, Receiver, Splitter, Text

ID = "e1"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
contents = st.dictionaries(st.text(), json_values, max_size=4)
frames = st.builds(
    Frame,
    execution_id=st.just(ID),
    type=st.sampled_from(["stream", "display_data", "done", "comm_msg"]),
    content=contents,
    metadata=contents,
    buffers=st.lists(st.binary(max_size=40), max_size=3).map(tuple),
    parent=st.sampled_from(["", "session_1"]),
)
stray = st.text(st.characters(exclude_characters=RS), min_size=1, max_size=30)


def lines_of(*sent: Frame, compress_over_chars: int = wire.NO_COMPRESSION) -> list[str]:
    lines: list[str] = []
    for frame in sent:
        lines += wire.encode(frame, len(lines), compress_over_chars)
    return lines


def split(pieces: Iterable[str]) -> list[Line | Text]:
    splitter = Splitter()
    items = [item for piece in pieces for item in splitter.feed(piece)]
    return items + list(splitter.finish())


def received(items: Iterable[Line | Text], receiver: Receiver | None = None) -> list[Frame]:
    receiver = receiver or Receiver(ID)
    found = [receiver.feed(item) for item in items if isinstance(item, Line)]
    return [frame for frame in found if frame is not None]


def shown(items: Iterable[Line | Text]) -> str:
    return "".join(item.text for item in items if isinstance(item, Text))


def cut(text: str, cuts: Iterable[int]) -> list[str]:
    edges = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


# -- there and back ------------------------------------------------------------------------------------


@given(st.lists(frames, max_size=5), st.lists(st.integers(0, 4000), max_size=20))
def test_frames_arrive_whole_and_in_order_however_the_text_is_cut(sent: list[Frame], cuts: list[int]) -> None:
    items = split(cut("".join(lines_of(*sent)), cuts))
    assert received(items) == sent
    assert shown(items) == ""


@given(st.lists(frames, min_size=1, max_size=4), st.integers(0, 200))
def test_compression_changes_nothing_for_the_receiver(sent: list[Frame], limit: int) -> None:
    assert received(split(lines_of(*sent, compress_over_chars=limit))) == sent


@given(st.lists(st.tuples(stray, frames), max_size=4), stray, st.lists(st.integers(0, 4000), max_size=10))
def test_text_between_frames_is_shown_and_harms_none(
    mixed: list[tuple[str, Frame]], end: str, cuts: list[int]
) -> None:
    sent = [frame for _, frame in mixed]
    lines = lines_of(*sent)
    text = "".join(before + line for (before, _), line in zip(mixed, lines, strict=True)) + end
    items = split(cut(text, cuts))
    assert received(items) == sent
    assert shown(items) == "".join(before for before, _ in mixed) + end


@given(frames)
def test_a_line_is_ascii_and_holds_no_separator_of_its_own(frame: Frame) -> None:
    for line in lines_of(frame):
        assert line.isascii()
        assert line.count(RS) == 1
        assert line.index("\n") == len(line) - 1


def test_text_before_a_frame_is_not_held_back_until_a_newline() -> None:
    assert list(Splitter().feed("no newline yet")) == [Text("no newline yet")]


# -- size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["<" * 300_000, '"' * 300_000, "x" * 300_000, "\N{GRINNING FACE}" * 50_000])
def test_no_line_exceeds_the_limit_even_as_the_daemon_escapes_it(text: str) -> None:
    sent = Frame(ID, "stream", {"name": "stdout", "text": text})
    lines = lines_of(sent)
    assert all(wire.escaped_size(line) <= wire.MAX_LINE_BYTES for line in lines)
    assert received(split(lines)) == [sent]


@given(st.text(st.sampled_from('<>&"\\\nab\x1e'), max_size=200))
def test_the_escaped_size_is_what_the_daemon_makes_of_it(text: str) -> None:
    ascii_text = json.dumps(text)[1:-1]
    escaped = json.dumps(ascii_text)[1:-1]
    for char in "<>&":
        escaped = escaped.replace(char, "\\u0000")
    assert wire.escaped_size(ascii_text) == len(escaped)


def test_a_frame_too_large_for_a_line_travels_in_numbered_parts() -> None:
    noise = base64.b64encode(bytes(value * value % 251 for value in range(600_000))).decode()
    noise = "".join(chr(33 + (ord(char) * index) % 90) for index, char in enumerate(noise))
    sent = Frame(ID, "display_data", {"data": {"text/html": noise}}, {"k": 1}, (b"\x00\xff",))
    lines = wire.encode(sent, 7)
    assert len(lines) > 2
    parsed = [item for item in split(lines) if isinstance(item, Line)]
    assert [line.number for line in parsed] == list(range(7, 7 + len(lines)))
    assert [line.part for line in parsed] == [(index, len(lines)) for index in range(len(lines))]
    receiver = Receiver(ID)
    receiver.next_number = 7
    assert received(parsed, receiver) == [sent]


def noise(size: int) -> str:
    """Base64 that no compression makes smaller, always the same."""
    return base64.b64encode(random.Random(size).randbytes(size)).decode()


@pytest.mark.parametrize("size", [60_000, 1_000_000])
def test_what_compression_does_not_shrink_travels_as_it_is(size: int) -> None:
    sent = Frame(ID, "display_data", {"data": {"image/png": noise(size)}})
    lines = wire.encode(sent, 0, 2048)
    assert sum(map(len, lines)) < 1.01 * size * 4 / 3 + 200
    assert received(split(lines)) == [sent]


@pytest.mark.parametrize("char", ["<", '"', "\\"])
def test_noise_around_what_the_daemon_escapes_still_gives_short_lines(char: str) -> None:
    text = noise(1_500_000)
    sent = Frame(
        ID, "display_data", {"data": {"text/html": text[:100_000] + char * 100_000 + text[100_000:]}}
    )
    lines = lines_of(sent)
    assert all(wire.escaped_size(line) <= wire.MAX_LINE_BYTES for line in lines)
    assert received(split(lines)) == [sent]


def test_text_is_compressed_even_if_one_line_would_do() -> None:
    sent = Frame(ID, "stream", {"name": "stdout", "text": "a line of words\n" * 1000})
    (line,) = wire.encode(sent, 0, 2048)
    assert len(line) < 1000
    assert received(split([line])) == [sent]


# -- lines that are not ours ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        "null",
        '"text"',
        "{}",
        '{"x":"e1","n":0}',
        '{"x":1,"n":0,"t":"stream","c":{}}',
        '{"x":"e1","n":-1,"t":"stream","c":{}}',
        '{"x":"e1","n":true,"t":"stream","c":{}}',
        '{"x":"e1","n":1.0,"t":"stream","c":{}}',
        '{"x":"e1","n":0,"t":1,"c":{}}',
        '{"x":"e1","n":0,"t":"stream","c":[]}',
        '{"x":"e1","n":0,"t":"stream","c":{},"m":[]}',
        '{"x":"e1","n":0,"t":"stream","c":{},"b":"AA=="}',
        '{"x":"e1","n":0,"t":"stream","c":{},"b":[1]}',
        '{"x":"e1","n":0,"p":[0],"d":""}',
        '{"x":"e1","n":0,"p":[1,1],"d":""}',
        '{"x":"e1","n":0,"p":[-1,1],"d":""}',
        '{"x":"e1","n":0,"p":[0,true],"d":""}',
        '{"x":"e1","n":0,"p":["0",1],"d":""}',
        '{"x":"e1","n":0,"p":[0,1],"d":1}',
        '{"x":"e1","n":0,"p":{},"d":""}',
        "[" * 100_000,
    ],
)
def test_a_forged_or_broken_line_is_shown_as_text(body: str) -> None:
    assert split([RS + body + "\n"]) == [Text(RS + body + "\n")]


@given(st.text(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_any_text_at_all_is_split_without_loss(text: str, cuts: list[int]) -> None:
    assert shown(split(cut(text, cuts))) == text


def test_a_frame_cut_off_in_the_middle_is_shown_at_the_end_of_the_stream() -> None:
    line = lines_of(Frame(ID, "stream", {"name": "stdout", "text": "hello"}))[0]
    items = split([line[:20]])
    assert items == [Text(line[:20])]


def test_a_frame_after_a_broken_one_is_still_found() -> None:
    good = Frame(ID, "done", {"reply": {}})
    items = split([RS + "{broken\n", *lines_of(good)])
    assert shown(items) == RS + "{broken\n"
    assert received(items) == [good]


@given(st.lists(frames, min_size=3, max_size=5), st.data())
def test_a_torn_line_harms_none_but_itself(sent: list[Frame], data: st.DataObject) -> None:
    """Some characters of one line are gone, not its end: all others are found, and nothing is dropped."""
    lines = lines_of(*sent)
    victim = data.draw(st.integers(0, len(lines) - 1))
    line = lines[victim]
    start = data.draw(st.integers(0, len(line) - 2))
    end = data.draw(st.integers(start + 1, len(line) - 1))
    torn = line[:start] + line[end:]
    items = split([*lines[:victim], torn, *lines[victim + 1 :]])
    found = [item for item in items if isinstance(item, Line)]
    whole = [parsed for index, text in enumerate(lines) if index != victim for parsed in split([text])]
    assert [item for item in found if item in whole] == whole
    if len(found) == len(whole):  # else what is left of it is a line still, such as a shorter text
        assert shown(items) == torn


@given(
    st.lists(frames, max_size=4),
    st.lists(st.text(st.sampled_from('\x1e{}[]":,xnptdce01 \n'), max_size=30), min_size=5, max_size=5),
    st.lists(st.integers(0, 4000), max_size=10),
)
def test_garbage_between_lines_hides_none_of_them(
    sent: list[Frame], garbage: list[str], cuts: list[int]
) -> None:
    """Also what looks like the beginning of a line, as long as it ends with one of its own."""
    lines = lines_of(*sent)
    text = "".join(noise + "\n" + line for noise, line in zip(garbage, [*lines, ""], strict=False))
    items = split(cut(text, cuts))
    assert received(item for item in items if isinstance(item, Line) and item.execution_id == ID) == sent
    noise = sum(len(noise) + 1 for noise, _ in zip(garbage, [*lines, ""], strict=False))
    assert len(shown(items)) == noise


@given(
    st.text(st.sampled_from('\x1e{}[]":,xnptdce01\\ \n'), max_size=200),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_no_garbage_makes_the_receiver_raise(text: str, cuts: list[int]) -> None:
    receiver = Receiver("x")
    for item in split(cut(text, cuts)):
        if isinstance(item, Line):
            with suppress(Gap):
                receiver.feed(item)


def test_a_line_without_end_is_given_up_instead_of_growing_for_ever() -> None:
    splitter = Splitter()
    piece = "x" * (1024 * 1024)
    assert list(splitter.feed(RS)) == []
    shown_after = [len(list(splitter.feed(piece))) for _ in range(5)]
    assert shown_after == [0, 0, 0, 0, 1]
    assert list(splitter.feed("more")) == [Text("more")]


# -- numbers -------------------------------------------------------------------------------------------


def some(count: int) -> list[Line]:
    sent = [Frame(ID, "stream", {"name": "stdout", "text": str(index)}) for index in range(count)]
    return [item for item in split(lines_of(*sent)) if isinstance(item, Line)]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_lines_had_before_are_dropped_and_a_missing_one_is_noticed(order: list[int]) -> None:
    """Whatever arrives in whatever order: frames come out as 0, 1, 2 ... without a hole or a copy."""
    lines, receiver, out = some(6), Receiver(ID), []
    for index in order:
        expected = receiver.next_number
        if index > expected:
            with pytest.raises(Gap) as caught:
                receiver.feed(lines[index])
            assert (caught.value.expected, caught.value.got) == (expected, index)
            assert receiver.next_number == expected
            continue
        frame = receiver.feed(lines[index])
        assert (frame is None) == (index < expected)
        if frame is not None:
            out.append(int(frame.content["text"]))
    assert out == list(range(len(out)))


def test_a_gap_says_what_is_missing() -> None:
    with pytest.raises(Gap, match=r"line 0 .* missing \(line 2"):
        Receiver(ID).feed(some(3)[2])


def test_lines_of_another_execution_are_ignored() -> None:
    receiver = Receiver("other")
    assert [receiver.feed(line) for line in some(2)] == [None, None]
    assert receiver.next_number == 0


def part(number: int, index: int, count: int, data: str) -> Line:
    line = wire.parse_line(json.dumps({"x": ID, "n": number, "p": [index, count], "d": data}))
    assert line is not None
    return line


def test_parts_interrupted_by_another_frame_are_dropped_and_what_follows_is_not() -> None:
    whole = wire.parse_line('{"x":"e1","n":1,"t":"stream","c":{}}')
    assert whole is not None
    receiver = Receiver(ID)
    assert receiver.feed(part(0, 0, 2, "AAAA")) is None
    assert receiver.feed(whole) == Frame(ID, "stream")
    assert receiver.feed(part(2, 1, 2, "AAAA")) is None
    assert receiver.next_number == 3


def pack(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text)).decode()


@pytest.mark.parametrize(
    "data",
    [
        "no base64!",
        base64.b64encode(b"not zlib").decode(),
        pack(b"not json"),
        pack(b"[]"),
        pack(b'{"t":1}'),
        pack(b'{"t":"stream","c":{},"b":["A"]}'),
        pack(b"[" * 100_000),
        pack(b'{"t":"stream","c":{"text":"\xff"}}'),
    ],
)
def test_parts_that_do_not_unpack_to_a_frame_are_dropped(data: str) -> None:
    receiver = Receiver(ID)
    assert receiver.feed(part(0, 0, 1, data)) is None
    assert receiver.next_number == 1


def test_a_zip_bomb_is_dropped_before_it_unfolds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 1000)
    text = json.dumps({"t": "stream", "c": {"text": "x" * 2000}}).encode()
    assert Receiver(ID).feed(part(0, 0, 1, pack(text))) is None
    small = json.dumps({"t": "stream", "c": {"text": "x" * 800}}).encode()
    assert Receiver(ID).feed(part(0, 0, 1, pack(small))) is not None


def test_endless_parts_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 1000)
    receiver = Receiver(ID)
    for index in range(50):
        receiver.feed(part(index, index, 100, "x" * 100))
    assert sum(map(len, receiver._parts)) <= 1000


# -- values --------------------------------------------------------------------------------------------


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


class IntLike:
    def __int__(self) -> int:
        return 3


class Dated:
    def isoformat(self) -> str:
        return "2026-01-02"


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (b"\x00\x01", "AAE="),
        (bytearray(b"\x00"), "AA=="),
        (memoryview(b"\x00"), "AA=="),
        ({1: (2, {3})}, {"1": [2, [3]]}),
        (iter([1, 2]), [1, 2]),
        (Fraction(1, 2), 0.5),
        (Dated(), "2026-01-02"),
        (True, True),
    ],
)
def test_values_that_json_does_not_know_are_made_fit_for_it(value: object, clean: object) -> None:
    assert wire.json_clean(value) == clean
    assert json.loads(wire.dumps({"v": value if not hasattr(value, "__next__") else clean})) == {"v": clean}


@pytest.mark.parametrize("value", [Odd(), IntLike(), {"deep": [Odd()]}])
def test_a_value_that_no_json_can_be_made_of_is_refused_in_jupyters_words(value: object) -> None:
    with pytest.raises(ValueError, match="Can't clean for JSON"):
        wire.dumps({"v": value})


@given(json_values)
def test_json_values_are_left_as_they_are(value: object) -> None:
    assert wire.json_clean(value) == value
    assert json.loads(wire.dumps(value)) == value


@given(st.text(st.characters(min_codepoint=0xDC00, max_codepoint=0xDFFF, categories=["Cs"]), max_size=5))
def test_lone_surrogates_pass_the_wire(text: str) -> None:
    sent = Frame(ID, "stream", {"name": "stdout", "text": text})
    assert received(split(lines_of(sent))) == [sent]
