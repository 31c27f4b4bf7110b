"""The mutants fit the table of threats and the code. They are run by ``python -m tests.security.mutants``."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .mutants.model import Mutant, mutant
from .mutants.table import MUTANTS, label
from .mutants.workshop import Results, read_results, verdict
from .test_threat_table import rows

PACKAGE = Path(__file__).resolve().parents[2] / "daytona_kernel"


def named_in(row: list[str]) -> set[str]:
    return {f"{file}::{name}" for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", row[4])}


def test_every_row_has_mutants_and_every_test_fails_with_one() -> None:
    for row in rows():
        ours = [one for one in MUTANTS if one.threat == f"{row[0]}: {row[2]}"]
        assert ours, f"no mutant for {row[0]}: {row[2]}"
        assert {test for one in ours for test in one.fails} == named_in(row), row


def test_no_mutant_is_for_a_row_that_is_not_there() -> None:
    assert {one.threat for one in MUTANTS} == {f"{row[0]}: {row[2]}" for row in rows()}
    assert len({label(one) for one in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("one", MUTANTS, ids=label)
def test_what_a_mutant_changes_is_there_once_and_stays_python(one: Mutant) -> None:
    changed: dict[str, str] = {}
    for edit in one.edits:
        text = changed.get(edit.file) or (PACKAGE / edit.file).read_text(encoding="utf-8")
        assert text.count(edit.old) == 1, f"{edit.file} has {text.count(edit.old)} times {edit.old!r}"
        changed[edit.file] = text.replace(edit.old, edit.new)
    for file, text in changed.items():
        assert text != (PACKAGE / file).read_text(encoding="utf-8")
        compile(text, file, "exec", dont_inherit=True)


ONE = mutant("a: b", "f.py", "old", "new", "x/test_a.py::test_b")


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (Results(failed={"x/test_a.py::test_b": ["AssertionError: no"]}), ""),
        (
            Results(failed={"x/test_a.py::test_b[1]": ["assert 1 == 2"]}, passed={"x/test_a.py::test_b[2]"}),
            "",
        ),
        (Results(passed={"x/test_a.py::test_b"}), "SURVIVED"),
        (Results(failed={"x/test_a.py::test_bb": ["AssertionError"]}), "SURVIVED"),
        (Results(failed={"x/test_a.py::test_b": ["ImportError: no"]}), "another reason"),
        (Results(failed={"x/test_a.py::test_b": ["assert 1"]}, broken=["a fixture"]), "something else broke"),
        (Results(), "SURVIVED"),
    ],
)
def test_only_a_failed_assertion_kills(results: Results, said: str) -> None:
    assert (said in verdict(ONE, results)) if said else not verdict(ONE, results)


def test_results_are_read_from_pytest_s_report(tmp_path: Path) -> None:
    suite = ElementTree.Element("testsuite")
    for name, tag in (("good", ""), ("bad", "failure"), ("broken", "error"), ("out[a/b]", "skipped")):
        case = ElementTree.SubElement(suite, "testcase", classname="tests.x.test_a", name=f"test_{name}")
        if tag:
            ElementTree.SubElement(case, tag, message=f"because {name}")
    ElementTree.ElementTree(suite).write(tmp_path / "results.xml")
    results = read_results(tmp_path / "results.xml")
    assert results.passed == {"x/test_a.py::test_good"}
    assert results.failed == {"x/test_a.py::test_bad": ["because bad"]}
    assert results.skipped == {"x/test_a.py::test_out[a/b]": "because out[a/b]"}
    assert results.broken == ["x/test_a.py::test_broken: because broken"]
