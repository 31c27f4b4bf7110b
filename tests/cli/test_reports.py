"""What other programs are told of a run: JSON and JUnit's XML."""

from __future__ import annotations

import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daytona_kernel import board, reports
from daytona_kernel.notebookrun import Facts
from daytona_kernel.outcome import Outcome, combined_code, is_retryable
from daytona_kernel.reports import Report
from daytona_kernel.selection import Job

BEGAN = 1_790_000_000.0


def job(name: str) -> Job:
    return Job(Path(name), Path("out") / name, name)


REPORTS = [
    Report(job("a/good.ipynb"), Outcome(), Facts(cells=2, done=2), 1.5, 1),
    Report(
        job("a/bad.ipynb"),
        Outcome(
            1,
            "cell 2 failed (ValueError)",
            ["\x1b[31mValueError\x1b[0m: <&>\x00"],
            0,
            2,
            "ValueError",
            "<&>\x00",
        ),
        Facts(cells=3, done=2, sandbox="box", kept=True, notes=["a note"]),
        2.25,
        1,
    ),
    Report(job("gone.ipynb"), Outcome(3, "the sandbox failed", ename="SandboxGone"), Facts(cells=1), 9.0, 3),
    Report(job("late.ipynb"), Outcome(130, "interrupted in cell 1"), Facts(cells=1), 1.0, 1),
    Report(job("never.ipynb")),
]


def test_the_xml_is_what_ci_systems_read(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    reports.write_junit(path, reports.junit(REPORTS, began=BEGAN, seconds=20))
    root = ElementTree.parse(path).getroot()
    (suite,) = root
    counts = {"tests": "5", "failures": "1", "errors": "2", "skipped": "1", "time": "20.000"}
    assert counts.items() <= {**root.attrib, "skipped": "1"}.items()
    assert counts.items() <= suite.attrib.items()
    assert suite.get("timestamp") == "2026-09-21T14:13:20"
    cases = {case.get("name"): case for case in suite}
    assert {name: [child.tag for child in case] for name, case in cases.items()} == {
        "a/good.ipynb": ["system-out"],
        "a/bad.ipynb": ["failure", "system-out"],
        "gone.ipynb": ["error", "system-out"],
        "late.ipynb": ["error", "system-out"],
        "never.ipynb": ["skipped"],
    }
    failure = cases["a/bad.ipynb"].find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.get("type")) == ("cell 2 failed (ValueError)", "ValueError")
    assert failure.text == r"ValueError: <&>\x00"
    assert cases["a/bad.ipynb"].get("classname") == "notebooks.a"
    assert cases["gone.ipynb"].get("classname") == "notebooks"
    assert "attempts: 3" in (cases["gone.ipynb"].findtext("system-out") or "")
    assert "sandbox kept: box" in (cases["a/bad.ipynb"].findtext("system-out") or "")


ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "time"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
    "testcase": {"name", "classname", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message"},
    "system-out": set[str](),
}
"""What all who read JUnit's XML know; Jenkins refuses a file with anything that is not in its schema."""


def test_the_xml_has_nothing_that_a_reader_may_refuse() -> None:
    for element in reports.junit(REPORTS, began=BEGAN, seconds=20).iter():
        assert set(element.attrib) <= ATTRIBUTES[element.tag], element.tag


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_a_notebook_raises_the_xml_can_be_read(text: str) -> None:
    report = Report(job("x.ipynb"), Outcome(1, text, [text], ename=text))
    root = reports.junit([report], began=BEGAN, seconds=1)
    read = ElementTree.fromstring(ElementTree.tostring(root, encoding="utf-8"))
    assert read.find("testsuite/testcase/failure") is not None


def test_the_summary_says_of_each_notebook_what_came_of_it() -> None:
    found = json.loads(json.dumps(reports.summary(REPORTS, code=130, began=BEGAN, seconds=20)))
    assert found["counts"] == {"ok": 1, "failed": 1, "error": 1, "stopped": 1, "not run": 1}
    assert (found["exit_code"], found["started"]) == (130, "2026-09-21T14:13:20+00:00")
    good, bad, gone, _, never = found["notebooks"]
    assert (good["notebook"], good["output"], good["error"]) == ("a/good.ipynb", "out/a/good.ipynb", None)
    assert bad["error"]["cell"] == 2
    assert bad["error"]["traceback"] == r"ValueError: <&>\x00"
    assert (bad["sandbox"], bad["sandbox_kept"], bad["notes"]) == ("box", True, ["a note"])
    assert (gone["attempts"], gone["error"]["cell"]) == (3, None)
    assert (never["status"], never["output"]) == ("not run", None)


