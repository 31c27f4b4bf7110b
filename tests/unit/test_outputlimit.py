"""How much of a notebook's output is kept: what came, what was cleared, and what is too much."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from daytona_kernel.notebookclient import CUT, RecordingClient


class Cell:
    """A notebook of empty cells, fed with messages."""

    def __init__(self, limit: int, cells: int = 1) -> None:
        self.book = new_notebook(cells=[new_code_cell(id=str(number)) for number in range(cells)])
        self.client = RecordingClient(self.book, max_output=limit)
        self.client.reset_execution_trackers()
        self.client.clear_before_next_output = False  # as nbclient sets it at each cell's start

    def take(self, type: str, cell: int = 0, buffers: list[bytes] | None = None, **content: Any) -> None:
        message = {
            "msg_type": type,
            "content": content,
            "header": {"msg_type": type},
            "parent_header": {},
            "buffers": buffers or [],
        }
        self.client.process_message(message, self.book.cells[cell], cell)

    def text(self, text: str, cell: int = 0) -> None:
        self.take("stream", cell, name="stdout", text=text)

    def display(self, text: str, id: str | None = None, type: str = "display_data") -> None:
        transient = {"display_id": id} if id else {}
        self.take(type, data={"text/plain": text}, metadata={}, transient=transient)

    def outputs(self, cell: int = 0) -> list[str]:
        self.client.join_streams()
        nbformat.validate(self.book)
        return [
            output.text
            if output.output_type == "stream"
            else output.get("data", output).get("text/plain", "")
            for output in self.book.cells[cell].outputs
        ]


def test_what_is_over_the_limit_is_not_kept_and_that_is_said_once() -> None:
    cell = Cell(1000)
    for number in range(5):
        cell.text(f"{number}" * 600)
    cell.display("x" * 600)
    kept, *said = cell.outputs()
    assert kept.rstrip("1") == "0" * 600
    assert 950 < len(kept) <= 1000
    assert said == [CUT]
    assert cell.client.cut_cells == [0]


def test_nothing_is_cut_without_a_limit() -> None:
    cell = Cell(0)
    cell.text("x" * 1000)
    assert cell.outputs() == ["x" * 1000]


@pytest.mark.parametrize("wait", [False, True])
def test_what_was_cleared_does_not_count(wait: bool) -> None:
    cell = Cell(100)
    for number in range(50):
        cell.take("clear_output", wait=wait)
        cell.text(f"{number:60}")
    assert cell.outputs() == [f"{49:60}"]
    assert cell.client.cut_cells == []


def test_a_cell_goes_on_when_it_has_cleared_what_was_too_much() -> None:
    cell = Cell(100)
    cell.text("x" * 60)
    cell.text("x" * 60)
    cell.take("clear_output", wait=True)
    cell.text("short")
    assert cell.outputs() == ["short"]


def test_a_display_that_is_updated_counts_as_it_stands() -> None:
    cell = Cell(1000)
    cell.display("0" * 400, id="a")
    for number in range(50):
        cell.display(f"{number:400}", id="a", type="update_display_data")
    assert cell.outputs() == [f"{49:400}"]
    cell.display("x" * 2000, id="a", type="update_display_data")
    assert cell.outputs() == [f"{49:400}", CUT]


def test_all_cells_count_together() -> None:
    cell = Cell(1000, cells=3)
    cell.text("a" * 500, 0)
    cell.text("b" * 400, 1)
    cell.text("c" * 400, 2)
    cell.text("d", 2)
    assert [cell.outputs(number) for number in range(2)] == [["a" * 500], ["b" * 400]]
    kept, said = cell.outputs(2)
    assert set(kept) == {"c"}
    assert 50 < len(kept) <= 100
    assert said == CUT
    assert cell.client.cut_cells == [2]


def test_the_error_of_a_cell_is_kept_but_not_a_thousand() -> None:
    cell = Cell(100)
    cell.text("x" * 200)
    for _ in range(1000):
        cell.take("error", ename="ValueError", evalue="x" * 50, traceback=[])
    assert [output.output_type for output in cell.book.cells[0].outputs] == ["stream", "stream", "error"]


def test_states_of_widgets_count() -> None:
    cell = Cell(1000)
    for number in range(100):
        cell.take("comm_msg", comm_id=f"{number}", data={"state": {"value": "x" * 100}})
    assert len(cell.client.widget_state) < 10
    assert cell.client.cut_cells == [0]


def test_measuring_stays_rare() -> None:
    cell, measured = Cell(1_000_000), []
    measure = cell.client.limit._kept
    cell.client.limit._kept = lambda: measured.append(1) or measure()  # type: ignore[func-returns-value]
    for _ in range(20_000):
        cell.text("x" * 100)
    assert len(measured) < 5
    assert 800_000 < len(cell.outputs()[0]) <= 1_000_000
