"""The multipart parser: events do not depend on where the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel.local.toolbox.multipart import (
    MultipartError,
    MultipartParser,
    PartBegin,
    PartData,
    boundary_of,
    disposition_parameters,
)

BOUNDARY = b"XyZ"


def body_of(parts):
    out = b""
    for name, filename, content in parts:
        extra = f'; filename="{filename}"' if filename is not None else ""
        out += b"--XyZ\r\n" + f'Content-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode()
        out += content + b"\r\n"
    return out + b"--XyZ--\r\n"


def parse(chunks):
    parser = MultipartParser(BOUNDARY)
    parts, current, content = [], None, b""
    for chunk in chunks:
        for event in parser.feed(chunk):
            if isinstance(event, PartBegin):
                current, content = event, b""
            elif isinstance(event, PartData):
                content += event.data
            else:
                parts.append((current.name, current.filename, content))
    return parts, parser.complete


def cut(data, places):
    edges = [0, *sorted({min(place, len(data)) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# Contents made of what the boundary is made of, so that near misses are common.
contents = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"X", b"y", b"\r\n--Xy", b"\r\n--", b"abc"]), max_size=12
)


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "files[0].file"]), st.sampled_from([None, "x y"]), contents),
        max_size=4,
    ),
    st.lists(st.integers(0, 600), max_size=30),
)
def test_parts_survive_any_cut(parts, places):
    parts = [(name, filename, b"".join(pieces)) for name, filename, pieces in parts]
    assert parse(cut(body_of(parts), places)) == (parts, True)


def test_bytes_come_through_one_at_a_time():
    parts = [("a", None, b"\r\n--Xy"), ("b", "f", bytes(range(256)))]
    data = body_of(parts)
    assert parse([data[i : i + 1] for i in range(len(data))]) == (parts, True)


def test_content_is_handed_on_before_the_part_ends():
    parser = MultipartParser(BOUNDARY)
    list(parser.feed(b'--XyZ\r\nContent-Disposition: form-data; name="a"\r\n\r\n'))
    assert list(parser.feed(b"x" * 100_000)) == [PartData(b"x" * 100_000)]


def test_a_missing_end_is_noticed():
    parts, complete = parse([body_of([("a", None, b"1"), ("b", None, b"2")])[:-9]])
    assert parts == [("a", None, b"1")]
    assert not complete


def test_preamble_epilogue_and_padding_are_ignored():
    data = b"hello\r\n" + body_of([("a", None, b"1")]).replace(b"--XyZ\r\n", b"--XyZ \t\r\n") + b"bye"
    assert parse([data]) == ([("a", None, b"1")], True)


@pytest.mark.parametrize(
    "data",
    [
        b"--XyZ\r\nContent-Type: text/plain\r\n\r\nx\r\n--XyZ--",
        b"--XyZ\r\n\r\nx\r\n--XyZ--",
        b"--XyZjunk\r\n\r\n",
        b"--XyZ\r\n" + b"a" * 70_000,
    ],
)
def test_malformed_bodies_are_refused(data):
    with pytest.raises(MultipartError):
        parse([data])


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('form-data; name="a b"; filename="x.txt"', {"name": "a b", "filename": "x.txt"}),
        ('form-data; name=a; filename="q\\"uo\\\\te"', {"name": "a", "filename": 'q"uo\\te'}),
        ("form-data; name=a; filename=\"x\"; filename*=utf-8''%C3%A9", {"name": "a", "filename": "é"}),
        (
            'form-data; name="files[0].file"; filename="C:\\dir"',
            {"name": "files[0].file", "filename": "C:\\dir"},
        ),
        ("form-data", {}),
    ],
)
def test_disposition_parameters(header, expected):
    assert disposition_parameters(header) == expected


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; Boundary="a b"', b"a b"),
        ("multipart/form-data", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_boundary_of_content_type(content_type, boundary):
    assert boundary_of(content_type) == boundary