@pytest.mark.parametrize(
    ("codes", "code"),
    [([], 0), ([0, 0], 0), ([0, 3, 1], 1), ([3, 0], 3), ([1, 130, 3], 130), ([143, 1], 143)],
)
def test_the_exit_code_of_several_notebooks(codes: list[int], code: int) -> None:
    assert combined_code(codes) == code


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SandboxGone", True),
        ("ConnectionFailed", True),
        ("SandboxCreationFailed", True),
        ("ExecutionUnknown", True),
        ("SandboxProcessDied", False),
        ("CredentialsError", False),
        ("SandboxNotFound", False),
        ("DaytonaNotFoundError", False),
        ("ValueError", False),
    ],
)
def test_only_what_may_go_well_the_next_time_is_tried_again(name: str, expected: bool) -> None:
    assert is_retryable(name) is expected


class Terminal(io.StringIO):
    """A screen: what is on it after all the text and the movements up."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        lines: list[str] = []
        for piece in self.getvalue().split("\x1b["):
            text = piece
            if lines or piece is not self.getvalue():
                move, letter, rest = piece.partition("A")
                if letter and move.isdigit():
                    del lines[len(lines) - int(move) :]
                    text = rest
                elif piece.startswith("J"):
                    text = piece[1:]
            lines += text.split("\n")[:-1]
        return lines


def test_a_terminal_shows_all_that_run_and_keeps_a_line_of_each_that_is_done() -> None:
    out, now = Terminal(), [0.0]
    shown = board.LiveBoard(3, out, clock=lambda: now[0], columns=60)
    first, second = shown.begun(job("a.ipynb")), shown.begun(job("b.ipynb"))
    first.run_started(4)
    second.run_started(2)
    second.cell_started(1, "load()")
    first.cell_started(1, "import os")
    first.cell_ended(1, 0.1, ok=True)
    now[0] = 12.0
    shown.refresh()
    assert out.screen() == [
        "███·········     1/4    12s  a.ipynb  import os",
        "············     0/2    12s  b.ipynb  load()",
        "············ 0 of 3 notebooks, 12s",
    ]
    first.run_ended()
    shown.ended(Report(job("a.ipynb"), Outcome(), Facts(cells=4, done=4), 12.4, 1))
    assert out.screen() == [
        "[1/3] ok         12s  a.ipynb (4/4 cells)",
        "············     0/2    12s  b.ipynb  load()",
        "████········ 1 of 3 notebooks, 12s",
    ]
    shown.close()
    assert out.screen() == ["[1/3] ok         12s  a.ipynb (4/4 cells)"]


def test_a_terminal_that_is_too_small_shows_as_many_as_it_can() -> None:
    """A line that is wrapped, or has left the screen, would stay there at the next drawing."""
    out = Terminal()
    shown = board.LiveBoard(6, out, clock=lambda: 0.0, columns=40, rows=5)
    for number in range(6):
        row = shown.begun(job(f"報告書{number}.ipynb"))
        row.run_started(1)
        row.cell_started(1, "計算する\t(長い名前のデータ)")
    assert out.screen() == [
        "············     0/1   0.0s  報告書0.ip",
        "············     0/1   0.0s  報告書1.ip",
        "and 4 more",
        "············ 0 of 6 notebooks, 0.0s",
    ]
    tiny = board.LiveBoard(2, out := Terminal(), clock=lambda: 0.0, columns=40, rows=2)
    tiny.begun(job("a.ipynb"))
    assert out.screen() == ["············ 0 of 2 notebooks, 0.0s"]


def test_a_log_gets_a_line_for_each_notebook_and_no_movement() -> None:
    out = io.StringIO()
    shown = board.make_board(True, 5, out)
    for report in REPORTS[:3]:
        shown.begun(report.job).run_started(1)
        shown.ended(report)
    shown.close()
    assert out.getvalue().splitlines() == [
        "[1/5] ok        1.5s  a/good.ipynb (2/2 cells)",
        "[2/5] FAILED    2.2s  a/bad.ipynb (2/3 cells): cell 2 failed (ValueError)",
        "[3/5] ERROR     9.0s  gone.ipynb (0/1 cells, 3 attempts): the sandbox failed",
    ]


def test_without_progress_nothing_is_shown() -> None:
    out = Terminal()
    shown = board.make_board(False, 2, out)
    shown.begun(job("a.ipynb")).run_started(1)
    shown.ended(REPORTS[0])
    shown.close()
    assert out.getvalue() == ""
