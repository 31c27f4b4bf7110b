"""Parameters of a notebook, by papermill's rules, so that the same notebooks work with both.

The cell tagged ``parameters`` holds the defaults. The values of a run go into a cell of their own right after
it, tagged ``injected-parameters``; one that is there from an earlier run is replaced. In a notebook without
the former the values come first.
"""

from __future__ import annotations

import ast
import json
import keyword
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

TAG = "parameters"
INJECTED_TAG = "injected-parameters"
_WORDS = {"True": True, "False": False, "None": None}


class ParameterError(Exception):
    """A parameter that can not be; the text is a sentence for the user."""


def typed(text: str) -> Any:
    """The value of ``-p NAME TEXT``: a truth value, ``None``, an integer, a float, or else the text."""
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def collect(
    pairs: Iterable[tuple[str, str]], raw: Iterable[tuple[str, str]] = (), files: Iterable[Path] = ()
) -> dict[str, Any]:
    """All parameters: of *files* first, then *raw* (always text), then *pairs*, the later ones win.

    Raises :exc:`ParameterError` for a name that Python can not have, or a file that holds none.
    """
    found: dict[str, Any] = {}
    for path in files:
        found |= _read(path)
    found |= dict(raw)
    found |= {name: typed(text) for name, text in pairs}
    for name in found:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise ParameterError(f"a parameter can not be named {name!r}")
    return found


def _read(path: Path) -> dict[str, Any]:
    """Read a file of parameters: JSON, or YAML where PyYAML is installed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ParameterError(f"cannot read the parameters in {path}: {exc}") from exc
    try:
        found = json.loads(text) if path.suffix not in (".yaml", ".yml") else _load_yaml(text, path)
    except ValueError as exc:
        raise ParameterError(f"the parameters in {path} are no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise ParameterError(f"{path} holds no parameters: names with values are expected")
    return found


def _load_yaml(text: str, path: Path) -> Any:
    import importlib

    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError as exc:
        raise ParameterError(f"to read {path}, install PyYAML or write the parameters as JSON") from exc
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ParameterError(f"the parameters in {path} are no YAML: {exc}") from exc


def inject(notebook: NotebookNode, parameters: Mapping[str, Any]) -> list[str]:
    """Put the *parameters* into *notebook*; the names among them that its own cell does not set.

    Such a name is not wrong, but often misspelt. A notebook without a cell of defaults has none to compare.
    """
    from nbformat.v4 import new_code_cell

    if not parameters:
        return []
    cell = new_code_cell(assignments(parameters), metadata={"tags": [INJECTED_TAG]})  # type: ignore[no-untyped-call]
    if notebook.nbformat_minor < 5:
        cell.pop("id", None)
    defaults, injected = _find(notebook, TAG), _find(notebook, INJECTED_TAG)
    if injected is not None:
        notebook.cells[injected] = cell
    else:
        notebook.cells.insert(0 if defaults is None else defaults + 1, cell)
    if defaults is None:
        return []
    known = _assigned(notebook.cells[defaults].source)
    return [] if known is None else sorted(parameters.keys() - known)


def assignments(parameters: Mapping[str, Any]) -> str:
    """The source of the cell that sets them."""
    return "\n".join(["# Parameters", *(f"{name} = {literal(value)}" for name, value in parameters.items())])


def literal(value: Any) -> str:
    """Python source of a value that came from JSON, YAML or the command line."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    return repr(str(value))  # a date of YAML, say


def _find(notebook: NotebookNode, tag: str) -> int | None:
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and tag in cell.metadata.get("tags", []):
            return index
    return None


def _assigned(source: str) -> set[str] | None:
    """The names that *source* sets at its top level; ``None`` if that can not be told."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    names = (node for statement in tree.body for node in ast.walk(statement))
    return {node.id for node in names if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
