"""Parameters go into a notebook by papermill's rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from daytona_kernel import cli, parameters, runcommand
from daytona_kernel.parameters import ParameterError, collect


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e3", 1000.0),
        ("True", True),
        ("False", False),
        ("None", None),
        ("true", "true"),
        ("2024-01-02", "2024-01-02"),
        ("", ""),
        ("[1]", "[1]"),
    ],
)
def test_words_of_the_command_line_have_the_types_that_papermill_gives_them(text: str, value: Any) -> None:
    found = parameters.typed(text)
    assert (found, type(found)) == (value, type(value))


def test_a_value_may_look_like_an_option() -> None:
    words = ["run", "a.ipynb", "-p", "x", "-1e-5", "--parameter", "w", "--fast", "-r", "y", "-y", "-j", "2"]
    found = runcommand.shielded(words)
    args = cli.build_parser().parse_args(found)
    assert args.jobs == 2
    assert collect(runcommand.bare(args.parameter), runcommand.bare(args.parameter_raw)) == {
        "x": -1e-5,
        "w": "--fast",
        "y": "-y",
    }


def test_later_ways_to_set_a_parameter_win(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"a": 1, "b": [1, {"x": None}], "c": 0}))
    found = parameters.collect([("c", "3")], [("a", "7")], [file])
    assert found == {"a": "7", "b": [1, {"x": None}], "c": 3}


@pytest.mark.parametrize("name", ["1a", "a-b", "class", "", "a.b"])
def test_a_name_that_python_can_not_have_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="can not be named"):
        parameters.collect([(name, "1")])


@pytest.mark.parametrize("content", ["", "[1]", "{", "\udcff"])
def test_a_file_that_holds_no_parameters_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "p.json"
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ParameterError, match=r"p\.json"):
        parameters.collect([], [], [file])


def cells(notebook: Any) -> list[tuple[str, list[str]]]:
    return [(cell.source, list(cell.metadata.get("tags", []))) for cell in notebook.cells]


def test_values_come_right_after_the_defaults_and_replace_those_of_an_earlier_run() -> None:
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# Title"),
            new_code_cell("n = 1\nname = 'x'", metadata={"tags": ["parameters"]}),
            new_code_cell("print(n)"),
        ]
    )
    assert parameters.inject(notebook, {"n": 2}) == []
    assert parameters.inject(notebook, {"n": 3, "nmae": "y"}) == ["nmae"]
    assert cells(notebook) == [
        ("# Title", []),
        ("n = 1\nname = 'x'", ["parameters"]),
        ("# Parameters\nn = 3\nnmae = 'y'", ["injected-parameters"]),
        ("print(n)", []),
    ]


def test_without_defaults_the_values_come_first() -> None:
    notebook = new_notebook(cells=[new_code_cell("print(n)")])
    assert parameters.inject(notebook, {"n": 2}) == []
    assert [source for source, _ in cells(notebook)] == ["# Parameters\nn = 2", "print(n)"]


def test_no_parameters_leave_the_notebook_as_it_is() -> None:
    notebook = new_notebook(cells=[new_code_cell("1")])
    parameters.inject(notebook, {})
    assert len(notebook.cells) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(VALUES)
def test_every_value_is_the_same_after_it_was_written_as_python(value: Any) -> None:
    scope: dict[str, Any] = {}
    exec(parameters.assignments({"value": value}), scope)
    assert scope["value"] == value
