"""``docs/security.md``: the table of threats names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "security.md"
HEADER = "| asset | attacker | path | defence | test |"


def rows() -> list[list[str]]:
    """The cells of the table's rows."""
    _, _, table = PAGE.read_text(encoding="utf-8").partition(HEADER)
    lines = [line for line in table.split("\n\n")[0].strip().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_row_names_tests_that_exist() -> None:
    found = rows()
    assert len(found) > 40
    for row in found:
        assert len(row) == 5, row
        assert all(row), row
        names = re.findall(r"`([\w/]+\.py)::(\w+)`", row[4])
        assert names, row
        assert row[4].count("`") == 2 * len(names), row
        for file, name in names:
            tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
            defined = {node.name for node in tree.body if isinstance(node, kinds)}
            assert name in defined, f"{file} has no {name}"


def test_no_threat_is_listed_twice() -> None:
    keys = [tuple(row[:3]) for row in rows()]
    assert len(keys) == len(set(keys))
