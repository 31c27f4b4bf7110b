"""Known secrets do not turn up in what a cell shows, however its output was cut."""

from __future__ import annotations

import asyncio
import html
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel import outflow
from daytona_kernel.config import DaytonaSettings
from daytona_kernel.redaction import HELD_CHARS, REDACTED, Secrets, StreamRedactor

from .hostile import Victim, line, victim

SECRET = "dtn_5up3r-s3cret/K3y"


def knows(*values: str) -> Secrets:
    secrets = Secrets()
    secrets.add(*values)
    return secrets


def streamed(secrets: Secrets, pieces: list[str]) -> str:
    stream = StreamRedactor(secrets)
    return "".join([*(stream.feed(piece) for piece in pieces), stream.flush()])


@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=12), st.integers(1, len(SECRET) - 1))
def test_a_secret_cut_in_two_is_found(before: str, after: str, cut: int) -> None:
    shown = streamed(knows(SECRET), [before + SECRET[:cut], SECRET[cut:] + after])
    if cut >= HELD_CHARS:
        assert shown == before + REDACTED + after
    else:  # so few characters are shown at once, and no more of it
        assert shown == before + SECRET[:cut] + REDACTED + after


@given(st.lists(st.text("dtn_5up3r", max_size=6), max_size=20), st.integers(1, 5))
def test_what_holds_no_secret_passes_unchanged(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    assert streamed(knows(SECRET), pieces) == text
    assert streamed(knows(SECRET), [text[i : i + size] for i in range(0, len(text), size)]) == text


@given(st.text("ab", max_size=5), st.lists(st.integers(0, 60), max_size=10), st.integers(0, 3))
def test_no_cut_shows_more_than_its_first_characters(around: str, cuts: list[int], times: int) -> None:
    text = around + (SECRET + around) * times
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    shown = streamed(knows(SECRET), [text[a:b] for a, b in itertools.pairwise(edges)])
    assert SECRET[:HELD_CHARS] not in shown
    assert SECRET[HELD_CHARS:] not in shown
    assert shown.count(REDACTED) == times


def test_two_secrets_of_which_one_begins_the_other() -> None:
    secrets = knows("abcdefgh", "abcdefghijkl")
    for pieces in (["abcdefghijkl"], ["abcdefgh", "ijkl"], ["abcd", "efghij", "kl"]):
        assert "efgh" not in streamed(secrets, pieces)


@pytest.mark.parametrize("value", ["", "short", "aaaaaaaaaaaa", "1111000011110000", "abababababab"])
def test_values_that_are_everywhere_are_left(value: str) -> None:
    assert not knows(value)


def test_variables_that_name_places_are_left() -> None:
    secrets = Secrets()
    secrets.add_environment(
        {
            "PATH": "/usr/bin:/bin",
            "TZ": "Europe/Berlin",
            "LANG": "en_US.UTF-8",
            "DATA_DIR": "/home/daytona/data",
        }
    )
    assert not secrets
    secrets.add_environment({"DB_PASSWORD": SECRET, "N": 12345678})
    assert secrets.text(f"{SECRET} 12345678") == f"{REDACTED} {REDACTED}"


def test_other_spellings_are_found() -> None:
    value = 'p"ss<w>&\n\\rd 1'
    secrets = knows(value)
    for spelled in (value, json.dumps(value), repr(value), html.escape(value)):
        assert "ss" not in secrets.text(spelled)


def test_the_secrets_do_not_show_themselves() -> None:
    assert SECRET not in f"{knows(SECRET)!r}{vars(StreamRedactor(knows(SECRET)))}"


# -- on their way through the kernel -------------------------------------------------------------------


def messages_with(one: Victim, type: str, content: dict[str, Any]) -> str:
    one.feed(line(one.execution.receiver.next_number, type, content))
    return json.dumps(one.messages())


async def test_no_message_has_it() -> None:
    async with victim() as one:
        one.session.secrets.add(SECRET)
        one.execution = one.session._execution({"id": "e1", "type": "execute"}, one.running)
        one.reader._execution, one.reader._feed = one.execution, one.execution.feed
        data = {"text/plain": SECRET, "text/html": f"<b>{SECRET}</b>", "application/json": {SECRET: [SECRET]}}
        for type, content in (
            ("stream", {"name": "stdout", "text": f"key: {SECRET}\n"}),
            ("display_data", {"data": data}),
            ("execute_result", {"data": data, "execution_count": 1}),
            ("error", {"ename": SECRET, "evalue": SECRET, "traceback": [f"at {SECRET}"]}),
            ("comm_open", {"comm_id": "c", "target_name": "t", "data": {"state": {"value": SECRET}}}),
        ):
            shown = messages_with(one, type, content)
            assert REDACTED in shown
            assert SECRET not in shown
        reply = {"status": "error", "evalue": SECRET, "traceback": [SECRET], "ename": "E"}
        assert one.running.outflow is not None
        assert SECRET not in json.dumps(one.running.outflow.reply("execute", reply))


async def test_pictures_are_not_touched() -> None:
    async with victim() as one:
        one.session.secrets.add("iVBORw0KGgo")
        shown = messages_with(one, "display_data", {"data": {"image/png": "iVBORw0KGgo="}})
        assert "iVBORw0KGgo=" in shown


async def test_it_can_be_switched_off() -> None:
    async with victim(DaytonaSettings(backend="local", redact_secrets=False)) as one:
        one.session.secrets.add(SECRET)
        assert SECRET in messages_with(one, "stream", {"name": "stdout", "text": SECRET})


async def test_what_waits_comes_before_the_next_message_and_never_later_than_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with victim() as one:
        one.session.secrets.add(SECRET)
        one.feed(line(0, "stream", {"name": "stdout", "text": "is it dtn_5?"}))
        one.feed(line(1, "stream", {"name": "stdout", "text": "\ndtn_5up"}))
        assert [content["text"] for _, content in one.messages()] == ["is it dtn_5?", "\n"]
        one.feed(line(2, "display_data", {"data": {}}))
        assert [kind for kind, _ in one.messages()] == ["stream", "display_data"]
        # with nothing behind it, a timer brings it
        monkeypatch.setattr(outflow, "HOLD_S", 0.01)
        one.feed(line(3, "stream", {"name": "stderr", "text": SECRET[:9]}))
        assert one.messages() == []
        while not (found := one.messages()):
            await asyncio.sleep(0.005)
        assert found == [("stream", {"name": "stderr", "text": SECRET[:9]})]
        # and the rest of it is not shown even then
        one.feed(line(4, "stream", {"name": "stderr", "text": SECRET[9:]}))
        assert [content["text"] for _, content in one.messages()] == [REDACTED]


async def test_texts_of_two_streams_stay_in_their_order() -> None:
    async with victim() as one:
        one.session.secrets.add(SECRET)
        one.feed(line(0, "stream", {"name": "stdout", "text": "a dtn_5"}))
        one.feed(line(1, "stream", {"name": "stderr", "text": "b"}))
        one.feed(line(2, "stream", {"name": "stdout", "text": "c"}))
        assert [content["text"] for _, content in one.messages()] == ["a ", "dtn_5", "b", "c"]
