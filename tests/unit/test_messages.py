"""What the sandbox sends becomes one of Jupyter's output messages, well formed, or nothing."""

from __future__ import annotations

from typing import Any

import pytest

from daytona_kernel.messages import clean_text, cleaned, well_formed


@pytest.mark.parametrize(
    ("type", "content"),
    [
        ("stream", {"name": "stdout", "text": "hi\n"}),
        ("display_data", {"data": {"text/plain": "1"}, "metadata": {}, "transient": {"display_id": "a"}}),
        ("update_display_data", {"data": {}, "metadata": {}, "transient": {}}),
        ("execute_result", {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 3}),
        ("execute_result", {"data": {}, "metadata": {}, "execution_count": 3, "transient": {"a": "x"}}),
        ("error", {"ename": "E", "evalue": "v", "traceback": ["a", "b"]}),
        ("clear_output", {"wait": True}),
        ("comm_open", {"comm_id": "c", "target_name": "t", "target_module": None, "data": {"a": 1}}),
        ("comm_msg", {"comm_id": "c", "data": [1]}),
        ("comm_close", {"comm_id": "c", "data": {}}),
    ],
)
def test_a_message_of_a_cell_passes_as_it_is(type: str, content: dict[str, Any]) -> None:
    assert well_formed(type, content) == content


@pytest.mark.parametrize(
    ("type", "content"),
    [
        ("stream", {"name": "stdlog", "text": "x"}),
        ("stream", {"name": "stdout", "text": 5}),
        ("display_data", {"data": "x"}),
        ("execute_result", {"data": {}, "execution_count": "1"}),
        ("execute_result", {"data": {}, "execution_count": True}),
        ("comm_open", {"comm_id": "c"}),
        ("comm_msg", {"comm_id": 1, "data": {}}),
        ("status", {"execution_state": "idle"}),
        ("execute_input", {"code": "x", "execution_count": 1}),
        ("execute_reply", {"status": "ok"}),
        ("shutdown_reply", {"restart": False}),
        ("debug_event", {}),
        ("kernel_info_reply", {}),
        ("", {}),
    ],
)
def test_anything_else_is_dropped(type: str, content: dict[str, Any]) -> None:
    assert well_formed(type, content) is None


def test_fields_that_do_not_belong_are_left_out_and_missing_ones_are_filled_in() -> None:
    assert well_formed("display_data", {"data": {}, "metadata": 3, "x": 1}) == {
        "data": {},
        "metadata": {},
        "transient": {},
    }
    assert well_formed("error", {"traceback": [1, None]}) == {
        "ename": "None",
        "evalue": "None",
        "traceback": ["1", "None"],
    }
    assert well_formed("comm_msg", {"comm_id": "c"}) == {"comm_id": "c", "data": {}}


def test_lone_surrogates_are_replaced_and_pairs_joined() -> None:
    assert clean_text("a\ud800b") == "a\ufffdb"
    assert clean_text("\ud83d\ude00") == "\U0001f600"
    assert clean_text("é") == "é"
    assert cleaned({"\udc80": ["\ud800", 1, None, {"k": "ok"}]}) == {
        "\ufffd": ["\ufffd", 1, None, {"k": "ok"}]
    }
