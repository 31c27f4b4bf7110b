"""Labelled logs: pure parts, and followers of a file that grows."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel.local.toolbox.logs import (
    MAX_PARTIAL_BYTES,
    STDERR,
    STDOUT,
    CommandLog,
    Labeller,
    split,
    without_labels,
)

texts = st.text(st.sampled_from("ab\n\r\0é"), max_size=40)


@given(st.lists(texts, max_size=8))
def test_a_stream_is_the_same_however_it_was_cut(pieces):
    labeller = Labeller(STDOUT)
    raw = b"".join(labeller.feed(piece.encode()) for piece in pieces) + labeller.finish()
    whole = "".join(pieces).replace("\0", "")
    expected = whole if whole.endswith("\n") or not whole else whole + "\n"
    assert split(raw) == (expected, "")
    assert raw == b"".join(STDOUT + line.encode() + b"\n" for line in expected.split("\n")[:-1])


def test_an_unfinished_line_waits_for_its_end():
    labeller = Labeller(STDERR)
    assert labeller.feed(b"a\nb") == STDERR + b"a\n"
    assert labeller.feed(b"c\n") == STDERR + b"bc\n"
    assert labeller.finish() == b""


def test_an_endless_line_is_logged_in_parts():
    labeller = Labeller(STDOUT)
    raw = b"".join(labeller.feed(b"x" * 400_000) for _ in range(5))
    assert len(raw) > MAX_PARTIAL_BYTES
    assert split(raw + labeller.finish()) == ("x" * 2_000_000 + "\n", "")


def test_streams_are_told_apart():
    raw = b"lost" + STDOUT + b"a\n" + STDERR + b"b\n" + STDOUT + b"c\xff\n"
    assert split(raw) == ("a\nc\ufffd\n", "b\n")
    assert without_labels(raw[4:]) == "a\nb\nc\ufffd\n"


async def test_followers_get_everything_and_end_with_the_command(tmp_path):
    log = CommandLog(str(tmp_path / "log"))
    log.append(b"1")

    async def follow():
        return b"".join([piece async for piece in log.follow()])

    followers = [asyncio.create_task(follow()) for _ in range(3)]
    for data in (b"2", b"3" * 100_000):
        await asyncio.sleep(0)
        log.append(data)
    assert not any(task.done() for task in followers)
    log.end()
    assert await asyncio.gather(*followers) == [b"12" + b"3" * 100_000] * 3
    assert log.content() == b"12" + b"3" * 100_000
    log.close()


async def test_closing_a_log_releases_its_followers(tmp_path):
    log = CommandLog(str(tmp_path / "log"))

    async def follow():
        return [piece async for piece in log.follow()]

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    log.close()
    assert await task == []
    assert log.content() == b""
